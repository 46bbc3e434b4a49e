#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::{BlockRef, Event as TaskEvent, Hex};

fn block(number: u64) -> BlockRef {
    BlockRef { number, hash: Hex([u8::try_from(number).unwrap(); 32]) }
}

fn place(nonce: u64, number: u64) -> Place {
    Place { nonce, transaction: Hex([u8::try_from(nonce).unwrap(); 32]), block: block(number) }
}

fn reason() -> Reason {
    Reason { code: "already_closed".to_owned(), message: String::new() }
}

fn walk(events: &[Event]) -> Publication {
    let mut publication = Publication::new(block(1));
    for event in events {
        publication = publication.apply(event).unwrap();
    }
    publication
}

fn to_final() -> Vec<Event> {
    vec![Event::Signed { nonce: 3 }, Event::Mined { place: place(3, 5) }, Event::Deep { nonce: 3 }]
}

#[test]
fn a_publication_walks_from_the_queue_to_final_and_tells_its_task() {
    let mut publication = Publication::new(block(1));
    let mut told = Vec::new();
    for event in to_final() {
        let before = publication.state.clone();
        publication = publication.apply(&event).unwrap();
        told.extend(publication.tells(&before).map(|event| event.name()));
    }
    assert_eq!(publication.state, State::Final { place: place(3, 5) });
    assert_eq!(told, ["mined", "finalized"]);
    assert_eq!(publication.next(), Effect::Rest);
}

#[test]
fn what_is_final_goes_out_again_only_after_its_submission_stands_again() {
    let mut events = to_final();
    events.push(Event::Dropped { block: block(1) });
    events.push(Event::Unmined { nonce: 3 });
    let withheld = walk(&events);
    assert_eq!(withheld.state, State::Withheld { nonce: Some(3) });
    assert_eq!(withheld.next(), Effect::Rest);
    assert!(withheld.clone().apply(&Event::Signed { nonce: 4 }).is_err());
    let again = withheld.apply(&Event::Queued { included: block(9), changed: false }).unwrap();
    assert_eq!(again.state, State::Sent { nonce: 3 });
    assert_eq!(again.next(), Effect::Follow { nonce: 3 });
    let freed = again.apply(&Event::Freed { nonce: 3 }).unwrap();
    assert_eq!(freed.next(), Effect::Sign { included: block(9) });
}

#[test]
fn a_refusal_of_a_branch_that_is_gone_says_nothing() {
    let refused = walk(&[
        Event::Signed { nonce: 3 },
        Event::NotTaken {
            place: place(3, 5),
            reason: reason(),
            again: false,
            counts: false,
            strange: false,
        },
        Event::Deep { nonce: 3 },
    ]);
    assert_eq!(refused.state, State::GivenUp { nonce: Some(3), reason: reason() });
    let before = refused.state.clone();
    let again = refused.apply(&Event::Unmined { nonce: 3 }).unwrap();
    assert_eq!(again.state, State::Sent { nonce: 3 });
    assert_eq!(again.tells(&before), Some(TaskEvent::Unmined));
}

#[test]
fn a_result_that_stands_in_another_block_now_is_told_with_that_block() {
    let before = walk(&to_final());
    let moved = before.clone().apply(&Event::Mined { place: place(3, 6) }).unwrap();
    assert_eq!(
        moved.tells(&before.state),
        Some(TaskEvent::Mined { transaction: place(3, 6).transaction, block: block(6) })
    );
    let same = before.clone().apply(&Event::Mined { place: place(3, 5) }).unwrap();
    assert_eq!(same, before);
}

fn events() -> impl Strategy<Value = Event> {
    let nonces = 0_u64..3;
    let places = (0_u64..3, 1_u64..5).prop_map(|(nonce, number)| place(nonce, number));
    prop_oneof![
        ((1_u64..5), any::<bool>())
            .prop_map(|(number, changed)| Event::Queued { included: block(number), changed }),
        (1_u64..5).prop_map(|number| Event::Dropped { block: block(number) }),
        nonces.clone().prop_map(|nonce| Event::Signed { nonce }),
        places.clone().prop_map(|place| Event::Mined { place }),
        (places, any::<[bool; 3]>()).prop_map(|(place, [again, counts, strange])| {
            Event::NotTaken { place, reason: reason(), again, counts, strange }
        }),
        nonces.clone().prop_map(|nonce| Event::Freed { nonce }),
        nonces.clone().prop_map(|nonce| Event::Unmined { nonce }),
        nonces.prop_map(|nonce| Event::Deep { nonce }),
        Just(Event::GivenUp { reason: reason() }),
    ]
}

proptest! {
    /// Whatever the order: only a signature can be refused, and it is while the submission does not stand; nothing is due
    /// then either; what is told twice changes nothing; and from everywhere a new submission leads to a signature.
    #[test]
    fn every_order_of_events_leaves_a_publication_that_makes_sense(
        events in proptest::collection::vec(events(), 0..40),
    ) {
        let mut publication = Publication::new(block(1));
        for event in &events {
            let before = publication.clone();
            match publication.clone().apply(event) {
                Err(_) => prop_assert_eq!(event.name(), "signed"),
                Ok(after) => {
                    if matches!(event, Event::Signed { .. }) {
                        prop_assert!(before.included.is_some());
                    }
                    prop_assert_eq!(&after.clone().apply(event).unwrap().state, &after.state);
                    publication = after;
                }
            }
            let withheld = matches!(publication.state, State::Withheld { .. });
            prop_assert_eq!(publication.included.is_none(), withheld);
            if withheld {
                prop_assert_eq!(publication.next(), Effect::Rest);
            }
            let fresh = publication.clone().apply(&Event::Dropped {
                block: publication.included.unwrap_or(block(1)),
            }).unwrap();
            let nonce = fresh.state.nonce();
            let fresh = fresh.apply(&Event::Queued { included: block(9), changed: false }).unwrap();
            let fresh = match nonce {
                Some(nonce) => fresh.apply(&Event::Freed { nonce }).unwrap(),
                None => fresh,
            };
            prop_assert_eq!(fresh.next(), Effect::Sign { included: block(9) });
        }
    }
}
