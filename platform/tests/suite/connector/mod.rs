//! Calls to other services, against an upstream that does what a script says.

mod bodies;
mod forward;
mod forward_failures;
mod forward_rules;
mod log;
mod requests;
mod retries;
mod script;

use platform::connector::{Connector, Upstream};
use platform::testing::TestApp;

use self::script::{Act, Scripted};

/// The upstream of these tests.
struct Backend;

impl Upstream for Backend {
    const NAME: &'static str = "backend";
}

/// Short waits, so that a test is fast.
const FAST: &[(&str, &str)] = &[("BACKOFF", "1ms"), ("MAX_BACKOFF", "1ms")];

/// An app with the upstream at this URL, with these settings of it.
async fn app_with(
    url: &str,
    settings: &[(&str, &str)],
    routes: platform::http::Routes<platform::services::Services>,
) -> TestApp {
    let named = [("URL", url)].into_iter().chain(FAST.iter().chain(settings).copied());
    let named: Vec<_> =
        named.map(|(key, value)| (format!("SERVER__UPSTREAMS__BACKEND__{key}"), value)).collect();
    let mut variables: Vec<(&str, &str)> = vec![];
    for (name, value) in &named {
        // The later one counts.
        variables.retain(|(other, _)| other != name);
        variables.push((name, value));
    }
    TestApp::with_routes(routes, &variables).await
}

/// An upstream with this script, and the way to it.
async fn start(script: &[Act], settings: &[(&str, &str)]) -> (Scripted, Connector) {
    let upstream = Scripted::start(script).await;
    let app = app_with(&upstream.url(), settings, platform::http::Routes::new()).await;
    let connector = app.services().connector("backend").unwrap();
    (upstream, connector)
}
