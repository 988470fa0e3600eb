//! `/weather`: JSON of another service, of which a few fields are passed on, as in the tutorial.

use platform::connector::Upstream;
use platform::error::Result;
use platform::http::{ConnectorTo, Json, Route, Routes};
use serde::{Deserialize, Serialize};

use crate::app::AppState;

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new().upstream::<Forecast>().route(Route::at("/weather").get(read))
}

/// The upstream `upstreams.weather_report`.
struct Forecast;

impl Upstream for Forecast {
    const NAME: &'static str = "weather_report";
}

/// What is read of the response of the upstream; all else in it is ignored.
#[derive(Debug, Deserialize)]
struct Current {
    current: Conditions,
}

#[derive(Debug, Deserialize)]
struct Conditions {
    temperature_2m: f64,
    wind_speed_10m: f64,
}

#[derive(Debug, Serialize)]
struct Weather {
    place: &'static str,
    /// Degrees Celsius.
    degrees: f64,
    /// Kilometres an hour.
    wind: f64,
}

async fn read(forecast: ConnectorTo<Forecast>) -> Result<Json<Weather>> {
    let call = forecast.get("/forecast").query("latitude", "52.52").query("longitude", "13.41");
    let response = call.query("current", "temperature_2m,wind_speed_10m").send().await?;
    let Current { current } = response.json()?;
    Ok(Json(Weather { place: "Berlin, DE", degrees: current.temperature_2m, wind: current.wind_speed_10m }))
}
