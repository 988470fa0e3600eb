//! The values that the environment sets: `SERVER__<SECTION>__<KEY>`, `PORT`, and the original's `MONGODB_...`.
//!
//! The variables are an argument; this file does not read them from the process.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::database;
use super::keys::{self, PREFIX, SEPARATOR};
use super::tree::{Node, Origin, Value};
use crate::error::StartError;

/// Variables that are read although they do not have the prefix. Heroku and Cloud Run assign the port by `PORT`.
const OTHERS: [&str; 6] =
    ["PORT", "MONGODB_HOST", "MONGODB_PORT", "MONGODB_NAME", "MONGODB_USER", "MONGODB_PASSWORD"];

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
            if name.starts_with(PREFIX) || OTHERS.contains(&&*name) {
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

    /// Merges the values of the variables into the tree. A variable with the prefix wins over `PORT` and `MONGODB_...`.
    pub(super) fn overlay(&self, tree: &mut Node, defaults: &Node) -> Result<(), StartError> {
        // A compose file passes an unset variable on as an empty one.
        if let Some(port) = self.get("PORT").filter(|port| !port.is_empty()) {
            tree.overlay(keys::set(defaults, &keys::split("server.port"), port, Origin::variable("PORT"))?);
        }
        let url = keys::split(database::KEY);
        let url_variable = keys::variable(&url);
        let parts = self.database();
        // Only the host selects MongoDB: a MONGODB_PASSWORD for another program must not change the store.
        if let Some(origin) = parts.host_origin() {
            if self.get(&url_variable).is_some() {
                return Err(origin.wrong(format_args!("give either {url_variable} or this, not both")));
            }
            tree.overlay(keys::set(defaults, &url, &parts.url()?, origin)?);
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
store: {url: 'memory:'}";

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
        let both = [("MONGODB_HOST", "db"), ("SERVER__STORE__URL", "memory:")];
        let message = "environment MONGODB_HOST: give either SERVER__STORE__URL or this, not both";
        assert_eq!(outcome(&both), Err(message.to_owned()));
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
        assert!(message.ends_with("sections: server, http, logging, store"), "{message}");
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
