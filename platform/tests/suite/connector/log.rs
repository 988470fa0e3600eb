//! The lines of a call in the log: one for each attempt, one for the outcome, and no secret in any.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::app_with;
use super::script::{Scripted, ok, response, status};

/// Keeps every event of every level, of our libraries too.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl<S: Subscriber> Layer<S> for Kept {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut text = Text(format!("{} {}", metadata.level(), metadata.target()));
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
}

impl Kept {
    fn ours(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.contains(" server.outbound ")).cloned().collect()
    }
}

#[tokio::test]
async fn each_attempt_and_the_outcome_have_a_line_and_no_secret_is_in_any() {
    let kept = Kept::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(kept.clone()));
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
    let lines = kept.ours();
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
    let lines = kept.ours();
    assert!(lines[4].starts_with("WARN") && lines[4].contains("responded with 404"), "{lines:#?}");
    // The control: it was sent.
    assert!(upstream.heads()[0].contains("bearer hunter2"));
    // The user of the URL is sent as well, where the call has no header of its own.
    connector.get("/x").send().await.unwrap_err();
    assert!(upstream.heads()[3].contains("authorization: basic "), "{}", upstream.heads()[3]);
    let all = kept.0.lock().unwrap();
    assert!(all.len() >= 5 && !all.iter().any(|line| line.contains("hunter2")), "{all:#?}");
}
