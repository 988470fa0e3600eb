//! A server template with pluggable infrastructure.
pub mod platform;
