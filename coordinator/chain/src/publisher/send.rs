//! Signing, storing, sending: in this order.

use std::time::{Duration, Instant};

use alloy::primitives::U256;
use store::{Attempt, Outgoing, OutgoingState, Pending, PendingState, Writer};
use task::{BlockRef, Event};

use super::{
    Publisher,
    plan::{Bounds, Plan},
};
use crate::{
    Alarm, Error,
    block::{Header, alloy_address},
    board::is_known,
    endpoint::Endpoint,
    transaction::{Fees, eip1559},
};

/// The watcher's cursor is the best anchor while it is this close to the head.
const CLOSE_BLOCKS: u64 = 64;
/// An anchor this old is replaced before the contract refuses it (256 blocks).
const OLD_BLOCKS: u64 = 224;
const FIRST_UNFUNDED: Duration = Duration::from_secs(2);
const LONGEST_UNFUNDED: Duration = Duration::from_secs(60);

impl Publisher {
    /// Signs and sends transactions while publications are ready and there is room.
    pub(super) async fn send_ready(
        &mut self,
        endpoint: &Endpoint,
        head: &Header,
    ) -> Result<bool, Error> {
        let queued = self.store.queued_count(&self.board).await?;
        metrics::gauge!("wasm_exec_chain_publications_queued").set(queued as f64);
        if queued == 0 || self.is_unfunded() {
            return Ok(false);
        }
        let Some(anchor) = self.anchor(endpoint, head).await? else { return Ok(false) };
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
        let Some(plan) = self.next_plan(&mut writer, anchor).await? else { return Ok(None) };
        let nonce = writer.free_nonce(&self.account, self.first_nonce).await?;
        let fees = self.fees.fees(base_fee_wei);
        let outgoing = self.sign(&mut writer, nonce, &plan, anchor, fees).await?;
        writer.commit().await?;
        self.wakes.notify_one();
        Ok(Some(outgoing))
    }

    /// Replaces a nonce's transaction: by what it holds and is still wanted, else by what is queued, else by a
    /// transfer of nothing. Answers the nonce with its new bytes; none when the fee cap forbids it.
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
        let Some(fees) = self.fees.raised(before, base_fee_wei) else {
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
        let mut wanted = writer.held_by(&self.account, outgoing.nonce).await?;
        wanted.retain(|pending| pending.state == PendingState::Sent);
        let plan = if wanted.is_empty() {
            self.next_plan(&mut writer, anchor)
                .await?
                .unwrap_or_else(|| Plan::of(Vec::new(), anchor, self.engine))
        } else {
            Plan::of(wanted, anchor, self.engine)
        };
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

    async fn next_plan(
        &self,
        writer: &mut Writer,
        anchor: &BlockRef,
    ) -> Result<Option<Plan>, Error> {
        let limit = u32::try_from(self.options.max_batch.saturating_mul(4)).unwrap_or(u32::MAX);
        let queue = writer.queued(&self.board, limit).await?;
        let bounds = Bounds {
            engine: self.engine,
            items: self.options.max_batch,
            gas: self.options.max_batch_gas,
        };
        Ok(Plan::of_queue(&queue, anchor, &bounds))
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
        let to = match plan.items.is_empty() {
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
        for Pending { publication, .. } in &plan.items {
            writer.assign(publication.task, &self.account, nonce).await?;
            let event = Event::Sent { transaction: hash, nonce };
            writer.append(publication.task, &event, now_ms).await?;
        }
        metrics::histogram!("wasm_exec_chain_batch_items").record(plan.items.len() as f64);
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
                self.funded();
                return Ok(());
            }
            Err(Error::Rpc { message, .. }) => message,
            // Whether it arrived is not known: the same bytes are sent again soon.
            Err(error) => {
                self.memory.sent_at.remove(&nonce);
                return Err(error);
            }
        };
        let words = message.to_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
        if is_known(&words) {
            self.funded();
        } else if has(&["nonce too low", "nonce is too low", "nonce too old", "invalid nonce"]) {
            tracing::info!(nonce, "the nonce is used: looking whose transaction it is");
        } else if has(&["insufficient funds", "insufficient balance"]) {
            self.unfunded(&message);
        } else if has(&[
            "underpriced",
            "less than block base fee",
            "fee too low",
            "gas price too low",
        ]) {
            tracing::info!(nonce, "the node finds the transaction too cheap: {message}");
            self.memory.cheap.insert(nonce);
        } else {
            metrics::counter!("wasm_exec_chain_broadcast_refusals_total").increment(1);
            tracing::error!(nonce, "the node refuses the transaction: {message}");
        }
        Ok(())
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
            return Ok(Some(cursor));
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
