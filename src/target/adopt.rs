//! Takes over rows of a table that another job keeps. That table stays as it is.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::coverage::{CoarseSlice, raise_within};
use super::{Target, TargetError};
use crate::clients::db::{Access, DbError};
use crate::model::rollup::{BucketType, Rollup};
use crate::model::slice::Slice;
use crate::model::sql::{TableName, ident, literal, table, timestamptz};

/// Longest time for the rows of one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// A table that another job keeps, with the columns that a rollup needs of it.
#[derive(Clone, Debug)]
pub(crate) struct ForeignTable {
    pub(crate) name: TableName,
    /// The type of its bucket: an instant, a local time or a date.
    pub(crate) bucket_type: String,
    /// The dimensions and measures of the rollup's table, each with its type there.
    pub(crate) columns: Vec<(String, String)>,
}

/// Rows that were taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdoptedRows {
    /// Slices that had no rows of Tallymark's.
    pub slices: u64,
    pub rows: u64,
}

/// Why slices that are computed from taken over rows run again.
pub(crate) const REASON: &str = "rows were taken over";

/// The type of an instant.
const INSTANT: &str = "timestamp with time zone";

impl ForeignTable {
    /// The bucket of its row `f`, as an instant.
    fn instant(&self, rollup: &Rollup) -> String {
        match self.bucket_type == INSTANT {
            true => "f.bucket".to_owned(),
            false => format!("(f.bucket::timestamp AT TIME ZONE {})", zone(rollup)),
        }
    }

    /// An instant in the type of the bucket, so that an index on it is of use.
    fn bound(&self, rollup: &Rollup, instant: &str) -> String {
        match &*self.bucket_type {
            INSTANT => instant.to_owned(),
            "date" => {
                format!("(({instant} AT TIME ZONE {}) + interval '12 hours')::date", zone(rollup))
            }
            _ => format!("({instant} AT TIME ZONE {})", zone(rollup)),
        }
    }

    /// Its bucket in the type of the rollup's.
    fn bucket(&self, rollup: &Rollup) -> String {
        match rollup.bucket_as {
            BucketType::Instant => self.instant(rollup),
            BucketType::Date if self.bucket_type == INSTANT => {
                format!("(f.bucket AT TIME ZONE {})::date", zone(rollup))
            }
            BucketType::Date => "f.bucket::date".to_owned(),
        }
    }
}

fn zone(rollup: &Rollup) -> String {
    literal(rollup.calendar.zone().name())
}

impl Target {
    /// The first and the last bucket of `foreign`. `None`: it has no rows.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub(crate) async fn extent_of(
        &self,
        rollup: &Rollup,
        foreign: &ForeignTable,
    ) -> Result<Option<(DateTime<Utc>, DateTime<Utc>)>, DbError> {
        const DOING: &str = "reading the other job's table";
        let sql = format!(
            "-- Where the other job's rows begin and end\nSELECT min({at}) AS first, max({at}) AS last FROM {} f",
            table(&foreign.name),
            at = foreign.instant(rollup),
        );
        let mut tx = self.db.begin(Access::ReadOnly, STATEMENT_TIMEOUT, &rollup.name).await?;
        let row = tx.row(DOING, sql).await?;
        let read = || Ok::<_, sqlx::Error>((row.try_get("first")?, row.try_get("last")?));
        let (first, last): (Option<_>, Option<_>) =
            read().map_err(|source| tx.error(DOING, source))?;
        tx.rollback().await?;
        Ok(first.zip(last))
    }

    /// Takes over the rows of `foreign` for those of `slices` that have none of Tallymark's. All of
    /// them start before `before`. In the same transaction readers see the slices of `coarse`, which
    /// are computed from them, as stale.
    ///
    /// # Errors
    /// [`TargetError::Stranger`] if the registry does not seal them for this installation. Or the
    /// server refuses or cannot be reached.
    pub(crate) async fn adopt(
        &self,
        rollup: &Rollup,
        foreign: &ForeignTable,
        slices: &[Slice],
        before: DateTime<Utc>,
        coarse: &[CoarseSlice],
    ) -> Result<AdoptedRows, TargetError> {
        const DOING: &str = "taking over the rows of another job's table";
        let is_kept =
            self.keeper(&rollup.name).map(|id| format!("installation = {}", literal(&id)));
        let list = |of: fn(&Slice) -> DateTime<Utc>| {
            let all: Vec<_> = slices.iter().map(|slice| timestamptz(of(slice))).collect();
            format!("ARRAY[{}]", all.join(", "))
        };
        let names = foreign.columns.iter().map(|(name, _)| ident(name));
        let values = foreign.columns.iter().map(|(name, to)| format!("f.{}::{to}", ident(name)));
        let bucket = foreign.bucket(rollup);
        let sql = format!(
            include_str!("adopt.sql"),
            rollup = literal(&rollup.name),
            is_kept = is_kept.as_deref().unwrap_or("true"),
            before = timestamptz(before),
            name = literal(&foreign.name.to_string()),
            foreign = table(&foreign.name),
            table = self.table(rollup),
            first = foreign.bound(rollup, "s.first"),
            last = foreign.bound(rollup, "s.last"),
            starts = list(Slice::start),
            ends = list(Slice::end),
            columns = [ident("bucket")].into_iter().chain(names).collect::<Vec<_>>().join(", "),
            values = [bucket].into_iter().chain(values).collect::<Vec<_>>().join(", "),
        );
        if let (Some(first), Some(last)) = (slices.first(), slices.last()) {
            let span = (first.start().min(last.start()), first.end().max(last.end()));
            self.make_room(rollup, span, STATEMENT_TIMEOUT).await?;
        }
        let mut tx = self.db.begin(Access::ReadWrite, STATEMENT_TIMEOUT, &rollup.name).await?;
        let row = tx.row(DOING, sql).await?;
        let read = || {
            let count = |name| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
            let adopted = AdoptedRows { slices: count("slices")?, rows: count("rows")? };
            Ok::<_, sqlx::Error>((adopted, row.try_get::<bool, _>("is_sealed")?))
        };
        let (adopted, is_sealed) = read().map_err(|source| tx.error(DOING, source))?;
        if !is_sealed {
            tx.rollback().await?;
            return Err(TargetError::Stranger);
        }
        if adopted.slices > 0 {
            for of_one in coarse.chunk_by(|one, other| one.rollup == other.rollup) {
                let raised: Vec<_> = of_one.iter().map(|it| it.slice).collect();
                raise_within(&mut tx, &of_one[0].rollup, &raised, REASON).await?;
            }
        }
        tx.commit().await?;
        Ok(adopted)
    }
}
