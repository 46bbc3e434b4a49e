//! The store on real SQLite.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use executor_protocol::{Rejection, Status};
use store::{Account, Attempt, Outgoing, OutgoingState};
use store::{
    Error, Filter, Queue, Store,
    fault::{Answer as Looked, Hook},
};
use task::{Answer, BlockRef, Event, Hex, Identity, LocalId, Malformed, Submission, TaskId};

fn identity(sequence: u64, payload: u8) -> Identity {
    Identity {
        chain_id: 31337,
        contract: Hex([1; 20]),
        task_id: TaskId::new(7, false, sequence),
        payload: Hex([payload; 32]),
    }
}

fn submission() -> Submission {
    Submission {
        requester: Hex([2; 20]),
        transaction: None,
        request: Err(Malformed {
            code: Rejection::MalformedRequest,
            message: "not what it should be".to_owned(),
        }),
    }
}

struct Fixture {
    store: Store,
    folder: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("coordinator.db")).await.unwrap();
    Fixture { store, folder }
}

async fn insert(store: &Store, sequence: u64) -> LocalId {
    let mut writer = store.begin().await.unwrap();
    let inserted = writer.insert_task(&identity(sequence, 1), &submission(), 5).await.unwrap();
    writer.commit().await.unwrap();
    inserted.local_id
}

#[tokio::test]
async fn the_same_identity_is_one_task_and_another_payload_is_another() {
    let Fixture { store, .. } = &fixture().await;
    let mut writer = store.begin().await.unwrap();
    let first = writer.insert_task(&identity(1, 1), &submission(), 5).await.unwrap();
    let again = writer.insert_task(&identity(1, 1), &submission(), 6).await.unwrap();
    let other = writer.insert_task(&identity(1, 2), &submission(), 7).await.unwrap();
    writer.commit().await.unwrap();
    assert!(first.is_new && !again.is_new && other.is_new);
    assert_eq!(first.local_id, again.local_id);
    assert_ne!(first.local_id, other.local_id);
    let filter = Filter { task_id: Some(TaskId::new(7, false, 1)), limit: 10, ..Filter::default() };
    assert_eq!(store.tasks(&filter).await.unwrap().len(), 2);
}

#[tokio::test]
async fn of_two_changes_from_one_version_the_second_is_a_conflict() {
    let Fixture { store, .. } = &fixture().await;
    let id = insert(store, 1).await;
    let read = store.task(id).await.unwrap().unwrap();
    let mut writer = store.begin().await.unwrap();
    writer.apply(read.clone(), &Event::FetchStarted, 6).await.unwrap();
    writer.commit().await.unwrap();
    let mut writer = store.begin().await.unwrap();
    let second = writer.apply(read, &Event::FetchStarted, 7).await;
    assert!(matches!(second, Err(Error::Conflict(conflicted)) if conflicted == id));
    drop(writer);
    assert_eq!(store.timeline(id).await.unwrap().len(), 1, "the second left nothing behind");
}

#[tokio::test]
async fn an_event_waits_in_the_log_until_it_is_applied_in_order() {
    let Fixture { store, .. } = &fixture().await;
    let id = insert(store, 1).await;
    let block = BlockRef { number: 3, hash: Hex([3; 32]) };
    let mut writer = store.begin().await.unwrap();
    writer.append(id, &Event::Included { block }, 6).await.unwrap();
    writer.append(id, &Event::Dropped { block }, 7).await.unwrap();
    writer.commit().await.unwrap();
    let pending = store.pending_events(10).await.unwrap();
    assert_eq!(
        pending.iter().map(|row| row.event.name()).collect::<Vec<_>>(),
        ["included", "dropped"]
    );
    let mut writer = store.begin().await.unwrap();
    for row in &pending {
        let before = writer.load(row.task).await.unwrap();
        writer.apply_logged(before, row.seq, &row.event).await.unwrap();
    }
    writer.commit().await.unwrap();
    assert!(store.pending_events(10).await.unwrap().is_empty());
    assert_eq!(store.task(id).await.unwrap().unwrap().task.state.name(), "withheld");
}

#[tokio::test]
async fn what_was_not_committed_never_happened_also_after_a_new_start() {
    let Fixture { store, folder } = fixture().await;
    let id = insert(&store, 1).await;
    let mut writer = store.begin().await.unwrap();
    writer.insert_task(&identity(2, 1), &submission(), 5).await.unwrap();
    drop(writer);
    let instance = store.instance().to_owned();
    store.close().await;
    let store = Store::open(&folder.path().join("coordinator.db")).await.unwrap();
    assert_eq!(store.instance(), instance);
    assert!(store.task(id).await.unwrap().is_some());
    assert_eq!(store.counts().await.unwrap(), [("requested".to_owned(), 1)]);
}

#[tokio::test]
async fn due_tasks_come_oldest_first_and_those_that_wait_or_rest_do_not() {
    let Fixture { store, .. } = &fixture().await;
    let (first, second, third) =
        (insert(store, 1).await, insert(store, 2).await, insert(store, 3).await);
    let mut writer = store.begin().await.unwrap();
    let waiting = writer.load(first).await.unwrap();
    let deferred = Event::Deferred { until_ms: 100, code: "x".to_owned(), message: String::new() };
    writer.apply(waiting, &deferred, 6).await.unwrap();
    let ended = writer.load(second).await.unwrap();
    let answer = Answer { status: Status::Rejected, digest: Hex([0; 32]), code: None };
    let ended = writer.apply(ended, &Event::Finished { answer }, 6).await.unwrap();
    writer.apply(ended, &Event::Retired { reason: String::new() }, 6).await.unwrap();
    writer.commit().await.unwrap();
    let look = async |again, now_ms| {
        let states = &["requested", "fetching", "final"];
        let queue = Queue { states, again, now_ms, behind: "", flows: 9, each: 9 };
        let found = store.waiting(&[queue]).await.unwrap().remove(0);
        found.into_iter().map(|task| task.id).collect::<Vec<_>>()
    };
    assert_eq!(look(None, 99).await, Vec::new(), "a block is not known of any");
    let mut writer = store.begin().await.unwrap();
    for id in [first, third] {
        let block = BlockRef { number: 1, hash: Hex([1; 32]) };
        let before = writer.load(id).await.unwrap();
        writer.apply(before, &Event::Included { block }, 7).await.unwrap();
    }
    writer.commit().await.unwrap();
    assert_eq!(look(None, 99).await, [third]);
    assert_eq!(look(None, 100).await, [third, first]);
    assert_eq!(look(Some(false), 100).await, [third]);
    assert_eq!(look(Some(true), 100).await, [first]);
    assert_eq!(store.next_due_at_ms(50).await.unwrap(), Some(100));
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let Fixture { store, folder } = fixture().await;
    store.close().await;
    let path = folder.path().join("coordinator.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'from the future', 1, x'00', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
    match Store::open(&path).await {
        Err(error) => assert_eq!(error.code(), "database_schema"),
        Ok(_) => panic!("a newer schema was accepted"),
    }
}

#[tokio::test]
async fn old_settled_tasks_are_forgotten_and_those_with_a_step_to_take_are_not() {
    let Fixture { store, .. } = &fixture().await;
    let (ended, open) = (insert(store, 1).await, insert(store, 2).await);
    let mut writer = store.begin().await.unwrap();
    let read = writer.load(ended).await.unwrap();
    let answer = Answer { status: Status::Rejected, digest: Hex([0; 32]), code: None };
    let read = writer.apply(read, &Event::Finished { answer }, 6).await.unwrap();
    writer.apply(read, &Event::Retired { reason: String::new() }, 6).await.unwrap();
    assert_eq!(writer.forget_settled(5, 10).await.unwrap(), 0, "seen at 5, not before it");
    assert_eq!(writer.forget_settled(6, 10).await.unwrap(), 1);
    writer.commit().await.unwrap();
    assert!(store.task(ended).await.unwrap().is_none());
    assert!(store.timeline(ended).await.unwrap().is_empty());
    assert!(store.task(open).await.unwrap().is_some());
}

/// Breaks every commit, before it or after it.
#[derive(Debug)]
struct Breaker {
    before: bool,
    seen: std::sync::Mutex<Vec<String>>,
}

impl Breaker {
    fn answer(&self, breaks: bool) -> Looked<'_> {
        Box::pin(std::future::ready(match breaks {
            true => Err(std::io::Error::other("broken")),
            false => Ok(()),
        }))
    }
}

impl Hook for Breaker {
    fn before<'a>(&'a self, steps: &'a [String]) -> Looked<'a> {
        self.seen.lock().unwrap().extend(steps.iter().cloned());
        self.answer(self.before)
    }

    fn after<'a>(&'a self, _: &'a [String]) -> Looked<'a> {
        self.answer(!self.before)
    }
}

#[tokio::test]
async fn a_commit_that_is_broken_before_it_is_undone_and_one_after_it_is_durable() {
    for before in [true, false] {
        let Fixture { store, folder } = fixture().await;
        let id = insert(&store, 1).await;
        let mut writer = store.begin().await.unwrap();
        writer.append(id, &Event::Expired, 1).await.unwrap();
        writer.commit().await.unwrap();
        let breaker = std::sync::Arc::new(Breaker { before, seen: std::sync::Mutex::default() });
        let path = folder.path().join("coordinator.db");
        let broken = Store::open_with(&path, std::sync::Arc::clone(&breaker) as _).await.unwrap();
        let mut writer = broken.begin().await.unwrap();
        let task = writer.load(id).await.unwrap();
        writer.apply(task, &Event::FetchStarted, 2).await.unwrap();
        writer.append(id, &Event::CancelRequested, 3).await.unwrap();
        writer.mark_applied(1).await.unwrap();
        let error = writer.commit().await.unwrap_err();
        assert_eq!(error.code(), "database_failed");
        let steps = ["applied expired", "fetch_started", "reported cancel_requested"];
        assert_eq!(*breaker.seen.lock().unwrap(), steps);
        let expected = if before { "requested" } else { "fetching" };
        assert_eq!(store.task(id).await.unwrap().unwrap().task.state.name(), expected);
        // A broken commit is over: the next one can begin.
        broken.begin().await.unwrap();
    }
}

#[tokio::test]
async fn old_nonces_that_are_settled_are_forgotten_with_what_was_signed_for_them() {
    let Fixture { store, .. } = &fixture().await;
    let account = Account { chain_id: 31337, sender: Hex([3; 20]) };
    let outgoing = |nonce| Outgoing {
        nonce,
        contract: Hex([1; 20]),
        state: OutgoingState::Open,
        call: "0x".to_owned(),
        gas_limit: 21_000,
        anchor: BlockRef { number: 1, hash: Hex([1; 32]) },
        mined: None,
        attempts: Vec::new(),
    };
    let attempt = |nonce: u8| Attempt {
        hash: Hex([nonce; 32]),
        raw: "0x00".to_owned(),
        max_fee_wei: 1,
        priority_fee_wei: 1,
        signed_at_ms: 5,
    };
    let mut writer = store.begin().await.unwrap();
    for (nonce, state) in [
        (0_u8, OutgoingState::Final),
        (1, OutgoingState::Taken),
        (2, OutgoingState::Mined),
        (3, OutgoingState::Open),
    ] {
        let number = u64::from(nonce);
        writer.sign(&account, &outgoing(number), &attempt(nonce), 5).await.unwrap();
        writer.mark_nonce(&account, number, state, None).await.unwrap();
    }
    writer.forget_settled(5, 10).await.unwrap();
    assert!(writer.has_attempt(&Hex([0; 32])).await.unwrap(), "signed at 5, not before it");
    writer.forget_settled(6, 10).await.unwrap();
    for (nonce, kept) in [(0, false), (1, false), (2, true), (3, true)] {
        assert_eq!(writer.has_attempt(&Hex([nonce; 32])).await.unwrap(), kept, "nonce {nonce}");
    }
    drop(writer);
}

fn asks(requester: u8, fee_wei: u128) -> Submission {
    let request = task::Request {
        kind: task::Kind::Wasm,
        module: None,
        input: None,
        entry: None,
        timeout_s: None,
        memory_mib: None,
        fuel: None,
        deadline_at: None,
        fee_wei,
        callback_gas: 0,
        environment: Vec::new(),
    };
    Submission { requester: Hex([requester; 20]), transaction: None, request: Ok(request) }
}

#[tokio::test]
async fn v1_of_each_requester_the_first_are_found_however_long_anothers_queue_is() {
    let Fixture { store, .. } = &fixture().await;
    let mut writer = store.begin().await.unwrap();
    let block = BlockRef { number: 1, hash: Hex([1; 32]) };
    let mut sequence = 0;
    for (requester, fee_wei, count) in [(9, 0, 500), (3, 0, 1), (3, 7, 2), (4, 0, 1)] {
        for _ in 0..count {
            sequence += 1;
            let asked = asks(requester, fee_wei);
            let new = writer.insert_task_at(&identity(sequence, 1), &asked, 5, 6).await.unwrap();
            let before = writer.load(new.local_id).await.unwrap();
            writer.apply(before, &Event::Included { block }, 7).await.unwrap();
        }
    }
    writer.commit().await.unwrap();
    let look = async |behind: &str, flows| {
        let states = &["requested"];
        let queue = Queue { states, again: None, now_ms: 9, behind, flows, each: 2 };
        let found = store.waiting(&[queue]).await.unwrap().remove(0);
        found.into_iter().map(|task| (task.id.0, task.weight)).collect::<Vec<_>>()
    };
    // A flow with a fee stands by itself, with the bits of the fee.
    assert_eq!(look("", 9).await, [(1, 0), (2, 0), (501, 0), (502, 3), (503, 3), (504, 0)]);
    // Those that had no turn are found behind the last one that had.
    let three = format!("{}", Hex([3; 20]));
    assert_eq!(look(&three, 9).await, [(1, 0), (2, 0), (504, 0)]);
    assert_eq!(look("", 1).await, [(502, 3), (503, 3)]);
}

#[tokio::test]
async fn v2_what_a_requester_used_is_counted_by_the_time_of_the_blocks() {
    const HOUR_MS: i64 = 3_600_000;
    let Fixture { store, .. } = &fixture().await;
    let mut writer = store.begin().await.unwrap();
    let mut ids = Vec::new();
    // Submitted over five hours, all read at once.
    for hour in 0..5 {
        for n in 0..3 {
            let sequence = u64::try_from(hour * 3 + n + 1).unwrap();
            let at_ms = hour * HOUR_MS + n * 1000 + 1;
            let new = writer
                .insert_task_at(&identity(sequence, 1), &asks(3, 0), at_ms, 9 * HOUR_MS)
                .await
                .unwrap();
            writer.add_run_time(new.local_id, 100).await.unwrap();
            ids.push(new.local_id);
        }
    }
    let paid = writer.insert_task_at(&identity(99, 1), &asks(3, 5), 1, 9 * HOUR_MS).await.unwrap();
    writer.add_run_time(paid.local_id, 1_000_000).await.unwrap();
    writer.commit().await.unwrap();
    for (n, id) in ids.iter().enumerate() {
        let task = store.task(*id).await.unwrap().unwrap();
        let used = store.use_before(&task, task.submitted_at_ms - HOUR_MS, 10).await.unwrap();
        // The one at the same moment of the hour before is a whole hour ago.
        let wanted = i64::try_from(if n < 3 { n } else { 2 }).unwrap();
        assert_eq!((used.tasks, used.ran_ms), (wanted, wanted * 100), "{n}");
    }
}

#[tokio::test]
async fn v11_rejections_are_paid_from_the_budget_of_the_day() {
    let Fixture { store, .. } = &fixture().await;
    for (day, cost_wei, wanted) in
        [(1, 60, true), (1, 60, false), (1, 40, true), (1, 1, false), (2, 100, true), (2, 1, false)]
    {
        let mut writer = store.begin().await.unwrap();
        assert_eq!(writer.spend_on_rejection(day, cost_wei, 100).await.unwrap(), wanted);
        writer.commit().await.unwrap();
    }
}
