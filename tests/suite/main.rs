//! The tests of the app and of the program: one binary, so that it links once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod architecture;
mod documents;
mod examples; // examples
mod lifecycle;
#[cfg(feature = "mongodb")]
mod on_mongodb;
mod support;
mod wiring;
