//! The values that the environment sets: `SERVER__<SECTION>__<KEY>`, `PORT`, the original's `MONGODB_...`, and the
//! variables that hold the URL of a database or of a cache.
//!
//! The variables are an argument; this file does not read them from the process.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::database::{self, URL_VARIABLES};
use super::keys::{self, PREFIX, SEPARATOR};
use super::tree::{Node, Origin, Value};
use crate::error::StartError;

/// Variables that are read although they do not have the prefix. Heroku and Cloud Run assign the port by `PORT`.
const OTHERS: [&str; 7] =
    ["PORT", REDIS_URL, "MONGODB_HOST", "MONGODB_PORT", "MONGODB_NAME", "MONGODB_USER", "MONGODB_PASSWORD"];

/// Where hosting platforms say what Redis they have for the app: it is the cache.
const REDIS_URL: &str = "REDIS_URL";

/// The variables that this program reads. Sorted, so that two that set the same key do so in a fixed order.
pub(super) struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Keeps the variables that this program reads.
    pub(super) fn new(all: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, StartError> {
        let mut variables = BTreeMap::new();
        for (name, value) in all {
            let name = name.to_string_lossy();
            if name.starts_with(PREFIX) || OTHERS.contains(&&*name) || URL_VARIABLES.contains(&&*name) {
                let value =
                    value.into_string().map_err(|_| Origin::variable(&name).wrong("is not UTF-8 text"))?;
                variables.insert(name.into_owned(), value);
            }
        }
        Ok(Self { variables })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The parts of a MongoDB URL.
    pub(super) fn database(&self) -> database::Parts<'_> {
        database::Parts::from_environment(|name| self.get(name))
    }

    /// The URL of the store, with the name of its variable. Two variables with different URLs are an error: whichever
    /// won, a person would look for the data in the other database.
    fn store_url(&self) -> Result<Option<(String, String)>, StartError> {
        let own = keys::variable(&keys::split(database::KEY));
        let mut given: Vec<(&str, String)> = Vec::new();
        given.extend(self.get(&own).map(|url| (own.as_str(), url.to_owned())));
        for name in URL_VARIABLES {
            // A compose file passes an unset variable on as an empty one.
            if let Some(url) = self.get(name).filter(|url| !url.is_empty()) {
                database::check_url(name, url)?;
                given.push((name, url.to_owned()));
            }
        }
        // Only the host selects MongoDB: a MONGODB_PASSWORD for another program must not change the store.
        let parts = self.database();
        if parts.has_host() {
            given.push((database::HOST, parts.url()?));
        }
        let Some((first, url)) = given.first() else { return Ok(None) };
        match given.iter().find(|(_, other)| other != url) {
            Some((name, _)) => {
                Err(Origin::variable(name).wrong(format_args!("give either {first} or this, not both")))
            }
            None => Ok(Some(((*first).to_owned(), url.clone()))),
        }
    }

    /// Merges the values of the variables into the tree. A variable with the prefix wins over `PORT` and `REDIS_URL`.
    pub(super) fn overlay(&self, tree: &mut Node, defaults: &Node) -> Result<(), StartError> {
        for (name, key) in [("PORT", "server.port"), (REDIS_URL, "cache.url")] {
            // A compose file passes an unset variable on as an empty one.
            if let Some(text) = self.get(name).filter(|text| !text.is_empty()) {
                tree.overlay(keys::set(defaults, &keys::split(key), text, Origin::variable(name))?);
            }
        }
        if let Some((name, url)) = self.store_url()? {
            tree.overlay(keys::set(defaults, &keys::split(database::KEY), &url, Origin::variable(&name))?);
        }
        for (name, text) in &self.variables {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let origin = Origin::variable(name);
            let Some(path) = path_of(defaults, rest) else {
                return Err(origin.wrong(unknown(defaults, rest)));
            };
            // An empty variable is a value if the key is a string. For other keys it counts as not set.
            let is_string = defaults.find(&path).is_some_and(|node| node.to_json().is_string());
            if is_string || !text.is_empty() {
                tree.overlay(keys::set(defaults, &path, text, origin)?);
            }
        }
        Ok(())
    }
}

/// The path of the key for `HTTP__BODY_LIMIT`. Below a free map, any word in lower case is a key. Where the keys are
/// header names, so is any word in lower case with hyphens for its underscores.
fn path_of(defaults: &Node, rest: &str) -> Option<Vec<String>> {
    let mut known = Some(defaults);
    let mut path = Vec::new();
    for word in rest.split(SEPARATOR) {
        let key = match known.map(|node| &node.value) {
            None => word.to_ascii_lowercase(),
            Some(Value::Map(entries)) if entries.is_empty() => {
                known = None;
                word.to_ascii_lowercase()
            }
            Some(Value::Map(entries)) => match entries.iter().find(|(key, _)| keys::word(key) == word) {
                Some((key, node)) => {
                    known = Some(node);
                    key.clone()
                }
                None if keys::is_open(&path) => word.to_ascii_lowercase().replace('_', "-"),
                None => return None,
            },
            Some(_) => return None,
        };
        if key.is_empty() {
            return None;
        }
        path.push(key);
    }
    Some(path)
}

fn unknown(defaults: &Node, rest: &str) -> String {
    let path: Vec<String> = rest.split(SEPARATOR).map(str::to_ascii_lowercase).collect();
    if let Some(path) = keys::nearest(defaults, &path) {
        return format!("unknown variable, did you mean {}?", keys::variable(&path));
    }
    let sections = match &defaults.value {
        Value::Map(entries) => keys::names(entries),
        _ => String::new(),
    };
    format!("unknown variable, expected {PREFIX}<SECTION>__<KEY>; sections: {sections}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;
    use serde_json::{Value as Json, json};

    const SMALL: &str = "
server: {port: 5000, name: ada, ssl: false}
http: {body_limit: 1MiB, ratio: 0.5, hosts: [a]}
logging: {levels: {}}
store: {url: 'memory:'}
cache: {url: 'memory:'}";

    const HEADERS: &str = "http: {security_headers: {x-frame-options: DENY}}";

    fn outcome(variables: &[(&str, &str)]) -> Result<Json, String> {
        outcome_over(SMALL, variables)
    }

    fn outcome_over(defaults: &str, variables: &[(&str, &str)]) -> Result<Json, String> {
        let defaults = yaml::parse(defaults, &Origin::file("default.yaml")).unwrap();
        let pairs = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let mut tree = defaults.clone();
        let result = Environment::new(pairs).and_then(|it| it.overlay(&mut tree, &defaults));
        result.map(|()| tree.to_json()).map_err(|error| error.to_string())
    }

    fn read(variables: &[(&str, &str)], pointer: &str) -> Json {
        outcome(variables).unwrap().pointer(pointer).unwrap().clone()
    }

    #[test]
    fn the_type_of_the_default_decides_how_a_variable_is_read() {
        assert_eq!(read(&[("SERVER__SERVER__PORT", "80")], "/server/port"), json!(80));
        assert_eq!(read(&[("SERVER__SERVER__NAME", "80")], "/server/name"), json!("80"));
        assert_eq!(read(&[("SERVER__SERVER__NAME", "")], "/server/name"), json!(""));
        assert_eq!(read(&[("SERVER__SERVER__NAME", "a: [")], "/server/name"), json!("a: ["));
        assert_eq!(read(&[("SERVER__SERVER__SSL", "true")], "/server/ssl"), json!(true));
        assert_eq!(read(&[("SERVER__HTTP__RATIO", "1.5")], "/http/ratio"), json!(1.5));
        assert_eq!(read(&[("SERVER__HTTP__BODY_LIMIT", "2MiB")], "/http/body_limit"), json!("2MiB"));
        assert_eq!(read(&[("SERVER__HTTP__HOSTS", "[b, c]")], "/http/hosts"), json!(["b", "c"]));
        assert_eq!(read(&[("SERVER__HTTP", "{ratio: 2}")], "/http/ratio"), json!(2));
    }

    #[test]
    fn the_redis_of_a_hosting_platform_is_the_cache() {
        let redis = ("REDIS_URL", "redis://h:1");
        assert_eq!(read(&[redis], "/cache/url"), json!("redis://h:1"));
        assert_eq!(read(&[("REDIS_URL", "")], "/cache/url"), json!("memory:"));
        assert_eq!(read(&[redis, ("SERVER__CACHE__URL", "memory:")], "/cache/url"), json!("memory:"));
    }

    #[test]
    fn below_a_free_map_any_word_is_a_key() {
        let levels = "/logging/levels";
        assert_eq!(
            read(&[("SERVER__LOGGING__LEVELS__TOWER_HTTP", "off")], levels),
            json!({"tower_http": "off"})
        );
        assert_eq!(read(&[("SERVER__LOGGING__LEVELS", "{a::b: warn}")], levels), json!({"a::b": "warn"}));
    }

    #[test]
    fn a_header_is_named_with_underscores_for_its_hyphens() {
        let set =
            |name| outcome_over(HEADERS, &[(name, "a")]).map(|tree| tree["http"]["security_headers"].clone());
        assert_eq!(
            set("SERVER__HTTP__SECURITY_HEADERS__X_FRAME_OPTIONS"),
            Ok(json!({"x-frame-options": "a"}))
        );
        let expected = json!({"x-frame-options": "DENY", "x-new": "a"});
        assert_eq!(set("SERVER__HTTP__SECURITY_HEADERS__X_NEW"), Ok(expected));
        let whole = [("SERVER__HTTP__SECURITY_HEADERS", "{X-Frame-Options: a}")];
        let message = "environment SERVER__HTTP__SECURITY_HEADERS: http.security_headers.X-Frame-Options: \
                       header names are written in lower case here: 'x-frame-options'";
        assert_eq!(outcome_over(HEADERS, &whole), Err(message.to_owned()));
        let message = set("SERVER__HTTP__SECURITY_HEADERS__X NEW").unwrap_err();
        assert!(message.ends_with("http.security_headers.x new: is not a header name"), "{message}");
    }

    #[test]
    fn an_empty_variable_counts_as_not_set_unless_the_key_is_a_string() {
        for name in ["PORT", "SERVER__SERVER__PORT", "SERVER__HTTP__HOSTS", "MONGODB_HOST"] {
            assert_eq!(outcome(&[(name, "")]), outcome(&[]), "{name}");
        }
    }

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_named_server_are_ignored() {
        let injected = [
            ("SERVER_PORT", "tcp://10.0.0.1:80"),
            ("SERVER_SERVICE_HOST", "10.0.0.1"),
            ("SERVER_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("MONGODB_PORT", "tcp://10.0.0.1:27017"),
        ];
        assert_eq!(outcome(&injected), outcome(&[]));
    }

    #[test]
    fn a_variable_of_the_prefix_wins_over_a_plain_one() {
        assert_eq!(read(&[("PORT", "1")], "/server/port"), json!(1));
        assert_eq!(read(&[("PORT", "1"), ("SERVER__SERVER__PORT", "2")], "/server/port"), json!(2));
    }

    #[test]
    fn the_variables_of_the_original_make_a_mongodb_url() {
        let variables = [("MONGODB_HOST", "db"), ("MONGODB_USER", "ada"), ("MONGODB_PASSWORD", "p@w")];
        assert_eq!(read(&variables, "/store/url"), json!("mongodb://ada:p%40w@db:27017/axum_boilerplate"));
    }

    #[test]
    fn a_variable_of_a_hosting_service_sets_the_store() {
        for (name, url) in [
            ("MONGODB_URI", "mongodb+srv://u:p@h/db"),
            ("MONGO_URI", "mongodb://h/db"),
            ("DATABASE_URL", "mongodb://h/db"),
            ("DATABASE_URL", "sqlite:var/x"),
            ("DATABASE_URL", "postgres://h/db"),
        ] {
            assert_eq!(read(&[(name, url)], "/store/url"), json!(url));
            // The control: an empty one counts as not set.
            assert_eq!(outcome(&[(name, "")]), outcome(&[]));
        }
        let message =
            "environment MONGO_URI: is not a MongoDB URL, expected mongodb://... or mongodb+srv://...";
        assert_eq!(outcome(&[("MONGO_URI", "postgres://u:hunter2@h/db")]), Err(message.to_owned()));
    }

    #[test]
    fn two_variables_with_different_stores_are_refused_and_both_are_named() {
        const DB: &str = "mongodb://db:27017/axum_boilerplate";
        for (first, second, third) in [
            (("MONGODB_HOST", "db"), ("SERVER__STORE__URL", "memory:"), None),
            (("DATABASE_URL", "postgres://h/db"), ("MONGODB_URI", DB), None),
            (("MONGODB_HOST", "db"), ("MONGO_URI", "mongodb://other"), None),
            (("DATABASE_URL", "memory:"), ("MONGODB_URI", DB), Some(("MONGO_URI", DB))),
        ] {
            let variables: Vec<_> = [first, second].into_iter().chain(third).collect();
            let (name, other) = (first.0, second.0);
            let message = format!("environment {name}: give either {other} or this, not both");
            assert_eq!(outcome(&variables), Err(message));
        }
        // The control: the same store twice.
        let same = [("MONGODB_HOST", "db"), ("DATABASE_URL", DB), ("SERVER__STORE__URL", DB)];
        assert_eq!(read(&same, "/store/url"), json!(DB));
    }

    #[test]
    fn an_unknown_variable_names_the_nearest_one() {
        for (name, meant) in [
            ("SERVER__HTTP__BODY_LIMT", "SERVER__HTTP__BODY_LIMIT"),
            ("SERVER__HTTP_RATIO", "SERVER__HTTP__RATIO"),
            ("SERVER__PORT", "SERVER__SERVER__PORT"),
            ("SERVER__SERVER__PORT__X", "SERVER__SERVER__PORT"),
            ("SERVER__http__ratio", "SERVER__HTTP__RATIO"),
        ] {
            let expected = format!("environment {name}: unknown variable, did you mean {meant}?");
            assert_eq!(outcome(&[(name, "1")]), Err(expected));
        }
        let message = outcome(&[("SERVER__ZZZZZZ", "1")]).unwrap_err();
        assert!(message.ends_with("sections: server, http, logging, store, cache"), "{message}");
        assert!(outcome(&[("SERVER__", "1")]).is_err());
    }

    #[test]
    fn an_unknown_key_inside_a_variable_is_refused() {
        let message = outcome(&[("SERVER__HTTP", "{ratoi: 2}")]).unwrap_err();
        assert_eq!(message, "environment SERVER__HTTP: unknown key 'http.ratoi', did you mean 'http.ratio'?");
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_utf8_is_refused_in_variables_of_this_program_only() {
        use std::os::unix::ffi::OsStringExt;
        let broken = || OsString::from_vec(vec![0xff]);
        let error = Environment::new([("SERVER__HTTP__RATIO".into(), broken())]).err().unwrap();
        assert_eq!(error.to_string(), "environment SERVER__HTTP__RATIO: is not UTF-8 text");
        assert!(Environment::new([("LS_COLORS".into(), broken()), (broken(), broken())]).is_ok());
    }
}
