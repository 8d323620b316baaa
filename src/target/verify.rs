//! Compares a slice's rows with the result computed from the source.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::replace::StatementOptions;
use super::stage::copy;
use super::statement::{differs, merged, same_group};
use super::{Target, TargetError};
use crate::clients::db::{Access, Db, DbError, Tx};
use crate::model::clock::Stopwatch;
use crate::model::sql::ident;
use crate::model::text::cut_json;
use crate::source::SliceJob;
use crate::source::reading::nap::Nap;
use crate::source::reading::read::{Form, select_napping};
use crate::throttle::Governor;

/// The temporary table for rows from another database. It is gone at the end of the comparison.
const TEMP_STAGE: &str = "pg_temp.verify_stage";

/// The subject of a comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verification<'a> {
    pub(crate) job: SliceJob<'a>,
    /// The buckets to compare: from the start of one to the start of another, or to the slice's
    /// end.
    pub(crate) buckets: (DateTime<Utc>, DateTime<Utc>),
    /// Time limit of each statement.
    pub(crate) timeout: Duration,
    /// The rests within each statement that reads the source.
    pub(crate) nap: Option<Nap>,
    /// The maximum number of differing groups to return, at least one, as they carry the total.
    pub(crate) limit: usize,
    /// Decides whether the source can be read now. `None`: the source is not read.
    pub(crate) governor: Option<&'a Governor>,
}

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Comparison {
    /// The number of groups that differ.
    pub(crate) differences: u64,
    /// The first of them.
    pub(crate) examples: Vec<Difference>,
    /// How long the source worked, without the connection's time and the naps.
    pub(crate) work: Duration,
}

impl Target {
    /// Compares these buckets with the result of reading `source` now. Writes nothing.
    ///
    /// # Errors
    /// The source is busy, or a server failed.
    pub(crate) async fn verify(
        &self,
        source: &Db,
        what: &Verification<'_>,
    ) -> Result<Comparison, TargetError> {
        let Verification { job, timeout, buckets, governor, nap, .. } = *what;
        let SliceJob { rollup, shape, slice, .. } = job;
        let options = StatementOptions {
            shrink: None,
            timeout,
            governor,
            nap: None,
            last: None,
            coarse: &[],
        };
        let bounds = job.rows_behind(buckets);
        let label = job.label();
        if self.holds_source_of(rollup) {
            let input = select_napping(rollup, shape, Form::Whole, bounds, false, nap);
            let mut tx =
                options.enter(source.begin(Access::ReadOnly, timeout, &label).await?).await?;
            let watch = Stopwatch::start();
            let (differences, examples) = self.compare(&mut tx, what, &input).await?;
            let work = without(nap, watch.elapsed());
            tx.rollback().await?;
            return Ok(Comparison { differences, examples, work });
        }
        // Rolled back at the end, so that nothing is written.
        let reader = options.enter(source.begin(Access::ReadOnly, timeout, &label).await?).await?;
        let mut tx = self.db.begin(Access::ReadWrite, timeout, &label).await?;
        let stage = Self::stage(rollup);
        let sql = format!("CREATE TEMP TABLE verify_stage (LIKE {stage}) ON COMMIT DROP");
        tx.execute("making a temporary stage", sql).await?;
        let select = select_napping(rollup, shape, Form::Whole, bounds, true, nap);
        let watch = Stopwatch::start();
        copy(reader, &mut tx, TEMP_STAGE, job, &select).await?;
        let work = without(nap, watch.elapsed());
        let input = merged(TEMP_STAGE, shape, slice, Form::Whole);
        let (differences, examples) = self.compare(&mut tx, what, &input).await?;
        tx.rollback().await?;
        Ok(Comparison { differences, examples, work })
    }

    async fn compare(
        &self,
        tx: &mut Tx,
        what: &Verification<'_>,
        input: &str,
    ) -> Result<(u64, Vec<Difference>), DbError> {
        if self.is_equal(tx, what, input).await? {
            return Ok((0, Vec::new()));
        }
        let sql = self.comparison(what, input);
        let rows = tx.rows("listing the differences", sql).await?;
        let total = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>("differences"));
        let read = |error| tx.error("reading the differences", error);
        let total = total.map_err(read)?.unsigned_abs();
        let differences =
            rows.iter().map(Difference::read).collect::<Result<_, _>>().map_err(read)?;
        Ok((total, differences))
    }

    /// Whether the rollup has exactly the groups of `input`, each of them once.
    async fn is_equal(
        &self,
        tx: &mut Tx,
        what: &Verification<'_>,
        input: &str,
    ) -> Result<bool, DbError> {
        const DOING: &str = "comparing the slice";
        let Verification { job: SliceJob { rollup, shape, .. }, buckets: (start, end), .. } = *what;
        let sql = format!(
            include_str!("compare.sql"),
            input = input,
            rollup = self.table(rollup),
            start = rollup.time_at(start),
            end = rollup.time_at(end),
            same_group = same_group(shape),
            differs = differs(shape),
        );
        let row = tx.row(DOING, sql).await?;
        let read = || Ok((row.try_get("differences")?, row.try_get("is_paired")?));
        let (differences, is_paired): (i64, bool) =
            read().map_err(|source| tx.error(DOING, source))?;
        Ok(differences == 0 && is_paired)
    }

    fn comparison(&self, what: &Verification<'_>, input: &str) -> String {
        let Verification { job, buckets: (start, end), limit, .. } = *what;
        let SliceJob { rollup, shape, .. } = job;
        let fields: Vec<&str> = shape.fields.iter().map(|field| field.name.as_str()).collect();
        let keys: Vec<&str> = std::iter::once("bucket")
            .chain(shape.dimensions.iter().map(|dimension| dimension.name.as_str()))
            .collect();
        let places = keys.iter().chain(&fields).zip(0_usize..);
        let sides = places.flat_map(|(name, place)| {
            let name = ident(name);
            [format!("__n.{name} AS __n_{place}"), format!("__o.{name} AS __o_{place}")]
        });
        let sides = sides.collect::<Vec<_>>().join(", ");
        let object = |side: &str, names: &[&str], first: usize| {
            let columns = names.iter().zip(first..);
            let columns: Vec<String> = columns
                .map(|(name, place)| format!("__d.{side}_{place} AS {}", ident(name)))
                .collect();
            // json_build_object accepts at most 50 columns, so use row_to_json.
            format!("(SELECT row_to_json(__j) FROM (SELECT {}) __j)", columns.join(", "))
        };
        format!(
            include_str!("verify.sql"),
            sides = sides,
            key_extra = object("__o", &keys, 0),
            key = object("__n", &keys, 0),
            expected = object("__n", &fields, keys.len()),
            actual = object("__o", &fields, keys.len()),
            input = input,
            rollup = self.table(rollup),
            start = rollup.time_at(start),
            end = rollup.time_at(end),
            same_group = same_group(shape),
            differs = differs(shape),
            limit = limit.max(1),
        )
    }
}

/// The work of a statement that took `elapsed` with its naps.
fn without(nap: Option<Nap>, elapsed: Duration) -> Duration {
    nap.map_or(elapsed, |nap| elapsed.saturating_sub(nap.slept(elapsed)))
}

/// One group in which the rollup differs from the source.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// `missing` from the rollup, `extra` in it, an additional copy (`doubled`), or `differs`.
    pub difference: String,
    /// The group: bucket and dimensions.
    pub key: serde_json::Value,
    /// The measures according to the source. Null for `extra`.
    pub expected: Option<serde_json::Value>,
    /// The measures in the rollup table. Null for `missing`.
    pub actual: Option<serde_json::Value>,
}

impl Difference {
    fn read(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        let json = |text: String| {
            cut_json(serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
        };
        Ok(Self {
            difference: row.try_get("difference")?,
            key: json(row.try_get("key")?),
            expected: row.try_get::<Option<String>, _>("expected")?.map(json),
            actual: row.try_get::<Option<String>, _>("actual")?.map(json),
        })
    }
}
