//! Those who ask for work: each signs its own transactions, knows which one it wants to stand at which of its nonces,
//! and sends it again until it does.

use std::time::{Duration, Instant};

use alloy::{
    consensus::{SignableTransaction as _, TxEip1559, TxEnvelope},
    eips::eip2718::Encodable2718 as _,
    network::TxSignerSync as _,
    primitives::{Address, Bytes, TxKind, U256, hex},
    signers::local::PrivateKeySigner,
    sol_types::SolCall as _,
};
use harness::{Dice, rpc::Rpc, scene::Fault};
use serde_json::json;
use task_board::{Submission, TaskBoard};

/// How long a transaction that is not mined is left alone.
const RESENT_AFTER: Duration = Duration::from_millis(1_200);
/// Transactions that are sent again at once.
const RESENT_AT_ONCE: usize = 200;
const WEI_PER_GAS: u128 = 20_000_000_000;

/// A call to the contract.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) data: Vec<u8>,
    pub(crate) wei: U256,
    pub(crate) gas: u64,
    /// How many tasks it submits.
    pub(crate) tasks: usize,
}

/// A transaction as it was signed.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) raw: String,
    pub(crate) hash: String,
    pub(crate) tasks: usize,
    sent_at: Option<Instant>,
}

/// One account.
#[derive(Debug)]
pub(crate) struct Requester {
    signer: PrivateKeySigner,
    chain_id: u64,
    board: Address,
    /// By nonce.
    pub(crate) sent: Vec<Sent>,
}

impl Call {
    /// Submits these tasks: one by itself or several at once.
    pub(crate) fn submit(submissions: &[Submission]) -> Result<Self, Fault> {
        let mut requests =
            submissions.iter().map(Submission::encode).collect::<Result<Vec<_>, _>>()?;
        let wei = requests.iter().map(|request| U256::from(request.fee)).sum();
        let tasks = requests.len();
        let data = match (tasks, requests.pop()) {
            (1, Some(request)) => TaskBoard::submitCall {
                terms: request.terms,
                module: request.module,
                input: request.input,
                entry: request.entry,
                extra: request.extra,
            }
            .abi_encode(),
            (_, Some(last)) => {
                requests.push(last);
                TaskBoard::submitBatchCall { requests }.abi_encode()
            }
            (_, None) => return Err("nothing to submit".into()),
        };
        Ok(Self { data, wei, gas: 80_000 + 80_000 * u64::try_from(tasks)?, tasks })
    }
}

impl Requester {
    /// An account that nobody else has.
    pub(crate) fn new(dice: &mut Dice, chain_id: u64, board: Address) -> Result<Self, Fault> {
        let mut secret = [0_u8; 32];
        for part in secret.chunks_mut(8) {
            part.copy_from_slice(&dice.number().to_be_bytes());
        }
        let signer = PrivateKeySigner::from_bytes(&secret.into())?;
        Ok(Self { signer, chain_id, board, sent: Vec::new() })
    }

    pub(crate) fn address(&self) -> Address {
        self.signer.address()
    }

    /// Signs a call for the next nonce.
    pub(crate) fn add(&mut self, call: &Call) -> Result<(), Fault> {
        let sent = self.sign(self.sent.len(), call)?;
        self.sent.push(sent);
        Ok(())
    }

    /// Wants something else at a nonce.
    pub(crate) fn replace(&mut self, nonce: usize, call: &Call) -> Result<(), Fault> {
        let fresh = self.sign(nonce, call)?;
        *self.sent.get_mut(nonce).ok_or("there is no such nonce")? = fresh;
        Ok(())
    }

    fn sign(&self, nonce: usize, call: &Call) -> Result<Sent, Fault> {
        let mut transaction = TxEip1559 {
            chain_id: self.chain_id,
            nonce: u64::try_from(nonce)?,
            gas_limit: call.gas,
            max_fee_per_gas: WEI_PER_GAS,
            max_priority_fee_per_gas: 1_000_000_000,
            to: TxKind::Call(self.board),
            value: call.wei,
            access_list: Default::default(),
            input: Bytes::from(call.data.clone()),
        };
        let signature = self.signer.sign_transaction_sync(&mut transaction)?;
        let envelope = TxEnvelope::from(transaction.into_signed(signature));
        Ok(Sent {
            raw: hex::encode_prefixed(envelope.encoded_2718()),
            hash: envelope.tx_hash().to_string(),
            tasks: call.tasks,
            sent_at: None,
        })
    }

    /// Sends what is not mined and was not sent a moment ago; answers how much is not mined.
    pub(crate) async fn send(&mut self, node: &Rpc) -> Result<usize, Fault> {
        let mined =
            node.number("eth_getTransactionCount", json!([self.address(), "latest"])).await?;
        let mined = usize::try_from(mined)?;
        for sent in self.sent.iter_mut().skip(mined).take(RESENT_AT_ONCE) {
            if sent.sent_at.is_none_or(|at| at.elapsed() > RESENT_AFTER) {
                // One that the node has already, or whose turn it is not, it refuses: it is sent again later.
                node.answer("eth_sendRawTransaction", &json!([sent.raw])).await?;
                sent.sent_at = Some(Instant::now());
            }
        }
        Ok(self.sent.len().saturating_sub(mined))
    }

    /// The nonce that a transaction has here, if it is the one that is wanted.
    pub(crate) fn nonce_of(&self, hash: &str) -> Option<usize> {
        // What is undone is among the newest.
        self.sent.iter().rposition(|sent| sent.hash == hash)
    }
}
