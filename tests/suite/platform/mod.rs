//! The platform's promises, tested through its face.

mod axum_world;
mod bodies;
mod connections;
mod endings;
mod errors;
mod lifecycle;
mod lists;
mod methods;
mod representations;
mod request_log;
mod store_contract;
mod upgrades;
