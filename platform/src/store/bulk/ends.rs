//! The two stores of a copy.

use std::sync::Arc;

use super::super::settings::Engine;
use super::super::{DocumentStore, Settings, StoreUrl};
use crate::error::{Result, StartError};

/// Both stores, open.
pub struct Ends {
    /// Where the documents are.
    pub from: Arc<dyn DocumentStore>,
    /// Where they go.
    pub to: Arc<dyn DocumentStore>,
}

impl Ends {
    /// Opens both; what is not in the URLs is as in these settings. Refuses a store in memory, a source that does not
    /// exist, and two URLs of one store (exit code 2). A server that does not respond is an error (exit code 1).
    pub async fn open(settings: &Settings, from: StoreUrl, to: StoreUrl) -> Result<Self, StartError> {
        for (side, url) in [("FROM", &from), ("TO", &to)] {
            let engine = Engine::of(url).map_err(|error| StartError::config(format!("{side}: {error}")))?;
            if matches!(engine, Engine::Memory) {
                let why = "a store in memory ends with its process; there is nothing to copy";
                return Err(StartError::config(format!("{side}: {why}")));
            }
            // To open it would create it.
            if side == "FROM" && url.path().is_some_and(|path| !path.exists()) {
                return Err(StartError::config(format!("FROM: {url} does not exist")));
            }
        }
        if from.is_same_store(&to) {
            return Err(StartError::config(format!("FROM and TO are the same store: {from}")));
        }
        let open = async |side: &str, url: StoreUrl| {
            let named = |why: &dyn std::fmt::Display| StartError::failed(format!("{side}: {why}"));
            let settings = Settings { url, ..settings.clone() };
            let store = super::super::open(&settings, 1).await.map_err(|error| named(&error))?;
            store.ping().await.map_err(|error| named(&error.cause()))?;
            Ok::<_, StartError>(store)
        };
        let from = open("FROM", from).await?;
        match open("TO", to).await {
            Ok(to) => Ok(Self { from, to }),
            Err(error) => {
                from.close().await;
                Err(error)
            }
        }
    }

    /// Closes both.
    pub async fn close(&self) {
        self.to.close().await;
        self.from.close().await;
    }
}
