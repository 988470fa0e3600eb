//! What is known of one request: its id, its client, its headers, where it arrived, what it measures.

pub(super) mod arrival;
pub(super) mod claims;
pub(super) mod context;
#[cfg(feature = "auth")]
pub(super) mod cookie;
pub(super) mod info;
pub(super) mod measures;
pub(super) mod peer;
pub(super) mod request_headers;
pub(super) mod request_id;
pub(super) mod trace;
