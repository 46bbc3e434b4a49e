//! Which way SQLite takes to what is asked often.
#![allow(clippy::unwrap_used, reason = "tests")]

use sqlx::Row as _;
use task::TaskId;

use crate::{Filter, Queue, Store, outbox, result, task_row};

/// The plan's lines.
async fn plan(store: &Store, sql: &str) -> Vec<String> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!("explain query plan {sql}")))
        .fetch_all(&store.reader)
        .await
        .unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect()
}

#[tokio::test]
async fn v5_nothing_that_is_asked_often_scans_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("coordinator.db")).await.unwrap();
    let by_id = task_row::page(&Filter { task_id: Some(TaskId(1)), ..Filter::default() });
    let by_state = task_row::page(&Filter { state: Some("final".to_owned()), ..Filter::default() });
    let both = task_row::page(&Filter {
        task_id: Some(TaskId(1)),
        state: Some("final".to_owned()),
        ..Filter::default()
    });
    let states: [&[&str]; 2] = [&["ready", "running"], &["requested"]];
    let queue = |states| Queue { states, again: None, now_ms: 0, behind: "", flows: 1, each: 1 };
    let waiting = task_row::waiting_sql(&states.map(queue));
    let queries = [
        (by_id.as_str(), "tasks_id"),
        (&by_state, "tasks_state"),
        (&both, "tasks_"),
        (&waiting, "tasks_flow"),
        (task_row::USE_BEFORE, "tasks_submitted"),
        (result::SETTLED, "tasks_settled"),
        (result::RESULTS_QUEUED, "publications_queued"),
        (outbox::QUEUED_COUNT, "publications_queued"),
    ];
    for (sql, index) in queries {
        let plan = plan(&store, sql).await;
        assert!(plan.iter().any(|line| line.contains(index)), "{sql}: {plan:#?}");
        // Each part of it: an index that only narrows by what most rows have is a scan by another name.
        let others = |line: &String| line.contains("INDEX") && !line.contains(index);
        assert!(!plan.iter().any(others), "{sql}: {plan:#?}");
        // A scan of what the query made itself is none of a table.
        let scans = |line: &String| {
            line.starts_with("SCAN")
                && !line.contains("SCAN f")
                && !line.contains("SCAN CONSTANT")
                && !line.contains("(subquery")
        };
        assert!(!plan.iter().any(scans), "{sql}: {plan:#?}");
    }
    let waiting = plan(&store, &waiting).await;
    let seeks = |line: &&String| {
        line.starts_with("SEARCH x")
            && line.ends_with("(state=? AND flow=? AND due_at_ms>? AND due_at_ms<?)")
    };
    assert_eq!(waiting.iter().filter(seeks).count(), 3, "{waiting:#?}");
    for sql in result::FORGET {
        let plan = plan(&store, sql).await;
        assert!(!plan.iter().any(|line| line.starts_with("SCAN")), "{sql}: {plan:#?}");
    }
    store.close().await;
}
