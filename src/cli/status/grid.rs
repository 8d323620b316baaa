//! The calendar of slices: lines of letters, and the letters' meanings.

use std::collections::BTreeMap;

use chrono::{Datelike as _, TimeDelta, Timelike as _};

use crate::cli::ui::{self, Paint};
use crate::model::rollup::Rollup;
use crate::work::due::{Planned, Standing};

/// The lines of a calendar by their labels. Each has its slices by their places.
pub(in crate::cli) type CalendarLines<'s> = BTreeMap<String, BTreeMap<usize, &'s Planned>>;

/// Arranges slices in lines.
pub(in crate::cli) fn arranged<'s>(rollup: &Rollup, slices: &'s [Planned]) -> CalendarLines<'s> {
    let line = LineSpan::of(rollup);
    let mut rows = CalendarLines::new();
    for planned in slices {
        let local = planned.slice.start().with_timezone(&rollup.calendar.zone());
        let (label, place) = line.place(rollup, local.naive_local());
        let row = rows.entry(label).or_default();
        // An hour that occurs twice takes the next place.
        let place = if row.contains_key(&place) { place + 1 } else { place };
        row.insert(place, planned);
    }
    rows
}

/// The calendar of slices: a line per month (or day, or year), a letter per slice.
pub(super) fn grid(rollup: &Rollup, slices: &[Planned], lines: usize) -> Vec<String> {
    let rows = arranged(rollup, slices);
    let shown = rows.len().saturating_sub(lines.max(1));
    rows.into_iter()
        .skip(shown)
        .map(|(label, cells)| {
            let width = cells.keys().max().map_or(0, |last| last + 1);
            let cells: String = (0..width)
                .map(|place| match cells.get(&place) {
                    Some(Planned { standing, .. }) => {
                        ui::paint(color(*standing), letter(*standing))
                    }
                    None => " ".into(),
                })
                .collect();
            format!("{label}  {cells}")
        })
        .collect()
}

/// The time that a line of the calendar covers.
#[derive(Clone, Copy)]
pub(super) enum LineSpan {
    HalfDay,
    Day,
    Month,
    Year,
}

impl LineSpan {
    pub(super) fn of(rollup: &Rollup) -> Self {
        let width = rollup.calendar.width().approximate();
        match width.as_secs() {
            0..1200 => Self::HalfDay,
            1200..86_400 => Self::Day,
            86_400 => Self::Month,
            _ => Self::Year,
        }
    }

    pub(super) fn span(self) -> TimeDelta {
        match self {
            Self::HalfDay => TimeDelta::hours(12),
            Self::Day => TimeDelta::days(1),
            Self::Month => TimeDelta::days(31),
            Self::Year => TimeDelta::days(366),
        }
    }

    /// The line's label and the slice's place in it.
    fn place(self, rollup: &Rollup, local: chrono::NaiveDateTime) -> (String, usize) {
        let width = rollup.calendar.width().approximate().as_secs().max(1);
        let second = u64::from(local.time().num_seconds_from_midnight());
        let nth = |second: u64| usize::try_from(second / width).unwrap_or(0);
        match self {
            Self::HalfDay => {
                let half = if local.hour() < 12 { "am" } else { "pm" };
                (format!("{} {half}", local.date()), nth(second % (12 * 3600)))
            }
            Self::Day => (local.date().to_string(), nth(second)),
            Self::Month => (local.format("%Y-%m").to_string(), local.day0() as usize),
            Self::Year if width > 8 * 86_400 => {
                let months = usize::try_from(width / (30 * 86_400)).unwrap_or(1).max(1);
                (local.year().to_string(), local.month0() as usize / months)
            }
            Self::Year => {
                let week = local.iso_week();
                (week.year().to_string(), week.week0() as usize)
            }
        }
    }
}

pub(in crate::cli) const fn letter(standing: Standing) -> char {
    match standing {
        Standing::Succeeded => '#',
        Standing::Missing => '.',
        Standing::Running => 'R',
        Standing::LeaseOver => 'L',
        Standing::Retry => 'F',
        Standing::Waiting => 'W',
        Standing::Exhausted => 'X',
        Standing::Yielded => 'Y',
        Standing::Stale => 'S',
        Standing::Lookback => 'B',
        Standing::Redefined => 'D',
        Standing::OtherCalendar => 'C',
        Standing::Grown => 'G',
        Standing::Open => 'O',
        Standing::Sealed => '-',
        Standing::Adopted => 'A',
        Standing::Empty => '_',
        Standing::Blocked => '~',
        Standing::NotEnded => ' ',
    }
}

pub(in crate::cli) const fn color(standing: Standing) -> Paint {
    match standing {
        Standing::Succeeded | Standing::Open => Paint::Green,
        Standing::Missing
        | Standing::Sealed
        | Standing::Adopted
        | Standing::Empty
        | Standing::NotEnded => Paint::Dim,
        Standing::Running
        | Standing::Yielded
        | Standing::Lookback
        | Standing::Redefined
        | Standing::Grown
        | Standing::OtherCalendar => Paint::Cyan,
        Standing::Waiting | Standing::LeaseOver | Standing::Stale | Standing::Blocked => {
            Paint::Yellow
        }
        Standing::Retry | Standing::Exhausted => Paint::Alarm,
    }
}

/// The standings that occur with their counts, the most frequent first.
pub(in crate::cli) fn counts<'s>(
    slices: impl Iterator<Item = &'s Planned>,
) -> Vec<(Standing, usize)> {
    let mut counts: BTreeMap<&str, (Standing, usize)> = BTreeMap::new();
    for planned in slices {
        let standing = planned.standing;
        counts.entry(standing.word()).or_insert((standing, 0)).1 += 1;
    }
    let mut counts: Vec<(Standing, usize)> = counts.into_values().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// The letters that occur, each with its meaning and count.
pub(super) fn legend(slices: &[Planned]) -> String {
    counts(slices.iter())
        .into_iter()
        .map(|(standing, count)| {
            let letter = ui::paint(color(standing), letter(standing));
            format!("{letter} {} {}", ui::count(count), standing.word())
        })
        .collect::<Vec<_>>()
        .join("   ")
}
