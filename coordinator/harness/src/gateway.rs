//! The IPFS gateway of `scripts/parts/ipfs`: Kubo's own gateway code, with its RPC, in memory.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// A running gateway. It is killed when this goes.
#[derive(Debug)]
pub struct Gateway {
    _child: Child,
    address: String,
}

impl Gateway {
    /// Starts a gateway on a free port that has the files of a folder, or nothing.
    ///
    /// # Panics
    /// When there is no gateway (`IPFS_GATEWAY`, else what `scripts/parts/ipfs/build.sh` made) or it does not start.
    #[expect(clippy::panic, reason = "test support: there is nothing to go on with")]
    pub async fn start(preload: Option<&Path>) -> Self {
        let program = std::env::var_os("IPFS_GATEWAY")
            .map_or_else(|| crate::tool("ipfs-gateway"), Into::into);
        let mut command = Command::new(&program);
        command.args(["-listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(folder) = preload {
            command.arg("-preload").arg(folder);
        }
        let mut child = match command.kill_on_drop(true).spawn() {
            Ok(child) => child,
            Err(error) => {
                panic!(
                    "{} cannot be started ({error}); run scripts/parts/ipfs/build.sh",
                    program.display()
                )
            }
        };
        let Some(stdout) = child.stdout.take() else { panic!("the gateway has no stdout") };
        let mut lines = BufReader::new(stdout).lines();
        match tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await {
            Ok(Ok(Some(address))) => Self { _child: child, address: address.trim().to_owned() },
            other => panic!("{} does not say where it listens: {other:?}", program.display()),
        }
    }

    /// The gateway's root, for `COORDINATOR_IPFS_ENDPOINT`.
    #[must_use]
    pub fn root(&self) -> String {
        format!("http://{}/ipfs", self.address)
    }

    /// The RPC's root, for `COORDINATOR_IPFS_API`.
    #[must_use]
    pub fn api(&self) -> String {
        format!("http://{}", self.address)
    }
}
