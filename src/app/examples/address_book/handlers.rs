//! The routes of the address book. They call the service and know nothing of storage.

use std::collections::BTreeMap;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;

use super::model::Entry;
use super::service::AddressBook;
use crate::app::AppState;
use platform::error::{Error, Result};
use platform::http::{
    Changed, Created, Json, NoContent, PageRequest, Paged, Path, Precondition, Route, Routes, Versioned,
};
use platform::services::Services;

const SCHEMA: &str = include_str!("../../../../schema/address-book-v1.0.json");

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    let all = Route::at("/addresses").get(list).post(create);
    let one = Route::at("/addresses/{id}").get(read).put(update).delete(remove);
    Routes::new()
        .entity::<Entry>()
        .route(all.schema("address-book-v1.0.json", SCHEMA))
        .route(one.schema("address-book-v1.0.json", SCHEMA))
}

impl<S: Sync> FromRequestParts<S> for AddressBook
where
    Services: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self> {
        Ok(Self::new(Services::from_ref(state).dao()))
    }
}

async fn list(book: AddressBook, page: PageRequest) -> Result<Paged<BTreeMap<String, Entry>>> {
    let (entries, next) = book.list(page.after.as_deref(), page.limit).await?;
    Ok(page.respond(next, entries))
}

async fn create(book: AddressBook, Json(entry): Json<Entry>) -> Result<Created> {
    let id = book.create(entry).await?;
    Ok(Created::at(format!("/addresses/{id}")))
}

async fn read(book: AddressBook, Path(id): Path<String>) -> Result<Versioned<Entry>> {
    Ok(book.read(&id).await?.into())
}

async fn update(
    book: AddressBook,
    Path(id): Path<String>,
    precondition: Precondition,
    Json(entry): Json<Entry>,
) -> Result<Changed> {
    let version = precondition.apply(book.update(&id, precondition.expected(), entry).await)?;
    Ok(Changed::to(version))
}

async fn remove(book: AddressBook, Path(id): Path<String>, precondition: Precondition) -> Result<NoContent> {
    precondition.apply(book.delete(&id, precondition.expected()).await)?;
    Ok(NoContent)
}
