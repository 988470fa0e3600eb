//! A crash of PostgreSQL itself: `kill -9` of one of its processes ends all of them, and it recovers from its log.

use std::process::Command;

use platform::testing::until;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::super::killed;
use crate::proofs::{Engine, rounds};
use crate::store_contract::postgres::server;

/// Kills a process of PostgreSQL that serves a client.
async fn crash() {
    let mut connection = PgConnection::connect(&server()).await.unwrap();
    let clients =
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let pids: Vec<i32> = sqlx::query_scalar(AssertSqlSafe(clients)).fetch_all(&mut connection).await.unwrap();
    let pid = pids[fastrand::usize(0..pids.len())];
    // A server of another machine has other processes.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    assert_eq!(name.trim(), "postgres", "TEST_POSTGRES_URL must name a server of this machine");
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    // Its end is noticed by every other process.
    until(|| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_err()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL for itself: make test-all"]
async fn a_crash_of_postgresql_loses_no_acknowledged_write() {
    let crash_and_recover = async |writers: &super::super::Writers| {
        crash().await;
        // Without a restart of the server.
        writers.acknowledged(50).await;
    };
    killed(Engine::Postgres, "", rounds(2, 10), crash_and_recover).await.unwrap();
}
