//! The number of old slices that may be verified by now, as a pure function of past verifications
//! and the time.
//!
//! A slice costs the N-th part of a day, and the budget grows only with time. So all ticks together
//! verify N slices a day, however often they come. Up to a day's time may be saved and spent in one
//! tick, as one tick a day must be enough. Each day is limited to N slices.

use chrono::{DateTime, TimeDelta, Utc};

use crate::checkpoint::Budget;

/// The most that one slice may cost, and the most that may be saved.
const DAY: TimeDelta = TimeDelta::days(1);

/// Whether a slice may be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The next one is due later.
    Later,
    /// The slices of the day are used up. This budget lets the time lapse, or all of it would be
    /// due at midnight.
    Enough(Budget),
    /// One is due. This is the budget after it.
    One(Budget),
}

/// The part of a day that one of `per_day` slices costs.
#[must_use]
pub fn price(per_day: u32) -> TimeDelta {
    // Whole milliseconds, the precision of the item.
    TimeDelta::milliseconds(DAY.num_milliseconds() / i64::from(per_day.max(1)))
}

/// Whether a slice is due at `now`, with `per_day` of them a day and `spent` so far.
#[must_use]
pub(crate) fn due(spent: Option<&Budget>, now: DateTime<Utc>, per_day: u32) -> Due {
    let today = now.date_naive();
    let price = price(per_day);
    // Ignore an item written by a worker whose clock was wrong by more than a day.
    let is_sane =
        |spent: &&Budget| spent.paid_until <= now + DAY && spent.day <= (now + DAY).date_naive();
    let Some(spent) = spent.filter(is_sane) else {
        return Due::One(Budget { day: today, verified_today: 1, paid_until: now });
    };
    // The clocks of two workers may differ at midnight, so the day only moves forward.
    let day = today.max(spent.day);
    let verified_today = if day == spent.day { spent.verified_today } else { 0 };
    let paid_until = spent.paid_until.max(now - DAY);
    let credit = (now - paid_until).num_milliseconds() / price.num_milliseconds().max(1);
    let credit = i32::try_from(credit).unwrap_or(i32::MAX);
    if credit < 1 {
        Due::Later
    } else if verified_today >= per_day {
        Due::Enough(Budget { day, verified_today, paid_until: paid_until + price * credit })
    } else {
        let verified_today = verified_today + 1;
        Due::One(Budget { day, verified_today, paid_until: paid_until + price })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::NaiveDate;

    use super::*;

    /// The slices verified on each day by ticks at these instants.
    fn days(
        ticks: impl IntoIterator<Item = DateTime<Utc>>,
        per_day: u32,
    ) -> BTreeMap<NaiveDate, u32> {
        let (mut spent, mut days) = (None, BTreeMap::new());
        for now in ticks {
            for _ in 0..=per_day {
                match due(spent.as_ref(), now, per_day) {
                    Due::Later => break,
                    Due::Enough(next) => spent = Some(next),
                    Due::One(next) => {
                        spent = Some(next);
                        *days.entry(now.date_naive()).or_default() += 1;
                    }
                }
            }
        }
        days
    }

    fn every(minutes: i64, days: i64) -> impl Iterator<Item = DateTime<Utc>> {
        let begin: DateTime<Utc> = "2026-03-01T00:00:00Z".parse().unwrap();
        (0..days * 24 * 60 / minutes).map(move |n| begin + TimeDelta::minutes(minutes * n))
    }

    #[test]
    fn any_number_of_ticks_verifies_as_many_slices_a_day() {
        for per_day in [1, 3, 7, 24, 1000, 10_000] {
            for minutes in [1, 5, 60, 6 * 60, 24 * 60] {
                let found = days(every(minutes, 6), per_day);
                let full: Vec<u32> = found.values().skip(1).copied().collect();
                assert!(
                    found.values().all(|count| *count <= per_day),
                    "{per_day} {minutes} {found:?}"
                );
                assert!(
                    full.iter().all(|count| *count + 1 >= per_day),
                    "{per_day} {minutes} {found:?}"
                );
                assert_eq!(full.len(), 5);
            }
        }
    }

    #[test]
    fn the_slices_of_a_day_are_spread_over_its_ticks() {
        let mut spent = None;
        for now in every(60, 5) {
            let mut verified = 0;
            while let Due::One(next) = due(spent.as_ref(), now, 48) {
                (spent, verified) = (Some(next), verified + 1);
            }
            assert!(verified <= 2, "{verified} at {now}");
        }
    }

    #[test]
    fn after_a_pause_no_day_has_more_than_its_slices_and_the_next_are_spread_again() {
        let begin: DateTime<Utc> = "2026-03-01T00:00:00Z".parse().unwrap();
        let pause = begin + TimeDelta::days(9) + TimeDelta::hours(13);
        let ticks = (0..59).map(|hour| pause + TimeDelta::hours(hour));
        let found: Vec<u32> = days([begin].into_iter().chain(ticks), 24).into_values().collect();
        assert_eq!(found, [1, 24, 24, 24]);

        let (mut spent, mut most) = (None, 0);
        for now in [begin].into_iter().chain((0..60).map(|hour| pause + TimeDelta::hours(hour))) {
            let mut verified = 0;
            for _ in 0..=25 {
                match due(spent.as_ref(), now, 24) {
                    Due::Later => break,
                    Due::Enough(next) => spent = Some(next),
                    Due::One(next) => (spent, verified) = (Some(next), verified + 1),
                }
            }
            if now.date_naive() > pause.date_naive() {
                most = most.max(verified);
            }
        }
        assert_eq!(most, 1, "one an hour, from the next midnight on");
    }

    #[test]
    fn a_clock_that_was_years_ahead_does_not_stop_the_scrub() {
        let now: DateTime<Utc> = "2026-03-01T00:00:00Z".parse().unwrap();
        let wrong = now + TimeDelta::days(4000);
        let spent = Budget { day: wrong.date_naive(), verified_today: 3, paid_until: wrong };
        assert!(matches!(due(Some(&spent), now, 3), Due::One(_)));
    }

    #[test]
    fn a_clock_that_is_behind_at_midnight_does_not_begin_the_day_again() {
        let now: DateTime<Utc> = "2026-03-01T23:59:59Z".parse().unwrap();
        let tomorrow = (now + TimeDelta::days(1)).date_naive();
        let paid_until = now - TimeDelta::hours(12);
        let spent = Budget { day: tomorrow, verified_today: 3, paid_until };
        assert!(matches!(due(Some(&spent), now, 3), Due::Enough(_)));
    }
}
