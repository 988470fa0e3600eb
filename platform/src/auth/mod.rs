//! People who log in: the mechanisms (docs/ACCOUNTS.md). What a user is, its pages and its mails belong to the app.
//!
//! It knows the store and no HTTP; what handlers take of it is in `http/extract`.

mod account;
#[cfg(feature = "oidc")]
mod discovery;
#[cfg(feature = "oidc")]
mod jwt;
mod keys;
mod link;
mod password;
#[cfg(feature = "oidc")]
mod provider;
mod random;
mod session;
mod settings;
mod throttle;
mod token;

pub use account::Account;
pub(crate) use keys::TAG;
pub use keys::{KeyNeed, Keys, new_key};
pub(crate) use link::Kept as KeptLink;
pub use link::{Link, Links};
pub use password::{PasswordHash, Passwords, Verified, Weakness};
#[cfg(feature = "oidc")]
pub(crate) use provider::Providers;
#[cfg(feature = "oidc")]
pub use provider::{Identity, LogInAnswer, LogInState, Provider};
pub(crate) use session::Kept as KeptSession;
pub use session::{Device, Session, Sessions};
pub use settings::{Settings, Throttles as ThrottleSettings};
pub(crate) use throttle::Bucket;
pub use throttle::{Key, Limit, Throttles};
pub(crate) use token::Kept as KeptToken;
pub use token::{ApiToken, ApiTokens, PREFIX};
