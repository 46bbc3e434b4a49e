use sqlx::Row as _;
use task::{Event, LocalId};

use crate::{Error, Store, Writer, task_row::json};

/// An event of the log that nobody has applied yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Its place in the log.
    pub seq: i64,
    /// The task.
    pub task: LocalId,
    /// The event.
    pub event: Event,
}

/// One line of a task's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// The event.
    pub event: Event,
    /// When it was seen, in Unix milliseconds.
    pub at_ms: i64,
}

impl Writer {
    /// Appends an event for the pipeline to apply.
    pub async fn append(&mut self, id: LocalId, event: &Event, now_ms: i64) -> Result<(), Error> {
        self.append_row(id, event, now_ms, false).await
    }

    pub(crate) async fn append_row(
        &mut self,
        id: LocalId,
        event: &Event,
        now_ms: i64,
        applied: bool,
    ) -> Result<(), Error> {
        sqlx::query("insert into events (task, name, body, at_ms, applied) values (?, ?, ?, ?, ?)")
            .bind(id.0)
            .bind(event.name())
            .bind(json(event, "an event")?)
            .bind(now_ms)
            .bind(applied)
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing("appending an event"))?;
        Ok(())
    }

    /// Marks an event as applied without changing its task: it did not fit the task's state.
    pub async fn mark_applied(&mut self, seq: i64) -> Result<(), Error> {
        sqlx::query("update events set applied = 1 where seq = ?")
            .bind(seq)
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing("marking an event as applied"))?;
        Ok(())
    }
}

impl Store {
    /// The oldest events that nobody has applied, at most `limit`.
    pub async fn pending_events(&self, limit: u32) -> Result<Vec<EventRow>, Error> {
        let rows = sqlx::query(
            "select seq, task, body from events where applied = 0 order by seq limit ? + 0",
        )
        .bind(limit)
        .fetch_all(&self.reader)
        .await
        .map_err(Error::doing("reading events"))?;
        rows.iter()
            .map(|row| {
                let seq = row.try_get(0).map_err(Error::doing("reading events"))?;
                let task = LocalId(row.try_get(1).map_err(Error::doing("reading events"))?);
                let body: String = row.try_get(2).map_err(Error::doing("reading events"))?;
                let event = serde_json::from_str(&body)
                    .map_err(|error| Error::row(format!("event {seq}"), error))?;
                Ok(EventRow { seq, task, event })
            })
            .collect()
    }

    /// Everything that was seen of a task, oldest first; at most the first 1,000.
    pub async fn timeline(&self, id: LocalId) -> Result<Vec<TimelineEntry>, Error> {
        let rows =
            sqlx::query("select body, at_ms from events where task = ? order by seq limit 1000")
                .bind(id.0)
                .fetch_all(&self.reader)
                .await
                .map_err(Error::doing("reading a timeline"))?;
        rows.iter()
            .map(|row| {
                let body: String = row.try_get(0).map_err(Error::doing("reading a timeline"))?;
                let at_ms = row.try_get(1).map_err(Error::doing("reading a timeline"))?;
                let event = serde_json::from_str(&body)
                    .map_err(|error| Error::row(format!("an event of task {id}"), error))?;
                Ok(TimelineEntry { event, at_ms })
            })
            .collect()
    }
}
