//! A chain, a contract and a coordinator, small and pure: every order of submissions, blocks, reorganisations, lost and
//! foreign transactions. What the publisher does around the machine is here what it does on a real chain.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Effect, Event, Place, Publication, Reason, State};
use crate::{BlockRef, Hash, Hex};

/// What a task is: its id on the contract, and its payload.
type Identity = (u64, u64);

#[derive(Debug, Clone)]
enum Call {
    /// Somebody's submission; the number is its payload.
    Submit(u64),
    /// A transaction of our key.
    Publish { nonce: u64, transaction: Hash, items: Vec<Identity>, anchor: BlockRef },
    /// Somebody else's transaction of our key.
    Foreign { nonce: u64 },
}

#[derive(Debug, Clone)]
struct Block {
    this: BlockRef,
    calls: Vec<Call>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Mined(Place),
    Final(Place),
    Taken,
}

#[derive(Debug, Default)]
struct World {
    // the chain
    blocks: Vec<Block>,
    pool: Vec<Call>,
    made: u64,
    // the coordinator: what it has read, what it publishes, its nonces with everything that was signed for them
    read: Vec<Block>,
    standing: BTreeMap<Identity, BlockRef>,
    publications: BTreeMap<Identity, Publication>,
    nonces: BTreeMap<u64, (Fate, Vec<Call>)>,
}

/// What the contract of a branch holds.
#[derive(Debug, Default)]
struct Contract {
    payloads: BTreeMap<u64, u64>,
    answers: BTreeMap<u64, Vec<u64>>,
    count: u64,
    /// What was taken of each of our transactions, and where it stands.
    receipts: BTreeMap<Hash, (BlockRef, BTreeSet<u64>)>,
}

impl Contract {
    /// Runs a branch. An answer is taken when its anchor stands on it and the id is open, whatever task it was for.
    fn of(blocks: &[Block]) -> Self {
        let mut contract = Self::default();
        for block in blocks {
            for call in &block.calls {
                match call {
                    Call::Submit(payload) => {
                        let id = contract.payloads.len() as u64 + 1;
                        contract.payloads.insert(id, *payload);
                    }
                    Call::Foreign { .. } => contract.count += 1,
                    Call::Publish { transaction, items, anchor, .. } => {
                        contract.count += 1;
                        let stands = anchor.number < block.this.number
                            && blocks[anchor.number as usize].this == *anchor;
                        let mut taken = BTreeSet::new();
                        for (id, payload) in items {
                            if stands && !contract.answers.contains_key(id) {
                                contract.answers.entry(*id).or_default().push(*payload);
                                taken.insert(*id);
                            }
                        }
                        contract.receipts.insert(*transaction, (block.this, taken));
                    }
                }
            }
        }
        contract
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        world.mine(0);
        world.read = world.blocks.clone();
        world
    }

    fn hash(&mut self) -> Hash {
        self.made += 1;
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.made.to_be_bytes());
        Hex(bytes)
    }

    /// A block with what of the pool the mask picks, our transactions in the order of their nonces.
    fn mine(&mut self, mask: u64) {
        let this = BlockRef { number: self.blocks.len() as u64, hash: self.hash() };
        let mut calls = Vec::new();
        let mut count = Contract::of(&self.blocks).count;
        let pool = std::mem::take(&mut self.pool);
        for (index, call) in pool.into_iter().enumerate() {
            let picked = mask >> (index % 64) & 1 == 1;
            match &call {
                Call::Submit(_) if picked => calls.push(call),
                Call::Publish { nonce, .. } | Call::Foreign { nonce }
                    if picked && *nonce == count =>
                {
                    count += 1;
                    calls.push(call);
                }
                // A transaction whose nonce is used leaves the pool.
                Call::Publish { nonce, .. } | Call::Foreign { nonce } if *nonce < count => {}
                _ => self.pool.push(call),
            }
        }
        self.blocks.push(Block { this, calls });
        self.check();
    }

    /// Takes the newest blocks away; what was in them goes back into the pool as far as the mask says, turned around.
    fn reorganise(&mut self, depth: usize, mask: u64) {
        let keep = self.blocks.len().saturating_sub(depth).max(1);
        let gone = self.blocks.split_off(keep);
        let mut calls: Vec<_> = gone.into_iter().flat_map(|block| block.calls).collect();
        calls.reverse();
        let mut index = 0;
        calls.retain(|_| {
            index += 1;
            mask >> (index % 64) & 1 == 1
        });
        calls.append(&mut self.pool);
        self.pool = calls;
        self.mine(mask);
    }

    /// No task of the branch ever has another one's answer.
    fn check(&self) {
        let contract = Contract::of(&self.blocks);
        for (id, answers) in &contract.answers {
            assert_eq!(answers.as_slice(), [contract.payloads[id]], "task {id}");
        }
    }

    /// The watcher: back to where the branches part, then on to the head.
    fn read(&mut self) {
        let common =
            self.read.iter().zip(&self.blocks).take_while(|(a, b)| a.this == b.this).count();
        let gone: BTreeSet<_> = self.read.drain(common..).map(|block| block.this.hash).collect();
        let lost: Vec<_> = self
            .standing
            .iter()
            .filter(|(_, block)| gone.contains(&block.hash))
            .map(|(id, _)| *id)
            .collect();
        for identity in lost {
            let block = self.standing.remove(&identity).unwrap();
            self.tell(identity, &Event::Dropped { block });
        }
        // What was final above the ancestor is looked at again.
        for (fate, _) in self.nonces.values_mut() {
            if let Fate::Final(place) = *fate
                && place.block.number >= common as u64
            {
                *fate = Fate::Mined(place);
            }
        }
        let mut id = Contract::of(&self.read).payloads.len() as u64;
        for block in &self.blocks[common..] {
            for call in &block.calls {
                if let Call::Submit(payload) = call {
                    id += 1;
                    self.standing.insert((id, *payload), block.this);
                }
            }
        }
        self.read = self.blocks.clone();
    }

    fn tell(&mut self, identity: Identity, event: &Event) {
        if let Some(publication) = self.publications.remove(&identity) {
            self.publications.insert(identity, publication.apply(event).unwrap());
        }
    }

    /// The pipeline: every task that stands has an outcome, and hands it over when it has not, or not any more.
    fn run(&mut self) {
        for (identity, block) in self.standing.clone() {
            let event = Event::Queued { included: block, changed: false };
            match self.publications.get(&identity).map(|publication| &publication.state) {
                None => {
                    self.publications.insert(identity, Publication::new(block));
                }
                Some(State::Withheld { nonce }) => {
                    if let Some((fate @ Fate::Final(_), _)) =
                        nonce.and_then(|nonce| self.nonces.get_mut(&nonce))
                        && let Fate::Final(place) = *fate
                    {
                        *fate = Fate::Mined(place);
                    }
                    self.tell(identity, &event);
                }
                Some(_) => {}
            }
        }
    }

    /// The publisher: signs what is queued, at the lowest nonce that was never taken.
    fn sign(&mut self, most: usize) {
        let queued = self.queued(most);
        if queued.is_empty() {
            return;
        }
        let start = Contract::of(&self.blocks).count;
        let nonce = (start..).find(|nonce| !self.nonces.contains_key(nonce)).unwrap();
        self.send(nonce, queued);
    }

    fn queued(&self, most: usize) -> Vec<Identity> {
        let cursor = self.read.last().unwrap().this;
        let due = self.publications.iter().filter(|(_, publication)| {
            matches!(publication.next(), Effect::Sign { included } if included.number <= cursor.number)
        });
        due.map(|(identity, _)| *identity).take(most).collect()
    }

    fn send(&mut self, nonce: u64, items: Vec<Identity>) {
        let anchor = self.read.last().unwrap().this;
        for identity in &items {
            self.tell(*identity, &Event::Signed { nonce });
        }
        let transaction = self.hash();
        let call = Call::Publish { nonce, transaction, items, anchor };
        self.nonces.entry(nonce).or_insert((Fate::Open, Vec::new())).1.push(call.clone());
        self.pool.push(call);
    }

    fn held(&self, nonce: u64) -> Vec<Identity> {
        let held = self.publications.iter().filter(|(_, held)| held.state.nonce() == Some(nonce));
        held.map(|(identity, _)| *identity).collect()
    }

    /// The publisher: looks what became of every nonce, by every transaction that was ever signed for it.
    fn observe(&mut self) {
        let contract = Contract::of(&self.blocks);
        let cursor = self.read.last().unwrap().this.number;
        for nonce in self.nonces.keys().copied().collect::<Vec<_>>() {
            let (fate, calls) = self.nonces[&nonce].clone();
            let found = calls.iter().find_map(|call| match call {
                Call::Publish { transaction, items, anchor, .. } => {
                    let (block, taken) = contract.receipts.get(transaction)?;
                    let place = Place { nonce, transaction: *transaction, block: *block };
                    Some((place, taken.clone(), items.clone(), *anchor))
                }
                _ => None,
            });
            let unread = self
                .held(nonce)
                .iter()
                .any(|id| matches!(self.publications[id].state, State::Sent { .. }));
            let next = match (fate, found) {
                (Fate::Final(_) | Fate::Taken, _) => fate,
                (Fate::Mined(old), Some((place, ..))) if old == place && !unread => {
                    if place.block.number <= cursor {
                        for identity in self.held(nonce) {
                            self.tell(identity, &Event::Deep { nonce });
                        }
                        Fate::Final(place)
                    } else {
                        fate
                    }
                }
                (_, Some((place, taken, items, anchor))) => {
                    for identity in &items {
                        if taken.contains(&identity.0) {
                            self.tell(*identity, &Event::Mined { place });
                        }
                    }
                    let stands =
                        self.blocks.get(anchor.number as usize).is_some_and(|b| b.this == anchor);
                    for identity in self.held(nonce) {
                        let in_it = items.contains(&identity);
                        if in_it && taken.contains(&identity.0) {
                            continue;
                        }
                        let again = !in_it || !stands;
                        let reason = Reason { code: String::new(), message: String::new() };
                        let (counts, strange) = (false, false);
                        let event = Event::NotTaken { place, reason, again, counts, strange };
                        self.tell(identity, &event);
                    }
                    Fate::Mined(place)
                }
                (Fate::Mined(_), None) => {
                    for identity in self.held(nonce) {
                        self.tell(identity, &Event::Unmined { nonce });
                    }
                    Fate::Open
                }
                (Fate::Open, None) if contract.count > nonce => {
                    for identity in self.held(nonce) {
                        self.tell(identity, &Event::Freed { nonce });
                    }
                    Fate::Taken
                }
                (Fate::Open, None) => Fate::Open,
            };
            self.nonces.get_mut(&nonce).unwrap().0 = next;
        }
        // The chain counts nonces as unused that were settled: they are looked at again.
        for (nonce, (fate, _)) in &mut self.nonces {
            match *fate {
                Fate::Final(place) if *nonce >= contract.count => *fate = Fate::Mined(place),
                Fate::Taken if *nonce >= contract.count => *fate = Fate::Open,
                _ => {}
            }
        }
        // One that nothing was ever signed for, below those that wait, is filled.
        let waits = |(fate, _): &(Fate, Vec<Call>)| matches!(fate, Fate::Open);
        let waits = self.nonces.iter().any(|(nonce, held)| *nonce > contract.count && waits(held));
        if waits && !self.nonces.contains_key(&contract.count) {
            self.send(contract.count, self.queued(2));
        }
    }

    /// The publisher: signs every open nonce again, for what it holds and still stands, else for what is queued, else
    /// for nothing.
    fn replace(&mut self) {
        let cursor = self.read.last().unwrap().this.number;
        for nonce in self.nonces.keys().copied().collect::<Vec<_>>() {
            if self.nonces[&nonce].0 != Fate::Open {
                continue;
            }
            let mut items = self.held(nonce);
            items.retain(|identity| {
                let held = &self.publications[identity];
                matches!(held.state, State::Sent { .. })
                    && held.included.is_some_and(|block| block.number <= cursor)
            });
            if items.is_empty() {
                items = self.queued(2);
            }
            self.send(nonce, items);
        }
    }

    /// Fair weather: everything takes its turn until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..30 {
            self.read();
            self.run();
            self.observe();
            self.sign(3);
            self.replace();
            self.mine(u64::MAX);
        }
    }
}

#[derive(Debug, Clone)]
enum Turn {
    Submit(u64),
    Mine(u64),
    Reorganise(usize, u64),
    Read,
    Run,
    Sign(usize),
    Observe,
    Replace,
    Lose(usize),
    Foreign,
}

fn turns() -> impl Strategy<Value = Turn> {
    prop_oneof![
        2 => (0_u64..4).prop_map(Turn::Submit),
        4 => any::<u64>().prop_map(Turn::Mine),
        2 => (1_usize..9, any::<u64>()).prop_map(|(depth, mask)| Turn::Reorganise(depth, mask)),
        4 => Just(Turn::Read),
        3 => Just(Turn::Run),
        3 => (1_usize..4).prop_map(Turn::Sign),
        3 => Just(Turn::Observe),
        1 => Just(Turn::Replace),
        1 => (0_usize..8).prop_map(Turn::Lose),
        1 => Just(Turn::Foreign),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happened, in whatever order: no task ever has another one's answer, and in the end each task that stands
    /// has its own.
    #[test]
    fn no_task_is_answered_wrongly_and_none_is_left_out(
        turns in proptest::collection::vec(turns(), 0..60),
    ) {
        let mut world = World::new();
        for turn in turns {
            match turn {
                Turn::Submit(payload) => world.pool.push(Call::Submit(payload)),
                Turn::Mine(mask) => world.mine(mask),
                Turn::Reorganise(depth, mask) => world.reorganise(depth, mask),
                Turn::Read => world.read(),
                Turn::Run => world.run(),
                Turn::Sign(most) => world.sign(most),
                Turn::Observe => world.observe(),
                Turn::Replace => world.replace(),
                Turn::Lose(index) => {
                    if index < world.pool.len() {
                        world.pool.remove(index);
                    }
                }
                Turn::Foreign => {
                    let nonce = Contract::of(&world.blocks).count;
                    world.pool.insert(0, Call::Foreign { nonce });
                }
            }
        }
        world.settle();
        let contract = Contract::of(&world.blocks);
        for (id, payload) in &contract.payloads {
            prop_assert_eq!(contract.answers.get(id), Some(&vec![*payload]), "task {} in {:?}", id, world);
        }
    }
}
