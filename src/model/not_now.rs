//! Work that has to wait: the reason, and when to try again.
//!
//! A component that finds a reason to wait names it as a [`Why`]. Reports, checkpoints, JSON and
//! the command line show its text. Its methods say what follows: which other slices have to wait,
//! and whether waiting helps. Decisions ask these methods and never read the text.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::model::clock::{rfc3339, rfc3339_seconds};
use crate::model::hint::{Fault, Hinted};

/// Work that has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotNow {
    pub why: Why,
    /// When to try again. `None`: at the next turn.
    pub retry_at: Option<DateTime<Utc>>,
    /// Where in the slice the next attempt continues, if part of it was read.
    pub goes_on_at: Option<DateTime<Utc>>,
}

/// Whether work may start or continue.
#[derive(Debug)]
#[must_use]
pub enum Permit<T> {
    /// It may, with this value.
    Given(T),
    /// It has to wait, for this reason.
    NotNow(NotNow),
}

impl<T> Permit<T> {
    pub(crate) const fn is_given(&self) -> bool {
        matches!(self, Self::Given(_))
    }
}

/// A reason to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The process received a signal to end.
    Interrupted,
    /// `quiet_hours`: no reads at these hours.
    QuietHours(String),
    /// `window`: backfills run only at these hours.
    OutsideWindow(String),
    /// An operator's `pause`.
    Paused {
        since: DateTime<Utc>,
        /// The operator's reason, which may be empty.
        reason: String,
    },
    /// An operator's `cancel` of the backfill.
    Cancelled {
        /// When it was found.
        at: DateTime<Utc>,
    },
    /// After an operator's `cancel`, history waits until an operator starts a backfill.
    HistoryCancelled { rollup: String },
    /// A fanned-out backfill has to wait. The rollup's fresh slices continue.
    OfBackfill { id: String, why: Box<Why> },
    /// `wake_per_hour`: the source may sleep.
    Asleep {
        /// The end of its lease.
        until: DateTime<Utc>,
        per_hour: u32,
    },
    /// `throttle_query` gave this reason.
    ThrottleQuery(String),
    /// A rate needs two samples, and there is only one.
    NoRateYet,
    /// Over `max_load`: the signal and its limit.
    Load(String),
    /// Over `critical_load`.
    CriticalLoad(String),
    /// `throttle_query` or a signal could not be read. An operator has to repair it.
    Unreadable(Fault),
    /// All slots of the source are taken.
    SlotsTaken {
        slots: u32,
        /// Descriptions of the sessions that hold them, if they were queried.
        holders: Vec<String>,
    },
    /// Another session locks a table. The text is the server's error with the holder.
    TableLocked(Fault),
    /// A prepared transaction hides the time from which to look for changes.
    PreparedTransaction,
    /// The time budget is spent. The text names the step.
    OutOfTime(String),
    /// The claim was refused, with its answer.
    NotClaimed(ClaimWait, String),
    /// The slice becomes readable at this time of the source's clock.
    NotReadable(DateTime<Utc>),
    /// An open transaction, which the text names, may still write rows of the slice.
    OpenTransaction {
        /// The transaction, its session and its start.
        who: String,
        /// Whether its start counts, and not its first write.
        by_its_start: bool,
    },
    /// The finer rollup's slice in the text is not done.
    FinerSlice(String),
    /// The rollup's rows have another calendar.
    OtherCalendar(Fault),
    /// The server and this program have different rules for the time zone.
    OtherZone(Fault),
    /// A server gave no clear answer, or lost the stage. Another attempt may succeed.
    Server(Fault),
    /// The slice starts before its rollup's seal in the store, which is this instant.
    Sealed(DateTime<Utc>),
    /// Tallymark does not promise at present that the slice's rows are right.
    NotClaimedRight(&'static str),
    /// The comparison timed out after this many seconds.
    TooLarge(u64),
    /// The Bubble app cannot answer at present.
    App(Fault),
    /// `workload_units_per_month` is spent.
    WorkloadSpent(Fault),
    /// Things of the slice came or went while it was read.
    Changing(Fault),
}

/// Why a claim was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimWait {
    /// Another worker has the slice.
    Leased,
    /// It failed, and waits for its next attempt.
    Backoff,
}

impl Why {
    /// Whether every slice of the rollup has to wait for it.
    #[must_use]
    pub(crate) const fn holds_rollup(&self) -> bool {
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
            | Self::TableLocked(_)
            | Self::App(_)
            | Self::WorkloadSpent(_) => true,
            Self::PreparedTransaction
            | Self::OutOfTime(_)
            | Self::NotClaimed(..)
            | Self::NotReadable(_)
            | Self::OpenTransaction { .. }
            | Self::FinerSlice(_)
            | Self::OtherCalendar(_)
            | Self::OtherZone(_)
            | Self::Server(_)
            | Self::Sealed(_)
            | Self::NotClaimedRight(_)
            | Self::TooLarge(_)
            | Self::Changing(_) => false,
        }
    }

    /// Whether the work ends here for good.
    #[must_use]
    pub(crate) const fn is_final(&self) -> bool {
        matches!(self, Self::Interrupted | Self::Cancelled { .. } | Self::WorkloadSpent(_))
    }

    /// Whether other sessions have the slot or the table that the work needs. A command limits its
    /// wait for them.
    #[must_use]
    pub(crate) const fn is_taken(&self) -> bool {
        matches!(self, Self::SlotsTaken { .. } | Self::TableLocked(_))
    }

    /// Whether it is likely to be over within seconds. A worker keeps its slice and waits.
    #[must_use]
    pub(crate) const fn is_short(&self) -> bool {
        matches!(
            self,
            Self::ThrottleQuery(_) | Self::NoRateYet | Self::Load(_) | Self::SlotsTaken { .. }
        )
    }

    /// Whether the load, the slots or `throttle_query` say that the source has no room for a
    /// reader.
    #[must_use]
    pub(crate) const fn is_load(&self) -> bool {
        self.is_short() || matches!(self, Self::CriticalLoad(_) | Self::Unreadable(_))
    }

    /// The reason, for a command that stops or skips a slice.
    #[must_use]
    pub fn explained(&self) -> String {
        let is_busy = self.is_load() || matches!(self, Self::PreparedTransaction);
        if is_busy { format!("the source is busy: {self}") } else { self.to_string() }
    }
}

impl NotNow {
    /// Waits until the next turn.
    #[must_use]
    pub(crate) const fn because(why: Why) -> Self {
        Self { why, retry_at: None, goes_on_at: None }
    }

    /// Waits until this time.
    #[must_use]
    pub(crate) const fn until(why: Why, retry_at: DateTime<Utc>) -> Self {
        Self { why, retry_at: Some(retry_at), goes_on_at: None }
    }

    /// When to try again. Without a known time it is `now`.
    #[must_use]
    pub(crate) fn retry_after(&self, now: DateTime<Utc>) -> DateTime<Utc> {
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
                write!(f, "paused since {}{colon}{reason}", rfc3339_seconds(*since))
            }
            Self::Cancelled { at } => write!(f, "cancelled at {}", rfc3339_seconds(*at)),
            Self::HistoryCancelled { .. } => f.write_str("its last backfill was cancelled"),
            Self::OfBackfill { id, why } => write!(f, "backfill {id}: {why}"),
            Self::Asleep { until, per_hour } => {
                let until = rfc3339_seconds(*until);
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
                "a prepared transaction is under way, so the start of the search for changes is \
                 unknown",
            ),
            Self::NotReadable(at) => {
                let at = rfc3339(*at);
                write!(f, "not settled: readable at {at} by the source's clock")
            }
            Self::OpenTransaction { who, by_its_start: false } => {
                write!(f, "not settled: {who} has not ended")
            }
            Self::OpenTransaction { who, by_its_start: true } => {
                write!(f, "not settled: {who} began before the slice's end and has not ended")
            }
            Self::Sealed(at) => write!(f, "sealed in the store, before {}", rfc3339_seconds(*at)),
            Self::TooLarge(seconds) => write!(f, "not compared within {seconds} s"),
            Self::NotClaimedRight(why) => f.write_str(why),
            Self::App(fault)
            | Self::WorkloadSpent(fault)
            | Self::Changing(fault)
            | Self::Unreadable(fault)
            | Self::TableLocked(fault)
            | Self::OtherCalendar(fault)
            | Self::OtherZone(fault)
            | Self::Server(fault) => write!(f, "{fault}"),
            Self::Load(text)
            | Self::OutOfTime(text)
            | Self::NotClaimed(_, text)
            | Self::FinerSlice(text) => f.write_str(text),
        }
    }
}

impl Hinted for Why {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::HistoryCancelled { rollup } => Some(
                format!("run `tallymark backfill start {rollup}`, which goes on with history")
                    .into(),
            ),
            Self::PreparedTransaction => Some(
                "end it by COMMIT PREPARED or ROLLBACK PREPARED; SELECT * FROM pg_prepared_xacts \
                 shows it"
                    .into(),
            ),
            Self::OfBackfill { why, .. } => why.hint(),
            Self::App(fault)
            | Self::WorkloadSpent(fault)
            | Self::Changing(fault)
            | Self::Unreadable(fault)
            | Self::TableLocked(fault)
            | Self::OtherCalendar(fault)
            | Self::OtherZone(fault)
            | Self::Server(fault) => fault.hint(),
            _ => None,
        }
    }
}

impl Hinted for NotNow {
    fn hint(&self) -> Option<Cow<'_, str>> {
        self.why.hint()
    }
}

/// JSON has the text as `reason`, and the hint beside it.
impl Serialize for NotNow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        with_hint(serializer, "reason", &self.to_string(), self)
    }
}

/// JSON has the explanation as `why`, and the hint beside it.
impl Serialize for Why {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        with_hint(serializer, "why", &self.explained(), self)
    }
}

fn with_hint<S: Serializer>(
    serializer: S,
    key: &str,
    text: &str,
    of: &impl Hinted,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry(key, text)?;
    if let Some(hint) = of.hint() {
        map.serialize_entry("hint", &hint)?;
    }
    map.end()
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
            serde_json::json!({
                "reason": "budget spent after 1 chunk, 9 rows; goes on at 2026-02-10T00:00:00Z"
            })
        );
        assert_eq!(
            serde_json::json!(taken(1, &[])),
            serde_json::json!({ "why": "the source is busy: the source's only slot is taken" })
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
            (Why::Unreadable(texts().into()), false),
        ] {
            assert_eq!((why.is_short(), why.is_load(), why.holds_rollup()), (is_short, true, true));
            assert!(!why.is_final(), "{why:?}");
        }
    }

    #[test]
    fn documents_have_the_hint_beside_the_reason() {
        let why = Why::HistoryCancelled { rollup: "daily".to_owned() };
        let json = serde_json::to_value(NotNow::because(why.clone())).unwrap();
        assert_eq!(json["reason"], "its last backfill was cancelled");
        let hint = "run `tallymark backfill start daily`, which goes on with history";
        assert_eq!(json["hint"], hint);
        let json = serde_json::to_value(why).unwrap();
        assert_eq!(
            (&json["why"], &json["hint"]),
            (&"its last backfill was cancelled".into(), &hint.into())
        );
        let plain = serde_json::to_value(Why::Interrupted).unwrap();
        assert_eq!(plain, serde_json::json!({ "why": "interrupted" }));
    }
}
