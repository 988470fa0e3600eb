//! KEEP: the part of the server that every fork shares. Names nothing of the app.
pub mod error;
pub mod secret;
pub mod setting;
