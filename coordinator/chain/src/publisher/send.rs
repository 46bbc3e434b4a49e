//! Signing, storing, sending: in this order.

use std::time::{Duration, Instant};

use alloy::primitives::U256;
use store::{Attempt, Outgoing, OutgoingState, Pending, Withdrawal, Writer};
use task::{
    BlockRef, Event as TaskEvent,
    publication::{Event, State},
};

use super::{
    Publisher,
    plan::{Bounds, Plan},
    refusal::Refusal,
};
use crate::{
    Alarm, Class, Error,
    block::{Header, alloy_address},
    endpoint::Endpoint,
    transaction::{FeeRule, Fees, eip1559},
};

/// The watcher's cursor is the best anchor while it is this close to the head.
const CLOSE_BLOCKS: u64 = 64;
/// An anchor this old is replaced before the contract refuses it (256 blocks).
const OLD_BLOCKS: u64 = 224;
const FIRST_UNFUNDED: Duration = Duration::from_secs(2);
const LONGEST_UNFUNDED: Duration = Duration::from_secs(60);
/// How long a node's minimum price is remembered; then a lower one is tried again.
const MINIMUM_FOR: Duration = Duration::from_secs(600);

impl Publisher {
    /// Signs and sends transactions while publications are ready and there is room.
    pub(super) async fn send_ready(
        &mut self,
        endpoint: &Endpoint,
        head: &Header,
    ) -> Result<bool, Error> {
        let queued = self.store.queued_count(&self.board).await?;
        metrics::gauge!("wasm_exec_chain_publications_queued").set(queued as f64);
        if self.is_unfunded() || self.is_stopped {
            return Ok(false);
        }
        let contract = &self.board.contract;
        if queued == 0 && self.store.queued_withdrawal(&self.account, contract).await?.is_none() {
            return Ok(false);
        }
        let Some(anchor) = self.anchor(endpoint, head).await? else { return Ok(false) };
        Box::pin(self.check_kept(head)).await?;
        let unsettled = self.store.unsettled(&self.account).await?;
        let open =
            unsettled.iter().filter(|outgoing| outgoing.state == OutgoingState::Open).count();
        let mut sent = false;
        for _ in open..self.options.max_in_flight.max(1) {
            let Some(outgoing) = self.prepare(&anchor, head.base_fee_wei()).await? else { break };
            self.broadcast(endpoint, &outgoing).await?;
            sent = true;
            if self.is_unfunded() {
                break;
            }
        }
        Ok(sent)
    }

    /// Signs the next transaction of the queue and stores it with everything that follows from it. Nothing is sent.
    pub(super) async fn prepare(
        &mut self,
        anchor: &BlockRef,
        base_fee_wei: u128,
    ) -> Result<Option<Outgoing>, Error> {
        let mut writer = self.store.begin().await?;
        if writer.violation(&self.board).await?.is_some() {
            return Ok(None);
        }
        let Some(plan) = self.next_plan(&mut writer, anchor).await? else { return Ok(None) };
        let nonce = writer.free_nonce(&self.account, self.first_nonce).await?;
        let fees = self.fee_rule().fees(base_fee_wei);
        let outgoing = self.sign(&mut writer, nonce, &plan, anchor, fees).await?;
        writer.commit().await?;
        self.wakes.notify_one();
        Ok(Some(outgoing))
    }

    /// Signs what is queued, or a transfer of nothing, for a nonce of which nothing is left.
    pub(super) async fn fill(
        &mut self,
        nonce: u64,
        anchor: &BlockRef,
        head: &Header,
    ) -> Result<Option<Outgoing>, Error> {
        let mut writer = self.store.begin().await?;
        if writer.violation(&self.board).await?.is_some() {
            return Ok(None);
        }
        let plan = self.plan_of_queue(&mut writer, anchor).await?;
        let fees = self.fee_rule().fees(head.base_fee_wei());
        let outgoing = self.sign(&mut writer, nonce, &plan, anchor, fees).await?;
        writer.commit().await?;
        self.wakes.notify_one();
        Ok(Some(outgoing))
    }

    /// Replaces a nonce's transaction: by what it holds and is still wanted, else by what is queued, else by a
    /// transfer of nothing. Answers the nonce with its new bytes; none when the fee cap forbids it, or when nothing
    /// may be published.
    pub(super) async fn replace(
        &mut self,
        outgoing: &Outgoing,
        anchor: &BlockRef,
        base_fee_wei: u128,
    ) -> Result<Option<Outgoing>, Error> {
        let before =
            outgoing.attempts.iter().fold(Fees { max_wei: 0, tip_wei: 0 }, |most, attempt| Fees {
                max_wei: most.max_wei.max(attempt.max_fee_wei),
                tip_wei: most.tip_wei.max(attempt.priority_fee_wei),
            });
        // What no node took is not replaced by a higher price: there is nothing to outbid.
        let fees = match self.memory.refused.contains(&outgoing.nonce) {
            true => Some(self.fee_rule().fees(base_fee_wei).at_least(before)),
            false => self.fee_rule().raised(before, base_fee_wei),
        };
        let Some(fees) = fees else {
            self.alarms.raise(
                Alarm::FeeCapReached,
                format!(
                    "nonce {} needs more than the fee cap of {:?} wei",
                    outgoing.nonce, self.options.max_fee_wei
                ),
            );
            return Ok(None);
        };
        let mut writer = self.store.begin().await?;
        if writer.violation(&self.board).await?.is_some() {
            return Ok(None);
        }
        let mut wanted = writer.held_by(&self.account, outgoing.nonce).await?;
        wanted.retain(|pending| {
            matches!(pending.standing.state, State::Sent { .. })
                && pending.publication.included.number <= anchor.number
        });
        let mut withdrawals = writer.withdrawals_held_by(&self.account, outgoing.nonce).await?;
        withdrawals.retain(Withdrawal::is_waiting);
        let plan = if !wanted.is_empty() {
            Plan::of_queue(&wanted, anchor, &self.bounds())
        } else if let Some(withdrawal) = withdrawals.first() {
            Some(Plan::of_withdrawal(withdrawal.clone()))
        } else {
            Some(self.plan_of_queue(&mut writer, anchor).await?)
        };
        let Some(plan) = plan else { return Ok(None) };
        let freed = Event::Freed { nonce: outgoing.nonce };
        for withdrawal in withdrawals.iter().filter(|held| plan.withdrawal.as_ref() != Some(*held))
        {
            writer.advance_withdrawal(withdrawal, &freed, None).await?;
        }
        // What does not fit beside the first, because it came back to this nonce later, waits for another one.
        for pending in wanted.iter().filter(|held| !plan.items.contains(held)) {
            writer.advance(&self.account, pending, &freed, store::now_ms()).await?;
        }
        let replaced = self.sign(&mut writer, outgoing.nonce, &plan, anchor, fees).await?;
        writer.commit().await?;
        self.wakes.notify_one();
        metrics::counter!("wasm_exec_chain_replacements_total").increment(1);
        tracing::info!(
            nonce = outgoing.nonce,
            max_fee_wei = fees.max_wei,
            tip_wei = fees.tip_wei,
            anchor = anchor.number,
            "signed again at the same nonce"
        );
        Ok(Some(replaced))
    }

    /// What is queued, or a transfer of nothing.
    async fn plan_of_queue(&self, writer: &mut Writer, anchor: &BlockRef) -> Result<Plan, Error> {
        let plan = self.next_plan(writer, anchor).await?;
        Ok(plan.unwrap_or_else(|| Plan::of(Vec::new(), anchor, self.engine)))
    }

    /// What is queued. Whether anything may be published is asked before, inside the transaction that signs: what the
    /// watcher has written meanwhile counts.
    async fn next_plan(
        &self,
        writer: &mut Writer,
        anchor: &BlockRef,
    ) -> Result<Option<Plan>, Error> {
        // There is at most one for each recipient: results do not wait long behind them.
        let contract = &self.board.contract;
        if let Some(withdrawal) = writer.queued_withdrawal(&self.account, contract).await? {
            return Ok(Some(Plan::of_withdrawal(withdrawal)));
        }
        let limit = u32::try_from(self.options.max_batch.saturating_mul(4)).unwrap_or(u32::MAX);
        let mut queue = writer.queued(&self.board, limit).await?;
        queue.retain(|pending| self.may_go(pending));
        Ok(Plan::of_queue(&queue, anchor, &self.bounds()))
    }

    async fn sign(
        &self,
        writer: &mut Writer,
        nonce: u64,
        plan: &Plan,
        anchor: &BlockRef,
        fees: Fees,
    ) -> Result<Outgoing, Error> {
        let now_ms = store::now_ms();
        let to = match plan.call.is_empty() {
            true => self.account.sender,
            false => self.board.contract,
        };
        let transaction = eip1559(
            self.board.chain_id,
            nonce,
            Some(alloy_address(to)),
            U256::ZERO,
            plan.call.clone(),
            plan.gas_limit,
            fees,
        );
        let (hash, raw) = self.key.sign(transaction)?;
        let attempt = Attempt {
            hash,
            raw,
            max_fee_wei: fees.max_wei,
            priority_fee_wei: fees.tip_wei,
            signed_at_ms: now_ms,
        };
        let outgoing = Outgoing {
            nonce,
            contract: self.board.contract,
            state: OutgoingState::Open,
            call: plan.call_text(),
            gas_limit: plan.gas_limit,
            anchor: *anchor,
            mined: None,
            attempts: vec![attempt.clone()],
        };
        writer.sign(&self.account, &outgoing, &attempt, now_ms).await?;
        for pending @ Pending { publication, .. } in &plan.items {
            writer.advance(&self.account, pending, &Event::Signed { nonce }, now_ms).await?;
            let event = TaskEvent::Sent { transaction: hash, nonce };
            writer.append(publication.task, &event, now_ms).await?;
        }
        if let Some(withdrawal) = &plan.withdrawal {
            writer.advance_withdrawal(withdrawal, &Event::Signed { nonce }, None).await?;
        } else {
            metrics::histogram!("wasm_exec_chain_batch_items").record(plan.items.len() as f64);
        }
        Ok(outgoing)
    }

    /// Sends a nonce's newest bytes. What a node says to bytes that are stored is no failure of this step.
    pub(super) async fn broadcast(
        &mut self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
    ) -> Result<(), Error> {
        let Some(attempt) = outgoing.attempts.last() else { return Ok(()) };
        let nonce = outgoing.nonce;
        self.memory.sent_at.insert(nonce, Instant::now());
        let answer: Result<String, Error> =
            endpoint.call("eth_sendRawTransaction", &[&attempt.raw]).await;
        let message = match answer {
            Ok(_) => {
                metrics::counter!("wasm_exec_chain_broadcasts_total").increment(1);
                self.taken(nonce, attempt.priority_fee_wei);
                return Ok(());
            }
            // What is about the transaction in a known way counts, whatever code it comes with; anything else may be a
            // quota or a node that is not at work.
            Err(Error::Rpc { message, .. }) if Refusal::of(&message) != Refusal::Other => message,
            Err(error) if error.class() == Class::Elsewhere => {
                self.memory.sent_at.remove(&nonce);
                return Err(error);
            }
            Err(Error::Rpc { message, .. }) => message,
            // Whether it arrived is not known: the same bytes are sent again soon.
            Err(error) => {
                self.memory.sent_at.remove(&nonce);
                return Err(error);
            }
        };
        match Refusal::of(&message) {
            Refusal::Known => self.taken(nonce, attempt.priority_fee_wei),
            Refusal::NonceUsed => {
                tracing::info!(nonce, "the nonce is used: looking whose transaction it is");
            }
            Refusal::Unfunded => self.unfunded(&message),
            refusal @ (Refusal::Cheap | Refusal::BelowMinimum) => {
                tracing::info!(nonce, words = %message, "the node finds the transaction too cheap");
                self.memory.cheap.insert(nonce);
                if refusal == Refusal::BelowMinimum {
                    self.memory.outbids.insert(nonce);
                }
            }
            Refusal::Other => {
                metrics::counter!("wasm_exec_chain_broadcast_refusals_total").increment(1);
                self.memory.refused.insert(nonce);
                self.alarms.raise(
                    Alarm::TransactionRefused,
                    format!("the node refuses the transaction of nonce {nonce}, not for its price: {message}"),
                );
            }
        }
        Ok(())
    }

    /// A node has the bytes of a nonce.
    fn taken(&mut self, nonce: u64, tip_wei: u128) {
        self.funded();
        self.memory.refused.remove(&nonce);
        if self.memory.refused.is_empty() {
            self.alarms.clear(Alarm::TransactionRefused);
        }
        // What a node takes after it found less too little is its minimum: the next one begins there.
        if self.memory.outbids.remove(&nonce) {
            self.memory.minimum = Some((tip_wei, Instant::now()));
        }
    }

    /// What transactions pay, with what the node was found to ask at least.
    fn fee_rule(&self) -> FeeRule {
        let minimum = self.memory.minimum.filter(|(_, since)| since.elapsed() < MINIMUM_FOR);
        let tip_wei = minimum.map_or(0, |(tip_wei, _)| tip_wei).max(self.fees.tip_wei);
        FeeRule { tip_wei, ..self.fees }
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            engine: self.engine,
            items: self.options.max_batch,
            gas: self.options.max_batch_gas,
        }
    }

    /// Whether a queued publication may be signed now: its domain is ours to answer, and the contract takes it.
    fn may_go(&self, pending: &Pending) -> bool {
        let id = pending.publication.identity.task_id;
        !self.memory.no_rights.contains_key(&id.domain())
            && (!id.is_kept() || self.memory.kept.takes(pending.publication.task))
    }

    /// The newest block that every task which can be published descends to: the watcher's cursor, or the head when
    /// the cursor is far behind it. None while the node is behind the watcher.
    pub(super) async fn anchor(
        &self,
        endpoint: &Endpoint,
        head: &Header,
    ) -> Result<Option<BlockRef>, Error> {
        let Some(row) = self.store.chain(&self.board).await? else { return Ok(None) };
        let (cursor, head) = (row.cursor, head.block());
        let Some(behind) = head.number.checked_sub(cursor.number) else { return Ok(None) };
        if behind <= CLOSE_BLOCKS {
            // An anchor that is gone would be paid for in vain.
            let stands = head.hash == cursor.hash || endpoint.has(&cursor).await? == Some(true);
            return Ok(stands.then_some(cursor));
        }
        // The head descends from the cursor if both are on the chain that the node serves at one moment.
        let descends =
            endpoint.has(&cursor).await? == Some(true) && endpoint.has(&head).await? == Some(true);
        Ok(descends.then_some(head))
    }

    /// Whether the contract would refuse the anchor now: it is gone, or too old.
    pub(super) async fn is_stale(
        &self,
        endpoint: &Endpoint,
        anchor: &BlockRef,
        head: &Header,
    ) -> Result<bool, Error> {
        let Some(age) = head.block().number.checked_sub(anchor.number) else { return Ok(false) };
        Ok(age >= OLD_BLOCKS || endpoint.has(anchor).await? == Some(false))
    }

    pub(super) fn is_unfunded(&self) -> bool {
        self.memory.unfunded.is_some_and(|(until, _)| Instant::now() < until)
    }

    fn unfunded(&mut self, message: &str) {
        let pause = self
            .memory
            .unfunded
            .map_or(FIRST_UNFUNDED, |(_, pause)| (pause * 2).min(LONGEST_UNFUNDED));
        self.memory.unfunded = Some((Instant::now() + pause, pause));
        let address = self.account.sender;
        self.alarms.raise(
            Alarm::PublisherUnfunded,
            format!("publishing is paused until {address} has money again: {message}"),
        );
    }

    fn funded(&mut self) {
        if self.memory.unfunded.take().is_some() {
            self.alarms.clear(Alarm::PublisherUnfunded);
        }
    }
}
