//! `/addresses`: an address book. It is a larger slice: model, service and handlers.
//!
//! The service has the rules and knows nothing of HTTP; the handlers know nothing of storage.
//!
//! Also: data/addresses schema/address-book-v1.0.json

mod handlers;
mod model;
mod service;

pub use handlers::routes;
