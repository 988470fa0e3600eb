//! The routes of the platform itself: files, health, and mails under `--debug`.

pub(super) mod assets;
pub mod health;
pub(super) mod mails;
mod range;
