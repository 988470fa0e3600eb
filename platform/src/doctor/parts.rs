//! Round trips through the store, the locks and the cache, as the configuration names them.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Finding, folders};
use crate::cache;
use crate::error::{Error, StartError};
use crate::lock::{self, Wait};
use crate::store::{self, Dao, DocumentStore, Entity, Expected};

/// What the doctor stores for a moment, in a collection that the platform has anyway.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Probe {
    doctor: String,
}

impl Entity for Probe {
    const COLLECTION: &'static str = "platform_leases";
}

/// A number of steps, each of which the engine itself ends in time. This ends what it does not.
const STEPS: u32 = 4;

async fn within<T>(time: Duration, call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let time = time * STEPS;
    tokio::time::timeout(time, call).await.unwrap_or_else(|_| Err(format!("no response within {time:?}")))
}

fn cause(error: Error) -> String {
    StartError::from(error).to_string()
}

/// Writes a document, reads it and deletes it. Returns also what time a database server has.
pub(super) async fn store(settings: &store::Settings) -> (Finding, Option<SystemTime>) {
    const SUBJECT: &str = "store";
    let url = &settings.url;
    // To open it would create it.
    if let Some(path) = url.path().filter(|path| !path.exists()) {
        let folder = folders::existing(&path);
        let finding = match folders::try_to_write(folder) {
            Ok(()) => Finding::ok(SUBJECT, format!("{url} is not there yet: the server creates it")),
            Err(error) => Finding::failed(
                SUBJECT,
                format!("{url} is not there, and cannot be created: {}: {error}", folder.display()),
                "let the user of the server write to that folder, or choose another path in store.url",
            ),
        };
        return (finding, None);
    }
    let mut time = None;
    let round_trip = async {
        let store = store::open(settings, 1).await.map_err(|error| error.to_string())?;
        let done = round_trip(&store).await.map_err(cause);
        time = server_time(&store).await;
        store.close().await;
        done
    };
    let finding = match within(settings.timeout.get(), round_trip).await {
        Ok(()) => Finding::ok(SUBJECT, format!("{url}: a document was written, read and deleted")),
        Err(error) if url.path().is_some() => Finding::failed(
            SUBJECT,
            format!("{url}: {error}"),
            "let the user of the server read and write it, and look at the disk: is it full, or read-only?",
        ),
        Err(error) => Finding::failed(
            SUBJECT,
            format!("{url}: {error}"),
            "start that server, or set store.url (--db_url) to the right host, user and password",
        ),
    };
    (finding, time)
}

async fn round_trip(store: &Arc<dyn DocumentStore>) -> crate::error::Result<()> {
    let probes = Dao::<Probe>::new(Arc::clone(store));
    let id = format!("doctor-{}", super::unique());
    let written = Probe { doctor: id.clone() };
    probes.insert_with_id(&id, &written).await?;
    let read = probes.get(&id).await;
    let deleted = probes.delete(&id, Expected::Any).await;
    match read?.map(|stored| stored.value) {
        Some(read) if read == written && deleted? => Ok(()),
        other => Err(Error::internal(format!("a document was written, and then read as {other:?}"))),
    }
}

/// No engine of this build has a server.
#[cfg(not(any(feature = "mongodb", feature = "postgres")))]
fn server_time(_: &Arc<dyn DocumentStore>) -> std::future::Ready<Option<SystemTime>> {
    std::future::ready(None)
}

/// The time that the database server has; `None` of an engine without a server.
#[cfg(any(feature = "mongodb", feature = "postgres"))]
async fn server_time(store: &Arc<dyn DocumentStore>) -> Option<SystemTime> {
    #[cfg(feature = "postgres")]
    if let Some(pool) = store.postgres() {
        let now = sqlx::query_scalar("SELECT extract(epoch FROM clock_timestamp())::float8");
        let seconds: f64 = now.fetch_one(&pool).await.ok()?;
        return SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?);
    }
    #[cfg(feature = "mongodb")]
    if let Some(database) = store.mongodb().await.ok()? {
        let hello = database.run_command(mongodb::bson::doc! { "hello": 1 }).await.ok()?;
        return hello.get_datetime("localTime").ok().map(|time| time.to_system_time());
    }
    None
}

/// Acquires a lock and releases it.
pub(super) async fn locks(settings: &lock::Settings, name: &str) -> Finding {
    const SUBJECT: &str = "locks";
    let place = if !settings.server {
        format!("lock files in {}", settings.dir.display())
    } else if settings.etcd.endpoints.is_empty() {
        format!("etcd at {}:{}", settings.host.in_url(), settings.port.get())
    } else {
        format!("etcd at {}", settings.etcd.endpoints.join(", "))
    };
    if !settings.server && !settings.dir.exists() {
        let folder = folders::existing(&settings.dir);
        return match folders::try_to_write(folder) {
            Ok(()) => Finding::ok(SUBJECT, format!("{place}: not there yet, the server creates the folder")),
            Err(error) => Finding::failed(
                SUBJECT,
                format!("{place}: cannot be created: {}: {error}", folder.display()),
                "let the user of the server write to that folder, or choose another one in lock.dir",
            ),
        };
    }
    let round_trip = async {
        let locks = lock::open(settings, name).map_err(|error| error.to_string())?;
        // Of its own name: it waits for nobody.
        let lock = format!("doctor-{}", super::unique());
        let lease = locks.acquire(&lock, Wait::No).await.map_err(cause)?;
        let lease = lease.ok_or("a lock that nobody can hold is held")?;
        let token = lease.fencing_token();
        let released = lease.release().await.map_err(cause);
        locks.close().await;
        released.map(|()| token)
    };
    match within(settings.timeout.get(), round_trip).await {
        Ok(token) => {
            Finding::ok(SUBJECT, format!("{place}: a lock was acquired and released (token {token})"))
        }
        Err(error) if settings.server => Finding::failed(
            SUBJECT,
            format!("{place}: {error}"),
            "start etcd, or set lock.host and lock.port (--lock_server_host, --lock_server_port)",
        ),
        Err(error) => Finding::failed(
            SUBJECT,
            format!("{place}: {error}"),
            "let the user of the server write to that folder, or choose another one in lock.dir",
        ),
    }
}

/// Keeps a value, reads it and forgets it.
pub(super) async fn cache(settings: &cache::Settings, name: &str) -> Finding {
    const SUBJECT: &str = "cache";
    const REMEDY: &str =
        "start that server, or set cache.url; without it requests go on, and everything is computed anew";
    /// It forgets the value itself when the doctor is killed.
    const TIME_TO_LIVE: Duration = Duration::from_secs(10);
    let url = &settings.url;
    let round_trip = async {
        let cache = cache::open(settings, name).map_err(|error| error.to_string())?;
        cache.ping().await.map_err(cause)?;
        let (key, value) = (format!("doctor-{}", super::unique()), Bytes::from_static(b"doctor"));
        cache.set_bytes(&key, value.clone(), TIME_TO_LIVE).await.map_err(cause)?;
        let read = cache.get_bytes(&key).await;
        cache.delete(&key).await.map_err(cause)?;
        if read.as_ref() == Some(&value) { Ok(()) } else { Err("it keeps no value".to_owned()) }
    };
    match within(settings.timeout.get(), round_trip).await {
        Ok(()) => Finding::ok(SUBJECT, format!("{url}: a value was kept, read and forgotten")),
        Err(error) => Finding::failed(SUBJECT, format!("{url}: {error}"), REMEDY),
    }
}
