//! The command line as a script sees it: help, exit codes, settings, and the HTTP API over a real store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod api;
mod configuration;
mod help;
mod offline;
mod table;

use assert_cmd::Command;

/// The program with nothing in its environment, in a folder of its own.
fn coordinator(folder: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command.env_clear().current_dir(folder);
    command
}

/// A folder that goes with the test.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
