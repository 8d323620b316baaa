//! Questions of pages to the target.

use std::time::Duration;

use sqlx::postgres::PgRow;

use crate::clients::db::Access;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::work::worker::{WorkError, Worker};

/// A page waits no longer for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for rows in a transaction of their own that only reads.
///
/// # Errors
/// The target cannot be reached, or refuses.
pub(super) async fn ask<T>(
    worker: &Worker,
    rollup: &Rollup,
    (doing, sql): (&str, String),
    read: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, Fault> {
    let label = format!("tallymark console {}", rollup.name);
    let asked = async {
        let mut tx = worker.target.db.begin(Access::ReadOnly, TIMEOUT, &label).await?;
        let rows = tx.rows(doing, sql).await?;
        let read = rows.iter().map(read).collect::<Result<_, _>>();
        let read = read.map_err(|error| tx.error(doing, error))?;
        tx.rollback().await?;
        Ok::<_, WorkError>(read)
    };
    asked.await.map_err(|error| Fault::of(&error))
}
