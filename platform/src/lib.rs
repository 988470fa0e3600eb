//! KEEP: the part of the server that every fork shares. It names nothing of the app.
//!
//! [`main`] turns an [`App`] into a program: it reads flags and configuration, opens the services, listens, and drains
//! on a signal.

mod app;
#[cfg(feature = "auth")]
pub mod auth;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connector;
mod doctor;
pub mod error;
mod file_name;
pub mod http;
pub mod json;
pub mod lock;
pub mod logging;
pub mod mail;
pub mod metrics;
mod network;
mod new_file;
mod process;
mod regular_file;
pub mod retry;
pub mod scheduler;
pub mod schema;
pub mod secret;
pub mod services;
pub mod setting;
pub mod shutdown;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;
pub mod traces;
pub mod views;

mod lifecycle;

pub use app::{App, OpenApp, Tasks};
pub use clap;
pub use lifecycle::main;

/// Runs the examples of `platform/docs/AXUM.md` as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/AXUM.md")]
pub struct ExamplesForAxumUsers;

/// Runs the examples of `platform/docs/RECIPES.md` as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/RECIPES.md")]
pub struct ExamplesOfRecipes;
