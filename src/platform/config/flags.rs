//! What the flags of the command line set: one line per flag; the defaults say what type a value has.

use super::database;
use super::keys;
use super::tree::{Node, Origin};
use crate::platform::cli::Flags;
use crate::platform::error::StartError;
use crate::platform::secret::Secret;

/// The flags that set one key each: the flag, the key, the value.
fn rows(flags: &Flags) -> [(&'static str, &'static str, Option<&str>); 12] {
    let debug = match flags.debug {
        0 => None,
        1 => Some("on"),
        _ => Some("exposed"),
    };
    [
        ("--host", "server.host", flags.host.as_deref()),
        ("--port", "server.port", flags.port.as_deref()),
        ("--proc", "server.processes", flags.proc.as_deref()),
        ("--env", "server.env", flags.env.as_deref()),
        ("--ssl", "server.ssl", flags.ssl.as_deref()),
        ("--debug", "server.debug", debug),
        ("--log_host", "logging.udp.host", flags.log_host.as_deref()),
        ("--log_port", "logging.udp.port", flags.log_port.as_deref()),
        ("--db_url", database::KEY, flags.db_url.as_ref().map(Secret::expose)),
        ("--lock_server", "lock.server", flags.lock_server.as_deref()),
        ("--lock_server_host", "lock.host", flags.lock_server_host.as_deref()),
        ("--lock_server_port", "lock.port", flags.lock_server_port.as_deref()),
    ]
}

/// Lays what the flags set over the tree. `database` has the parts of a database URL that the environment gave:
/// a password from there completes a host from here.
pub(super) fn overlay(
    tree: &mut Node,
    defaults: &Node,
    flags: &Flags,
    database: &database::Parts<'_>,
) -> Result<(), StartError> {
    for (flag, key, value) in rows(flags) {
        if let Some(text) = value {
            tree.overlay(keys::set(defaults, &keys::split(key), text, Origin::flag(flag))?);
        }
    }
    let parts = database::Parts::from_flags(flags);
    if let Some(origin) = parts.first_origin() {
        if flags.db_url.is_some() {
            return Err(origin.wrong("give either --db_url or this, not both"));
        }
        let url = parts.or(database).url()?;
        tree.overlay(keys::set(defaults, &keys::split(database::KEY), &url, origin)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::cli::Cli;
    use crate::platform::config::{DEFAULTS, yaml};
    use clap::{CommandFactory, Parser};

    #[test]
    fn every_flag_sets_a_key_that_the_defaults_have() {
        let defaults = yaml::parse(DEFAULTS.text, &Origin::file(DEFAULTS.name)).unwrap();
        let flags = Flags::default();
        for (flag, key, _) in rows(&flags) {
            assert!(defaults.find(&keys::split(key)).is_some(), "{flag} sets {key}");
        }
    }

    #[test]
    fn the_help_tells_the_defaults_of_the_default_file() {
        let defaults = yaml::parse(DEFAULTS.text, &Origin::file(DEFAULTS.name)).unwrap();
        let flags = Flags::default();
        for (flag, key, _) in rows(&flags) {
            let value = defaults.find(&keys::split(key)).unwrap().to_json();
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let shown = if value.is_empty() { "none".to_owned() } else { value };
            let command = Cli::command();
            let argument =
                command.get_arguments().find(|arg| arg.get_long() == flag.strip_prefix("--")).unwrap();
            let help = argument.get_long_help().or(argument.get_help()).unwrap().to_string();
            assert!(help.contains(&format!("[default: {shown}]")), "{flag}: {help}, in the file {shown}");
        }
    }

    #[test]
    fn a_url_and_a_part_of_a_url_are_refused_together() {
        let flags = Cli::parse_from(["server", "--db_url", "memory:", "--db_user", "ada"]).flags;
        let defaults = yaml::parse(DEFAULTS.text, &Origin::file(DEFAULTS.name)).unwrap();
        let error =
            overlay(&mut defaults.clone(), &defaults, &flags, &database::Parts::default()).unwrap_err();
        assert_eq!(error.to_string(), "flag --db_user: give either --db_url or this, not both");
    }
}
