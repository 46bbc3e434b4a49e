//! A real Anvil for one test; it ends with the value.

#![allow(clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use alloy::providers::{DynProvider, Provider, ProviderBuilder};

/// A running Anvil with instant mining and unlocked accounts.
pub(crate) struct Anvil {
    child: Child,
    url: String,
}

impl Anvil {
    pub(crate) async fn start() -> Self {
        let program = program();
        let mut child = Command::new(&program)
            .args(["--port", "0", "--accounts", "2"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; run scripts/tools.sh", program.display()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("anvil ended before it listened").unwrap();
            if let Some(address) = line.strip_prefix("Listening on ") {
                break address.to_owned();
            }
        };
        // Its log has to go somewhere, or it stops when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: format!("http://{address}") }
    }

    pub(crate) fn provider(&self) -> DynProvider {
        let provider = ProviderBuilder::new()
            .disable_recommended_fillers()
            .connect_http(self.url.parse().unwrap());
        provider.client().set_poll_interval(std::time::Duration::from_millis(5));
        provider.erased()
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `ANVIL`, else where `scripts/tools.sh` puts it.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("ANVIL") {
        return path.into();
    }
    let tools = std::env::var_os("WASM_EXEC_TOOLS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache/wasm-exec/tools"),
        PathBuf::from,
    );
    tools.join("bin/anvil")
}
