//! Whose turn it is in a lane, pure: a share for each requester, by what it has used.
//!
//! Virtual time: what a flow (a requester, apart for tasks with a fee) uses is divided by its weight, and the flow that
//! has used least is next; one that comes new begins where the others stand, so that nobody saves up. Tasks with a fee
//! are a class of their own with a larger share, and in it the bits of the fee are the weight; free ones share the
//! other class, one requester like another. Within a flow the order is that of time.
//!
//! A place is never left empty while a task waits. A flow that has its share of the places gets
//! the last ones only on loan: who has used less takes them back at once. A place that was held long is taken
//! back too, each time after a longer while, so that every task comes to its end.

use std::collections::HashMap;

use store::Waiting;
use task::LocalId;

/// What a step costs beside its time: nobody takes places for nothing.
const STEP_MS: u64 = 10;
/// Differences in use below this are none.
const MARGIN_MS: u64 = 200;
/// Parts of a millisecond that virtual time is counted in.
const UNIT: u64 = 256;
/// The share of tasks with a fee against that of those without.
const PAID_WEIGHT: u64 = 4;

/// How a lane shares its places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Places.
    pub(super) places: usize,
    /// How long a place is held at least before it is taken back, the first time; each further time it is eight
    /// times as long.
    pub(super) quantum_ms: u64,
    /// After which time a place is taken back, once, for a task of the same flow that never had one; none for never.
    pub(super) within_flow_ms: Option<u64>,
}

/// One lane.
#[derive(Debug)]
pub(super) struct Lane {
    rules: Rules,
    classes: [Class; 2],
    /// Virtual time among the classes.
    now: u64,
    held: HashMap<LocalId, Held>,
    /// How often a task was stopped for others.
    stopped: HashMap<LocalId, u32>,
}

#[derive(Debug, Default)]
struct Class {
    now: u64,
    used: u64,
    flows: HashMap<String, u64>,
}

#[derive(Debug)]
struct Held {
    flow: String,
    weight: u32,
    since_ms: u64,
    on_loan: bool,
    /// Whether it was asked to give its place back.
    stopping: bool,
}

/// A task's number of stops is forgotten beyond this many tasks.
const REMEMBERED: usize = 10_000;

impl Lane {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            classes: Default::default(),
            now: 0,
            held: HashMap::new(),
            stopped: HashMap::new(),
        }
    }

    pub(super) fn places(&self) -> usize {
        self.rules.places
    }

    /// Tasks that were asked to give their place back and have it still.
    pub(super) fn stopping(&self) -> usize {
        self.held.values().filter(|held| held.stopping).count()
    }

    pub(super) fn free(&self) -> usize {
        self.rules.places.saturating_sub(self.held.len())
    }

    /// Which of those that wait, in the order of time, gets a free place; none when there is none.
    pub(super) fn next(&self, waiting: &[Waiting], now_ms: u64) -> Option<usize> {
        if self.free() == 0 {
            return None;
        }
        self.first(waiting, now_ms)
    }

    /// Gives a place to a task.
    pub(super) fn take(&mut self, task: &Waiting, now_ms: u64) {
        let on_loan = self.would_be_on_loan(task);
        let start = self.stands_at(&task.flow, task.weight, now_ms);
        let class_start = self.class_stands_at(class_of(task.weight), now_ms);
        self.now = self.now.max(class_start);
        let class = self.class_mut(task.weight);
        class.now = class.now.max(start);
        self.charge(&task.flow, task.weight, STEP_MS);
        let held = Held {
            flow: task.flow.clone(),
            weight: task.weight,
            since_ms: now_ms,
            on_loan,
            stopping: false,
        };
        self.held.insert(task.id, held);
    }

    /// Takes the place of a task back; answers for how long it had it.
    pub(super) fn give_back(&mut self, id: LocalId, now_ms: u64) -> Option<u64> {
        let held = self.held.remove(&id)?;
        let took_ms = now_ms.saturating_sub(held.since_ms);
        self.charge(&held.flow, held.weight, took_ms);
        self.forget_idle();
        Some(took_ms)
    }

    /// Which task should be stopped so that one of those that wait gets its place; it is given back when the task has
    /// stopped. None while there is a free place, or nobody has to give way.
    pub(super) fn gives_way(&mut self, waiting: &[Waiting], now_ms: u64) -> Option<LocalId> {
        if self.free() > 0 {
            return None;
        }
        // One that was stopped before may not be able to stop anybody yet, while one behind it is.
        let fresh: Vec<_> =
            waiting.iter().filter(|task| !self.stopped.contains_key(&task.id)).cloned().collect();
        let id = self.victim(waiting, now_ms).or_else(|| self.victim(&fresh, now_ms))?;
        if self.stopped.len() >= REMEMBERED {
            self.stopped.clear();
        }
        *self.stopped.entry(id).or_default() += 1;
        if let Some(held) = self.held.get_mut(&id) {
            held.stopping = true;
        }
        Some(id)
    }

    /// Who has to stop for the first of those that wait.
    fn victim(&self, waiting: &[Waiting], now_ms: u64) -> Option<LocalId> {
        let first = waiting.get(self.first(waiting, now_ms)?)?;
        let (wanted, class) = (
            self.stands_at(&first.flow, first.weight, now_ms),
            self.class_stands_at(class_of(first.weight), now_ms),
        );
        let was_stopped = self.stopped.contains_key(&first.id);
        let mut victims: Vec<_> = self
            .held
            .iter()
            .filter(|(_, held)| !held.stopping)
            .filter(|(id, held)| {
                let had_ms = now_ms.saturating_sub(held.since_ms);
                let stops = self.stopped.get(id).copied().unwrap_or(0);
                let quantum = self.rules.quantum_ms.saturating_mul(8_u64.saturating_pow(stops));
                if held.flow == first.flow {
                    let after_ms = self.rules.within_flow_ms;
                    return after_ms.is_some_and(|ms| had_ms >= ms) && stops == 0 && !was_stopped;
                }
                let margin = MARGIN_MS * UNIT;
                let stands = if class_of(held.weight) == class_of(first.weight) {
                    self.stands_at(&held.flow, held.weight, now_ms) > wanted.saturating_add(margin)
                } else {
                    self.class_stands_at(class_of(held.weight), now_ms)
                        > class.saturating_add(margin)
                };
                // Those that were stopped do not stop each other at once: nobody would get anywhere.
                let loan = held.on_loan && !was_stopped;
                stands && (loan || had_ms >= quantum)
            })
            .map(|(id, held)| (!held.on_loan, held.since_ms, *id))
            .collect();
        // What is on loan first, then what was held longest.
        victims.sort_unstable();
        victims.first().map(|(_, _, id)| *id)
    }

    /// Forgets how often a task was stopped: it has come to its end.
    pub(super) fn forget(&mut self, id: LocalId) {
        self.stopped.remove(&id);
    }

    /// The first of those that wait: of the class that has used least, and in it of the flow that has.
    fn first(&self, waiting: &[Waiting], now_ms: u64) -> Option<usize> {
        waiting
            .iter()
            .enumerate()
            .min_by_key(|(place, task)| {
                let class = class_of(task.weight);
                (
                    self.class_stands_at(class, now_ms),
                    std::cmp::Reverse(class),
                    self.stands_at(&task.flow, task.weight, now_ms),
                    self.stopped.get(&task.id).copied().unwrap_or(0),
                    *place,
                )
            })
            .map(|(place, _)| place)
    }

    fn would_be_on_loan(&self, task: &Waiting) -> bool {
        let places = self.rules.places;
        if places < 2 {
            return false;
        }
        let last = (places / 4).max(1);
        let of =
            |same: &dyn Fn(&Held) -> bool| self.held.values().filter(|held| same(held)).count();
        of(&|held| held.flow == task.flow) >= places - last
            || task.weight == 0 && of(&|held| held.weight == 0) >= places - 1
    }

    /// Where a flow stands: what it has used, what it is using, and no less than the others.
    fn stands_at(&self, flow: &str, weight: u32, now_ms: u64) -> u64 {
        let class = self.class(weight);
        let using: u64 = self
            .held
            .values()
            .filter(|held| held.flow == flow)
            .map(|held| now_ms.saturating_sub(held.since_ms) * UNIT / u64::from(held.weight.max(1)))
            .sum();
        class.flows.get(flow).copied().unwrap_or(0).max(class.now).saturating_add(using)
    }

    fn class_stands_at(&self, class: usize, now_ms: u64) -> u64 {
        let using: u64 = self
            .held
            .values()
            .filter(|held| class_of(held.weight) == class)
            .map(|held| now_ms.saturating_sub(held.since_ms) * UNIT / class_weight(class))
            .sum();
        self.classes.get(class).map_or(0, |class| class.used).max(self.now).saturating_add(using)
    }

    fn charge(&mut self, flow: &str, weight: u32, cost_ms: u64) {
        let now = self.now;
        let class = self.class_mut(weight);
        let used = class.flows.entry(flow.to_owned()).or_default();
        *used = (*used).max(class.now) + cost_ms * UNIT / u64::from(weight.max(1));
        class.used = class.used.max(now) + cost_ms * UNIT / class_weight(class_of(weight));
    }

    /// Flows that are no further than a new one would be need not be remembered.
    fn forget_idle(&mut self) {
        for class in &mut self.classes {
            let now = class.now;
            class.flows.retain(|_, used| *used > now);
        }
    }

    fn class(&self, weight: u32) -> &Class {
        let [free, paid] = &self.classes;
        if weight == 0 { free } else { paid }
    }

    fn class_mut(&mut self, weight: u32) -> &mut Class {
        let [free, paid] = &mut self.classes;
        if weight == 0 { free } else { paid }
    }
}

fn class_of(weight: u32) -> usize {
    usize::from(weight != 0)
}

fn class_weight(class: usize) -> u64 {
    if class == 0 { 1 } else { PAID_WEIGHT }
}

#[cfg(test)]
mod tests;
