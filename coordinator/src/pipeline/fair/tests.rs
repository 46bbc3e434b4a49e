use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules { places: 2, quantum_ms: 2_000, within_flow_ms: None };
const OWN: Rules = Rules { within_flow_ms: Some(8_000), ..RULES };

fn waits(id: i64, flow: &str, weight: u32) -> Waiting {
    Waiting { id: LocalId(id), flow: flow.to_owned(), weight, due_at_ms: 0 }
}

/// A lane with a queue in front of it, and tasks that take their time.
struct Play {
    lane: Lane,
    waiting: Vec<Waiting>,
    /// When each task that has a place ends.
    ends: BTreeMap<i64, u64>,
    took_ms: BTreeMap<i64, u64>,
    tasks: BTreeMap<i64, Waiting>,
    began: Vec<i64>,
    done: BTreeMap<i64, u64>,
    now_ms: u64,
}

impl Play {
    fn new(rules: Rules) -> Self {
        Self {
            lane: Lane::new(rules),
            waiting: Vec::new(),
            ends: BTreeMap::new(),
            took_ms: BTreeMap::new(),
            tasks: BTreeMap::new(),
            began: Vec::new(),
            done: BTreeMap::new(),
            now_ms: 0,
        }
    }

    fn comes(&mut self, task: Waiting, takes_ms: u64) {
        self.took_ms.insert(task.id.0, takes_ms);
        self.tasks.insert(task.id.0, task.clone());
        self.waiting.push(task);
    }

    /// What the lane is shown: of each flow the first ones, as the store finds them.
    fn shown(&self) -> Vec<Waiting> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut shown = Vec::new();
        for task in &self.waiting {
            let count = counts.entry(&task.flow).or_default();
            *count += 1;
            if *count <= 10 {
                shown.push(task.clone());
            }
        }
        shown
    }

    fn dispatch(&mut self) {
        loop {
            let shown = self.shown();
            let Some(place) = self.lane.next(&shown, self.now_ms) else { break };
            let task = shown[place].clone();
            self.waiting.retain(|waiting| waiting.id != task.id);
            self.lane.take(&task, self.now_ms);
            self.began.push(task.id.0);
            self.ends.insert(task.id.0, self.now_ms + self.took_ms[&task.id.0]);
        }
        let shown = self.shown();
        if let Some(id) = self.lane.gives_way(&shown, self.now_ms) {
            self.lane.give_back(id, self.now_ms).unwrap();
            self.ends.remove(&id.0);
            self.waiting.push(self.tasks[&id.0].clone());
            self.dispatch();
        }
    }

    /// Lets time pass, a little each time.
    fn until(&mut self, at_ms: u64) {
        while self.now_ms < at_ms {
            self.dispatch();
            if self.waiting.is_empty() && self.ends.is_empty() {
                self.now_ms = at_ms;
                return;
            }
            self.now_ms += 20;
            let ended: Vec<_> =
                self.ends.iter().filter(|(_, at)| **at <= self.now_ms).map(|(id, _)| *id).collect();
            for id in ended {
                self.ends.remove(&id);
                self.lane.give_back(LocalId(id), self.now_ms).unwrap();
                self.lane.forget(LocalId(id));
                self.done.insert(id, self.now_ms);
            }
        }
        self.dispatch();
    }
}

#[test]
fn v3_a_thousand_tasks_that_sleep_do_not_keep_another_requester_waiting() {
    let mut play = Play::new(RULES);
    for id in 0..1000 {
        play.comes(waits(id, "hostile", 0), 300_000);
    }
    play.until(5_000);
    for n in 0..200 {
        let (id, came_ms) = (10_000 + n, play.now_ms);
        play.comes(waits(id, "honest", 0), 100);
        play.until(came_ms + 1_000);
        let took_ms = play.done.get(&id).map(|at| at - came_ms);
        assert!(took_ms.is_some_and(|took| took <= 200), "{n} took {took_ms:?}");
    }
}

#[test]
fn v3_requesters_that_hold_every_place_give_one_back_after_a_while() {
    let mut play = Play::new(RULES);
    for id in 0..20 {
        play.comes(waits(id, &format!("hostile {id}"), 0), 300_000);
    }
    play.until(10_000);
    play.comes(waits(100, "honest", 0), 100);
    play.until(12_500);
    assert!(play.done.contains_key(&100));
}

#[test]
fn with_one_place_a_long_task_comes_to_its_end_beside_short_ones() {
    let mut play = Play::new(Rules { places: 1, ..RULES });
    play.comes(waits(0, "long", 0), 60_000);
    for n in 1..200 {
        let at = play.now_ms;
        play.comes(waits(n, "short", 0), 100);
        play.until(at + 2_000);
    }
    assert!(play.done.contains_key(&0), "it never ended");
}

#[test]
fn w3_short_tasks_behind_long_ones_of_the_same_requester_get_a_turn() {
    let mut play = Play::new(OWN);
    for id in 0..9 {
        play.comes(waits(id, "one", 0), 300_000);
    }
    play.comes(waits(9, "one", 0), 100);
    play.until(45_000);
    assert!(play.done.contains_key(&9));
    // The long ones were stopped once at the most, and come to their end.
    play.until(1_600_000);
    assert_eq!(play.done.len(), 10);
}

#[test]
fn a_fee_gives_a_larger_share_and_nobody_is_left_out() {
    let mut play = Play::new(RULES);
    for n in 0..200 {
        play.comes(waits(n, "free", 0), 100);
        play.comes(waits(10_000 + n, "$small", 30), 100);
        play.comes(waits(20_000 + n, "$large", 60), 100);
    }
    play.until(10_000);
    let count = |from: i64| play.done.range(from..from + 10_000).count();
    let (free, small, large) = (count(0), count(10_000), count(20_000));
    assert!(free > 0 && small > free && large > 3 * small / 2, "{free} {small} {large}");
}

#[test]
fn who_was_away_has_not_saved_anything_up() {
    let mut play = Play::new(RULES);
    for n in 0..100 {
        play.comes(waits(n, "always", 0), 100);
    }
    play.until(5_000);
    for n in 0..100 {
        play.comes(waits(1_000 + n, "late", 0), 100);
        play.comes(waits(2_000 + n, "always", 0), 100);
    }
    play.began.clear();
    play.until(play.now_ms + 2_000);
    let late = play.began.iter().filter(|id| (1_000..2_000).contains(*id)).count();
    let share = play.began.len();
    assert!((share / 3..=share * 2 / 3).contains(&late), "{late} of {share}");
}

proptest! {
    #[test]
    fn everybody_gets_a_turn_in_order_and_no_place_stays_empty(
        places in 1_usize..6,
        tasks in proptest::collection::vec((0_u8..5, 0_u32..3, 20_u64..3_000, 0_u64..4_000), 1..60),
    ) {
        let mut play = Play::new(Rules { places, ..OWN });
        let mut tasks: Vec<_> = tasks;
        tasks.sort_by_key(|(_, _, _, at)| *at);
        let all = tasks.len();
        let mut flows: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (id, (flow, weight, takes_ms, at_ms)) in (0_i64..).zip(tasks) {
            play.until(at_ms);
            let flow = format!("{flow}-{}", u32::from(weight > 0));
            flows.entry(flow.clone()).or_default().push(id);
            play.comes(waits(id, &flow, weight * 20), takes_ms);
            play.dispatch();
            prop_assert!(
                play.lane.free() == 0 || play.waiting.is_empty(),
                "a place is empty while one waits"
            );
        }
        play.until(play.now_ms + 2_000_000);
        prop_assert_eq!(play.done.len(), all, "somebody never had a turn");
        for ids in flows.values() {
            let mut first: Vec<i64> = Vec::new();
            for id in play.began.iter().filter(|id| ids.contains(id)) {
                if !first.contains(id) {
                    first.push(*id);
                }
            }
            prop_assert_eq!(&first, ids, "within a requester the order is that of time");
        }
    }
}
