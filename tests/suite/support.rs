//! What the tests share: this app in process, and this program as a process.

use platform::testing::{Program, TestApp};

/// The program under test.
pub const PROGRAM: Program = Program::new(env!("CARGO_BIN_EXE_server"));

/// The app as it is wired, on a store in memory.
pub async fn app() -> TestApp {
    app_with(&[]).await
}

/// The app with variables such as `("SERVER__HTTP__BODY_LIMIT", "1KiB")`.
pub async fn app_with(environment: &[(&str, &str)]) -> TestApp {
    TestApp::start(&server::SERVICE, server::app::app(), environment).await
}
