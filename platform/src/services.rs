//! The infrastructure of a running server, built once at start from the configuration.
//!
//! A handler does not take all of it. It takes an extractor for each part that it uses, such as `Dao<T>`, so that its
//! signature shows what it uses.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::cache::{self, Cache};
use super::connector::{self, Connector, Connectors};
use super::error::{Error, Kind, Result, StartError};
use super::lock::{self, LockManager};
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
        let assets = Assets::open(settings.views)?;
        let connectors = Connectors::open(settings.connector, settings.upstreams, settings.name)?;
        let mut store = store::open(settings.store, settings.processes).await?;
        if settings.counts {
            store = store::measured(store, settings.store);
        }
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
