//! HTTP: the server, the middleware, and all that a handler takes and returns. Knows no slice.

mod assets;
mod body;
mod cold;
mod compression;
mod connection;
mod context;
mod cors;
mod cross_site;
mod decompression;
mod endpoint;
mod error_body;
mod etag;
mod exchange;
mod extract;
mod fixed_headers;
pub mod health;
mod layer;
mod middleware;
mod paging;
mod peer;
mod precondition;
mod refusal;
mod request_headers;
mod request_id;
mod respond;
mod route;
mod routes;
pub mod server;
mod settings;
mod timed;
mod trusted_proxies;
#[cfg(feature = "ws")]
mod websocket;

pub use assets::routes as assets;
pub use axum::extract::{Path, Query, State};
pub use context::{Context, Field};
pub use cors::Cors;
pub use error_body::{ErrorBody, ErrorFormat};
pub use extract::{Json, RawBody};
pub use layer::{HandlerService, Layers};
pub(crate) use middleware::Parts;
pub use middleware::Stack;
pub use paging::{PageRequest, Paged};
pub use peer::Peer;
pub use precondition::{Changed, Precondition, Versioned};
pub use request_id::REQUEST_ID;
pub use respond::{Created, Html, NoContent};
pub use route::{Limits, Route, RouteInfo};
pub use routes::{RouteTable, Routes};
pub use settings::Settings;
pub use trusted_proxies::TrustedProxies;
#[cfg(feature = "ws")]
pub use websocket::{WebSocket, WebSocketUpgrade};
