//! What the platform has to know of a user.

use crate::store::Entity;

/// A type of people who log in. The rest of it is the app's.
pub trait Account: Entity {
    /// The path of the page to which a browser is sent that has not logged in. It gets the way back as `?next=`.
    const LOG_IN: &'static str;

    /// A number that grows with a write that ends all sessions, tokens and links of the user: a new password, a new
    /// address. Each of them has the number of its time, and is nothing with another one: so there is no moment in which
    /// the password is new and an old session still holds.
    fn auth_version(&self) -> u64;

    /// Whether the user may log in. A session of one who may not is nothing, from the next request on.
    fn is_active(&self) -> bool {
        true
    }
}
