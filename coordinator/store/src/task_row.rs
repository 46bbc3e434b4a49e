use sqlx::{Row as _, sqlite::SqliteRow};
use task::{BlockRef, Effect, Event, Identity, LocalId, Policy, Submission, Task, TaskId};

use crate::{Error, Store, Writer};

/// A task as it was read, with the version that a change compares with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The task.
    pub task: Task,
    /// The row's version.
    pub version: i64,
}

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// The task's row, new or not.
    pub local_id: LocalId,
    /// Whether it is new.
    pub is_new: bool,
}

/// Which tasks a listing shows, newest first.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those in the state of this name.
    pub state: Option<String>,
    /// Only those with this id on their contract.
    pub task_id: Option<TaskId>,
    /// Only those older than this one: the last of the page before.
    pub before: Option<LocalId>,
    /// How many at the most.
    pub limit: u32,
}

impl Writer {
    /// Inserts a task, unless one with the same identity is there. Its submission's block comes with an
    /// [`Event::Included`] that the caller appends.
    pub async fn insert_task(
        &mut self,
        identity: &Identity,
        submission: &Submission,
        now_ms: i64,
    ) -> Result<Inserted, Error> {
        let row = sqlx::query(
            "insert into tasks (chain_id, contract, task_id, payload, requester, submission, state, detail, seen_at_ms)
             values (?, ?, ?, ?, ?, ?, 'requested', '{\"state\":\"requested\"}', ?)
             on conflict (chain_id, contract, task_id, payload) do nothing returning local_id",
        )
        .bind(signed(identity.chain_id))
        .bind(identity.contract.to_string())
        .bind(identity.task_id.to_string())
        .bind(identity.payload.to_string())
        .bind(submission.requester.to_string())
        .bind(json(submission, "a submission")?)
        .bind(now_ms)
        .fetch_optional(&mut *self.transaction)
        .await
        .map_err(Error::doing("inserting a task"))?;
        if let Some(row) = row {
            let local_id = LocalId(row.try_get(0).map_err(Error::doing("inserting a task"))?);
            return Ok(Inserted { local_id, is_new: true });
        }
        let row = sqlx::query(
            "select local_id from tasks where chain_id = ? and contract = ? and task_id = ? and payload = ?",
        )
        .bind(signed(identity.chain_id))
        .bind(identity.contract.to_string())
        .bind(identity.task_id.to_string())
        .bind(identity.payload.to_string())
        .fetch_one(&mut *self.transaction)
        .await
        .map_err(Error::doing("finding a task"))?;
        let local_id = LocalId(row.try_get(0).map_err(Error::doing("finding a task"))?);
        Ok(Inserted { local_id, is_new: false })
    }

    /// Reads a task inside this transaction.
    pub async fn load(&mut self, id: LocalId) -> Result<Versioned, Error> {
        let row = sqlx::query("select * from tasks where local_id = ?")
            .bind(id.0)
            .fetch_optional(&mut *self.transaction)
            .await
            .map_err(Error::doing("reading a task"))?;
        decode(&row.ok_or(Error::NoTask(id))?)
    }

    /// Applies an event to a task as it was read, writes the row by compare-and-set and the event as applied.
    pub async fn apply(
        &mut self,
        before: Versioned,
        event: &Event,
        now_ms: i64,
    ) -> Result<Versioned, Error> {
        let id = before.task.local_id;
        self.append_row(id, event, now_ms, true).await?;
        self.save(before, event).await
    }

    /// Applies an event that is in the log already and marks it as applied.
    pub async fn apply_logged(
        &mut self,
        before: Versioned,
        seq: i64,
        event: &Event,
    ) -> Result<Versioned, Error> {
        self.mark_applied(seq).await?;
        self.save(before, event).await
    }

    async fn save(&mut self, before: Versioned, event: &Event) -> Result<Versioned, Error> {
        let Versioned { task: earlier, version } = before;
        let task = earlier.clone().apply(event)?;
        if task == earlier {
            return Ok(Versioned { task, version });
        }
        // Whether it rests does not depend on the policy: only settled tasks and those with the publisher do.
        let rests = task.next(Policy { publishes: true }, i64::MAX) == Effect::Rest;
        let changed = sqlx::query(
            "update tasks set included_number = ?, included_hash = ?, state = ?, detail = ?, attempts = ?,
             failures = ?, due_at_ms = ?, dirty = ?, rests = ?, version = version + 1
             where local_id = ? and version = ?",
        )
        .bind(task.included.map(|block| signed(block.number)))
        .bind(task.included.map(|block| block.hash.to_string()))
        .bind(task.state.name())
        .bind(json(&task.state, "a state")?)
        .bind(i64::from(task.attempts))
        .bind(i64::from(task.failures))
        .bind(task.due_at_ms)
        .bind(task.dirty)
        .bind(rests)
        .bind(task.local_id.0)
        .bind(version)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("saving a task"))?;
        if changed.rows_affected() == 1 {
            Ok(Versioned { task, version: version + 1 })
        } else {
            Err(Error::Conflict(task.local_id))
        }
    }
}

impl Store {
    /// Reads a task.
    pub async fn task(&self, id: LocalId) -> Result<Option<Versioned>, Error> {
        let row = sqlx::query("select * from tasks where local_id = ?")
            .bind(id.0)
            .fetch_optional(&self.reader)
            .await
            .map_err(Error::doing("reading a task"))?;
        row.as_ref().map(decode).transpose()
    }

    /// Tasks with a step that is due, oldest first; at most `limit`, beginning after `after`.
    pub async fn due(
        &self,
        states: &[&'static str],
        now_ms: i64,
        after: LocalId,
        limit: u32,
    ) -> Result<Vec<Versioned>, Error> {
        // State by state, because an index has the order of one state only: a long queue is never sorted.
        let one =
            "select * from (select * from tasks where rests = 0 and state = ? and local_id > ?
                   and due_at_ms <= ? order by local_id limit ?)";
        let sql = vec![one; states.len()].join(" union all ") + " order by local_id limit ?";
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for state in states {
            query = query.bind(*state).bind(after.0).bind(now_ms).bind(limit);
        }
        let rows = query
            .bind(limit)
            .fetch_all(&self.reader)
            .await
            .map_err(Error::doing("looking for due tasks"))?;
        rows.iter().map(decode).collect()
    }

    /// When the next step that waits is due, in Unix milliseconds.
    pub async fn next_due_at_ms(&self, now_ms: i64) -> Result<Option<i64>, Error> {
        let row = sqlx::query("select min(due_at_ms) from tasks where rests = 0 and due_at_ms > ?")
            .bind(now_ms)
            .fetch_one(&self.reader)
            .await
            .map_err(Error::doing("looking for the next step"))?;
        row.try_get(0).map_err(Error::doing("looking for the next step"))
    }

    /// A page of tasks.
    pub async fn tasks(&self, filter: &Filter) -> Result<Vec<Versioned>, Error> {
        let rows = sqlx::query(
            "select * from tasks where (?1 is null or state = ?1) and (?2 is null or task_id = ?2)
             and (?3 is null or local_id < ?3) order by local_id desc limit ?4",
        )
        .bind(filter.state.as_deref())
        .bind(filter.task_id.map(|id| id.to_string()))
        .bind(filter.before.map(|id| id.0))
        .bind(filter.limit)
        .fetch_all(&self.reader)
        .await
        .map_err(Error::doing("listing tasks"))?;
        rows.iter().map(decode).collect()
    }

    /// How many tasks are in each state, by the state's name; states without a task are left out.
    pub async fn counts(&self) -> Result<Vec<(String, i64)>, Error> {
        let rows = sqlx::query("select state, count(*) from tasks group by state")
            .fetch_all(&self.reader)
            .await
            .map_err(Error::doing("counting tasks"))?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, sqlx::Error>>()
            .map_err(Error::doing("counting tasks"))
    }

    /// How many tasks a requester has submitted since `since_ms` (Unix milliseconds), those before `until`; counts no
    /// further than `most`.
    pub async fn submitted_since(
        &self,
        requester: &task::Address,
        since_ms: i64,
        until: LocalId,
        most: u32,
    ) -> Result<i64, Error> {
        let row = sqlx::query(
            "select count(*) from (select 1 from tasks where requester = ? and seen_at_ms >= ? and local_id < ? limit ?)",
        )
        .bind(requester.to_string())
        .bind(since_ms)
        .bind(until.0)
        .bind(most)
        .fetch_one(&self.reader)
        .await
        .map_err(Error::doing("counting a requester's tasks"))?;
        row.try_get(0).map_err(Error::doing("counting a requester's tasks"))
    }
}

/// A number as SQLite keeps it; chain numbers stay far below its limit.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(crate) fn json<T: serde::Serialize>(value: &T, what: &str) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::row(what, error))
}

fn decode(row: &SqliteRow) -> Result<Versioned, Error> {
    let column = Error::doing("reading a task's columns");
    let read = || -> Result<_, sqlx::Error> {
        Ok((
            row.try_get::<i64, _>("local_id")?,
            row.try_get::<i64, _>("chain_id")?,
            [
                row.try_get::<String, _>("contract")?,
                row.try_get::<String, _>("task_id")?,
                row.try_get::<String, _>("payload")?,
                row.try_get::<String, _>("submission")?,
                row.try_get::<String, _>("detail")?,
            ],
            row.try_get::<Option<i64>, _>("included_number")?,
            row.try_get::<Option<String>, _>("included_hash")?,
            [
                row.try_get::<i64, _>("attempts")?,
                row.try_get::<i64, _>("failures")?,
                row.try_get::<i64, _>("due_at_ms")?,
                row.try_get::<i64, _>("seen_at_ms")?,
                row.try_get::<i64, _>("version")?,
            ],
            row.try_get::<bool, _>("dirty")?,
        ))
    };
    let (local_id, chain_id, texts, number, hash, numbers, dirty) = read().map_err(column)?;
    let [contract, task_id, payload, submission, detail] = texts;
    let [attempts, failures, due_at_ms, seen_at_ms, version] = numbers;
    let bad = |reason: String| Error::row(format!("task {local_id}"), reason);
    let included = match (number, hash) {
        (Some(number), Some(hash)) => Some(BlockRef {
            number: unsigned(number),
            hash: hash.parse().map_err(|e: task::HexError| bad(e.to_string()))?,
        }),
        _ => None,
    };
    Ok(Versioned {
        version,
        task: Task {
            local_id: LocalId(local_id),
            identity: Identity {
                chain_id: unsigned(chain_id),
                contract: contract.parse().map_err(|e: task::HexError| bad(e.to_string()))?,
                task_id: task_id
                    .parse()
                    .map_err(|e: std::num::ParseIntError| bad(e.to_string()))?,
                payload: payload.parse().map_err(|e: task::HexError| bad(e.to_string()))?,
            },
            submission: serde_json::from_str(&submission).map_err(|e| bad(e.to_string()))?,
            included,
            state: serde_json::from_str(&detail).map_err(|e| bad(e.to_string()))?,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            failures: u32::try_from(failures).unwrap_or(u32::MAX),
            due_at_ms,
            dirty,
            seen_at_ms,
        },
    })
}
