//! The loader as a whole: five levels, each kind of error, secrets.

mod any_file;
mod required;
mod upstreams;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;

use clap::Parser;
use serde_json::json;

use super::*;
use crate::cli::Cli;
use crate::secret::Secret;
use crate::setting::{Size, Span};
use crate::store::StoreUrl;

/// An application's settings, as a fork would write them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Small {
    title: String,
    pin: Secret,
    rate: f64,
    every: Span<1, 60_000>,
    limit: Size<1, 1_024>,
    tags: Vec<String>,
    weights: std::collections::BTreeMap<String, u8>,
}

/// The configuration of a service, with the section above, and with a key that it sets otherwise than the platform.
const SERVICE: Service = Service {
    name: "orders",
    version: "1.2.3",
    defaults: Defaults {
        name: "configs/default.yaml",
        text: "http: {max_headers: 99}
app:
  title: hello
  pin: ''
  rate: 0.5
  every: 30s
  limit: 1KiB
  tags: [a, b]
  weights: {}
",
    },
};

/// A section of an application without settings.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// A service with this text as its own configuration.
fn service(text: &'static str) -> Service {
    Service { defaults: Defaults { name: "configs/default.yaml", text }, ..SERVICE }
}

/// The file and the line of the default of a key; the first word of the path names the section.
fn default_of(path: &[String], key: &str) -> String {
    let platform = format!("platform/defaults/{}.yaml", path[0]);
    let file =
        defaults::PLATFORM.iter().copied().find(|file| file.name == platform).unwrap_or(SERVICE.defaults);
    let line = file.text.lines().position(|line| line.trim_start().starts_with(&format!("{key}: ")));
    format!("{}:{}", file.name, 1 + line.unwrap())
}

#[derive(Default)]
struct Given<'a> {
    file: Option<&'a [u8]>,
    variables: &'a [(&'a str, &'a str)],
    flags: &'a [&'a str],
}

/// Loads what is given; the file's path reads `my.yaml` in messages.
fn load_given(given: &Given) -> Result<Loaded<Small>, StartError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.yaml");
    let mut words = vec!["server".to_owned()];
    if let Some(bytes) = given.file {
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        words.extend(["--config".to_owned(), path.display().to_string()]);
    }
    words.extend(given.flags.iter().map(|&word| word.to_owned()));
    let variables = given.variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    load(&Cli::parse_from(words).flags, variables, &SERVICE).map_err(|error| {
        assert_eq!(error.exit_code, 2);
        StartError::config(relative(&error, &path))
    })
}

fn relative(error: &StartError, path: &Path) -> String {
    error.to_string().replace(&path.display().to_string(), "my.yaml")
}

fn refused(given: &Given) -> String {
    let error = load_given(given).unwrap_err();
    let message = error.to_string();
    assert_eq!(error.exit_code, 2, "{message}");
    assert!(message.chars().all(wording::is_safe) && message.chars().count() < 600, "{message:?}");
    message
}

fn refused_file(text: &str) -> String {
    refused(&Given { file: Some(text.as_bytes()), ..Given::default() })
}

fn refused_variable(name: &str, value: &str) -> String {
    refused(&Given { variables: &[(name, value)], ..Given::default() })
}

fn printed(loaded: &Loaded<Small>) -> String {
    let mut out = Vec::new();
    loaded.print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The value and the origin of a key, as `server config` prints them.
fn shown(given: &Given, key: &str) -> (String, String) {
    let text = printed(&load_given(given).unwrap());
    let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{key}: "))).unwrap();
    let (value, origin) = line.split_once("  # ").unwrap();
    let origin =
        origin.rsplit_once('/').filter(|(_, name)| name.starts_with("my.yaml")).map_or(origin, |it| it.1);
    (value.trim().strip_prefix(&format!("{key}: ")).unwrap().to_owned(), origin.to_owned())
}

#[test]
fn the_defaults_of_the_platform_alone_are_a_configuration() {
    for text in ["", "app: {}", "app:"] {
        let loaded: Loaded<Nothing> = load(&Flags::default(), [], &service(text)).unwrap();
        assert_eq!(loaded.config.server.port.get(), 5000, "{text}");
        assert!(loaded.config.server.host.is_loopback(), "{text}");
    }
}

#[test]
fn a_service_without_a_name_of_its_own_has_the_name_of_its_package() {
    let name = |text, variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        load::<Nothing>(&Flags::default(), variables, &service(text)).unwrap().config.server.name
    };
    assert_eq!(name("", &[]), "orders");
    assert_eq!(name("server: {name: shop}", &[]), "shop");
    assert_eq!(name("server: {name: shop}", &[("SERVER__SERVER__NAME", "x")]), "x");
    assert_eq!(name("server: {name: shop}", &[("SERVER__SERVER__NAME", "")]), "orders");
}

#[test]
fn what_the_service_sets_wins_over_the_platform_and_loses_to_every_other_level() {
    let mut given = Given::default();
    assert_eq!(shown(&given, "max_headers"), ("99".to_owned(), "configs/default.yaml:1".to_owned()));
    given.file = Some(b"http: {max_headers: 98}");
    assert_eq!(shown(&given, "max_headers"), ("98".to_owned(), "my.yaml:1".to_owned()));
    // The control: a key that the service does not set.
    let path = keys::split("http.max_header_size");
    let origin = default_of(&path, "max_header_size");
    assert!(origin.starts_with("platform/defaults/http.yaml:"), "{origin}");
    assert_eq!(shown(&given, "max_header_size"), ("32KiB".to_owned(), origin));
}

#[test]
fn an_unknown_key_of_the_services_own_file_is_refused_as_in_any_file() {
    for (text, expected) in [
        (
            "app: {}\nhttp:\n  body_limt: 1MiB",
            "configs/default.yaml:3: unknown key 'http.body_limt', did you mean 'http.body_limit'?",
        ),
        ("ap: {}", "configs/default.yaml:1: unknown key 'ap', did you mean 'app'?"),
        (
            "\nhttp: {body_limit: x}",
            "configs/default.yaml:2: http.body_limit: 'x' is not a size such as 64KiB, 1MiB or 100MB",
        ),
    ] {
        let error = load::<Nothing>(&Flags::default(), [], &service(text)).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code), (expected, 2));
    }
}

#[test]
fn the_manual_is_yaml_with_comments_and_loads_to_the_built_in_values() {
    let mut out = Vec::new();
    write_manual(&SERVICE, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let documents: Vec<_> = text.split("\n---\n").collect();
    let [platform, own] = documents[..] else { panic!("{text}") };
    let parse = |text| yaml::parse(text, &tree::Origin::file("manual.yaml")).unwrap();
    let mut tree = parse(platform);
    tree.overlay(parse(own));
    assert_eq!(tree.to_json(), BuiltIn::read(SERVICE.defaults).unwrap().values.to_json());
    for file in defaults::PLATFORM.iter().chain([&SERVICE.defaults]) {
        assert!(text.contains(&format!("# {}\n\n{}", file.name, file.text)), "{}", file.name);
    }
    assert!(text.starts_with("# The manual") && text.ends_with('\n'), "{text}");
}

#[test]
fn the_defaults_of_the_flags_are_those_of_the_service_and_show_no_password() {
    let text = "server: {port: 8123}\nstore: {url: 'redis://u:hunter2@h'}";
    let defaults = flag_defaults(&service(text)).unwrap();
    let of = |flag| defaults.iter().find(|(name, _)| *name == flag).unwrap().1.as_str();
    assert_eq!((of("--port"), of("--log_host"), of("--ssl")), ("8123", "none", "false"));
    assert_eq!(of("--db_url"), "redis://u:***@h");
}

/// One row per kind of value: its key, its line in the default file, then default, file, variable and flag.
#[test]
fn each_level_wins_over_the_one_before_it_and_is_named_as_origin() {
    for (key, name, default, file, variable, flag) in [
        ("port", "SERVER__SERVER__PORT", "5000", "1", "2", Some(("--port", "3"))),
        ("env", "SERVER__SERVER__ENV", "development", "one", "two", Some(("--env", "three"))),
        ("ssl", "SERVER__SERVER__SSL", "false", "true", "false", Some(("--ssl", "true"))),
        ("deadline", "SERVER__SERVER__SHUTDOWN__DEADLINE", "25s", "1s", "2s", None),
        ("body_limit", "SERVER__HTTP__BODY_LIMIT", "1MiB", "1KiB", "2KiB", None),
        ("rate", "SERVER__APP__RATE", "0.5", "1.5", "2.5", None),
        ("tags", "SERVER__APP__TAGS", "[a, b]", "[c]", "[d, e]", None),
        ("weights", "SERVER__APP__WEIGHTS", "{}", "{}", "{}", None),
    ] {
        let path: Vec<_> = name.split("__").skip(1).map(str::to_lowercase).collect();
        let yaml = path.iter().rev().fold(file.to_owned(), |below, key| format!("{{{key}: {below}}}"));
        let mut given = Given::default();
        let default_line = default_of(&path, key);
        assert_eq!(shown(&given, key), (default.to_owned(), default_line.clone()));
        if key == "weights" {
            continue;
        }
        given.file = Some(yaml.as_bytes());
        assert_eq!(shown(&given, key), (file.to_owned(), "my.yaml:1".to_owned()));
        let variables = [(name, variable)];
        given.variables = &variables;
        assert_eq!(shown(&given, key), (variable.to_owned(), format!("environment {name}")));
        if let Some((flag, value)) = flag {
            let word = format!("{flag}={value}");
            let words = [word.as_str()];
            given.flags = &words;
            assert_eq!(shown(&given, key), (value.to_owned(), format!("flag {flag}")));
        }
    }
}

#[test]
fn a_free_map_has_the_keys_of_all_levels() {
    let given = Given {
        file: Some(b"app:\n  weights: {a: 1, b: 2}"),
        variables: &[("SERVER__APP__WEIGHTS__B", "3"), ("SERVER__APP__WEIGHTS__C", "4")],
        flags: &[],
    };
    let weights = load_given(&given).unwrap().config.app.weights;
    assert_eq!(json!(weights), json!({"a": 1, "b": 3, "c": 4}));
    assert_eq!(shown(&given, "a"), ("1".to_owned(), "my.yaml:2".to_owned()));
    assert_eq!(shown(&given, "b"), ("3".to_owned(), "environment SERVER__APP__WEIGHTS__B".to_owned()));
}

#[test]
fn the_plain_port_variable_is_honoured_and_empty_is_unset() {
    let with = |port| {
        let variables = [("PORT", port)];
        shown(&Given { variables: &variables, ..Given::default() }, "port")
    };
    assert_eq!(with("8080"), ("8080".to_owned(), "environment PORT".to_owned()));
    assert_eq!(with(""), ("5000".to_owned(), default_of(&keys::split("server.port"), "port")));
}

#[test]
fn a_wrong_value_names_its_origin_its_key_and_what_is_right() {
    for (text, expected) in [
        ("\nserver:\n  port: 70000", "my.yaml:3: server.port: 70000 is out of range, expected 0 to 65535"),
        ("server: {port: -1}", "my.yaml:1: server.port: -1 is out of range, expected 0 to 65535"),
        (
            "server: {port: abc}",
            "my.yaml:1: server.port: invalid type: string \"abc\", expected a whole number",
        ),
        (
            "server: {port: 1.5}",
            "my.yaml:1: server.port: invalid type: floating point `1.5`, expected a whole number",
        ),
        (
            "server: {port: }",
            "my.yaml:1: server.port: has no value, expected a whole number; the variable SERVER__SERVER__PORT sets it",
        ),
        ("server: {port: [1]}", "my.yaml:1: server.port: invalid type: array, expected a whole number"),
        ("server: {port: {a: 1}}", "my.yaml:1: server.port: invalid type: object, expected a whole number"),
        ("server: {ssl: no}", "my.yaml:1: server.ssl: invalid type: string \"no\", expected a boolean"),
        ("server: {env: 7}", "my.yaml:1: server.env: invalid type: integer `7`, expected a string"),
        (
            "server: {debug: loud}",
            "my.yaml:1: server.debug: invalid type: string \"loud\", expected off, on or exposed",
        ),
        (
            "server: {host: 'h:1'}",
            "my.yaml:1: server.host: 'h:1' is not a host, expected a name or an IP address without port",
        ),
        ("logging:\n  file: {path: ''}", "my.yaml:2: logging.file.path: '' names no file"),
        ("logging: {file: {path: /}}", "my.yaml:1: logging.file.path: '/' names no file"),
        (
            "http:\n  security_headers:\n    x-a: \"b\\nc\"",
            "my.yaml:3: http.security_headers.x-a: a header cannot hold line breaks",
        ),
        (
            "http:\n  security_headers:\n    X-Frame-Options: DENY",
            "my.yaml:3: http.security_headers.X-Frame-Options: header names are written in lower case here",
        ),
        ("http: {security_headers: {a b: c}}", "my.yaml:1: http.security_headers.a b: is not a header name"),
        ("app: {every: 2m}", "my.yaml:1: app.every: 2m is out of range, expected 1ms to 1m"),
        ("app: {tags: a}", "my.yaml:1: app.tags: invalid type: string \"a\", expected an array"),
        (
            "app:\n  tags:\n    - a\n    - 1",
            "my.yaml:4: app.tags.1: invalid type: integer `1`, expected a string",
        ),
        (
            "app:\n  weights:\n    a: 256",
            "my.yaml:3: app.weights.a: invalid value: integer `256`, expected a whole number from 0 to 255",
        ),
        ("app: {colour: red}", "my.yaml:1: unknown key 'app.colour', known here: "),
        ("server: [1]", "my.yaml:1: server: expected keys below it, such as 'server.name'"),
    ] {
        let message = refused_file(text);
        assert!(message.starts_with(expected), "{text}\n{message}");
    }
}

#[test]
fn a_wrong_variable_or_flag_is_named() {
    for (name, value, expected) in [
        ("PORT", "70000", "environment PORT: server.port: 70000 is out of range, expected 0 to 65535"),
        (
            "SERVER__APP__LIMIT",
            "2KiB",
            "environment SERVER__APP__LIMIT: app.limit: 2KiB is out of range, expected 1 to 1024 bytes",
        ),
        (
            "SERVER__SERVER__SSL",
            "yes",
            "environment SERVER__SERVER__SSL: server.ssl: invalid type: string \"yes\", expected a boolean",
        ),
        (
            "SERVER__SERVER__PROT",
            "1",
            "environment SERVER__SERVER__PROT: unknown variable, did you mean SERVER__SERVER__PORT?",
        ),
    ] {
        assert_eq!(refused_variable(name, value), expected);
    }
    let message = refused_variable("SERVER__APP__TAGS", "[a");
    assert!(message.starts_with("environment SERVER__APP__TAGS: not valid YAML: "), "{message}");
    for (flag, expected) in [
        ("--port=70000", "flag --port: server.port: 70000 is out of range, expected 0 to 65535"),
        ("--port=x", "flag --port: server.port: invalid type: string \"x\", expected a whole number"),
        ("--proc=-1", "flag --proc: server.processes: -1 is out of range, expected 0 to 1024"),
        ("--log_port=0", "flag --log_port: logging.udp.port: 0 is out of range, expected 1 to 65535"),
        ("--db-port=0", "flag --db_port: '0' is not a port, expected 1 to 65535"),
    ] {
        assert_eq!(refused(&Given { flags: &[flag], ..Given::default() }), expected);
    }
}

/// `app: {}` in the defaults marks a free map, so serde finds the unknown key.
#[test]
fn an_unknown_key_of_a_section_without_defaults_has_its_line_too() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "\napp:\n  colour: red\n").unwrap();
    let flags = Flags { config: Some(file.path().to_owned()), ..Flags::default() };
    let error = load::<Nothing>(&flags, [], &service("app: {}")).unwrap_err();
    let message = relative(&error, file.path());
    assert_eq!(message, "my.yaml:3: app.colour: unknown field `colour`, there are no fields");
}

#[test]
fn debug_on_an_address_that_others_reach_has_to_be_given_twice() {
    let message = refused(&Given { flags: &["--debug", "--host", "0.0.0.0"], ..Given::default() });
    assert_eq!(
        message,
        "flag --debug: server.debug: would show traces to everybody who can reach host '0.0.0.0'; if you mean it, \
         give --debug twice (server.debug: exposed)"
    );
    for flags in [
        &["--debug", "--debug", "--host", "0.0.0.0"][..],
        &["--debug", "--host", "127.0.0.1"],
        &["--debug", "--host", "::1"],
        &["--debug"],
        &["--host", "0.0.0.0"],
    ] {
        assert!(load_given(&Given { flags, ..Given::default() }).is_ok(), "{flags:?}");
    }
    let message = refused_file("server:\n  debug: on\n  host: 0.0.0.0");
    assert!(message.starts_with("my.yaml:2: server.debug: "), "{message}");
}

#[test]
fn a_password_of_the_environment_completes_a_host_of_the_flags() {
    let given = Given {
        file: None,
        variables: &[("MONGODB_PASSWORD", "p@w"), ("SERVER__STORE__URL", "memory:")],
        flags: &["--db-host", "db", "--db_user", "ada"],
    };
    let loaded = load_given(&given).unwrap();
    assert_eq!(loaded.config.store.url, StoreUrl::new("mongodb://ada:p%40w@db:27017/axum_boilerplate"));
    let expected = "\"mongodb://ada:***@db:27017/axum_boilerplate\"".to_owned();
    assert_eq!(shown(&given, "url"), (expected, "flag --db_host".to_owned()));
    // The control: without a host, the store is not MongoDB.
    let given = Given { variables: &[("MONGODB_PASSWORD", "p@w")], ..Given::default() };
    assert!(load_given(&given).unwrap().config.store.url.to_string().starts_with("sqlite:"));
}

#[test]
fn one_flag_alone_is_enough_for_the_server_of_its_engine_on_this_machine() {
    let of = |flags| load_given(&Given { flags, ..Given::default() }).unwrap().config;
    let lock = of(&["--lock_server"]).lock;
    assert_eq!((lock.server, lock.host.as_str(), lock.port.get()), (true, "localhost", 2_379));
    // Nothing else names a server.
    assert!(lock.etcd.endpoints.is_empty());
    assert_eq!(of(&["--db_name", "x"]).store.url, StoreUrl::new("mongodb://localhost:27017/x"));
    // The control: without them there is no server.
    let config = of(&[]);
    assert!(!config.lock.server && config.store.url.to_string().starts_with("sqlite:"));
}

#[test]
fn a_sender_that_is_no_address_stops_the_start() {
    let check = |from| {
        let file = format!("mail: {{from: {from}}}");
        let given = Given { file: Some(file.as_bytes()), ..Given::default() };
        load_given(&given).unwrap().check_servable().map_err(|error| error.to_string())
    };
    for right in ["no-reply@shop.example", "Shop <no-reply@shop.example>"] {
        assert_eq!(check(right), Ok(()));
    }
    for wrong in ["Shop", "''", "a@b@c", "'Shop <no-reply@shop.example'"] {
        let why = check(wrong).unwrap_err();
        assert!(why.contains("my.yaml:1: mail.from '") && why.contains("expected `Shop <"), "{why}");
    }
}

#[test]
fn secrets_are_in_no_output() {
    let given = Given {
        file: Some(b"app: {pin: hunter2}"),
        variables: &[
            ("SERVER__STORE__URL", "redis://u:hunter2@h/0"),
            ("SERVER__MAIL__URL", "smtps://ada:hunter2@mail.example:465"),
            ("SERVER__MAIL__FROM", "no-reply@shop.example"),
            ("SERVER__CACHE__URL", "redis://c:hunter2@cache.example"),
        ],
        flags: &[],
    };
    let loaded = load_given(&given).unwrap();
    assert_eq!(loaded.config.app.pin.expose(), "hunter2");
    let text = printed(&loaded);
    assert!(!text.contains("hunter2") && !json!(loaded.config).to_string().contains("hunter2"), "{text}");
    for masked in ["pin: \"***\"", "u:***@h/0", "ada:***@mail.example:465", "c:***@cache.example"] {
        assert!(text.contains(masked), "{masked} {text}");
    }
    assert!(!format!("{loaded:?}").contains("hunter2"));
    assert!(!loaded.origins.to_json().to_string().contains("hunter2"));
    for text in [
        "app: {pin: 77712345}",
        "app: {pin: [77712345]}",
        "app: 77712345",
        "store: {url: 77712345}",
        "store: {url: {a: 77712345}}",
        "store: 77712345",
    ] {
        let message = refused_file(text);
        assert!(!message.contains("77712345") && message.starts_with("my.yaml:1: "), "{message}");
    }
    let message = refused_variable("SERVER__STORE", "{url: 77712345}");
    assert!(!message.contains("77712345"), "{message}");
}

#[test]
fn the_output_can_be_used_as_a_file_unless_it_has_a_masked_secret() {
    let given =
        Given { file: Some(b"app: {title: 'a # \"b\"', tags: ['1', '', 'x: y']}"), ..Given::default() };
    let first = load_given(&given).unwrap();
    let text = printed(&first);
    let second = load_given(&Given { file: Some(text.as_bytes()), ..Given::default() }).unwrap();
    assert_eq!(json!(first.config), json!(second.config));

    let masked = "app:\n  pin: '***'";
    let expected = "my.yaml:2: app.pin: *** is the mask of a secret, expected the secret itself";
    assert_eq!(refused_file(masked), expected);
    assert!(refused_file("store: {url: 'redis://u:***@h'}").contains("store.url: *** is the mask"));
    assert!(refused_file("store: {url: 'redis://h?p=***'}").contains("store.url: *** is the mask"));
}
