//! `kill -9` of the server under eight writers: no acknowledged write is lost, and none is stored half.

use std::time::Duration;

use super::writers::{Writers, entries, wait_until_ready};
use super::{Engine, create, kill, ledger_with, remove, rounds};

/// Starts a server, kills it at a random moment, and compares what the next one finds with what was acknowledged.
/// `fault` is that of the program.
async fn killed(
    engine: Engine,
    fault: &str,
    rounds: u32,
    meanwhile: impl AsyncFn(&Writers),
) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let url = engine.url(&folder);
    create(&url).await;
    let start = || ledger_with(fault, folder.path(), &url);
    let oracle = engine.oracle();
    for round in 0..rounds {
        let server = start();
        let writers = Writers::start(&server, &oracle, round);
        // The moment must not depend on how fast the machine is, nor be the same each time.
        writers.acknowledged(fastrand::u64(1..200)).await;
        meanwhile(&writers).await;
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..20_000))).await;
        kill(server);
        writers.end().await;
        let server = start();
        wait_until_ready(&server).await;
        let found = entries(&server).await.map_err(|wrong| wrong.concat())?;
        if let Err(wrong) = oracle.check(&found) {
            remove(&url).await;
            return Err(format!("round {round}, {} found: {wrong:#?}", found.len()));
        }
        kill(server);
    }
    remove(&url).await;
    Ok(())
}

async fn no_acknowledged_write_is_lost(engine: Engine) {
    killed(engine, "", rounds(3, 30), async |_| {}).await.unwrap();
}

/// The control: a server that acknowledges before it has written. It cannot miss it: the write comes an hour later, the server
/// is killed after it has acknowledged one, and so what it has acknowledged is not there in the first round.
async fn a_server_that_acknowledges_early_is_found_out(engine: Engine) {
    let one_was_acknowledged = async |writers: &Writers| writers.inserted().await;
    let wrong = killed(engine, "early:3600000", 1, one_was_acknowledged).await.unwrap_err();
    assert!(wrong.contains("new-") && wrong.contains("acknowledged 1, found None"), "{wrong}");
}

proofs! {
    no_acknowledged_write_is_lost
    a_server_that_acknowledges_early_is_found_out
}

/// Tests that have PostgreSQL for themselves, since they make it crash: `scripts/test-all` runs them last.
#[cfg(feature = "postgres")]
mod exclusive {
    mod postgres;
}
