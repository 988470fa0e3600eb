//! What an app does while the server of its store is down, is killed, or is frozen. Each engine with a server runs it.

use std::time::{Duration, Instant};

use platform::http::{Json, Route, Routes};
use platform::store::{Dao, Filter};
use platform::testing::TestApp;

use super::Person;
use crate::tcp_proxy::TcpProxy;

/// `store.timeout` of the app.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How much longer than that a request may take.
const TOLERANCE: Duration = Duration::from_secs(1);
/// How soon after the return of the server requests succeed again.
const RECOVERY: Duration = Duration::from_secs(5);

async fn list(people: Dao<Person>) -> platform::error::Result<Json<u64>> {
    people.count(Filter::all()).await.map(Json)
}

/// `variable` is what names the store, and `url` leads through the proxy, which does not run yet.
pub async fn check((variable, url): (&str, &str), proxy: &mut TcpProxy) {
    let routes =
        Routes::new().route(Route::at("/people").get(list)).route(Route::at("/alone").get(async || "ok"));
    let app = TestApp::with_routes(routes, &[(variable, url), ("SERVER__STORE__TIMEOUT", "1s")]).await;
    // Down at the start.
    unavailable(&app).await;
    proxy.start().await;
    recovers(&app).await;
    // Killed.
    proxy.stop().await;
    unavailable(&app).await;
    proxy.start().await;
    recovers(&app).await;
    // Frozen.
    proxy.freeze(true);
    unavailable(&app).await;
    proxy.freeze(false);
    recovers(&app).await;
    app.close().await;
}

/// What needs the store is 503 in time; other routes do not wait for it.
async fn unavailable(app: &TestApp) {
    let (dependent, begun) = (app.get("/people"), Instant::now());
    let (dependent, alone) = tokio::join!(dependent, async {
        let alone = app.get("/alone").await;
        (alone.status.as_u16(), begun.elapsed() < TIMEOUT / 2)
    });
    assert_eq!((dependent.status.as_u16(), alone), (503, (200, true)));
    assert_eq!(dependent.header("retry-after"), Some("1"));
    assert!(begun.elapsed() < TIMEOUT + TOLERANCE, "{:?}", begun.elapsed());
}

async fn recovers(app: &TestApp) {
    let begun = Instant::now();
    while app.get("/people").await.status.as_u16() != 200 {
        assert!(begun.elapsed() < RECOVERY);
    }
}
