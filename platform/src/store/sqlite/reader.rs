//! A read that SQLite itself ends at its deadline, so that its connection is free again.
//!
//! To give a connection its deadline costs two changes of thread, some 30 µs. So this is for what may read many documents. One
//! that is read by its id has only a time for its caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{Sqlite, SqliteConnection};

/// After how many steps of its virtual machine SQLite looks at the clock: some tenths of a millisecond.
const STEPS: i32 = 10_000;

/// A connection with a deadline.
struct Reader {
    connection: PoolConnection<Sqlite>,
    /// Whether the read has ended. From then on the deadline means nothing: somebody else may use the connection.
    has_ended: Arc<AtomicBool>,
}

impl Reader {
    async fn acquire(readers: &SqlitePool, deadline: Instant) -> Result<Self, sqlx::Error> {
        let mut connection = readers.acquire().await?;
        let has_ended = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&has_ended);
        let is_wanted = move |ended: &Arc<_>| Arc::strong_count(ended) > 1 && Instant::now() < deadline;
        let goes_on = move || ended.load(Ordering::Relaxed) || is_wanted(&ended);
        connection.lock_handle().await?.set_progress_handler(STEPS, goes_on);
        Ok(Self { connection, has_ended })
    }
}

impl Drop for Reader {
    /// A read whose caller has gone away is interrupted, and its connection is closed: the next one would be interrupted too.
    fn drop(&mut self) {
        if !self.has_ended.load(Ordering::Relaxed) {
            self.connection.close_on_drop();
        }
    }
}

/// All rows of a query, which is interrupted at the deadline.
pub(super) async fn rows(
    readers: &SqlitePool,
    query: Query<'_, Sqlite, SqliteArguments>,
    deadline: Instant,
) -> Result<Vec<SqliteRow>, sqlx::Error> {
    let mut reader = Reader::acquire(readers, deadline).await?;
    let rows = query.fetch_all(&mut *reader.connection).await;
    reader.has_ended.store(true, Ordering::Relaxed);
    rows
}

/// Connections on which SQLite interrupts what still runs so long after they were taken from the pool, also when its caller
/// has gone away.
pub(super) fn limited(pool: SqlitePoolOptions, time: Duration) -> SqlitePoolOptions {
    pool.after_connect(move |connection, _| Box::pin(limit(connection, time))).before_acquire(
        move |connection, _| Box::pin(async move { limit(connection, time).await.map(|()| true) }),
    )
}

async fn limit(connection: &mut SqliteConnection, time: Duration) -> Result<(), sqlx::Error> {
    let deadline = Instant::now() + time;
    connection.lock_handle().await?.set_progress_handler(STEPS, move || Instant::now() < deadline);
    Ok(())
}
