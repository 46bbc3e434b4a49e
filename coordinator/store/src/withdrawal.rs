use sqlx::{Row as _, SqliteExecutor, sqlite::SqliteRow};
use task::{
    Address, BlockRef, Hex,
    publication::{Event, Publication as Standing, State},
};

use crate::{
    Account, Board, Error, Store, Writer,
    chain::parse,
    outbox::standing_state,
    task_row::{signed, unsigned},
};

/// What a publisher has earned and not withdrawn, as it was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earnings {
    /// The credit, in wei.
    pub credit_wei: u128,
    /// The block at which it was read.
    pub block_number: u64,
    /// When it was read, in Unix milliseconds.
    pub read_at_ms: i64,
}

/// A wish to have a publisher's whole credit paid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// Its number in this database.
    pub id: i64,
    /// Who is paid.
    pub recipient: Address,
    /// What was paid, in wei, once a transaction has done it.
    pub amount_wei: Option<u128>,
    /// When it was asked for, in Unix milliseconds.
    pub requested_at_ms: i64,
    /// How often a transaction of it was without effect.
    pub tries: u32,
    /// Where its transaction stands. It goes the way of a publication that answers no submission.
    pub state: State,
}

impl Withdrawal {
    /// Whether nothing was paid yet and a transaction is still to do it.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Queued | State::Sent { .. })
    }

    fn standing(&self) -> Standing {
        // No submission has to stand for it: it is as if that were in the chain's first block.
        let included = Some(BlockRef { number: 0, hash: Hex([0; 32]) });
        Standing { included, tries: self.tries, again: false, state: self.state.clone() }
    }
}

const COLUMNS: &str =
    "id, recipient, amount_wei, requested_at_ms, state, nonce, tries, code, message,
    place_transaction, place_number, place_hash";

impl Writer {
    /// Queues a withdrawal; one that waits already, for the same recipient, is answered instead of a second one.
    pub async fn request_withdrawal(
        &mut self,
        board: &Board,
        sender: &Address,
        recipient: &Address,
        now_ms: i64,
    ) -> Result<Withdrawal, Error> {
        let doing = "queueing a withdrawal";
        let sql = format!(
            "select {COLUMNS} from withdrawals where chain_id = ? and contract = ? and sender = ? and recipient = ?
             and state in ('queued', 'sent') order by id limit 1"
        );
        let waiting = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(signed(board.chain_id))
            .bind(board.contract.to_string())
            .bind(sender.to_string())
            .bind(recipient.to_string())
            .fetch_optional(&mut *self.transaction)
            .await
            .map_err(Error::doing(doing))?;
        if let Some(row) = waiting {
            return withdrawal(&row);
        }
        let sql = format!(
            "insert into withdrawals (chain_id, contract, sender, recipient, requested_at_ms) values (?, ?, ?, ?, ?)
             returning {COLUMNS}"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(signed(board.chain_id))
            .bind(board.contract.to_string())
            .bind(sender.to_string())
            .bind(recipient.to_string())
            .bind(now_ms)
            .fetch_one(&mut *self.transaction)
            .await
            .map_err(Error::doing(doing))?;
        withdrawal(&row)
    }

    /// The oldest withdrawal that waits for a transaction.
    pub async fn queued_withdrawal(
        &mut self,
        account: &Account,
        contract: &Address,
    ) -> Result<Option<Withdrawal>, Error> {
        queued_withdrawal(&mut *self.transaction, account, contract).await
    }

    /// The withdrawals that a nonce holds.
    pub async fn withdrawals_held_by(
        &mut self,
        account: &Account,
        nonce: u64,
    ) -> Result<Vec<Withdrawal>, Error> {
        let sql = format!(
            "select {COLUMNS} from withdrawals where chain_id = ? and sender = ? and nonce = ? order by id"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(signed(account.chain_id))
            .bind(account.sender.to_string())
            .bind(signed(nonce))
            .fetch_all(&mut *self.transaction)
            .await
            .map_err(Error::doing("reading a nonce's withdrawals"))?;
        rows.iter().map(withdrawal).collect()
    }

    /// Lets an event happen to a withdrawal and saves where it stands then; `amount_wei` is what was paid.
    pub async fn advance_withdrawal(
        &mut self,
        before: &Withdrawal,
        event: &Event,
        amount_wei: Option<u128>,
    ) -> Result<(), Error> {
        let after = before.standing().apply(event)?;
        let place = after.state.place();
        let reason = after.state.reason();
        sqlx::query(
            "update withdrawals set state = ?, nonce = ?, tries = ?, code = ?, message = ?, place_transaction = ?,
             place_number = ?, place_hash = ?, amount_wei = ? where id = ?",
        )
        .bind(after.state.name())
        .bind(after.state.nonce().map(signed))
        .bind(i64::from(after.tries))
        .bind(reason.map(|reason| reason.code.as_str()))
        .bind(reason.map(|reason| reason.message.as_str()))
        .bind(place.map(|place| place.transaction.to_string()))
        .bind(place.map(|place| signed(place.block.number)))
        .bind(place.map(|place| place.block.hash.to_string()))
        .bind(
            amount_wei
                .or(before.amount_wei)
                .filter(|_| matches!(after.state, State::Mined { .. } | State::Final { .. }))
                .map(|wei| wei.to_string()),
        )
        .bind(before.id)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("writing where a withdrawal stands"))?;
        Ok(())
    }

    /// Remembers what an account has on a contract.
    pub async fn save_earnings(
        &mut self,
        board: &Board,
        account: &Address,
        earnings: &Earnings,
    ) -> Result<(), Error> {
        sqlx::query(
            "insert into earnings (chain_id, contract, account, credit_wei, block_number, read_at_ms)
             values (?, ?, ?, ?, ?, ?) on conflict (chain_id, contract, account) do update set
             credit_wei = excluded.credit_wei, block_number = excluded.block_number, read_at_ms = excluded.read_at_ms",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(account.to_string())
        .bind(earnings.credit_wei.to_string())
        .bind(signed(earnings.block_number))
        .bind(earnings.read_at_ms)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("remembering what was earned"))?;
        Ok(())
    }
}

impl Store {
    /// The oldest withdrawal that waits for a transaction.
    pub async fn queued_withdrawal(
        &self,
        account: &Account,
        contract: &Address,
    ) -> Result<Option<Withdrawal>, Error> {
        queued_withdrawal(&self.reader, account, contract).await
    }

    /// The newest withdrawals of a publisher, newest first.
    pub async fn withdrawals(
        &self,
        board: &Board,
        sender: &Address,
        limit: u32,
    ) -> Result<Vec<Withdrawal>, Error> {
        let sql = format!(
            "select {COLUMNS} from withdrawals where chain_id = ? and contract = ? and sender = ? order by id desc limit ? + 0"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(signed(board.chain_id))
            .bind(board.contract.to_string())
            .bind(sender.to_string())
            .bind(limit)
            .fetch_all(&self.reader)
            .await
            .map_err(Error::doing("reading withdrawals"))?;
        rows.iter().map(withdrawal).collect()
    }

    /// What an account has on a contract; none until the publisher has read it.
    pub async fn earnings(
        &self,
        board: &Board,
        account: &Address,
    ) -> Result<Option<Earnings>, Error> {
        let doing = "reading what was earned";
        let row = sqlx::query(
            "select credit_wei, block_number, read_at_ms from earnings
             where chain_id = ? and contract = ? and account = ?",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(account.to_string())
        .fetch_optional(&self.reader)
        .await
        .map_err(Error::doing(doing))?;
        let Some(row) = row else { return Ok(None) };
        let read = || -> Result<(String, i64, i64), sqlx::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        };
        let (credit, block_number, read_at_ms) = read().map_err(Error::doing(doing))?;
        Ok(Some(Earnings {
            credit_wei: wei(&credit)?,
            block_number: unsigned(block_number),
            read_at_ms,
        }))
    }
}

async fn queued_withdrawal(
    database: impl SqliteExecutor<'_>,
    account: &Account,
    contract: &Address,
) -> Result<Option<Withdrawal>, Error> {
    let sql = format!(
        "select {COLUMNS} from withdrawals where state = 'queued' and chain_id = ? and contract = ? and sender = ?
         order by id limit 1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(signed(account.chain_id))
        .bind(contract.to_string())
        .bind(account.sender.to_string())
        .fetch_optional(database)
        .await
        .map_err(Error::doing("looking for a withdrawal"))?;
    row.as_ref().map(withdrawal).transpose()
}

fn withdrawal(row: &SqliteRow) -> Result<Withdrawal, Error> {
    let read = || -> Result<_, sqlx::Error> {
        Ok((
            [row.try_get::<i64, _>("id")?, row.try_get("requested_at_ms")?, row.try_get("tries")?],
            [row.try_get::<String, _>("recipient")?, row.try_get("state")?],
            row.try_get::<Option<String>, _>("amount_wei")?,
        ))
    };
    let ([id, requested_at_ms, tries], [recipient, state], amount) =
        read().map_err(Error::doing("reading a withdrawal"))?;
    Ok(Withdrawal {
        id,
        recipient: parse(&recipient)?,
        amount_wei: amount.as_deref().map(wei).transpose()?,
        requested_at_ms,
        tries: u32::try_from(tries).unwrap_or(u32::MAX),
        state: standing_state(row, &state)?,
    })
}

fn wei(text: &str) -> Result<u128, Error> {
    text.parse().map_err(|error| Error::row("an amount of wei", error))
}
