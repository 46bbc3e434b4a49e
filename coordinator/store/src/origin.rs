use sqlx::Row as _;
use task::Hash;

use crate::{
    Board, Error, Store, Writer,
    task_row::{signed, unsigned},
};

/// The id that a name of an engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine {
    /// The id; the newest one that has the name.
    pub id: u16,
    /// How many engines there were when it was found.
    pub count: u16,
}

impl Writer {
    /// Remembers the block that a contract was deployed in.
    pub async fn save_deployment(
        &mut self,
        board: &Board,
        genesis: &Hash,
        number: u64,
    ) -> Result<(), Error> {
        sqlx::query(
            "insert into deployments (chain_id, contract, genesis, number) values (?, ?, ?, ?)
             on conflict (chain_id, contract) do update set genesis = excluded.genesis, number = excluded.number",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(genesis.to_string())
        .bind(signed(number))
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("remembering the deployment"))?;
        Ok(())
    }

    /// Remembers the id of an engine.
    pub async fn save_engine(
        &mut self,
        board: &Board,
        genesis: &Hash,
        name: &str,
        engine: Engine,
    ) -> Result<(), Error> {
        sqlx::query(
            "insert into engines (chain_id, contract, genesis, name, engine, count) values (?, ?, ?, ?, ?, ?)
             on conflict (chain_id, contract, name) do update set genesis = excluded.genesis,
             engine = excluded.engine, count = excluded.count",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(genesis.to_string())
        .bind(name)
        .bind(engine.id)
        .bind(engine.count)
        .execute(&mut *self.transaction)
        .await
        .map_err(Error::doing("remembering an engine"))?;
        Ok(())
    }
}

impl Store {
    /// The block that a contract of this chain was deployed in, once it is known.
    pub async fn deployment(&self, board: &Board, genesis: &Hash) -> Result<Option<u64>, Error> {
        let doing = "reading the deployment";
        let row = sqlx::query(
            "select number from deployments where chain_id = ? and contract = ? and genesis = ?",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(genesis.to_string())
        .fetch_optional(&self.reader)
        .await
        .map_err(Error::doing(doing))?;
        row.map(|row| row.try_get(0).map(unsigned)).transpose().map_err(Error::doing(doing))
    }

    /// The id of an engine on a contract of this chain, once it is known.
    pub async fn engine(
        &self,
        board: &Board,
        genesis: &Hash,
        name: &str,
    ) -> Result<Option<Engine>, Error> {
        let doing = "reading an engine";
        let row = sqlx::query(
            "select engine, count from engines where chain_id = ? and contract = ? and genesis = ? and name = ?",
        )
        .bind(signed(board.chain_id))
        .bind(board.contract.to_string())
        .bind(genesis.to_string())
        .bind(name)
        .fetch_optional(&self.reader)
        .await
        .map_err(Error::doing(doing))?;
        let read = |row: sqlx::sqlite::SqliteRow| -> Result<_, sqlx::Error> {
            Ok(Engine { id: row.try_get(0)?, count: row.try_get(1)? })
        };
        row.map(read).transpose().map_err(Error::doing(doing))
    }
}
