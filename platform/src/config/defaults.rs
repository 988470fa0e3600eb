//! The defaults of the platform, one file for each section, and the configuration that the service adds to them.
//!
//! The files are also the manual: `server config --manual` prints them unchanged, with their comments.

use std::io::{self, Write};

use super::keys;
use super::tree::{Node, Origin, Value};
use super::yaml;
use crate::error::StartError;

/// A text of settings that is built into the program, and the name that messages give it.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// The path of the file in the source tree.
    pub name: &'static str,
    /// YAML.
    pub text: &'static str,
}

/// The program, as `main` describes it to the platform.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// The name of the package: the command in `--help`, and the default of `server.name`.
    pub name: &'static str,
    /// The version of the package.
    pub version: &'static str,
    /// The section `app`, and the values of the platform that the service replaces.
    pub defaults: Defaults,
}

/// A default file of the platform.
macro_rules! section {
    ($file:literal) => {
        Defaults {
            name: concat!("platform/defaults/", $file),
            text: include_str!(concat!("../../defaults/", $file)),
        }
    };
}

/// The units, and how a key is overridden: the first page of the manual, comments only.
const PREAMBLE: &str = include_str!("../../defaults/preamble.yaml");

/// One file for each section of the platform, in the order in which `server config` prints them.
pub(super) const PLATFORM: &[Defaults] = &[
    section!("server.yaml"),
    section!("http.yaml"),
    section!("views.yaml"),
    section!("health.yaml"),
    section!("logging.yaml"),
    section!("store.yaml"),
    section!("cache.yaml"),
    section!("connector.yaml"),
    section!("upstreams.yaml"),
    section!("lock.yaml"),
    section!("metrics.yaml"),
    section!("traces.yaml"),
    #[cfg(feature = "auth")]
    section!("auth.yaml"),
    section!("mail.yaml"),
];

/// The section of the service's own code.
const APP: &str = "app";

/// The two levels that are built into the program.
pub(super) struct BuiltIn {
    /// All keys there are, with the platform's values and the service's section `app`. The types of these values
    /// decide how a word of the command line or of the environment is read.
    pub(super) known: Node,
    /// The values: the platform's, and the service's own over them.
    pub(super) values: Node,
}

impl BuiltIn {
    /// Reads both levels; a key of the service's own file that the platform does not have is refused.
    pub(super) fn read(own: Defaults) -> Result<Self, StartError> {
        let own_file = Origin::file(own.name);
        let own = yaml::parse(own.text, &own_file)?;
        let mut known = platform()?;
        // A service without settings of its own: an empty map, below which serde refuses unknown keys.
        let app = own.child(APP).filter(|app| !app.is_null()).cloned();
        let app = app.unwrap_or_else(|| Node::new(Value::Map(Vec::new()), own_file));
        let origin = app.origin.clone();
        known.overlay(Node::new(Value::Map(vec![(APP.to_owned(), app)]), origin));
        keys::check(&known, &own)?;
        let mut values = known.clone();
        values.overlay(own);
        Ok(Self { known, values })
    }
}

/// The defaults of the platform as one tree.
pub(super) fn platform() -> Result<Node, StartError> {
    let mut all = Node::new(Value::Map(Vec::new()), Origin::file("platform/defaults"));
    for file in PLATFORM {
        all.overlay(yaml::parse(file.text, &Origin::file(file.name))?);
    }
    Ok(all)
}

/// Writes the manual: the platform's default files with their comments as one YAML document, and the service's own
/// file as a second one. Two, because both may have the same section.
pub(super) fn write_manual(own: Defaults, out: &mut impl Write) -> io::Result<()> {
    out.write_all(PREAMBLE.as_bytes())?;
    for file in PLATFORM {
        write!(out, "\n# {}\n\n{}", file.name, file.text)?;
    }
    write!(out, "\n---\n# {}\n\n{}", own.name, own.text)?;
    out.flush()
}
