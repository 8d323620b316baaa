//! Chooses the width of the next chunk, so that its statement lasts about `chunk_time`.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::nap::ROWS_PER_MS;

/// A chunk may be this many times longer than `chunk_time` if the slice then fits into one. For the
/// source, one statement without a stage is cheaper than two statements and a stage.
pub(crate) const WHOLE_SLACK: f64 = 1.5;

/// A chunk grows or shrinks at most by this factor at a time, so that one unusually fast or slow
/// statement has a limited effect on the next.
const STEP_MAX: f64 = 4.0;

/// The narrowest chunk. Time is cut at whole seconds.
pub(crate) const CHUNK_MIN: TimeDelta = TimeDelta::seconds(1);

/// The work of a cancelled chunk is lost, so the next one must be much narrower.
const CUT: f64 = 16.0;

/// A chunk is at least this part of the rest of its slice. Where even the smallest statement takes
/// longer than `chunk_time`, narrower chunks would only multiply that time.
const CHUNKS_MAX: f64 = 1000.0;

/// The least plausible milliseconds per second, so that the rate can grow again.
const RATE_MIN: f64 = 1e-6;

/// Rows that the first chunk of an unknown rollup may hold, by the planner's estimate: about 100 ms
/// of counting on a small server.
pub(crate) const FIRST_CHUNK_ROWS: f64 = 200_000.0;

/// The measured pace of one rollup: how long its source takes for a range of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pace {
    /// Milliseconds of statement per second of source time, when a slice is read whole. `None`
    /// before the first chunk. Partials are converted to it, because their higher cost must not
    /// decide whether they are needed. Otherwise one slow moment of the source could make the
    /// expensive way permanent.
    rate: Option<f64>,
    /// Whether the rate is mostly a guess.
    is_guess: bool,
    /// The least rate of a statement with naps, whose length follows from its rows.
    napping_min: f64,
}

/// How many times more expensive a statement is than reading the same rows as a whole slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Excess(f64);

impl Excess {
    /// For a statement that reads its slice whole.
    pub(crate) const NONE: Self = Self(1.0);

    /// For a statement that yields partials, with this many distinct columns. Each adds a grouping
    /// set, and stores its values in the stage.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a number of columns")]
    pub(crate) const fn of_partials(distinct: usize) -> Self {
        Self(1.0 + distinct as f64)
    }
}

impl Pace {
    /// Whether the pace is still unknown.
    #[must_use]
    pub(crate) const fn is_unknown(&self) -> bool {
        self.rate.is_none()
    }

    /// Whether the estimate may be far off, so that a statement should be tried in any case.
    #[must_use]
    pub(crate) const fn is_guess(&self) -> bool {
        self.is_guess
    }

    /// Takes in the planner's estimate of the `rows` between `start` and `end`.
    pub(crate) fn foresee(&mut self, rows: f64, start: DateTime<Utc>, end: DateTime<Utc>) {
        self.napping_min = rows / ROWS_PER_MS / seconds(end - start);
    }

    /// The pace of statements with naps. Naps are taken by the row, so that rows which are read faster
    /// than assumed take as long.
    #[must_use]
    pub(crate) fn with_naps(&self) -> Self {
        Self { rate: self.rate.map(|rate| rate.max(self.napping_min)), ..*self }
    }

    /// Takes the planner's estimate of the rows between `start` and `end` as a first guess,
    /// assuming the cost per row that other processes measured. If none did, it assumes that
    /// [`FIRST_CHUNK_ROWS`] rows take the wanted time.
    pub(crate) fn guess(
        &mut self,
        rows: f64,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
        wanted: Duration,
        ms_per_row: Option<f64>,
    ) {
        let ms_per_row = ms_per_row.unwrap_or(wanted.as_secs_f64() * 1e3 / FIRST_CHUNK_ROWS);
        let statement = rows * ms_per_row;
        self.rate = Some((statement / seconds(end - start)).max(RATE_MIN));
        self.is_guess = true;
    }

    /// Records that the chunk `[start, end)` took `elapsed`.
    pub(crate) fn learn(
        &mut self,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
        elapsed: Duration,
        Excess(excess): Excess,
    ) {
        let seen = elapsed.as_secs_f64() * 1e3 / seconds(end - start) / excess;
        self.is_guess &= self.rate.is_some_and(|rate| seen < rate / STEP_MAX);
        self.rate = Some(match self.rate {
            Some(rate) => seen.clamp(rate / STEP_MAX, rate * STEP_MAX).max(RATE_MIN),
            None => seen.max(RATE_MIN),
        });
    }

    /// Records that the chunk `[start, end)` timed out. The next one is a sixteenth of it.
    pub(crate) fn too_slow(
        &mut self,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
        wanted: Duration,
        Excess(excess): Excess,
    ) {
        self.is_guess = false;
        self.rate = Some(wanted.as_secs_f64() * 1e3 * CUT / seconds(end - start) / excess);
    }

    /// The end of the chunk that starts at `start`, at most `slice_end`.
    #[must_use]
    pub(crate) fn chunk_end(
        &self,
        start: DateTime<Utc>,
        slice_end: DateTime<Utc>,
        wanted: Duration,
        Excess(excess): Excess,
    ) -> DateTime<Utc> {
        let Some(rate) = self.rate.map(|rate| rate * excess) else { return slice_end };
        let wanted_ms = wanted.as_secs_f64() * 1e3;
        let left = seconds(slice_end - start);
        if left * rate <= wanted_ms * WHOLE_SLACK {
            return slice_end;
        }
        let width = (wanted_ms / rate).clamp(seconds(CHUNK_MIN).max(left / CHUNKS_MAX), left);
        #[expect(clippy::cast_possible_truncation, reason = "at most the length of a slice")]
        let width = TimeDelta::seconds(width as i64);
        (start + width).min(slice_end)
    }

    /// The expected time for the chunk `[start, end)`.
    #[must_use]
    pub(crate) fn expected(
        &self,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
        Excess(excess): Excess,
    ) -> Duration {
        Duration::from_secs_f64(self.rate.unwrap_or(0.0) * excess * seconds(end - start) / 1e3)
    }
}

#[expect(clippy::cast_precision_loss, reason = "chunks last years at most")]
fn seconds(span: TimeDelta) -> f64 {
    (span.num_milliseconds() as f64 / 1e3).max(1e-3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Duration = Duration::from_millis(500);

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("in range")
    }

    #[test]
    fn a_slice_that_fits_is_one_chunk() {
        let mut pace = Pace::default();
        pace.guess(150_000.0, at(0), at(86_400), WANTED, None);
        assert_eq!(pace.chunk_end(at(0), at(86_400), WANTED, Excess::NONE), at(86_400));
    }

    /// A day of 600,000 rows, which other processes have read without naps in 200 ms.
    #[test]
    fn a_statement_with_naps_takes_its_time_by_its_rows() {
        let (start, end) = (at(0), at(86_400));
        let mut pace = Pace::default();
        pace.guess(600_000.0, start, end, WANTED, Some(200.0 / 600_000.0));
        pace.foresee(600_000.0, start, end);
        let expected = |pace: Pace| pace.expected(start, end, Excess::NONE).as_millis();
        assert_eq!((expected(pace), expected(pace.with_naps())), (200, 1000));
        assert_eq!(pace.chunk_end(start, end, WANTED, Excess::NONE), end);
        assert_eq!(pace.with_naps().chunk_end(start, end, WANTED, Excess::NONE), at(43_200));
        // Rows that are read more slowly than assumed decide by themselves.
        for _ in 0..2 {
            pace.learn(start, end, Duration::from_millis(3000), Excess::NONE);
        }
        assert_eq!((expected(pace), expected(pace.with_naps())), (3000, 3000));
    }

    #[test]
    fn what_others_took_decides_how_wide_the_first_chunk_is() {
        let mut pace = Pace::default();
        // 1 ms a row: 500 of 86,400 rows.
        pace.guess(86_400.0, at(0), at(86_400), WANTED, Some(1.0));
        assert_eq!(pace.chunk_end(at(0), at(86_400), WANTED, Excess::NONE), at(500));
    }

    #[test]
    fn chunks_approach_the_wanted_time_from_both_sides() {
        for first_rows in [1.0, 1e9] {
            let mut pace = Pace::default();
            pace.guess(first_rows, at(0), at(86_400), WANTED, None);
            // In reality a day takes 50 s, so a chunk of 500 ms is 864 s wide.
            let mut start = 0;
            for _ in 0..40 {
                let end = pace.chunk_end(at(start), at(200_000), WANTED, Excess::NONE);
                let width = (end - at(start)).num_seconds();
                if width > 8640 {
                    pace.too_slow(at(start), end, WANTED, Excess::NONE);
                } else {
                    pace.learn(
                        at(start),
                        end,
                        Duration::from_secs_f64(width as f64 / 1728.0),
                        Excess::NONE,
                    );
                    start += width;
                }
            }
            let width = (pace.chunk_end(at(start), at(200_000), WANTED, Excess::NONE) - at(start))
                .num_seconds();
            assert!((800..=900).contains(&width), "{width} s");
        }
    }

    #[test]
    fn a_chunk_that_timed_out_is_cut_to_a_sixteenth() {
        let mut pace = Pace::default();
        pace.too_slow(at(0), at(4000), WANTED, Excess::NONE);
        assert_eq!(pace.chunk_end(at(0), at(4000), WANTED, Excess::NONE), at(250));
    }

    /// A day takes 340 ms whole and 2.4 times that in partials. Once, the source was slow.
    #[test]
    fn a_slow_moment_does_not_lead_to_partials_for_ever() {
        let excess = Excess::of_partials(1);
        let (start, end) = (at(0), at(86_400));
        let mut pace = Pace::default();
        pace.learn(start, end, Duration::from_millis(900), Excess::NONE);
        let cut = pace.chunk_end(start, end, WANTED, Excess::NONE);
        assert!(cut < end, "a day that takes 900 ms is cut");
        for _ in 0..4 {
            let cut = pace.chunk_end(start, end, WANTED, excess);
            let took = 0.340 * 2.4 * (cut - start).num_seconds() as f64 / 86_400.0;
            pace.learn(start, cut, Duration::from_secs_f64(took), excess);
        }
        assert_eq!(pace.chunk_end(start, end, WANTED, Excess::NONE), end);
    }
}
