//! Several processes that serve on one listening socket: a supervisor, and workers that it starts and replaces.
//!
//! The supervisor serves nothing itself and opens no service. It knows neither the app nor how a configuration is read:
//! `lifecycle` hands it a function.

mod channel;
mod crashes;
pub mod manager;
mod plan;
mod settings;
mod supervisor;
mod table;
mod worker;

pub use plan::{HandedOver, Plan};
pub use settings::Settings;
pub use supervisor::{Supervisor, supervise};
pub use worker::{Order, Worker};
