//! `/sales`: what was sold, and a report that the DAO cannot make: sums for each month, by the query language of the
//! engine. One function for each engine that the service may run on; with another one, the report is 501.
//!
//! docs/STORES.md, "The way out".

use axum::extract::State;
use platform::error::{Error, Kind, Result};
use platform::http::{Created, Json, Path, Route, Routes, Versioned};
use platform::services::Services;
use platform::store::{Dao, Entity};
use serde::{Deserialize, Serialize};

use crate::app::AppState;

const SCHEMA: &str = r#"{
    "type": "object", "additionalProperties": false, "required": ["product", "day", "cents"],
    "properties": {
        "product": {"type": "string"},
        "day": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
        "cents": {"type": "integer", "minimum": 0, "maximum": 1000000000}
    }
}"#;

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new()
        .entity::<Sale>()
        .route(Route::at("/sales").post(create).schema("sale-v1.0.json", SCHEMA))
        .route(Route::at("/sales/report").get(report))
        .route(Route::at("/sales/{id}").get(read))
}

#[derive(Debug, Deserialize, Serialize)]
struct Sale {
    product: String,
    day: String,
    cents: u32,
}

impl Entity for Sale {
    const COLLECTION: &'static str = "sales";
}

/// One line of the report.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    /// Such as `2026-11`.
    month: String,
    count: i64,
    cents: i64,
}

async fn create(sales: Dao<Sale>, Json(sale): Json<Sale>) -> Result<Created> {
    let id = sales.insert(&sale).await?;
    Ok(Created::at(format!("/sales/{id}")))
}

async fn read(sales: Dao<Sale>, Path(id): Path<String>) -> Result<Versioned<Sale>> {
    let sale = sales.get(&id).await?.ok_or_else(|| Error::not_found("No Such Sale"))?;
    Ok(sale.into())
}

async fn report(State(services): State<Services>) -> Result<Json<Vec<Line>>> {
    #[cfg(feature = "sqlite")]
    if let Some(database) = services.sqlite() {
        return on_sqlite(database).await.map(Json);
    }
    #[cfg(feature = "postgres")]
    if let Some(database) = services.postgres() {
        return on_postgres(database).await.map(Json);
    }
    #[cfg(feature = "mongodb")]
    if let Some(database) = services.mongodb().await? {
        return on_mongodb(database).await.map(Json);
    }
    let message = format!("{} keeps its documents in a store without a query language", services.name());
    Err(Error::new(Kind::Other(501)).with_reason("No Reports Here").with_message(message))
}

/// The table is `sales (id, version, body)`; `body` is JSON text.
#[cfg(feature = "sqlite")]
async fn on_sqlite(database: platform::store::drivers::sqlx::SqlitePool) -> Result<Vec<Line>> {
    use platform::store::drivers::{sqlite_error, sqlx};
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT substr(body ->> '$.day', 1, 7) AS month, count(*), sum(body ->> '$.cents')
         FROM sales GROUP BY month ORDER BY month",
    )
    .fetch_all(&database)
    .await
    .map_err(sqlite_error)?;
    Ok(rows.into_iter().map(|(month, count, cents)| Line { month, count, cents }).collect())
}

/// The table is `sales (id, version, body, fields)`; `fields` is `body` as JSONB.
#[cfg(feature = "postgres")]
async fn on_postgres(database: platform::store::drivers::sqlx::PgPool) -> Result<Vec<Line>> {
    use platform::store::drivers::{postgres_error, sqlx};
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT left(fields ->> 'day', 7) AS month, count(*), sum((fields ->> 'cents')::bigint)::bigint
         FROM sales GROUP BY month ORDER BY month",
    )
    .fetch_all(&database)
    .await
    .map_err(postgres_error)?;
    Ok(rows.into_iter().map(|(month, count, cents)| Line { month, count, cents }).collect())
}

/// A document is `{_id, version, revision, body}`; one with `pending` is not inserted yet.
#[cfg(feature = "mongodb")]
async fn on_mongodb(database: platform::store::drivers::mongodb::Database) -> Result<Vec<Line>> {
    use std::time::Duration;

    use platform::store::drivers::mongodb::bson::{Bson, Document, doc};
    use platform::store::drivers::mongodb_error;
    let month = doc! { "$substrCP": ["$body.day", 0, 7] };
    let sums = doc! { "_id": month, "count": { "$sum": 1_i64 }, "cents": { "$sum": "$body.cents" } };
    let stages = [
        doc! { "$match": { "pending": Bson::Null } },
        doc! { "$group": sums },
        doc! { "$sort": { "_id": 1 } },
        doc! { "$project": { "_id": 0, "month": "$_id", "count": 1, "cents": 1 } },
    ];
    let sales = database.collection::<Document>("sales");
    let found = sales.aggregate(stages).max_time(Duration::from_secs(3)).with_type::<Line>();
    let mut found = found.await.map_err(mongodb_error)?;
    let mut months = Vec::new();
    while found.advance().await.map_err(mongodb_error)? {
        months.push(found.deserialize_current().map_err(mongodb_error)?);
    }
    Ok(months)
}
