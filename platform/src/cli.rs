//! The command line: its flags, its subcommands and the text of `--help`.
//!
//! It does not check values: which key a flag sets, and whether its value is right, is decided in `config`, so that
//! a flag, a variable and a line of a file are refused with the same message.

mod store;

use clap::{ArgAction, ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::error::StartError;
use crate::secret::Secret;

pub use store::StoreCommand;

/// The text of `--help` below the flags.
const CONFIGURATION: &str = "\
Configuration, each level wins over the one before it:
  1. the defaults of the platform, built into the program
  2. the service's own configuration (configs/default.yaml), built into the program
  3. the YAML file given with --config; it holds only the keys that differ
  4. the environment: SERVER__<SECTION>__<KEY>, for example SERVER__HTTP__BODY_LIMIT=2MiB;
     PORT is the port. MONGODB_URI, MONGO_URI and DATABASE_URL are --db_url, REDIS_URL is
     cache.url. If MONGODB_HOST is set, it is --db_host, and so are MONGODB_PORT, MONGODB_NAME,
     MONGODB_USER and MONGODB_PASSWORD for the other flags of MongoDB
  5. the flags above; each is also accepted with - for _

The subcommand `config` prints the values in effect and where each of them comes from;
`config --manual` prints every key with its default and its description.
`store copy FROM TO` moves all documents to another store, `store migrate`
brings them into a new shape (docs/STORES.md).
`healthcheck` asks the running server whether it is ready; `doctor` looks for what would keep a
server from working, and says what to do about it (docs/OPERATIONS.md).
Exit codes: 0 a clean stop, 1 the start failed (port in use), 2 the configuration is wrong,
3 a stop that cut what was in flight.";

const DB_URL: &str = "\
Where documents are kept: sqlite:PATH, memory:, file:DIR,
mongodb://... or postgres://...";

const DB_PASSWORD: &str = "\
MongoDB password [default: none]; `ps` shows it to every user of
the machine, so prefer the variable MONGODB_PASSWORD";

/// A server with pluggable infrastructure: store, locks, log sinks and TLS by configuration alone.
#[derive(Debug, Parser)]
#[command(after_help = CONFIGURATION, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do; without a subcommand the server runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings that are given on the command line.
    #[command(flatten)]
    pub flags: Flags,
    /// The number of this process among those of a supervisor, which alone gives it.
    #[arg(long, hide = true)]
    pub worker: Option<u16>,
}

/// What the command line asks for.
pub enum Invocation {
    /// The server, or a subcommand of the platform.
    Platform(Cli),
    /// A subcommand of the app.
    App {
        /// The settings given on the command line.
        flags: Flags,
        /// The name of the subcommand.
        name: String,
        /// What was given to it.
        matches: ArgMatches,
    },
}

impl Invocation {
    /// Reads the command line of this process; `--help`, `--version` and a mistake end the process. The name and the
    /// version are those of the service; `defaults` has the flags with the defaults that `--help` shows; `commands` are
    /// the subcommands of the app. One that takes a name of the platform is an error.
    pub fn read<'a>(
        name: &'static str,
        version: &'static str,
        defaults: &[(&str, String)],
        commands: impl Iterator<Item = &'a clap::Command>,
    ) -> Result<Self, StartError> {
        let mut command = command(name, version, defaults);
        for of_app in commands {
            check_names(&command, of_app)?;
            command = command.subcommand(of_app);
        }
        Ok(Self::of(&command.get_matches()).unwrap_or_else(|error| error.exit()))
    }

    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some((name, of_app)) if !Command::has_subcommand(name) => Ok(Self::App {
                flags: Flags::from_arg_matches(matches)?,
                name: name.to_owned(),
                matches: of_app.clone(),
            }),
            _ => Cli::from_arg_matches(matches).map(Self::Platform),
        }
    }
}

/// Refuses a subcommand of the app with a name that is taken: clap would panic, or take one for the other.
fn check_names(command: &clap::Command, of_app: &clap::Command) -> Result<(), StartError> {
    let name = of_app.get_name();
    for taken in command.get_subcommands() {
        let names = || taken.get_name_and_visible_aliases().into_iter().chain(taken.get_all_aliases());
        let mut of_app = of_app.get_all_aliases().chain([name]);
        if let Some(same) = of_app.find(|one| names().any(|taken| taken == *one)) {
            return Err(StartError::failed(format!(
                "subcommand {name}: there is a subcommand '{same}' already"
            )));
        }
    }
    check_flags(command, of_app)
}

/// Refuses an argument of a subcommand, or of one below it, with a name that a flag of every subcommand has.
fn check_flags(command: &clap::Command, of_app: &clap::Command) -> Result<(), StartError> {
    let name = of_app.get_name();
    let flags: Vec<_> = command.get_arguments().filter(|flag| flag.is_global_set()).collect();
    for argument in of_app.get_arguments() {
        let longs = argument.get_long_and_visible_aliases().unwrap_or_default();
        for flag in &flags {
            let names = [flag.get_long(), Some(flag.get_id().as_str())].into_iter().flatten();
            let names: Vec<_> = names.chain(flag.get_all_aliases().unwrap_or_default()).collect();
            let mut own = longs.iter().copied().chain([argument.get_id().as_str()]);
            if let Some(same) = own.find(|one| names.contains(one)) {
                let error =
                    format!("subcommand {name}: the argument '{same}' is a flag of every subcommand already");
                return Err(StartError::failed(error));
            }
        }
    }
    of_app.get_subcommands().try_for_each(|below| check_flags(command, below))
}

/// The definition of the command line.
fn command(name: &'static str, version: &'static str, defaults: &[(&str, String)]) -> clap::Command {
    let shown = |flag: &str| defaults.iter().find(|(name, _)| name.strip_prefix("--") == Some(flag));
    Cli::command().name(name).version(version).mut_args(|argument| {
        let Some((_, default)) = argument.get_long().and_then(shown) else { return argument };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let help = format!("{help} [default: {default}]");
        argument.help(help)
    })
}

/// What the program does instead of running the server.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Print the configuration in effect, the origin of each value, and secrets as ***
    Config {
        /// Print every key with its default and its description instead
        #[arg(long)]
        manual: bool,
    },
    /// Print the route table
    Routes,
    /// Write a certificate and its key for HTTPS on this machine, for development
    Keys {
        /// Replace those that are there
        #[arg(long)]
        overwrite: bool,
    },
    /// Print a new key for auth.keys
    #[cfg(feature = "auth")]
    Secrets,
    /// Copy the documents of a store, or bring them into a new shape
    #[command(subcommand)]
    Store(StoreCommand),
    /// Ask /ready of the server that runs with this configuration: exit code 0 or 1
    Healthcheck,
    /// Examine port, store, locks, cache, disk, clock and limits: exit code 0 or 1
    Doctor,
}

/// The flags. A value stays text here; `None` means that the flag was not given.
///
/// The names with underscores are those of the original server; each is also accepted with hyphens.
#[derive(Clone, Debug, Default, Args)]
pub struct Flags {
    /// YAML file with the keys that differ from the defaults
    #[arg(long, global = true, value_name = "FILE", help_heading = "Server")]
    pub config: Option<std::path::PathBuf>,
    /// Address or name to listen on; 0.0.0.0 is every interface
    #[arg(long, global = true, value_name = "ADDR", help_heading = "Server")]
    pub host: Option<String>,
    /// TCP port to listen on; 0 takes any free one
    #[arg(long, global = true, value_name = "PORT", help_heading = "Server")]
    pub port: Option<String>,
    /// Processes that serve, 0 is one per core; a supervisor replaces
    /// those that die, and SIGHUP reloads the configuration
    #[arg(verbatim_doc_comment)]
    #[arg(long, global = true, value_name = "N", help_heading = "Server")]
    pub proc: Option<String>,
    /// Name of the environment, for the application
    #[arg(long, global = true, value_name = "NAME", help_heading = "Server")]
    pub env: Option<String>,
    /// Serve HTTPS, with the certificate of server.tls; `keys` writes
    /// one for development
    #[arg(verbatim_doc_comment)]
    #[arg(long, global = true, value_name = "BOOL", help_heading = "Server")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ssl: Option<String>,
    /// Put traces into error bodies and log more; give it twice to allow
    /// that on an address that other machines can reach
    #[arg(long, global = true, verbatim_doc_comment, help_heading = "Server", action = ArgAction::Count)]
    pub debug: u8,

    /// Send the log to this host by UDP syslog too
    #[arg(
        long = "log_host",
        alias = "log-host",
        global = true,
        value_name = "HOST",
        help_heading = "Logging"
    )]
    pub log_host: Option<String>,
    /// UDP port of that host
    #[arg(
        long = "log_port",
        alias = "log-port",
        global = true,
        value_name = "PORT",
        help_heading = "Logging"
    )]
    pub log_port: Option<String>,

    /// Where documents are kept.
    #[arg(long = "db_url", alias = "db-url", global = true, value_name = "URL", help_heading = "Database")]
    #[arg(value_parser = secret, help = DB_URL)]
    pub db_url: Option<Secret>,
    /// MongoDB host; any of these five means MongoDB [default: localhost]
    #[arg(verbatim_doc_comment)]
    #[arg(
        long = "db_host",
        alias = "db-host",
        global = true,
        value_name = "HOST",
        help_heading = "Database"
    )]
    pub db_host: Option<String>,
    /// MongoDB port [default: 27017]
    #[arg(
        long = "db_port",
        alias = "db-port",
        global = true,
        value_name = "PORT",
        help_heading = "Database"
    )]
    pub db_port: Option<String>,
    /// Name of the MongoDB database.
    #[arg(
        long = "db_name",
        alias = "db-name",
        global = true,
        value_name = "NAME",
        help_heading = "Database"
    )]
    #[arg(help = "MongoDB database [default: axum_boilerplate]")]
    pub db_name: Option<String>,
    /// MongoDB user [default: none]
    #[arg(
        long = "db_user",
        alias = "db-user",
        global = true,
        value_name = "USER",
        help_heading = "Database"
    )]
    pub db_user: Option<String>,
    /// Password of the MongoDB user.
    #[arg(long = "db_password", alias = "db-password", global = true, value_name = "PASSWORD")]
    #[arg(value_parser = secret, help_heading = "Database", help = DB_PASSWORD)]
    pub db_password: Option<Secret>,

    /// Keep locks in etcd, for several machines
    #[arg(long = "lock_server", alias = "lock-server", global = true, help_heading = "Lock server")]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub lock_server: Option<String>,
    /// etcd host
    #[arg(long = "lock_server_host", alias = "lock-server-host", global = true, value_name = "HOST")]
    #[arg(help_heading = "Lock server")]
    pub lock_server_host: Option<String>,
    /// etcd port
    #[arg(long = "lock_server_port", alias = "lock-server-port", global = true, value_name = "PORT")]
    #[arg(help_heading = "Lock server")]
    pub lock_server_port: Option<String>,
}

#[expect(clippy::unnecessary_wraps, reason = "clap wants a parser that may fail")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    /// Reads one flag.
    type Read = fn(&Flags) -> Option<&str>;

    /// Each flag of the original that has a value.
    const VALUED: [(&str, Read); 13] = [
        ("proc", |flags| flags.proc.as_deref()),
        ("port", |flags| flags.port.as_deref()),
        ("env", |flags| flags.env.as_deref()),
        ("log_host", |flags| flags.log_host.as_deref()),
        ("log_port", |flags| flags.log_port.as_deref()),
        ("db_host", |flags| flags.db_host.as_deref()),
        ("db_port", |flags| flags.db_port.as_deref()),
        ("db_name", |flags| flags.db_name.as_deref()),
        ("db_user", |flags| flags.db_user.as_deref()),
        ("db_password", |flags| flags.db_password.as_ref().map(Secret::expose)),
        ("db_url", |flags| flags.db_url.as_ref().map(Secret::expose)),
        ("lock_server_host", |flags| flags.lock_server_host.as_deref()),
        ("lock_server_port", |flags| flags.lock_server_port.as_deref()),
    ];

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("server").chain(words.iter().copied()))
    }

    fn help(defaults: &[(&str, String)]) -> String {
        command("orders", "1.2.3", defaults).render_long_help().to_string()
    }

    #[test]
    fn a_subcommand_of_the_app_comes_with_the_flags_of_the_platform() {
        let seed = clap::Command::new("seed").arg(clap::Arg::new("count"));
        let command = command("server", "1.0.0", &[]).subcommands([seed]);
        let of = |words: &[&str]| {
            let words = std::iter::once("server").chain(words.iter().copied());
            Invocation::of(&command.clone().try_get_matches_from(words).unwrap()).unwrap()
        };
        for words in [["seed", "3", "--port", "1"], ["--port", "1", "seed", "3"]] {
            let Invocation::App { flags, name, matches } = of(&words) else { panic!("{words:?}") };
            let count = matches.get_one::<String>("count").map(String::as_str);
            assert_eq!((name.as_str(), count, flags.port.as_deref()), ("seed", Some("3"), Some("1")));
        }
        // The control: a subcommand of the platform.
        let Invocation::Platform(cli) = of(&["routes"]) else { panic!("routes") };
        assert_eq!(cli.command, Some(Command::Routes));
    }

    #[test]
    fn a_subcommand_of_the_app_with_a_name_that_is_taken_is_refused_and_named() {
        use clap::{Arg, Command};
        let platform = || command("server", "1.0.0", &[]);
        let refused = |of_app: &Command| check_names(&platform(), of_app).unwrap_err().to_string();
        let taken = "subcommand routes: there is a subcommand 'routes' already";
        assert_eq!(refused(&Command::new("routes")), taken);
        let taken = "subcommand seed: there is a subcommand 'config' already";
        assert_eq!(refused(&Command::new("seed").alias("config")), taken);
        for argument in [Arg::new("config"), Arg::new("x").long("port"), Arg::new("x").long("db-url")] {
            let below = Command::new("seed").subcommand(Command::new("below").arg(argument));
            let error = refused(&below);
            assert!(error.starts_with("subcommand below: the argument '"), "{error}");
        }
        // The control: names that are free.
        let free = Command::new("seed").alias("sow").arg(Arg::new("count").long("count"));
        check_names(&platform(), &free).unwrap();
        let twice = check_names(&platform().subcommand(free), &Command::new("sow")).unwrap_err();
        assert!(twice.to_string().contains("'sow'"), "{twice}");
    }

    #[test]
    fn the_definition_is_consistent() {
        command("orders", "1.2.3", &[]).debug_assert();
    }

    #[test]
    fn the_help_names_the_service_and_shows_the_defaults_that_it_is_given() {
        let port = |defaults: &[(&str, String)]| {
            let help = help(defaults);
            let start = help.find("--port <PORT>").unwrap();
            help[start..].split("--proc").next().unwrap().to_owned()
        };
        assert!(port(&[("--port", "8123".to_owned())]).contains("[default: 8123]"));
        // The control: a default of another flag.
        assert!(!port(&[("--log_port", "8123".to_owned())]).contains("[default"));
        assert!(help(&[]).contains("Usage: orders [OPTIONS]"), "{}", help(&[]));
        assert_eq!(command("orders", "1.2.3", &[]).render_version(), "orders 1.2.3\n");
    }

    #[test]
    fn every_flag_of_the_original_is_read_with_underscores_and_with_hyphens() {
        for (name, read) in VALUED {
            for spelling in [name.to_owned(), name.replace('_', "-")] {
                let separate = parse(&[&format!("--{spelling}"), "77"]).unwrap();
                let joined = parse(&[&format!("--{spelling}=77")]).unwrap();
                assert_eq!(read(&separate.flags), Some("77"), "--{spelling} 77");
                assert_eq!(read(&joined.flags), Some("77"), "--{spelling}=77");
            }
        }
        // The control: another spelling is refused.
        assert_eq!(parse(&["--dbhost", "77"]).unwrap_err().kind(), ErrorKind::UnknownArgument);
    }

    #[test]
    fn a_switch_needs_no_value_and_can_be_turned_off() {
        for spelling in ["--lock_server", "--lock-server"] {
            assert_eq!(parse(&[spelling]).unwrap().flags.lock_server.as_deref(), Some("true"));
        }
        assert_eq!(parse(&["--ssl"]).unwrap().flags.ssl.as_deref(), Some("true"));
        assert_eq!(parse(&["--ssl=false"]).unwrap().flags.ssl.as_deref(), Some("false"));
        assert_eq!(parse(&[]).unwrap().flags.ssl, None);
    }

    #[test]
    fn a_switch_does_not_swallow_the_subcommand_after_it() {
        let cli = parse(&["--ssl", "config"]).unwrap();
        assert_eq!(cli.command, Some(Command::Config { manual: false }));
    }

    #[test]
    fn flags_stand_before_or_after_the_subcommand() {
        for words in [["--port", "1", "routes"], ["routes", "--port", "1"]] {
            let cli = parse(&words).unwrap();
            assert_eq!((cli.command, cli.flags.port.as_deref()), (Some(Command::Routes), Some("1")));
        }
    }

    #[test]
    fn debug_is_counted() {
        assert_eq!(parse(&[]).unwrap().flags.debug, 0);
        assert_eq!(parse(&["--debug"]).unwrap().flags.debug, 1);
        assert_eq!(parse(&["--debug", "config"]).unwrap().flags.debug, 1);
        assert_eq!(parse(&["config", "--debug", "--debug"]).unwrap().flags.debug, 2);
    }

    #[test]
    fn an_unknown_flag_ends_with_exit_code_2_and_a_suggestion() {
        let error = parse(&["--prot", "1"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("'--port'"), "{error}");
    }

    #[test]
    fn secrets_are_not_in_the_debug_form() {
        let cli = parse(&["--db_password", "hunter2", "--db_url", "mongodb://a:hunter2@h"]).unwrap();
        assert!(!format!("{cli:?}").contains("hunter2"));
    }

    #[test]
    fn the_help_lists_each_flag_once_within_100_columns() {
        let longest = ("--db_url", "sqlite:var/server.sqlite".to_owned());
        let help = help(&[longest]);
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        let shown = Cli::command();
        let shown = shown.get_arguments().filter(|argument| !argument.is_hide_set());
        for flag in shown.filter_map(clap::Arg::get_long) {
            let listed = help.lines().filter(|line| {
                let words = line.trim_start().trim_start_matches("-h, ").trim_start_matches("-V, ");
                words.split(['[', ' ', '=', '.']).next() == Some(&format!("--{flag}"))
            });
            assert_eq!(listed.count(), 1, "--{flag} in\n{help}");
        }
        for heading in ["Server:", "Logging:", "Database:", "Lock server:", "Configuration,"] {
            assert_eq!(help.lines().filter(|line| line.starts_with(heading)).count(), 1, "{heading}");
        }
    }
}
