//! What is not well here and is nobody's task's fault: shown by `/readyz`, and reason to hold tasks back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A part that tasks need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Gateways, mirror and the cache of content.
    Content,
    /// The executor, its launcher and what they need.
    Runtime,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 2] = [Self::Content, Self::Runtime];

    /// Its name in `/readyz` and in metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Runtime => "runtime",
        }
    }
}

/// What is wrong with a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The stable code; the runbook has an entry for each.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Whether nothing can be done that needs the part. If not, it is tried all the same: who is asked for content may
    /// have some of it.
    pub stops: bool,
}

/// The parts that are not well. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Health {
    faults: Arc<Mutex<BTreeMap<Part, Fault>>>,
}

impl Health {
    /// Says that a part is not well; tasks that need it are held back until it is [cleared](Self::clear).
    pub fn raise(&self, part: Part, fault: Fault) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.insert(part, fault.clone()).is_none() {
            tracing::error!(
                part = part.name(),
                code = fault.code,
                error = fault.message,
                "a part is not well: tasks that need it are held back until it is"
            );
        }
        metrics::gauge!("wasm_exec_part_faulty", "part" => part.name()).set(1.0);
    }

    /// Says that a part is well again.
    pub fn clear(&self, part: Part) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.remove(&part).is_some() {
            tracing::info!(part = part.name(), "the part is well again: its tasks go on");
        }
        metrics::gauge!("wasm_exec_part_faulty", "part" => part.name()).set(0.0);
    }

    /// Whether a part is so unwell that nothing can be done which needs it.
    #[must_use]
    pub fn stops(&self, part: Part) -> bool {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.get(&part).is_some_and(|fault| fault.stops)
    }

    /// The parts that are not well.
    #[must_use]
    pub fn faulty(&self) -> Vec<Part> {
        self.current().into_iter().map(|(part, _)| part).collect()
    }

    /// What is wrong, by part.
    #[must_use]
    pub fn current(&self) -> Vec<(Part, Fault)> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter().map(|(part, fault)| (*part, fault.clone())).collect()
    }
}
