//! The statement that writes a slice's marker.

use chrono::TimeDelta;

use super::replace::{PriorMarker, Replaced};
use super::{Target, generation};
use crate::checkpoint::Lease;
use crate::model::rollup::generation::generation_of;
use crate::model::slice::Slice;
use crate::model::sql::{literal, timestamptz};
use crate::source::SliceJob;
use crate::target::coverage::{CoarseSlice, coarse_sql, generation_of_slice};

/// A slice is at most a year of 366 days, and what a change of the zone adds.
const LONGEST_SLICE: TimeDelta = TimeDelta::days(370);

/// The length of the longest slice that may have rows in the table beside those of `slice`.
///
/// In the first generation all slices are of one width. A change of the zone, or of its rules, adds
/// at most a day. Later generations may have replaced slices of any width.
fn longest(slice: Slice, generation: u64) -> TimeDelta {
    match generation {
        0 => (slice.end() - slice.start()) * 2 + TimeDelta::days(1),
        _ => LONGEST_SLICE,
    }
}

/// The statement that writes a slice's marker. It returns the sealed slice of another calendar that
/// the slice overlaps.
pub(super) fn marker_sql(
    target: &Target,
    lease: &Lease,
    job: SliceJob<'_>,
    replaced: &Replaced,
    marker: &PriorMarker,
    coarse: &[CoarseSlice],
) -> String {
    let SliceJob { rollup, slice, open_until, .. } = job;
    // An attempt after the first cannot know whether the one before it has changed the rows.
    let has_changed = replaced.rewritten() > 0 || lease.attempt() > 1;
    let raised = coarse.iter().filter(|it| has_changed && it.holds(slice));
    let raised: Vec<_> = raised.collect();
    let generation = &*marker.generation;
    let window_start = rollup.trailing_parts(slice).map(|(_, first)| timestamptz(first));
    let cleared = match window_start {
        None => generation.to_owned(),
        // The generation of a window is a sum. Where it is another one now, the window is stale.
        Some(_) => format!(
            "CASE WHEN {} = {generation} THEN generation ELSE generation - 1 END",
            generation_of_slice(rollup, slice)
        ),
    };
    let longest = longest(slice, generation_of(lease.definition()));
    let (since, until) = (slice.start() - longest, slice.end() + longest);
    // By these constants the planner finds the few partitions that can hold such rows.
    let in_reach = rollup.partition_by.map_or_else(String::new, |_| {
        let (time, since, until) =
            (rollup.time_key(), rollup.time_at(since), rollup.time_at(until));
        format!("AND r.{time} >= {since} AND r.{time} < {until}")
    });
    format!(
        include_str!("marker.sql"),
        rollup = literal(&rollup.name),
        table = target.table(rollup),
        time = rollup.time_key(),
        start = timestamptz(slice.start()),
        end = timestamptz(slice.end()),
        first = rollup.time_at(slice.start()),
        last = rollup.time_at(slice.end()),
        other_first = rollup.time_of("o.slice_start"),
        other_last = rollup.time_of("o.slice_end"),
        since = timestamptz(since),
        in_reach = in_reach,
        seal = generation::seal(rollup),
        definition = literal(lease.definition()),
        rows_read = replaced.rows_read,
        groups = replaced.groups,
        attempt = lease.attempt(),
        owner = literal(lease.owner()),
        cleared = cleared,
        changed = u8::from(has_changed),
        window_generation = window_start.as_ref().map_or("NULL", |_| generation),
        window_start = window_start.as_deref().unwrap_or("NULL"),
        open_until = open_until.map_or_else(|| "NULL".to_owned(), timestamptz),
        coarse = coarse_sql(&raised, slice, &format!("{} changed", slice.id(&rollup.name))),
    )
}
