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
#[cfg(feature = "auth")]
pub use extract::caller::{Anyone, Caller, InPerson, Known, Recent, Refused, Rule, own_path};
pub use extract::connector_to::ConnectorTo;
#[cfg(feature = "auth")]
pub use extract::cookies::{Cookies, Encrypted, EncryptedCookies, Protection, Signed, SignedCookies};
pub use extract::format::{Form, Format};
#[cfg(feature = "oidc")]
pub use extract::jwt::Jwt;
pub use extract::merge_patch::MergePatch;
#[cfg(feature = "auth")]
pub use extract::mine::{Mine, Owned};
pub use extract::paging::{PageRequest, Paged};
pub use extract::parameters::{Path, Query};
pub use extract::precondition::{Changed, Precondition, Versioned};
pub use extract::respond::{Created, Html, NoContent, segment};
#[cfg(feature = "auth")]
pub use extract::session::{Sessions, SetSession};
#[cfg(feature = "ws")]
pub use extract::websocket::{WebSocket, WebSocketUpgrade};
pub use extract::{Json, RawBody};
pub(crate) use middleware::Parts;
pub use middleware::Stack;
pub use middleware::error_body::{ErrorBody, ErrorFormat};
pub use own_routes::assets::routes as assets;
pub use own_routes::health;
pub(crate) use own_routes::mails::routes as mails;
pub use request::context::{Context, Field};
pub use request::peer::Peer;
pub use request::request_id::REQUEST_ID;
pub use routing::cors::Cors;
pub use routing::layer::{HandlerLayer, HandlerService, Layers};
pub use routing::limits::Limits;
pub use routing::route::{Route, RouteInfo};
pub(crate) use routing::routes::Needs;
pub use routing::routes::{RouteTable, Routes};
pub use settings::Settings;
pub use settings::allowed_hosts::AllowedHosts;
pub use settings::trusted_proxies::TrustedProxies;
