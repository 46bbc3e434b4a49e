//! What tests and the long runs of this project play on: a real chain, real processes, and what looks after them.

mod anvil;
pub mod balancer;
mod cheat;
mod daemon;
mod dice;
mod emitter;
mod gateway;
mod geth;
mod proxy;
/// JSON-RPC without anything in between.
pub mod rpc;
pub mod scene;
mod wait;
pub mod witness;

use std::path::{Path, PathBuf};

pub use anvil::{Anvil, address, key};
pub use daemon::{Daemon, binary, command};
pub use dice::Dice;
pub use emitter::{Emitter, RawLog};
pub use gateway::Gateway;
pub use geth::Geth;
pub use proxy::{Misbehaviour, Proxy};
pub use wait::wait_for;

/// A tool that the scripts install, in `WASM_EXEC_TOOLS` or `~/.cache/wasm-exec/tools`.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    let tools = std::env::var_os("WASM_EXEC_TOOLS").map(PathBuf::from);
    let home =
        || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/wasm-exec/tools"));
    tools.or_else(home).unwrap_or_default().join(name)
}
