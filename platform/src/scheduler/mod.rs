//! Jobs at times: every so often, after a delay, at a time of the day, by a cron expression.
//!
//! A job is added to the app by [`App::job`](crate::App::job), and runs from the moment at which the server listens. It
//! never runs twice at the same time in one process: while it runs, its times pass, and are late.

mod job;
mod run;
mod schedule;
mod single_run;

pub use crate::clock::Clock;
pub use job::{Job, Late};
pub use run::Run;
pub use schedule::{Schedule, after, cron, daily_at, every};

pub(crate) use job::check_names;
