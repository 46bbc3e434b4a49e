use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};
use task::{
    Address, BlockRef, Hash, Identity, LocalId, TaskId,
    publication::{Event as PublicationEvent, Place, Publication as Standing, Reason, State},
};

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
    /// Where it stands, as the publication machine knows it.
    pub standing: Standing,
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
        queued(&mut *self.transaction, board, limit).await
    }

    /// The publications that a nonce holds.
    pub async fn held_by(&mut self, account: &Account, nonce: u64) -> Result<Vec<Pending>, Error> {
        held_by(&mut *self.transaction, account, nonce).await
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

    /// What is published of a task.
    pub async fn publication(&mut self, task: LocalId) -> Result<Option<Pending>, Error> {
        let row = sqlx::query(
            "select p.*, t.payload from publications p join tasks t on t.local_id = p.task where p.task = ?",
        )
        .bind(task.0)
        .fetch_optional(&mut *self.transaction)
        .await
        .map_err(Error::doing("reading a publication"))?;
        row.as_ref().map(pending).transpose()
    }

    /// The publications whose submission stands in this block, as far as we know.
    pub async fn publications_in(
        &mut self,
        board: &Board,
        block: &Hash,
    ) -> Result<Vec<Pending>, Error> {
        let rows = sqlx::query(
            "select p.*, t.payload from publications p join tasks t on t.local_id = p.task
             where p.chain_id = ? and p.contract = ? and p.included_hash = ? and p.state != 'withheld'",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(block.to_string())
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(Error::doing("reading a block's publications"))?;
        rows.iter().map(pending).collect()
    }

    /// Lets an event happen to a publication, saves where it stands then, and appends what its task is told.
    pub async fn advance(
        &mut self,
        account: &Account,
        before: &Pending,
        event: &PublicationEvent,
        now_ms: i64,
    ) -> Result<Standing, Error> {
        let after = before.standing.clone().apply(event)?;
        if after == before.standing {
            return Ok(after);
        }
        let task = before.publication.task;
        self.save_standing(task, Some(account), &after).await?;
        if let Some(told) = after.tells(&before.standing.state) {
            self.append(task, &told, now_ms).await?;
        }
        Ok(after)
    }

    /// Writes where a publication stands. Its sender stays when `account` is none.
    pub(crate) async fn save_standing(
        &mut self,
        task: LocalId,
        account: Option<&Account>,
        standing: &Standing,
    ) -> Result<(), Error> {
        let (state, nonce) = (&standing.state, standing.state.nonce());
        let place = state.place();
        let reason = state.reason();
        sqlx::query(
            "update publications set state = ?1, nonce = ?2, sender = case when ?2 is null then null
             else coalesce(?3, sender) end, tries = ?4, code = ?5, message = ?6, place_transaction = ?7,
             place_number = ?8, place_hash = ?9, included_number = coalesce(?10, included_number),
             included_hash = coalesce(?11, included_hash), again = ?12 where task = ?13",
        )
        .bind(state.name())
        .bind(nonce.map(signed))
        .bind(account.map(|account| account.sender.to_string()))
        .bind(i64::from(standing.tries))
        .bind(reason.map(|reason| reason.code.as_str()))
        .bind(reason.map(|reason| reason.message.as_str()))
        .bind(place.map(|place| place.transaction.to_string()))
        .bind(place.map(|place| signed(place.block.number)))
        .bind(place.map(|place| place.block.hash.to_string()))
        .bind(standing.included.map(|block| signed(block.number)))
        .bind(standing.included.map(|block| block.hash.to_string()))
        .bind(standing.again)
        .bind(task.0)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("writing where a publication stands"))?;
        Ok(())
    }

    /// Has the publisher look again at every transaction that was final above a block: its own may be gone.
    pub async fn reopen_above(&mut self, board: &Board, number: u64) -> Result<(), Error> {
        sqlx::query(
            "update outbox set state = 'mined' where chain_id = ? and contract = ? and mined_number > ?
             and state = 'final'",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(signed(number))
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("reopening transactions"))?;
        Ok(())
    }

    /// Has the publisher look again at the settled nonces from `count` on, which the chain counts as unused; answers
    /// how many there are.
    pub async fn reopen_unused(&mut self, account: &Account, count: u64) -> Result<u64, Error> {
        let done = sqlx::query(
            "update outbox set state = case state when 'final' then 'mined' else 'open' end
             where chain_id = ? and sender = ? and nonce >= ? and state in ('final', 'taken')",
        )
        .bind(signed(account.chain_id))
        .bind(account.sender.to_string())
        .bind(signed(count))
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("reopening nonces"))?;
        Ok(done.rows_affected())
    }

    /// Has the publisher look again at the nonce that holds a task's publication, if it was settled.
    pub(crate) async fn reopen_nonce_of(&mut self, task: LocalId, nonce: u64) -> Result<(), Error> {
        sqlx::query(
            "update outbox set state = 'mined' where state = 'final' and nonce = ?2 and (chain_id, sender) in
             (select chain_id, sender from publications where task = ?1)",
        )
        .bind(task.0)
        .bind(signed(nonce))
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("reopening a nonce"))?;
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

    /// The lowest nonce from `from` on that was never taken, also by what is forgotten.
    pub async fn free_nonce(&mut self, account: &Account, from: u64) -> Result<u64, Error> {
        let floor = sqlx::query("select floor from accounts where chain_id = ? and sender = ?")
            .bind(signed(account.chain_id))
            .bind(account.sender.to_string())
            .fetch_optional(&mut *self.transaction)
            .await
            .map_err(Error::doing("looking for a free nonce"))?;
        let floor: Option<i64> = floor
            .map(|row| row.try_get(0))
            .transpose()
            .map_err(Error::doing("looking for a free nonce"))?;
        let from = from.max(floor.map_or(0, unsigned));
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
    /// Publications that wait for a transaction, oldest first.
    pub async fn queued(&self, board: &Board, limit: u32) -> Result<Vec<Pending>, Error> {
        queued(&self.reader, board, limit).await
    }

    /// The publications that a nonce holds.
    pub async fn held_by(&self, account: &Account, nonce: u64) -> Result<Vec<Pending>, Error> {
        held_by(&self.reader, account, nonce).await
    }

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

async fn queued(
    database: impl SqliteExecutor<'_>,
    board: &Board,
    limit: u32,
) -> Result<Vec<Pending>, Error> {
    let rows = sqlx::query(
        "select p.*, t.payload from publications p join tasks t on t.local_id = p.task
         where p.state = 'queued' and p.chain_id = ? and p.contract = ? order by p.queued_at_ms, p.task limit ? + 0",
    )
    .bind(signed(board.chain_id))
    .bind(board.contract.to_string())
    .bind(limit)
    .fetch_all(database)
    .await
    .map_err(Error::doing("reading the queue of publications"))?;
    rows.iter().map(pending).collect()
}

async fn held_by(
    database: impl SqliteExecutor<'_>,
    account: &Account,
    nonce: u64,
) -> Result<Vec<Pending>, Error> {
    let rows = sqlx::query(
        "select p.*, t.payload from publications p join tasks t on t.local_id = p.task
         where p.chain_id = ? and p.sender = ? and p.nonce = ? order by p.task",
    )
    .bind(signed(account.chain_id))
    .bind(account.sender.to_string())
    .bind(signed(nonce))
    .fetch_all(database)
    .await
    .map_err(Error::doing("reading a nonce's publications"))?;
    rows.iter().map(pending).collect()
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
            row.try_get::<Option<String>, _>("document")?,
            row.try_get::<bool, _>("again")?,
        ))
    };
    let (
        [task, chain_id, status],
        [callback_gas, included_number, tries],
        [contract, task_id, payload, digest, included_hash, state],
        document,
        again,
    ) = read().map_err(Error::doing("reading a publication"))?;
    let included = block(included_number, &included_hash)?;
    let state = standing_state(row, &state)?;
    let is_included = !matches!(state, State::Withheld { .. });
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
            included,
        },
        standing: Standing {
            included: is_included.then_some(included),
            tries: u32::try_from(tries).unwrap_or(u32::MAX),
            again,
            state,
        },
    })
}

/// The state that a publication's row says, with its data.
pub(crate) fn standing_state(row: &SqliteRow, state: &str) -> Result<State, Error> {
    let read = || -> Result<_, sqlx::Error> {
        Ok((
            row.try_get::<Option<i64>, _>("nonce")?,
            row.try_get::<Option<i64>, _>("place_number")?,
            [
                row.try_get::<Option<String>, _>("place_transaction")?,
                row.try_get("place_hash")?,
                row.try_get("code")?,
                row.try_get("message")?,
            ],
        ))
    };
    let (nonce, number, [transaction, hash, code, message]) =
        read().map_err(Error::doing("reading where a publication stands"))?;
    let missing = |what: &str| Error::row(format!("a publication that is {state}"), what);
    let nonce = nonce.map(unsigned);
    let held = || nonce.ok_or_else(|| missing("it has no nonce"));
    let place = || match (number, &transaction, &hash) {
        (Some(number), Some(transaction), Some(hash)) => Ok(Place {
            nonce: held()?,
            transaction: parse(transaction)?,
            block: block(number, hash)?,
        }),
        _ => Err(missing("it has no block")),
    };
    let reason = Reason {
        code: code.unwrap_or_else(|| "refused".to_owned()),
        message: message.unwrap_or_default(),
    };
    Ok(match state {
        "queued" => State::Queued,
        "withheld" => State::Withheld { nonce },
        "sent" => State::Sent { nonce: held()? },
        "mined" => State::Mined { place: place()? },
        "refused" => State::Refused { place: place()?, reason },
        "final" => State::Final { place: place()? },
        "given_up" => State::GivenUp { nonce, reason },
        other => return Err(Error::row("a publication", format!("unknown state {other}"))),
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
