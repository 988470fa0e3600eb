//! HTTP: the server, the middleware, and all that a handler takes and gives. Knows no slice.

mod apart;
mod assets;
mod body;
mod compression;
mod connection;
mod context;
mod cors;
mod cross_site;
mod decompression;
mod endpoint;
mod etag;
mod exchange;
mod extract;
pub mod health;
mod middleware;
mod peer;
mod request_headers;
mod respond;
mod routes;
pub mod server;
mod settings;

pub use assets::routes as assets;
pub use axum::extract::{Path, Query, State};
pub use context::{Context, Field, REQUEST_ID};
pub use cors::Cors;
pub use extract::{Json, RawBody};
pub use middleware::Stack;
pub use peer::Peer;
pub use respond::{Created, Html, NoContent};
pub use routes::{Route, RouteInfo, RouteTable, Routes};
pub use settings::Settings;
