//! What is known of the upstream: its name, its paths, what it responds with.

use platform::connector::{CallError, Connector, Upstream};

/// The upstream `upstreams.client_flow`.
pub(super) struct Flow;

impl Upstream for Flow {
    const NAME: &'static str = "client_flow";
}

/// The calls of the upstream.
pub(super) struct FlowConnector<'a>(pub(super) &'a Connector);

impl FlowConnector<'_> {
    /// The text that it responds with.
    pub(super) async fn read(&self) -> Result<String, CallError> {
        let response = self.0.get("/ping").send().await?;
        Ok(String::from_utf8_lossy(response.bytes()).into_owned())
    }
}
