//! The platform's promises, tested through its public face: one binary, so that it links once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod axum_world;
mod bodies;
mod connections;
mod endings;
mod errors;
mod handlers;
mod layers;
mod lists;
mod methods;
#[cfg(feature = "redis")]
mod on_redis;
mod paths;
mod preconditions;
mod ranks;
mod representations;
mod request_log;
mod store_contract;
mod streams;
mod tasks;
#[cfg(any(feature = "mongodb", feature = "postgres", feature = "redis"))]
mod tcp_proxy;
mod upgrades;
