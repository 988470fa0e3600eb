//! The lines of a call in the log: one for each attempt, one for the outcome, and no secret in any.

use super::app_with;
use super::script::{Scripted, ok, response, status};
use crate::events::Events;

#[tokio::test]
async fn each_attempt_and_the_outcome_have_a_line_and_no_secret_is_in_any() {
    let (events, _guard) = Events::keep();
    let script = [status(503), ok("fine"), response(404, "set-cookie: hunter2\r\n", "hunter2")];
    let upstream = Scripted::start(&script).await;
    let url = upstream.url().replace("http://", "http://ada:hunter2@");
    let app = app_with(&url, &[], platform::http::Routes::new()).await;
    let connector = app.services().connector("backend").unwrap();
    let call = || {
        let call = connector.get("/x").query("token", "hunter2").query("q", "hunter2");
        call.header("authorization", "Bearer hunter2").header("x-api-key", "hunter2").body("hunter2")
    };
    call().send().await.unwrap();
    let lines = events.of("server.outbound");
    assert_eq!(lines.len(), 3, "{lines:#?}");
    let url = format!("url=\"{}/x?token=***&q=***\"", upstream.url());
    assert!(lines.iter().all(|line| line.contains(&url)), "{lines:#?}");
    assert!(
        lines[0].starts_with("INFO")
            && lines[0].contains("attempt=1 error=\"upstream backend: responded with 503\"")
    );
    assert!(lines[1].starts_with("DEBUG") && lines[1].contains("attempt=2 status=200"), "{lines:#?}");
    assert!(lines[2].starts_with("DEBUG") && lines[2].contains("status=200 retries=1"), "{lines:#?}");
    let error = call().send().await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let lines = events.of("server.outbound");
    assert!(lines[4].starts_with("WARN") && lines[4].contains("responded with 404"), "{lines:#?}");
    // The control: it was sent.
    assert!(upstream.heads()[0].contains("bearer hunter2"));
    // The user of the URL is sent as well, where the call has no header of its own.
    connector.get("/x").send().await.unwrap_err();
    assert!(upstream.heads()[3].contains("authorization: basic "), "{}", upstream.heads()[3]);
    let all = events.all();
    assert!(all.len() >= 5 && !all.iter().any(|line| line.contains("hunter2")), "{all:#?}");
}
