#![allow(clippy::unwrap_used, reason = "tests")]

use executor_protocol::Status;
use proptest::prelude::*;

use crate::*;

const KEY: Policy = Policy { publishes: true, rejections: false };

fn block(number: u64) -> BlockRef {
    BlockRef { number, hash: Hex([u8::try_from(number).unwrap(); 32]) }
}

fn answer(status: Status) -> Answer {
    Answer { status, digest: Hex([status as u8; 32]), code: None }
}

fn fresh(kept: bool) -> Task {
    Task {
        local_id: LocalId(1),
        identity: Identity {
            chain_id: 1,
            contract: Hex([1; 20]),
            task_id: TaskId::new(0, kept, 1),
            payload: Hex([2; 32]),
        },
        submission: Submission {
            requester: Hex([3; 20]),
            transaction: None,
            request: Err(Malformed {
                code: executor_protocol::Rejection::MalformedRequest,
                message: String::new(),
            }),
        },
        included: None,
        state: State::Requested,
        attempts: 0,
        failures: 0,
        due_at_ms: 0,
        dirty: false,
        seen_at_ms: 0,
    }
}

/// Applies the events one after the other; each must fit.
fn walk(mut task: Task, events: &[Event]) -> Task {
    for event in events {
        task = task.apply(event).unwrap();
    }
    task
}

fn to_mined() -> Vec<Event> {
    vec![
        Event::Included { block: block(1) },
        Event::FetchStarted,
        Event::Fetched,
        Event::Started { attempt: 1 },
        Event::Finished { answer: answer(Status::Ok) },
        Event::Queued,
        Event::Sent { transaction: Hex([9; 32]), nonce: 0 },
        Event::Mined { transaction: Hex([9; 32]), block: block(3) },
    ]
}

#[test]
fn a_task_walks_from_requested_to_final() {
    let mut task = fresh(false);
    let mut seen = vec![task.state.name()];
    for event in to_mined().iter().chain([&Event::Cleaned, &Event::Finalized]) {
        task = task.apply(event).unwrap();
        if seen.last() != Some(&task.state.name()) {
            seen.push(task.state.name());
        }
    }
    assert_eq!(
        seen,
        ["requested", "fetching", "ready", "running", "finished", "publishing", "mined", "final"]
    );
    assert_eq!(task.next(KEY, 0), Effect::Rest);
}

#[test]
fn a_task_whose_block_is_gone_is_withheld_and_resumes_when_it_is_included_again() {
    let running = walk(fresh(false), to_mined().get(..4).unwrap());
    let withheld = walk(running, &[Event::Dropped { block: block(1) }]);
    assert_eq!(withheld.state, State::Withheld { answer: None });
    assert_eq!(withheld.next(KEY, 0), Effect::Clean);
    let again = walk(withheld, &[Event::Cleaned, Event::Included { block: block(2) }]);
    assert_eq!(again.state, State::Requested);
    assert_eq!(again.attempts, 1, "the next job takes another name");
}

#[test]
fn an_outcome_is_kept_while_a_task_is_withheld() {
    let mined = walk(fresh(false), &to_mined());
    let again =
        walk(mined, &[Event::Dropped { block: block(1) }, Event::Included { block: block(2) }]);
    assert_eq!(again.state, State::Finished { answer: answer(Status::Ok) });
    assert_eq!(again.next(KEY, 0), Effect::Publish);
}

#[test]
fn a_late_loss_of_an_old_block_does_not_withhold_a_task_that_was_included_again() {
    let task = walk(
        fresh(false),
        &[Event::Included { block: block(2) }, Event::Dropped { block: block(1) }],
    );
    assert_eq!(task.state, State::Requested);
    assert_eq!(task.included, Some(block(2)));
}

#[test]
fn failures_of_the_infrastructure_go_on_counting_while_jobs_are_lost() {
    let mut task = walk(fresh(false), to_mined().get(..4).unwrap());
    for failures in 1..4 {
        let lost = Event::Deferred { until_ms: 5, code: String::new(), message: String::new() };
        task = walk(task, &[lost]);
        assert_eq!((task.failures, task.next(KEY, 0)), (failures, Effect::Wait(5)));
        task = walk(task, &[Event::Started { attempt: failures + 1 }]);
        assert_eq!(task.failures, failures);
    }
    let done = walk(task, &[Event::Finished { answer: answer(Status::Ok) }]);
    assert_eq!(done.failures, 0);
}

#[test]
fn a_rejection_of_a_free_task_is_recorded_and_that_of_a_kept_task_is_published() {
    for (kept, wanted) in [(true, true), (false, false)] {
        let task = walk(
            fresh(kept),
            &[
                Event::Included { block: block(1) },
                Event::Finished { answer: answer(Status::Rejected) },
            ],
        );
        assert_eq!(task.next(KEY, 0) == Effect::Publish, wanted);
    }
}

#[test]
fn a_cancellation_stops_a_free_task_and_leaves_a_running_kept_one_its_pay() {
    for (kept, wanted) in [(true, "running"), (false, "cancelled")] {
        let task = walk(fresh(kept), to_mined().get(..4).unwrap());
        assert_eq!(walk(task, &[Event::CancelRequested]).state.name(), wanted);
    }
}

#[test]
fn an_answer_of_ours_that_is_found_on_chain_is_never_given_again() {
    let answered = Event::Answered {
        ours: true,
        answer: answer(Status::Ok),
        block: block(4),
        transaction: Hex([8; 32]),
    };
    for steps in 0..=7 {
        let task = walk(fresh(false), to_mined().get(..steps).unwrap());
        assert_eq!(walk(task, std::slice::from_ref(&answered)).state.name(), "mined");
    }
}

fn events() -> impl Strategy<Value = Event> {
    let blocks = (1_u64..5).prop_map(block);
    prop_oneof![
        blocks.clone().prop_map(|block| Event::Included { block }),
        blocks.clone().prop_map(|block| Event::Dropped { block }),
        Just(Event::CancelRequested),
        Just(Event::Expired),
        Just(Event::Reopened),
        (any::<bool>(), blocks.clone()).prop_map(|(ours, block)| Event::Answered {
            ours,
            answer: answer(Status::Failed),
            block,
            transaction: Hex([7; 32]),
        }),
        blocks.clone().prop_map(|block| Event::AnswerDropped { block }),
        Just(Event::FetchStarted),
        Just(Event::Fetched),
        (1_u32..4).prop_map(|attempt| Event::Started { attempt }),
        (0_i64..9).prop_map(|until_ms| Event::Deferred {
            until_ms,
            code: String::new(),
            message: String::new()
        }),
        proptest::sample::select(Status::ALL.to_vec())
            .prop_map(|status| Event::Finished { answer: answer(status) }),
        Just(Event::DocumentMissing),
        Just(Event::Queued),
        Just(Event::Retired { reason: String::new() }),
        Just(Event::Cleaned),
        Just(Event::Sent { transaction: Hex([9; 32]), nonce: 1 }),
        blocks.prop_map(|block| Event::Mined { transaction: Hex([9; 32]), block }),
        Just(Event::Unmined),
        Just(Event::Finalized),
        Just(Event::Refused { code: "already_closed".to_owned(), message: String::new() }),
    ]
}

fn is_from_outside(event: &Event) -> bool {
    matches!(
        event,
        Event::Included { .. }
            | Event::Dropped { .. }
            | Event::CancelRequested
            | Event::Expired
            | Event::Reopened
            | Event::Answered { .. }
            | Event::AnswerDropped { .. }
    )
}

proptest! {
    /// Whatever the order: what the chain says always fits, an event that was just applied changes nothing when it comes
    /// again, an outcome never changes without a new run or the chain's word, and a task is either settled or has a step.
    #[test]
    fn every_order_of_events_leaves_a_task_that_makes_sense(
        kept in any::<bool>(),
        events in proptest::collection::vec(events(), 0..40),
    ) {
        let mut task = fresh(kept);
        for event in &events {
            let before = task.clone();
            match task.clone().apply(event) {
                Err(_) => prop_assert!(!is_from_outside(event), "{event:?} in {}", before.state.name()),
                Ok(after) => {
                    let repeats = !matches!(event, Event::Deferred { .. } | Event::Dropped { .. }
                        | Event::AnswerDropped { .. } | Event::DocumentMissing | Event::Finalized
                        | Event::Reopened);
                    if let (true, Ok(again)) = (repeats, after.clone().apply(event)) {
                        prop_assert_eq!(&again, &after, "{:?} twice", event);
                    }
                    let told = matches!(event, Event::Finished { .. } | Event::Answered { .. });
                    if let (false, Some(old), Some(new)) = (told, before.state.answer(), after.state.answer()) {
                        prop_assert_eq!(old, new);
                    }
                    prop_assert_eq!(after.included.is_none() && before.included.is_some(),
                        before.included.is_some() && matches!(event, Event::Dropped { .. })
                            && after.included.is_none());
                    let waits_for_publisher = matches!(after.state, State::Publishing { .. } | State::Mined { .. });
                    let rests = after.next(KEY, i64::MAX) == Effect::Rest;
                    prop_assert!(!rests || waits_for_publisher || after.state.is_settled());
                    let text = serde_json::to_string(&after.state).unwrap();
                    prop_assert_eq!(&serde_json::from_str::<State>(&text).unwrap(), &after.state);
                    task = after;
                }
            }
        }
    }
}
