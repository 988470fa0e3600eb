//! The user: what is stored of people who log in, and the rules of who may do what. Add your own fields here.

use platform::auth::{Account, PasswordHash};
use platform::error::{Error, FieldError, Result};
use platform::http::{Known, Rule};
use platform::mail::Mail;
use platform::store::Entity;
use serde::{Deserialize, Serialize};

/// The most bytes of an address (RFC 5321, section 4.5.3.1.3: 256 with the angle brackets around it).
const MAX_EMAIL: usize = 254;

/// The most characters of a name.
const MAX_NAME: usize = 100;

/// A person with an account. There is none before its address is confirmed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct User {
    /// In lower case: nobody has two accounts for one mailbox.
    pub email: String,
    /// What others see.
    pub name: String,
    /// Never the password itself. Nothing for somebody who logs in by others, until they choose one (`/forgot`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordHash>,
    /// Grows with what ends all sessions.
    pub auth_version: u64,
    /// True for the first account of all, which may do everything; else missing. It is unique: there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<bool>,
    /// Whether an administrator has shut the account.
    #[serde(default)]
    pub disabled: bool,
}

impl Entity for User {
    const COLLECTION: &'static str = "users";
    const INDEXES: &'static [&'static str] = &["email"];
    const UNIQUE: &'static [&'static str] = &["email", "first"];
}

impl Account for User {
    const LOG_IN: &'static str = "/log-in";

    fn auth_version(&self) -> u64 {
        self.auth_version
    }

    fn is_active(&self) -> bool {
        !self.disabled
    }
}

/// Who may administer: the first account. `Caller<User, Admin>` lets nobody else in.
pub struct Admin;

impl Rule<User> for Admin {
    fn allows(caller: &Known<User>) -> bool {
        caller.user.value.first == Some(true)
    }
}

/// An address as it is stored. Whether it exists, only a mail tells: so all is taken to which a mail
/// can be sent.
pub(super) fn email(sent: &str) -> Result<String> {
    let email = sent.trim().to_lowercase();
    let parts = email.split_once('@');
    let is_plain = !email.chars().any(|c| c.is_control() || c.is_whitespace());
    let fits = email.len() <= MAX_EMAIL && Mail::new(&email, "", "").is_ok();
    match parts {
        Some((user, host)) if !user.is_empty() && !host.is_empty() && is_plain && fits => Ok(email),
        _ => Err(wrong("email", "is not an address such as ada@shop.example")),
    }
}

/// A name as it is stored.
pub(super) fn name(sent: &str) -> Result<String> {
    let name = sent.trim();
    match name.chars().count() {
        0 => Err(wrong("name", "is empty")),
        1..=MAX_NAME if !name.chars().any(char::is_control) => Ok(name.to_owned()),
        _ => Err(wrong("name", "is longer than 100 characters, or has a line break")),
    }
}

/// 422: a field of a form that has to be mended.
pub(super) fn wrong(field: &str, message: impl Into<String>) -> Error {
    let error = FieldError { pointer: format!("/{field}"), message: message.into() };
    Error::unprocessable("Invalid Form").with_errors(vec![error])
}
