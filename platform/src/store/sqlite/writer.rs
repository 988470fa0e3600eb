//! The one connection that writes, and the task that owns it.
//!
//! Group commit: all writes that wait share one transaction and one fsync. While that fsync runs, the next group
//! gathers; so a single write waits for nobody. No caller gets a result before the commit. A write that is refused
//! changes nothing and leaves the others of its group alone; an error of the file fails the whole group.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::super::write::{Write, WriteOutcome, document_exists};
use super::super::{Collection, Document, Fields, Settings};
use super::database_file::DatabaseFile;
use super::sql::{self, Sql};
use super::{
    BUSY, DUPLICATE_KEY, FULL, INTERRUPTED, IO_ERROR, NO_MEMORY, code, decode, extended_code, kind_of,
    store_error,
};
use crate::error::{Error, Kind, Result};

/// What the writer is asked to do.
pub(super) enum Command {
    /// Create the table and the indexes of a collection.
    Prepare(&'static Collection),
    /// Change documents.
    Write(&'static Collection, Write),
}

type Reply = oneshot::Sender<Result<WriteOutcome>>;

enum Message {
    Command(Command, Reply),
    Close(oneshot::Sender<()>),
}

/// A handle to the writer task.
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    timeout: Duration,
    commits: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the task. It ends when it is closed, or when this handle is dropped.
    pub(super) fn start(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        file: DatabaseFile,
        settings: &Settings,
    ) -> Self {
        let (queue, messages) = mpsc::channel(settings.sqlite.queue.as_usize());
        let commits = Arc::new(AtomicU64::new(0));
        let group = settings.sqlite.group.as_usize();
        let connection = Some(connection);
        let work = WriterTask { connection, options, file, group, commits: Arc::clone(&commits) };
        tokio::spawn(work.run(messages));
        Self { queue, timeout: settings.timeout.get(), commits }
    }

    /// Executes a command, and returns when it is on the disk. After a timeout, a command that had begun may still be
    /// executed; one that had not is dropped.
    pub(super) async fn execute(&self, command: Command) -> Result<WriteOutcome> {
        let (reply, result) = oneshot::channel();
        let done = async {
            self.queue.send(Message::Command(command, reply)).await.map_err(|_| closed())?;
            result.await.map_err(|_| closed())?
        };
        tokio::time::timeout(self.timeout, done)
            .await
            .map_err(|_| Error::unavailable(format!("no write within {:?}", self.timeout)))?
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
    options: SqliteConnectOptions,
    file: DatabaseFile,
    group: usize,
    commits: Arc<AtomicU64>,
}

impl WriterTask {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut waiting = Vec::new();
        while messages.recv_many(&mut waiting, self.group).await > 0 {
            let (mut group, mut closing) = (Vec::new(), Vec::new());
            for message in waiting.drain(..) {
                match message {
                    // Its caller has been dropped: it is not executed.
                    Message::Command(_, reply) if reply.is_closed() => {}
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
        if let Some(mut connection) = self.connection.take() {
            // With a checkpoint, the next start needs no recovery; without one, it recovers.
            let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await;
            let _ = connection.close().await;
        }
    }

    async fn execute(&mut self, group: Vec<(Command, Reply)>) {
        let (commands, replies): (Vec<Command>, Vec<Reply>) = group.into_iter().unzip();
        if let Err(error) = self.file.check() {
            return fail_all(replies, error.kind(), &error.cause());
        }
        match self.transaction(commands).await {
            Ok(outcomes) => {
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    // An error means that the caller has been dropped.
                    let _ = reply.send(outcome);
                }
            }
            Err(error) => fail_all(replies, kind_of(&error), &error.to_string()),
        }
    }

    /// One transaction. An error means that none of the commands was executed.
    async fn transaction(
        &mut self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<WriteOutcome>>, sqlx::Error> {
        // Taken, and put back only in a known state.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        // A transaction that begins with a read cannot wait for another process's lock when it comes to write.
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await;
        let done = match begun {
            Ok(_) => execute_all(&mut connection, commands).await,
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
                self.connection = undone.is_ok().then_some(connection);
                Err(error)
            }
        }
    }
}

fn fail_all(replies: Vec<Reply>, kind: Kind, cause: &str) {
    for reply in replies {
        // An error means that the caller has been dropped.
        let _ = reply.send(Err(Error::new(kind).with_source(cause)));
    }
}

/// Executes all commands. An error ends the transaction.
async fn execute_all(
    connection: &mut SqliteConnection,
    commands: Vec<Command>,
) -> Result<Vec<Result<WriteOutcome>>, sqlx::Error> {
    let mut outcomes = Vec::with_capacity(commands.len());
    for command in commands {
        let outcome = match command {
            Command::Prepare(collection) => prepare(connection, collection).await,
            Command::Write(collection, write) => execute(connection, collection, write).await,
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

/// Why a command was not executed.
enum Failure {
    /// It was refused, and changed nothing.
    Refused(Error),
    /// A statement failed, and was undone.
    Sql(sqlx::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// Whether SQLite may have rolled back the transaction (<https://www.sqlite.org/lang_transaction.html>,
/// "Response To Errors Within A Transaction"), or the connection is gone.
fn ends_transaction(error: &sqlx::Error) -> bool {
    match code(error) {
        Some(code) => matches!(code, BUSY | NO_MEMORY | INTERRUPTED | IO_ERROR | FULL),
        None => true,
    }
}

async fn prepare(
    connection: &mut SqliteConnection,
    collection: &Collection,
) -> Result<WriteOutcome, Failure> {
    for statement in sql::schema(collection) {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(WriteOutcome::default())
}

/// Executes one write. Only an insert of several documents needs a savepoint: a single statement that fails is undone
/// by SQLite.
async fn execute(
    connection: &mut SqliteConnection,
    collection: &Collection,
    write: Write,
) -> Result<WriteOutcome, Failure> {
    match write {
        Write::Insert(new) if new.len() > 1 => {
            sqlx::query("SAVEPOINT write").execute(&mut *connection).await?;
            let written = insert(connection, collection, new).await;
            if written.is_err() {
                sqlx::query("ROLLBACK TO write").execute(&mut *connection).await?;
            }
            sqlx::query("RELEASE write").execute(&mut *connection).await?;
            written
        }
        Write::Insert(new) => insert(connection, collection, new).await,
        Write::Change { filter, expected, change } => {
            let sql = Sql::find_first(collection, &filter);
            let Some(row) = sql.query().fetch_optional(&mut *connection).await? else {
                return Ok(WriteOutcome::default());
            };
            let before = decode(collection, &row)?;
            if let Some(after) = change.apply(&before, &expected)? {
                let sql = Sql::update(collection, &after, encoded(&after.fields)?);
                sql.query().execute(connection).await?;
                Ok(WriteOutcome::of(after, false))
            } else {
                let sql = Sql::delete(collection, &super::Filter::id(before.id.as_str()));
                sql.query().execute(connection).await?;
                Ok(WriteOutcome::of(before, false))
            }
        }
        Write::Upsert { filter, id, fields } => {
            let sql = Sql::find_first(collection, &filter);
            if let Some(row) = sql.query().fetch_optional(&mut *connection).await? {
                let before = decode(collection, &row)?;
                let after = before.next_version(fields);
                let sql = Sql::update(collection, &after, encoded(&after.fields)?);
                sql.query().execute(connection).await?;
                Ok(WriteOutcome::of(after, false))
            } else {
                let new = Document::first_version(id, fields);
                insert_one(connection, collection, &new).await?;
                Ok(WriteOutcome::of(new, true))
            }
        }
        Write::DeleteAll(filter) => {
            let sql = Sql::delete(collection, &filter);
            let deleted = sql.query().execute(connection).await?.rows_affected();
            Ok(WriteOutcome { count: deleted, ..WriteOutcome::default() })
        }
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    collection: &Collection,
    new: Vec<(String, Arc<Fields>)>,
) -> Result<WriteOutcome, Failure> {
    let count = new.len();
    for (id, fields) in new {
        insert_one(connection, collection, &Document::first_version(id, fields)).await?;
    }
    Ok(WriteOutcome::counted(count))
}

async fn insert_one(
    connection: &mut SqliteConnection,
    collection: &Collection,
    document: &Document,
) -> Result<(), Failure> {
    let sql = Sql::insert(collection, document, encoded(&document.fields)?);
    match sql.query().execute(connection).await {
        Ok(_) => Ok(()),
        // Other codes are other constraints, of a table that this program did not create.
        Err(error) if extended_code(&error).is_some_and(|code| DUPLICATE_KEY.contains(&code)) => {
            Err(Failure::Refused(document_exists()))
        }
        Err(error) => Err(Failure::Sql(error)),
    }
}

fn encoded(fields: &Fields) -> Result<String, Error> {
    serde_json::to_string(fields).map_err(Error::internal)
}
