use sqlx::Row as _;
use task::{
    BlockRef, Identity, LocalId,
    publication::{Event as PublicationEvent, Publication as Standing},
};

use crate::{Error, Store, Writer, task_row::signed};

/// A task's result document and the record beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultRow {
    /// The document's text.
    pub document: String,
    /// SHA-256 of it, as 0x-hex.
    pub digest: String,
    /// The record as JSON: measurements, limits, isolation.
    pub record: Option<String>,
}

/// What is to be published for one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The task.
    pub task: LocalId,
    /// What it is on chain.
    pub identity: Identity,
    /// The status, as the contract numbers it.
    pub status: u8,
    /// SHA-256 of the document, as 0x-hex.
    pub digest: String,
    /// The document when it goes on chain itself.
    pub document: Option<String>,
    /// Gas that its callback may take; 0 for none.
    pub callback_gas: u32,
    /// The block of its submission: the anchor is at or after it.
    pub included: BlockRef,
}

impl Writer {
    /// Keeps a task's result; a second one for the same task replaces it.
    pub async fn save_result(
        &mut self,
        id: LocalId,
        result: &ResultRow,
        now_ms: i64,
    ) -> Result<(), Error> {
        sqlx::query(
            "insert into results (task, document, digest, record, at_ms) values (?, ?, ?, ?, ?)
             on conflict (task) do update set document = excluded.document, digest = excluded.digest,
             record = excluded.record, at_ms = excluded.at_ms",
        )
        .bind(id.0)
        .bind(&result.document)
        .bind(&result.digest)
        .bind(result.record.as_deref())
        .bind(now_ms)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("saving a result"))?;
        Ok(())
    }

    /// Hands a result to the publisher. What was published or signed for the task before, on a branch that is gone or
    /// that came back, decides what is left to do; the transactions that were signed stay in the outbox.
    pub async fn queue_publication(
        &mut self,
        publication: &Publication,
        now_ms: i64,
    ) -> Result<(), Error> {
        let earlier = self.publication(publication.task).await?;
        let standing = match &earlier {
            None => Standing::new(publication.included),
            Some(earlier) => {
                let changed = earlier.publication.digest != publication.digest;
                let event = PublicationEvent::Queued { included: publication.included, changed };
                earlier.standing.clone().apply(&event)?
            }
        };
        sqlx::query(
            "insert into publications (task, chain_id, contract, task_id, status, digest, document, callback_gas,
             included_number, included_hash, state, queued_at_ms) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?)
             on conflict (task) do update set status = excluded.status, digest = excluded.digest,
             document = excluded.document, queued_at_ms = excluded.queued_at_ms",
        )
        .bind(publication.task.0)
        .bind(signed(publication.identity.chain_id))
        .bind(publication.identity.contract.to_string())
        .bind(publication.identity.task_id.to_string())
        .bind(i64::from(publication.status))
        .bind(&publication.digest)
        .bind(publication.document.as_deref())
        .bind(i64::from(publication.callback_gas))
        .bind(signed(publication.included.number))
        .bind(publication.included.hash.to_string())
        .bind(now_ms)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("queueing a publication"))?;
        self.save_standing(publication.task, None, &standing).await?;
        // Whether its old transaction stands on this branch its nonce tells, also one that was settled.
        if earlier.is_some()
            && let Some(nonce) = standing.state.nonce()
        {
            self.reopen_nonce_of(publication.task, nonce).await?;
        }
        Ok(())
    }

    /// Takes a publication back that has not been signed yet; one that has stays.
    pub async fn withdraw_publication(&mut self, id: LocalId) -> Result<(), Error> {
        sqlx::query(
            "delete from publications where task = ? and state = 'queued' and nonce is null",
        )
        .bind(id.0)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("withdrawing a publication"))?;
        Ok(())
    }
}

/// Tasks that may be forgotten, the oldest first.
pub(crate) const SETTLED: &str =
    "select local_id from tasks indexed by tasks_settled where rests = 1 and state in ('final', 'cancelled')
     and seen_at_ms < ?
     order by seen_at_ms, local_id limit ? + 0";
/// A result that waits for a transaction and is no rejection.
pub(crate) const RESULTS_QUEUED: &str =
    "select 1 from publications where state = 'queued' and chain_id = ?
     and contract = ? and status <> 4 limit 1";
/// What is forgotten of one task, the task itself last.
pub(crate) const FORGET: &[&str] = &[
    "delete from events where task = ?",
    "delete from results where task = ?",
    "delete from publications where task = ?",
    "delete from sightings where task = ?",
    "delete from lost_tasks where task = ?",
    "delete from tasks where local_id = ?",
];

impl Writer {
    /// Forgets settled tasks that were seen before `before_ms` (Unix milliseconds), with their events, results and
    /// publications; at most `limit`. Answers how many. Nonces of that age that are settled and hold nothing any more go too,
    /// with everything that was signed for them.
    pub async fn forget_settled(&mut self, before_ms: i64, limit: u32) -> Result<u64, Error> {
        let doing = Error::doing;
        let rows = sqlx::query(SETTLED)
            .bind(before_ms)
            .bind(limit)
            .fetch_all(&mut *self.transaction)
            .await
            .map_err(doing("looking for old tasks"))?;
        for row in &rows {
            let id: i64 = row.try_get(0).map_err(doing("looking for old tasks"))?;
            for sql in FORGET {
                sqlx::query(*sql)
                    .bind(id)
                    .execute(&mut *self.transaction)
                    .await
                    .map_err(doing("forgetting an old task"))?;
            }
        }
        // A transaction is kept as long as a reorganisation that is followed could take its block back. The signed bytes
        // go first: they refer to the nonce.
        let old = "select o.chain_id, o.sender, o.nonce from outbox o where o.state in ('final', 'taken') and o.created_at_ms < ?1
                   and not exists (select 1 from publications p where p.chain_id = o.chain_id
                   and p.sender = o.sender and p.nonce = o.nonce)
                   and not exists (select 1 from withdrawals w where w.chain_id = o.chain_id
                   and w.sender = o.sender and w.nonce = o.nonce and w.state not in ('final', 'given_up'))
                   and coalesce(o.mined_number, -1) < coalesce((select min(b.number) from blocks b
                   where b.chain_id = o.chain_id and b.contract = o.contract), 9223372036854775807)
                   order by o.nonce limit ?2 + 0";
        let floor = format!(
            "insert into accounts (chain_id, sender, floor) select chain_id, sender, max(nonce) + 1 from ({old})
             where true group by chain_id, sender
             on conflict (chain_id, sender) do update set floor = max(floor, excluded.floor)"
        );
        sqlx::query(sqlx::AssertSqlSafe(floor))
            .bind(before_ms)
            .bind(limit)
            .execute(&mut *self.transaction)
            .await
            .map_err(doing("remembering which nonces were used"))?;
        for table in ["attempts", "outbox"] {
            let sql = format!("delete from {table} where (chain_id, sender, nonce) in ({old})");
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(before_ms)
                .bind(limit)
                .execute(&mut *self.transaction)
                .await
                .map_err(doing("forgetting old nonces"))?;
        }
        Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
    }
}

impl Writer {
    /// Takes what publishing a rejection costs from the day's budget (days since 1970); answers whether there was enough.
    pub async fn spend_on_rejection(
        &mut self,
        day: i64,
        cost_wei: u128,
        budget_wei: u128,
    ) -> Result<bool, Error> {
        let doing = "counting what rejections cost";
        let row = sqlx::query("select wei from rejection_spend where day = ?")
            .bind(day)
            .fetch_optional(&mut *self.transaction)
            .await
            .map_err(Error::doing(doing))?;
        let spent: u128 = match row {
            None => 0,
            Some(row) => {
                let text: String = row.try_get(0).map_err(Error::doing(doing))?;
                text.parse().map_err(|error| Error::row("the cost of rejections", error))?
            }
        };
        let spent = spent.saturating_add(cost_wei);
        if spent > budget_wei {
            return Ok(false);
        }
        sqlx::query(
            "insert into rejection_spend (day, wei) values (?, ?) on conflict (day) do update set wei = excluded.wei",
        )
        .bind(day)
        .bind(spent.to_string())
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing(doing))?;
        sqlx::query("delete from rejection_spend where day < ?")
            .bind(day - 30)
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing(doing))?;
        Ok(true)
    }
}

impl Writer {
    /// Keeps the end of what a task's guest wrote, beside its result.
    pub async fn save_log(&mut self, id: LocalId, log: &str) -> Result<(), Error> {
        sqlx::query("update results set log = ? where task = ?")
            .bind(log)
            .bind(id.0)
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing("saving what a guest wrote"))?;
        Ok(())
    }
}

impl Store {
    /// The end of what a task's guest wrote; none when it wrote nothing or did not end yet.
    pub async fn log(&self, id: LocalId) -> Result<Option<String>, Error> {
        let row = sqlx::query("select log from results where task = ?")
            .bind(id.0)
            .fetch_optional(&self.reader)
            .await
            .map_err(Error::doing("reading what a guest wrote"))?;
        let read = |row: sqlx::sqlite::SqliteRow| row.try_get::<Option<String>, _>(0);
        let log = row.map(read).transpose().map_err(Error::doing("reading what a guest wrote"))?;
        Ok(log.flatten())
    }

    /// Whether a result that is no rejection waits for a transaction.
    pub async fn results_are_queued(&self, identity: &Identity) -> Result<bool, Error> {
        let row = sqlx::query(RESULTS_QUEUED)
            .bind(signed(identity.chain_id))
            .bind(identity.contract.to_string())
            .fetch_optional(&self.reader)
            .await
            .map_err(Error::doing("looking at the queue of publications"))?;
        Ok(row.is_some())
    }

    /// A task's result, once there is one.
    pub async fn result(&self, id: LocalId) -> Result<Option<ResultRow>, Error> {
        let row = sqlx::query("select document, digest, record from results where task = ?")
            .bind(id.0)
            .fetch_optional(&self.reader)
            .await
            .map_err(Error::doing("reading a result"))?;
        let read = |row: sqlx::sqlite::SqliteRow| -> Result<_, sqlx::Error> {
            Ok(ResultRow {
                document: row.try_get(0)?,
                digest: row.try_get(1)?,
                record: row.try_get(2)?,
            })
        };
        row.map(read).transpose().map_err(Error::doing("reading a result"))
    }
}
