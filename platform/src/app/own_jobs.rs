//! The jobs of the platform itself, in an app whose routes need them.

use crate::http::Needs;
use crate::scheduler::{Job, Run, every};
use crate::services::Services;

/// How often what has ended of accounts is deleted: it is refused before that, so this is only about its space.
#[cfg(feature = "auth")]
const SWEEP: std::time::Duration = std::time::Duration::from_hours(1);

/// The jobs of an app with this state, which they do not use.
pub(super) fn own_jobs<S: Clone + Send + Sync + 'static>(needs: Needs, services: &Services) -> Vec<Job<S>> {
    let mut jobs = Vec::new();
    if needs.mail {
        let mailer = services.mailer().clone();
        let schedule = every(mailer.interval());
        let send = move |_, run: Run| {
            let mailer = mailer.clone();
            async move { mailer.deliver_due(run.fencing_token()).await.map(drop) }
        };
        jobs.push(Job::new("mail", schedule, send).single_process().quiet());
    }
    #[cfg(feature = "auth")]
    if needs.accounts {
        let services = services.clone();
        let sweep = move |_, _| {
            let services = services.clone();
            async move { services.sweep_accounts().await }
        };
        jobs.push(Job::new("accounts", every(SWEEP), sweep).single_process());
    }
    jobs
}
