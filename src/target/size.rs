//! How large a rollup's table is.

use sqlx::Row as _;

use super::Target;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError};
use crate::model::rollup::Rollup;
use crate::model::sql::literal;

/// Rows from which on their mean size says something.
const ROWS_MIN: f64 = 1_000.0;

impl Target {
    /// Bytes of a row of the rollup's table, with its share of the indexes. `None`: the table is
    /// absent, has few rows, or has no statistics.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub(crate) async fn bytes_per_row(&self, rollup: &Rollup) -> Result<Option<f64>, DbError> {
        const DOING: &str = "looking at the table's size";
        let sql = format!(include_str!("size.sql"), table = literal(&self.table(rollup)));
        let mut tx = self.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let rows = tx.rows(DOING, sql).await?;
        let read = || match rows.first() {
            Some(row) => Ok(Some((row.try_get::<i64, _>("bytes")?, row.try_get("rows")?))),
            None => Ok(None),
        };
        let found: Option<(i64, f64)> = read().map_err(|source| tx.error(DOING, source))?;
        tx.rollback().await?;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let each = |(bytes, rows): (i64, f64)| bytes as f64 / rows;
        Ok(found.filter(|(_, rows)| *rows >= ROWS_MIN).map(each))
    }
}
