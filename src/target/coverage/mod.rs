//! What readers of the target are told about slices: which are stale, and what a tick has found.
//!
//! `tallymark.outstanding` has a generation for each slice that had to run again. A tick raises it
//! before it reopens the slice in the store, and acknowledges the change after that. An attempt
//! reads the generation before it first reads the source, and its replacement writes down that one.
//! So a slice is right where both are equal. `tallymark.checked` has the first instant of the last
//! tick, whose findings are all raised. `tests/model/reader.rs` checks this order.

mod objects;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::Target;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError, Tx, Whole};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::model::sql::{literal, timestamptz};
use crate::model::visible;

pub(super) use objects::objects;

/// Slices raised by one statement.
const RAISED_AT_ONCE: usize = 5_000;

/// Slices that [`tell_sql`] returns.
const OUTSTANDING_MAX: usize = 20;

/// The setting that keeps a generation until the end of its transaction.
pub(super) const GENERATION: &str = "tallymark.generation";

/// A slice of a coarse rollup that contains a finer slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoarseSlice {
    pub rollup: String,
    pub slice: Slice,
}

impl CoarseSlice {
    /// Whether it is computed from this finer slice, too.
    pub(super) fn holds(&self, finer: Slice) -> bool {
        self.slice.start() < finer.end() && finer.start() < self.slice.end()
    }
}

/// What a tick tells about a rollup.
#[derive(Clone, Debug)]
pub(crate) struct ToldRollup {
    pub(crate) rollup: String,
    /// All changes before this instant are found. `None`: no later one than was told before.
    pub(crate) checked_at: Option<DateTime<Utc>>,
    /// The present definition, in the form of markers.
    pub(crate) definition: String,
    /// The rollup that it is computed from.
    pub(crate) parts_of: Option<String>,
    /// Whether its slices are trailing windows.
    pub(crate) is_window: bool,
    pub(crate) settled_by: &'static str,
    pub(crate) history_from: DateTime<Utc>,
    /// Slices that end by then have no rows in the source.
    pub(crate) empty_before: Option<DateTime<Utc>>,
    /// Slices that start before it are sealed, and nothing that runs again was sealed with them.
    pub(crate) seal_before: Option<DateTime<Utc>>,
    /// Every slice before it was done by the present definition, as the tick began.
    pub(crate) done_until: DateTime<Utc>,
    /// The starts of the buckets that a live view may aggregate, and the end of the last. Empty: it
    /// has none.
    pub(crate) tail: Vec<DateTime<Utc>>,
    /// Slices that start before it were compared in the present round of the scrub.
    pub(crate) verified_through: Option<DateTime<Utc>>,
    pub(crate) slice_seconds: i64,
    pub(crate) grace_seconds: i64,
    /// The ends of the newest slice that is over and of those after it.
    pub(crate) ends: Vec<DateTime<Utc>>,
    /// The starts of slices whose attempts fail.
    pub(crate) failing: Vec<DateTime<Utc>>,
}

/// An expression for the generation of a slice. That of a trailing window also counts the changes of
/// its finer slices, so that a worker that changes one of them writes nothing for its windows.
pub(super) fn generation_of_slice(rollup: &Rollup, slice: Slice) -> String {
    let raised = format!(
        "coalesce((SELECT c.generation FROM tallymark.outstanding c WHERE c.rollup = {} AND \
         c.slice_start = {}), 0)",
        literal(&rollup.name),
        timestamptz(slice.start()),
    );
    let Some((finer, first)) = rollup.trailing_parts(slice) else { return raised };
    format!(
        "({raised} + coalesce((SELECT sum(f.changes) FROM tallymark.slice f WHERE f.rollup = {} AND \
         f.slice_start >= {} AND f.slice_start < {}), 0))",
        literal(finer),
        timestamptz(first),
        timestamptz(slice.end()),
    )
}

/// Raises the generation of `slices` of `rollup` in `tx`, in the order of locks.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn raise_within(
    tx: &mut Tx,
    rollup: &str,
    slices: &[Slice],
    reason: &str,
) -> Result<(), DbError> {
    for some in slices.chunks(RAISED_AT_ONCE) {
        tx.ask(RAISING, raising(rollup, some, reason)).await?;
    }
    Ok(())
}

const RAISING: &str = "telling readers of stale slices";

fn raising(rollup: &str, slices: &[Slice], reason: &str) -> String {
    format!(
        include_str!("raise.sql"),
        rollup = literal(rollup),
        reason = literal(&visible::line(reason)),
        starts = instants(slices.iter().map(|slice| slice.start())),
        ends = instants(slices.iter().map(|slice| slice.end())),
    )
}

/// The part of a replacement of `finer` that raises the coarse slices, or nothing.
pub(super) fn coarse_sql(coarse: &[&CoarseSlice], finer: Slice, reason: &str) -> String {
    if coarse.is_empty() {
        return String::new();
    }
    let values = coarse.iter().map(|CoarseSlice { rollup, slice }| {
        let (start, end) = (timestamptz(slice.start()), timestamptz(slice.end()));
        format!("({}, {start}, {end})", literal(rollup))
    });
    format!(
        ", coarse AS (\n\
         INSERT INTO tallymark.outstanding AS o \
         (rollup, slice_start, slice_end, generation, since, reason, changed_from)\n\
         SELECT v.rollup, v.first, v.last, 1, clock_timestamp(), {reason}, {from} \
         FROM (VALUES {values}) AS v (rollup, first, last)\n\
         ON CONFLICT (rollup, slice_start) DO UPDATE SET generation = o.generation + 1, \
         reason = excluded.reason, changed_from = CASE WHEN o.cleared < o.generation \
         THEN least(o.changed_from, excluded.changed_from) ELSE excluded.changed_from END, \
         since = CASE WHEN o.cleared < o.generation THEN o.since ELSE excluded.since END\n)",
        reason = literal(reason),
        from = timestamptz(finer.start()),
        values = values.collect::<Vec<_>>().join(", "),
    )
}

/// Tells readers, and asks for the slices that they see as stale.
pub(crate) fn tell_sql(told: &[ToldRollup]) -> String {
    let optional = |instant: Option<DateTime<Utc>>| {
        instant.map_or_else(|| "NULL::timestamptz".to_owned(), timestamptz)
    };
    let values = told.iter().map(|it| {
        let name = literal(&it.rollup);
        let told =
            || format!("(SELECT k.checked_at FROM tallymark.checked k WHERE k.rollup = {name})");
        let finer = it.parts_of.as_deref().map_or_else(|| "NULL::text".to_owned(), literal);
        format!(
            "({name}, {}, {}, {finer}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
            it.checked_at.map_or_else(told, timestamptz),
            literal(&it.definition),
            literal(it.settled_by),
            timestamptz(it.history_from),
            optional(it.empty_before),
            optional(it.seal_before),
            timestamptz(it.done_until),
            instants(it.tail.iter().copied()),
            optional(it.verified_through),
            it.slice_seconds,
            it.grace_seconds,
            instants(it.ends.iter().copied()),
            instants(it.failing.iter().copied()),
        )
    });
    let windows = told.iter().filter(|it| it.is_window).map(|it| literal(&it.rollup));
    let windows: Vec<_> = windows.collect();
    format!(
        include_str!("tell.sql"),
        values = values.collect::<Vec<_>>().join(",\n"),
        windows = match windows.is_empty() {
            true => String::new(),
            false => format!(include_str!("windows.sql"), rollups = windows.join(", ")),
        },
        rollups = told.iter().map(|it| literal(&it.rollup)).collect::<Vec<_>>().join(", "),
        limit = OUTSTANDING_MAX,
    )
}

/// The slices that an answer to [`tell_sql`] has.
///
/// # Errors
/// A column is missing or of another type.
pub(crate) fn outstanding(rows: &[PgRow]) -> Result<Vec<(String, DateTime<Utc>)>, sqlx::Error> {
    rows.iter().map(|row| Ok((row.try_get("rollup")?, row.try_get("slice_start")?))).collect()
}

fn instants(instants: impl Iterator<Item = DateTime<Utc>>) -> String {
    let texts: Vec<String> = instants.map(timestamptz).collect();
    format!("ARRAY[{}]::timestamptz[]", texts.join(", "))
}

impl Target {
    /// Raises the generation of `slices` of `rollup`: readers see them as stale from now on.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub(crate) async fn raise(
        &self,
        rollup: &str,
        slices: &[Slice],
        reason: &str,
    ) -> Result<(), DbError> {
        for some in slices.chunks(RAISED_AT_ONCE) {
            self.whole(RAISING, rollup, raising(rollup, some, reason)).await?;
        }
        Ok(())
    }

    /// Runs the statements of [`tell_sql`].
    ///
    /// # Errors
    /// As [`Target::raise`].
    pub(crate) async fn tell(&self, sql: String) -> Result<Vec<PgRow>, DbError> {
        self.whole("telling readers what was found", "coverage", sql).await
    }

    async fn whole(&self, doing: &str, label: &str, sql: String) -> Result<Vec<PgRow>, DbError> {
        let statement_timeout = CATALOGUE_TIMEOUT;
        let whole = Whole { access: Access::ReadWrite, statement_timeout, label, doing, sql };
        self.db.run_whole(&whole).await
    }
}
