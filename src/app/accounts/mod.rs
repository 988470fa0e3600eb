//! YOURS: people who log in (docs/ACCOUNTS.md). The user, its rules, pages and mails are here, to be changed; sessions,
//! passwords, links and throttles are the platform's. `make remove-example NAME=accounts` removes it all.

mod account;
mod credentials;
mod log_in;
mod mails;
mod pages;
mod password;
#[cfg(feature = "oidc")]
mod provider;
mod register;
mod user;

use platform::http::{Caller, Route, Routes};

use super::AppState;
pub use user::{Admin, User};

/// The routes of accounts.
pub fn routes() -> Routes<AppState> {
    let of_users = Routes::new()
        .route(Route::at("/account").get(account::show))
        .route(Route::at("/account/delete").get(account::delete_form).post(account::delete))
        .route(Route::at("/account/password").get(password::change_form).post(password::change))
        .route(Route::at("/account/sessions/end").post(account::end_session))
        .route(Route::at("/account/sessions/end-others").post(account::end_other_sessions))
        .route(Route::at("/account/tokens").get(account::token_form).post(account::new_token))
        .route(Route::at("/account/tokens/revoke").post(account::revoke_token))
        .guard::<Caller<User>>();
    let routes = Routes::new()
        .accounts::<User>()
        .route(Route::at("/register").get(register::form).post(register::send))
        .route(Route::at("/confirm").get(register::confirm_form).post(register::confirm))
        .route(Route::at("/log-in").get(log_in::form).post(log_in::log_in))
        .route(Route::at("/log-out").post(log_in::log_out))
        .route(Route::at("/forgot").get(password::forgot_form).post(password::forgot))
        .route(Route::at("/reset").get(password::reset_form).post(password::reset))
        .route(Route::at("/mail-sent").get(pages::mail_sent))
        .merge(of_users);
    #[cfg(feature = "oidc")]
    let routes = routes
        .entity::<provider::Linked>()
        .route(Route::at("/log-in/with/{provider}").get(provider::begin))
        .route(Route::at("/log-in/with/{provider}/back").get(provider::end));
    routes
}
