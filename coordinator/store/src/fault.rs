//! A look at every commit, before and after it: how a test breaks one. [`Store::open`] has none.

use std::{collections::BTreeMap, fmt, io, pin::Pin, sync::Arc};

use sqlx::{Row as _, Sqlite, SqliteExecutor, SqlitePool, Transaction};

use crate::Error;

/// What a hook answers with, when it likes to.
pub type Answer<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// Looks at every commit of a store that was opened with it ([`Store::open_with`](crate::Store::open_with)). A commit
/// changes what its steps name: `reported NAME` (an event that the pipeline has to apply was appended), `applied NAME`
/// (it was applied), `NAME` (the pipeline's own event), or, where it changes no event, `cursor` or `nothing`.
pub trait Hook: fmt::Debug + Send + Sync {
    /// Nothing is durable yet: after an error nothing of it happens.
    fn before<'a>(&'a self, steps: &'a [String]) -> Answer<'a>;

    /// Everything is durable: after an error the caller is told the contrary.
    fn after<'a>(&'a self, steps: &'a [String]) -> Answer<'a>;
}

/// A hook with its sight of what is durable.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pub(crate) hook: Arc<dyn Hook>,
    pub(crate) durable: SqlitePool,
}

/// What steps are told by.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sight {
    /// Names of events by their place, and whether they are applied.
    events: BTreeMap<i64, (String, bool)>,
    cursors: Vec<String>,
}

impl Watch {
    pub(crate) async fn commit(
        &self,
        mut transaction: Transaction<'static, Sqlite>,
    ) -> Result<(), Error> {
        let doing = "looking at a commit";
        let before = Sight {
            events: events(&self.durable).await.map_err(Error::doing(doing))?,
            cursors: cursors(&self.durable).await.map_err(Error::doing(doing))?,
        };
        let after = Sight {
            events: events(&mut *transaction).await.map_err(Error::doing(doing))?,
            cursors: cursors(&mut *transaction).await.map_err(Error::doing(doing))?,
        };
        let steps = after.since(&before);
        let failed = |source| Error::doing("committing")(sqlx::Error::Io(source));
        self.hook.before(&steps).await.map_err(failed)?;
        transaction.commit().await.map_err(Error::doing("committing"))?;
        self.hook.after(&steps).await.map_err(failed)
    }
}

impl Sight {
    fn since(&self, before: &Self) -> Vec<String> {
        let steps = self.events.iter().filter_map(|(seq, (name, applied))| {
            match (before.events.get(seq), applied) {
                (None, true) => Some(name.clone()),
                (None, false) => Some(format!("reported {name}")),
                (Some((_, false)), true) => Some(format!("applied {name}")),
                (Some(_), _) => None,
            }
        });
        let steps: Vec<_> = steps.collect();
        match steps.is_empty() {
            false => steps,
            true if self.cursors != before.cursors => vec!["cursor".to_owned()],
            true => vec!["nothing".to_owned()],
        }
    }
}

async fn events(
    database: impl SqliteExecutor<'_>,
) -> Result<BTreeMap<i64, (String, bool)>, sqlx::Error> {
    let rows = sqlx::query("select seq, name, applied from events").fetch_all(database).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)))).collect()
}

async fn cursors(database: impl SqliteExecutor<'_>) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query("select cursor_hash from chains order by chain_id, contract")
        .fetch_all(database)
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
