//! Work that cannot go on now: why, and when it is worth asking again.
//!
//! A component that finds a reason to wait names it as a [`Why`]. Reports, checkpoints, JSON and the
//! command line show its text. Its methods say what follows: which other slices have to wait, and
//! whether waiting helps. Decisions ask these methods and never read the text.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

/// Work that cannot go on now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotNow {
    /// Why.
    pub why: Why,
    /// When it is worth asking again; `None`: whenever the next turn comes.
    pub retry_at: Option<DateTime<Utc>>,
    /// Where in the slice the next attempt goes on, if part of it was read.
    pub goes_on_at: Option<DateTime<Utc>>,
}

/// The answer to the question whether work may start or go on.
#[derive(Debug)]
#[must_use]
pub enum Permit<T> {
    /// It may, with what it needs for that.
    Given(T),
    /// It may not, for this reason.
    NotNow(NotNow),
}

impl<T> Permit<T> {
    /// Whether it may.
    pub const fn is_given(&self) -> bool {
        matches!(self, Self::Given(_))
    }
}

/// A reason to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// A signal asked the process to end.
    Interrupted,
    /// `quiet_hours`: nothing is read at these hours.
    QuietHours(String),
    /// `window`: backfills run at these hours only.
    OutsideWindow(String),
    /// An operator's `pause`.
    Paused {
        /// Since when.
        since: DateTime<Utc>,
        /// The operator's reason; may be empty.
        reason: String,
    },
    /// An operator's `cancel` of the backfill that the work is part of.
    Cancelled {
        /// When.
        at: DateTime<Utc>,
    },
    /// History is left after an operator's `cancel`, until an operator begins a backfill.
    HistoryCancelled {
        /// The rollup.
        rollup: String,
    },
    /// A fanned-out backfill has to wait; the rollup's fresh slices need not.
    OfBackfill {
        /// Which.
        id: String,
        /// Its reason.
        why: Box<Why>,
    },
    /// `wake_per_hour`: the source sleeps.
    Asleep {
        /// Until when.
        until: DateTime<Utc>,
        /// The setting.
        per_hour: u32,
    },
    /// `throttle_query` answered so.
    ThrottleQuery(String),
    /// A rate is the difference of two samples, and there is one.
    NoRateYet,
    /// Past `max_load`: the signal and its limit.
    Load(String),
    /// Past `critical_load`.
    CriticalLoad(String),
    /// `throttle_query` or a signal could not be read; an operator has to mend it.
    Unreadable(String),
    /// Every slot of the source is taken.
    SlotsTaken {
        /// How many slots there are.
        slots: u32,
        /// The sessions that hold them, in words, as far as they were asked for.
        holders: Vec<String>,
    },
    /// Another session locks a table; the server's error with who it is.
    TableLocked(String),
    /// A prepared transaction hides since when changes must be looked for.
    PreparedTransaction,
    /// The budget is spent; the text says on what.
    OutOfTime(String),
    /// Another worker has the slice, or its time to retry has not come; the claim's answer.
    NotClaimed(Unclaimed, String),
    /// The slice can be read from this instant on, by the source's clock.
    NotReadable(DateTime<Utc>),
    /// An open transaction may still write rows of the slice; the text names it.
    OpenTransaction {
        /// The transaction, its session and since when.
        who: String,
        /// Whether its start, and not its first write, is what counts.
        by_its_start: bool,
    },
    /// A slice of the finer rollup is not done; the text says which.
    FinerSlice(String),
    /// The rollup's rows are of another calendar.
    OtherCalendar(String),
    /// The server and this program know other rules for the zone of the slice's local times.
    OtherZone(String),
    /// A server gave no clear answer, or forgot what was staged: another attempt may fare better.
    Server(String),
    /// The slice's rows are not claimed to be right at present.
    NotClaimedRight(&'static str),
    /// The comparison did not end within this many seconds.
    TooLarge(u64),
}

/// Why a claim gave no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclaimed {
    /// Another worker has the slice.
    Leased,
    /// It failed, and its time to retry has not come.
    Backoff,
}

impl Why {
    /// Whether it concerns every slice of the rollup alike, so that none of them is begun.
    #[must_use]
    pub const fn holds_rollup(&self) -> bool {
        match self {
            Self::Interrupted
            | Self::QuietHours(_)
            | Self::OutsideWindow(_)
            | Self::Paused { .. }
            | Self::Cancelled { .. }
            | Self::HistoryCancelled { .. }
            | Self::OfBackfill { .. }
            | Self::Asleep { .. }
            | Self::ThrottleQuery(_)
            | Self::NoRateYet
            | Self::Load(_)
            | Self::CriticalLoad(_)
            | Self::Unreadable(_)
            | Self::SlotsTaken { .. }
            | Self::TableLocked(_) => true,
            Self::PreparedTransaction
            | Self::OutOfTime(_)
            | Self::NotClaimed(..)
            | Self::NotReadable(_)
            | Self::OpenTransaction { .. }
            | Self::FinerSlice(_)
            | Self::OtherCalendar(_)
            | Self::OtherZone(_)
            | Self::Server(_)
            | Self::NotClaimedRight(_)
            | Self::TooLarge(_) => false,
        }
    }

    /// Whether the work ends here, however long it waits.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Interrupted | Self::Cancelled { .. })
    }

    /// Whether other sessions have the slot or the table that the work needs. A command limits its
    /// wait for them.
    #[must_use]
    pub const fn is_taken(&self) -> bool {
        matches!(self, Self::SlotsTaken { .. } | Self::TableLocked(_))
    }

    /// Whether it is likely to be over within seconds. A worker keeps its slice and waits.
    #[must_use]
    pub const fn is_short(&self) -> bool {
        matches!(
            self,
            Self::ThrottleQuery(_) | Self::NoRateYet | Self::Load(_) | Self::SlotsTaken { .. }
        )
    }

    /// Whether the load, the slots or `throttle_query` say that the source has no room for a reader.
    #[must_use]
    pub const fn is_load(&self) -> bool {
        self.is_short() || matches!(self, Self::CriticalLoad(_) | Self::Unreadable(_))
    }

    /// The reason, for a command that ends with it or leaves a slice out for it.
    #[must_use]
    pub fn explained(&self) -> String {
        if self.is_load() || matches!(self, Self::PreparedTransaction) {
            return format!("the source is busy: {self}");
        }
        self.to_string()
    }
}

impl NotNow {
    /// For this reason, until the next turn.
    #[must_use]
    pub const fn because(why: Why) -> Self {
        Self { why, retry_at: None, goes_on_at: None }
    }

    /// For this reason, until then.
    #[must_use]
    pub const fn until(why: Why, retry_at: DateTime<Utc>) -> Self {
        Self { why, retry_at: Some(retry_at), goes_on_at: None }
    }

    /// When it is worth asking again; at once, where no time is known.
    #[must_use]
    pub fn retry_after(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.retry_at.unwrap_or(now)
    }
}

impl fmt::Display for NotNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.why)?;
        match self.goes_on_at {
            Some(at) => write!(f, "; goes on at {at:?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::QuietHours(hours) => write!(f, "quiet_hours {hours}"),
            Self::OutsideWindow(hours) => write!(f, "outside of window {hours}"),
            Self::Paused { since, reason } => {
                let colon = if reason.is_empty() { "" } else { ": " };
                write!(f, "paused since {}{colon}{reason}", instant(*since))
            }
            Self::Cancelled { at } => write!(f, "cancelled at {}", instant(*at)),
            Self::HistoryCancelled { rollup } => write!(
                f,
                "its last backfill was cancelled; `tallymark backfill start {rollup}` goes on with \
                 history"
            ),
            Self::OfBackfill { id, why } => write!(f, "backfill {id}: {why}"),
            Self::Asleep { until, per_hour } => {
                let until = instant(*until);
                write!(f, "the source sleeps until {until} (wake_per_hour = {per_hour})")
            }
            Self::ThrottleQuery(answer) => write!(f, "throttle_query says {answer}"),
            Self::NoRateYet => f.write_str("a rate needs a second look"),
            Self::CriticalLoad(passed) => write!(f, "{passed} (critical_load)"),
            Self::SlotsTaken { slots, holders } => {
                match slots {
                    1 => f.write_str("the source's only slot is taken")?,
                    slots => write!(f, "all {slots} slots of the source are taken")?,
                }
                match &*holders.join(" and by ") {
                    "" => Ok(()),
                    holders => write!(f, " by {holders}"),
                }
            }
            Self::PreparedTransaction => f.write_str(
                "while a prepared transaction is under way (SELECT * FROM pg_prepared_xacts), it \
                 cannot be told since when changes are to be looked for; COMMIT PREPARED or ROLLBACK \
                 PREPARED ends it",
            ),
            Self::NotReadable(at) => {
                let at = at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                write!(f, "not settled: readable at {at} by the source's clock")
            }
            Self::OpenTransaction { who, by_its_start: false } => {
                write!(f, "not settled: {who} has not ended")
            }
            Self::OpenTransaction { who, by_its_start: true } => {
                write!(f, "not settled: {who} began before the slice's end and has not ended")
            }
            Self::TooLarge(seconds) => write!(f, "not compared within {seconds} s"),
            Self::NotClaimedRight(why) => f.write_str(why),
            Self::Load(text)
            | Self::Unreadable(text)
            | Self::TableLocked(text)
            | Self::OutOfTime(text)
            | Self::NotClaimed(_, text)
            | Self::FinerSlice(text)
            | Self::OtherCalendar(text)
            | Self::OtherZone(text)
            | Self::Server(text) => f.write_str(text),
        }
    }
}

/// In JSON it is its text.
impl Serialize for NotNow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// In JSON it is its explanation.
impl Serialize for Why {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.explained())
    }
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_reason_is_told_in_words_that_documents_and_logs_share() {
        let since = at("2026-02-10T00:00:00Z");
        let taken = |slots, holders: &[&str]| Why::SlotsTaken {
            slots,
            holders: holders.iter().map(|&it| it.to_owned()).collect(),
        };
        let paused = |reason: &str| Why::Paused { since, reason: reason.to_owned() };
        for (why, text) in [
            (paused(""), "paused since 2026-02-10T00:00:00Z"),
            (paused("a sale"), "paused since 2026-02-10T00:00:00Z: a sale"),
            (taken(1, &[]), "the source's only slot is taken"),
            (
                taken(2, &["pid 1", "pid 2"]),
                "all 2 slots of the source are taken by pid 1 and by pid 2",
            ),
            (
                Why::CriticalLoad("9 active backends > 8".into()),
                "9 active backends > 8 (critical_load)",
            ),
            (
                Why::OfBackfill { id: "b1".into(), why: Box::new(paused("")) },
                "backfill b1: paused since 2026-02-10T00:00:00Z",
            ),
            (
                Why::Asleep { until: since, per_hour: 2 },
                "the source sleeps until 2026-02-10T00:00:00Z (wake_per_hour = 2)",
            ),
        ] {
            assert_eq!(why.to_string(), text);
        }
        let spent = NotNow::because(Why::OutOfTime("budget spent after 1 chunk, 9 rows".into()));
        let spent = NotNow { goes_on_at: Some(since), ..spent };
        assert_eq!(
            serde_json::json!(spent),
            "budget spent after 1 chunk, 9 rows; goes on at 2026-02-10T00:00:00Z"
        );
        assert_eq!(
            serde_json::json!(taken(1, &[])),
            "the source is busy: the source's only slot is taken"
        );
    }

    /// A worker keeps its slice and waits only for reasons that are over within seconds.
    #[test]
    fn what_is_waited_for_holds_the_whole_rollup_and_is_about_the_load() {
        let texts = || String::new();
        for (why, is_short) in [
            (Why::ThrottleQuery(texts()), true),
            (Why::NoRateYet, true),
            (Why::Load(texts()), true),
            (Why::SlotsTaken { slots: 1, holders: Vec::new() }, true),
            (Why::CriticalLoad(texts()), false),
            (Why::Unreadable(texts()), false),
        ] {
            assert_eq!((why.is_short(), why.is_load(), why.holds_rollup()), (is_short, true, true));
            assert!(!why.is_final(), "{why:?}");
        }
    }
}
