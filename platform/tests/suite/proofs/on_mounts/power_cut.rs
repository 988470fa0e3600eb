//! A power cut under eight writers: no acknowledged write is lost, and none is stored half. The controls write without
//! the sync that a commit needs, and are found out by the same oracle.

use std::fs;

use platform::testing::TestServer;
use serde_json::json;
use tempfile::TempDir;

use super::disk::{Disk, FileSystem};
use crate::proofs::oracle::{Answer, Oracle};
use crate::proofs::writers::{Writers, entries};
use crate::proofs::{Engine, kill, ledger_with, rounds};

/// One disk of each file system, which all cuts use: so what a recovery has left is tested too.
struct Machine {
    disks: [Disk; 2],
    folder: TempDir,
    engine: Engine,
}

impl Machine {
    fn new(engine: Engine) -> Self {
        let disks = [Disk::create(FileSystem::Ext4, 128), Disk::create(FileSystem::Xfs, 300)];
        Self { disks, folder: tempfile::tempdir().unwrap(), engine }
    }

    /// The program on a disk. Its log is elsewhere.
    fn start(&self, disk: &Disk) -> TestServer {
        ledger_with("", self.folder.path(), &self.engine.url_in(&disk.path()))
    }

    /// Starts the program after a cut, and compares what it finds with what was acknowledged.
    async fn check(&self, disk: &Disk, oracle: &Oracle) -> Result<(), Vec<String>> {
        disk.restore_power();
        let server = self.start(disk);
        let found = entries(&server).await;
        kill(server);
        oracle.check(&found?)
    }
}

async fn no_acknowledged_write_is_lost(engine: Engine) {
    let machine = Machine::new(engine);
    let oracles = [engine.oracle(), engine.oracle()];
    for cut in 0..rounds(2, 10) {
        let (disk, oracle) = (&machine.disks[cut as usize % 2], &oracles[cut as usize % 2]);
        let server = machine.start(disk);
        let writers = Writers::start(&server, oracle, cut);
        writers.acknowledged(fastrand::u64(1..300)).await;
        oracle.cut();
        disk.cut_power();
        // The disk is really gone.
        writers.unavailable(10).await;
        writers.stop().await;
        kill(server);
        machine.check(disk, oracle).await.unwrap_or_else(|wrong| panic!("cut {cut}: {wrong:#?}"));
    }
}

/// How many writes the controls acknowledge before the cut.
const WRITES: u32 = 200;

/// What is wrong after a cut of each disk under a writer that is not the program's. It tells the oracle what it writes,
/// and cuts the power.
async fn after_cuts(engine: Engine, write: impl AsyncFn(&Disk, &Oracle)) -> Vec<String> {
    let machine = Machine::new(engine);
    let mut wrong = Vec::new();
    for disk in &machine.disks {
        // The program creates the store.
        let mut server = machine.start(disk);
        let writers = Writers::start(&server, &engine.oracle(), 0);
        writers.acknowledged(5).await;
        writers.stop().await;
        let before = entries(&server).await.unwrap();
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
        let oracle = engine.oracle();
        for entry in before {
            let sent = oracle.send(&entry.token, entry.version, Some(&entry.text));
            oracle.answered(&sent, Answer::Acknowledged, Some(&entry.id));
        }
        write(disk, &oracle).await;
        wrong.extend(machine.check(disk, &oracle).await.err().into_iter().flatten());
    }
    wrong
}

/// Writes by SQLite itself, in the file of the program.
#[cfg(feature = "sqlite")]
async fn cut_under_sqlite(synchronous: sqlx::sqlite::SqliteSynchronous) -> Vec<String> {
    use sqlx::ConnectOptions as _;
    use sqlx::Connection as _;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};

    after_cuts(Engine::Sqlite, async |disk, oracle| {
        let options = SqliteConnectOptions::new()
            .filename(disk.path().join("store.sqlite"))
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous);
        let mut connection = options.connect().await.unwrap();
        for number in 0..WRITES {
            let token = format!("control-{number}");
            let sent = oracle.send(&token, 1, Some("x"));
            let body = json!({"token": token, "text": "x"}).to_string();
            let insert = sqlx::query("INSERT INTO entries (id, version, body) VALUES (?, 1, ?)");
            insert.bind(&token).bind(body).execute(&mut connection).await.unwrap();
            oracle.answered(&sent, Answer::Acknowledged, Some(&token));
        }
        disk.cut_power();
        // Its checkpoint fails, since there is no disk any more.
        let _ = connection.close().await;
    })
    .await
}

/// Writes as most programs write files: with a rename, and without a sync.
async fn cut_under_files() -> Vec<String> {
    after_cuts(Engine::JsonFile, async |disk, oracle| {
        for number in 0..WRITES {
            let token = format!("control-{number}");
            let sent = oracle.send(&token, 1, Some("x"));
            let record = json!({"id": token, "version": 1, "body": {"token": token, "text": "x"}});
            let file = disk.path().join("store/entries").join(format!("{token}.json"));
            let unfinished = file.with_extension("unfinished");
            fs::write(&unfinished, record.to_string()).unwrap();
            fs::rename(&unfinished, &file).unwrap();
            oracle.answered(&sent, Answer::Acknowledged, Some(&token));
        }
        disk.cut_power();
    })
    .await
}

/// The controls. For SQLite it is `synchronous=NORMAL`; the same writer with `FULL` loses nothing. They cannot miss it: on ext4
/// nothing is synced within the hour but what asks for it, so its journal never has these files, or the new length of this one.
async fn a_writer_that_does_not_sync_is_found_out(engine: Engine) {
    let lost = match engine {
        #[cfg(feature = "sqlite")]
        Engine::Sqlite => {
            use sqlx::sqlite::SqliteSynchronous::{Full, Normal};
            assert_eq!(cut_under_sqlite(Full).await, Vec::<String>::new());
            cut_under_sqlite(Normal).await
        }
        _ => cut_under_files().await,
    };
    assert!(lost.iter().any(|wrong| wrong.contains("control-")), "{lost:#?}");
}

mounted! {
    no_acknowledged_write_is_lost
    a_writer_that_does_not_sync_is_found_out
}
