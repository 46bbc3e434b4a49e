//! What became of what was sent.

use std::time::{Duration, Instant};

use store::{Board, Mined, Outgoing, OutgoingState, PendingState};
use task::{BlockRef, Event, TaskId};

use super::{Publisher, receipt::Verdict};
use crate::{
    Alarm, Confirmations, Error,
    block::{At, Header, TransactionReceipt},
    board::Board as Contract,
    endpoint::Endpoint,
};

/// How long the chain has to count a nonce as used, without a receipt of ours, until it is somebody else's.
const TAKEN_AFTER: Duration = Duration::from_secs(2);
/// A node is asked about a nonce's count only when its transaction is not mined at once.
const PATIENCE: Duration = Duration::from_millis(500);

impl Publisher {
    /// Looks at every nonce that is not settled.
    pub(super) async fn observe(
        &mut self,
        endpoint: &Endpoint,
        head: &Header,
    ) -> Result<bool, Error> {
        let unsettled = self.store.unsettled(&self.account).await?;
        if unsettled.is_empty() {
            self.alarms.clear(Alarm::FeeCapReached);
            metrics::gauge!("wasm_exec_chain_transactions_unsettled").set(0.0);
            return Ok(false);
        }
        metrics::gauge!("wasm_exec_chain_transactions_unsettled").set(unsettled.len() as f64);
        let new_head = self.memory.checked_at != Some(head.block().hash);
        let final_number = self.final_number(endpoint, head, &unsettled).await?;
        let mut count = None;
        let mut progress = false;
        for outgoing in &unsettled {
            progress |= match outgoing.mined {
                Some(mined) => {
                    self.check_mined(endpoint, outgoing, &mined, new_head, final_number).await?
                }
                None => {
                    self.check_open(endpoint, outgoing, head, new_head, final_number, &mut count)
                        .await?
                }
            };
        }
        self.memory.checked_at = Some(head.block().hash);
        Ok(progress)
    }

    /// The newest block that is final.
    async fn final_number(
        &self,
        endpoint: &Endpoint,
        head: &Header,
        unsettled: &[Outgoing],
    ) -> Result<u64, Error> {
        let at = match self.confirmations {
            Confirmations::Blocks(blocks) => {
                return Ok(head.block().number.saturating_sub(blocks.saturating_sub(1)));
            }
            // Only what is mined can be final.
            _ if unsettled.iter().all(|outgoing| outgoing.mined.is_none()) => return Ok(0),
            Confirmations::Safe => At::Safe,
            Confirmations::Finalized => At::Finalized,
        };
        Ok(endpoint.header(at).await?.map_or(0, |header| header.block().number))
    }

    async fn check_open(
        &mut self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
        head: &Header,
        new_head: bool,
        final_number: u64,
        count: &mut Option<u64>,
    ) -> Result<bool, Error> {
        let nonce = outgoing.nonce;
        if let Some(receipt) = self.find_receipt(endpoint, outgoing).await? {
            self.record_mined(endpoint, outgoing, &receipt).await?;
            let mined = Mined { transaction: receipt.transaction(), block: receipt.block() };
            if mined.block.number <= final_number {
                self.settle(outgoing, &mined).await?;
            }
            return Ok(true);
        }
        let sent_at = self.memory.sent_at.get(&nonce).copied();
        if sent_at.is_none_or(|at| at.elapsed() > PATIENCE) {
            let mined = match *count {
                Some(count) => count,
                None => *count.insert(endpoint.nonce(&self.account.sender).await?),
            };
            if mined > nonce {
                return self.check_used(endpoint, outgoing, mined).await;
            }
            self.memory.used_since.remove(&nonce);
        }
        if self.is_unfunded() {
            return Ok(false);
        }
        // Without money a higher price helps nobody, and what was signed for another contract is not ours to change.
        let may_replace =
            self.memory.unfunded.is_none() && outgoing.contract == self.board.contract;
        if may_replace && new_head && self.is_stale(endpoint, &outgoing.anchor, head).await? {
            return self.send_replacement(endpoint, outgoing, head).await;
        }
        let signed_at_ms = outgoing.attempts.last().map_or(0, |attempt| attempt.signed_at_ms);
        let age_ms = u128::try_from(store::now_ms() - signed_at_ms).unwrap_or_default();
        let is_late = age_ms >= self.options.resubmit_after.as_millis();
        if may_replace
            && (is_late || self.memory.cheap.remove(&nonce))
            && self.send_replacement(endpoint, outgoing, head).await?
        {
            return Ok(true);
        }
        if sent_at.is_none_or(|at| at.elapsed() >= self.options.rebroadcast_after) {
            self.broadcast(endpoint, outgoing).await?;
            return Ok(sent_at.is_none());
        }
        Ok(false)
    }

    async fn send_replacement(
        &mut self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
        head: &Header,
    ) -> Result<bool, Error> {
        let Some(anchor) = self.anchor(endpoint, head).await? else { return Ok(false) };
        let Some(replaced) = self.replace(outgoing, &anchor, head.base_fee_wei()).await? else {
            return Ok(false);
        };
        self.broadcast(endpoint, &replaced).await?;
        Ok(true)
    }

    /// The receipt of whichever transaction of a nonce was mined.
    async fn find_receipt(
        &self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
    ) -> Result<Option<TransactionReceipt>, Error> {
        for attempt in outgoing.attempts.iter().rev() {
            if let Some(receipt) = endpoint.receipt(&attempt.hash).await? {
                return Ok(Some(receipt));
            }
        }
        Ok(None)
    }

    /// The chain counts the nonce as used, but no transaction of ours is found: soon it is somebody else's.
    async fn check_used(
        &mut self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
        count: u64,
    ) -> Result<bool, Error> {
        let nonce = outgoing.nonce;
        let since = *self.memory.used_since.entry(nonce).or_insert_with(Instant::now);
        if since.elapsed() < TAKEN_AFTER || self.find_receipt(endpoint, outgoing).await?.is_some() {
            return Ok(false);
        }
        tracing::error!(nonce, "somebody else uses the publisher's key: its nonce is taken");
        metrics::counter!("wasm_exec_chain_nonces_taken_total").increment(1);
        let contract = Contract::new(self.client.clone(), outgoing.contract);
        let mut writer = self.store.begin().await?;
        let held = writer.held_by(&self.account, nonce).await?;
        drop(writer);
        let mut closed = Vec::new();
        for pending in &held {
            if contract.is_closed(pending.publication.identity.task_id).await? {
                closed.push(pending.publication.task);
            }
        }
        let now_ms = store::now_ms();
        writer = self.store.begin().await?;
        for pending in writer.held_by(&self.account, nonce).await? {
            let task = pending.publication.task;
            if pending.state != PendingState::Sent {
                continue;
            }
            if closed.contains(&task) {
                writer.settle(task, PendingState::Settled, None).await?;
                let message = "the task is closed by somebody else's transaction".to_owned();
                let event = Event::Refused { code: "already_closed".to_owned(), message };
                writer.append(task, &event, now_ms).await?;
            } else {
                writer.requeue(task, false).await?;
            }
        }
        writer.mark_nonce(&self.account, nonce, OutgoingState::Taken, None).await?;
        writer.commit().await?;
        self.first_nonce = self.first_nonce.max(count);
        self.forget(nonce);
        self.wakes.notify_one();
        Ok(true)
    }

    /// Looks whether a mined transaction is still mined, and whether it is final.
    async fn check_mined(
        &mut self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
        mined: &Mined,
        new_head: bool,
        final_number: u64,
    ) -> Result<bool, Error> {
        if !new_head && mined.block.number > final_number {
            return Ok(false);
        }
        match endpoint.has(&mined.block).await? {
            Some(true) if mined.block.number <= final_number => self.settle(outgoing, mined).await,
            // A node that does not reach that far yet says nothing about it.
            Some(true) | None => Ok(false),
            Some(false) => match self.find_receipt(endpoint, outgoing).await? {
                Some(receipt) => {
                    self.record_mined(endpoint, outgoing, &receipt).await?;
                    Ok(true)
                }
                None => {
                    self.reopen(endpoint, outgoing, &mined.block).await?;
                    Ok(true)
                }
            },
        }
    }

    /// Writes a receipt's news: which results stand on chain now, and what becomes of those that do not.
    async fn record_mined(
        &mut self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
        receipt: &TransactionReceipt,
    ) -> Result<(), Error> {
        let (transaction, block) = (receipt.transaction(), receipt.block());
        let verdict = Verdict::of(endpoint, &self.account, outgoing, receipt).await?;
        let now_ms = store::now_ms();
        let board = Board { chain_id: self.board.chain_id, contract: outgoing.contract };
        let mut writer = self.store.begin().await?;
        for (id, digest) in &verdict.published {
            let known = writer.publications_with_id(&board, TaskId(*id)).await?;
            let same = known.iter().filter(|pending| pending.publication.digest == *digest);
            let Some(pending) = same.max_by_key(|pending| pending.state != PendingState::Withheld)
            else {
                continue;
            };
            let task = pending.publication.task;
            writer.assign(task, &self.account, outgoing.nonce).await?;
            writer.settle(task, PendingState::Mined, None).await?;
            writer.append(task, &Event::Mined { transaction, block }, now_ms).await?;
        }
        for pending in writer.held_by(&self.account, outgoing.nonce).await? {
            let id = pending.publication.identity.task_id.0;
            let task = pending.publication.task;
            if pending.state != PendingState::Sent {
                continue;
            }
            let refusal = verdict.refusal(id, pending.tries);
            tracing::warn!(
                task.id = id, nonce = outgoing.nonce, %transaction, code = refusal.reason.code,
                again = refusal.again, "a result was not taken: {}", refusal.reason.message
            );
            metrics::counter!("wasm_exec_chain_results_not_taken_total", "code" => refusal.reason.code)
                .increment(1);
            if refusal.again {
                writer.requeue(task, refusal.counts).await?;
            } else {
                let reason = (refusal.reason.code, refusal.reason.message.as_str());
                writer.settle(task, PendingState::Refused, Some(reason)).await?;
            }
        }
        let mined = Mined { transaction, block };
        writer
            .mark_nonce(&self.account, outgoing.nonce, OutgoingState::Mined, Some(&mined))
            .await?;
        writer.commit().await?;
        self.forget(outgoing.nonce);
        self.wakes.notify_one();
        let outcome = if receipt.is_success() { "success" } else { "reverted" };
        metrics::counter!("wasm_exec_chain_transactions_mined_total", "outcome" => outcome)
            .increment(1);
        Ok(())
    }

    /// A mined transaction is as deep as the confirmations ask.
    async fn settle(&mut self, outgoing: &Outgoing, mined: &Mined) -> Result<bool, Error> {
        let now_ms = store::now_ms();
        let mut writer = self.store.begin().await?;
        let held = writer.held_by(&self.account, outgoing.nonce).await?;
        // A refusal is told after the watcher has been past the block: it may have seen whose result was first.
        let cursor = writer.chain(&self.board).await?.map_or(0, |row| row.cursor.number);
        let mut waits = false;
        let mut told = false;
        for pending in held {
            let task = pending.publication.task;
            let event = match (pending.state, pending.refusal) {
                (PendingState::Mined, _) => Event::Finalized,
                (PendingState::Refused, _) if cursor < mined.block.number => {
                    waits = true;
                    continue;
                }
                (PendingState::Refused, Some((code, message))) => Event::Refused { code, message },
                _ => continue,
            };
            writer.settle(task, PendingState::Settled, None).await?;
            writer.append(task, &event, now_ms).await?;
            told = true;
        }
        if !waits {
            let state = OutgoingState::Final;
            writer.mark_nonce(&self.account, outgoing.nonce, state, Some(mined)).await?;
        }
        writer.commit().await?;
        self.wakes.notify_one();
        Ok(told || !waits)
    }

    /// The block of a mined transaction is gone and the transaction is in no other: its bytes are sent again.
    async fn reopen(
        &mut self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
        gone: &BlockRef,
    ) -> Result<(), Error> {
        let now_ms = store::now_ms();
        let mut writer = self.store.begin().await?;
        for pending in writer.held_by(&self.account, outgoing.nonce).await? {
            let task = pending.publication.task;
            match pending.state {
                PendingState::Mined | PendingState::Settled => {
                    writer.append(task, &Event::Unmined, now_ms).await?;
                    writer.assign(task, &self.account, outgoing.nonce).await?;
                }
                PendingState::Refused => writer.assign(task, &self.account, outgoing.nonce).await?,
                PendingState::Queued | PendingState::Sent | PendingState::Withheld => {}
            }
        }
        writer.mark_nonce(&self.account, outgoing.nonce, OutgoingState::Open, None).await?;
        writer.commit().await?;
        self.wakes.notify_one();
        tracing::warn!(nonce = outgoing.nonce, block = gone.number, old = %gone.hash, "a mined transaction is gone");
        metrics::counter!("wasm_exec_chain_transactions_unmined_total").increment(1);
        self.broadcast(endpoint, outgoing).await
    }

    fn forget(&mut self, nonce: u64) {
        self.memory.sent_at.remove(&nonce);
        self.memory.cheap.remove(&nonce);
        self.memory.used_since.remove(&nonce);
    }
}
