use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{
    Row as _, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    Error,
    fault::{Hook, Watch},
};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/sqlite");

/// The longest wait for a connection. Whoever has it is this process itself and gives it back; a process that was
/// suspended for a while finds every short time over, and that must not end it.
const CONNECTION_WITHIN: Duration = Duration::from_secs(24 * 3_600);

/// The database: one connection that writes, a few that read.
#[derive(Debug, Clone)]
pub struct Store {
    writer: SqlitePool,
    pub(crate) reader: SqlitePool,
    instance: String,
    watch: Option<Watch>,
}

/// One write transaction. Dropped without [`Writer::commit`], nothing of it happened.
#[derive(Debug)]
pub struct Writer {
    pub(crate) transaction: Transaction<'static, Sqlite>,
    watch: Option<Watch>,
}

impl Store {
    /// Opens or creates the database at `path`, in WAL mode with full synchronisation, and brings its schema up to date.
    /// A database with a newer schema is refused.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Self::connect(path, None).await
    }

    /// As [`open`](Self::open), with a hook that looks at every commit and may break it: for tests.
    pub async fn open_with(path: &Path, hook: Arc<dyn Hook>) -> Result<Self, Error> {
        Self::connect(path, Some(hook)).await
    }

    async fn connect(path: &Path, hook: Option<Arc<dyn Hook>>) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let open = |source| Error::Open { path: shown.clone(), source };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .statement_cache_capacity(128)
            .busy_timeout(Duration::from_secs(10));
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECTION_WITHIN)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(open)?;
        MIGRATIONS
            .run(&writer)
            .await
            .map_err(|source| Error::Migrate { path: shown.clone(), source })?;
        let reader = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(CONNECTION_WITHIN)
            .connect_with(options.read_only(true))
            .await
            .map_err(open)?;
        let instance = Self::instance_id(&writer).await?;
        let watch = hook.map(|hook| Watch { hook, durable: reader.clone() });
        Ok(Self { writer, reader, instance, watch })
    }

    /// This coordinator's instance id: made once, kept in the database. Eight hex digits.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    async fn instance_id(writer: &SqlitePool) -> Result<String, Error> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let id = id.get(..8).unwrap_or(&id);
        sqlx::query(
            "insert into instance (one, id, created_at_ms) values (1, ?, ?) on conflict do nothing",
        )
        .bind(id)
        .bind(crate::now_ms())
        .execute(writer)
        .await
        .map_err(Error::doing("making the instance id"))?;
        let row = sqlx::query("select id from instance")
            .fetch_one(writer)
            .await
            .map_err(Error::doing("reading the instance id"))?;
        row.try_get(0).map_err(Error::doing("reading the instance id"))
    }

    /// Begins a write transaction; waits for the one before it.
    pub async fn begin(&self) -> Result<Writer, Error> {
        let transaction = self
            .writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(Error::doing("beginning a transaction"))?;
        Ok(Writer { transaction, watch: self.watch.clone() })
    }

    /// Closes every connection and leaves the write-ahead log merged.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

impl Writer {
    /// Makes everything of this transaction durable.
    pub async fn commit(self) -> Result<(), Error> {
        match self.watch {
            None => self.transaction.commit().await.map_err(Error::doing("committing")),
            Some(watch) => watch.commit(self.transaction).await,
        }
    }
}
