//! `/log-in/with/{provider}`: log-in by a provider of OpenID Connect (`auth.providers`).

use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Redirect, Response};
use platform::auth::{Identity, LogInAnswer, LogInState, Provider};
use platform::error::{Error, Result};
use platform::http::{EncryptedCookies, Path, Query, Sessions, own_path};
use platform::services::Services;
use platform::store::{Batch, Dao, Entity, Expected, Filter, Stored, field};
use serde::{Deserialize, Serialize};

use super::log_in::{self, Next};
use super::pages::Pages;
use super::user::{self, User};
use crate::app::AppState;

/// The cookie of a log-in that is under way.
const UNDER_WAY: &str = "log-in";

/// How long somebody may be at the provider.
const TIME: Duration = Duration::from_mins(10);

/// The most bytes of the way back: it is in that cookie, and a cookie has 4,096.
const MAX_NEXT: usize = 1_000;

/// Whose account it is, for somebody whom a provider knows. Its id is the issuer and the subject.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Linked {
    user: String,
}

impl Entity for Linked {
    const COLLECTION: &'static str = "user_identities";
    const INDEXES: &'static [&'static str] = &["user"];
}

/// Deletes whom providers know as this user.
pub(super) async fn forget(services: &Services, user: &str) -> Result<u64> {
    services.dao::<Linked>().delete_all(field("user").eq(user)).await
}

/// Sends the browser to the provider.
pub(super) async fn begin(
    State(services): State<Services>,
    mut cookies: EncryptedCookies,
    Path(name): Path<String>,
    Query(Next { next }): Query<Next>,
) -> Result<Response> {
    let next = own_path(&next).filter(|next| next.len() <= MAX_NEXT).unwrap_or_default();
    let (url, under_way) = of_name(&services, &name)?.begin(&way_back(&services, &name), next).await?;
    let kept = serde_json::to_string(&under_way).map_err(Error::internal)?;
    cookies.set(UNDER_WAY, &kept, TIME)?;
    Ok((cookies, Redirect::to(&url)).into_response())
}

/// Where the provider sends the browser: begins a session. Where that cannot be, the page with the form says why.
pub(super) async fn end(
    State(services): State<Services>,
    pages: Pages,
    mut cookies: EncryptedCookies,
    sessions: Sessions,
    accounts: Accounts,
    Path(name): Path<String>,
    Query(answer): Query<LogInAnswer>,
) -> Result<Response> {
    let provider = of_name(&services, &name)?;
    let kept = cookies.get(UNDER_WAY, TIME).and_then(|kept| serde_json::from_str::<LogInState>(&kept).ok());
    let Some(kept) = kept else {
        let error = refused("This log-in was not begun here, or is too old. Begin it again.");
        return log_in::refuse(pages, &services, String::new(), error);
    };
    let user = match provider.finish(&kept, &answer, &way_back(&services, &name)).await {
        Ok(identity) => accounts.of(identity).await,
        Err(error) => Err(error),
    };
    match user {
        Ok(user) => {
            cookies.remove(UNDER_WAY)?;
            let session = sessions.begin(&user).await?;
            let next = own_path(&kept.next).unwrap_or("/account");
            Ok((session, cookies, Redirect::to(next)).into_response())
        }
        Err(error) => log_in::refuse(pages, &services, kept.next, error),
    }
}

/// The accounts of people whom providers know.
pub(super) struct Accounts {
    users: Dao<User>,
    linked: Dao<Linked>,
    batch: Batch,
}

impl Accounts {
    /// The account of this identity: the one that it is linked to, or the one with its address, or a new one. The provider
    /// has to have proved the address.
    async fn of(self, identity: Identity) -> Result<Stored<User>> {
        let key = format!("{} {}", identity.issuer, identity.subject);
        let linked = self.linked.get(&key).await?;
        if let Some(linked) = &linked
            && let Some(user) = self.users.get(&linked.value.user).await?
        {
            return if user.value.disabled { Err(refused("This account is shut.")) } else { Ok(user) };
        }
        let email = identity.email.as_deref().filter(|_| identity.email_verified).map(user::email);
        let email = email.ok_or_else(|| refused("The provider has not proved your address."))??;
        let found = self.users.get_first(field("email").eq(email.as_str())).await?;
        let mut batch = self.batch;
        let id = match found {
            Some(user) if user.value.disabled => return Err(refused("This account is shut.")),
            Some(user) => {
                batch.require(&self.users, &user.id)?;
                user.id
            }
            None => {
                let name = identity.name.as_deref().map(user::name).and_then(Result::ok);
                let name = name.unwrap_or_else(|| email.clone());
                let first = (!self.users.exists(Filter::All).await?).then_some(true);
                let user = User { email, name, password: None, auth_version: 1, first, disabled: false };
                batch.insert(&self.users, &user)?
            }
        };
        match linked {
            // That account was deleted.
            Some(old) => {
                let new = Linked { user: id.clone() };
                batch.replace(&self.linked, &key, Expected::Version(old.version), &new)?;
            }
            None => batch.insert_with_id(&self.linked, &key, &Linked { user: id.clone() })?,
        }
        batch.commit().await?;
        self.users.get(&id).await?.ok_or_else(|| refused("This account has gone."))
    }
}

impl FromRequestParts<AppState> for Accounts {
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, state: &AppState) -> Result<Self> {
        let services = Services::from_ref(state);
        Ok(Self { users: services.dao(), linked: services.dao(), batch: services.batch() })
    }
}

fn of_name<'a>(services: &'a Services, name: &str) -> Result<&'a Provider> {
    let provider = services.provider(name).map(AsRef::as_ref);
    provider.ok_or_else(|| Error::not_found("No Such Provider"))
}

fn way_back(services: &Services, name: &str) -> String {
    format!("{}/log-in/with/{name}/back", services.public_url())
}

fn refused(message: &'static str) -> Error {
    Error::forbidden("Log-In Refused").with_message(message)
}

#[cfg(test)]
mod tests {
    use platform::testing::TestApp;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn who_has_deleted_their_account_may_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file:{}", folder.path().display());
        let environment = [("SERVER__MAIL__URL", url.as_str())];
        let app = TestApp::start(&crate::SERVICE, crate::app::app(), &environment).await;
        let services = app.services();
        let log_in = async || {
            let accounts =
                Accounts { users: services.dao(), linked: services.dao(), batch: services.batch() };
            let identity = json!({"iss": "https://company.example", "sub": "42", "email": "ada@shop.example",
                "email_verified": true});
            accounts.of(serde_json::from_value(identity).unwrap()).await
        };
        let first = log_in().await.unwrap();
        assert_eq!(log_in().await.unwrap().id, first.id);
        let users: Dao<User> = services.dao();
        users.delete(&first.id, Expected::Any).await.unwrap();
        let second = log_in().await.unwrap();
        assert_ne!(second.id, first.id);
        assert_eq!(log_in().await.unwrap().id, second.id);
    }
}
