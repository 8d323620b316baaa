//! The sums of measures over all groups of slices.

use std::time::Duration;

use sqlx::Row as _;

use super::Target;
use crate::clients::db::{Access, DbError};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::model::sql::ident;

impl Target {
    /// The sums of `measures` in each of `slices`, in this order. A slice without rows has sums of
    /// zero.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub(crate) async fn totals(
        &self,
        rollup: &Rollup,
        measures: &[&str],
        slices: &[Slice],
        timeout: Duration,
    ) -> Result<Vec<Vec<f64>>, DbError> {
        const DOING: &str = "adding up measures";
        let sql = self.totals_sql(rollup, measures, slices);
        let mut tx = self.db.begin(Access::ReadOnly, timeout, &rollup.name).await?;
        let rows = tx.rows(DOING, sql).await?;
        let read = |row: &sqlx::postgres::PgRow| row.try_get("totals");
        let totals: Result<_, _> = rows.iter().map(read).collect();
        let totals = totals.map_err(|source| tx.error(DOING, source))?;
        tx.rollback().await?;
        Ok(totals)
    }

    fn totals_sql(&self, rollup: &Rollup, measures: &[&str], slices: &[Slice]) -> String {
        let sum = |name: &&str| format!("coalesce(sum(__t.{}), 0)::float8", ident(name));
        let bounds = |(place, slice): (usize, &Slice)| {
            let (start, end) = (rollup.time_at(slice.start()), rollup.time_at(slice.end()));
            format!("({place}, {start}, {end})")
        };
        format!(
            include_str!("totals.sql"),
            sums = measures.iter().map(sum).collect::<Vec<_>>().join(", "),
            slices = slices.iter().enumerate().map(bounds).collect::<Vec<_>>().join(", "),
            rollup = self.table(rollup),
            bucket = ident(rollup.time_key()),
        )
    }
}
