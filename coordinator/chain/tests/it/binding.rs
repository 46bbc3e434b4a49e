//! A result belongs to its submission: what the contract, the watcher and a reader without a database say to answers that
//! do not.

use chain::{Found, FoundResult};
use executor_protocol::Status;
use harness::wait_for;
use task::TaskId;
use task_board::{Submission, Tag};

use crate::stage::{PATIENCE, Stage, catch_up, foreign, key, request};

const DOCUMENT: &str = r#"{"status":"ok","value":144}"#;

/// What two readers that share nothing say of a task: one that follows the chain, one that looks it up.
async fn readers(stage: &Stage, id: TaskId) -> (String, Found) {
    let mut watcher = stage.watcher().await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    (stage.state(id).await, stage.board().await.find(id, None).await.unwrap())
}

fn result(found: Found) -> FoundResult {
    match found {
        Found::Answered { result, .. } => *result,
        other => panic!("{other:?}"),
    }
}

fn strange(found: &Found) -> u64 {
    match found {
        Found::Open { strange, .. } => *strange,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn t3_an_answer_before_its_task_is_refused_and_both_readers_wait_for_the_right_one() {
    let stage = Stage::start().await;
    stage.submit(1).await;
    let next = TaskId::new(0, false, 2);
    let head = stage.anvil.block_number().await;
    for tag in [Tag(0), Tag(7)] {
        let receipt = stage.try_publish_elsewhere_at(&foreign(next, tag), head).await;
        assert_eq!(receipt["status"], "0x0", "{receipt}");
    }
    assert_eq!(stage.board().await.find(next, None).await.unwrap(), Found::NotSubmitted);
    assert_eq!(stage.submit(1).await, [next]);
    assert!(!stage.board().await.is_closed(next).await.unwrap(), "it was born open");
    let (state, found) = readers(&stage, next).await;
    assert_eq!((state.as_str(), strange(&found)), ("requested", 0));
    stage.publish_elsewhere(&foreign(next, stage.tag(next).await)).await;
    let (state, found) = readers(&stage, next).await;
    assert_eq!(state, "cancelled", "answered elsewhere");
    assert_eq!(result(found).publisher, key(3).address());
}

#[tokio::test]
async fn t3_two_readers_pass_over_a_publication_with_another_tag_and_take_the_right_one_behind_it()
{
    let stage = Stage::start().await;
    let id = stage.submit(1).await[0];
    let tag = stage.tag(id).await;
    stage.publish_elsewhere(&foreign(id, Tag(tag.0 ^ 1))).await;
    stage.publish_elsewhere(&task_board::Answer { again: true, ..foreign(id, Tag(!tag.0)) }).await;
    let (state, found) = readers(&stage, id).await;
    assert_eq!((state.as_str(), strange(&found)), ("requested", 2));
    assert_eq!(stage.board().await.find_result(id, None).await.unwrap(), None);
    assert!(stage.board().await.is_closed(id).await.unwrap());

    let right = foreign(id, tag);
    let head = stage.anvil.block_number().await;
    let receipt = stage.try_publish_elsewhere_at(&right, head).await;
    assert_eq!(receipt["status"], "0x0", "the id is closed");
    stage.publish_elsewhere(&task_board::Answer { again: true, ..right }).await;
    let first = stage.anvil.block_number().await;
    // One more, with another status: the first one counts.
    stage.publish_elsewhere(&task_board::Answer { again: true, status: 1, ..right }).await;
    let (state, found) = readers(&stage, id).await;
    assert_eq!(state, "cancelled", "answered elsewhere");
    let result = result(found);
    assert_eq!((result.status, result.block.number), (Status::Failed, first));
}

#[tokio::test]
async fn t4_an_anchor_before_the_task_is_refused_for_a_kept_one_and_passed_over_for_a_free_one() {
    let stage = Stage::start().await;
    stage.anvil.mine(200).await;
    let before = stage.anvil.block_number().await;
    let free = stage.submit(1).await[0];
    let paid = Submission { fee: alloy::primitives::U256::from(7), ..request(2) };
    let kept = stage.board().await.submit(&key(2), &[paid]).await.unwrap().ids[0];
    for anchor in [before - 150, before] {
        let answer = foreign(kept, stage.tag(kept).await);
        let receipt = stage.try_publish_elsewhere_at(&answer, anchor).await;
        assert_eq!(receipt["status"], "0x0", "{receipt}");
        let answer = task_board::Answer { again: true, ..foreign(free, stage.tag(free).await) };
        stage.publish_elsewhere_at(&answer, anchor).await;
    }
    let (state, found) = readers(&stage, free).await;
    assert_eq!((state.as_str(), strange(&found)), ("requested", 2));
    let (state, found) = readers(&stage, kept).await;
    assert_eq!((state.as_str(), strange(&found)), ("requested", 0));
    let kept_identity = stage.identity(kept).await;
    let held = stage.board().await.kept(&kept_identity).await.unwrap().unwrap();
    assert_eq!((held.fee_wei, held.requester), (7, key(2).address()));
    assert_eq!(held.submitted_in, before + 2);
    stage.publish_elsewhere(&foreign(kept, stage.tag(kept).await)).await;
    assert_eq!(stage.board().await.kept(&kept_identity).await.unwrap(), None);
}

#[tokio::test]
async fn t4_a_cancellation_or_expiry_meant_for_another_task_under_the_id_does_nothing() {
    let stage = Stage::start().await;
    let board = stage.board().await;
    let paid = |digest| Submission { fee: alloy::primitives::U256::from(7), ..request(digest) };
    let id = board.submit(&key(2), &[paid(1)]).await.unwrap().ids[0];
    let old = stage.identity(id).await;
    stage.anvil.reorg(1).await;
    assert_eq!(board.submit(&key(2), &[paid(2)]).await.unwrap().ids[0], id, "the same id again");
    let new = stage.identity(id).await;
    assert_ne!(old.payload, new.payload);
    assert_eq!(board.cancel(&key(2), &old).await.unwrap_err().code(), "unknown_task");
    assert_eq!(board.expire(&key(2), &old).await.unwrap_err().code(), "unknown_task");
    assert_eq!(board.kept(&old).await.unwrap(), None);
    assert_eq!(board.kept(&new).await.unwrap().unwrap().deadline_at, None, "untouched");
    board.cancel(&key(2), &new).await.unwrap();
    assert!(board.kept(&new).await.unwrap().unwrap().deadline_at.is_some());
}

#[tokio::test]
async fn t4_a_free_task_is_cancelled_by_its_own_tag_alone() {
    let stage = Stage::start().await;
    let id = stage.submit(1).await[0];
    let own = stage.identity(id).await;
    let board = stage.board().await;
    let other = task::Identity { payload: task::Hex([9; 32]), ..own.clone() };
    board.cancel(&key(2), &other).await.unwrap();
    assert_eq!(readers(&stage, id).await.0, "requested");
    board.cancel(&key(2), &own).await.unwrap();
    assert_eq!(readers(&stage, id).await.0, "cancelled");
}

/// A whole run beside a coordinator that answers everything with a wrong tag.
#[tokio::test]
async fn a_publisher_s_own_result_is_the_one_that_readers_take() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let id = stage.submit(1).await[0];
    watcher.poll().await.unwrap();
    stage.answer(id, DOCUMENT, true).await;
    let mut publisher = stage.publisher().await;
    stage.until(&mut publisher, id, "final").await;
    wait_for("the result", PATIENCE, async || {
        match stage.board().await.find(id, None).await.unwrap() {
            Found::Answered { result, submission } => {
                assert_eq!(result.document.as_deref(), Some(DOCUMENT.as_bytes()));
                assert_eq!(submission.identity, stage.identity(id).await);
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Publications of every kind in any order, some of them impossible: the contract, a reader that follows the chain, one
/// that looks the task up, and the rule written down here say the same.
#[tokio::test]
async fn t3_readers_agree_with_the_rule_whatever_is_published() {
    let stage = Stage::start().await;
    let mut seed = 7_u64;
    let mut dice = |sides: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % sides
    };
    let mut expected = Vec::new();
    for digest in 1..=12 {
        stage.anvil.mine(2).await;
        let paid = dice(2) == 0;
        let fee = alloy::primitives::U256::from(u8::from(paid));
        let submission = Submission { fee, ..request(digest) };
        let board = stage.board().await;
        let accepted = board.submit(&key(2), &[submission]).await.unwrap();
        let (id, included) = (accepted.ids[0], accepted.receipt.block.number);
        let own = stage.tag(id).await;
        let (mut closed, mut first) = (false, None);
        for _ in 0..dice(6) {
            let tag = if dice(2) == 0 { own } else { Tag(dice(u64::MAX)) };
            let early = dice(3) == 0;
            let again = dice(2) == 0;
            let answer = task_board::Answer {
                again,
                status: u8::try_from(1 + dice(4)).unwrap(),
                ..foreign(id, tag)
            };
            let head = stage.anvil.block_number().await;
            let anchor = if early { included - 1 } else { head };
            let receipt = stage.try_publish_elsewhere_at(&answer, anchor).await;
            let fits = tag == own && !early;
            let taken = match paid {
                true => fits && !again && !closed,
                false => again || !closed,
            };
            assert_eq!(receipt["status"] == "0x1", taken, "{answer:?}, {anchor}: {receipt}");
            closed |= taken;
            if taken && fits && first.is_none() {
                first = Some(answer.status);
            }
        }
        assert_eq!(board.is_closed(id).await.unwrap(), closed);
        expected.push((id, first));
    }
    for (id, first) in expected {
        let (state, found) = readers(&stage, id).await;
        match first {
            Some(status) => {
                assert_eq!(state, "cancelled", "{id} is answered elsewhere");
                assert_eq!(Some(result(found).status), Status::from_number(status), "{id}");
            }
            None => {
                assert_eq!(state, "requested", "{id}");
                strange(&found);
            }
        }
    }
}
