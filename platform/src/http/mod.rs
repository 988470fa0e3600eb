//! HTTP: the server, the middleware, and all that a handler takes and returns. Knows no slice.
//!
//! Seven rooms, each imports only from those behind it: `server` and `own_routes`; `middleware` and `extract`; `request`;
//! `routing`; `settings` (`tests/suite/ranks.rs`).

mod extract;
mod middleware;
mod own_routes;
mod request;
mod routing;
pub mod server;
mod settings;

pub use axum::extract::State;
pub use extract::connector_to::ConnectorTo;
pub use extract::merge_patch::MergePatch;
pub use extract::paging::{PageRequest, Paged};
pub use extract::parameters::{Path, Query};
pub use extract::precondition::{Changed, Precondition, Versioned};
pub use extract::respond::{Created, Html, NoContent, segment};
#[cfg(feature = "ws")]
pub use extract::websocket::{WebSocket, WebSocketUpgrade};
pub use extract::{Json, RawBody};
pub(crate) use middleware::Parts;
pub use middleware::Stack;
pub use middleware::error_body::{ErrorBody, ErrorFormat};
pub use own_routes::assets::routes as assets;
pub use own_routes::health;
pub use request::context::{Context, Field};
pub use request::peer::Peer;
pub use request::request_id::REQUEST_ID;
pub use routing::cors::Cors;
pub use routing::layer::{HandlerLayer, HandlerService, Layers};
pub use routing::route::{Limits, Route, RouteInfo};
pub use routing::routes::{RouteTable, Routes};
pub use settings::Settings;
pub use settings::allowed_hosts::AllowedHosts;
pub use settings::trusted_proxies::TrustedProxies;
