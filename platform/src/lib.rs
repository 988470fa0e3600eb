//! KEEP: the part of the server that every fork shares. It names nothing of the app.
//!
//! [`main`] turns an [`App`] into a program: it reads flags and configuration, opens the services, listens, and drains
//! on a signal.

mod app;
pub mod cache;
pub mod cli;
pub mod config;
pub mod error;
pub mod http;
pub mod json;
pub mod logging;
pub mod schema;
pub mod secret;
pub mod services;
pub mod setting;
pub mod shutdown;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod views;

mod lifecycle;

pub use app::{App, OpenApp, Tasks};
pub use clap;
pub use lifecycle::main;

/// Runs the examples of `platform/docs/AXUM.md` as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/AXUM.md")]
pub struct ExamplesForAxumUsers;
