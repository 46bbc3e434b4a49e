//! Publications become transactions.
//!
//! Intent, signed bytes and the tasks' events are stored in one transaction before anything is sent, and what is sent
//! is always what is stored: a restart sends the same bytes again and signs nothing anew. A nonce's fate is read from
//! the chain by every hash that was ever signed for it. What is ready goes out together, nothing waits to fill a batch.

mod earnings;
mod kept;
mod observe;
mod plan;
mod probe;
mod receipt;
mod refusal;
mod rights;
mod send;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use store::{Account, Board, Store};
use task::{Address, Hash};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    Alarm, Alarms, Client, Confirmations, Error, Key, board::Board as Contract, endpoint::Endpoint,
    origin, transaction::FeeRule,
};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const FIRST_GLANCE: Duration = Duration::from_millis(1);
/// Some provider of several may be well again sooner than the one that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How results are published.
#[derive(Debug, Clone)]
pub struct Options {
    /// The contract.
    pub contract: Address,
    /// Name of the engine that the results come from.
    pub engine: String,
    /// The domains that must be allowed; none for all there are, of which one must be.
    pub domains: BTreeSet<u16>,
    /// When a publication is final; none for the chain's default.
    pub confirmations: Option<Confirmations>,
    /// Time between two looks when nothing wakes the publisher; none for the chain's default.
    pub poll_interval: Option<Duration>,
    /// The tip for a unit of gas, in wei.
    pub tip_wei: u128,
    /// The most that a unit of gas may ever cost, in wei.
    pub max_fee_wei: Option<u128>,
    /// After this time a transaction that is not mined is replaced by one that pays more.
    pub resubmit_after: Duration,
    /// After this time the bytes of a transaction that is not mined are sent again.
    pub rebroadcast_after: Duration,
    /// The most transactions that are not mined.
    pub max_in_flight: usize,
    /// The most results in one transaction.
    pub max_batch: usize,
    /// The most gas of one transaction.
    pub max_batch_gas: u64,
    /// How long results of a domain wait whose right was withdrawn, until they are given up.
    pub rights_grace: Duration,
}

impl Options {
    /// Defaults for everything but the contract and the engine.
    #[must_use]
    pub fn new(contract: Address, engine: impl Into<String>) -> Self {
        Self {
            contract,
            engine: engine.into(),
            domains: BTreeSet::new(),
            confirmations: None,
            poll_interval: None,
            tip_wei: 1_000_000_000,
            max_fee_wei: None,
            resubmit_after: Duration::from_secs(60),
            rebroadcast_after: Duration::from_secs(10),
            max_in_flight: 4,
            max_batch: 100,
            max_batch_gas: 8_000_000,
            rights_grace: Duration::from_secs(3_600),
        }
    }
}

/// Publishes with one key on one contract.
#[derive(Debug)]
pub struct Publisher {
    client: Client,
    store: Store,
    key: Key,
    options: Options,
    confirmations: Confirmations,
    board: Board,
    account: Account,
    engine: u16,
    fees: FeeRule,
    /// No nonce below this one is free, by the chain's count.
    first_nonce: u64,
    queued: Arc<Notify>,
    wakes: Arc<Notify>,
    alarms: Alarms,
    memory: Memory,
    /// The chain took back what was final: nothing is signed or sent.
    is_stopped: bool,
}

/// What need not survive: at worst bytes are sent once more.
#[derive(Debug, Default)]
struct Memory {
    /// When the newest bytes of a nonce were sent.
    sent_at: BTreeMap<u64, Instant>,
    /// Nonces whose transaction a node finds too cheap.
    cheap: BTreeSet<u64>,
    /// Nonces that the chain counts as used while none of our transactions is found, and since when.
    used_since: BTreeMap<u64, Instant>,
    /// The head at which anchors and mined blocks were last checked.
    checked_at: Option<Hash>,
    /// Since when the chain counts a nonce as unused that we know nothing of.
    gap_since: Option<Instant>,
    /// Nonces whose transaction a node refuses for another reason than its price.
    refused: BTreeSet<u64>,
    /// Nonces whose transaction was below a node's minimum and is raised until the node takes it.
    outbids: BTreeSet<u64>,
    /// The tip, in wei, that a node was found to ask at least, and since when that is known.
    minimum: Option<(u128, Instant)>,
    /// Queued results of kept tasks, and what the contract said of them.
    kept: kept::Kept,
    /// Domains whose right was found withdrawn.
    no_rights: BTreeMap<u16, rights::Wait>,
    /// When the credit was last read.
    earnings_read_at: Option<Instant>,
    /// When somebody else was last found to use the key.
    key_used_at: Option<Instant>,
    /// Until when nothing is sent because the account cannot pay, and the pause after that.
    unfunded: Option<(Instant, Duration)>,
}

impl Publisher {
    /// Checks that the key may publish and that the engine is registered, and finds the first free nonce. `queued`
    /// wakes the publisher, which notifies `wakes` after every commit that wrote events.
    pub async fn open(
        client: Client,
        store: Store,
        key: Key,
        options: Options,
        queued: Arc<Notify>,
        wakes: Arc<Notify>,
        alarms: Alarms,
    ) -> Result<Self, Error> {
        let board = Board { chain_id: client.chain_id(), contract: options.contract };
        let contract = Contract::new(client.clone(), options.contract);
        let domains = rights(&contract, &key, &options.domains).await?;
        let engine = Box::pin(origin::engine_id(&contract, Some(&store), &options.engine))
            .await?
            .ok_or_else(|| Error::EngineNotRegistered(options.engine.clone()))?;
        let endpoint = client.endpoint().await?;
        let nonce = endpoint.nonce(&key.address()).await;
        client.report(&endpoint, &nonce);
        let first_nonce = nonce?;
        let confirmations =
            options.confirmations.unwrap_or_else(|| Confirmations::default_for(board.chain_id));
        let publisher = Self {
            account: Account { chain_id: board.chain_id, sender: key.address() },
            fees: FeeRule { tip_wei: options.tip_wei, cap_wei: options.max_fee_wei },
            client,
            store,
            key,
            options: Options { domains, ..options },
            confirmations,
            board,
            engine,
            first_nonce,
            queued,
            wakes,
            alarms,
            memory: Memory::default(),
            is_stopped: false,
        };
        let probed = Box::pin(publisher.probe_anchors(&endpoint)).await;
        publisher.client.report(&endpoint, &probed);
        probed?;
        tracing::info!(
            publisher = %publisher.account.sender, contract = %publisher.options.contract, engine, first_nonce,
            %confirmations, domains = ?publisher.options.domains, "publishing results"
        );
        Ok(publisher)
    }

    /// The domains that this publisher may answer, as it was opened.
    #[must_use]
    pub fn domains(&self) -> &BTreeSet<u16> {
        &self.options.domains
    }

    /// Publishes until it is cancelled. Errors that may heal are waited out; the others end it.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), Error> {
        let mut heads = self.client.heads();
        let queued = Arc::clone(&self.queued);
        let interval = self.options.poll_interval.unwrap_or(if self.client.is_development() {
            Duration::from_millis(250)
        } else {
            Duration::from_secs(2)
        });
        let mut pause = FIRST_PAUSE;
        let mut glance = FIRST_GLANCE;
        while !cancel.is_cancelled() {
            heads.mark_unchanged();
            let wait = match self.step().await {
                Ok(progress) => {
                    pause = FIRST_PAUSE;
                    self.alarms.clear(Alarm::PublisherUnreachable);
                    if progress {
                        glance = FIRST_GLANCE;
                        continue;
                    }
                    // A development chain mines at once, a moment after it took the transaction.
                    glance = (glance * 2).min(interval);
                    let hurries = self.client.is_development() && !self.memory.sent_at.is_empty();
                    if hurries { glance } else { interval }
                }
                Err(error) if error.passes() => {
                    self.alarms.raise(Alarm::PublisherUnreachable, error.to_string());
                    tracing::warn!(
                        code = error.code(),
                        %error,
                        "the publisher did not get through"
                    );
                    let wait = error.retry_after().unwrap_or(pause).max(FIRST_PAUSE);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
                () = queued.notified() => {}
                _ = heads.changed() => {}
            }
        }
        Ok(())
    }

    /// Looks what became of what was sent, then sends what is ready. Answers whether anything happened.
    pub async fn step(&mut self) -> Result<bool, Error> {
        let endpoint = self.client.endpoint().await?;
        let done = self.step_at(&endpoint).await;
        self.client.report(&endpoint, &done);
        done
    }

    async fn step_at(&mut self, endpoint: &Endpoint) -> Result<bool, Error> {
        let head = endpoint.head().await?;
        self.is_stopped = self.store.violation(&self.board).await?.is_some();
        Box::pin(self.check_rights()).await?;
        let (seen, failed) = Box::pin(self.observe(endpoint, &head)).await?;
        let sent = self.send_ready(endpoint, &head).await?;
        self.read_earnings(&head).await?;
        failed.map_or(Ok(seen || sent), Err)
    }
}

/// The domains that the key may answer: all of those that are asked for, or those there are, at least one.
async fn rights(
    contract: &Contract,
    key: &Key,
    asked: &BTreeSet<u16>,
) -> Result<BTreeSet<u16>, Error> {
    let address = key.address();
    for domain in asked {
        if !contract.is_coordinator(*domain, address).await? {
            return Err(Error::NotCoordinator { domain: *domain, address });
        }
    }
    if !asked.is_empty() {
        return Ok(asked.clone());
    }
    let mut allowed = BTreeSet::new();
    for domain in 0..contract.domain_count().await? {
        if contract.is_coordinator(domain, address).await? {
            allowed.insert(domain);
        }
    }
    match allowed.is_empty() {
        true => Err(Error::NotCoordinator { domain: 0, address }),
        false => Ok(allowed),
    }
}
