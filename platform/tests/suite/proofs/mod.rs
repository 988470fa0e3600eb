//! What is promised of a crash, proven on the program itself: a server that is killed, a machine whose power is cut, a
//! disk that is full, several processes at once. Each engine has a module, so that a run says what it has proven
//! (`scripts/matrix`).
//!
//! Tests with mounts need root, and are ignored like those that need a server: `make test-all` runs what the machine
//! allows. They are short by default; `make test-long` sets `TEST_LONG=1`.

/// The tests of a list, in a module for each durable engine.
macro_rules! proofs {
    ($($case:ident)*) => {
        proofs!(json_file, JsonFile, cfg(all()): $($case)*);
        #[cfg(feature = "sqlite")]
        proofs!(sqlite, Sqlite, cfg(all()): $($case)*);
        #[cfg(feature = "mongodb")]
        proofs!(on_mongodb, Mongodb, ignore = "needs MongoDB: make test-all": $($case)*);
        #[cfg(feature = "postgres")]
        proofs!(on_postgres, Postgres, ignore = "needs PostgreSQL: make test-all": $($case)*);
    };
    ($module:ident, $engine:ident, $attribute:meta: $($case:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[$attribute]
                async fn $case() {
                    super::$case(crate::proofs::Engine::$engine).await;
                }
            )*
        }
    };
}

/// The same for tests that need a disk of their own.
macro_rules! mounted {
    ($($case:ident)*) => {
        proofs!(json_file, JsonFile, ignore = "needs root and loop mounts: make test-all": $($case)*);
        #[cfg(feature = "sqlite")]
        proofs!(sqlite, Sqlite, ignore = "needs root and loop mounts: make test-all": $($case)*);
    };
}

mod kill;
mod on_mounts;
mod oracle;
pub mod pauses;
mod processes;
mod ticks;
mod writers;

use std::path::Path;
use std::sync::Arc;

use platform::testing::{Program, TestServer};
use tempfile::TempDir;

use crate::tasks::example;
use oracle::Oracle;

/// How many times a proof is repeated.
pub fn rounds(short: u32, long: u32) -> u32 {
    if std::env::var("TEST_LONG").is_ok_and(|long| long == "1") { long } else { short }
}

fn ledger() -> Program {
    example("ledger")
}

/// The server on a store, with the fault that `examples/ledger.rs` names; none is empty.
fn ledger_with(fault: &str, folder: &Path, url: &str) -> TestServer {
    let mut command = ledger().command(folder);
    command.args(["--host", "127.0.0.1", "--port", "0", "--db_url", url]);
    TestServer::spawn(command.env("FAULT", fault), folder)
}

/// An engine, and where it keeps its data.
#[derive(Clone, Copy)]
enum Engine {
    JsonFile,
    #[cfg(feature = "sqlite")]
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "mongodb")]
    Mongodb,
}

impl Engine {
    /// The store in a folder, or named as it.
    fn url(self, folder: &TempDir) -> String {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => {
                use crate::store_contract::postgres::{schema, server, url};
                url(&server(), &schema(folder))
            }
            #[cfg(feature = "mongodb")]
            Self::Mongodb => {
                use crate::store_contract::mongodb::{database, server, url};
                url(&server(), &database(folder))
            }
            _ => self.url_in(folder.path()),
        }
    }

    /// The store in a folder of this machine.
    fn url_in(self, folder: &Path) -> String {
        match self {
            Self::JsonFile => format!("file:{}", folder.join("store").display()),
            #[cfg(feature = "sqlite")]
            Self::Sqlite => format!("sqlite:{}", folder.join("store.sqlite").display()),
            #[cfg(any(feature = "mongodb", feature = "postgres"))]
            _ => panic!("it is not in a folder"),
        }
    }

    fn oracle(self) -> Arc<Oracle> {
        Arc::new(match self {
            // `json_file/mod.rs` says so.
            Self::JsonFile => Oracle::of_halved_groups(),
            #[cfg(any(feature = "mongodb", feature = "postgres", feature = "sqlite"))]
            _ => Oracle::default(),
        })
    }
}

/// Creates what a store on a server needs before it is opened; nothing for a store on this machine.
async fn create(url: &str) {
    #[cfg(feature = "postgres")]
    crate::store_contract::postgres::create(url).await;
    std::future::ready(url).await;
}

/// Deletes what a test has left on a server.
async fn remove(url: &str) {
    #[cfg(feature = "mongodb")]
    crate::store_contract::mongodb::remove(url).await;
    #[cfg(feature = "postgres")]
    crate::store_contract::postgres::remove(url).await;
    std::future::ready(url).await;
}

/// Kills a server, as `kill -9` does.
fn kill(mut server: TestServer) {
    server.signal("KILL");
    assert_eq!(server.wait(), None);
}
