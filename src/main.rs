//! The program: the platform running the app.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use server::platform::config::Service;

/// A twentieth less CPU for a request with a stored entry (docs/PERFORMANCE.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let service = Service {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        defaults: server::app::DEFAULTS,
    };
    server::platform::main(&service, server::app::app())
}
