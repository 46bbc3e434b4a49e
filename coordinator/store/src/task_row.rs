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
    /// When its block was made, in Unix milliseconds; 0 while that is not known.
    pub submitted_at_ms: i64,
    /// Since when its content is proved to be missing, in Unix milliseconds; 0 while it is not.
    pub missing_since_ms: i64,
}

/// A task that waits for its next step, with what decides whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The task.
    pub id: LocalId,
    /// Its requester, apart for tasks with a fee.
    pub flow: String,
    /// The bits of its fee; 0 for a free one.
    pub weight: u32,
    /// When its step was due, in Unix milliseconds; 0 for a first try.
    pub due_at_ms: i64,
}

/// Which waiting tasks are looked for.
#[derive(Debug, Clone)]
pub struct Queue<'a> {
    /// In which states.
    pub states: &'a [&'static str],
    /// First tries alone (`Some(false)`), later ones alone (`Some(true)`), or both.
    pub again: Option<bool>,
    /// Now, in Unix milliseconds.
    pub now_ms: i64,
    /// Only flows behind this one.
    pub behind: &'a str,
    /// Flows at the most, of each state.
    pub flows: u32,
    /// Tasks of each flow at the most, of each state.
    pub each: u32,
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
        self.insert_task_at(identity, submission, now_ms, now_ms).await
    }

    /// As [`insert_task`](Self::insert_task), with the time of the task's block; 0 while that is not known.
    pub async fn insert_task_at(
        &mut self,
        identity: &Identity,
        submission: &Submission,
        submitted_at_ms: i64,
        now_ms: i64,
    ) -> Result<Inserted, Error> {
        let fee_wei = submission.request.as_ref().map_or(0, |request| request.fee_wei);
        let weight = u128::BITS - fee_wei.leading_zeros();
        let mark = if weight == 0 { "" } else { "$" };
        let row = sqlx::query(
            "insert into tasks (chain_id, contract, task_id, payload, requester, submission, state, detail, seen_at_ms,
             submitted_at_ms, flow, weight)
             values (?, ?, ?, ?, ?, ?, 'requested', '{\"state\":\"requested\"}', ?, ?, ?, ?)
             on conflict (chain_id, contract, task_id, payload) do nothing returning local_id",
        )
        .bind(signed(identity.chain_id))
        .bind(identity.contract.to_string())
        .bind(identity.task_id.to_string())
        .bind(identity.payload.to_string())
        .bind(submission.requester.to_string())
        .bind(json(submission, "a submission")?)
        .bind(now_ms)
        .bind(submitted_at_ms)
        .bind(format!("{mark}{}", submission.requester))
        .bind(weight)
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

    /// Puts a step off without a line in the log: it was put off for the same reason before.
    pub async fn put_off(&mut self, before: &Versioned, until_ms: i64) -> Result<Versioned, Error> {
        let changed = sqlx::query(
            "update tasks set due_at_ms = ?, version = version + 1 where local_id = ? and version = ?",
        )
        .bind(until_ms)
        .bind(before.task.local_id.0)
        .bind(before.version)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("putting a step off"))?;
        if changed.rows_affected() != 1 {
            return Err(Error::Conflict(before.task.local_id));
        }
        let mut after = before.clone();
        after.version += 1;
        after.task.due_at_ms = until_ms;
        Ok(after)
    }

    /// Writes when a task's block was made.
    pub async fn date(&mut self, id: LocalId, submitted_at_ms: i64) -> Result<(), Error> {
        sqlx::query("update tasks set submitted_at_ms = ? where local_id = ?")
            .bind(submitted_at_ms)
            .bind(id.0)
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing("writing when a task was submitted"))?;
        Ok(())
    }

    /// Adds to the time that a task has run, in milliseconds.
    pub async fn add_run_time(&mut self, id: LocalId, ran_ms: i64) -> Result<(), Error> {
        sqlx::query("update tasks set ran_ms = ran_ms + ? where local_id = ?")
            .bind(ran_ms)
            .bind(id.0)
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing("counting a task's time"))?;
        Ok(())
    }

    /// Writes since when a task's content is proved to be missing, in Unix milliseconds; 0 for not.
    pub async fn miss_content(&mut self, id: LocalId, since_ms: i64) -> Result<(), Error> {
        sqlx::query("update tasks set missing_since_ms = ? where local_id = ?")
            .bind(since_ms)
            .bind(id.0)
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing("writing since when content is missing"))?;
        Ok(())
    }

    /// No content is proved to be missing: what was asked for it was itself not well.
    pub async fn doubt_content(&mut self) -> Result<(), Error> {
        sqlx::query(
            "update tasks set missing_since_ms = 0 where rests = 0 and state = 'fetching' and missing_since_ms <> 0",
        )
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("forgetting since when content is missing"))?;
        Ok(())
    }

    async fn save(&mut self, before: Versioned, event: &Event) -> Result<Versioned, Error> {
        let Versioned { task: ref earlier, version, .. } = before;
        let task = earlier.clone().apply(event)?;
        if task == *earlier {
            return Ok(before);
        }
        // Whether it rests does not depend on the policy: only settled tasks and those with the publisher do.
        let rests =
            task.next(Policy { publishes: true, rejections: false }, i64::MAX) == Effect::Rest;
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
            Ok(Versioned { task, version: version + 1, ..before })
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

    /// Tasks whose step is due, for each queue: of each flow the first ones, by the time they were due and then by their
    /// order. No queue is read as a whole: an index has the first of each flow.
    pub async fn waiting(&self, queues: &[Queue<'_>]) -> Result<Vec<Vec<Waiting>>, Error> {
        let doing = "looking for due tasks";
        let mut waiting: Vec<Vec<Waiting>> = vec![Vec::new(); queues.len()];
        if queues.is_empty() {
            return Ok(waiting);
        }
        let sql = waiting_sql(queues);
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for queue in queues {
            query = query
                .bind(queue.behind)
                .bind(queue.flows)
                .bind(if queue.again == Some(true) { 1 } else { i64::MIN })
                .bind(if queue.again == Some(false) { 0 } else { queue.now_ms })
                .bind(queue.each);
        }
        let row = query.fetch_one(&self.reader).await.map_err(Error::doing(doing))?;
        let list: String = row.try_get(0).map_err(Error::doing(doing))?;
        let list: Vec<(usize, i64, String, u32, i64)> = serde_json::from_str(&list)
            .map_err(|error| Error::row("the tasks that are due", error))?;
        for (queue, id, flow, weight, due_at_ms) in list {
            if let Some(waiting) = waiting.get_mut(queue) {
                waiting.push(Waiting { id: LocalId(id), flow, weight, due_at_ms });
            }
        }
        for waiting in &mut waiting {
            waiting.sort_by_key(|task| (task.due_at_ms, task.id));
        }
        Ok(waiting)
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
        let mut query = sqlx::query(sqlx::AssertSqlSafe(page(filter)));
        if let Some(id) = filter.task_id {
            query = query.bind(id.to_string());
        }
        if let Some(state) = &filter.state {
            query = query.bind(state.as_str());
        }
        let rows = query
            .bind(filter.before.map_or(i64::MAX, |id| id.0))
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

    /// What a requester's free tasks came to that were submitted before this one and since `since_ms`, by the time of
    /// their blocks in Unix milliseconds; counts no further than `most` tasks.
    pub async fn use_before(
        &self,
        task: &Versioned,
        since_ms: i64,
        most: u32,
    ) -> Result<Use, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(USE_BEFORE))
            .bind(task.task.submission.requester.to_string())
            .bind(since_ms)
            .bind(task.submitted_at_ms)
            .bind(task.task.local_id.0)
            .bind(most)
            .fetch_one(&self.reader)
            .await
            .map_err(Error::doing("counting a requester's tasks"))?;
        let read = || Ok(Use { tasks: row.try_get(0)?, ran_ms: row.try_get(1)? });
        read().map_err(Error::doing("counting a requester's tasks"))
    }
}

/// What a requester used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// Tasks.
    pub tasks: i64,
    /// Run time, in milliseconds.
    pub ran_ms: i64,
}

/// What waits in some queues, as one statement with one row: each statement and each row is handed between the
/// database's thread and ours on its own. A queue binds five values: the flow before the first, flows, from when and to
/// when due, tasks of a flow. A task whose block is not known waits for that first. The index is named because SQLite left
/// to itself reads all that is due once for each flow.
pub(crate) fn waiting_sql(queues: &[Queue<'_>]) -> String {
    let mut flows = Vec::new();
    let mut tasks = Vec::new();
    for (index, queue) in queues.iter().enumerate() {
        let [behind, most, from, to, each] = [1, 2, 3, 4, 5].map(|value| index * 5 + value);
        for state in queue.states {
            let f = format!("f{}", flows.len());
            let included = match *state {
                "requested" | "fetching" => "and x.included_hash is not null",
                _ => "",
            };
            flows.push(format!(
                "{f} (flow) as (
                   select min(flow) from tasks where rests = 0 and state = '{state}' and flow > ?{behind}
                   union all
                   select (select min(n.flow) from tasks n where n.rests = 0 and n.state = '{state}' and n.flow > {f}.flow)
                   from {f} where {f}.flow is not null limit ?{most} + 0)"
            ));
            tasks.push(format!(
                "select {index} as queue, t.local_id, t.flow, t.weight, t.due_at_ms from {f} cross join tasks t
                 where t.local_id in (select local_id from tasks x indexed by tasks_flow
                   where x.rests = 0 and x.state = '{state}' and x.flow = {f}.flow
                   and x.due_at_ms between ?{from} and ?{to} {included}
                   order by x.due_at_ms, x.local_id limit ?{each} + 0)"
            ));
        }
    }
    format!(
        "with recursive {} select coalesce(json_group_array(json_array(queue, local_id, flow, weight, due_at_ms)), '[]')
         from ({})",
        flows.join(", "),
        tasks.join(" union all ")
    )
}

pub(crate) const USE_BEFORE: &str = "select count(*), coalesce(sum(ran_ms), 0) from (select ran_ms from tasks
     where requester = ?1 and weight = 0 and submitted_at_ms > ?2 and submitted_at_ms <= ?3 and local_id < ?4
     order by submitted_at_ms desc limit ?5 + 0)";

/// The query of a page: each filter that is there has an index that it uses.
pub(crate) fn page(filter: &Filter) -> String {
    let id = filter.task_id.map_or("", |_| "task_id = ? and ");
    let state = filter.state.as_ref().map_or("", |_| "state = ? and ");
    format!("select * from tasks where {id}{state}local_id < ? order by local_id desc limit ? + 0")
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
                row.try_get::<i64, _>("submitted_at_ms")?,
                row.try_get::<i64, _>("missing_since_ms")?,
            ],
            row.try_get::<bool, _>("dirty")?,
        ))
    };
    let (local_id, chain_id, texts, number, hash, numbers, dirty) = read().map_err(column)?;
    let [contract, task_id, payload, submission, detail] = texts;
    let [attempts, failures, due_at_ms, seen_at_ms, version, submitted_at_ms, missing_since_ms] =
        numbers;
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
        submitted_at_ms,
        missing_since_ms,
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
