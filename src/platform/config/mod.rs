//! The configuration: defaults < file < environment < flags, each value with its origin.
//!
//! It collects the sections of the rooms, reads the four levels, and refuses what is wrong in one line. It is
//! the only place that knows of environment variables, and it gives no defaults of its own: those stand in
//! `configs/default.yaml`.
//!
//! A value's way: `yaml` or `environment` or `flags` make a `tree`; `keys` refuses what the defaults do not
//! have; the trees are laid over each other; serde makes `Config` of the result; `print` joins both again.

mod database;
mod environment;
mod file;
mod flags;
mod keys;
pub mod lock;
mod print;
pub mod server;
mod tree;
mod wording;
mod yaml;

use std::ffi::OsString;
use std::io::{self, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use self::server::DebugMode;
use self::tree::{Node, Origin};
use self::wording::{dotted, may_hold_secret};
use crate::platform::cli::Flags;
use crate::platform::error::StartError;
use crate::platform::secret::MASK;
use crate::platform::{http, logging, store, views};

/// The sections, each owned by its room; `A` is the application's.
///
/// To add one: a line here, its keys in `configs/default.yaml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config<A> {
    /// The process: name, address, debug, shutdown.
    pub server: server::Settings,
    /// What a request may cost and what an answer carries.
    pub http: http::Settings,
    /// The sinks and their levels.
    pub logging: logging::Settings,
    /// Where documents are kept.
    pub store: store::Settings,
    /// HTML pages and static files.
    pub views: views::Settings,
    /// Who keeps the locks.
    pub lock: lock::Settings,
    /// The application's own settings.
    pub app: A,
}

/// The text of the defaults, and the name that stands in messages about it.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// The file's path in the source tree.
    pub name: &'static str,
    /// YAML that names every key.
    pub text: &'static str,
}

/// The defaults that are built into the server.
pub const DEFAULTS: Defaults =
    Defaults { name: "configs/default.yaml", text: include_str!("../../../configs/default.yaml") };

/// A configuration that was accepted, and where each of its values came from.
#[derive(Debug)]
pub struct Loaded<A> {
    /// The values.
    pub config: Config<A>,
    /// The keys with their origins; it holds no values.
    origins: Node,
}

impl<A: Serialize> Loaded<A> {
    /// Writes the configuration as YAML, one value a line with its origin, secrets as `***`.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        print::write(&self.origins, &serde_json::to_value(&self.config)?, out)
    }
}

impl<A> Loaded<A> {
    /// Refuses what can be printed and not be served: a store that this build does not have, and what this version
    /// does not do yet. It is said, and not silently left out.
    pub fn check_servable(&self) -> Result<(), StartError> {
        let origin = |key: &str| &self.origins.nearest(&keys::split(key)).origin;
        let missing = |key: &str, what: &str| {
            Err(origin(key).wrong(format_args!("{key}: {what} is not in this version of the server yet")))
        };
        self.config.store.url.check().map_err(|error| origin("store.url").wrong(error))?;
        if self.config.server.ssl {
            return missing("server.ssl", "HTTPS (--ssl)");
        }
        if self.config.lock.server {
            return missing("lock.server", "a lock server (--lock_server)");
        }
        let processes = self.config.server.process_count();
        let shared = self.config.store.url.check_shared(processes);
        shared.map_err(|error| origin("server.processes").wrong(error))?;
        if processes > 1 {
            return missing("server.processes", "serving with several processes (--proc)");
        }
        Ok(())
    }
}

/// Reads the four levels. The environment is handed in (`std::env::vars_os()` in `main`), and so are the
/// defaults ([`DEFAULTS`]), so that tests control both. The error is one line and has exit code 2.
pub fn load<A: DeserializeOwned>(
    flags: &Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    defaults: Defaults,
) -> Result<Loaded<A>, StartError> {
    let mut tree = resolve(flags, environment, defaults)?;
    let config: Config<A> = typed(&tree)?;
    refuse_exposed_debug(&config.server, &tree)?;
    tree.forget_values();
    Ok(Loaded { config, origins: tree })
}

/// The four levels laid over each other.
fn resolve(
    flags: &Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    defaults: Defaults,
) -> Result<Node, StartError> {
    let environment = environment::Environment::new(environment)?;
    let defaults = yaml::parse(defaults.text, &Origin::file(defaults.name))?;
    let mut tree = defaults.clone();
    if let Some(path) = &flags.config {
        let file = file::read(path)?;
        keys::check(&defaults, &file)?;
        tree.overlay(file);
    }
    environment.overlay(&mut tree, &defaults)?;
    flags::overlay(&mut tree, &defaults, flags, &environment.database())?;
    Ok(tree)
}

/// The tree as a value of `C`; the error names the origin and the key of the value that does not fit.
fn typed<C: DeserializeOwned>(tree: &Node) -> Result<C, StartError> {
    // What `server config` printed was pasted back: the stars would become the password.
    tree.each_scalar(&mut Vec::new(), &mut |path, node| match &node.value {
        tree::Value::Scalar(Json::String(text)) if is_masked(text) => {
            let key = dotted(path);
            Err(node
                .origin
                .wrong(format_args!("{key}: {MASK} only stands for a secret, expected the secret itself")))
        }
        _ => Ok(()),
    })?;
    serde_path_to_error::deserialize(tree.to_json()).map_err(|error| {
        let path: Vec<String> = error.path().iter().map(segment).collect();
        let node = tree.nearest(&path);
        let value = node.to_json();
        let message = wording::plain(&error.inner().to_string(), may_hold_secret(&path).then_some(&value));
        node.origin.wrong(format_args!("{}: {message}", dotted(&path)))
    })
}

fn is_masked(text: &str) -> bool {
    text == MASK || text.contains(&format!(":{MASK}@")) || text.contains(&format!("={MASK}"))
}

fn segment(segment: &serde_path_to_error::Segment) -> String {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => index.to_string(),
        Segment::Map { key } => key.clone(),
        Segment::Enum { variant } => variant.clone(),
        Segment::Unknown => "?".to_owned(),
    }
}

/// Traces tell a stranger how the server is built; who wants them on a public address has to say so.
fn refuse_exposed_debug(server: &server::Settings, tree: &Node) -> Result<(), StartError> {
    if server.debug != DebugMode::On || server.host.is_loopback() {
        return Ok(());
    }
    let path = keys::split("server.debug");
    Err(tree.nearest(&path).origin.wrong(format_args!(
        "server.debug: would show traces to all who reach host '{}'; if you mean it, give --debug twice \
         (server.debug: exposed)",
        server.host
    )))
}

#[cfg(test)]
mod tests;
