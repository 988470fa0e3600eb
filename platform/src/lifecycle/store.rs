//! The subcommands of `store`: what they print, and how they end.

use std::io::{self, Write as _};
use std::pin::pin;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use crate::cli::StoreCommand;
use crate::error::StartError;
use crate::secret::Secret;
use crate::shutdown::Signals;
use crate::store::bulk::{self, Ends, Migrated, OnStandardError, Row};
use crate::store::{self, Declared, Settings, StoreUrl};

/// How many digits of a hash are printed: enough to see that two differ.
const SHOWN_DIGITS: usize = 16;

/// Runs a subcommand, until it ends or a signal stops it. `declared` is what the app declares of its types.
pub(super) async fn run(
    command: StoreCommand,
    settings: &Settings,
    declared: &[Declared],
) -> Result<ExitCode, StartError> {
    let signals = super::take_signals()?;
    let watch = OnStandardError::new();
    let done = match command {
        StoreCommand::Copy { from, to, overwrite } => {
            let (from, to) = (url(&from, settings), url(&to, settings));
            copy(settings, (from, to, overwrite), declared, &watch, signals).await
        }
        StoreCommand::Migrate => migrate(settings, declared, &watch, signals).await,
    };
    watch.clear();
    match done? {
        Done::Copied(rows) => end_of_copy(&rows),
        Done::Migrated(steps) => end_of_migration(&steps),
        Done::Stopped(signal, code) => {
            // Without standard error, there is nobody to tell.
            let _ =
                writeln!(io::stderr(), "stopped by {signal}; the same command goes on where this one was");
            Ok(ExitCode::from(code))
        }
    }
}

/// How the work has ended.
enum Done {
    Copied(Vec<Row>),
    Migrated(Vec<Migrated>),
    Stopped(&'static str, u8),
}

async fn copy(
    settings: &Settings,
    (from, to, overwrite): (StoreUrl, StoreUrl, bool),
    declared: &[Declared],
    watch: &OnStandardError,
    mut signals: Signals,
) -> Result<Done, StartError> {
    let declared: Vec<_> = declared.iter().map(|one| one.collection).collect();
    let work = async {
        let ends = Ends::open(settings, from, to).await?;
        let copied = bulk::copy(&ends, &declared, overwrite, watch).await;
        ends.close().await;
        copied.map(Done::Copied)
    };
    // At any moment: each document is written as a whole.
    tokio::select! {
        done = work => done,
        (signal, code) = signals.next_ending() => Ok(Done::Stopped(signal, code)),
    }
}

async fn migrate(
    settings: &Settings,
    declared: &[Declared],
    watch: &OnStandardError,
    mut signals: Signals,
) -> Result<Done, StartError> {
    settings.url.check()?;
    let store = store::open(settings, 1).await?;
    let stop = CancellationToken::new();
    let work = bulk::migrate(&store, declared, bulk::LEASE, &stop, watch);
    let mut work = pin!(work);
    let done = tokio::select! {
        done = &mut work => done.map(Done::Migrated),
        (signal, code) = signals.next_ending() => {
            // It gives its lease back, so that the next one need not wait.
            stop.cancel();
            tokio::select! {
                done = work => match done {
                    Ok(steps) => Ok(Done::Migrated(steps)),
                    Err(_) => Ok(Done::Stopped(signal, code)),
                },
                _ = signals.next_ending() => Ok(Done::Stopped(signal, code)),
            }
        }
    };
    store.close().await;
    done
}

fn end_of_migration(steps: &[Migrated]) -> Result<ExitCode, StartError> {
    let mut lines: Vec<String> = steps
        .iter()
        .map(|Migrated { collection, step, seen, changed }| {
            format!("{collection}/{step}: {changed} of {seen} documents changed\n")
        })
        .collect();
    if lines.is_empty() {
        lines.push("nothing to do: every step has run\n".to_owned());
    }
    super::printed(io::stdout().lock().write_all(lines.concat().as_bytes()))
}

/// `store.url` stands for the configured store, whose password is then in no list of processes.
fn url(given: &Secret, settings: &Settings) -> StoreUrl {
    match given.expose() {
        "store.url" => settings.url.clone(),
        url => StoreUrl::new(url),
    }
}

fn end_of_copy(rows: &[Row]) -> Result<ExitCode, StartError> {
    let width = rows.iter().map(|row| row.collection.len()).max().unwrap_or_default().max("collection".len());
    let line = |cells: [&str; 4]| {
        let [collection, from, to, hash] = cells;
        format!("{collection:width$}  {from:>12}  {to:>12}  {hash}\n")
    };
    let shown = |hash: &str| hash.chars().take(SHOWN_DIGITS).collect::<String>();
    let head = line(["collection", "FROM", "TO", "hash"]);
    let lines = rows.iter().map(|Row { collection, from, to }| {
        let hash = if from == to {
            shown(&from.hash)
        } else {
            format!("DIFFERENT: {} and {}", shown(&from.hash), shown(&to.hash))
        };
        line([collection, &from.count.to_string(), &to.count.to_string(), &hash])
    });
    let table: String = std::iter::once(head).chain(lines).collect();
    super::printed(io::stdout().lock().write_all(table.as_bytes()))?;
    let different: Vec<&str> =
        rows.iter().filter(|row| !row.is_same()).map(|row| row.collection.as_str()).collect();
    if different.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(StartError::failed(format!(
        "FROM and TO differ in {}: somebody has written to one of them meanwhile. Stop the writers, and copy again with \
         --overwrite; what is the same is not written again",
        different.join(", ")
    )))
}
