//! How much a fetch may cost.

use std::time::Duration;

/// Limits of one fetch, checked before anything is fetched or allocated for what lies beyond them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Bytes of the whole content. Default 64 MiB.
    pub expanded_bytes: u64,
    /// Bytes of one block as it is stored. Default 2 MiB, the most that Kubo exchanges.
    pub block_bytes: u64,
    /// Nodes of the graph that are visited, the same block counted each time. Default 32768.
    pub nodes: u64,
    /// Links between the root and the deepest leaf. Default 32; 64 MiB in Kubo's layout need 2.
    pub depth: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { expanded_bytes: 64 << 20, block_bytes: 2 << 20, nodes: 32_768, depth: 32 }
    }
}

/// How long the network may keep us waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to be made. Default 5 s.
    pub connect: Duration,
    /// Between two pieces of an answer, and for its first. Default 30 s.
    pub idle: Duration,
    /// For a whole fetch or upload. Default 5 min.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            total: Duration::from_secs(300),
        }
    }
}
