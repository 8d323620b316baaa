//! Which rows of its source a slice is computed from, and which slices a finer one is part of.

use chrono::{DateTime, TimeDelta, Utc};

use super::Rollup;
use crate::model::slice::Slice;

/// A month of 31 days is this much longer than one of 30, and a change of clocks adds hours.
const SPAN_EXCESS: f64 = 1.04;
const SPAN_EXCESS_DAYS: i64 = 3;

impl Rollup {
    /// The times of the rows that `slice` is computed from: its own time, or the window that ends
    /// with it. A window consists of whole finer slices, of at least one.
    #[must_use]
    pub fn window(&self, slice: Slice) -> (DateTime<Utc>, DateTime<Utc>) {
        let (Some(span), Some(finer)) = (self.trailing, &self.finer) else {
            return (slice.start(), slice.end());
        };
        let end = slice.end();
        let last = finer.calendar.previous(finer.calendar.containing(end)).start();
        let back = finer.calendar.containing(self.calendar.back(end, span)).start();
        (back.min(last), end)
    }

    /// The name of the finer rollup of a trailing window, and the start of its first finer slice, which
    /// may lie before that one's history. `None`: the slice is no window.
    #[must_use]
    pub(crate) fn trailing_parts(&self, slice: Slice) -> Option<(&str, DateTime<Utc>)> {
        let finer = self.finer.as_ref().filter(|_| self.trailing.is_some())?;
        Some((&finer.name, self.window(slice).0))
    }

    /// The first and the last slice whose windows hold `finer`, a slice of the rollup that this one
    /// is computed from. A few between them may lack it where clocks go back. `None`: no window
    /// holds it, before `start` or between windows that are narrower than their slices.
    #[must_use]
    pub(crate) fn windows_with(&self, finer: Slice) -> Option<(Slice, Slice)> {
        let own = self.calendar.containing(finer.start());
        let Some(span) = self.trailing else {
            return (own.start() >= self.start).then_some((own, own));
        };
        let reach = TimeDelta::from_std(span.approximate().mul_f64(SPAN_EXCESS));
        let reach = reach.unwrap_or(TimeDelta::MAX) + TimeDelta::days(SPAN_EXCESS_DAYS);
        let from = own.start().max(self.start);
        // Its window ends with the slice, so a later slice than this cannot reach back so far.
        let until = (finer.end() + reach).max(own.end());
        let holds = |slice: &Slice| {
            let (start, end) = self.window(*slice);
            start < finer.end() && finer.start() < end
        };
        let mut holding = self.calendar.slices(from, until).filter(holds);
        let first = holding.next()?;
        Some((first, holding.last().unwrap_or(first)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use crate::config::Config;
    use crate::model::slice::Slice;

    use super::*;

    fn windows(zone: &str, finer: &str, slice: &str, trailing: &str) -> Rollup {
        let text = format!(
            "source.url = 'postgres://app@db/shop'\n[[rollup]]\nname = 'finer'\nfrom = 'events'\n\
             time = 'at'\nstart = '2011-01-01'\nslice = '{finer}'\ntimezone = '{zone}'\n\
             measures.n = 'count'\n[[rollup]]\nname = 'windows'\nfrom = {{ rollup = 'finer' }}\n\
             slice = '{slice}'\ntrailing = '{trailing}'\nmeasures = ['n']\n"
        );
        let config = Config::parse(Path::new("tallymark.toml"), &text, &|_| None).unwrap();
        config.rollup("windows").unwrap().clone()
    }

    fn named(rollup: &Rollup, start: &str) -> Slice {
        rollup.calendar.starting(rollup.calendar.instant(start).unwrap()).unwrap()
    }

    #[test]
    fn a_window_ends_with_its_slice_and_reaches_back_by_local_dates() {
        let days = windows("America/New_York", "1 hour", "1 day", "28 days");
        let instant = |text: &str| days.calendar.instant(text).unwrap();
        // Clocks go forward on 10 March.
        let (start, end) = days.window(named(&days, "2024-03-20"));
        assert_eq!((start, end), (instant("2024-02-22"), instant("2024-03-21")));
        assert_eq!((end - start).num_hours(), 28 * 24 - 1);
        // The calendar alone decides, also before the finer rollup's start.
        assert_eq!(days.window(named(&days, "2011-01-05")).0, instant("2010-12-09"));
        let months = windows("UTC", "1 day", "1 month", "3 months");
        let (start, end) = months.window(named(&months, "2024-05-01"));
        assert_eq!(start, months.calendar.instant("2024-03-01").unwrap());
        assert_eq!(end, months.calendar.instant("2024-06-01").unwrap());
        // The last 28 days of each month.
        let last = windows("UTC", "1 day", "1 month", "28 days");
        let (start, _) = last.window(named(&last, "2024-05-01"));
        assert_eq!(start, last.calendar.instant("2024-05-04").unwrap());
        let first_of_may = finer_of(&last, "2024-05-01");
        assert_eq!(last.windows_with(first_of_may), None, "no window holds it");
    }

    #[test]
    fn a_window_over_a_date_that_the_zone_skips_is_not_empty() {
        let rollup = windows("Pacific/Apia", "1 day", "1 day", "1 day");
        let slice = named(&rollup, "2011-12-29");
        assert_eq!(rollup.window(slice), (slice.start(), slice.end()));
    }

    fn finer_of(rollup: &Rollup, start: &str) -> Slice {
        let calendar = &rollup.finer.as_ref().unwrap().calendar;
        calendar.starting(calendar.instant(start).unwrap()).unwrap()
    }

    const SHAPES: [[&str; 3]; 7] = [
        ["1 hour", "1 hour", "28 days"],
        ["15 minutes", "1 hour", "90 minutes"],
        ["15 minutes", "15 minutes", "2 days"],
        ["1 day", "1 week", "28 days"],
        ["1 day", "1 month", "10 days"],
        ["1 month", "1 month", "1 year"],
        ["6 hours", "1 day", "1 month"],
    ];
    const ZONES: [&str; 5] =
        ["UTC", "America/New_York", "Australia/Lord_Howe", "Europe/Lisbon", "Asia/Kathmandu"];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// The slices to reopen are all whose windows hold the changed one, and at their ends are
        /// none that lack it.
        #[test]
        fn a_finer_slice_is_part_of_exactly_the_windows_that_hold_it(
            zone in prop::sample::select(&ZONES[..]),
            shape in prop::sample::select(&SHAPES[..]),
            second in 1_704_067_200_i64..1_735_689_600,
        ) {
            let rollup = windows(zone, shape[0], shape[1], shape[2]);
            let calendar = rollup.finer.as_ref().unwrap().calendar;
            let finer = calendar.containing(DateTime::from_timestamp(second, 0).unwrap());
            let holds = |slice: &Slice| {
                let (start, end) = rollup.window(*slice);
                start < finer.end() && finer.start() < end
            };
            let about = TimeDelta::days(3 * 366 / 2);
            let from = rollup.start.max(finer.start() - TimeDelta::days(40));
            let all = rollup.calendar.slices(from, finer.start() + about);
            let holding: Vec<Slice> = all.filter(holds).collect();
            let found = rollup.windows_with(finer);
            prop_assert_eq!(found, holding.first().copied().zip(holding.last().copied()));
            for slice in &holding {
                let (start, end) = rollup.window(*slice);
                prop_assert!(start < end && end == slice.end());
                prop_assert!(calendar.starting(start).is_ok() && calendar.starting(end).is_ok());
            }
        }
    }
}
