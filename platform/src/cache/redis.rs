//! The cache in Redis, shared by all processes. It connects when it is first used, and again after an outage.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, FromRedisValue, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Engine;
use super::settings::Settings;
use crate::error::{Error, Result, StartError};

/// Entries in a Redis server, through one connection for all requests.
pub(super) struct RedisCache {
    connection: ConnectionManager,
    prefix: String,
}

impl RedisCache {
    /// Reads the URL and connects to nothing yet. `name` is that of the server.
    pub(super) fn open(url: &str, settings: &Settings, name: &str) -> Result<Self, StartError> {
        let wrong =
            |error: redis::RedisError| StartError::config(format!("cache.url '{}': {error}", settings.url));
        let timeout = Some(settings.timeout.get());
        // The cache itself decides when to try again: a request must not wait for a retry.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(timeout)
            .set_response_timeout(timeout);
        let client = if settings.redis.ca.as_os_str().is_empty() {
            redis::Client::open(url)
        } else {
            let tls = TlsCertificates { client_tls: None, root_cert: Some(authority(&settings.redis.ca)?) };
            redis::Client::build_with_tls(url, tls)
        };
        let client = client.map_err(wrong)?;
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)?;
        let prefix = match settings.redis.prefix.as_str() {
            "" => format!("{name}:"),
            prefix => prefix.to_owned(),
        };
        Ok(Self { connection, prefix })
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn ask<T: FromRedisValue>(&self, command: Cmd) -> Result<T> {
        let mut connection = self.connection.clone();
        let answer = match command.query_async(&mut connection).await {
            // A server closes connections that are idle, which is noticed here. Each command can be repeated.
            Err(error) if error.is_connection_dropped() => command.query_async(&mut connection).await,
            answer => answer,
        };
        answer.map_err(Error::unavailable)
    }
}

/// The PEM file of an authority.
fn authority(path: &Path) -> Result<Vec<u8>, StartError> {
    let wrong = |why: &dyn Display| StartError::config(format!("cache.redis.ca {}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    if CertificateDer::from_pem_slice(&pem).is_err() {
        return Err(wrong(&"expected a PEM file with BEGIN CERTIFICATE"));
    }
    Ok(pem)
}

#[async_trait]
impl Engine for RedisCache {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let value: Option<Vec<u8>> = self.ask(Cmd::get(self.key(key))).await?;
        Ok(value.map(Bytes::from))
    }

    async fn set(&self, key: &str, value: Bytes, time_to_live: Duration) -> Result<()> {
        // Redis refuses an expiry of 0.
        let millis = u64::try_from(time_to_live.as_millis()).unwrap_or(u64::MAX / 2).max(1);
        self.ask(Cmd::pset_ex(self.key(key), value.as_ref(), millis)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.ask(Cmd::del(self.key(key))).await
    }

    async fn ping(&self) -> Result<()> {
        self.ask(Cmd::ping()).await
    }
}
