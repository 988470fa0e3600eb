//! Which key each flag of the command line sets, and with which value.

use serde_json::Value as Json;

use super::database;
use super::keys;
use super::tree::{Node, Origin};
use crate::cli::Flags;
use crate::error::StartError;
use crate::secret::{Secret, mask_url};

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

/// The default of each flag in [`rows`], as `--help` shows it.
pub(super) fn defaults(values: &Node) -> Vec<(&'static str, String)> {
    let shown = |key: &str| match values.find(&keys::split(key)).map(Node::to_json) {
        None | Some(Json::Null) => "none".to_owned(),
        Some(Json::String(text)) if text.is_empty() => "none".to_owned(),
        Some(Json::String(text)) => mask_url(&text),
        Some(other) => other.to_string(),
    };
    rows(&Flags::default()).map(|(flag, key, _)| (flag, shown(key))).to_vec()
}

/// Merges the values of the flags into the tree. `database` has the parts of a MongoDB URL from the environment: they
/// complete those of the flags, so that a password can come from there.
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
    use crate::cli::Cli;
    use crate::config::defaults::platform;
    use clap::Parser;

    #[test]
    fn every_flag_sets_a_key_that_the_defaults_have() {
        let defaults = platform().unwrap();
        let flags = Flags::default();
        for (flag, key, _) in rows(&flags) {
            assert!(defaults.find(&keys::split(key)).is_some(), "{flag} sets {key}");
        }
    }

    #[test]
    fn a_url_and_a_part_of_a_url_are_refused_together() {
        let flags = Cli::parse_from(["server", "--db_url", "memory:", "--db_user", "ada"]).flags;
        let defaults = platform().unwrap();
        let error =
            overlay(&mut defaults.clone(), &defaults, &flags, &database::Parts::default()).unwrap_err();
        assert_eq!(error.to_string(), "flag --db_user: give either --db_url or this, not both");
    }
}
