//! `/addresses`: an address book, the grown shape of a slice: model, service, handlers.
//!
//! The service has the rules and knows nothing of HTTP; the handlers know nothing of storage.
//!
//! Also: data/addresses schema/address-book-v1.0.json

mod handlers;
mod model;
mod service;

pub use handlers::routes;
