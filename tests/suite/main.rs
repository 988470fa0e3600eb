//! All tests that go through the public face of the server: one binary, so that it links once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod architecture;
mod documents;
mod examples; // examples
mod platform;
mod support;
