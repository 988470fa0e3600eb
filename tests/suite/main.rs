//! All tests that go through the public face of the server: one binary, so that it links once.

mod architecture;
mod examples; // examples
mod platform;
mod support;
