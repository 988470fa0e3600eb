//! The infrastructure of a running server, built once at start from the configuration.
//!
//! A handler does not take all of it. It takes an extractor for each part that it uses, such as `Dao<T>`, so that its
//! signature shows what it uses.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

#[cfg(feature = "auth")]
use super::auth::{self, Keys, Passwords};
use super::cache::{self, Cache};
use super::clock::Clock;
use super::connector::{self, Connector, Connectors};
use super::error::{Error, Kind, Result, StartError};
use super::lock::{self, LockManager};
use super::mail::{self, Mailer};
use super::secret::Secret;
use super::setting::Span;
use super::store::{self, Batch, Dao, Declared, DocumentStore, Entity};
use super::views::{self, Assets};

/// The services that handlers can use. Cheap to clone.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

struct Inner {
    name: String,
    env: String,
    debug: bool,
    public_url: String,
    public_url_is_secure: Option<bool>,
    clock: Clock,
    #[cfg(feature = "auth")]
    auth: auth::Settings,
    #[cfg(feature = "auth")]
    keys: Option<Keys>,
    #[cfg(feature = "auth")]
    passwords: Passwords,
    #[cfg(feature = "oidc")]
    providers: auth::Providers,
    mailer: Mailer,
    store: Arc<dyn DocumentStore>,
    cache: Cache,
    locks: LockManager,
    connectors: Connectors,
    assets: Assets,
    /// In the order in which they were opened.
    components: Vec<Arc<dyn Component>>,
    health: HealthSettings,
}

/// A part of the infrastructure. It is opened at start and closed at the end.
#[async_trait]
pub trait Component: Send + Sync {
    /// Its name in health checks and logs.
    fn name(&self) -> &'static str;

    /// Succeeds when it can be used now.
    async fn check(&self) -> Result<()>;

    /// Finishes operations in progress and releases its resources.
    async fn close(&self);
}

/// The store as a component.
struct Store(Arc<dyn DocumentStore>);

#[async_trait]
impl Component for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    async fn check(&self) -> Result<()> {
        self.0.ping().await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

/// The cache as a component: its engine holds nothing that would have to be finished.
#[async_trait]
impl Component for Cache {
    fn name(&self) -> &'static str {
        "cache"
    }

    async fn check(&self) -> Result<()> {
        self.ping().await
    }

    async fn close(&self) {}
}

/// The locks as a component.
#[async_trait]
impl Component for LockManager {
    fn name(&self) -> &'static str {
        "locks"
    }

    async fn check(&self) -> Result<()> {
        self.ping().await
    }

    async fn close(&self) {
        LockManager::close(self).await;
    }
}

/// The section `health` of the configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HealthSettings {
    /// The names of the components that must respond.
    pub required: Vec<String>,
    /// The longest time that a component may take.
    pub timeout: Span<10, 10_000>,
    /// Who sends it sees the components.
    pub token: Secret,
}

impl HealthSettings {
    /// Refuses the name of a component that there is not.
    fn check(&self, components: &[Arc<dyn Component>]) -> Result<(), StartError> {
        let names: Vec<&str> = components.iter().map(|component| component.name()).collect();
        match self.required.iter().find(|name| !names.contains(&name.as_str())) {
            Some(unknown) => Err(StartError::config(format!(
                "health.required: there is no component '{unknown}', only {}",
                names.join(", ")
            ))),
            None => Ok(()),
        }
    }
}

/// What a check of a component has found.
#[derive(Debug)]
pub struct Checked {
    /// The component.
    pub name: &'static str,
    /// Whether the server is ready only if it responds.
    pub is_required: bool,
    /// Whether it responds.
    pub result: Result<()>,
}

/// The settings from which the services are built.
pub struct Settings<'a> {
    /// The name of the server.
    pub name: &'a str,
    /// `server.env`.
    pub env: &'a str,
    /// `--debug`.
    pub debug: bool,
    /// Where its users find it, `server.public_url`.
    pub public_url: String,
    /// Whether `server.public_url` is HTTPS; nothing where it is not set.
    pub public_url_is_secure: Option<bool>,
    /// Whether the app signs or encrypts cookies.
    #[cfg(feature = "auth")]
    pub key_need: auth::KeyNeed,
    /// The time of day.
    pub clock: Clock,
    /// Section `auth`.
    #[cfg(feature = "auth")]
    pub auth: &'a auth::Settings,
    /// Section `mail`.
    pub mail: &'a mail::Settings,
    /// Whether the calls of the store are counted for `/metrics`.
    pub counts: bool,
    /// The number of processes that share the store.
    pub processes: u64,
    /// Section `store`.
    pub store: &'a store::Settings,
    /// Section `cache`.
    pub cache: &'a cache::Settings,
    /// Section `lock`.
    pub lock: &'a lock::Settings,
    /// Section `connector`.
    pub connector: &'a connector::Settings,
    /// Section `upstreams`.
    pub upstreams: &'a BTreeMap<String, connector::UpstreamSettings>,
    /// Section `views`.
    pub views: &'a views::Settings,
    /// Section `health`.
    pub health: &'a HealthSettings,
}

impl Services {
    /// Opens all components. The first one that fails keeps the server from starting.
    pub async fn open(settings: Settings<'_>) -> Result<Self, StartError> {
        #[cfg(feature = "auth")]
        let keys = Keys::open(settings.auth, settings.key_need)?;
        #[cfg(feature = "auth")]
        let passwords = Passwords::new(&settings.auth.passwords, settings.name)?;
        let assets = Assets::open(settings.views)?;
        let connectors = Connectors::open(settings.connector, settings.upstreams, settings.name)?;
        #[cfg(feature = "oidc")]
        let providers = auth::Provider::open(&settings.auth.providers, connectors.any(), &settings.clock);
        let mut store = store::open(settings.store, settings.processes).await?;
        if settings.counts {
            store = store::measured(store, settings.store);
        }
        let mailer = Mailer::open(settings.mail, &store, settings.clock.clone())?;
        let cache = cache::open(settings.cache, settings.name)?;
        let locks = lock::open(settings.lock, settings.name)?;
        let (name, env) = (settings.name.to_owned(), settings.env.to_owned());
        let components: Vec<Arc<dyn Component>> =
            vec![Arc::new(Store(Arc::clone(&store))), Arc::new(cache.clone()), Arc::new(locks.clone())];
        settings.health.check(&components)?;
        let (debug, health) = (settings.debug, settings.health.clone());
        Ok(Self(Arc::new(Inner {
            name,
            env,
            debug,
            public_url: settings.public_url,
            public_url_is_secure: settings.public_url_is_secure,
            clock: settings.clock,
            #[cfg(feature = "auth")]
            auth: settings.auth.clone(),
            #[cfg(feature = "auth")]
            keys,
            #[cfg(feature = "auth")]
            passwords,
            #[cfg(feature = "oidc")]
            providers,
            mailer,
            store,
            cache,
            locks,
            connectors,
            assets,
            components,
            health,
        })))
    }

    /// The name of the server, `server.name`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The name of the environment, `server.env`.
    pub fn env(&self) -> &str {
        &self.0.env
    }

    /// Whether error responses contain the trace (`--debug`).
    pub fn debug(&self) -> bool {
        self.0.debug
    }

    /// Where its users find the server, without a slash at its end: `https://shop.example`. What links in mails begin with.
    pub fn public_url(&self) -> &str {
        &self.0.public_url
    }

    /// Whether `server.public_url` is HTTPS; nothing where it is not set.
    pub fn public_url_is_secure(&self) -> Option<bool> {
        self.0.public_url_is_secure
    }

    /// The time of day; a test moves it (`App::clock`).
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The section `auth` of the configuration.
    #[cfg(feature = "auth")]
    pub(crate) fn auth(&self) -> &auth::Settings {
        &self.0.auth
    }

    /// The keys of signed and encrypted cookies. Where there are none, the error (500) names the remedy.
    #[cfg(feature = "auth")]
    pub fn keys(&self) -> Result<&Keys> {
        self.0.keys.as_ref().ok_or_else(Keys::missing)
    }

    /// Makes and verifies the hashes of passwords.
    #[cfg(feature = "auth")]
    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// How often something may be tried, counted in the store. An extractor, too.
    #[cfg(feature = "auth")]
    pub fn throttles(&self) -> auth::Throttles {
        auth::Throttles::new(Arc::clone(&self.0.store), self.0.clock.clone(), &self.auth().throttles)
    }

    /// The API tokens of all users. An extractor, too.
    #[cfg(feature = "auth")]
    pub fn api_tokens(&self) -> auth::ApiTokens {
        let touch = self.auth().sessions.touch.get();
        auth::ApiTokens::new(Arc::clone(&self.0.store), self.0.clock.clone(), touch)
    }

    /// The sender of mails.
    pub fn mailer(&self) -> &Mailer {
        &self.0.mailer
    }

    /// The sessions of all users.
    #[cfg(feature = "auth")]
    pub fn sessions(&self) -> auth::Sessions {
        auth::Sessions::new(self.dao(), self.auth().sessions, self.clock().clone())
    }

    /// The links in mails.
    #[cfg(feature = "auth")]
    pub fn links(&self) -> auth::Links {
        auth::Links::new(self.dao(), self.auth().link_time.get(), self.clock().clone())
    }

    /// A provider of log-ins, by its name in `auth.providers`.
    #[cfg(feature = "oidc")]
    pub fn provider(&self, name: &str) -> Option<&Arc<auth::Provider>> {
        self.0.providers.get(name)
    }

    /// The names of the providers of log-ins.
    #[cfg(feature = "auth")]
    pub fn provider_names(&self) -> impl Iterator<Item = &str> {
        self.0.auth.providers.keys().map(String::as_str)
    }

    /// The providers of log-ins.
    #[cfg(feature = "oidc")]
    pub(crate) fn providers(&self) -> &auth::Providers {
        &self.0.providers
    }

    /// Deletes what has ended of accounts.
    #[cfg(feature = "auth")]
    pub(crate) async fn sweep_accounts(&self) -> Result<()> {
        self.sessions().sweep().await?;
        self.links().sweep().await?;
        self.api_tokens().sweep().await?;
        self.throttles().sweep().await?;
        Ok(())
    }

    /// Creates these collections and their indexes if they are missing. A store that does not respond is no error: then
    /// the first call of each creates it.
    pub(crate) async fn prepare(&self, entities: &[Declared]) -> Result<(), StartError> {
        for Declared { collection, .. } in entities {
            match self.0.store.prepare(collection).await {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::Unavailable => return Ok(()),
                Err(error) => {
                    let name = collection.name();
                    return Err(StartError::failed(format!("collection {name}: {}", error.cause())));
                }
            }
        }
        self.warn_of_migrations(entities).await;
        Ok(())
    }

    /// Logs it if steps of `store migrate` have not run. The server starts all the same: it may be the one of the former
    /// release.
    async fn warn_of_migrations(&self, entities: &[Declared]) {
        if let Ok(missing) = store::bulk::missing(&self.0.store, entities).await
            && !missing.is_empty()
        {
            tracing::warn!(
                target: "server",
                steps = missing.join(" "),
                "documents have a former shape: run the subcommand `store migrate`"
            );
        }
    }

    /// Fails when the store is known to have no batches. One that does not respond is no error: then the commits fail.
    pub(crate) async fn check_batches(&self) -> Result<(), StartError> {
        match self.0.store.check_batches().await {
            Err(error) if error.kind() != Kind::Unavailable => {
                Err(StartError::failed(format!("this app needs batches: {}", error.cause())))
            }
            _ => Ok(()),
        }
    }

    /// Writes of several documents in one commit.
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.0.store))
    }

    /// Access to the documents of one type.
    pub fn dao<T: Entity>(&self) -> Dao<T> {
        Dao::new(Arc::clone(&self.0.store))
    }

    /// Connections to the file of the DAO, if the store is SQLite; `None` if it is another engine. They are not the DAO's own: a
    /// report that is slow takes none away from it.
    ///
    /// They cannot write (`PRAGMA query_only`), because all writes of a process go through one connection, which shares
    /// their commits: write with the DAO. `store.timeout` after a connection was taken, SQLite interrupts what runs on it, also
    /// when its caller has gone away. What needs longer takes that off its connection:
    /// `connection.lock_handle().await?.remove_progress_handler()`.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&self) -> Option<store::drivers::sqlx::SqlitePool> {
        self.0.store.sqlite()
    }

    /// Connections to the database of the DAO, if the store is PostgreSQL; `None` if it is another engine. They are not the
    /// DAO's own: a report that is slow takes none away from it. PostgreSQL ends a statement after `store.timeout`, also when
    /// its caller has gone away.
    #[cfg(feature = "postgres")]
    pub fn postgres(&self) -> Option<store::drivers::sqlx::PgPool> {
        self.0.store.postgres()
    }

    /// The database of the DAO, if the store is MongoDB; `None` if it is another engine. The driver ends no call that has
    /// begun: give it a `max_time`. `Unavailable` when the hosts of a `mongodb+srv://` URL cannot be looked up.
    #[cfg(feature = "mongodb")]
    pub async fn mongodb(&self) -> Result<Option<store::drivers::mongodb::Database>> {
        self.0.store.mongodb().await
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// The locks.
    pub fn locks(&self) -> &LockManager {
        &self.0.locks
    }

    /// The way to an upstream, for what is no handler: a task, a job. The error, for a name that the configuration does not
    /// have, is one that stops the start.
    pub fn connector(&self, name: &str) -> Result<Connector, StartError> {
        self.0.connectors.get(name).cloned()
    }

    /// The way to URLs that come from a user: only public addresses are connected to.
    pub fn public_connector(&self) -> &Connector {
        self.0.connectors.public()
    }

    /// The static files.
    pub fn assets(&self) -> &Assets {
        &self.0.assets
    }

    /// The section `health` of the configuration.
    pub(crate) fn health(&self) -> &HealthSettings {
        &self.0.health
    }

    /// Checks the components, all at the same time, each for no longer than `health.timeout`.
    pub async fn check(&self) -> Vec<Checked> {
        let time = self.0.health.timeout.get();
        let check = async |component: &Arc<dyn Component>| {
            let name = component.name();
            let result = tokio::time::timeout(time, component.check()).await;
            let result =
                result.unwrap_or_else(|_| Err(Error::unavailable(format!("no response within {time:?}"))));
            Checked {
                name,
                is_required: self.0.health.required.iter().any(|required| required == name),
                result,
            }
        };
        join_all(self.0.components.iter().map(check)).await
    }

    /// Checks the upstreams, all at the same time, each for no longer than `health.timeout`.
    pub async fn check_upstreams(&self) -> Vec<(String, Result<()>)> {
        let time = self.0.health.timeout.get();
        let check = async |upstream: &Connector| {
            (upstream.name().to_owned(), upstream.check(time).await.map_err(Error::from))
        };
        join_all(self.0.connectors.iter().map(check)).await
    }

    /// Closes the components in reverse order, because a later one may use an earlier one.
    pub async fn close(&self) {
        for component in self.0.components.iter().rev() {
            component.close().await;
        }
    }
}
