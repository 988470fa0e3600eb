//! The infrastructure of a running server, built once at start from the configuration.
//!
//! A handler does not take all of it. It takes an extractor for each part that it uses, such as `Dao<T>`, so that its
//! signature shows what it uses.

use std::sync::Arc;

use async_trait::async_trait;

use super::cache::{self, Cache};
use super::error::{Result, StartError};
use super::store::{self, Dao, DocumentStore, Entity};
use super::views::{self, Assets};

/// The services that handlers can use. Cheap to clone.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

struct Inner {
    name: String,
    debug: bool,
    store: Arc<dyn DocumentStore>,
    cache: Cache,
    assets: Assets,
    /// In the order in which they were opened.
    components: Vec<Arc<dyn Component>>,
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

/// The settings from which the services are built.
pub struct Settings<'a> {
    /// The name of the server.
    pub name: &'a str,
    /// `--debug`.
    pub debug: bool,
    /// The number of processes that share the store.
    pub processes: u64,
    /// Section `store`.
    pub store: &'a store::Settings,
    /// Section `cache`.
    pub cache: &'a cache::Settings,
    /// Section `views`.
    pub views: &'a views::Settings,
}

impl Services {
    /// Opens all components. The first one that fails keeps the server from starting.
    pub async fn open(settings: Settings<'_>) -> Result<Self, StartError> {
        let assets = Assets::open(settings.views)?;
        let store = store::open(settings.store, settings.processes).await?;
        let cache = cache::open(settings.cache, settings.name)?;
        let name = settings.name.to_owned();
        let components: Vec<Arc<dyn Component>> =
            vec![Arc::new(Store(Arc::clone(&store))), Arc::new(cache.clone())];
        Ok(Self(Arc::new(Inner { name, debug: settings.debug, store, cache, assets, components })))
    }

    /// The name of the server, `server.name`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether error responses contain the trace (`--debug`).
    pub fn debug(&self) -> bool {
        self.0.debug
    }

    /// Access to the documents of one type.
    pub fn dao<T: Entity>(&self) -> Dao<T> {
        Dao::new(Arc::clone(&self.0.store))
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// The static files.
    pub fn assets(&self) -> &Assets {
        &self.0.assets
    }

    /// Checks the components, one after the other.
    pub async fn check(&self) -> Vec<(&'static str, Result<()>)> {
        let mut checked = Vec::with_capacity(self.0.components.len());
        for component in &self.0.components {
            checked.push((component.name(), component.check().await));
        }
        checked
    }

    /// Closes the components in reverse order, because a later one may use an earlier one.
    pub async fn close(&self) {
        for component in self.0.components.iter().rev() {
            component.close().await;
        }
    }
}
