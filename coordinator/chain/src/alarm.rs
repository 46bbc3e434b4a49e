use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Something about the chain that a person should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// The watcher cannot read the chain.
    ChainUnreachable,
    /// The node is behind what was read before.
    ChainLagging,
    /// The node leaves out events: the sequence of tasks has a hole.
    SequenceGap,
    /// The publisher cannot reach the chain.
    PublisherUnreachable,
    /// The publisher's account cannot pay.
    PublisherUnfunded,
    /// A transaction needs more than the fee cap allows.
    FeeCapReached,
    /// An endpoint contradicts itself.
    ProviderInconsistent,
    /// The chain took back what the confirmations called final: nothing is published.
    FinalityViolated,
    /// The owner took the publisher's right to answer a domain.
    RightsWithdrawn,
    /// The node refuses a transaction for another reason than its price.
    TransactionRefused,
    /// Somebody else signs with the publisher's key.
    KeyUsedElsewhere,
}

impl Alarm {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::ChainUnreachable => "chain_unreachable",
            Self::ChainLagging => "chain_lagging",
            Self::SequenceGap => "sequence_gap",
            Self::PublisherUnreachable => "publisher_unreachable",
            Self::PublisherUnfunded => "publisher_unfunded",
            Self::FeeCapReached => "fee_cap_reached",
            Self::ProviderInconsistent => "provider_inconsistent",
            Self::FinalityViolated => "finality_violated",
            Self::RightsWithdrawn => "rights_withdrawn",
            Self::TransactionRefused => "transaction_refused",
            Self::KeyUsedElsewhere => "key_used_elsewhere",
        }
    }
}

/// The alarms that are on, shared by watcher, publisher and whoever shows health.
#[derive(Debug, Clone, Default)]
pub struct Alarms {
    on: Arc<Mutex<BTreeMap<Alarm, String>>>,
}

impl Alarms {
    /// The alarms that are on, each with a sentence.
    #[must_use]
    pub fn current(&self) -> Vec<(Alarm, String)> {
        let on = self.on.lock().unwrap_or_else(PoisonError::into_inner);
        on.iter().map(|(alarm, message)| (*alarm, message.clone())).collect()
    }

    /// Switches an alarm on that is no news: what it says is so until something else is known.
    pub fn begin(&self, alarm: Alarm, message: impl Into<String>) {
        let mut on = self.on.lock().unwrap_or_else(PoisonError::into_inner);
        on.insert(alarm, message.into());
    }

    /// Whether an alarm is on.
    pub(crate) fn is_on(&self, alarm: Alarm) -> bool {
        self.on.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&alarm)
    }

    /// Switches an alarm on; it is logged once, when it was off.
    pub(crate) fn raise(&self, alarm: Alarm, message: impl Into<String>) {
        let message = message.into();
        let before = {
            let mut on = self.on.lock().unwrap_or_else(PoisonError::into_inner);
            on.insert(alarm, message.clone())
        };
        if before.is_none() {
            tracing::error!(alarm = alarm.code(), error = message, "an alarm is on");
            metrics::gauge!("wasm_exec_chain_alarm", "alarm" => alarm.code()).set(1.0);
        }
    }

    /// Switches an alarm off.
    pub(crate) fn clear(&self, alarm: Alarm) {
        let before = {
            let mut on = self.on.lock().unwrap_or_else(PoisonError::into_inner);
            on.remove(&alarm)
        };
        if before.is_some() {
            tracing::info!(alarm = alarm.code(), "the alarm is over");
            metrics::gauge!("wasm_exec_chain_alarm", "alarm" => alarm.code()).set(0.0);
        }
    }
}
