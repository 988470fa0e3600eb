//! The one connection that writes, and the task that owns it.
//!
//! What waits is put into one transaction and brought to the disk by one fsync; while that fsync runs, the
//! next group gathers. So a single writer pays no delay, and many share the price. Nobody is answered before
//! the commit. A write that is refused leaves nothing and does not trouble its neighbours; an error of the
//! file itself fails the whole group.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::super::write::{Write, Written, taken};
use super::super::{Body, Collection, Document, Settings};
use super::place::Place;
use super::sql::{self, Sql};
use super::{
    BUSY, FULL, INTERRUPTED, IO_ERROR, NO_MEMORY, TAKEN, code, document, extended_code, failure, kind,
};
use crate::error::{Error, Kind, Result};

/// What the writer is asked to do.
pub(super) enum Task {
    /// Make the table and the indexes of a collection.
    Prepare(&'static Collection),
    /// Change documents.
    Write(&'static Collection, Write),
}

type Reply = oneshot::Sender<Result<Written>>;

enum Message {
    Task(Task, Reply),
    Close(oneshot::Sender<()>),
}

/// The way to the writer.
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    timeout: Duration,
    commits: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the task; it ends when it is closed, or when this is dropped.
    pub(super) fn start(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        place: Place,
        settings: &Settings,
    ) -> Self {
        let (queue, messages) = mpsc::channel(settings.sqlite.queue.as_usize());
        let commits = Arc::new(AtomicU64::new(0));
        let group = settings.sqlite.group.as_usize();
        let connection = Some(connection);
        let work = Work { connection, options, place, group, commits: Arc::clone(&commits) };
        tokio::spawn(work.run(messages));
        Self { queue, timeout: settings.timeout.get(), commits }
    }

    /// Has a task done, and waits until it is on the disk. After a timeout it is unknown whether it will be,
    /// unless it had not begun: then it will not.
    pub(super) async fn perform(&self, task: Task) -> Result<Written> {
        let (reply, answer) = oneshot::channel();
        let done = async {
            self.queue.send(Message::Task(task, reply)).await.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        };
        tokio::time::timeout(self.timeout, done)
            .await
            .map_err(|_| Error::unavailable(format!("no write within {:?}", self.timeout)))?
    }

    /// Ends the task after all that waits.
    pub(super) async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.queue.send(Message::Close(reply)).await.is_ok() {
            // An error means that it has ended already.
            let _ = closed.await;
        }
        tracing::debug!(commits = self.commits(), "store writer closed");
    }

    /// How many commits there were.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

fn closed() -> Error {
    Error::unavailable("the store is closed")
}

/// What the task owns.
struct Work {
    /// `None` after an error that left its state unknown.
    connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    place: Place,
    group: usize,
    commits: Arc<AtomicU64>,
}

impl Work {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut waiting = Vec::new();
        while messages.recv_many(&mut waiting, self.group).await > 0 {
            let (mut group, mut closing) = (Vec::new(), Vec::new());
            for message in waiting.drain(..) {
                match message {
                    // Its caller has gone, and it has not begun: it is left undone.
                    Message::Task(_, reply) if reply.is_closed() => {}
                    Message::Task(task, reply) => group.push((task, reply)),
                    Message::Close(reply) => closing.push(reply),
                }
            }
            if !group.is_empty() {
                self.perform(group).await;
            }
            if !closing.is_empty() {
                self.close().await;
                // Those who wait now find the queue closed.
                return;
            }
        }
        self.close().await;
    }

    async fn close(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            // The next start needs no recovery then; when it fails, the next start recovers.
            let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await;
            let _ = connection.close().await;
        }
    }

    async fn perform(&mut self, group: Vec<(Task, Reply)>) {
        let (tasks, replies): (Vec<Task>, Vec<Reply>) = group.into_iter().unzip();
        if let Err(error) = self.place.check() {
            return refuse(replies, error.kind(), &error.cause());
        }
        match self.transaction(tasks).await {
            Ok(answers) => {
                for (reply, answer) in replies.into_iter().zip(answers) {
                    // Whoever no longer waits cannot be told.
                    let _ = reply.send(answer);
                }
            }
            Err(error) => refuse(replies, kind(&error), &error.to_string()),
        }
    }

    /// One transaction; an error means that nothing of it was done.
    async fn transaction(&mut self, tasks: Vec<Task>) -> Result<Vec<Result<Written>>, sqlx::Error> {
        // Taken out, and put back only in a known state.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        // A transaction that begins by reading cannot wait for another process's when it comes to write.
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await;
        let done = match begun {
            Ok(_) => answers(&mut connection, tasks).await,
            Err(error) => {
                self.connection = (code(&error) == Some(BUSY)).then_some(connection);
                return Err(error);
            }
        };
        let committed = match done {
            Ok(answers) => sqlx::query("COMMIT").execute(&mut connection).await.map(|_| answers),
            Err(error) => Err(error),
        };
        match committed {
            Ok(answers) => {
                self.commits.fetch_add(1, Ordering::Relaxed);
                self.connection = Some(connection);
                Ok(answers)
            }
            Err(error) => {
                let undone = sqlx::query("ROLLBACK").execute(&mut connection).await;
                self.connection = undone.is_ok().then_some(connection);
                Err(error)
            }
        }
    }
}

fn refuse(replies: Vec<Reply>, kind: Kind, cause: &str) {
    for reply in replies {
        // Whoever no longer waits cannot be told.
        let _ = reply.send(Err(Error::new(kind).with_source(cause)));
    }
}

/// Performs all tasks; an error ends the transaction.
async fn answers(
    connection: &mut SqliteConnection,
    tasks: Vec<Task>,
) -> Result<Vec<Result<Written>>, sqlx::Error> {
    let mut answers = Vec::with_capacity(tasks.len());
    for task in tasks {
        let answer = match task {
            Task::Prepare(collection) => prepare(connection, collection).await,
            Task::Write(collection, write) => perform(connection, collection, write).await,
        };
        answers.push(match answer {
            Ok(written) => Ok(written),
            Err(Trouble::Refused(error)) => Err(error),
            Err(Trouble::Sql(error)) if ends_transaction(&error) => return Err(error),
            Err(Trouble::Sql(error)) => Err(failure(error)),
        });
    }
    Ok(answers)
}

/// Why one task was not done.
enum Trouble {
    /// It was refused; nothing was written.
    Refused(Error),
    /// A statement failed, and undid itself.
    Sql(sqlx::Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// Whether SQLite may have rolled the transaction back by itself (<https://www.sqlite.org/lang_transaction.html>,
/// "Response To Errors Within A Transaction"), or the connection is gone.
fn ends_transaction(error: &sqlx::Error) -> bool {
    match code(error) {
        Some(code) => matches!(code, BUSY | NO_MEMORY | INTERRUPTED | IO_ERROR | FULL),
        None => true,
    }
}

async fn prepare(connection: &mut SqliteConnection, collection: &Collection) -> Result<Written, Trouble> {
    for statement in sql::schema(collection) {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(Written::default())
}

/// Performs one write. It needs no savepoint where it writes by one statement: one that fails undoes itself.
async fn perform(
    connection: &mut SqliteConnection,
    collection: &Collection,
    write: Write,
) -> Result<Written, Trouble> {
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
                return Ok(Written::default());
            };
            let before = document(collection, &row)?;
            if let Some(after) = change.apply(&before, expected)? {
                let sql = Sql::update(collection, &after, encoded(&after.body)?);
                sql.query().execute(connection).await?;
                Ok(Written::one(after, false))
            } else {
                let sql = Sql::delete(collection, &super::Filter::id(before.id.as_str()));
                sql.query().execute(connection).await?;
                Ok(Written::one(before, false))
            }
        }
        Write::Upsert { filter, id, body } => {
            let sql = Sql::find_first(collection, &filter);
            if let Some(row) = sql.query().fetch_optional(&mut *connection).await? {
                let before = document(collection, &row)?;
                let after = Document { id: before.id, version: before.version + 1, body };
                let sql = Sql::update(collection, &after, encoded(&after.body)?);
                sql.query().execute(connection).await?;
                Ok(Written::one(after, false))
            } else {
                let new = Document::first_version(id, body);
                insert_one(connection, collection, &new).await?;
                Ok(Written::one(new, true))
            }
        }
        Write::DeleteAll(filter) => {
            let sql = Sql::delete(collection, &filter);
            let deleted = sql.query().execute(connection).await?.rows_affected();
            Ok(Written { count: deleted, ..Written::default() })
        }
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    collection: &Collection,
    new: Vec<(String, Arc<Body>)>,
) -> Result<Written, Trouble> {
    let count = new.len();
    for (id, body) in new {
        insert_one(connection, collection, &Document::first_version(id, body)).await?;
    }
    Ok(Written::counted(count))
}

async fn insert_one(
    connection: &mut SqliteConnection,
    collection: &Collection,
    document: &Document,
) -> Result<(), Trouble> {
    let sql = Sql::insert(collection, document, encoded(&document.body)?);
    match sql.query().execute(connection).await {
        Ok(_) => Ok(()),
        // Of a table that somebody else made, another constraint may be broken as well.
        Err(error) if extended_code(&error).is_some_and(|code| TAKEN.contains(&code)) => {
            Err(Trouble::Refused(taken()))
        }
        Err(error) => Err(Trouble::Sql(error)),
    }
}

fn encoded(body: &Body) -> Result<String, Error> {
    serde_json::to_string(body).map_err(Error::internal)
}
