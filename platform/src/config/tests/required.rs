//! A key without a default.

use super::*;

#[test]
fn a_key_without_a_value_is_required_and_its_variable_is_a_text() {
    #[derive(Debug, Deserialize)]
    struct Required {
        token_secret: String,
    }
    let service = service("app:\n  token_secret:");
    let load = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        load::<Required>(&Flags::default(), variables, &service).map(|loaded| loaded.config.app.token_secret)
    };
    for secret in ["hunter2", "0123", "a: [ #b"] {
        assert_eq!(load(&[("SERVER__APP__TOKEN_SECRET", secret)]).unwrap(), secret);
    }
    let missing = "configs/default.yaml:2: app.token_secret: has no value, expected a string; the variable \
                   SERVER__APP__TOKEN_SECRET sets it";
    for variables in [&[][..], &[("SERVER__APP__TOKEN_SECRET", "")]] {
        let error = load(variables).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code), (missing, 2));
    }
}
