//! The program: the platform running the app.

use std::process::ExitCode;

fn main() -> ExitCode {
    server::platform::main(server::app::build)
}
