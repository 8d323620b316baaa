//! Rests within a statement.
//!
//! A statement that reads for 200 ms takes a processor from the application for 200 ms, however
//! long it rests afterwards. Other work that needs the processor meanwhile waits some milliseconds
//! for the scheduler. So the statement rests in naps of a millisecond, every few hundred rows, and
//! the server's other work finds a free processor in time.

use std::time::Duration;

/// Assumed rows per millisecond of work: scanning, grouping and adding up. If the real number is
/// lower, the naps are too short for the work.
pub(super) const ROWS_PER_MS: f64 = 600.0;

/// With fewer rows than this between naps, the naps cost more than the work.
const ROWS_MIN: f64 = 50.0;

/// Groups that are written between two naps, in about half a millisecond.
const GROUPS: f64 = 50.0;

/// `pg_sleep` sleeps whole milliseconds.
const NAP_MS_MIN: f64 = 1.0;

/// Request a little less, as a time just above a millisecond is rounded up to two.
const HAIR_MS: f64 = 0.2;

/// A nap every N rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nap {
    ratio: f64,
    rows: f64,
    ms: f64,
}

impl Nap {
    /// Naps that together take `ratio` times as long as the work. `None`: no naps.
    #[must_use]
    pub(crate) fn by_ratio(ratio: f64) -> Option<Self> {
        // A nap is whole milliseconds, so that the rows between two of them follow from its length.
        let ms = (ratio * ROWS_MIN / ROWS_PER_MS).ceil().max(NAP_MS_MIN);
        let rows = ms * ROWS_PER_MS / ratio;
        (ratio > 0.0).then_some(Self { ratio, rows, ms })
    }

    /// A condition that is always true, and sleeps at one row in N. The row is chosen at random, as
    /// a row does not know its number.
    #[must_use]
    pub(crate) fn condition(&self) -> String {
        let (share, seconds) = (1.0 / self.rows, (self.ms - HAIR_MS) / 1e3);
        format!(
            "(pg_catalog.random() >= {share:.6} OR pg_catalog.pg_sleep({seconds:.4}) IS NOT NULL)"
        )
    }

    /// The naps of a statement that sorts its rows and then adds them up, which is about half of its
    /// work: a condition on rows for one half, and one on groups for the other, which sleeps in
    /// proportion to their rows.
    #[must_use]
    pub(crate) fn conditions(&self) -> (String, String) {
        let half = Self { rows: self.rows * 2.0, ..*self };
        let (share, seconds) = (1.0 / half.rows, (self.ms - HAIR_MS) / 1e3);
        let due = format!("count(*)::float8 * {share:.6}");
        let groups = format!(
            "(pg_catalog.random() >= {due} OR \
             pg_catalog.pg_sleep({seconds:.4} * greatest(1, {due})) IS NOT NULL)"
        );
        (half.condition(), groups)
    }

    /// A condition on groups that are written. They are few, so that its naps are for the
    /// application's sake and no rest.
    #[must_use]
    pub(crate) fn while_writing() -> String {
        let seconds = (NAP_MS_MIN - HAIR_MS) / 1e3;
        format!(
            "(pg_catalog.random() >= {:.6} OR pg_catalog.pg_sleep({seconds:.4}) IS NOT NULL)",
            1.0 / GROUPS
        )
    }

    /// How much of a statement that took `elapsed` was naps, by their nominal length. On a busy
    /// server naps overrun. Counting the overrun as work would make reading more expensive exactly
    /// then.
    #[must_use]
    pub(crate) fn slept(&self, elapsed: Duration) -> Duration {
        elapsed.mul_f64(self.ratio / (1.0 + self.ratio))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_are_as_long_as_the_ratio_says() {
        for ratio in [0.1, 0.5, 4.0, 10.0, 15.0, 16.0, 30.0, 100.0] {
            let nap = Nap::by_ratio(ratio).expect("a ratio above 0");
            assert!(nap.rows >= ROWS_MIN && nap.ms.fract() == 0.0, "{nap:?}");
            // A second's work.
            let seconds = 1e3 * ROWS_PER_MS / nap.rows * nap.ms / 1e3;
            assert!((0.999..1.001).contains(&(seconds / ratio)), "{ratio}: {seconds} s");
            let all = Duration::from_secs_f64(1.0 + ratio);
            assert!((nap.slept(all).as_secs_f64() - ratio).abs() < 1e-6);
        }
        assert_eq!(Nap::by_ratio(0.0), None);
    }

    #[test]
    fn a_nap_never_excludes_a_row() {
        let nap = Nap::by_ratio(6.0).expect("a ratio above 0");
        assert_eq!(
            nap.condition(),
            "(pg_catalog.random() >= 0.010000 OR pg_catalog.pg_sleep(0.0008) IS NOT NULL)"
        );
        let (rows, groups) = nap.conditions();
        assert_eq!(rows, nap.condition().replace("0.010000", "0.005000"));
        assert_eq!(
            groups,
            "(pg_catalog.random() >= count(*)::float8 * 0.005000 OR \
             pg_catalog.pg_sleep(0.0008 * greatest(1, count(*)::float8 * 0.005000)) IS NOT NULL)"
        );
        assert!(Nap::while_writing().contains(">= 0.020000 OR"));
    }
}
