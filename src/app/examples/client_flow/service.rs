//! The rules of the example, without HTTP of either side.

use platform::connector::CallError;
use serde::Serialize;

use super::connector::FlowConnector;

/// What the caller gets.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// What the upstream has said.
    response: String,
}

/// Asks the upstream.
pub(super) async fn ask(upstream: &FlowConnector<'_>) -> Result<Answer, CallError> {
    let response = upstream.read().await?;
    Ok(Answer { response: response.trim().to_owned() })
}
