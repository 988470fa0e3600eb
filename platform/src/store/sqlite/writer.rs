//! The one connection that writes, and the task that owns it.
//!
//! Group commit: all writes that wait share one transaction and one fsync. While that fsync runs, the next group
//! gathers; so a single write waits for nobody. No caller gets a result before the commit. A write that is refused
//! changes nothing and leaves the others of its group alone; an error of the file fails the whole group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::super::write::{Write, WriteOutcome, outcome_unknown};
use super::super::{BatchOutcome, Collection, Document, Settings, Step, Token};
use super::database_file::DatabaseFile;
use super::restore::restore;
use super::writes::{Failure, ends_transaction, execute, prepare};
use super::{BUSY, READ_ONLY, batch, code, kind_of, store_error};
use crate::error::{Error, Kind, Result};

/// What the writer is asked to do.
pub(super) enum Command {
    /// Create the table and the indexes of a collection.
    Prepare(&'static Collection),
    /// Change documents.
    Write(&'static Collection, Write, Token),
    /// Change several documents, or none.
    Batch(Vec<Step>),
    /// Store documents as they are.
    Restore(&'static Collection, Vec<Document>),
}

/// What the writer has done.
#[derive(Debug)]
pub(super) enum Done {
    Prepare,
    Write(WriteOutcome),
    Batch(BatchOutcome),
}

/// Where the caller waits.
pub(super) struct Reply {
    result: oneshot::Sender<Result<Done>>,
    /// Set by whoever comes first: the writer, which then executes the command, or the caller, whose time is over.
    is_decided: Arc<AtomicBool>,
}

impl Reply {
    fn begin(&self) -> bool {
        !self.result.is_closed() && !self.is_decided.swap(true, Ordering::Relaxed)
    }
}

pub(super) enum Message {
    Command(Command, Reply),
    Close(oneshot::Sender<()>),
}

/// A handle to the writer task.
pub(super) struct Writer {
    pub(super) queue: mpsc::Sender<Message>,
    timeout: Duration,
    commits: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the task. It ends when it is closed, or when this handle is dropped. Two connections that have read: one
    /// writes, the other one only keeps SQLite from deleting the log of the file while the first one is renewed.
    pub(super) fn start(
        [connection, anchor]: [SqliteConnection; 2],
        options: SqliteConnectOptions,
        file: DatabaseFile,
        settings: &Settings,
    ) -> Self {
        let (queue, messages) = mpsc::channel(settings.sqlite.queue.as_usize());
        let commits = Arc::new(AtomicU64::new(0));
        let group = settings.sqlite.group.as_usize();
        let log =
            Log { limit: settings.sqlite.wal_limit.get(), tried: None, timeout: settings.timeout.get() };
        let connection = Some(connection);
        let work = WriterTask {
            log,
            connection,
            anchor: Some(anchor),
            options,
            file,
            group,
            commits: Arc::clone(&commits),
        };
        tokio::spawn(work.run(messages));
        Self { queue, timeout: settings.timeout.get(), commits }
    }

    /// Executes a command, and returns when it is on the disk. After a timeout, a command that had begun may still be
    /// executed; one that had not is not.
    pub(super) async fn execute(&self, command: Command) -> Result<Done> {
        let (reply, result) = oneshot::channel();
        let is_decided = Arc::new(AtomicBool::new(false));
        let reply = Reply { result: reply, is_decided: Arc::clone(&is_decided) };
        let done = async {
            self.queue.send(Message::Command(command, reply)).await.map_err(|_| closed())?;
            result.await.map_err(|_| closed())?
        };
        tokio::time::timeout(self.timeout, done).await.unwrap_or_else(|_| {
            let cause = format!("no write within {:?}", self.timeout);
            let has_begun = is_decided.swap(true, Ordering::Relaxed);
            Err(if has_begun { outcome_unknown(cause) } else { Error::unavailable(cause) })
        })
    }

    /// Ends the task when all that waits is done.
    pub(super) async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.queue.send(Message::Close(reply)).await.is_ok() {
            // An error means that the task has ended.
            let _ = closed.await;
        }
        tracing::debug!(commits = self.commits(), "store writer closed");
    }

    /// The number of commits so far.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

fn closed() -> Error {
    Error::unavailable("the store is closed")
}

/// The state of the task.
struct WriterTask {
    /// `None` after an error that leaves its state unknown.
    connection: Option<SqliteConnection>,
    /// Open until the task ends.
    anchor: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    file: DatabaseFile,
    group: usize,
    log: Log,
    commits: Arc<AtomicU64>,
}

/// The log beside the file, and when it was tried to empty it.
struct Log {
    limit: u64,
    tried: Option<Instant>,
    timeout: Duration,
}

/// How long the writer waits after it has tried to empty the log. A reader that stays open makes every try useless.
const PAUSE: Duration = Duration::from_secs(1);

impl WriterTask {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut waiting = Vec::new();
        loop {
            let received = if self.file.wal_size() > self.log.limit {
                self.empty_log().await;
                tokio::time::timeout(PAUSE, messages.recv_many(&mut waiting, self.group)).await
            } else {
                Ok(messages.recv_many(&mut waiting, self.group).await)
            };
            match received {
                Ok(0) => break,
                Ok(_) => {}
                // Nothing is asked for: another try.
                Err(_) => continue,
            }
            let (mut group, mut closing) = (Vec::new(), Vec::new());
            for message in waiting.drain(..) {
                match message {
                    // Its caller has been dropped: it is not executed.
                    Message::Command(_, reply) if reply.result.is_closed() => {}
                    Message::Command(command, reply) => group.push((command, reply)),
                    Message::Close(reply) => closing.push(reply),
                }
            }
            if !group.is_empty() {
                self.execute(group).await;
            }
            if !closing.is_empty() {
                self.close().await;
                // Commands that are still queued fail, since their reply is dropped.
                return;
            }
        }
        self.close().await;
    }

    async fn close(&mut self) {
        if let Some(anchor) = self.anchor.take() {
            let _ = anchor.close().await;
        }
        if let Some(mut connection) = self.connection.take() {
            // With a checkpoint, the next start needs no recovery; without one, it recovers. This one waits for nobody, and
            // nobody for it: other processes go on writing.
            let _ = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut connection).await;
            let _ = connection.close().await;
        }
    }

    /// Moves what is in the log into the file, and empties the log, unless a reader still needs it. It waits for nobody:
    /// the writes that come meanwhile would wait too.
    async fn empty_log(&mut self) {
        if self.log.tried.is_some_and(|tried| tried.elapsed() < PAUSE) {
            return;
        }
        self.log.tried = Some(Instant::now());
        let Some(connection) = &mut self.connection else { return };
        let timeout = self.log.timeout.as_millis();
        let waits = |milliseconds| sqlx::AssertSqlSafe(format!("PRAGMA busy_timeout = {milliseconds}"));
        // An error is the reader's lock, or one that the next write meets too.
        let _ = sqlx::query(waits(0_u128)).execute(&mut *connection).await;
        let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *connection).await;
        let _ = sqlx::query(waits(timeout)).execute(&mut *connection).await;
    }

    async fn execute(&mut self, group: Vec<(Command, Reply)>) {
        let (commands, replies): (Vec<Command>, Vec<Reply>) = group.into_iter().unzip();
        if let Err(error) = self.file.check() {
            return fail_all(replies, error.kind(), &error.cause());
        }
        match self.transaction(commands, &replies).await {
            Ok(outcomes) => {
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    // An error means that the caller has been dropped.
                    let _ = reply.result.send(outcome);
                }
            }
            Err(error) => fail_all(replies, kind_of_write(&error), &error.to_string()),
        }
    }

    /// One transaction. An error means that none of the commands was executed.
    async fn transaction(
        &mut self,
        commands: Vec<Command>,
        replies: &[Reply],
    ) -> Result<Vec<Result<Done>>, sqlx::Error> {
        // Taken, and put back only in a known state.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        // A transaction that begins with a read cannot wait for another process's lock when it comes to write.
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await;
        let done = match begun {
            Ok(_) => execute_all(&mut connection, commands, replies).await,
            Err(error) => {
                self.connection = (code(&error) == Some(BUSY)).then_some(connection);
                return Err(error);
            }
        };
        let committed = match done {
            Ok(outcomes) => sqlx::query("COMMIT").execute(&mut connection).await.map(|_| outcomes),
            Err(error) => Err(error),
        };
        match committed {
            Ok(outcomes) => {
                self.commits.fetch_add(1, Ordering::Relaxed);
                self.connection = Some(connection);
                Ok(outcomes)
            }
            Err(error) => {
                let undone = sqlx::query("ROLLBACK").execute(&mut connection).await;
                // One that may only read stays so: the next one may write, when somebody has mended that.
                let usable = undone.is_ok() && code(&error) != Some(READ_ONLY);
                self.connection = usable.then_some(connection);
                Err(error)
            }
        }
    }
}

/// A file that may not be written any more is no mistake of the caller, nor of the program.
fn kind_of_write(error: &sqlx::Error) -> Kind {
    if code(error) == Some(READ_ONLY) { Kind::Unavailable } else { kind_of(error) }
}

fn fail_all(replies: Vec<Reply>, kind: Kind, cause: &str) {
    for reply in replies {
        // An error means that the caller has been dropped.
        let _ = reply.result.send(Err(Error::of_dependency(kind, cause)));
    }
}

/// Executes all commands whose callers still wait: the transaction may have waited long to begin. An error ends it.
async fn execute_all(
    connection: &mut SqliteConnection,
    commands: Vec<Command>,
    replies: &[Reply],
) -> Result<Vec<Result<Done>>, sqlx::Error> {
    let mut outcomes = Vec::with_capacity(commands.len());
    for (command, reply) in commands.into_iter().zip(replies) {
        if !reply.begin() {
            outcomes.push(Err(closed()));
            continue;
        }
        let outcome = match command {
            Command::Prepare(collection) => prepare(connection, collection).await.map(|()| Done::Prepare),
            Command::Write(collection, write, token) => {
                execute(connection, collection, write, token).await.map(Done::Write)
            }
            Command::Batch(steps) => batch::execute(connection, steps).await.map(Done::Batch),
            Command::Restore(collection, documents) => {
                restore(connection, collection, &documents).await.map(Done::Write)
            }
        };
        outcomes.push(match outcome {
            Ok(written) => Ok(written),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Sql(error)) if ends_transaction(&error) => return Err(error),
            Err(Failure::Sql(error)) => Err(store_error(error)),
        });
    }
    Ok(outcomes)
}
