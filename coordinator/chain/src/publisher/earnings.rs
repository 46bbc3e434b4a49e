//! What the publisher earns, and how it is paid out: with its own nonces, so that nothing else has to use its key.

use std::time::{Duration, Instant};

use store::{Earnings, Writer};
use task::publication::{Event, Place};

use super::{Publisher, receipt::Verdict};
use crate::{Error, block::Header, board::Board as Contract};

/// Time between two looks at the credit.
const LOOK_EVERY: Duration = Duration::from_secs(15);

impl Publisher {
    /// Reads the credit now and then. That it cannot be read holds nothing up.
    pub(super) async fn read_earnings(&mut self, head: &Header) -> Result<(), Error> {
        if self.memory.earnings_read_at.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        self.memory.earnings_read_at = Some(Instant::now());
        let contract = Contract::new(self.client.clone(), self.options.contract);
        let credit_wei = match contract.credit(self.account.sender).await {
            Ok(credit_wei) => credit_wei,
            Err(error) => {
                tracing::debug!(%error, "the credit was not read");
                return Ok(());
            }
        };
        metrics::gauge!("wasm_exec_chain_earnings_wei").set(credit_wei as f64);
        let earnings =
            Earnings { credit_wei, block_number: head.block().number, read_at_ms: store::now_ms() };
        let mut writer = self.store.begin().await?;
        writer.save_earnings(&self.board, &self.account.sender, &earnings).await?;
        writer.commit().await?;
        Ok(())
    }

    /// Tells the withdrawals of a nonce what happened to it.
    pub(super) async fn tell_withdrawals(
        &self,
        writer: &mut Writer,
        nonce: u64,
        event: &Event,
    ) -> Result<(), Error> {
        for withdrawal in writer.withdrawals_held_by(&self.account, nonce).await? {
            writer.advance_withdrawal(&withdrawal, event, None).await?;
        }
        Ok(())
    }

    /// Writes what a receipt says of the withdrawals of its nonce.
    pub(super) async fn record_withdrawals(
        &mut self,
        writer: &mut Writer,
        verdict: &Verdict,
        place: Place,
    ) -> Result<(), Error> {
        for withdrawal in writer.withdrawals_held_by(&self.account, place.nonce).await? {
            self.memory.earnings_read_at = None;
            if let Some(amount_wei) = verdict.withdrawn {
                tracing::info!(
                    withdrawal.id = withdrawal.id, recipient = %withdrawal.recipient, amount_wei,
                    transaction = %place.transaction, "earnings were paid out"
                );
                let mined = Event::Mined { place };
                writer.advance_withdrawal(&withdrawal, &mined, Some(amount_wei)).await?;
                continue;
            }
            let refusal = verdict.unpaid(withdrawal.tries);
            tracing::warn!(
                withdrawal.id = withdrawal.id, transaction = %place.transaction, code = refusal.reason.code,
                again = refusal.again, error = refusal.reason.message, "earnings were not paid out"
            );
            let event = refusal.event(place, false);
            writer.advance_withdrawal(&withdrawal, &event, None).await?;
        }
        Ok(())
    }
}
