//! What the command line does with the contract: short calls signed by a client's key, each waited for.

use std::time::Duration;

use alloy::{
    primitives::{Bytes, U64, U256, hex},
    sol_types::{SolCall, SolConstructor, SolEvent},
};
use serde_json::json;
use task::{Address, BlockRef, Hash, Identity, TaskId};
use task_board::{Submission, TaskBoard, gas};
use tokio::sync::OnceCell;

use crate::{
    Client, Error, Key,
    block::{At, TransactionReceipt, alloy_address},
    origin, revert,
    submission::tag,
    transaction::{FeeRule, eip1559},
};

/// `MAX_CALLBACK_GAS` of the contract.
const MAX_CALLBACK_GAS: U256 = U256::from_limbs([1_000_000, 0, 0, 0]);
const TIP_WEI: u128 = 1_000_000_000;
const MINED_WITHIN: Duration = Duration::from_secs(180);

/// A contract on a chain.
#[derive(Debug, Clone)]
pub struct Board {
    client: Client,
    contract: Address,
    deployment_block: OnceCell<u64>,
}

/// What a new contract is set up with.
#[derive(Debug, Clone, Default)]
pub struct Deployment {
    /// Who owns it in the end; none for the one who deploys. Another owner still has to accept.
    pub owner: Option<Address>,
    /// Names of the engines that results come from.
    pub engines: Vec<String>,
    /// Who may publish in the domain.
    pub coordinators: Vec<Address>,
    /// Name of a domain to register; none for the default domain.
    pub domain: Option<String>,
}

/// A contract that was just deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployed {
    /// Its address.
    pub contract: Address,
    /// The block it stands in.
    pub block: BlockRef,
    /// The transaction that created it.
    pub transaction: Hash,
    /// The index of the domain that the coordinators publish in.
    pub domain: u16,
}

/// Tasks that were just submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Their ids, in the order of the requests.
    pub ids: Vec<TaskId>,
    /// The transaction's receipt.
    pub receipt: Receipt,
}

/// A transaction that was mined and did what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The block it stands in.
    pub block: BlockRef,
    /// Its hash.
    pub transaction: Hash,
    /// The gas it used.
    pub gas_used: u64,
}

/// What the contract holds of an open kept task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Who asked.
    pub requester: Address,
    /// The fee, in wei.
    pub fee_wei: u128,
    /// Until when it may be answered, in Unix seconds, as a cancellation may have left it; none for ever.
    pub deadline_at: Option<u64>,
    /// Gas of the call to the requester.
    pub callback_gas: u32,
    /// Number of the block that it was submitted in.
    pub submitted_in: u64,
}

/// What publishing a result would cost at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// Upper bound of the gas.
    pub gas: u64,
    /// The price of a unit of gas now, in wei.
    pub gas_price_wei: u128,
    /// Both multiplied, in wei.
    pub cost_wei: u128,
}

impl Board {
    /// The contract at an address; nothing is asked yet.
    #[must_use]
    pub fn new(client: Client, contract: Address) -> Self {
        Self { client, contract, deployment_block: OnceCell::new() }
    }

    /// What it is reached through.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn contract(&self) -> Address {
        self.contract
    }

    /// Deploys a contract and sets it up.
    pub async fn deploy(
        client: &Client,
        key: &Key,
        deployment: &Deployment,
    ) -> Result<Deployed, Error> {
        let owner = alloy_address(key.address());
        let mut code = TaskBoard::BYTECODE.to_vec();
        code.extend(TaskBoard::constructorCall { owner_: owner }.abi_encode());
        let receipt = send(client, key, "deploy", None, U256::ZERO, code).await?;
        let created = receipt.contract_address.unwrap_or_default();
        let board = Self::new(client.clone(), task::Hex(created.into_array()));
        board.check().await?;
        let mut domain = 0;
        if let Some(name) = &deployment.domain {
            let call = TaskBoard::registerDomainCall { name: name.clone() };
            let receipt = board.call("registerDomain", key, U256::ZERO, &call).await?;
            let registered: TaskBoard::DomainRegistered =
                board.event(&receipt, "registerDomain", "DomainRegistered", |_| true)?;
            domain = registered.domain;
        }
        for engine in &deployment.engines {
            let call = TaskBoard::registerEngineCall { name: engine.clone() };
            let receipt = board.call("registerEngine", key, U256::ZERO, &call).await?;
            board.event(
                &receipt,
                "registerEngine",
                "EngineRegistered",
                |event: &TaskBoard::EngineRegistered| event.name == *engine,
            )?;
        }
        for coordinator in &deployment.coordinators {
            let coordinator = alloy_address(*coordinator);
            let call = TaskBoard::setCoordinatorCall { domain, coordinator, allowed: true };
            let receipt = board.call("setCoordinator", key, U256::ZERO, &call).await?;
            board.event(
                &receipt,
                "setCoordinator",
                "CoordinatorSet",
                |event: &TaskBoard::CoordinatorSet| event.coordinator == coordinator,
            )?;
        }
        if let Some(to) = deployment.owner.filter(|to| *to != key.address()) {
            let call = TaskBoard::transferOwnershipCall { to: alloy_address(to) };
            let receipt = board.call("transferOwnership", key, U256::ZERO, &call).await?;
            board.event(
                &receipt,
                "transferOwnership",
                "OwnershipTransferStarted",
                |event: &TaskBoard::OwnershipTransferStarted| event.to == alloy_address(to),
            )?;
        }
        Ok(Deployed {
            contract: board.contract,
            block: receipt.block(),
            transaction: receipt.transaction(),
            domain,
        })
    }

    /// Submits requests, several in one transaction; their fees are sent along.
    pub async fn submit(&self, key: &Key, requests: &[Submission]) -> Result<Accepted, Error> {
        let packed = requests.iter().map(Submission::encode).collect::<Result<Vec<_>, _>>()?;
        let requested = packed.len();
        let value =
            requests.iter().fold(U256::ZERO, |sum, request| sum.saturating_add(request.fee));
        let receipt = match <[_; 1]>::try_from(packed) {
            Ok([request]) => {
                let call = TaskBoard::submitCall {
                    terms: request.terms,
                    module: request.module,
                    input: request.input,
                    entry: request.entry,
                    extra: request.extra,
                };
                self.call("submit", key, value, &call).await?
            }
            Err(requests) => {
                let call = TaskBoard::submitBatchCall { requests };
                self.call("submitBatch", key, value, &call).await?
            }
        };
        let ids = receipt.logs.iter().filter(|log| log.address.0 == self.contract.0);
        let ids = ids.filter_map(|log| task_board::Header::of(&log.topics, &log.data).ok());
        let ids: Vec<_> = ids.map(|header| TaskId(header.id.get())).collect();
        if ids.len() != requested {
            return Err(Error::MissingEvent {
                method: "submit",
                event: "Submitted",
                transaction: receipt.transaction(),
            });
        }
        Ok(Accepted { ids, receipt: Receipt::of(&receipt) })
    }

    /// Asks to cancel this very task.
    pub async fn cancel(&self, key: &Key, task: &Identity) -> Result<Receipt, Error> {
        let call = TaskBoard::cancelCall { id: task.task_id.0, tag: tag(task).0 };
        let receipt = self.call("cancel", key, U256::ZERO, &call).await?;
        let asked = |event: &TaskBoard::Cancelled| event.id == task.task_id.0;
        self.event(&receipt, "cancel", "Cancelled", asked)?;
        Ok(Receipt::of(&receipt))
    }

    /// Closes this very task: a kept one whose deadline has passed.
    pub async fn expire(&self, key: &Key, task: &Identity) -> Result<Receipt, Error> {
        let call = TaskBoard::expireCall { id: task.task_id.0, tag: tag(task).0 };
        let receipt = self.call("expire", key, U256::ZERO, &call).await?;
        let closed = |event: &TaskBoard::Expired| event.id == task.task_id.0;
        self.event(&receipt, "expire", "Expired", closed)?;
        Ok(Receipt::of(&receipt))
    }

    /// Pays the key's whole credit out.
    pub async fn withdraw(&self, key: &Key, to: Address) -> Result<Receipt, Error> {
        let call = TaskBoard::withdrawCall { to: alloy_address(to) };
        let receipt = self.call("withdraw", key, U256::ZERO, &call).await?;
        let account = alloy_address(key.address());
        let paid = |event: &TaskBoard::Withdrawn| event.account == account;
        self.event(&receipt, "withdraw", "Withdrawn", paid)?;
        Ok(Receipt::of(&receipt))
    }

    /// Whether a TaskBoard answers at the address, before anything is sent there: it has code, and its views say what
    /// those of a TaskBoard say.
    pub async fn check(&self) -> Result<(), Error> {
        let address = self.contract;
        let not = |reason: String| Error::NotATaskBoard { address, reason };
        let code: Bytes =
            self.client.call("eth_getCode", &(address.to_string(), At::Latest.text())).await?;
        if code.is_empty() {
            return Err(not("there is no contract".to_owned()));
        }
        let told = |error: Error| match error {
            Error::NoContract(_) => not("it answers a view of a TaskBoard with nothing".to_owned()),
            Error::Unreadable { .. } | Error::Reverted { .. } => {
                not(format!("it does not answer like one: {error}"))
            }
            other => other,
        };
        let most_gas = self
            .view("MAX_CALLBACK_GAS", &TaskBoard::MAX_CALLBACK_GASCall {})
            .await
            .map_err(told)?;
        let domains = self.domain_count().await.map_err(told)?;
        if most_gas != MAX_CALLBACK_GAS || domains == 0 {
            return Err(not("its views say other things than a TaskBoard's".to_owned()));
        }
        Ok(())
    }

    /// The event of this contract that says that a call did what it should.
    fn event<E: SolEvent>(
        &self,
        receipt: &TransactionReceipt,
        method: &'static str,
        name: &'static str,
        fits: impl Fn(&E) -> bool,
    ) -> Result<E, Error> {
        let ours = receipt.logs.iter().filter(|log| log.address.0 == self.contract.0);
        ours.filter_map(|log| E::decode_raw_log(log.topics.iter().copied(), &log.data).ok())
            .find(|event| fits(event))
            .ok_or_else(|| Error::MissingEvent {
                method,
                event: name,
                transaction: receipt.transaction(),
            })
    }

    /// Whether an account may publish in a domain.
    pub async fn is_coordinator(&self, domain: u16, account: Address) -> Result<bool, Error> {
        let account = alloy_address(account);
        self.view("isCoordinator", &TaskBoard::isCoordinatorCall { domain, account }).await
    }

    /// What the contract holds of a kept task at the head; none when it is closed, or when another task stands under
    /// its id.
    pub async fn kept(&self, task: &Identity) -> Result<Option<Kept>, Error> {
        let call = TaskBoard::keptCall { id: task.task_id.0, tag: tag(task).0 };
        let kept = self.view("kept", &call).await?;
        Ok((!kept.requester.is_zero()).then(|| Kept {
            requester: task::Hex(kept.requester.into_array()),
            fee_wei: kept.fee.to(),
            deadline_at: Some(kept.deadline.to()).filter(|at| *at != 0),
            callback_gas: kept.callbackGas,
            submitted_in: kept.submittedIn,
        }))
    }

    /// What an account can withdraw, in wei.
    pub async fn credit(&self, account: Address) -> Result<u128, Error> {
        let account = alloy_address(account);
        let credit: U256 = self.view("credit", &TaskBoard::creditCall { account }).await?;
        Ok(credit.saturating_to())
    }

    /// Whether something was published under an id, or its task has expired. Of a free task that is not yet a result:
    /// see [`find`](Self::find).
    pub async fn is_closed(&self, id: TaskId) -> Result<bool, Error> {
        self.view("isClosed", &TaskBoard::isClosedCall { id: id.0 }).await
    }

    /// How many domains there are; their indices begin at 0.
    pub async fn domain_count(&self) -> Result<u16, Error> {
        self.view("domainCount", &TaskBoard::domainCountCall {}).await
    }

    /// How many engines are registered; their ids begin at 1.
    pub async fn engine_count(&self) -> Result<u16, Error> {
        self.view("engineCount", &TaskBoard::engineCountCall {}).await
    }

    /// The block that the contract was deployed in.
    pub async fn deployment_block(&self) -> Result<u64, Error> {
        let found = self.deployment_block.get_or_try_init(|| {
            Box::pin(origin::deployment_block(&self.client, None, self.contract))
        });
        found.await.copied()
    }

    /// When a block was made, in Unix milliseconds; none when the node does not have it.
    pub async fn made_at_ms(&self, block: &BlockRef) -> Result<Option<i64>, Error> {
        let endpoint = self.client.endpoint().await?;
        let header = endpoint.header(At::Number(block.number)).await;
        self.client.report(&endpoint, &header);
        let header = header?.filter(|header| header.block().hash == block.hash);
        Ok(header.and_then(|header| header.made_at_ms()))
    }

    /// What publishing one result would cost at the most: with a document of this many bytes, or its digest alone.
    pub async fn quote(
        &self,
        id: TaskId,
        document_bytes: Option<usize>,
        callback_gas: u32,
    ) -> Result<Quote, Error> {
        quote(&self.client, id, document_bytes, callback_gas).await
    }

    async fn view<C: SolCall>(&self, method: &'static str, call: &C) -> Result<C::Return, Error> {
        let call = json!({
            "to": self.contract.to_string(), "data": hex::encode_prefixed(call.abi_encode()),
        });
        let answer: Bytes = self
            .client
            .call("eth_call", &(call, At::Latest.text()))
            .await
            .map_err(|error| revert::of_call(method, error))?;
        if answer.is_empty() {
            return Err(Error::NoContract(self.contract));
        }
        C::abi_decode_returns(&answer).map_err(|error| Error::Unreadable {
            endpoint: "the contract".to_owned(),
            method,
            reason: error.to_string(),
        })
    }

    async fn call<C: SolCall>(
        &self,
        method: &'static str,
        key: &Key,
        value: U256,
        call: &C,
    ) -> Result<TransactionReceipt, Error> {
        let to = Some(self.contract);
        send(&self.client, key, method, to, value, call.abi_encode()).await
    }
}

impl Receipt {
    fn of(receipt: &TransactionReceipt) -> Self {
        Self {
            block: receipt.block(),
            transaction: receipt.transaction(),
            gas_used: receipt.gas_used(),
        }
    }
}

impl Quote {
    /// What publishing a free task's result would cost on this chain now, without any contract.
    pub async fn of_free_task(
        client: &Client,
        document_bytes: Option<usize>,
    ) -> Result<Self, Error> {
        quote(client, TaskId::new(0, false, 1), document_bytes, 0).await
    }
}

async fn quote(
    client: &Client,
    id: TaskId,
    document_bytes: Option<usize>,
    callback_gas: u32,
) -> Result<Quote, Error> {
    let item = gas::Item {
        id: task_board::TaskId::new(id.0),
        document_bytes: document_bytes.unwrap_or_default(),
        callback_gas,
    };
    let gas = match document_bytes {
        Some(_) => gas::publish_document(&item),
        None => gas::publish(&item),
    };
    let price: U256 = client.call("eth_gasPrice", &[(); 0]).await?;
    let gas_price_wei: u128 = price.saturating_to();
    Ok(Quote { gas, gas_price_wei, cost_wei: gas_price_wei.saturating_mul(u128::from(gas)) })
}

/// Signs, sends and waits for one transaction of a client.
async fn send(
    client: &Client,
    key: &Key,
    method: &'static str,
    to: Option<Address>,
    value: U256,
    input: Vec<u8>,
) -> Result<TransactionReceipt, Error> {
    let from = key.address().to_string();
    let mut call = json!({
        "from": from, "value": format!("{value:#x}"), "data": hex::encode_prefixed(&input),
    });
    if let (Some(to), Some(fields)) = (to, call.as_object_mut()) {
        fields.insert("to".to_owned(), to.to_string().into());
    }
    let estimate: U64 = client
        .call("eth_estimateGas", &[&call])
        .await
        .map_err(|error| revert::of_call(method, error))?;
    // An estimate is exact for the state it was made on; a slot that changes meanwhile costs a little more.
    let gas_limit = estimate.to::<u64>().saturating_mul(6) / 5 + 5_000;
    let nonce: U64 = client.call("eth_getTransactionCount", &(&from, "pending")).await?;
    let endpoint = client.endpoint().await?;
    let head = endpoint.head().await;
    client.report(&endpoint, &head);
    let fees = FeeRule { tip_wei: TIP_WEI, cap_wei: None }.fees(head?.base_fee_wei());
    let to = to.map(alloy_address);
    let transaction = eip1559(client.chain_id(), nonce.to(), to, value, input, gas_limit, fees);
    let (hash, raw) = key.sign(transaction)?;
    let mut heads = client.heads();
    let waited = tokio::time::timeout(MINED_WITHIN, async {
        let mut sent = false;
        let mut pause = Duration::from_millis(5);
        loop {
            if !sent {
                let answer: Result<String, Error> =
                    client.call("eth_sendRawTransaction", &[&raw]).await;
                match answer {
                    Ok(_) => sent = true,
                    // The reply may be lost while the transaction is not: look, then send the same bytes again.
                    Err(
                        error @ (Error::Unreachable { .. }
                        | Error::Status { .. }
                        | Error::Resting { .. }),
                    ) => {
                        tracing::debug!(%error, "sending again");
                    }
                    Err(Error::Rpc { message, .. }) if is_known(&message) => sent = true,
                    Err(error) => return Err(revert::of_call(method, error)),
                }
            }
            let receipt: Result<Option<TransactionReceipt>, Error> =
                client.call("eth_getTransactionReceipt", &[hash.to_string()]).await;
            match receipt {
                Ok(Some(receipt)) => return Ok(receipt),
                Ok(None) => {}
                Err(error) if error.retry() => tracing::debug!(%error, "looking again"),
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = heads.changed() => {}
            }
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    });
    let receipt = waited
        .await
        .map_err(|_| Error::NotMined { transaction: hash, seconds: MINED_WITHIN.as_secs() })??;
    if receipt.is_success() {
        return Ok(receipt);
    }
    let replay: Result<Bytes, Error> =
        client.call("eth_call", &(call, At::Number(receipt.block().number).text())).await;
    match replay {
        Err(error) => Err(revert::of_call(method, error)),
        Ok(_) => Err(Error::Reverted {
            method,
            code: "reverted",
            message: format!("the transaction {hash} failed in block {}", receipt.block().number),
        }),
    }
}

/// How nodes say that they have a transaction already, in the pool or mined.
pub(crate) fn is_known(message: &str) -> bool {
    let message = message.to_lowercase();
    [
        "already known",
        "known transaction",
        "already imported",
        "already exists",
        "already in mempool",
    ]
    .iter()
    .any(|words| message.contains(words))
}
