//! The chain changed: what stood in blocks that are gone is taken back, and reading goes on from the common ancestor.

use std::collections::BTreeMap;

use store::{ChainRow, RingBlock, Sighting, SightingKind};
use task::{BlockRef, Event, Hash};

use super::{Progress, Watcher, start};
use crate::{Error, block::At, endpoint::Endpoint};

impl Watcher {
    /// Goes back to the newest block of the ring that the node still has.
    pub(super) async fn go_back(&mut self, endpoint: &Endpoint) -> Result<Progress, Error> {
        let ring = self.store.ring(&self.board).await?;
        let mut ancestor = None;
        for known in &ring {
            if endpoint.has(&known.block).await? == Some(true) {
                ancestor = Some(*known);
                break;
            }
        }
        let lowest = ring.last().map_or(0, |known| known.block.number);
        let ancestor = ancestor.ok_or(Error::ReorgTooDeep { lowest })?;
        let old = self.row.cursor;
        let new = endpoint.header(At::Number(old.number)).await?.map(|header| header.block().hash);
        let gone = self.gone(endpoint, &ancestor).await?;
        let row = ChainRow {
            cursor: ancestor.block,
            next_sequence: start::task_count(endpoint, self.board.contract, ancestor.block.number)
                .await
                .map_or(0, |count| count + 1),
            sequence_block: ancestor.block.number.min(self.row.sequence_block),
            ..self.row
        };
        let events = self.take_back(&row, &gone).await?;
        let depth = old.number - ancestor.block.number;
        tracing::warn!(
            block = old.number, old = %old.hash, new = new.map(|hash: Hash| hash.to_string()),
            ancestor = ancestor.block.number, taken_back = events, "the chain changed"
        );
        metrics::counter!("wasm_exec_chain_reorgs_total").increment(1);
        metrics::histogram!("wasm_exec_chain_reorg_depth_blocks").record(depth as f64);
        self.row = row;
        self.idle_head = None;
        if events > 0 {
            self.wakes.notify_one();
        }
        Ok(Progress { cursor: row.cursor, events, more: true })
    }

    /// What stood above the ancestor in blocks that the node does not have. The ring has holes: a block above the
    /// ancestor may still be there.
    async fn gone(
        &self,
        endpoint: &Endpoint,
        ancestor: &RingBlock,
    ) -> Result<Vec<Sighting>, Error> {
        let mut there: BTreeMap<u64, Option<Hash>> = BTreeMap::new();
        let mut gone = Vec::new();
        for sighting in self.store.sightings_above(&self.board, ancestor.block.number).await? {
            let BlockRef { number, hash } = sighting.block;
            let now = match there.get(&number) {
                Some(now) => *now,
                None => {
                    let header = endpoint.header(At::Number(number)).await?;
                    let now = header.map(|header| header.block().hash);
                    there.insert(number, now);
                    now
                }
            };
            if now != Some(hash) {
                gone.push(sighting);
            }
        }
        Ok(gone)
    }

    async fn take_back(&self, row: &ChainRow, gone: &[Sighting]) -> Result<usize, Error> {
        let now_ms = store::now_ms();
        let mut events = 0;
        let mut writer = self.store.begin().await?;
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
                SightingKind::Cancelled | SightingKind::Expired => continue,
            };
            writer.append(sighting.task, &event, now_ms).await?;
            metrics::counter!("wasm_exec_chain_events_total", "event" => event.name()).increment(1);
            events += 1;
        }
        for sighting in gone {
            writer.withhold(&self.board, &sighting.block.hash).await?;
            writer.reopen(&self.board, &sighting.block.hash).await?;
            writer.forget_block(&self.board, &sighting.block.hash).await?;
        }
        writer.cut_ring(&self.board, row.cursor.number).await?;
        writer.save_chain(&self.board, row, None).await?;
        writer.commit().await?;
        Ok(events)
    }
}
