//! The routes of the platform itself: files and health.

pub(super) mod assets;
pub mod health;
mod range;
