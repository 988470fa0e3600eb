//! A connection that is checked out of the pool.
//!
//! It goes back to the pool only when its state is known. In all other cases, a caller that was dropped, a timeout, an
//! error of the network, it is closed: it may be in a transaction, or wait for a server that will never respond, and the
//! next caller would wait for that too.

use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};

/// A connection that is closed when it is dropped, unless it is returned.
pub(super) struct Checkout(Option<PoolConnection<Postgres>>);

impl Checkout {
    /// Takes a connection.
    pub(super) async fn acquire(pool: &PgPool) -> sqlx::Result<Self> {
        pool.acquire().await.map(|connection| Self(Some(connection)))
    }

    /// Returns the connection to the pool.
    pub(super) fn done(mut self) {
        drop(self.0.take());
    }

    /// Ends it after a statement outside a transaction. After an error of PostgreSQL itself, the connection can be
    /// used again.
    pub(super) fn ended<R>(self, result: sqlx::Result<R>) -> sqlx::Result<R> {
        if matches!(result, Ok(_) | Err(sqlx::Error::Database(_))) {
            self.done();
        }
        result
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "only `done` and `drop` take the connection, and both end the checkout"
)]
mod access {
    use super::{Checkout, Deref, DerefMut, PgConnection};

    const TAKEN: &str = "the connection of a checkout that has ended";

    impl Deref for Checkout {
        type Target = PgConnection;

        fn deref(&self) -> &PgConnection {
            self.0.as_ref().expect(TAKEN)
        }
    }

    impl DerefMut for Checkout {
        fn deref_mut(&mut self) -> &mut PgConnection {
            self.0.as_mut().expect(TAKEN)
        }
    }
}
