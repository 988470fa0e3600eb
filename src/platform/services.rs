//! The infrastructure of a running server, built once at start from the configuration.
//!
//! A handler does not take this whole: it takes the extractor of what it uses (`Dao<T>`), so that its
//! signature tells.

use std::sync::Arc;

use super::error::StartError;
use super::store::{self, Dao, DocumentStore, Entity};
use super::views::{self, Assets};

/// What the handlers of an app can use; cheap to clone.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

struct Inner {
    name: String,
    debug: bool,
    store: Arc<dyn DocumentStore>,
    assets: Assets,
}

/// What services are built from.
pub struct Settings<'a> {
    /// The name of the server.
    pub name: &'a str,
    /// `--debug`.
    pub debug: bool,
    /// The number of processes that share the store.
    pub processes: u64,
    /// Section `store`.
    pub store: &'a store::Settings,
    /// Section `views`.
    pub views: &'a views::Settings,
}

impl Services {
    /// Opens everything; the first thing that fails is the reason why the server does not start.
    pub async fn open(settings: Settings<'_>) -> Result<Self, StartError> {
        let assets = Assets::open(settings.views)?;
        let store = store::open(settings.store, settings.processes).await?;
        let name = settings.name.to_owned();
        Ok(Self(Arc::new(Inner { name, debug: settings.debug, store, assets })))
    }

    /// The name of the server, `server.name`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether errors tell their trace, `--debug`.
    pub fn debug(&self) -> bool {
        self.0.debug
    }

    /// Access to the documents of one type.
    pub fn dao<T: Entity>(&self) -> Dao<T> {
        Dao::new(Arc::clone(&self.0.store))
    }

    /// The static files.
    pub fn assets(&self) -> &Assets {
        &self.0.assets
    }

    /// Finishes what is under way and closes what is open.
    pub async fn close(&self) {
        self.0.store.close().await;
    }
}
