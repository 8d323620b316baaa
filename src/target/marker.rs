//! The statements that write the markers of slices.

use chrono::TimeDelta;

use super::replace::{PriorMarker, Replaced};
use super::{Target, generation};
use crate::checkpoint::Lease;
use crate::model::rollup::Rollup;
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
pub(super) fn longest(slice: Slice, generation: u64) -> TimeDelta {
    match generation {
        0 => (slice.end() - slice.start()) * 2 + TimeDelta::days(1),
        _ => LONGEST_SLICE,
    }
}

/// What the marker of a slice is to say.
#[derive(Clone, Copy)]
pub(super) struct Told<'m> {
    pub(super) lease: &'m Lease,
    pub(super) slice: Slice,
    pub(super) replaced: &'m Replaced,
    pub(super) before: &'m PriorMarker,
}

impl Told<'_> {
    /// Whether rows have changed. An attempt after the first cannot know whether the one before it has
    /// changed them.
    fn has_changed(&self) -> bool {
        self.replaced.rewritten() > 0 || self.lease.attempt() > 1
    }

    /// As [`longest`].
    fn longest(&self) -> TimeDelta {
        longest(self.slice, generation_of(self.lease.definition()))
    }
}

/// The statement that writes the markers of neighbouring slices of `rollup`, whose time together is
/// `whole`, where nothing else is to be written: otherwise it writes nothing. `None`: other slices are
/// to be raised, too.
pub(super) fn markers_sql(
    rollup: &Rollup,
    slices: &[Told<'_>],
    whole: Slice,
    coarse: &[CoarseSlice],
) -> Option<String> {
    let raises = |told: &Told<'_>| {
        told.has_changed() && coarse.iter().any(|coarse| coarse.holds(told.slice))
    };
    let first = slices.first().filter(|_| rollup.trailing.is_none())?;
    if slices.iter().any(raises) {
        return None;
    }
    let marker = |told: &Told<'_>| {
        let Told { lease, slice, replaced, before } = told;
        format!(
            "({}, {}, {}, {}, {}, {}, {}, {}, {})",
            timestamptz(slice.start()),
            timestamptz(slice.end()),
            literal(lease.definition()),
            replaced.rows_read,
            replaced.groups,
            lease.attempt(),
            literal(lease.owner()),
            u8::from(told.has_changed()),
            before.generation,
        )
    };
    Some(format!(
        include_str!("markers.sql"),
        markers = slices.iter().map(marker).collect::<Vec<_>>().join(",\n        "),
        rollup = literal(&rollup.name),
        start = timestamptz(whole.start()),
        end = timestamptz(whole.end()),
        since = timestamptz(first.slice.start() - first.longest()),
    ))
}

/// The statement that writes a slice's marker. It returns the sealed slice of another calendar that
/// the slice overlaps, and whether it overlaps any of another calendar.
pub(super) fn marker_sql(
    target: &Target,
    job: SliceJob<'_>,
    told: Told<'_>,
    coarse: &[CoarseSlice],
) -> String {
    let SliceJob { rollup, open_until, .. } = job;
    let Told { lease, slice, replaced, before } = told;
    let has_changed = told.has_changed();
    let raised = coarse.iter().filter(|it| has_changed && it.holds(slice));
    let raised: Vec<_> = raised.collect();
    let generation = &*before.generation;
    let window_start = rollup.trailing_parts(slice).map(|(_, first)| timestamptz(first));
    let cleared = match window_start {
        None => generation.to_owned(),
        // The generation of a window is a sum. Where it is another one now, the window is stale.
        Some(_) => format!(
            "CASE WHEN {} = {generation} THEN generation ELSE generation - 1 END",
            generation_of_slice(rollup, slice)
        ),
    };
    let longest = told.longest();
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
