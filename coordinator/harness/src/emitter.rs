use alloy::primitives::{Address, B256, U256};

use crate::Anvil;

/// A log as somebody wants it, whether it is what its signature says or not.
#[derive(Debug, Clone)]
pub struct RawLog {
    /// Up to four topics.
    pub topics: Vec<B256>,
    /// The data.
    pub data: Vec<u8>,
}

/// A contract that emits whatever logs it is told to.
#[derive(Debug, Clone, Copy)]
pub struct Emitter {
    /// Its address.
    pub address: Address,
}

#[expect(
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "test support: a short program, patched in place"
)]
impl Emitter {
    /// Deploys one. Its call data is the number of topics (32 bytes), the topics, then the log's data.
    pub async fn deploy(anvil: &Anvil) -> Self {
        // One branch for each number of topics n: data is copied from 32 * (n + 1) on, then LOGn. Without call data it
        // answers with nothing, as for a view that it does not have.
        let mut runtime = vec![0x36, 0x15, 0x60, 0x00, 0x57]; // CALLDATASIZE ISZERO PUSH1 stop JUMPI
        let mut patches = vec![(3, usize::MAX)];
        for topics in 1..=4_u8 {
            runtime.extend([0x60, topics, 0x60, 0x00, 0x35, 0x14, 0x60, 0x00, 0x57]);
            patches.push((runtime.len() - 2, usize::from(topics)));
        }
        runtime.extend([0x60, 0x00, 0x60, 0x00, 0xfd]); // REVERT
        let mut places = [0_u8; 5];
        for topics in 1..=4_u8 {
            places[usize::from(topics)] = u8::try_from(runtime.len()).expect("a short program");
            let skip = 32 * (topics + 1);
            runtime.push(0x5b); // JUMPDEST
            // CALLDATACOPY(0, skip, CALLDATASIZE - skip)
            runtime.extend([0x60, skip, 0x36, 0x03, 0x60, skip, 0x60, 0x00, 0x37]);
            for topic in (1..=topics).rev() {
                runtime.extend([0x60, 32 * topic, 0x35]); // CALLDATALOAD
            }
            // LOGn(0, CALLDATASIZE - skip, topics…), STOP
            runtime.extend([0x60, skip, 0x36, 0x03, 0x60, 0x00, 0xa0 + topics, 0x00]);
        }
        let stop = u8::try_from(runtime.len()).expect("a short program");
        runtime.extend([0x5b, 0x00]);
        for (at, topics) in patches {
            runtime[at] = places.get(topics).copied().unwrap_or(stop);
        }
        let length = u8::try_from(runtime.len()).expect("a short program");
        // Copies what follows these eleven bytes to memory and returns it as the code.
        let mut creation = vec![0x60, length, 0x80, 0x60, 0x0b, 0x60, 0x00, 0x39, 0x60, 0x00, 0xf3];
        creation.extend(runtime);
        Self { address: anvil.create(&creation).await }
    }

    /// Emits a log in a block of its own; answers the transaction.
    pub async fn emit(&self, anvil: &Anvil, log: &RawLog) -> String {
        let mut call = U256::from(log.topics.len()).to_be_bytes::<32>().to_vec();
        log.topics.iter().for_each(|topic| call.extend(topic));
        call.extend(&log.data);
        let hash = anvil.send(0, Some(self.address), &call, U256::ZERO).await;
        let receipt = anvil.receipt(&hash).await;
        assert_eq!(
            receipt.get("status").and_then(|status| status.as_str()),
            Some("0x1"),
            "{receipt}"
        );
        hash
    }
}
