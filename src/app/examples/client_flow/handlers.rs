//! HTTP in, HTTP out; no rules.

use platform::error::{Error, Result};
use platform::http::{ConnectorTo, Json};

use super::connector::{Flow, FlowConnector};
use super::service::{self, Answer};

/// What the upstream says. When it is dead after all attempts, this is a 500, as in the original; without `map_err` it would
/// be 502, 503 or 504.
pub(super) async fn read(upstream: ConnectorTo<Flow>) -> Result<Json<Answer>> {
    service::ask(&FlowConnector(&upstream)).await.map(Json).map_err(Error::internal)
}
