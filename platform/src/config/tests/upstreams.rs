//! An upstream: what the section `connector` gives it, and what is wrong with it.

use super::*;

#[test]
fn an_upstream_has_from_the_section_connector_what_it_leaves_out() {
    let file = b"
connector: {attempts: 4, breaker: {window: 7s}}
upstreams:
  billing:
    url: http://h/v1
    timeout: 2s
    jitter:
    breaker: {min_calls: 9}";
    let variables = [
        ("SERVER__CONNECTOR__TIMEOUT", "8s"),
        ("SERVER__CONNECTOR__CONCURRENCY", "7"),
        ("SERVER__UPSTREAMS__BILLING__BREAKER__OPEN_FOR", "3s"),
        ("SERVER__UPSTREAMS__MAIL__URL", "http://m"),
    ];
    let given = Given { file: Some(file), variables: &variables, flags: &[] };
    let loaded = load_given(&given).unwrap();
    let of = |name: &str| {
        let it = &loaded.config.upstreams[name].settings;
        let times =
            [it.timeout.get(), it.breaker.window.get(), it.breaker.open_for.get()].map(|time| time.as_secs());
        (times, it.attempts.get(), it.concurrency.get(), it.breaker.min_calls.get(), it.jitter)
    };
    assert_eq!(of("billing"), ([2, 7, 3], 4, 7, 9, true));
    assert_eq!(of("mail"), ([8, 7, 5], 4, 7, 20, true));
    // What is printed is what was set.
    let text = printed(&loaded);
    let (_, below) = text.split_once("\nupstreams:\n").unwrap();
    let keys = below
        .lines()
        .take_while(|line| line.starts_with(' '))
        .map(|line| line.trim().split(':').next().unwrap());
    let expected = ["billing", "url", "timeout", "jitter", "breaker", "min_calls", "open_for", "mail", "url"];
    assert_eq!(keys.collect::<Vec<_>>(), expected, "{text}");
    assert!(below.contains("# environment SERVER__UPSTREAMS__BILLING__BREAKER__OPEN_FOR\n"), "{text}");
}

#[test]
fn what_is_wrong_with_an_upstream_has_its_key_and_its_line() {
    for (text, expected) in [
        (
            "timout: 2s",
            "4: unknown key 'upstreams.billing.timout', did you mean 'upstreams.billing.timeout'?",
        ),
        (
            "breaker: {windw: 2s}",
            "4: unknown key 'upstreams.billing.breaker.windw', did you mean 'upstreams.billing.breaker.window'?",
        ),
        ("timeout: 11m", "4: upstreams.billing.timeout: 11m is out of range, expected 1ms to 10m"),
        (
            "breaker: {min_calls: x}",
            "4: upstreams.billing.breaker.min_calls: invalid type: string \"x\", expected a whole number",
        ),
        ("health: 7", "4: upstreams.billing.health: invalid type: integer `7`, expected a string"),
    ] {
        let message = refused_file(&format!("upstreams:\n  billing:\n    url: http://h\n    {text}"));
        assert_eq!(message, format!("my.yaml:{expected}"));
    }
    assert_eq!(
        refused_variable("SERVER__UPSTREAMS__BILLING__TIMEOUT", "2s"),
        "environment SERVER__UPSTREAMS__BILLING__TIMEOUT: upstreams.billing: missing field `url`"
    );
    // It is wrong for all of them, and named once.
    let message = refused_file("upstreams: {billing: {url: http://h}}\nconnector: {timeout: 0s}");
    assert_eq!(message, "my.yaml:2: connector.timeout: 0s is out of range, expected 1ms to 10m");
    let message = refused_file("upstreams: {billing: {url: 'ftp://u:hunter2@h'}}");
    assert!(
        message.starts_with("my.yaml:1: upstreams.billing.url: ") && !message.contains("hunter2"),
        "{message}"
    );
}
