//! A full disk: a write that cannot be stored is 503, nothing that was acknowledged is lost, reads go on, and writes too
//! as soon as there is space again, without a restart.

use crate::proofs::on_mounts::disk::{Disk, FileSystem, Filler};
use crate::proofs::writers::{Writers, entries};
use crate::proofs::{Engine, kill, ledger_with, rounds};

/// Fills the disk under eight writers, and makes room again, `rounds` times; `fault` is that of the program.
async fn filled(
    engine: Engine,
    file_system: FileSystem,
    mebibytes: u64,
    fault: &str,
    rounds: u32,
) -> Result<(), Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::create(file_system, mebibytes);
    let url = engine.url_in(&disk.path());
    let oracle = engine.oracle();
    let server = ledger_with(fault, folder.path(), &url);
    for round in 0..rounds {
        let writers = Writers::start(&server, &oracle, round);
        writers.acknowledged(50).await;
        // For the control.
        writers.inserted().await;
        let filler = Filler::fill(&disk.path());
        // Space that is free in the files of the store may still be used before.
        writers.unavailable(100).await;
        // Reads go on: `entries` fails for any status but 200.
        entries(&server).await?;
        drop(filler);
        writers.acknowledged(100).await;
        writers.stop().await;
        oracle.check(&entries(&server).await?)?;
    }
    // What a full disk has left is no obstacle for the next start.
    kill(server);
    let server = ledger_with("", folder.path(), &url);
    let found = entries(&server).await;
    kill(server);
    oracle.check(&found?)
}

async fn what_is_not_stored_is_503_and_writes_go_on_when_there_is_space(engine: Engine) {
    for (file_system, mebibytes) in [(FileSystem::Ext4, 32), (FileSystem::Xfs, 300)] {
        let filled = filled(engine, file_system, mebibytes, "", rounds(1, 3)).await;
        filled.unwrap_or_else(|wrong| panic!("{file_system:?}: {wrong:#?}"));
    }
}

/// The control: a server that acknowledges before it has written. It cannot miss it: the write comes an hour later, and an entry
/// is acknowledged before the disk is filled, which is not there when what is stored is compared for the first time.
async fn a_server_that_acknowledges_early_is_found_out(engine: Engine) {
    let wrong = filled(engine, FileSystem::Ext4, 32, "early:3600000", 1).await.unwrap_err();
    assert!(wrong.iter().any(|wrong| wrong.contains("acknowledged 1, found None")), "{wrong:#?}");
}

mounted! {
    what_is_not_stored_is_503_and_writes_go_on_when_there_is_space
    a_server_that_acknowledges_early_is_found_out
}
