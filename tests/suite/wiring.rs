//! The app as it is wired, whatever its slices are.

use crate::support::app;

#[tokio::test]
async fn the_app_is_alive_and_knows_which_paths_it_has() {
    let app = app().await;
    assert_eq!(app.get("/ping").await.status, 200);
    assert_eq!(app.get("/nowhere").await.status_line(), "404 Unknown Endpoint");
}
