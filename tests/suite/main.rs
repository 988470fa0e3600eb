//! The tests of the app and of the program: one binary, so that it links once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts; // example: accounts
mod architecture;
mod dashboards;
mod deployment;
mod doctor;
mod documents;
mod examples; // examples
mod hostile;
mod https;
mod lifecycle;
#[cfg(feature = "mongodb")]
mod on_mongodb;
mod processes;
mod slow;
#[cfg(feature = "otlp")]
mod spans;
mod store_command;
mod stores;
mod support;
mod wiring;
