//! The state of a server: whether it accepts writes, its limits, and its free connections.

use sqlx::Row as _;

use super::{Findings, Grade};
use crate::clients::db::{DbError, Tx};
use crate::model::sql::ident;

/// A number of free connections below this is reported, as the application's next burst would use
/// them up.
const FREE_MIN: i64 = 3;

const DOING: &str = "looking at the server's state";

/// Checks the server of `tx`. `writes` says whether Tallymark writes to it.
pub(super) async fn inspect(
    tx: &mut Tx,
    subject: &str,
    writes: bool,
    findings: &mut Findings,
) -> Result<(), DbError> {
    let row = tx.row(DOING, include_str!("state.sql").into()).await?;
    let read = || {
        Ok::<_, sqlx::Error>((
            row.try_get::<bool, _>("read_only")?,
            row.try_get::<bool, _>("replica")?,
            row.try_get::<Option<String>, _>("transaction_timeout")?,
            row.try_get::<i64, _>("free")?,
            row.try_get::<i64, _>("connections")?,
            row.try_get::<Option<String>, _>("open_schemas")?,
            row.try_get::<String, _>("role")?,
        ))
    };
    let (read_only, replica, limit, free, connections, open, role) =
        read().map_err(|source| tx.error(DOING, source))?;
    if let Some(open) = open {
        let finding = format!(
            "schema {open} of the search_path is open to other roles: statements here could call a function or \
             operator of theirs as {role}; ALTER ROLE {} SET search_path = pg_catalog (names in tallymark.toml then \
             need their schemas), or REVOKE CREATE ON SCHEMA {open} FROM PUBLIC",
            ident(&role)
        );
        findings.add(Grade::Note, subject, finding);
    }
    if writes && (read_only || replica) {
        let why = if replica { "it is in recovery" } else { "default_transaction_read_only is on" };
        let finding = format!(
            "read-only ({why}): no result can be written; slices are given back, count no failure, and run when it \
             can be written to again"
        );
        findings.add(Grade::Bad, subject, finding);
    }
    if let Some(limit) = limit {
        let finding = format!(
            "transaction_timeout is {limit}; Tallymark's own transactions override it, as their statements have limits"
        );
        findings.add(Grade::Note, subject, finding);
    }
    if free < FREE_MIN {
        let finding = format!(
            "{} of {connections} connections are free; without one, slices are given back and run later",
            free.max(0)
        );
        findings.add(Grade::Note, subject, finding);
    }
    Ok(())
}
