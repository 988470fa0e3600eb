//! An upstream that gives these responses one after the other, and then the last one again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;

pub struct FakeUpstream {
    port: u16,
    count: Arc<AtomicUsize>,
}

impl FakeUpstream {
    /// Each response is its status, a line feed, and its body.
    pub async fn start(responses: &[&str]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(AtomicUsize::new(0));
        let responses: Vec<String> = responses.iter().map(|&text| text.to_owned()).collect();
        let counted = Arc::clone(&count);
        let respond = async move || {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            let text = responses.get(number).or(responses.last()).unwrap();
            let (status, body) = text.split_once('\n').unwrap();
            (StatusCode::from_bytes(status.trim().as_bytes()).unwrap(), body.to_owned())
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(respond)).await });
        Self { port, count }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many requests there were.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}
