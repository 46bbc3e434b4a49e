use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{command::Error, config};

/// Private keys of the first two accounts of every Anvil: known to everybody.
pub(super) const PUBLISHER: &str =
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
pub(super) const CLIENT: &str = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

const START: Duration = Duration::from_secs(15);

/// A development chain in memory that ends with this value.
pub(super) struct Anvil {
    child: Child,
    pub(super) url: String,
}

impl Anvil {
    pub(super) async fn start() -> Result<Self, Error> {
        let program = find().ok_or_else(|| {
            Error::Missing(
                "anvil is not here; scripts/tools.sh installs it, or ANVIL names it".to_owned(),
            )
        })?;
        let mut child = Command::new(&program)
            .args(["--port", "0", "--host", "127.0.0.1"])
            .env_clear()
            .envs(config::child_environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::doing(format!("start {}", program.display())))?;
        let stdout = child.stdout.take();
        let address = tokio::time::timeout(START, async {
            let mut lines = BufReader::new(stdout?).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(address) = line.strip_prefix("Listening on ") {
                    let address = address.trim().to_owned();
                    // Whatever else it prints is read, so that it never waits for a reader.
                    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                    return Some(address);
                }
            }
            None
        });
        match address.await {
            Ok(Some(address)) => Ok(Self { child, url: format!("http://{address}") }),
            _ => Err(Error::Missing(format!("{} does not listen", program.display()))),
        }
    }

    pub(super) async fn stop(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "cannot end anvil");
        }
    }
}

/// The program: named by ANVIL, in PATH, or where the project's own script puts it.
fn find() -> Option<PathBuf> {
    let named = config::tool_variable("ANVIL").map(PathBuf::from);
    let path = config::tool_variable("PATH").unwrap_or_default();
    let in_path: Vec<_> = std::env::split_paths(&path).map(|folder| folder.join("anvil")).collect();
    let tools = config::tool_variable("HOME")
        .map(|home| PathBuf::from(home).join(".cache/wasm-exec/tools"));
    let installed =
        tools.into_iter().flat_map(|tools| [tools.join("anvil"), tools.join("bin/anvil")]);
    named.into_iter().chain(in_path).chain(installed).find(|path| path.is_file())
}
