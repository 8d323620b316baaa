//! Looks at the server, and the signals that follow from several of them.

use std::collections::VecDeque;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{Seen, TRANSACTIONS_ALONE};

/// A short look, which is part of each look.
pub(in crate::throttle) const OTHERS: &str = include_str!("others.sql");

/// Rates are taken over at least this many seconds, as a session reports its counts to the server
/// once a second.
const RATE_SECONDS_MIN: f64 = 1.0;

/// A mean over more seconds than this says little about the present. One that shows other work still
/// counts, as that work may go on.
const RATE_SECONDS_MAX: f64 = 3.0;

/// Looks that are older than this, in seconds, are dropped. The statements of a slice take seconds,
/// and then one look has to do.
const GAP_SECONDS_MAX: f64 = 30.0;

/// Seconds of looking without a read of this process before the others' blocks count as seen. The
/// blocks of its own reads are in the same counter, and sessions report theirs once a second.
const UNREAD_SECONDS_MIN: f64 = 0.9;

/// A nap that lasts less than look.sql asks for was measured by a clock that is too coarse.
const NAP_MS_MIN: f64 = 0.8;

/// A length that so many further looks in a row show to the microsecond is no measurement.
const REPEATS_MAX: u32 = 8;

/// What was seen of blocks holds for this many seconds.
const BLOCKS_SECONDS_MAX: f64 = 60.0;

/// One answer of look.sql, and this process's own work so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Look {
    /// The server's clock, in seconds.
    pub(super) at: f64,
    pub(super) nap_ms: Option<f64>,
    pub(super) probe_ms: Option<f64>,
    /// How long this process waited for the answer, by its own clock.
    pub(super) answer_ms: Option<f64>,
    pub(super) transactions: Option<f64>,
    pub(super) blocks: Option<f64>,
    pub(super) sessions: Option<f64>,
    /// A replica does not show the work of its primary.
    pub(super) is_replica: bool,
    /// Transactions that this process has begun.
    pub(super) begun: f64,
    /// Chunks that this process has read.
    pub(super) reads: u64,
}

impl Look {
    pub(super) fn sql() -> String {
        include_str!("look.sql").replace("{others}", OTHERS)
    }

    /// Reads the answer, which took `waited`. `begun` and `reads` are this process's own work.
    pub(super) fn read(
        row: &PgRow,
        waited: Duration,
        begun: f64,
        reads: u64,
    ) -> Result<Self, sqlx::Error> {
        Ok(Self {
            at: row.try_get("at")?,
            nap_ms: row.try_get("nap_ms")?,
            probe_ms: row.try_get("probe_ms")?,
            answer_ms: Some(waited.as_secs_f64() * 1e3),
            transactions: row.try_get("transactions")?,
            blocks: row.try_get("blocks")?,
            sessions: row.try_get("sessions")?,
            is_replica: row.try_get("is_replica")?,
            begun,
            reads,
        })
    }
}

/// The recent looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    recent: VecDeque<Look>,
    naps: Repeats,
    probes: Repeats,
    blocks: OthersBlocks,
}

impl Looks {
    /// Adds a look, and returns what is seen now.
    pub(super) fn add(&mut self, look: Look) -> Seen {
        if look.is_replica {
            return Seen::default();
        }
        let is_odd = |last: &Look| look.at <= last.at || look.at - last.at > GAP_SECONDS_MAX;
        if self.recent.back().is_some_and(is_odd) {
            // The server's clock was set, or much may have happened since then.
            self.recent.clear();
        }
        self.blocks.add(&look);
        self.recent.push_back(look);
        let age = |old: Option<&Look>| old.map_or(0.0, |old| look.at - old.at);
        // An old look stays until a rate can be taken without it.
        while age(self.recent.front()) > RATE_SECONDS_MAX
            && age(self.recent.get(1)) >= RATE_SECONDS_MIN
        {
            self.recent.pop_front();
        }
        let transactions = self.transactions(&look);
        Seen {
            nap_ms: self.naps.fresh(look.nap_ms).filter(|ms| *ms >= NAP_MS_MIN),
            probe_ms: self.probes.fresh(look.probe_ms).filter(|ms| *ms > 0.0),
            answer_ms: look.answer_ms,
            transactions,
            sessions: look.sessions,
            blocks: self.blocks.rate(look.at),
        }
    }

    /// Whether the next looks have to see blocks, before what was seen of them is outdated.
    pub(super) fn is_unsure_of_blocks(&self) -> bool {
        let at = self.recent.back().map_or(0.0, |look| look.at);
        self.blocks.rate(at + BLOCKS_SECONDS_MAX / 4.0).is_none()
    }

    /// Transactions a second since the oldest look, without this process's own. A server counts
    /// transactions up to a second late, so that it may count those of a second more. Each look is
    /// a transaction, so that a counter that stands still counts none.
    fn transactions(&self, look: &Look) -> Option<f64> {
        let oldest = self.recent.front().filter(|old| look.at - old.at >= RATE_SECONDS_MIN)?;
        let seconds = look.at - oldest.at;
        let all = look.transactions? - oldest.transactions?;
        let own = (look.begun - oldest.begun) * (1.0 + 1.0 / seconds);
        // After a reset of the statistics the counter starts again at zero.
        let rate = (all > 0.0).then(|| (all - own).max(0.0) / seconds);
        rate.filter(|rate| seconds <= RATE_SECONDS_MAX || *rate >= TRANSACTIONS_ALONE)
    }
}

/// How often in a row a signal had the same value.
#[derive(Clone, Debug, Default)]
struct Repeats {
    last: Option<f64>,
    times: u32,
}

impl Repeats {
    /// The value, unless too many looks in a row show it.
    fn fresh(&mut self, value: Option<f64>) -> Option<f64> {
        self.times = if value == self.last { self.times.saturating_add(1) } else { 0 };
        self.last = value;
        value.filter(|_| self.times < REPEATS_MAX)
    }
}

/// Blocks that were missed in the cache while this process read nothing.
#[derive(Clone, Debug, Default)]
struct OthersBlocks {
    last: Option<Look>,
    /// Whether the server may still add blocks of a read of this process.
    is_late: bool,
    /// Seconds and blocks between looks without a read.
    seconds: f64,
    blocks: f64,
    /// The last rate, and when it was seen.
    seen: Option<(f64, f64)>,
}

impl OthersBlocks {
    fn add(&mut self, look: &Look) {
        let Some(last) = self.last.replace(*look) else { return };
        let has_read = last.reads != look.reads;
        let seconds = look.at - last.at;
        if has_read || self.is_late || !(0.0..=1.0).contains(&seconds) {
            self.is_late = has_read;
            (self.seconds, self.blocks) = (0.0, 0.0);
            return;
        }
        let Some(blocks) = look.blocks.zip(last.blocks).map(|(now, old)| now - old) else { return };
        if blocks < 0.0 {
            return;
        }
        self.seconds += seconds;
        self.blocks += blocks;
        if self.seconds >= UNREAD_SECONDS_MIN {
            self.seen = Some((look.at, self.blocks / self.seconds));
            (self.seconds, self.blocks) = (0.0, 0.0);
        }
    }

    /// The rate, unless it is outdated at `at`.
    fn rate(&self, at: f64) -> Option<f64> {
        let (seen_at, rate) = self.seen?;
        (0.0..=BLOCKS_SECONDS_MAX).contains(&(at - seen_at)).then_some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks a tenth of a second apart, from a rate of transactions and blocks.
    fn look(tenths: u32, (transactions, blocks): (f64, f64), begun: f64, reads: u64) -> Look {
        let at = 1000.0 + f64::from(tenths) / 10.0;
        let counted = |rate: f64| Some(rate * f64::from(tenths) / 10.0);
        let (transactions, blocks) = (counted(transactions), counted(blocks));
        Look { at, transactions, blocks, begun, reads, ..Look::default() }
    }

    #[test]
    fn a_rate_takes_a_second_and_leaves_out_own_transactions() {
        let mut looks = Looks::default();
        for tenths in 0..10 {
            let seen = looks.add(look(tenths, (500.0, 0.0), 0.0, 0));
            assert_eq!(seen.transactions, None, "{tenths}");
        }
        let rate = looks.add(look(10, (500.0, 0.0), 0.0, 0)).transactions.unwrap();
        assert!((rate - 500.0).abs() < 1.0, "{rate}");
        let mut looks = Looks::default();
        let own = |tenths: u32| f64::from(tenths) * 40.0;
        let seen = (0..30).map(|tenths| looks.add(look(tenths, (400.0, 0.0), own(tenths), 0)));
        assert_eq!(seen.last().unwrap().transactions, Some(0.0));
    }

    #[test]
    fn what_is_old_set_back_or_reset_is_unseen() {
        let mut looks = Looks::default();
        let mut add = |tenths, rate| looks.add(look(tenths, (rate, 0.0), 0.0, 0)).transactions;
        assert!((0..20).map(|tenths| add(tenths, 500.0)).last().unwrap().is_some());
        assert_eq!(add(400, 500.0), None);
        assert_eq!(add(3, 500.0), None);
        assert!((4..20).map(|tenths| add(tenths, 500.0)).last().unwrap().is_some());
        assert_eq!(add(21, 1.0), None);
    }

    /// A statement of five seconds lies between two looks.
    #[test]
    fn others_are_seen_over_a_long_statement_and_their_absence_is_not() {
        for (rate, is_seen) in [(500.0, true), (10.0, false)] {
            let mut looks = Looks::default();
            let mut add = |tenths| looks.add(look(tenths, (rate, 0.0), 0.0, 0)).transactions;
            assert!((0..20).map(&mut add).last().unwrap().is_some());
            // The first look after it, and those that follow.
            for tenths in 70..80 {
                let seen = add(tenths);
                assert_eq!(seen.is_some_and(|seen| (seen - rate).abs() < 1.0), is_seen, "{seen:?}");
            }
            assert!(add(80).is_some());
        }
    }

    #[test]
    fn a_counter_that_stands_still_is_unseen() {
        let mut looks = Looks::default();
        let own = |tenths: u32| f64::from(tenths);
        let seen = (0..30).map(|tenths| looks.add(look(tenths, (0.0, 0.0), own(tenths), 0)));
        assert_eq!(seen.last().unwrap().transactions, None);
    }

    #[test]
    fn a_length_that_never_changes_and_one_that_cannot_be_are_unseen() {
        let lengths = |of: &dyn Fn(u32) -> f64| {
            let mut looks = Looks::default();
            let with = |tenths: u32| Look {
                nap_ms: Some(of(tenths)),
                probe_ms: Some(of(tenths)),
                ..look(tenths, (10.0, 0.0), 0.0, 0)
            };
            let seen: Vec<_> = (0..20).map(|tenths| looks.add(with(tenths))).collect();
            let is_nap = seen.iter().map(|it| it.nap_ms.is_some()).collect::<Vec<_>>();
            let is_probe = seen.iter().map(|it| it.probe_ms.is_some()).collect::<Vec<_>>();
            (is_nap, is_probe)
        };
        let first = |count| (0..20).map(|place| place < count).collect::<Vec<_>>();
        assert_eq!(lengths(&|_| 1.0), (first(8), first(8)));
        assert_eq!(lengths(&|tenths| 1.0 + f64::from(tenths % 3) / 1e3), (first(20), first(20)));
        // A clock of 16 ms.
        let coarse = |tenths: u32| if tenths % 4 == 3 { 15.6 } else { 0.0 };
        let shown = (0..20).map(|tenths| tenths % 4 == 3).collect::<Vec<_>>();
        assert_eq!(lengths(&coarse), (shown.clone(), shown));
    }

    #[test]
    fn a_replica_shows_nothing() {
        let mut looks = Looks::default();
        let of_replica = |tenths| Look {
            is_replica: true,
            nap_ms: Some(1.0),
            sessions: Some(0.0),
            ..look(tenths, (0.0, 0.0), 0.0, 0)
        };
        let seen = (0..30).map(|tenths| looks.add(of_replica(tenths))).last();
        assert_eq!(seen, Some(Seen::default()));
    }

    #[test]
    fn blocks_count_as_others_only_while_nothing_is_read() {
        // A chunk is read between every two looks.
        let mut looks = Looks::default();
        let seen = (0..30).map(|tenths| looks.add(look(tenths, (0.0, 9e3), 0.0, tenths.into())));
        assert_eq!(seen.last().unwrap().blocks, None);
        assert!(looks.is_unsure_of_blocks());
        // Then there are looks alone.
        let mut seen = Seen::default();
        for tenths in 30..42 {
            assert_eq!(seen.blocks, None, "{tenths}");
            seen = looks.add(look(tenths, (0.0, 9e3), 0.0, 30));
        }
        let blocks = looks.add(look(42, (0.0, 9e3), 0.0, 30)).blocks;
        assert!((blocks.unwrap() - 9e3).abs() < 1.0, "{blocks:?}");
        assert!(!looks.is_unsure_of_blocks());
        assert_eq!(looks.add(look(700, (0.0, 9e3), 0.0, 31)).blocks, None);
    }
}
