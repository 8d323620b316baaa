//! Rests within a statement.
//!
//! A statement that reads for 200 ms takes a processor from the application for 200 ms, however long it rests
//! afterwards: whoever wants that processor meanwhile waits for the scheduler, some milliseconds each time.
//! So the rest is taken in naps of a millisecond, every few hundred rows: the server's other work finds
//! a processor that is free again before it has missed it.

use std::time::Duration;

/// Rows that are taken for a millisecond's work: scanning, grouping and adding up. Where they are less, the
/// rest that is missing is taken after the chunk.
const ROWS_PER_MS: f64 = 600.0;

/// At fewer rows than that the naps cost more than the work.
const ROWS_MIN: f64 = 50.0;

/// `pg_sleep` sleeps whole milliseconds, and wakes a little later.
const NAP_MS_MIN: f64 = 1.0;

/// How much later.
const WAKE_MS: f64 = 0.07;

/// A nap every so many rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nap {
    rows: f64,
    ms: f64,
}

impl Nap {
    /// Naps that are together `ratio` times as long as the work; `None`: none.
    #[must_use]
    pub fn by_ratio(ratio: f64) -> Option<Self> {
        let rows = (NAP_MS_MIN * ROWS_PER_MS / ratio).max(ROWS_MIN);
        let ms = (ratio * rows / ROWS_PER_MS).max(NAP_MS_MIN);
        (ratio > 0.0).then_some(Self { rows, ms })
    }

    /// A condition that is always true, and sleeps at one row in so many. At random: a row does not know
    /// its number.
    #[must_use]
    pub fn condition(&self) -> String {
        let (share, seconds) = (1.0 / self.rows, self.ms.round() / 1e3);
        format!(
            "(pg_catalog.random() >= {share:.6} OR pg_catalog.pg_sleep({seconds:.3}) IS NOT NULL)"
        )
    }

    /// How much of a statement that read `rows` in `elapsed` was naps.
    #[must_use]
    pub fn slept(&self, rows: u64, elapsed: Duration) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let ms = rows as f64 / self.rows * (self.ms.round() + WAKE_MS);
        // Chance decides how many they were; some of it was work.
        Duration::from_secs_f64(ms / 1e3).min(elapsed.mul_f64(0.98))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_are_as_long_as_the_ratio_says() {
        for ratio in [0.1, 0.5, 4.0, 10.0, 100.0] {
            let nap = Nap::by_ratio(ratio).expect("a ratio above 0");
            let slept = nap.slept(600_000, Duration::from_secs(100_000)).as_secs_f64();
            assert!(
                (0.9..1.2).contains(&(slept / ratio)),
                "{ratio}: {slept} s for a second's work"
            );
        }
        assert_eq!(Nap::by_ratio(0.0), None);
    }

    #[test]
    fn a_nap_never_excludes_a_row() {
        let nap = Nap::by_ratio(6.0).expect("a ratio above 0");
        assert_eq!(
            nap.condition(),
            "(pg_catalog.random() >= 0.010000 OR pg_catalog.pg_sleep(0.001) IS NOT NULL)"
        );
    }
}
