//! The drivers of the engines, for what the DAO cannot do: a report, a join, an index on texts.
//!
//! `Services::sqlite`, `Services::postgres` and `Services::mongodb` give the driver of the configured engine, and the crates
//! are here, so that a service does not depend on a second version of them. docs/STORES.md says what is stored how.

#[cfg(feature = "mongodb")]
pub use ::mongodb;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use sqlx;

/// An error of the driver as one of the store: `Unavailable` (503) when MongoDB does not respond, else `Internal`.
#[cfg(feature = "mongodb")]
pub fn mongodb_error(error: ::mongodb::error::Error) -> crate::error::Error {
    super::mongodb::store_error(error)
}

/// An error of the driver as one of the store: `Unavailable` (503) when PostgreSQL does not respond, else `Internal`.
#[cfg(feature = "postgres")]
pub fn postgres_error(error: sqlx::Error) -> crate::error::Error {
    super::postgres::store_error(error)
}

/// An error of the driver as one of the store: `Unavailable` (503) when the file cannot be read now, else `Internal`.
#[cfg(feature = "sqlite")]
pub fn sqlite_error(error: sqlx::Error) -> crate::error::Error {
    super::sqlite::store_error(error)
}
