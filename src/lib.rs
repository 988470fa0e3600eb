//! A server template with pluggable infrastructure.
//!
//! Three rooms, and arrows that point one way only:
//!
//! ```text
//! main  →  app  →  platform
//! ```
//!
//! - [`platform`] is for keeping: it names nothing of the app, and a fork upgrades by replacing it.
//! - [`app`] is yours: [`app::build`] wires the routes.
//! - `app::examples` is for deleting: each example is a slice that names no other slice.
//!
//! `docs/ARCHITECTURE.md` walks one request through the files.

pub mod app;
pub mod platform;
