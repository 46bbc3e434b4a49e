//! Logs become task rows and events, in one transaction with the cursor.
//!
//! Every poll is one look at one endpoint: its newest block, and the logs up to the block that the confirmations allow.
//! The cursor moves only onto a block that descends from it, and never over a hole in the dense sequence of tasks; where
//! nobody can count, the block up to which the sequence is proved is kept, and read from again when a hole shows. What
//! is read twice changes nothing, and everything is.

mod event;
mod look;
mod reorg;
mod second;
mod sequence;
mod start;

pub(crate) use event::Published;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sequence::Sequence;
use store::{Board, ChainRow, RingBlock, Store};
use task::{Address, BlockRef, Hash};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    Alarm, Alarms, Class, Client, Confirmations, Error,
    block::{Header, Log},
    range::Width,
    wake,
};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Between two looks at an endpoint whose nodes differ.
const MOVED_PAUSE: Duration = Duration::from_millis(20);
/// So many looks in a row that did not fit together, then another endpoint is asked.
const MOST_MOVES: u32 = 20;
/// Looks that fail for so long are an alarm: one that fails is none while another node answers.
const TROUBLE_AFTER: Duration = Duration::from_secs(3);
/// An answer that takes longer is slow.
const SLOW: Duration = Duration::from_secs(3);

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
    /// Time until a block is looked at a second time, at the least; none for the chain's default.
    pub second_look_after: Option<Duration>,
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
            second_look_after: None,
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
    /// The next block that is read again because something is missing.
    again_from: Option<u64>,
    second_width: Width,
    /// How many of the newest blocks are read in one look.
    near: u64,
    /// When the next range is looked at a second time, and up to which block.
    second_at: Instant,
    second_limit: u64,
    /// Whether the filters in headers tell of all logs.
    blooms: bool,
    /// Looks in a row that failed on a range of logs, and that did not fit together.
    log_failures: u32,
    moves: u32,
    /// Since when no look was good.
    trouble_since: Option<Instant>,
    /// When an endpoint was last told to contradict itself.
    told_at: Mutex<Option<Instant>>,
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
        let width = Width::careful(options.max_range);
        let second_limit = row.cursor.number;
        let watcher = Self {
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
            again_from: None,
            second_width: width,
            near: look::NEAR,
            second_at: Instant::now(),
            second_limit,
            blooms: true,
            log_failures: 0,
            moves: 0,
            trouble_since: None,
            told_at: Mutex::default(),
        };
        watcher.tell_violation().await?;
        tracing::info!(
            contract = %watcher.options.contract, chain_id = board.chain_id, cursor = row.cursor.number,
            %confirmations, "watching the contract"
        );
        Ok(watcher)
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
                    if progress.more {
                        continue;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(interval) => {}
                        _ = heads.changed() => {}
                    }
                }
                Err(Error::Moved) => tokio::time::sleep(MOVED_PAUSE).await,
                Err(error) if error.passes() => {
                    tracing::warn!(code = error.code(), %error, "the chain was not read");
                    // What one endpoint did keeps nobody from asking the next one.
                    let wait = match error.class() {
                        Class::Elsewhere | Class::SmallerRange | Class::Here => {
                            self.client.rests_for().max(MOVED_PAUSE)
                        }
                        Class::Never => pause,
                    };
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    tokio::time::sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks once, at one endpoint.
    pub async fn poll(&mut self) -> Result<Progress, Error> {
        if self.alarms.is_on(Alarm::FinalityViolated) {
            self.tell_violation().await?;
        }
        let progress = match self.client.endpoint().await {
            Ok(endpoint) => {
                // Boxed: it is large, and whoever polls need not hold it.
                let looked = Box::pin(self.look(&endpoint)).await;
                let progress = self.steady(looked, endpoint.shown());
                self.client.report(&endpoint, &progress);
                progress
            }
            Err(error) => Err(error),
        };
        match &progress {
            Ok(progress) => {
                metrics::gauge!("wasm_exec_chain_cursor_block").set(progress.cursor.number as f64);
                self.trouble_since = None;
                self.alarms.clear(Alarm::ChainUnreachable);
                self.alarms.clear(Alarm::ChainLagging);
            }
            Err(error) => {
                metrics::counter!("wasm_exec_chain_poll_failures_total", "code" => error.code())
                    .increment(1);
                self.tell_trouble(error);
            }
        }
        progress
    }

    /// Counts looks that did not fit together: an endpoint that never shows one chain is left for another.
    fn steady(
        &mut self,
        progress: Result<Progress, Error>,
        endpoint: &str,
    ) -> Result<Progress, Error> {
        if !matches!(progress, Err(Error::Moved)) {
            self.moves = 0;
            return progress;
        }
        self.moves += 1;
        if self.moves < MOST_MOVES {
            return progress;
        }
        self.moves = 0;
        let what = "its answers do not belong to one chain".to_owned();
        let block = self.row.cursor.number;
        Err(Error::Inconsistent { endpoint: endpoint.to_owned(), block, what })
    }

    /// Looks that fail for a while are an alarm, by what they fail with.
    fn tell_trouble(&mut self, error: &Error) {
        let alarm = match error {
            // A hole has an alarm of its own.
            Error::Moved | Error::SequenceGap { .. } => return,
            Error::Lagging { .. } => Alarm::ChainLagging,
            Error::Inconsistent { .. } => Alarm::ProviderInconsistent,
            _ => Alarm::ChainUnreachable,
        };
        let since = *self.trouble_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= TROUBLE_AFTER {
            self.alarms.raise(alarm, error.to_string());
        }
        if alarm == Alarm::ProviderInconsistent {
            *self.told_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// Writes what was read and where the cursor is now.
    async fn commit(
        &mut self,
        logs: &[Log],
        end: &Header,
        sequence: Sequence,
    ) -> Result<usize, Error> {
        let row = ChainRow {
            cursor: end.block(),
            next_sequence: sequence.next,
            sequence_block: sequence.whole,
            ..self.row
        };
        let now_ms = store::now_ms();
        let mut writer = self.store.begin().await?;
        let mut events = 0;
        let others = self.of_others(&mut writer, logs).await?;
        for log in logs {
            if event::id_of(log).is_none_or(|id| !others.contains(&id)) {
                events += self.record(&mut writer, log, now_ms).await?;
            }
        }
        let ring =
            RingBlock { block: end.block(), parent: end.parent(), next_sequence: sequence.next };
        writer.save_chain(&self.board, &row, Some(&ring)).await?;
        self.match_violation(&mut writer, row.cursor.number).await?;
        writer.commit().await?;
        self.row = row;
        self.idle_head = None;
        if events > 0 {
            self.wakes.notify_one();
        }
        Ok(events)
    }
}
