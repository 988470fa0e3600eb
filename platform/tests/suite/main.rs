//! The platform's promises, tested through its public face: one binary, so that it links once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "auth")]
mod accounts;
mod axum_world;
mod batches;
mod bodies;
mod both_versions;
mod closing;
mod connections;
mod connector;
mod cookies;
mod damaged;
mod endings;
mod errors;
mod events;
mod everything;
mod figures;
mod framing;
mod gate;
mod groups;
mod handlers;
mod health;
mod https;
mod jobs;
mod layers;
mod limits;
mod lists;
mod lock_contract;
mod mails;
mod methods;
mod on_chromium;
#[cfg(feature = "redis")]
mod on_redis;
mod orphans;
mod parameters;
mod partial_updates;
mod paths;
mod preconditions;
mod proofs;
mod ranks;
mod representations;
mod request_log;
mod restore;
#[cfg(feature = "otlp")]
mod spans;
mod store_contract;
mod streams;
mod stuck;
mod tasks;
#[cfg(any(feature = "etcd", feature = "mongodb", feature = "postgres", feature = "redis"))]
mod tcp_proxy;
mod throttles;
mod unique;
mod upgrades;
