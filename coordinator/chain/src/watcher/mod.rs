//! Logs become task rows and events, in one transaction with the cursor.
//!
//! Every poll is one look at one node: its newest block, the logs up to the block that the confirmations allow, and
//! proof that the node did not change its mind meanwhile. The cursor moves only onto a block whose header the same
//! node served, and never over a hole in the dense sequence of tasks. What is read twice changes nothing.

mod event;
mod reorg;
mod start;

pub(crate) use event::Published;
pub(crate) use start::deployment_block;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use store::{Board, ChainRow, RingBlock, Store};
use task::{Address, BlockRef, Hash};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    Alarm, Alarms, Client, Confirmations, Error,
    block::{At, Header, Log},
    endpoint::Endpoint,
    range::Width,
    wake,
};

/// A node keeps the state of at least this many recent blocks.
const STATE_BLOCKS: u64 = 100;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What the watcher reads.
#[derive(Debug, Clone)]
pub struct Options {
    /// The contract.
    pub contract: Address,
    /// The domains whose tasks are taken; none for all.
    pub domains: BTreeSet<u16>,
    /// How deep a block has to be before its events count; none for the chain's default.
    pub confirmations: Option<Confirmations>,
    /// The first block to read; none for the one the contract was deployed in.
    pub from_block: Option<u64>,
    /// Time between two looks when nothing wakes the watcher; none for the chain's default.
    pub poll_interval: Option<Duration>,
    /// The address that this coordinator publishes with.
    pub ours: Option<Address>,
    /// The most blocks that are asked for at once.
    pub max_range: u64,
}

impl Options {
    /// All domains of a contract, with defaults for everything else.
    #[must_use]
    pub fn new(contract: Address) -> Self {
        Self {
            contract,
            domains: BTreeSet::new(),
            confirmations: None,
            from_block: None,
            poll_interval: None,
            ours: None,
            max_range: 2_000,
        }
    }
}

/// What one look brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Where the cursor is now.
    pub cursor: BlockRef,
    /// How many events were written.
    pub events: usize,
    /// Whether there is more to read at once.
    pub more: bool,
}

/// Reads one contract.
#[derive(Debug)]
pub struct Watcher {
    client: Client,
    store: Store,
    options: Options,
    confirmations: Confirmations,
    board: Board,
    wakes: Arc<Notify>,
    alarms: Alarms,
    width: Width,
    row: ChainRow,
    /// The newest block of the last look that found nothing to read.
    idle_head: Option<Hash>,
    /// Looks in a row that found the same hole in the sequence.
    gaps: u32,
}

impl Watcher {
    /// Finds where to read on, or where to begin. `wakes` is notified after every commit that wrote events. A store
    /// that knows the chain by another genesis is refused, untouched.
    pub async fn open(
        client: Client,
        store: Store,
        options: Options,
        wakes: Arc<Notify>,
        alarms: Alarms,
    ) -> Result<Self, Error> {
        let board = Board { chain_id: client.chain_id(), contract: options.contract };
        let row = match store.chain(&board).await? {
            Some(row) if row.genesis != client.genesis() => {
                return Err(Error::WrongChain {
                    endpoint: "the endpoint".to_owned(),
                    chain_id: client.chain_id(),
                    genesis: client.genesis(),
                    wanted_id: board.chain_id,
                    wanted_genesis: row.genesis,
                });
            }
            Some(row) => row,
            None => start::begin(&client, &store, &board, options.from_block).await?,
        };
        let confirmations =
            options.confirmations.unwrap_or_else(|| Confirmations::default_for(board.chain_id));
        let width = Width::new(options.max_range);
        tracing::info!(
            contract = %options.contract, chain_id = board.chain_id, cursor = row.cursor.number,
            %confirmations, "watching the contract"
        );
        Ok(Self {
            client,
            store,
            options,
            confirmations,
            board,
            wakes,
            alarms,
            width,
            row,
            idle_head: None,
            gaps: 0,
        })
    }

    /// Where the cursor is.
    #[must_use]
    pub fn cursor(&self) -> BlockRef {
        self.row.cursor
    }

    /// Reads until it is cancelled. Errors that may heal are waited out; the others end it.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), Error> {
        let client = self.client.clone();
        tokio::select! {
            () = cancel.cancelled() => Ok(()),
            () = wake::listen(&client) => Ok(()),
            ended = self.follow() => ended,
        }
    }

    async fn follow(&mut self) -> Result<(), Error> {
        let mut heads = self.client.heads();
        let interval = self.options.poll_interval.unwrap_or(if self.client.is_development() {
            Duration::from_millis(250)
        } else {
            Duration::from_secs(2)
        });
        let mut pause = FIRST_PAUSE;
        loop {
            heads.mark_unchanged();
            match self.poll().await {
                Ok(progress) => {
                    pause = FIRST_PAUSE;
                    self.alarms.clear(Alarm::ChainUnreachable);
                    if progress.more {
                        continue;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(interval) => {}
                        _ = heads.changed() => {}
                    }
                }
                Err(Error::Moved) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) if error.retry() => {
                    match error {
                        Error::SequenceGap { .. } | Error::Lagging { .. } => {}
                        _ => self.alarms.raise(Alarm::ChainUnreachable, error.to_string()),
                    }
                    tracing::warn!(code = error.code(), "the chain was not read: {error}");
                    tokio::time::sleep(error.retry_after().unwrap_or(pause).max(FIRST_PAUSE)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks once, at one node.
    pub async fn poll(&mut self) -> Result<Progress, Error> {
        let endpoint = self.client.endpoint().await?;
        let progress = self.look(&endpoint).await;
        self.client.report(&endpoint, &progress);
        match &progress {
            Ok(progress) => {
                metrics::gauge!("wasm_exec_chain_cursor_block").set(progress.cursor.number as f64);
                self.alarms.clear(Alarm::ChainLagging);
            }
            Err(error @ Error::Lagging { .. }) => {
                self.alarms.raise(Alarm::ChainLagging, error.to_string());
            }
            Err(error) => {
                metrics::counter!("wasm_exec_chain_poll_failures_total", "code" => error.code())
                    .increment(1);
            }
        }
        progress
    }

    async fn look(&mut self, endpoint: &Endpoint) -> Result<Progress, Error> {
        let head = endpoint.head().await?;
        let cursor = self.row.cursor;
        if head.block().number < cursor.number {
            return self.look_at_shorter_chain(endpoint, &head).await;
        }
        let target = self.target(endpoint, &head).await?;
        if target <= cursor.number {
            if self.idle_head != Some(head.block().hash) {
                if endpoint.has(&cursor).await? != Some(true) {
                    return self.go_back(endpoint).await;
                }
                self.idle_head = Some(head.block().hash);
            }
            return Ok(Progress { cursor, events: 0, more: false });
        }
        let from = cursor.number + 1;
        let to = self.width.end(from, target);
        let end = match to == head.block().number {
            true => head.clone(),
            false => endpoint.header(At::Number(to)).await?.ok_or(Error::Moved)?,
        };
        let counted = head.block().number - to <= STATE_BLOCKS;
        let topics = event::topics();
        let (logs, count) =
            tokio::join!(endpoint.logs(self.board.contract, &topics, from, to), async {
                match counted {
                    true => start::task_count(endpoint, self.board.contract, to).await.map(Some),
                    false => Ok(None),
                }
            });
        let logs = match logs {
            Err(error @ Error::TooMuch { .. }) => {
                if self.width.shrink(to - from + 1) {
                    return Ok(Progress { cursor, events: 0, more: true });
                }
                return Err(error);
            }
            other => other?,
        };
        // A node that cannot count for us is not asked to; the order of the sequence still tells of a hole.
        let count = count.unwrap_or(None);
        if endpoint.has(&end.block()).await? != Some(true) {
            return Err(Error::Moved);
        }
        let continues = match to == from {
            true => end.parent() == cursor.hash,
            false => endpoint.has(&cursor).await? == Some(true),
        };
        if !continues {
            return self.go_back(endpoint).await;
        }
        let next_sequence = self.check_sequence(endpoint, &logs, count).await?;
        let events = self.commit(&logs, &end, next_sequence).await?;
        self.width.grow();
        self.client.announce_head();
        Ok(Progress { cursor: self.row.cursor, events, more: to < target })
    }

    /// The newest block that the confirmations allow.
    async fn target(&self, endpoint: &Endpoint, head: &Header) -> Result<u64, Error> {
        let at = match self.confirmations {
            Confirmations::Blocks(blocks) => {
                return Ok(head.block().number.saturating_sub(blocks.saturating_sub(1)));
            }
            Confirmations::Safe => At::Safe,
            Confirmations::Finalized => At::Finalized,
        };
        let header = endpoint.header(at).await?;
        Ok(header.map_or(0, |header| header.block().number))
    }

    /// The node's chain ends below the cursor: it is behind, or its chain forked.
    async fn look_at_shorter_chain(
        &mut self,
        endpoint: &Endpoint,
        head: &Header,
    ) -> Result<Progress, Error> {
        let ring = self.store.ring(&self.board).await?;
        let known = ring.iter().find(|known| known.block.number <= head.block().number);
        match known {
            Some(known) if endpoint.has(&known.block).await? == Some(false) => {
                self.go_back(endpoint).await
            }
            _ => Err(Error::Lagging {
                endpoint: endpoint.shown().to_owned(),
                head: head.block().number,
                cursor: self.row.cursor.number,
            }),
        }
    }

    /// Holds the logs against the dense sequence and the contract's own count; answers the next sequence.
    async fn check_sequence(
        &mut self,
        endpoint: &Endpoint,
        logs: &[Log],
        count: Option<u64>,
    ) -> Result<u64, Error> {
        let mut next = self.row.next_sequence;
        for sequence in logs.iter().filter_map(event::sequence) {
            if next != 0 && sequence > next {
                return self.gap(endpoint, next, sequence).await;
            }
            next = next.max(sequence + 1);
        }
        match count {
            Some(count) if next != 0 && count >= next => self.gap(endpoint, next, count + 1).await,
            // Nothing was known so far: the contract's count is where the sequence goes on.
            Some(count) if next == 0 => Ok(count + 1),
            _ => {
                if self.gaps > 0 {
                    tracing::info!("the missing events are here");
                    self.gaps = 0;
                    self.alarms.clear(Alarm::SequenceGap);
                }
                Ok(next)
            }
        }
    }

    /// Events are missing. The cursor stays; when reading the same blocks again did not help, it goes back to where
    /// the sequence was whole.
    async fn gap(&mut self, endpoint: &Endpoint, expected: u64, seen: u64) -> Result<u64, Error> {
        self.gaps += 1;
        let error = Error::SequenceGap { expected, seen };
        metrics::counter!("wasm_exec_chain_sequence_gaps_total").increment(1);
        tracing::warn!(endpoint = endpoint.shown(), tries = self.gaps, "{error}");
        if self.gaps >= 3 {
            self.alarms.raise(Alarm::SequenceGap, error.to_string());
        }
        if self.gaps.is_multiple_of(2) && self.row.sequence_block < self.row.cursor.number {
            let whole = At::Number(self.row.sequence_block);
            let header = endpoint.header(whole).await?.ok_or(Error::Moved)?;
            self.row.cursor = header.block();
            let ring = RingBlock { block: header.block(), parent: header.parent() };
            let mut writer = self.store.begin().await?;
            writer.cut_ring(&self.board, header.block().number).await?;
            writer.save_chain(&self.board, &self.row, Some(&ring)).await?;
            writer.commit().await?;
            tracing::warn!(
                cursor = header.block().number,
                "reading again from where the sequence was whole"
            );
        }
        Err(error)
    }

    /// Writes what was read and where the cursor is now.
    async fn commit(
        &mut self,
        logs: &[Log],
        end: &Header,
        next_sequence: u64,
    ) -> Result<usize, Error> {
        let newest =
            logs.iter().filter(|log| event::sequence(log).is_some()).filter_map(Log::block);
        let row = ChainRow {
            cursor: end.block(),
            next_sequence,
            sequence_block: newest
                .map(|block| block.number)
                .max()
                .unwrap_or(self.row.sequence_block),
            ..self.row
        };
        let now_ms = store::now_ms();
        let mut writer = self.store.begin().await?;
        let mut events = 0;
        for log in logs {
            events += self.record(&mut writer, log, now_ms).await?;
        }
        let ring = RingBlock { block: end.block(), parent: end.parent() };
        writer.save_chain(&self.board, &row, Some(&ring)).await?;
        writer.commit().await?;
        self.row = row;
        self.idle_head = None;
        if events > 0 {
            self.wakes.notify_one();
        }
        Ok(events)
    }
}
