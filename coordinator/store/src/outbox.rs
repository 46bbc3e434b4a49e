use sqlx::{Row as _, sqlite::SqliteRow};
use task::{Address, BlockRef, Hash, Identity, LocalId, TaskId};

use crate::{
    Board, Error, Publication, Store, Writer,
    chain::{block, parse},
    task_row::{signed, unsigned},
};

/// An account on a chain: what nonces are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// The chain's id.
    pub chain_id: u64,
    /// The account.
    pub sender: Address,
}

/// A publication with where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// What is published.
    pub publication: Publication,
    /// Where it stands.
    pub state: PendingState,
    /// How often it was sent without effect.
    pub tries: u32,
    /// The contract's reason, if it did not take it.
    pub refusal: Option<(String, String)>,
}

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            fn parse(text: &str) -> Result<Self, Error> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    other => Err(Error::row("a state", other)),
                }
            }
        }
    };
}

states! {
    /// Where a publication stands.
    PendingState {
        /// It has no nonce yet.
        Queued = "queued",
        /// The block of its task is gone.
        Withheld = "withheld",
        /// A signed transaction holds it.
        Sent = "sent",
        /// It stands on chain.
        Mined = "mined",
        /// The contract did not take it; that is told once the transaction is final.
        Refused = "refused",
        /// Nothing more happens to it.
        Settled = "settled",
    }
}

states! {
    /// Where a nonce stands.
    OutgoingState {
        /// None of its transactions is known to be mined.
        Open = "open",
        /// One of its transactions is mined.
        Mined = "mined",
        /// That one is as deep as the confirmations ask.
        Final = "final",
        /// Somebody else's transaction has the nonce.
        Taken = "taken",
    }
}

/// Where a transaction was mined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mined {
    /// The transaction.
    pub transaction: Hash,
    /// The block.
    pub block: BlockRef,
}

/// One transaction that was signed for a nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its hash.
    pub hash: Hash,
    /// The signed bytes, as 0x-hex.
    pub raw: String,
    /// The highest price of a unit of gas, in wei.
    pub max_fee_wei: u128,
    /// The tip of a unit of gas, in wei.
    pub priority_fee_wei: u128,
    /// When it was signed, in Unix milliseconds.
    pub signed_at_ms: i64,
}

/// A nonce and everything that was ever signed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The nonce.
    pub nonce: u64,
    /// The contract that is called.
    pub contract: Address,
    /// Where it stands.
    pub state: OutgoingState,
    /// The newest attempt's call data as 0x-hex; `0x` for an empty transfer that only uses the nonce up.
    pub call: String,
    /// The newest attempt's gas limit.
    pub gas_limit: u64,
    /// The newest attempt's anchor.
    pub anchor: BlockRef,
    /// Where it was mined.
    pub mined: Option<Mined>,
    /// Every transaction signed for it, oldest first.
    pub attempts: Vec<Attempt>,
}

impl Writer {
    /// Publications that wait for a transaction, oldest first.
    pub async fn queued(&mut self, board: &Board, limit: u32) -> Result<Vec<Pending>, Error> {
        let rows = sqlx::query(
            "select p.*, t.payload from publications p join tasks t on t.local_id = p.task
             where p.state = 'queued' and p.chain_id = ? and p.contract = ? order by p.queued_at_ms, p.task limit ?",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(limit)
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(Error::doing("reading the queue of publications"))?;
        rows.iter().map(pending).collect()
    }

    /// The publications that a nonce holds.
    pub async fn held_by(&mut self, account: &Account, nonce: u64) -> Result<Vec<Pending>, Error> {
        let rows = sqlx::query(
            "select p.*, t.payload from publications p join tasks t on t.local_id = p.task
             where p.chain_id = ? and p.sender = ? and p.nonce = ? order by p.task",
        )
        .bind(signed(account.chain_id))
        .bind(account.sender.to_string())
        .bind(signed(nonce))
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(Error::doing("reading a nonce's publications"))?;
        rows.iter().map(pending).collect()
    }

    /// The publications of tasks with this id: one of each branch that had it.
    pub async fn publications_with_id(
        &mut self,
        board: &Board,
        id: TaskId,
    ) -> Result<Vec<Pending>, Error> {
        let rows = sqlx::query(
            "select p.*, t.payload from publications p join tasks t on t.local_id = p.task
             where p.chain_id = ? and p.contract = ? and p.task_id = ? order by p.task desc",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(id.to_string())
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(Error::doing("reading an id's publications"))?;
        rows.iter().map(pending).collect()
    }

    /// Gives a publication to a nonce.
    pub async fn assign(
        &mut self,
        task: LocalId,
        account: &Account,
        nonce: u64,
    ) -> Result<(), Error> {
        self.set_publication(task, PendingState::Sent, Some((account, nonce)), None).await
    }

    /// Writes where a publication stands; it stays with its nonce.
    pub async fn settle(
        &mut self,
        task: LocalId,
        state: PendingState,
        refusal: Option<(&str, &str)>,
    ) -> Result<(), Error> {
        sqlx::query("update publications set state = ?, code = ?, message = ? where task = ?")
            .bind(state.text())
            .bind(refusal.map(|(code, _)| code))
            .bind(refusal.map(|(_, message)| message))
            .bind(task.0)
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing("settling a publication"))?;
        Ok(())
    }

    /// Takes a publication from its nonce and queues it again; `failed` counts the try.
    pub async fn requeue(&mut self, task: LocalId, failed: bool) -> Result<(), Error> {
        sqlx::query("update publications set tries = tries + ? where task = ?")
            .bind(failed)
            .bind(task.0)
            .execute(&mut *self.transaction)
            .await
            .map_err(Error::doing("queueing a publication again"))?;
        self.set_publication(task, PendingState::Queued, None, None).await
    }

    async fn set_publication(
        &mut self,
        task: LocalId,
        state: PendingState,
        holder: Option<(&Account, u64)>,
        refusal: Option<(&str, &str)>,
    ) -> Result<(), Error> {
        sqlx::query(
            "update publications set state = ?, sender = ?, nonce = ?, code = ?, message = ? where task = ?",
        )
        .bind(state.text())
        .bind(holder.map(|(account, _)| account.sender.to_string()))
        .bind(holder.map(|(_, nonce)| signed(nonce)))
        .bind(refusal.map(|(code, _)| code))
        .bind(refusal.map(|(_, message)| message))
        .bind(task.0)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("writing a publication"))?;
        Ok(())
    }

    /// Withholds what is to be published for tasks of a block that is gone.
    pub async fn withhold(&mut self, board: &Board, gone: &Hash) -> Result<(), Error> {
        sqlx::query(
            "update publications set state = 'withheld' where chain_id = ? and contract = ? and included_hash = ?
             and state in ('queued', 'sent', 'mined')",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(gone.to_string())
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("withholding publications"))?;
        Ok(())
    }

    /// Has the publisher look again at transactions that stood in a block that is gone.
    pub async fn reopen(&mut self, board: &Board, gone: &Hash) -> Result<(), Error> {
        sqlx::query(
            "update outbox set state = 'mined' where chain_id = ? and contract = ? and mined_hash = ? and state = 'final'",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(gone.to_string())
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("reopening transactions"))?;
        Ok(())
    }

    /// Whether the outbox has this transaction.
    pub async fn has_attempt(&mut self, hash: &Hash) -> Result<bool, Error> {
        let row = sqlx::query("select 1 from attempts where hash = ?")
            .bind(hash.to_string())
            .fetch_optional(&mut *self.transaction)
            .await
            .map_err(Error::doing("looking for a transaction"))?;
        Ok(row.is_some())
    }

    /// The lowest nonce from `from` on that the outbox has not taken.
    pub async fn free_nonce(&mut self, account: &Account, from: u64) -> Result<u64, Error> {
        let rows = sqlx::query(
            "select nonce from outbox where chain_id = ? and sender = ? and nonce >= ? order by nonce",
        )
        .bind(signed(account.chain_id))
        .bind(account.sender.to_string())
        .bind(signed(from))
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(Error::doing("looking for a free nonce"))?;
        let mut free = from;
        for row in rows {
            let taken: i64 = row.try_get(0).map_err(Error::doing("looking for a free nonce"))?;
            if unsigned(taken) != free {
                break;
            }
            free += 1;
        }
        Ok(free)
    }

    /// Writes a nonce's newest call with its newest attempt: the intent and the signed bytes, before any broadcast.
    pub async fn sign(
        &mut self,
        account: &Account,
        outgoing: &Outgoing,
        attempt: &Attempt,
        now_ms: i64,
    ) -> Result<(), Error> {
        let doing = "storing a signed transaction";
        sqlx::query(
            "insert into outbox (chain_id, sender, nonce, contract, state, call, gas_limit, anchor_number, anchor_hash,
             created_at_ms) values (?, ?, ?, ?, 'open', ?, ?, ?, ?, ?)
             on conflict (chain_id, sender, nonce) do update set contract = excluded.contract, call = excluded.call,
             gas_limit = excluded.gas_limit, anchor_number = excluded.anchor_number, anchor_hash = excluded.anchor_hash",
        )
        .bind(signed(account.chain_id))
        .bind(account.sender.to_string())
        .bind(signed(outgoing.nonce))
        .bind(outgoing.contract.to_string())
        .bind(&outgoing.call)
        .bind(signed(outgoing.gas_limit))
        .bind(signed(outgoing.anchor.number))
        .bind(outgoing.anchor.hash.to_string())
        .bind(now_ms)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing(doing))?;
        sqlx::query(
            "insert into attempts (chain_id, sender, nonce, hash, raw, max_fee_wei, priority_fee_wei, signed_at_ms)
             values (?, ?, ?, ?, ?, ?, ?, ?) on conflict do nothing",
        )
        .bind(signed(account.chain_id))
        .bind(account.sender.to_string())
        .bind(signed(outgoing.nonce))
        .bind(attempt.hash.to_string())
        .bind(&attempt.raw)
        .bind(attempt.max_fee_wei.to_string())
        .bind(attempt.priority_fee_wei.to_string())
        .bind(attempt.signed_at_ms)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing(doing))?;
        Ok(())
    }

    /// Writes where a nonce stands.
    pub async fn mark_nonce(
        &mut self,
        account: &Account,
        nonce: u64,
        state: OutgoingState,
        mined: Option<&Mined>,
    ) -> Result<(), Error> {
        sqlx::query(
            "update outbox set state = ?, mined_transaction = ?, mined_number = ?, mined_hash = ?
             where chain_id = ? and sender = ? and nonce = ?",
        )
        .bind(state.text())
        .bind(mined.map(|mined| mined.transaction.to_string()))
        .bind(mined.map(|mined| signed(mined.block.number)))
        .bind(mined.map(|mined| mined.block.hash.to_string()))
        .bind(signed(account.chain_id))
        .bind(account.sender.to_string())
        .bind(signed(nonce))
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("writing where a nonce stands"))?;
        Ok(())
    }
}

/// How many publications of a contract wait for a transaction.
pub(crate) const QUEUED_COUNT: &str =
    "select count(*) from publications where state = 'queued' and chain_id = ? and contract = ?";

impl Store {
    /// The nonces that are not settled (open or mined), lowest first, with every attempt.
    pub async fn unsettled(&self, account: &Account) -> Result<Vec<Outgoing>, Error> {
        let doing = "reading the outbox";
        let rows = sqlx::query(
            "select nonce, contract, state, call, gas_limit, anchor_number, anchor_hash, mined_transaction,
             mined_number, mined_hash from outbox
             where chain_id = ? and sender = ? and state in ('open', 'mined') order by nonce",
        )
        .bind(signed(account.chain_id))
        .bind(account.sender.to_string())
        .fetch_all(&self.reader)
        .await
        .map_err(Error::doing(doing))?;
        let mut unsettled = rows.iter().map(outgoing).collect::<Result<Vec<_>, _>>()?;
        for outgoing in &mut unsettled {
            let rows = sqlx::query(
                "select hash, raw, max_fee_wei, priority_fee_wei, signed_at_ms from attempts
                 where chain_id = ? and sender = ? and nonce = ? order by signed_at_ms, rowid",
            )
            .bind(signed(account.chain_id))
            .bind(account.sender.to_string())
            .bind(signed(outgoing.nonce))
            .fetch_all(&self.reader)
            .await
            .map_err(Error::doing(doing))?;
            outgoing.attempts = rows.iter().map(attempt).collect::<Result<_, _>>()?;
        }
        Ok(unsettled)
    }

    /// How many publications wait for a transaction.
    pub async fn queued_count(&self, board: &Board) -> Result<u64, Error> {
        let row = sqlx::query(QUEUED_COUNT)
            .bind(signed(board.chain_id))
            .bind(board.contract.to_string())
            .fetch_one(&self.reader)
            .await
            .map_err(Error::doing("counting publications"))?;
        row.try_get(0).map(unsigned).map_err(Error::doing("counting publications"))
    }
}

fn pending(row: &SqliteRow) -> Result<Pending, Error> {
    let read = || -> Result<_, sqlx::Error> {
        Ok((
            [row.try_get::<i64, _>("task")?, row.try_get("chain_id")?, row.try_get("status")?],
            [
                row.try_get::<i64, _>("callback_gas")?,
                row.try_get("included_number")?,
                row.try_get("tries")?,
            ],
            [
                row.try_get::<String, _>("contract")?,
                row.try_get("task_id")?,
                row.try_get("payload")?,
                row.try_get("digest")?,
                row.try_get("included_hash")?,
                row.try_get("state")?,
            ],
            [
                row.try_get::<Option<String>, _>("document")?,
                row.try_get("code")?,
                row.try_get("message")?,
            ],
        ))
    };
    let (
        [task, chain_id, status],
        [callback_gas, included_number, tries],
        [contract, task_id, payload, digest, included_hash, state],
        [document, code, message],
    ) = read().map_err(Error::doing("reading a publication"))?;
    Ok(Pending {
        publication: Publication {
            task: LocalId(task),
            identity: Identity {
                chain_id: unsigned(chain_id),
                contract: parse(&contract)?,
                task_id: task_id.parse().map_err(|error| Error::row("a publication", error))?,
                payload: parse(&payload)?,
            },
            status: u8::try_from(status).unwrap_or(u8::MAX),
            digest,
            document,
            callback_gas: u32::try_from(callback_gas).unwrap_or(u32::MAX),
            included: block(included_number, &included_hash)?,
        },
        state: PendingState::parse(&state)?,
        tries: u32::try_from(tries).unwrap_or(u32::MAX),
        refusal: code.map(|code| (code, message.unwrap_or_default())),
    })
}

fn outgoing(row: &SqliteRow) -> Result<Outgoing, Error> {
    let read = || -> Result<_, sqlx::Error> {
        Ok((
            [
                row.try_get::<i64, _>("nonce")?,
                row.try_get("gas_limit")?,
                row.try_get("anchor_number")?,
            ],
            [
                row.try_get::<String, _>("contract")?,
                row.try_get("state")?,
                row.try_get("call")?,
                row.try_get("anchor_hash")?,
            ],
            row.try_get::<Option<i64>, _>("mined_number")?,
            [row.try_get::<Option<String>, _>("mined_transaction")?, row.try_get("mined_hash")?],
        ))
    };
    let ([nonce, gas_limit, anchor_number], [contract, state, call, anchor_hash], number, texts) =
        read().map_err(Error::doing("reading the outbox"))?;
    let mined = match (number, texts) {
        (Some(number), [Some(transaction), Some(hash)]) => {
            Some(Mined { transaction: parse(&transaction)?, block: block(number, &hash)? })
        }
        _ => None,
    };
    Ok(Outgoing {
        nonce: unsigned(nonce),
        contract: parse(&contract)?,
        state: OutgoingState::parse(&state)?,
        call,
        gas_limit: unsigned(gas_limit),
        anchor: block(anchor_number, &anchor_hash)?,
        mined,
        attempts: Vec::new(),
    })
}

fn attempt(row: &SqliteRow) -> Result<Attempt, Error> {
    let read = || -> Result<_, sqlx::Error> {
        Ok((
            [
                row.try_get::<String, _>("hash")?,
                row.try_get("raw")?,
                row.try_get("max_fee_wei")?,
                row.try_get("priority_fee_wei")?,
            ],
            row.try_get::<i64, _>("signed_at_ms")?,
        ))
    };
    let ([hash, raw, max_fee, priority_fee], signed_at_ms) =
        read().map_err(Error::doing("reading a signed transaction"))?;
    let wei =
        |text: String| text.parse().map_err(|error| Error::row("a signed transaction", error));
    Ok(Attempt {
        hash: parse(&hash)?,
        raw,
        max_fee_wei: wei(max_fee)?,
        priority_fee_wei: wei(priority_fee)?,
        signed_at_ms,
    })
}
