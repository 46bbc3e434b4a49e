use std::collections::BTreeSet;

use sqlx::{Row as _, sqlite::SqliteRow};
use task::{Address, BlockRef, Hash, LocalId, TaskId};

use crate::{
    Error, Store, Writer,
    task_row::{json, signed, unsigned},
};

/// A contract on a chain: what the watcher's rows are keyed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board {
    /// The chain's id.
    pub chain_id: u64,
    /// The contract.
    pub contract: Address,
}

/// Where the watcher stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainRow {
    /// Hash of the chain's block 0.
    pub genesis: Hash,
    /// The last block whose events are in the log.
    pub cursor: BlockRef,
    /// The sequence that the next task has; 0 while none is known.
    pub next_sequence: u64,
    /// The block up to which the sequence is proved to be whole: a hole that shows later is above it.
    pub sequence_block: u64,
    /// The block up to which everything was read a second time, later.
    pub second_number: u64,
}

/// A block of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingBlock {
    /// The block.
    pub block: BlockRef,
    /// Its parent's hash.
    pub parent: Hash,
    /// The sequence that the next task has after it; 0 where it is not known.
    pub next_sequence: u64,
}

/// What stands in a recent block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SightingKind {
    /// A task's submission.
    Included,
    /// A task's result.
    Answered,
    /// A cancellation that counts.
    Cancelled,
    /// The contract closed the task after its deadline.
    Expired,
}

impl SightingKind {
    const ALL: [Self; 4] = [Self::Included, Self::Answered, Self::Cancelled, Self::Expired];

    fn name(self) -> &'static str {
        match self {
            Self::Included => "included",
            Self::Answered => "answered",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// Something of a task in a recent block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// The task.
    pub task: LocalId,
    /// What it is.
    pub kind: SightingKind,
    /// Where it stands.
    pub block: BlockRef,
    /// The transaction.
    pub transaction: Hash,
    /// Whether this coordinator's key signed it.
    pub ours: bool,
}

/// Blocks below the cursor that the ring reaches back.
const RING_BLOCKS: u64 = 256;

impl Writer {
    /// Writes where the watcher stands, and the newest block of the ring. Blocks and sightings that the ring has no
    /// room for leave; the two newest blocks always stay.
    pub async fn save_chain(
        &mut self,
        board: &Board,
        row: &ChainRow,
        newest: Option<&RingBlock>,
    ) -> Result<(), Error> {
        let doing = "saving the cursor";
        sqlx::query(
            "insert into chains (chain_id, contract, genesis, cursor_number, cursor_hash, next_sequence, sequence_block,
             second_number)
             values (?, ?, ?, ?, ?, ?, ?, ?)
             on conflict (chain_id, contract) do update set cursor_number = excluded.cursor_number,
             cursor_hash = excluded.cursor_hash, next_sequence = excluded.next_sequence,
             sequence_block = excluded.sequence_block, second_number = excluded.second_number",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(row.genesis.to_string())
        .bind(signed(row.cursor.number))
        .bind(row.cursor.hash.to_string())
        .bind(signed(row.next_sequence))
        .bind(signed(row.sequence_block))
        .bind(signed(row.second_number.min(row.cursor.number)))
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing(doing))?;
        let Some(newest) = newest else { return Ok(()) };
        sqlx::query(
            "insert into blocks (chain_id, contract, number, hash, parent, next_sequence) values (?, ?, ?, ?, ?, ?)
             on conflict (chain_id, contract, number) do update set hash = excluded.hash, parent = excluded.parent,
             next_sequence = excluded.next_sequence",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(signed(newest.block.number))
        .bind(newest.block.hash.to_string())
        .bind(newest.parent.to_string())
        .bind(signed(newest.next_sequence))
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing(doing))?;
        sqlx::query(
            "delete from blocks where chain_id = ?1 and contract = ?2 and number < ?3 and number not in
             (select number from blocks where chain_id = ?1 and contract = ?2 order by number desc limit 2)",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(signed(row.cursor.number.saturating_sub(RING_BLOCKS)))
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing(doing))?;
        sqlx::query(
            "delete from sightings where chain_id = ?1 and contract = ?2 and number <=
             min(?3, (select min(number) from blocks where chain_id = ?1 and contract = ?2))",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        // What is read again is known by them.
        .bind(signed(row.second_number.min(row.sequence_block)))
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing(doing))?;
        Ok(())
    }

    /// Removes the ring's blocks above `number`.
    pub async fn cut_ring(&mut self, board: &Board, number: u64) -> Result<(), Error> {
        sqlx::query("delete from blocks where chain_id = ? and contract = ? and number > ?")
            .bind(signed(board.chain_id))
            .bind(board.contract.to_string())
            .bind(signed(number))
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing("cutting the ring"))?;
        Ok(())
    }

    /// Where the watcher stands, inside this transaction.
    pub async fn chain(&mut self, board: &Board) -> Result<Option<ChainRow>, Error> {
        let row = sqlx::query(SELECT_CHAIN)
            .bind(signed(board.chain_id))
            .bind(board.contract.to_string())
            .fetch_optional(&mut *self.transaction)
            .await
            .map_err(Error::doing("reading the cursor"))?;
        row.as_ref().map(chain_row).transpose()
    }

    /// Remembers what stands in a block; answers whether it is new. Reading a block twice changes nothing.
    pub async fn see(&mut self, board: &Board, sighting: &Sighting) -> Result<bool, Error> {
        let done = sqlx::query(
            "insert into sightings (chain_id, contract, number, hash, task, kind, transaction_hash, ours)
             values (?, ?, ?, ?, ?, ?, ?, ?) on conflict do nothing",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(signed(sighting.block.number))
        .bind(sighting.block.hash.to_string())
        .bind(sighting.task.0)
        .bind(sighting.kind.name())
        .bind(sighting.transaction.to_string())
        .bind(sighting.ours)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("remembering a sighting"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Forgets what stood in a block that is gone.
    pub async fn forget_block(&mut self, board: &Board, hash: &Hash) -> Result<(), Error> {
        sqlx::query("delete from sightings where chain_id = ? and contract = ? and hash = ?")
            .bind(signed(board.chain_id))
            .bind(board.contract.to_string())
            .bind(hash.to_string())
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing("forgetting a block"))?;
        Ok(())
    }

    /// The task that has this id on the branch the watcher follows: of several with one id (of branches that are
    /// gone) the one whose block is still there.
    pub async fn task_with_id(
        &mut self,
        board: &Board,
        id: TaskId,
    ) -> Result<Option<LocalId>, Error> {
        let row = sqlx::query(
            "select local_id from tasks where chain_id = ? and contract = ? and task_id = ? order by
             exists (select 1 from sightings where task = local_id and kind = 'included') desc,
             included_hash is not null desc, local_id desc limit 1",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(id.to_string())
        .fetch_optional(&mut *self.transaction)
        .await
        .map_err(Error::doing("finding a task by its id"))?;
        row.map(|row| row.try_get(0).map(LocalId))
            .transpose()
            .map_err(Error::doing("finding a task by its id"))
    }

    /// Those of some ids that no task has or had, as one answer.
    pub async fn unknown_ids(
        &mut self,
        board: &Board,
        ids: &BTreeSet<TaskId>,
    ) -> Result<BTreeSet<TaskId>, Error> {
        let doing = "looking which ids are known";
        let texts: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let row = sqlx::query(
            "select coalesce(json_group_array(value), '[]') from json_each(?) where not exists
             (select 1 from tasks where task_id = value and chain_id = ? and contract = ?)",
        )
        .bind(json(&texts, "ids")?)
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .fetch_one(&mut *self.transaction)
        .await
        .map_err(Error::doing(doing))?;
        let unknown: String = row.try_get(0).map_err(Error::doing(doing))?;
        let unknown: Vec<String> =
            serde_json::from_str(&unknown).map_err(|error| Error::row("a list of ids", error))?;
        unknown.iter().map(|id| id.parse().map_err(|error| Error::row("an id", error))).collect()
    }

    /// Number of the block that a task's submission stands in, as it was seen last; none when that is not known.
    pub async fn included_in(&mut self, task: LocalId) -> Result<Option<u64>, Error> {
        let doing = "finding the block of a submission";
        let row = sqlx::query(
            "select coalesce((select max(number) from sightings where task = ?1 and kind = 'included'),
             (select included_number from tasks where local_id = ?1))",
        )
        .bind(task.0)
        .fetch_one(&mut *self.transaction)
        .await
        .map_err(Error::doing(doing))?;
        let number: Option<i64> = row.try_get(0).map_err(Error::doing(doing))?;
        Ok(number.map(unsigned))
    }
}

const SELECT_CHAIN: &str = "select genesis, cursor_number, cursor_hash, next_sequence, sequence_block, second_number from chains where chain_id = ? and contract = ?";

impl Store {
    /// Where the watcher stands; none before its first block.
    pub async fn chain(&self, board: &Board) -> Result<Option<ChainRow>, Error> {
        let row = sqlx::query(SELECT_CHAIN)
            .bind(signed(board.chain_id))
            .bind(board.contract.to_string())
            .fetch_optional(&self.reader)
            .await
            .map_err(Error::doing("reading the cursor"))?;
        row.as_ref().map(chain_row).transpose()
    }

    /// The chains that a contract is followed on, by id and genesis.
    pub async fn chains_of(&self, contract: &Address) -> Result<Vec<(u64, Hash)>, Error> {
        let doing = "reading the chains of a contract";
        let rows = sqlx::query("select chain_id, genesis from chains where contract = ?")
            .bind(contract.to_string())
            .fetch_all(&self.reader)
            .await
            .map_err(Error::doing(doing))?;
        rows.iter()
            .map(|row| {
                let read = || Ok((row.try_get(0)?, row.try_get::<String, _>(1)?));
                let (chain_id, genesis) = read().map_err(Error::doing(doing))?;
                Ok((unsigned(chain_id), parse(&genesis)?))
            })
            .collect()
    }

    /// The ring of recent blocks, newest first.
    pub async fn ring(&self, board: &Board) -> Result<Vec<RingBlock>, Error> {
        let rows = sqlx::query(
            "select number, hash, parent, next_sequence from blocks where chain_id = ? and contract = ? order by number desc",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .fetch_all(&self.reader)
        .await
        .map_err(Error::doing("reading the ring"))?;
        rows.iter()
            .map(|row| {
                let read = || {
                    Ok((
                        row.try_get(0)?,
                        row.try_get::<String, _>(1)?,
                        row.try_get::<String, _>(2)?,
                        row.try_get::<i64, _>(3)?,
                    ))
                };
                let (number, hash, parent, next) =
                    read().map_err(Error::doing("reading the ring"))?;
                Ok(RingBlock {
                    block: block(number, &hash)?,
                    parent: parse(&parent)?,
                    next_sequence: unsigned(next),
                })
            })
            .collect()
    }

    /// What stands in blocks above `number`, oldest first.
    pub async fn sightings_above(
        &self,
        board: &Board,
        number: u64,
    ) -> Result<Vec<Sighting>, Error> {
        let rows = sqlx::query(
            "select task, kind, number, hash, transaction_hash, ours from sightings
             where chain_id = ? and contract = ? and number > ? order by number, task",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(signed(number))
        .fetch_all(&self.reader)
        .await
        .map_err(Error::doing("reading sightings"))?;
        rows.iter().map(sighting).collect()
    }
}

fn sighting(row: &SqliteRow) -> Result<Sighting, Error> {
    let read = || -> Result<_, sqlx::Error> {
        Ok((
            row.try_get::<i64, _>(0)?,
            row.try_get::<String, _>(1)?,
            row.try_get::<i64, _>(2)?,
            [row.try_get::<String, _>(3)?, row.try_get::<String, _>(4)?],
            row.try_get::<bool, _>(5)?,
        ))
    };
    let (task, kind, number, [hash, transaction], ours) =
        read().map_err(Error::doing("reading sightings"))?;
    let kind = SightingKind::ALL
        .into_iter()
        .find(|known| known.name() == kind)
        .ok_or_else(|| Error::row("a sighting", format!("unknown kind {kind}")))?;
    Ok(Sighting {
        task: LocalId(task),
        kind,
        block: block(number, &hash)?,
        transaction: parse(&transaction)?,
        ours,
    })
}

fn chain_row(row: &SqliteRow) -> Result<ChainRow, Error> {
    let read = || -> Result<_, sqlx::Error> {
        Ok((
            row.try_get::<String, _>(0)?,
            row.try_get::<i64, _>(1)?,
            row.try_get::<String, _>(2)?,
            row.try_get::<i64, _>(3)?,
            row.try_get::<i64, _>(4)?,
            row.try_get::<i64, _>(5)?,
        ))
    };
    let (genesis, number, hash, next, sequence_block, second) =
        read().map_err(Error::doing("reading the cursor"))?;
    Ok(ChainRow {
        genesis: parse(&genesis)?,
        cursor: block(number, &hash)?,
        next_sequence: unsigned(next),
        sequence_block: unsigned(sequence_block),
        second_number: unsigned(second),
    })
}

pub(crate) fn block(number: i64, hash: &str) -> Result<BlockRef, Error> {
    Ok(BlockRef { number: unsigned(number), hash: parse(hash)? })
}

pub(crate) fn parse<const N: usize>(text: &str) -> Result<task::Hex<N>, Error> {
    text.parse().map_err(|error| Error::row("a hash or address", error))
}
