//! The chain changed: what stood in blocks that are gone is taken back, and reading goes on from the common ancestor.
//!
//! What is read here counts as final: a change is a violation of finality, unless every reorganisation is one because
//! the newest block already counts. It is over when everything that had been final stands again, or when somebody
//! accepts that it does not.

use std::collections::{BTreeMap, BTreeSet};

use store::{Account, ChainRow, RingBlock, Sighting, SightingKind, Violation, Writer};
use task::{BlockRef, Event, Hash, publication};

use super::{Progress, Watcher, start};
use crate::{
    Alarm, Confirmations, Error,
    block::{At, Header},
    endpoint::Endpoint,
};

/// The most headers that are asked for to see a whole branch.
const MOST_LINKED: u64 = 512;

impl Watcher {
    /// Goes back to the newest block of the ring that the node still has. The block of the number `gone` was proved not
    /// to be on its chain.
    pub(super) async fn go_back(
        &mut self,
        endpoint: &Endpoint,
        gone: u64,
    ) -> Result<Progress, Error> {
        let head = endpoint.head().await?;
        // A node that does not reach the proof says nothing about what is below it.
        if head.block().number < gone {
            return Err(Error::Moved);
        }
        let ring = self.store.ring(&self.board).await?;
        let mut ancestor = None;
        for known in &ring {
            if self.stands(endpoint, &head, &known.block).await? {
                ancestor = Some(*known);
                break;
            }
        }
        let Some(ancestor) = ancestor else { return self.go_below_memory(&ring).await };
        let old = self.row.cursor;
        let new = endpoint.header(At::Number(old.number)).await?.map(|header| header.block().hash);
        let branch = self.branch(endpoint, &head, &ancestor, old.number).await?;
        let gone = self.gone(branch.as_ref(), &ancestor).await?;
        // Everything above was one node's word about one branch, or it is asked again.
        if endpoint.has(&head.block()).await? != Some(true) {
            return Err(Error::Moved);
        }
        let next_sequence = match ancestor.next_sequence {
            // A block that an earlier version wrote: the contract's count says, if the node still has that state.
            0 => start::task_count(endpoint, self.board.contract, ancestor.block.number)
                .await
                .map_or(self.first_gone(&gone).await?, |count| count + 1),
            known => known,
        };
        let row = ChainRow {
            cursor: ancestor.block,
            next_sequence,
            sequence_block: ancestor.block.number.min(self.row.sequence_block),
            second_number: ancestor.block.number.min(self.row.second_number),
            ..self.row
        };
        let events = self.take_back(&row, &ancestor, &gone).await?;
        let depth = old.number - ancestor.block.number;
        tracing::warn!(
            block = old.number, old = %old.hash, new = new.map(|hash: Hash| hash.to_string()),
            ancestor = ancestor.block.number, taken_back = events, "the chain changed"
        );
        metrics::counter!("wasm_exec_chain_reorgs_total").increment(1);
        metrics::histogram!("wasm_exec_chain_reorg_depth_blocks").record(depth as f64);
        self.row = row;
        self.idle_head = None;
        self.tell_violation().await?;
        if events > 0 {
            self.wakes.notify_one();
        }
        Ok(Progress { cursor: row.cursor, events, more: true })
    }

    /// The first sequence of the tasks that are gone: the next one before them. What is known goes on where none is.
    async fn first_gone(&self, gone: &[Sighting]) -> Result<u64, Error> {
        let mut first = self.row.next_sequence;
        for sighting in gone.iter().filter(|sighting| sighting.kind == SightingKind::Included) {
            if let Some(task) = self.store.task(sighting.task).await? {
                first = first.min(task.task.identity.task_id.sequence());
            }
        }
        Ok(first)
    }

    /// Whether a block stands on the branch of a head that the node served. A block above it does not; one below it
    /// that the node does not have is no answer.
    async fn stands(
        &self,
        endpoint: &Endpoint,
        head: &Header,
        block: &BlockRef,
    ) -> Result<bool, Error> {
        if block.number > head.block().number {
            return Ok(false);
        }
        endpoint.has(block).await?.ok_or(Error::Moved)
    }

    /// The blocks above the ancestor, up to where reading had come: each is the parent of the next, so that they are
    /// of one branch whoever of several nodes behind an address served which. None when they are too many to ask for.
    async fn branch(
        &self,
        endpoint: &Endpoint,
        head: &Header,
        ancestor: &RingBlock,
        read: u64,
    ) -> Result<Option<BTreeMap<u64, Hash>>, Error> {
        let to = read.min(head.block().number);
        if to.saturating_sub(ancestor.block.number) > MOST_LINKED {
            return Ok(None);
        }
        let mut branch = BTreeMap::new();
        let mut parent = ancestor.block.hash;
        for header in self.headers(endpoint, head, ancestor.block.number + 1, to).await? {
            if header.parent() != parent {
                return Err(Error::Moved);
            }
            let block = header.block();
            parent = block.hash;
            branch.insert(block.number, block.hash);
        }
        Ok(Some(branch))
    }

    /// What stood above the ancestor in blocks that are not on the branch. The ring has holes: a block above the
    /// ancestor may still be there. Without a branch everything is taken back, and what stands is read again.
    async fn gone(
        &self,
        branch: Option<&BTreeMap<u64, Hash>>,
        ancestor: &RingBlock,
    ) -> Result<Vec<Sighting>, Error> {
        let mut gone = self.store.sightings_above(&self.board, ancestor.block.number).await?;
        gone.retain(|Sighting { block, .. }| {
            branch.is_none_or(|branch| branch.get(&block.number) != Some(&block.hash))
        });
        Ok(gone)
    }

    async fn take_back(
        &self,
        row: &ChainRow,
        ancestor: &RingBlock,
        gone: &[Sighting],
    ) -> Result<usize, Error> {
        let now_ms = store::now_ms();
        let mut events = 0;
        let mut writer = self.store.begin().await?;
        let lost = self.lost(&mut writer, gone).await?;
        if !lost.is_empty() || !self.counts_the_newest() {
            let number = ancestor.block.number;
            writer.raise_violation(&self.board, &self.row.cursor, Some(number), now_ms).await?;
        }
        for task in lost {
            writer.lose_task(task).await?;
        }
        for sighting in gone {
            let block = sighting.block;
            let event = match sighting.kind {
                SightingKind::Included => Event::Dropped { block },
                // The publisher follows its own transactions: it says "unmined" and sends the same bytes again.
                SightingKind::Answered
                    if sighting.ours && writer.has_attempt(&sighting.transaction).await? =>
                {
                    continue;
                }
                SightingKind::Answered => Event::AnswerDropped { block },
                SightingKind::Cancelled | SightingKind::Expired => Event::Reopened,
            };
            writer.append(sighting.task, &event, now_ms).await?;
            metrics::counter!("wasm_exec_chain_events_total", "event" => event.name()).increment(1);
            events += 1;
        }
        let blocks: BTreeSet<Hash> = gone.iter().map(|sighting| sighting.block.hash).collect();
        for block in &blocks {
            self.withhold(&mut writer, block, now_ms).await?;
            writer.forget_block(&self.board, block).await?;
        }
        writer.reopen_above(&self.board, ancestor.block.number).await?;
        writer.cut_ring(&self.board, row.cursor.number).await?;
        writer.save_chain(&self.board, row, None).await?;
        writer.commit().await?;
        Ok(events)
    }

    /// Withholds what is or was to be published for the submissions of a block that is gone.
    async fn withhold(&self, writer: &mut Writer, block: &Hash, now_ms: i64) -> Result<(), Error> {
        for pending in writer.publications_in(&self.board, block).await? {
            let event = publication::Event::Dropped { block: pending.publication.included };
            writer.advance(&self.account(), &pending, &event, now_ms).await?;
        }
        Ok(())
    }

    /// Tasks that counted as final and whose submission is gone. Where the newest block counts, only a task whose
    /// result was final is one: every other one is as if it had never been read.
    async fn lost(
        &self,
        writer: &mut Writer,
        gone: &[Sighting],
    ) -> Result<Vec<task::LocalId>, Error> {
        let mut lost = Vec::new();
        for sighting in gone.iter().filter(|sighting| sighting.kind == SightingKind::Included) {
            let counts = !self.counts_the_newest()
                || writer.publication(sighting.task).await?.is_some_and(|pending| {
                    matches!(pending.standing.state, publication::State::Final { .. })
                });
            if counts {
                lost.push(sighting.task);
            }
        }
        Ok(lost)
    }

    fn counts_the_newest(&self) -> bool {
        self.confirmations == Confirmations::Blocks(1)
    }

    /// The chain forked below everything that is remembered. That stops publishing until the chain has a block that is
    /// remembered again, or until somebody accepts it: then everything is taken back and read from the beginning.
    async fn go_below_memory(&mut self, ring: &[RingBlock]) -> Result<Progress, Error> {
        let old = self.row.cursor;
        let lowest = ring.last().map_or(old.number, |known| known.block.number);
        let now_ms = store::now_ms();
        let mut writer = self.store.begin().await?;
        let accepted =
            writer.violation(&self.board).await?.is_some_and(|violation| violation.accepted);
        if !accepted {
            writer.raise_violation(&self.board, &old, None, now_ms).await?;
            writer.commit().await?;
            self.tell_violation().await?;
            return Ok(Progress { cursor: old, events: 0, more: false });
        }
        drop(writer);
        let endpoint = self.client.endpoint().await?;
        let first = start::first_row(
            &self.client,
            &self.store,
            &endpoint,
            &self.board,
            self.options.from_block,
        )
        .await;
        self.client.report(&endpoint, &first);
        let (row, ring) = first?;
        let mut writer = self.store.begin().await?;
        let mut events = 0;
        for (task, block) in writer.included_above(&self.board, row.cursor.number).await? {
            writer.append(task, &Event::Dropped { block }, now_ms).await?;
            self.withhold(&mut writer, &block.hash, now_ms).await?;
            events += 1;
        }
        writer.reopen_above(&self.board, row.cursor.number).await?;
        writer.forget_chain(&self.board).await?;
        writer.end_violation(&self.board).await?;
        writer.save_chain(&self.board, &row, Some(&ring)).await?;
        writer.commit().await?;
        tracing::warn!(
            block = old.number, old = %old.hash, lowest, from = row.cursor.number, taken_back = events,
            "the contract is read anew: the chain changed below everything that was remembered"
        );
        self.row = row;
        self.idle_head = None;
        self.tell_violation().await?;
        self.wakes.notify_one();
        Ok(Progress { cursor: row.cursor, events, more: true })
    }

    /// Ends a violation inside the transaction that reads on, once the chain is as far as it was and everything that
    /// had been final stands again.
    pub(super) async fn match_violation(
        &self,
        writer: &mut Writer,
        cursor: u64,
    ) -> Result<(), Error> {
        let is_over =
            |violation: Violation| violation.lost == 0 && cursor >= violation.block.number;
        if self.alarms.is_on(Alarm::FinalityViolated)
            && writer.violation(&self.board).await?.is_some_and(is_over)
        {
            writer.end_violation(&self.board).await?;
        }
        Ok(())
    }

    /// Raises or clears the alarm, as the database says.
    pub(super) async fn tell_violation(&self) -> Result<(), Error> {
        match self.store.violation(&self.board).await? {
            None => self.alarms.clear(Alarm::FinalityViolated),
            Some(violation) => self.alarms.raise(Alarm::FinalityViolated, say(&violation)),
        }
        Ok(())
    }

    fn account(&self) -> Account {
        Account {
            chain_id: self.board.chain_id,
            sender: self.options.ours.unwrap_or(task::Hex([0; 20])),
        }
    }
}

fn say(violation: &Violation) -> String {
    let BlockRef { number, hash } = violation.block;
    let gone = format!("block {number} ({hash}) had been final and is gone");
    match (violation.ancestor, violation.accepted) {
        (_, true) => format!("{gone}; accepted, the contract is about to be read anew"),
        (Some(ancestor), _) => format!(
            "{gone}, the branches part after block {ancestor}; {} tasks that had been final do not stand; nothing is \
             published until they do, or until `coordinator chain accept` says that this is the chain",
            violation.lost
        ),
        (None, _) => format!(
            "{gone}, and so is every block that is remembered; nothing is read or published until one is back, or until \
             `coordinator chain accept` has the contract read anew"
        ),
    }
}
