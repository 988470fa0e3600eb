//! The check of all dependencies.

use super::fake_upstream::FakeUpstream;
use crate::support::app_with;

#[tokio::test]
async fn it_says_which_dependencies_are_up() {
    let (up, down) = (FakeUpstream::start(&["404\n"]).await, FakeUpstream::start(&["500\n"]).await);
    let variables =
        [("SERVER__UPSTREAMS__ONE__URL", &*up.url()), ("SERVER__UPSTREAMS__OTHER__URL", &*down.url())];
    let app = app_with(&variables).await;
    let response = app.get("/pings").await;
    assert_eq!(response.status, 200);
    let body = response.json();
    let states = ["store", "cache", "one", "other"].map(|name| body[name].as_str().unwrap());
    assert_eq!(states, ["up", "up", "up", "down"]);
    assert_eq!((up.count(), down.count()), (1, 1));
}
