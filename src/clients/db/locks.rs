//! Finds the holders of a lock that a statement did not get. PostgreSQL's own error names neither
//! the table nor the holder.

use std::time::Duration;

use sqlx::Row as _;

use super::Access;
use super::pool::InUse;
use crate::model::sql::literal;

/// The answer is a convenience, so an error without it is better than a late one.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Modes that block even readers.
const AGAINST_READERS: &str = "{AccessExclusiveLock}";

/// Modes that block writers of rows.
const AGAINST_WRITERS: &str = "{ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}";

/// Every mode blocks a change of the table itself.
const AGAINST_CHANGES: &str = "{AccessShareLock,RowShareLock,RowExclusiveLock,\
    ShareUpdateExclusiveLock,ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}";

/// The lock that a statement waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waited {
    /// Its holder, in words.
    pub(crate) words: String,
    /// Whether it is on a whole table, which every other statement on that table needs too.
    pub(crate) is_table: bool,
}

/// Finds the holder of the lock that `statement` waited for. First ends its transaction, which the
/// server has already aborted. `None`: the lock is free by now, or the server does not name the
/// holder.
pub(super) async fn holders(held: &mut InUse, access: Access, statement: &str) -> Option<Waited> {
    let change = ["ALTER ", "CREATE ", "DROP ", "LOCK ", "TRUNCATE ", "COMMENT "];
    let strong = match access {
        Access::ReadOnly => AGAINST_READERS,
        Access::ReadWrite if change.iter().any(|it| statement.starts_with(it)) => AGAINST_CHANGES,
        Access::ReadWrite => AGAINST_WRITERS,
    };
    let sql = format!(
        include_str!("locks.sql"),
        strong = literal(strong),
        statement = literal(statement),
        rows = access == Access::ReadWrite,
    );
    let asked = async {
        held.simple("ROLLBACK").await?;
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).persistent(false);
        query.fetch_all(held.connection()).await
    };
    let rows = match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => {
            tracing::info!(error = %error, "the holder of a lock is unknown");
            return None;
        }
        Err(_) => return None,
    };
    let is_table = rows.iter().any(|row| row.try_get("is_strong").unwrap_or(false));
    let words: Vec<String> = rows.iter().filter_map(|row| in_words(row).ok()).collect();
    (!words.is_empty()).then(|| Waited { words: words.join(", and "), is_table })
}

/// `public.events is locked by pid 4711 (role app, psql) since 2026-02-10T00:00:00Z`
fn in_words(row: &sqlx::postgres::PgRow) -> Result<String, sqlx::Error> {
    let (relation, who): (String, String) = (row.try_get("relation")?, row.try_get("who")?);
    let (is_strong, granted): (bool, bool) = (row.try_get("is_strong")?, row.try_get("granted")?);
    Ok(match (is_strong, granted) {
        (true, true) => format!("{relation} is locked by {who}"),
        (true, false) => {
            let behind: Option<String> = row.try_get("behind")?;
            let behind = behind.filter(|pids| !pids.is_empty());
            let behind = behind.map_or_else(String::new, |pids| format!(", behind pid {pids}"));
            format!("{relation} is waited for by {who}{behind}")
        }
        (false, _) => format!("rows of {relation} may be locked by {who}"),
    })
}
