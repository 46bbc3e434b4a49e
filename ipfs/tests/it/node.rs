//! Kubo's gateway and importer as a process.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use ipfs::Url;

pub(crate) struct Node {
    pub(crate) gateway: Url,
    pub(crate) api: Url,
    /// Ends with this, or by its closed stdin when we are killed.
    process: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself; nothing of it must stay, not even its entry in the process table.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::with_import("")
    }

    /// One whose `add` does something else than usual unless it is told.
    pub(crate) fn with_import(defaults: &str) -> Self {
        let binary = binary();
        let mut process = Command::new(&binary)
            .args(["-listen", "127.0.0.1:0", "-until-eof", "-import", defaults])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{} does not start ({error}): run scripts/parts/ipfs/build.sh",
                    binary.display()
                )
            });
        let stdout = process.stdout.take().expect("piped");
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address).expect("readable");
        let address = address.trim();
        assert!(!address.is_empty(), "the node ended before it said its address");
        Self {
            gateway: format!("http://{address}/ipfs").parse().expect("a URL"),
            api: format!("http://{address}").parse().expect("a URL"),
            process,
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
