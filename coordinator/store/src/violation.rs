use sqlx::{Row as _, sqlite::SqliteRow};
use task::{BlockRef, LocalId};

use crate::{
    Board, Error, Store, Writer,
    chain::block,
    task_row::{signed, unsigned},
};

/// The chain took back what the confirmations called final: until it is over nothing is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The block that had been read last and is gone.
    pub block: BlockRef,
    /// Number of the newest block that both branches have; none when it is below everything that is remembered.
    pub ancestor: Option<u64>,
    /// Somebody accepted the new branch, and the contract is to be read anew from its beginning.
    pub accepted: bool,
    /// When it was noticed, in Unix milliseconds.
    pub raised_at_ms: i64,
    /// Tasks that had been final and do not stand on the branch that is followed now.
    pub lost: u64,
}

const SELECT: &str = "select number, hash, ancestor, accepted, raised_at_ms,
    (select count(*) from lost_tasks l join tasks t on t.local_id = l.task
     where t.chain_id = v.chain_id and t.contract = v.contract) as lost
    from violations v where chain_id = ? and contract = ?";

impl Writer {
    /// The violation that is not over, inside this transaction.
    pub async fn violation(&mut self, board: &Board) -> Result<Option<Violation>, Error> {
        let row = sqlx::query(SELECT)
            .bind(signed(board.chain_id))
            .bind(board.contract.to_string())
            .fetch_optional(&mut *self.transaction)
            .await
            .map_err(Error::doing("reading a violation of finality"))?;
        row.as_ref().map(violation).transpose()
    }

    /// Raises a violation; one that is not over grows: the highest block that is gone, the lowest ancestor.
    pub async fn raise_violation(
        &mut self,
        board: &Board,
        gone: &BlockRef,
        ancestor: Option<u64>,
        now_ms: i64,
    ) -> Result<(), Error> {
        sqlx::query(
            "insert into violations (chain_id, contract, number, hash, ancestor, raised_at_ms) values (?, ?, ?, ?, ?, ?)
             on conflict (chain_id, contract) do update set
             hash = case when excluded.number > number then excluded.hash else hash end,
             number = max(number, excluded.number), ancestor = min(ancestor, excluded.ancestor),
             accepted = accepted and excluded.ancestor is null",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(signed(gone.number))
        .bind(gone.hash.to_string())
        .bind(ancestor.map(signed))
        .bind(now_ms)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("raising a violation of finality"))?;
        Ok(())
    }

    /// Remembers that a task was final and its submission is gone.
    pub async fn lose_task(&mut self, task: LocalId) -> Result<(), Error> {
        sqlx::query("insert into lost_tasks (task) values (?) on conflict do nothing")
            .bind(task.0)
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing("remembering a lost task"))?;
        Ok(())
    }

    /// A task that may have been lost stands again.
    pub async fn find_task(&mut self, task: LocalId) -> Result<(), Error> {
        sqlx::query("delete from lost_tasks where task = ?")
            .bind(task.0)
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing("finding a lost task"))?;
        Ok(())
    }

    /// Ends a violation: everything that had been final stands again, or somebody accepted that it does not.
    pub async fn end_violation(&mut self, board: &Board) -> Result<(), Error> {
        let doing = "ending a violation of finality";
        sqlx::query(
            "delete from lost_tasks where task in (select local_id from tasks where chain_id = ? and contract = ?)",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing(doing))?;
        sqlx::query("delete from violations where chain_id = ? and contract = ?")
            .bind(signed(board.chain_id))
            .bind(board.contract.to_string())
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing(doing))?;
        Ok(())
    }

    /// Accepts the branch that the chain has now, for every contract that is watched; answers how many violations that
    /// ended. One that forks below everything that is remembered ends when the contract was read anew.
    pub async fn accept_violations(&mut self) -> Result<u64, Error> {
        let doing = "accepting a violation of finality";
        let deep = sqlx::query("update violations set accepted = 1 where ancestor is null")
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing(doing))?;
        sqlx::query(
            "delete from lost_tasks where task in (select t.local_id from tasks t join violations v
             on v.chain_id = t.chain_id and v.contract = t.contract where v.ancestor is not null)",
        )
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing(doing))?;
        let ended = sqlx::query("delete from violations where ancestor is not null")
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing(doing))?;
        Ok(deep.rows_affected() + ended.rows_affected())
    }

    /// Every task of a contract whose submission stands in a block above `number`, with that block.
    pub async fn included_above(
        &mut self,
        board: &Board,
        number: u64,
    ) -> Result<Vec<(LocalId, BlockRef)>, Error> {
        let doing = "reading the tasks above a block";
        let rows = sqlx::query(
            "select local_id, included_number, included_hash from tasks where chain_id = ? and contract = ?
             and included_number > ? order by local_id",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(signed(number))
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(Error::doing(doing))?;
        rows.iter()
            .map(|row| {
                let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<String, _>(2)?));
                let (task, number, hash) = read().map_err(Error::doing(doing))?;
                Ok((LocalId(task), block(number, &hash)?))
            })
            .collect()
    }

    /// Forgets every block and sighting of a contract: it is read anew.
    pub async fn forget_chain(&mut self, board: &Board) -> Result<(), Error> {
        for table in ["sightings", "blocks"] {
            let sql = format!("delete from {table} where chain_id = ? and contract = ?");
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(signed(board.chain_id))
                .bind(board.contract.to_string())
                .execute(&mut *self.transaction)
                .await
                .map_err(Error::doing("forgetting the blocks of a contract"))?;
        }
        Ok(())
    }
}

impl Store {
    /// The violation that is not over.
    pub async fn violation(&self, board: &Board) -> Result<Option<Violation>, Error> {
        let row = sqlx::query(SELECT)
            .bind(signed(board.chain_id))
            .bind(board.contract.to_string())
            .fetch_optional(&self.reader)
            .await
            .map_err(Error::doing("reading a violation of finality"))?;
        row.as_ref().map(violation).transpose()
    }
}

fn violation(row: &SqliteRow) -> Result<Violation, Error> {
    let read = || -> Result<_, sqlx::Error> {
        Ok((
            row.try_get::<i64, _>(0)?,
            row.try_get::<String, _>(1)?,
            row.try_get::<Option<i64>, _>(2)?,
            row.try_get::<bool, _>(3)?,
            row.try_get::<i64, _>(4)?,
            row.try_get::<i64, _>(5)?,
        ))
    };
    let (number, hash, ancestor, accepted, raised_at_ms, lost) =
        read().map_err(Error::doing("reading a violation of finality"))?;
    Ok(Violation {
        block: block(number, &hash)?,
        ancestor: ancestor.map(unsigned),
        accepted,
        raised_at_ms,
        lost: unsigned(lost),
    })
}
