//! API tokens, on every engine.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use platform::auth::{Account, ApiTokens};
use platform::clock::Clock;
use platform::store::{Dao, DocumentStore, Entity, Expected, Fields, Filter, Patch, Stored};
use serde::{Deserialize, Serialize};

const HOUR: Duration = Duration::from_hours(1);

fn tokens(store: &Arc<dyn DocumentStore>) -> (ApiTokens, Clock) {
    let clock = Clock::starting_at("2026-12-01T00:00:00Z".parse().unwrap());
    (ApiTokens::new(Arc::clone(store), clock.clone(), Duration::from_mins(5)), clock)
}

#[derive(Debug, Deserialize, Serialize)]
struct Owner {
    auth_version: u64,
}

impl Entity for Owner {
    const COLLECTION: &'static str = "owners";
}

impl Account for Owner {
    const LOG_IN: &'static str = "/log-in";

    fn auth_version(&self) -> u64 {
        self.auth_version
    }
}

fn owners(store: &Arc<dyn DocumentStore>) -> Dao<Owner> {
    Dao::new(Arc::clone(store))
}

async fn owner(store: &Arc<dyn DocumentStore>, id: &str) -> Stored<Owner> {
    owners(store).insert_with_id(id, &Owner { auth_version: 1 }).await.unwrap();
    owners(store).get(id).await.unwrap().unwrap()
}

pub(super) async fn a_token_is_found_until_it_ends(store: Arc<dyn DocumentStore>) {
    let ((tokens, clock), owners, ada) = (tokens(&store), owners(&store), owner(&store, "ada").await);
    let scopes = ["read".to_owned()];
    let token = tokens.issue(&ada, "ci", &scopes, Some(HOUR)).await.unwrap();
    let endless = tokens.issue(&ada, "cron", &[], None).await.unwrap();
    let (found, user) = tokens.find(&owners, token.expose()).await.unwrap().unwrap();
    assert_eq!((&*user.id, &*found.name), ("ada", "ci"));
    assert!(found.has_scope("read") && !found.has_scope("write"));
    clock.move_by(SignedDuration::from_hours(1));
    assert!(tokens.find(&owners, token.expose()).await.unwrap().is_none());
    assert!(tokens.find(&owners, endless.expose()).await.unwrap().is_some());
    assert_eq!(tokens.sweep().await.unwrap(), 1);
    let left = tokens.list(&ada).await.unwrap();
    assert_eq!(left.iter().map(|token| &*token.name).collect::<Vec<_>>(), ["cron"]);
    // A new password.
    owners.update("ada", Expected::Any, Patch::new().add("auth_version", 1)).await.unwrap();
    assert!(tokens.find(&owners, endless.expose()).await.unwrap().is_none());
    let ada = owners.get("ada").await.unwrap().unwrap();
    assert!(tokens.list(&ada).await.unwrap().is_empty());
}

pub(super) async fn the_use_of_a_token_is_noted_now_and_then(store: Arc<dyn DocumentStore>) {
    let ((tokens, clock), owners, ada) = (tokens(&store), owners(&store), owner(&store, "ada").await);
    let token = tokens.issue(&ada, "ci", &[], None).await.unwrap();
    let used = async || tokens.list(&ada).await.unwrap()[0].used;
    assert_eq!(used().await, None);
    let mut noted = None;
    for (minutes, is_noted) in [(0, true), (4, false), (1, true), (4, false), (60, true)] {
        clock.move_by(SignedDuration::from_mins(minutes));
        tokens.find(&owners, token.expose()).await.unwrap().unwrap();
        let now = used().await;
        assert_eq!(now != noted, is_noted, "after {minutes} minutes");
        noted = now;
    }
}

pub(super) async fn a_revoked_token_is_not_found_and_others_revoke_none(store: Arc<dyn DocumentStore>) {
    let ((tokens, _), owners) = (tokens(&store), owners(&store));
    let (ada, bob) = (owner(&store, "ada").await, owner(&store, "bob").await);
    let token = tokens.issue(&ada, "ci", &[], None).await.unwrap();
    let other = tokens.issue(&bob, "ci", &[], None).await.unwrap();
    let id = tokens.list(&ada).await.unwrap()[0].id.clone();
    assert!(!tokens.revoke(&bob, &id).await.unwrap());
    assert!(tokens.find(&owners, token.expose()).await.unwrap().is_some());
    assert!(tokens.revoke(&ada, &id).await.unwrap());
    assert!(tokens.find(&owners, token.expose()).await.unwrap().is_none());
    for _ in 1..=100 {
        tokens.issue(&ada, "ci", &[], None).await.unwrap();
    }
    assert_eq!(tokens.issue(&ada, "ci", &[], None).await.unwrap_err().reason(), "Too Many Tokens");
    assert_eq!(tokens.revoke_all(&ada).await.unwrap(), 100);
    assert!(tokens.find(&owners, other.expose()).await.unwrap().is_some());
}

/// What is kept of a token.
#[derive(Debug, Deserialize, Serialize)]
struct Kept(Fields);

impl Entity for Kept {
    const COLLECTION: &'static str = "platform_tokens";
}

pub(super) async fn the_store_has_nothing_that_opens_anything(store: Arc<dyn DocumentStore>) {
    let ((tokens, _), owners, ada) = (tokens(&store), owners(&store), owner(&store, "ada").await);
    let token = tokens.issue(&ada, "ci", &[], None).await.unwrap();
    let kept = Dao::<Kept>::new(Arc::clone(&store)).get_all(Filter::all()).await.unwrap();
    assert!(!format!("{kept:?}").contains(&token.expose()[4..]));
    assert!(tokens.find(&owners, &kept[0].id).await.unwrap().is_none());
}
