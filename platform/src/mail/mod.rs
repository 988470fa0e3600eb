//! Mail: kept in the store with what needs it, and sent by a job (docs/ACCOUNTS.md).

mod folder;
mod mailer;
mod message;
mod settings;
#[cfg(feature = "mail")]
mod smtp;
mod transport;

pub use folder::Folder;
pub use mailer::{KeptMail, Mailer};
pub use message::Mail;
pub use settings::Settings;
