//! What became of what was sent.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use store::{Board, Mined, Outgoing, OutgoingState, Pending};
use task::{
    BlockRef, LocalId,
    publication::{Event, Place, State},
};

use super::{
    Publisher,
    receipt::{Verdict, is_of},
};
use crate::{
    Alarm, Confirmations, Error, Found,
    block::{At, Header, TransactionReceipt},
    board::Board as Contract,
    endpoint::Endpoint,
};

/// How long the chain has to count a nonce as used, without a receipt of ours, until it is somebody else's.
const TAKEN_AFTER: Duration = Duration::from_secs(2);
/// A node is asked about a nonce's count only when its transaction is not mined at once.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many answers may be missing in one look at all nonces.
const MOST_FAILURES: u32 = 4;

impl Publisher {
    /// Looks at every nonce that is not settled. Answers whether anything happened, and what the endpoint failed with
    /// at some of them: one answer that is missing holds up neither the other nonces nor what is to be sent.
    pub(super) async fn observe(
        &mut self,
        endpoint: &Endpoint,
        head: &Header,
    ) -> Result<(bool, Option<Error>), Error> {
        let unsettled = self.store.unsettled(&self.account).await?;
        metrics::gauge!("wasm_exec_chain_transactions_unsettled").set(unsettled.len() as f64);
        let Some(lowest) = unsettled.first().map(|outgoing| outgoing.nonce) else {
            self.alarms.clear(Alarm::FeeCapReached);
            self.alarms.clear(Alarm::TransactionRefused);
            return Ok((false, None));
        };
        let new_head = self.memory.checked_at != Some(head.block().hash);
        let cursor = self.store.chain(&self.board).await?.map_or(0, |row| row.cursor.number);
        let final_number = self.final_number(endpoint, head, &unsettled).await?.min(cursor);
        let mut count = None;
        let mut progress = false;
        let mut failed = None;
        let mut failures = 0;
        for outgoing in &unsettled {
            let began_at = Instant::now();
            let checked = match outgoing.mined {
                Some(mined) => {
                    self.check_mined(endpoint, outgoing, &mined, new_head, final_number).await
                }
                None => {
                    self.check_open(endpoint, outgoing, head, new_head, final_number, &mut count)
                        .await
                }
            };
            match checked {
                Ok(happened) => progress |= happened,
                Err(error) if error.is_endpoints() => {
                    failures += 1;
                    // An endpoint that is away, or that lets everybody wait, is not asked on.
                    if failures == MOST_FAILURES || began_at.elapsed() > PATIENCE {
                        return Err(error);
                    }
                    failed = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(count) = count
            && count < lowest
            && head.block().number >= cursor
        {
            progress |= self.close_gap(endpoint, head, count, lowest).await?;
        }
        // What was not seen is looked at again at this head.
        if failed.is_none() {
            self.memory.checked_at = Some(head.block().hash);
        }
        Ok((progress, failed))
    }

    /// The chain counts nonces as unused that are below the lowest one we follow: the block of one that was settled is
    /// gone. Everything behind it waits until it is used again.
    async fn close_gap(
        &mut self,
        endpoint: &Endpoint,
        head: &Header,
        count: u64,
        lowest: u64,
    ) -> Result<bool, Error> {
        let mut writer = self.store.begin().await?;
        let reopened = writer.reopen_unused(&self.account, count).await?;
        writer.commit().await?;
        if reopened > 0 {
            tracing::warn!(count, lowest, reopened, "nonces that were settled are unused again");
            return Ok(true);
        }
        let since = *self.memory.gap_since.get_or_insert_with(Instant::now);
        if since.elapsed() < TAKEN_AFTER || self.is_stopped {
            return Ok(false);
        }
        // Nothing is left of what was signed for it: a transfer of nothing, or what is queued, uses it up.
        self.memory.gap_since = None;
        let Some(anchor) = self.anchor(endpoint, head).await? else { return Ok(false) };
        tracing::warn!(nonce = count, "a nonce that was forgotten is unused again and is filled");
        let Some(filled) = self.fill(count, &anchor, head).await? else { return Ok(false) };
        self.broadcast(endpoint, &filled).await?;
        Ok(true)
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
        if self.is_unfunded() || self.is_stopped {
            return Ok(false);
        }
        // Without money a higher price helps nobody, and what was signed for another contract is not ours to change.
        let may_replace =
            self.memory.unfunded.is_none() && outgoing.contract == self.board.contract;
        if may_replace && new_head && self.is_stale(endpoint, &outgoing.anchor, head).await? {
            return self.send_replacement(endpoint, outgoing, head).await;
        }
        // What was signed for a submission that is gone does not go out again.
        if self.holds_withheld(outgoing).await? {
            return match may_replace {
                true => self.send_replacement(endpoint, outgoing, head).await,
                false => Ok(false),
            };
        }
        let signed_at_ms = outgoing.attempts.last().map_or(0, |attempt| attempt.signed_at_ms);
        let age_ms = u128::try_from(store::now_ms() - signed_at_ms).unwrap_or_default();
        // A higher price helps only what a node holds or finds too cheap.
        let is_late = age_ms >= self.options.resubmit_after.as_millis()
            && !self.memory.refused.contains(&nonce);
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
        self.memory.key_used_at = Some(Instant::now());
        self.alarms.raise(
            Alarm::KeyUsedElsewhere,
            format!(
                "somebody else signs with the key of {}: nonce {nonce} was taken by a transaction that is not in the \
                 outbox; give this coordinator a key of its own",
                self.account.sender
            ),
        );
        metrics::counter!("wasm_exec_chain_nonces_taken_total").increment(1);
        let now_ms = store::now_ms();
        let mut writer = self.store.begin().await?;
        for pending in writer.held_by(&self.account, nonce).await? {
            writer.advance(&self.account, &pending, &Event::Freed { nonce }, now_ms).await?;
        }
        self.tell_withdrawals(&mut writer, nonce, &Event::Freed { nonce }).await?;
        writer.mark_nonce(&self.account, nonce, OutgoingState::Taken, None).await?;
        writer.commit().await?;
        self.first_nonce = self.first_nonce.max(count);
        self.forget(nonce);
        self.wakes.notify_one();
        Ok(true)
    }

    /// Whether the newest bytes of a nonce hold something whose submission is gone.
    async fn holds_withheld(&self, outgoing: &Outgoing) -> Result<bool, Error> {
        let held = self.store.held_by(&self.account, outgoing.nonce).await?;
        Ok(outgoing.call != "0x"
            && held.iter().any(|pending| matches!(pending.standing.state, State::Withheld { .. })))
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
            Some(true) => {
                // A submission that came back may have its result there: the receipt tells.
                if self.holds_unread(outgoing).await?
                    && let Some(receipt) = self.find_receipt(endpoint, outgoing).await?
                {
                    self.record_mined(endpoint, outgoing, &receipt).await?;
                    return Ok(true);
                }
                if mined.block.number <= final_number {
                    self.settle(outgoing, mined).await
                } else {
                    Ok(false)
                }
            }
            // A node that does not reach that far yet says nothing about it.
            None => Ok(false),
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

    /// Whether a mined nonce holds something of which it is not known what the receipt says.
    async fn holds_unread(&self, outgoing: &Outgoing) -> Result<bool, Error> {
        let held = self.store.held_by(&self.account, outgoing.nonce).await?;
        Ok(held.iter().any(|pending| matches!(pending.standing.state, State::Sent { .. })))
    }

    /// Writes a receipt's news: which results stand on chain now, and what becomes of those that do not.
    async fn record_mined(
        &mut self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
        receipt: &TransactionReceipt,
    ) -> Result<(), Error> {
        let (transaction, block) = (receipt.transaction(), receipt.block());
        let place = Place { nonce: outgoing.nonce, transaction, block };
        let verdict = Verdict::of(endpoint, &self.account, outgoing, receipt).await?;
        let now_ms = store::now_ms();
        let board = Board { chain_id: self.board.chain_id, contract: outgoing.contract };
        let strangers = Box::pin(self.closed_by_strangers(outgoing, &verdict)).await?;
        let mut writer = self.store.begin().await?;
        for log in &verdict.published {
            let known = writer.publications_with_id(&board, log.id).await?;
            for pending in known.iter().filter(|known| is_of(log, &known.publication)) {
                writer.advance(&self.account, pending, &Event::Mined { place }, now_ms).await?;
            }
        }
        for pending in writer.held_by(&self.account, outgoing.nonce).await? {
            let id = pending.publication.identity.task_id.0;
            if verdict.holds(&pending.publication) {
                continue;
            }
            let strange = strangers.contains(&pending.publication.task);
            let refusal = verdict.refusal(id, pending.standing.tries);
            tracing::warn!(
                task.id = id, nonce = outgoing.nonce, %transaction, code = refusal.reason.code,
                again = refusal.again, error = refusal.reason.message, "a result was not taken"
            );
            metrics::counter!("wasm_exec_chain_results_not_taken_total", "code" => refusal.reason.code)
                .increment(1);
            if refusal.reason.code == "not_coordinator" {
                self.memory
                    .no_rights
                    .entry(pending.publication.identity.task_id.domain())
                    .or_default();
            }
            let event = refusal.event(place, strange);
            writer.advance(&self.account, &pending, &event, now_ms).await?;
        }
        self.record_withdrawals(&mut writer, &verdict, place).await?;
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

    /// Tasks whose id is closed although nothing on chain is their result: somebody published for another task under
    /// the same id. Of a kept task the contract knows better.
    async fn closed_by_strangers(
        &self,
        outgoing: &Outgoing,
        verdict: &Verdict,
    ) -> Result<BTreeSet<LocalId>, Error> {
        let held = self.store.held_by(&self.account, outgoing.nonce).await?;
        let contract = Contract::new(self.client.clone(), outgoing.contract);
        let mut strangers = BTreeSet::new();
        for Pending { publication, .. } in held {
            let id = publication.identity.task_id;
            if id.is_kept() || !verdict.says_closed(id.0) {
                continue;
            }
            // Boxed: a search is a large future, and it is rare.
            let found = Box::pin(contract.find(id, Some(publication.included.number))).await?;
            if let Found::Open { submission, strange } = found
                && submission.identity == publication.identity
            {
                tracing::error!(
                    task.id = %id, strange,
                    "the task's id was closed by a publication that does not belong to it: its result is published again"
                );
                metrics::counter!("wasm_exec_chain_ids_closed_by_strangers_total").increment(1);
                strangers.insert(publication.task);
            }
        }
        Ok(strangers)
    }

    /// A mined transaction is as deep as the confirmations ask, and the watcher has been past its block: a
    /// reorganisation that takes it back will be noticed.
    async fn settle(&mut self, outgoing: &Outgoing, mined: &Mined) -> Result<bool, Error> {
        let now_ms = store::now_ms();
        let mut writer = self.store.begin().await?;
        let event = Event::Deep { nonce: outgoing.nonce };
        for pending in writer.held_by(&self.account, outgoing.nonce).await? {
            writer.advance(&self.account, &pending, &event, now_ms).await?;
        }
        self.tell_withdrawals(&mut writer, outgoing.nonce, &event).await?;
        let state = OutgoingState::Final;
        writer.mark_nonce(&self.account, outgoing.nonce, state, Some(mined)).await?;
        writer.commit().await?;
        self.wakes.notify_one();
        Ok(true)
    }

    /// The block of a mined transaction is gone and the transaction is in no other: its bytes are sent again, if what
    /// they hold still stands.
    async fn reopen(
        &mut self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
        gone: &BlockRef,
    ) -> Result<(), Error> {
        let now_ms = store::now_ms();
        let mut writer = self.store.begin().await?;
        let event = Event::Unmined { nonce: outgoing.nonce };
        for pending in writer.held_by(&self.account, outgoing.nonce).await? {
            writer.advance(&self.account, &pending, &event, now_ms).await?;
        }
        self.tell_withdrawals(&mut writer, outgoing.nonce, &event).await?;
        writer.mark_nonce(&self.account, outgoing.nonce, OutgoingState::Open, None).await?;
        writer.commit().await?;
        self.wakes.notify_one();
        tracing::warn!(nonce = outgoing.nonce, block = gone.number, old = %gone.hash, "a mined transaction is gone");
        metrics::counter!("wasm_exec_chain_transactions_unmined_total").increment(1);
        if self.is_stopped || self.holds_withheld(outgoing).await? {
            return Ok(());
        }
        self.broadcast(endpoint, outgoing).await
    }

    fn forget(&mut self, nonce: u64) {
        self.memory.sent_at.remove(&nonce);
        self.memory.cheap.remove(&nonce);
        self.memory.used_since.remove(&nonce);
        self.memory.refused.remove(&nonce);
    }
}
