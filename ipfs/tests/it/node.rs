//! Kubo's gateway and importer as a process.

use std::path::PathBuf;
use std::process::Stdio;

use ipfs::Url;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub(crate) struct Node {
    pub(crate) gateway: Url,
    pub(crate) api: Url,
    /// Ends when it is dropped, and by its closed stdin when we are killed.
    _process: Child,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let binary = binary();
        let mut process = Command::new(&binary)
            .args(["-listen", "127.0.0.1:0", "-until-eof"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{} does not start ({error}): run scripts/parts/ipfs/build.sh",
                    binary.display()
                )
            });
        let stdout = process.stdout.take().expect("piped");
        let line = BufReader::new(stdout).lines().next_line().await.expect("readable");
        let address = line.expect("the node says its address before it ends");
        Self {
            gateway: format!("http://{address}/ipfs").parse().expect("a URL"),
            api: format!("http://{address}").parse().expect("a URL"),
            _process: process,
        }
    }
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("IPFS_GATEWAY") {
        return path.into();
    }
    let tools = std::env::var_os("WASM_EXEC_TOOLS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache/wasm-exec/tools"),
        PathBuf::from,
    );
    tools.join("ipfs-gateway")
}
