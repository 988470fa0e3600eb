//! An address and a password: whether they belong together, how often that may be tried, and how a new one is stored.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use platform::auth::{PasswordHash, Passwords, Throttles, Verified};
use platform::error::{Error, Kind, Result};
use platform::http::{Context, SignedCookies};
use platform::secret::Secret;
use platform::services::Services;
use platform::store::{Batch, Dao, Expected, Stored, field, new_id};

use super::mails::Mails;
use super::user::{User, wrong};
use crate::app::AppState;

/// The cookie of a device on which somebody has logged in. It keeps attempts of its own, so that nobody can lock the owner
/// out by wrong passwords.
const DEVICE: &str = "device";

/// How long a device is known: as long as browsers keep a cookie.
const DEVICE_TIME: Duration = Duration::from_hours(24 * 400);

/// The addresses and passwords of users.
pub(super) struct Credentials {
    pub(super) users: Dao<User>,
    passwords: Passwords,
    throttles: Throttles,
    cookies: SignedCookies,
    client: Option<IpAddr>,
}

impl Credentials {
    /// The user of this address, if it is their password. An address that nobody has takes the same time and gets the same
    /// error as a wrong password.
    ///
    /// # Errors
    ///
    /// 422, and 429 after too many attempts.
    pub(super) async fn check(&self, email: &str, password: &Secret) -> Result<Stored<User>> {
        let email = email.trim().to_lowercase();
        let device = self.device(&email);
        let attempts = self.throttles.log_in(&email, self.client, device.as_deref()).await;
        attempts.map_err(|error| match error.kind() {
            Kind::TooManyRequests => error.with_message("Too many attempts. Wait a little, and try again."),
            _ => error,
        })?;
        let user = self.users.get_first(field("email").eq(email.as_str())).await?;
        let hash = user.as_ref().and_then(|user| user.value.password.as_ref());
        let verified = self.passwords.verify(hash, password).await?;
        let user = user.filter(|user| !user.value.disabled);
        match (verified, user) {
            (Verified::Yes, Some(user)) => Ok(user),
            (Verified::YesRehash(hash), Some(user)) => {
                let old = &user.value.password;
                let renew = |user: &mut User| {
                    // Somebody may have chosen another one since.
                    if user.password == *old {
                        user.password = Some(hash.clone());
                    }
                    Ok(())
                };
                // What is stored now, from which a change goes on; but not what is of another password.
                let stored = self.users.modify_if(&user.id, Expected::Any, renew).await?;
                let is_same = |stored: &Stored<User>| stored.value.auth_version == user.value.auth_version;
                Ok(stored.filter(is_same).unwrap_or(user))
            }
            _ => Err(Error::unprocessable("Wrong Password")
                .with_message("The address and the password do not belong together.")),
        }
    }

    /// After a log-in: makes this device one of the owner of this address.
    pub(super) async fn succeeded(mut self, email: &str) -> Result<SignedCookies> {
        let device = self.device(email);
        self.throttles.log_in_succeeded(email, self.client, device.as_deref()).await?;
        let id = device.unwrap_or_else(new_id);
        self.cookies.set(DEVICE, &format!("{id} {email}"), DEVICE_TIME)?;
        Ok(self.cookies)
    }

    /// What is stored of a new password, if it is a good one. `known` is what others know of its user.
    pub(super) async fn hash(&self, password: &Secret, known: &[&str]) -> Result<PasswordHash> {
        // The part of an address before its `@` too.
        let parts = known.iter().flat_map(|known| [Some(*known), known.split('@').next()]);
        let known: Vec<&str> = parts.flatten().collect();
        self.passwords.check(password, &known).map_err(|why| wrong("password", why.to_string()))?;
        self.passwords.hash(password).await
    }

    /// Stores a new password, by a batch that may have more, with the mail that says so. From that commit on, all former
    /// sessions, tokens and links of the user are nothing.
    pub(super) async fn renew(
        &self,
        mut batch: Batch,
        mut user: Stored<User>,
        password: &Secret,
        mails: &Mails,
    ) -> Result<Stored<User>> {
        let User { email, name, .. } = &user.value;
        let hash = self.hash(password, &[email, name]).await?;
        mails.changed(&mut batch, email)?;
        user.value.password = Some(hash);
        user.value.auth_version += 1;
        batch.replace(&self.users, &user.id, Expected::Version(user.version), &user.value)?;
        let versions = batch.commit().await?;
        user.version = versions.last().copied().unwrap_or_default();
        Ok(user)
    }

    /// The id of the device, if the owner of this address has logged in on it.
    fn device(&self, email: &str) -> Option<String> {
        let cookie = self.cookies.get(DEVICE, DEVICE_TIME)?;
        let (id, of) = cookie.split_once(' ')?;
        (of == email).then(|| id.to_owned())
    }
}

impl FromRequestParts<AppState> for Credentials {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let services = Services::from_ref(state);
        Ok(Self {
            users: services.dao(),
            passwords: services.passwords().clone(),
            throttles: services.throttles(),
            cookies: SignedCookies::from_request_parts(parts, state).await?,
            client: Context::from_request_parts(parts, state).await?.client(),
        })
    }
}
