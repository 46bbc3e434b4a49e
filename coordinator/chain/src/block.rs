//! What nodes answer, as far as it is read here.

use alloy::primitives::{B256, Bloom, BloomInput, Bytes, U64, U256};
use serde::{Deserialize, Deserializer};
use task::{Address, BlockRef, Hash};

use crate::{Error, endpoint::Endpoint};

/// A block's header.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Header {
    number: U64,
    hash: B256,
    parent_hash: B256,
    base_fee_per_gas: Option<U256>,
    timestamp: Option<U64>,
    #[serde(default, deserialize_with = "readable")]
    logs_bloom: Option<Bloom>,
}

/// A filter that cannot be read says nothing; nobody else needs it.
fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bloom>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

impl Header {
    pub(crate) fn block(&self) -> BlockRef {
        BlockRef { number: self.number.to(), hash: task::Hex(self.hash.0) }
    }

    pub(crate) fn parent(&self) -> Hash {
        task::Hex(self.parent_hash.0)
    }

    /// Whether the block may hold a log of the contract with this first topic: the filter in the header is never wrong
    /// when it says no.
    pub(crate) fn may_have(&self, contract: &Address, topic: &B256) -> bool {
        self.logs_bloom.is_none_or(|bloom| {
            bloom.contains_input(BloomInput::Raw(&contract.0))
                && bloom.contains_input(BloomInput::Raw(topic.as_slice()))
        })
    }

    /// When it was made, in Unix seconds; none where the node does not say.
    pub(crate) fn timestamp(&self) -> Option<u64> {
        Some(self.timestamp?.to())
    }

    /// When it was made, in Unix milliseconds.
    pub(crate) fn made_at_ms(&self) -> Option<i64> {
        i64::try_from(self.timestamp?.to::<u64>()).ok()?.checked_mul(1000)
    }

    pub(crate) fn base_fee_wei(&self) -> u128 {
        self.base_fee_per_gas.map_or(0, |fee| fee.saturating_to())
    }
}

/// An event's log.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Log {
    pub(crate) address: alloy::primitives::Address,
    pub(crate) topics: Vec<B256>,
    pub(crate) data: Bytes,
    block_number: Option<U64>,
    block_hash: Option<B256>,
    transaction_hash: Option<B256>,
    log_index: Option<U64>,
    /// Newer nodes say it.
    block_timestamp: Option<U64>,
    #[serde(default)]
    pub(crate) removed: bool,
}

impl Log {
    /// Where it stands; none while it is pending.
    pub(crate) fn block(&self) -> Option<BlockRef> {
        Some(BlockRef { number: self.block_number?.to(), hash: task::Hex(self.block_hash?.0) })
    }

    /// When its block was made, in Unix milliseconds; none where the node does not say it with the log.
    pub(crate) fn made_at_ms(&self) -> Option<i64> {
        i64::try_from(self.block_timestamp?.to::<u64>()).ok()?.checked_mul(1000)
    }

    pub(crate) fn transaction(&self) -> Hash {
        task::Hex(self.transaction_hash.unwrap_or_default().0)
    }

    pub(crate) fn order(&self) -> (u64, u64) {
        (self.block_number.unwrap_or_default().to(), self.log_index.unwrap_or_default().to())
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TransactionReceipt {
    transaction_hash: B256,
    block_hash: B256,
    block_number: U64,
    status: Option<U64>,
    gas_used: U256,
    pub(crate) contract_address: Option<alloy::primitives::Address>,
    #[serde(default)]
    pub(crate) logs: Vec<Log>,
}

impl TransactionReceipt {
    pub(crate) fn block(&self) -> BlockRef {
        BlockRef { number: self.block_number.to(), hash: task::Hex(self.block_hash.0) }
    }

    pub(crate) fn transaction(&self) -> Hash {
        task::Hex(self.transaction_hash.0)
    }

    pub(crate) fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status == U64::from(1))
    }

    pub(crate) fn gas_used(&self) -> u64 {
        self.gas_used.saturating_to()
    }
}

/// Which block is meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At {
    Number(u64),
    Latest,
    Safe,
    Finalized,
}

impl At {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Number(number) => quantity(number),
            Self::Latest => "latest".to_owned(),
            Self::Safe => "safe".to_owned(),
            Self::Finalized => "finalized".to_owned(),
        }
    }
}

/// A number as JSON-RPC writes it.
pub(crate) fn quantity(number: u64) -> String {
    format!("{number:#x}")
}

pub(crate) fn alloy_address(address: Address) -> alloy::primitives::Address {
    address.0.into()
}

pub(crate) fn b256(hash: Hash) -> B256 {
    hash.0.into()
}

impl Endpoint {
    /// A block's header; none when the node does not have it.
    pub(crate) async fn header(&self, at: At) -> Result<Option<Header>, Error> {
        let header: Option<Header> = self.call("eth_getBlockByNumber", &(at.text(), false)).await?;
        match (at, &header) {
            (At::Number(asked), Some(header)) if header.block().number != asked => {
                Err(Error::Inconsistent {
                    endpoint: self.shown().to_owned(),
                    block: asked,
                    what: format!("asked for it, it gives block {}", header.block().number),
                })
            }
            _ => Ok(header),
        }
    }

    /// The newest block.
    pub(crate) async fn head(&self) -> Result<Header, Error> {
        self.header(At::Latest)
            .await?
            .ok_or_else(|| self.unreadable("eth_getBlockByNumber", "null"))
    }

    /// Whether the block is part of the chain that the node serves; none when the node does not reach that far.
    pub(crate) async fn has(&self, block: &BlockRef) -> Result<Option<bool>, Error> {
        let header = self.header(At::Number(block.number)).await?;
        Ok(header.map(|header| header.block().hash == block.hash))
    }

    /// A transaction's receipt; none while it is not mined.
    pub(crate) async fn receipt(&self, hash: &Hash) -> Result<Option<TransactionReceipt>, Error> {
        self.call("eth_getTransactionReceipt", &(hash.to_string(),)).await
    }

    /// How many transactions of an account are mined.
    pub(crate) async fn nonce(&self, address: &Address) -> Result<u64, Error> {
        let nonce: U64 =
            self.call("eth_getTransactionCount", &(address.to_string(), "latest")).await?;
        Ok(nonce.to())
    }
}
