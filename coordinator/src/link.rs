//! The daemon's link with the chain: it is opened for as long as that takes, while everything else is at work already.

use std::{sync::Arc, time::Duration};

use chain::{
    Alarm, Alarms, Client, ClientOptions, Confirmations, Endpoints, publisher::Publisher,
    watcher::Watcher,
};
use store::Store;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{config, lifecycle::Lifecycle, pipeline::Wakes, price::Prices, telemetry::causes};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// What a node says against the configuration is believed when it says so again: it may be behind.
const TRIES: u32 = 3;

/// What the link is opened with.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) chain: config::Chain,
    pub(crate) contract: task::Address,
    /// Name of the engine that results come from.
    pub(crate) engine: String,
    pub(crate) store: Store,
    pub(crate) wakes: Wakes,
    pub(crate) alarms: Alarms,
    /// Told when there is a chain to ask.
    pub(crate) prices: Prices,
}

/// Watcher and, where there is a key, publisher.
struct Opened {
    watcher: Watcher,
    publisher: Option<Publisher>,
}

/// How the first try to open the link went.
#[derive(Debug)]
pub(crate) enum First {
    /// Everything is at work.
    Open,
    /// The chain cannot be reached yet; it is tried on.
    Waits,
    /// The configuration does not fit the chain. Nothing heals that.
    Refused(chain::Error),
}

impl Link {
    /// Starts the part that opens the link and then watches and publishes. What its first try brought is answered once.
    pub(crate) fn start(self, lifecycle: &Lifecycle) -> oneshot::Receiver<First> {
        let (tell, first) = oneshot::channel();
        let unknown = "the chain has not been read since the start";
        self.alarms.begin(Alarm::ChainUnreachable, unknown);
        let (parts, soft) = (lifecycle.clone(), lifecycle.soft());
        lifecycle.spawn("chain", async move {
            tokio::select! {
                opened = self.open_at_last(Some(tell), &soft) => {
                    if let Some(Opened { watcher, publisher }) = opened? {
                        if let Some(publisher) = publisher {
                            parts.spawn("publisher", publisher.run(soft.clone()));
                        }
                        parts.spawn("watcher", watcher.run(soft.clone()));
                    }
                    soft.cancelled().await;
                }
                () = soft.cancelled() => {}
            }
            Ok::<_, chain::Error>(())
        });
        first
    }

    /// Opens the link, however long the chain cannot be reached. None when the start was told that it cannot be.
    async fn open_at_last(
        &self,
        mut tell: Option<oneshot::Sender<First>>,
        soft: &CancellationToken,
    ) -> Result<Option<Opened>, chain::Error> {
        let mut client = None;
        let mut pause = FIRST_PAUSE;
        let mut refusals = 0;
        while !soft.is_cancelled() {
            match self.open(&mut client).await {
                Ok(opened) => {
                    say(&mut tell, First::Open);
                    return Ok(Some(opened));
                }
                Err(error) if error.retry() || (error.passes() && self.knows_contract().await) => {
                    tracing::warn!(error = %causes(&error), "cannot reach the chain yet");
                    self.alarms.begin(Alarm::ChainUnreachable, error.to_string());
                    say(&mut tell, First::Waits);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => {
                    refusals += 1;
                    if refusals < TRIES && is_about_the_contract(&error) {
                        tokio::time::sleep(FIRST_PAUSE).await;
                        continue;
                    }
                    return match tell.take() {
                        None => Err(error),
                        Some(tell) => {
                            let _ = tell.send(First::Refused(error));
                            Ok(None)
                        }
                    };
                }
            }
        }
        Ok(None)
    }

    /// Whether the contract was read before, by an earlier start.
    async fn knows_contract(&self) -> bool {
        self.store.chains_of(&self.contract).await.is_ok_and(|chains| !chains.is_empty())
    }

    async fn open(&self, client: &mut Option<Client>) -> Result<Opened, chain::Error> {
        let client = match client {
            Some(client) => client.clone(),
            None => client.insert(self.connect().await?).clone(),
        };
        self.prices.begin(client.clone(), self.contract);
        let confirmations = self
            .chain
            .confirmations
            .unwrap_or_else(|| Confirmations::default_for(client.chain_id()));
        let publisher = match &self.chain.key {
            None => None,
            Some(key) => Some(self.publisher(client.clone(), key.clone(), confirmations).await?),
        };
        // Tasks that this key may not answer are not run either.
        let domains = match &publisher {
            Some(publisher) => publisher.domains().clone(),
            None => self.chain.domains.clone(),
        };
        let options = chain::watcher::Options {
            domains,
            confirmations: Some(confirmations),
            from_block: self.chain.from_block,
            poll_interval: self.chain.poll_interval,
            ours: self.chain.key.as_ref().map(chain::Key::address),
            ..chain::watcher::Options::new(self.contract)
        };
        let watcher = Watcher::open(
            client,
            self.store.clone(),
            options,
            Arc::clone(&self.wakes.pipeline),
            self.alarms.clone(),
        );
        Ok(Opened { watcher: watcher.await?, publisher })
    }

    /// Connects to the chain that the store knows the contract on, if it knows it on one.
    async fn connect(&self) -> Result<Client, chain::Error> {
        let endpoints = Endpoints::parse(&self.chain.endpoint_list())?;
        let known = self.store.chains_of(&self.contract).await?;
        let known = match known.as_slice() {
            [one] => Some(*one),
            _ => None,
        };
        let client = Client::connect_to(&endpoints, ClientOptions::default(), known).await?;
        // Endpoints that are only needed later are looked at now: an operator hears of it in time.
        client.endpoints();
        tracing::info!(
            chain.id = client.chain_id(),
            contract = %self.contract,
            publisher = self.chain.key.as_ref().map(|key| tracing::field::display(key.address())),
            "connected to the chain"
        );
        Ok(client)
    }

    async fn publisher(
        &self,
        client: Client,
        key: chain::Key,
        confirmations: Confirmations,
    ) -> Result<Publisher, chain::Error> {
        let chain = &self.chain;
        let options = chain::publisher::Options {
            domains: chain.domains.clone(),
            confirmations: Some(confirmations),
            poll_interval: chain.poll_interval,
            tip_wei: chain.tip_wei_per_gas,
            max_fee_wei: Some(chain.max_fee_wei_per_gas),
            resubmit_after: chain.resubmit_after,
            rights_grace: chain.rights_grace,
            ..chain::publisher::Options::new(self.contract, self.engine.clone())
        };
        Publisher::open(
            client,
            self.store.clone(),
            key,
            options,
            Arc::clone(&self.wakes.publisher),
            Arc::clone(&self.wakes.pipeline),
            self.alarms.clone(),
        )
        .await
    }
}

/// Tells once; nobody may be waiting for it any more.
fn say(tell: &mut Option<oneshot::Sender<First>>, first: First) {
    if let Some(tell) = tell.take() {
        let _ = tell.send(first);
    }
}

/// Whether it is said of the contract's state, which a node that is behind does not have yet.
fn is_about_the_contract(error: &chain::Error) -> bool {
    matches!(
        error,
        chain::Error::NoContract(_)
            | chain::Error::NotCoordinator { .. }
            | chain::Error::EngineNotRegistered(_)
            | chain::Error::AnchorsDiffer { .. }
    )
}
