//! The mark of a response that an upstream has made.

/// In the extensions of such a response: the middleware changes neither body, nor length, nor error.
#[derive(Clone, Copy)]
pub(super) struct Relayed;
