//! The configuration: platform defaults < service's own < file < environment < flags, each value with its origin.
//!
//! It collects the sections of all parts of the platform, reads the five levels, and refuses what is wrong with an
//! error of one line. It is the only part that reads environment variables. It has no default values in its code:
//! those are in `defaults/*.yaml`, one file for each section.
//!
//! How a value is read: `yaml`, `environment` or `flags` make a `tree`; `keys` refuses keys that the defaults do not
//! have; the trees are merged, level by level; serde turns the result into a `Config`. `print` takes the values from
//! the `Config` and the origins from the tree.

mod database;
mod defaults;
mod environment;
mod file;
mod flags;
mod keys;
mod print;
pub mod server;
mod tree;
mod wording;
mod yaml;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use self::defaults::BuiltIn;
pub use self::defaults::{Defaults, Service};
use self::server::DebugMode;
use self::tree::Node;
use self::wording::{dotted, may_hold_secret};
#[cfg(feature = "auth")]
use crate::auth;
use crate::cli::Flags;
use crate::error::StartError;
use crate::secret::MASK;
use crate::services::HealthSettings;
use crate::{cache, connector, http, lock, logging, mail, metrics, store, traces, views};

/// The sections; each type is defined in the part of the platform that uses it. `A` is the application's section.
///
/// To add one: a field here, and a file with its keys in `defaults/`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config<A> {
    /// The process: name, address, debug, shutdown.
    pub server: server::Settings,
    /// Limits of requests, and what every response gets.
    pub http: http::Settings,
    /// The sinks and their levels.
    pub logging: logging::Settings,
    /// The store of documents.
    pub store: store::Settings,
    /// What is kept for a while, and where.
    pub cache: cache::Settings,
    /// Calls to other services.
    pub connector: connector::Settings,
    /// Those services, by name.
    pub upstreams: BTreeMap<String, connector::UpstreamSettings>,
    /// HTML pages and static files.
    pub views: views::Settings,
    /// What `/ready` asks.
    pub health: HealthSettings,
    /// Locks between processes.
    pub lock: lock::Settings,
    /// Figures for a Prometheus server.
    pub metrics: metrics::Settings,
    /// Spans of requests, for a collector.
    pub traces: traces::Settings,
    /// People who log in.
    #[cfg(feature = "auth")]
    pub auth: auth::Settings,
    /// Where mails go.
    pub mail: mail::Settings,
    /// The application's own settings.
    pub app: A,
}

/// The section of the upstreams.
const UPSTREAMS: &str = "upstreams";

/// An accepted configuration, with the origin of each value.
#[derive(Debug)]
pub struct Loaded<A> {
    /// The values.
    pub config: Config<A>,
    /// The keys with their origins, without values.
    origins: Node,
}

impl<A: Serialize> Loaded<A> {
    /// Writes the configuration as YAML: each value on one line with its origin, secrets as `***`.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        print::write(&self.origins, &serde_json::to_value(&self.config)?, out)
    }
}

impl<A> Loaded<A> {
    /// Refuses settings that `server config` can print but the server cannot serve with: a store that this build does
    /// not have, for example.
    pub fn check_servable(&self) -> Result<(), StartError> {
        let origin = |key: &str| &self.origins.nearest(&keys::split(key)).origin;
        self.config.store.url.check().map_err(|error| origin("store.url").wrong(error))?;
        self.config.cache.check().map_err(|error| origin("cache.url").wrong(error))?;
        self.config.lock.check().map_err(|error| origin("lock.server").wrong(error))?;
        self.config.traces.check().map_err(|error| origin("traces.endpoint").wrong(error))?;
        #[cfg(feature = "auth")]
        self.config.auth.check().map_err(|error| origin("auth.providers").wrong(error))?;
        self.config.mail.sender().map_err(|error| origin("mail.from").wrong(error))?;
        self.config.mail.check().map_err(|error| origin("mail.url").wrong(error))?;
        let processes = self.config.server.process_count();
        let server = &self.config.server;
        if server.ssl && processes > 1 && server.tls.redirect.enabled && server.tls.redirect.port.get() == 0 {
            let key = "server.tls.redirect.port";
            return Err(origin(key)
                .wrong(format_args!("{key}: {processes} processes need a port that they can share, not 0")));
        }
        let shared = self.config.store.url.check_shared(processes);
        shared.map_err(|error| origin("server.processes").wrong(error))
    }
}

/// Reads the five levels. The environment is handed in (`std::env::vars_os()` in the program), so that tests control
/// it. The error is one line and has exit code 2.
pub fn load<A: DeserializeOwned>(
    flags: &Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    service: &Service,
) -> Result<Loaded<A>, StartError> {
    load_with(flags, read_file(flags)?.as_deref(), environment, service)
}

/// The text of the file that is given with `--config`.
pub(crate) fn read_file(flags: &Flags) -> Result<Option<String>, StartError> {
    flags.config.as_deref().map(file::read).transpose()
}

/// [`load`] with the text of the configuration file: a worker gets it from its supervisor, so that a file that has been
/// changed since changes nothing before a reload.
pub(crate) fn load_with<A: DeserializeOwned>(
    flags: &Flags,
    file: Option<&str>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    service: &Service,
) -> Result<Loaded<A>, StartError> {
    let mut tree = resolve(flags, file, environment, service.defaults)?;
    let mut config: Config<A> = typed(&tree)?;
    if config.server.name.is_empty() {
        service.name.clone_into(&mut config.server.name);
    }
    refuse_exposed_debug(&config.server, &tree)?;
    tree.forget_values();
    Ok(Loaded { config, origins: tree })
}

/// Whether a variable of this name sets the store.
#[cfg(feature = "testing")]
pub(crate) fn sets_store(name: &str) -> bool {
    name == keys::variable(&keys::split(database::KEY))
        || name == database::HOST
        || database::URL_VARIABLES.contains(&name)
}

/// Writes every key with its default and its comments; what `server config --manual` prints.
pub fn write_manual(service: &Service, out: &mut impl Write) -> io::Result<()> {
    defaults::write_manual(service.defaults, out)
}

/// The flags that set one key each, with the default of that key, for `--help`. A secret is masked.
pub fn flag_defaults(service: &Service) -> Result<Vec<(&'static str, String)>, StartError> {
    Ok(flags::defaults(&BuiltIn::read(service.defaults)?.values))
}

/// The five levels merged.
fn resolve(
    flags: &Flags,
    file: Option<&str>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    own: Defaults,
) -> Result<Node, StartError> {
    let environment = environment::Environment::new(environment)?;
    let BuiltIn { known, values: mut tree } = BuiltIn::read(own)?;
    if let (Some(path), Some(text)) = (&flags.config, file) {
        let file = file::parse(path, text)?;
        keys::check(&known, &file)?;
        tree.overlay(file);
    }
    environment.overlay(&mut tree, &known)?;
    flags::overlay(&mut tree, &known, flags, &environment.database())?;
    Ok(tree)
}

/// The tree as a value of `C`; the error names the origin and the key of the value that does not fit.
fn typed<C: DeserializeOwned>(tree: &Node) -> Result<C, StartError> {
    // The output of `server config` was pasted into a file: the mask would become the password.
    tree.each_scalar(&mut Vec::new(), &mut |path, node| match &node.value {
        tree::Value::Scalar(Json::String(text)) if is_masked(text) => {
            let key = dotted(path);
            Err(node
                .origin
                .wrong(format_args!("{key}: {MASK} is the mask of a secret, expected the secret itself")))
        }
        _ => Ok(()),
    })?;
    let tree = with_whole_upstreams(tree)?;
    serde_path_to_error::deserialize(tree.to_json()).map_err(|error| {
        let mut path: Vec<String> = error.path().iter().map(segment).collect();
        if path.len() == 2 && path[0] == UPSTREAMS {
            // serde does not say where a struct that is flattened is wrong.
            let settings = tree.nearest(&path).to_json();
            let settings = serde_path_to_error::deserialize::<_, connector::Settings>(settings);
            path.extend(settings.err().iter().flat_map(|error| error.path().iter().map(segment)));
        }
        let node = tree.nearest(&path);
        let value = node.to_json();
        if tree.find(&path).is_some_and(Node::is_null)
            && let Some(expected) =
                wording::message(&error.inner().to_string(), None).strip_prefix("invalid type: null, ")
        {
            let (key, variable) = (dotted(&path), keys::variable(&path));
            return node
                .origin
                .wrong(format_args!("{key}: has no value, {expected}; the variable {variable} sets it"));
        }
        let message = wording::message(&error.inner().to_string(), may_hold_secret(&path).then_some(&value));
        node.origin.wrong(format_args!("{}: {message}", dotted(&path)))
    })
}

/// The tree in which an upstream has all settings: what it leaves out is as in the section `connector`.
fn with_whole_upstreams(tree: &Node) -> Result<Node, StartError> {
    let mut whole = tree.clone();
    let (Some(common), Some(Node { value: tree::Value::Map(upstreams), .. })) =
        (tree.child("connector"), tree.child(UPSTREAMS))
    else {
        return Ok(whole);
    };
    let mut known = Node::nested(&["url".to_owned()], Node::text("", common.origin.clone()));
    known.overlay(Node::nested(&["health".to_owned()], Node::text("", common.origin.clone())));
    known.overlay(common.clone());
    for (name, upstream) in upstreams {
        let below = |node: &Node| Node::nested(&[UPSTREAMS.to_owned(), name.clone()], node.clone());
        keys::check(&below(&known), &below(upstream))?;
        whole.fill(below(common));
    }
    Ok(whole)
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

/// Traces show strangers how the server is built. On an address that others can reach they need `exposed`.
fn refuse_exposed_debug(server: &server::Settings, tree: &Node) -> Result<(), StartError> {
    if server.debug != DebugMode::On || server.host.is_loopback() {
        return Ok(());
    }
    let path = keys::split("server.debug");
    Err(tree.nearest(&path).origin.wrong(format_args!(
        "server.debug: would show traces to everybody who can reach host '{}'; if you mean it, give --debug twice \
         (server.debug: exposed)",
        server.host
    )))
}

#[cfg(test)]
mod tests;
