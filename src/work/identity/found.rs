//! What the databases say: which servers they are, and which installation keeps a rollup.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use crate::clients::db::history::History;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Db, DbError, Tx, history};
use crate::model::rollup::Rollup;
use crate::model::sql::literal;
use crate::work::worker::{WorkError, Worker};

/// The target's data about a rollup's owner.
#[derive(Debug, Default)]
pub(super) struct OwnerRecord {
    pub(super) keeper: Option<String>,
    pub(super) mine: Option<String>,
    pub(super) tables: String,
    pub(super) servers: String,
    pub(super) places: Vec<String>,
    /// The marker whose rows were replaced last.
    pub(super) newest: Option<Newest>,
    /// `None`: a replica.
    pub(super) history: Option<History>,
}

impl OwnerRecord {
    /// Whether the rollup's table in the registry is gone.
    pub(super) fn is_gone(&self) -> bool {
        self.tables.starts_with("-/")
    }
}

/// A marker. Its checkpoint must be at least as new, as a claim comes before the write.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) start: DateTime<Utc>,
    pub(super) attempt: u64,
    pub(super) owner: Option<String>,
}

pub(super) async fn look_up(
    worker: &Worker,
    rollup: &Rollup,
    place: &str,
) -> Result<OwnerRecord, WorkError> {
    const DOING: &str = "looking up the installation";
    let db = &worker.target.db;
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let sql = format!(
        include_str!("../../target/identity.sql"),
        place = literal(place),
        rollup = literal(&rollup.name)
    );
    let rows = tx.rows(DOING, sql).await?;
    let found = rows.first().map_or_else(
        || Ok(OwnerRecord::default()),
        |row| {
            Ok(OwnerRecord {
                keeper: row.try_get("keeper")?,
                mine: row.try_get("mine")?,
                tables: row.try_get("tables")?,
                servers: row.try_get::<Option<_>, _>("servers")?.unwrap_or_default(),
                places: row.try_get::<Option<_>, _>("places")?.unwrap_or_default(),
                newest: newest(row)?,
                history: None,
            })
        },
    );
    let mut found = found.map_err(|source| tx.error(DOING, source))?;
    found.history = history::read(&mut tx).await?;
    tx.rollback().await?;
    Ok(found)
}

fn newest(row: &sqlx::postgres::PgRow) -> Result<Option<Newest>, sqlx::Error> {
    let Some(start) = row.try_get("newest_start")? else { return Ok(None) };
    let attempt: i64 = row.try_get("newest_attempt")?;
    let owner = row.try_get("newest_owner")?;
    Ok(Some(Newest { start, attempt: attempt.unsigned_abs(), owner }))
}

/// The target's answer to a yes-or-no query.
pub(super) async fn holds_in_target(worker: &Worker, sql: String) -> Result<bool, DbError> {
    const DOING: &str = "looking up the installation";
    let db = &worker.target.db;
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "identity").await?;
    let row = tx.row(DOING, sql).await?;
    let answer = row.try_get(0).map_err(|source| tx.error(DOING, source))?;
    tx.rollback().await?;
    Ok(answer)
}

pub(super) async fn has_registry(worker: &Worker) -> Result<bool, WorkError> {
    let sql = "SELECT to_regclass('tallymark.rollup') IS NOT NULL \
               AND to_regclass('tallymark.installation') IS NOT NULL";
    Ok(holds_in_target(worker, sql.to_owned()).await?)
}

/// Identifies the running server and the database that `db` reaches, by any route. Two copies of
/// one database differ at least in the start of their servers.
async fn server(db: &Db) -> Result<String, DbError> {
    const DOING: &str = "asking which server this is";
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "identity").await?;
    let sql = "SELECT (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' \
        || (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint || '/' \
        || current_database(), \
        has_function_privilege('pg_control_system()', 'EXECUTE')";
    let row = tx.row(DOING, sql.into()).await?;
    let read = || Ok::<_, sqlx::Error>((row.try_get::<String, _>(0)?, row.try_get::<bool, _>(1)?));
    let (mut server, may_see) = read().map_err(|source| tx.error(DOING, source))?;
    if may_see {
        server.push('/');
        server.push_str(&system(&mut tx).await?);
    }
    tx.rollback().await?;
    Ok(server)
}

/// The running servers and databases that this process reaches: source, then target.
pub(super) async fn servers(worker: &Worker) -> Result<String, DbError> {
    Ok(format!("{} {}", server(&worker.source).await?, server(&worker.target.db).await?))
}

/// The cluster's `system_identifier`, which its physical copies share.
async fn system(tx: &mut Tx) -> Result<String, DbError> {
    const DOING: &str = "asking which server this is";
    let sql = "SELECT system_identifier::text FROM pg_control_system()";
    let row = tx.row(DOING, sql.into()).await?;
    row.try_get(0).map_err(|source| tx.error(DOING, source))
}

pub(super) async fn history_of(db: &Db) -> Result<Option<History>, DbError> {
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "identity").await?;
    let history = history::read(&mut tx).await?;
    tx.rollback().await?;
    Ok(history)
}

/// The position in the history of the source of `rollup`. `None`: the source is in the target,
/// whose history covers it, or it is a replica.
pub(super) async fn source_history(
    worker: &Worker,
    rollup: &Rollup,
) -> Result<Option<History>, WorkError> {
    if worker.target.holds_source_of(rollup) {
        return Ok(None);
    }
    Ok(history_of(&worker.source).await?)
}
