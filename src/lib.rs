//! The server: an app on the platform.
//!
//! Arrows that point one way only:
//!
//! ```text
//! main  →  app  →  platform
//! ```
//!
//! - `platform` is for keeping: a crate of its own that names nothing of the app. A fork upgrades by replacing it.
//! - [`app`] is yours: [`app::app`] wires the routes.
//! - `app::examples` is for deleting: each example is a slice that names no other slice. <!-- examples -->
//!
//! `docs/ARCHITECTURE.md` walks one request through the files.

pub mod app;

use platform::config::{Defaults, Service};

/// What the platform is told of this service: its name, its version and its own configuration.
pub const SERVICE: Service = Service {
    name: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    defaults: Defaults { name: "configs/default.yaml", text: include_str!("../configs/default.yaml") },
};
