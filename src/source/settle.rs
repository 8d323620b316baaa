//! Decides whether a slice is settled, so that all its rows are visible and every later one will be
//! noticed.
//!
//! PostgreSQL assigns a transaction's ID at its first write, while `now()` is its start. So a
//! transaction may sit idle, and then insert a row stamped before the end of a slice that was
//! already read. These conditions are checked in order, by the database's clock. docs/ACCURACY.md
//! has the proofs:
//!
//! 1. the slice's end and its grace are over;
//! 2. with `clock`, no transaction is under way that began before the slice's end;
//! 3. every transaction that had an ID then, the *horizon*, has ended; this covers prepared
//!    transactions, which have an ID but no visible start;
//! 4. later writes are reported by a trigger (`capture`) or a change time (`column`), or stay
//!    unnoticed (`grace`).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use crate::clients::db::{DbError, Tx};
use crate::model::clock::{Stopwatch, rfc3339};
use crate::model::hint::Fault;
use crate::model::not_now::{NotNow, Why};
use crate::model::rollup::Late;
use crate::model::slice::Slice;
use crate::model::sql::timestamptz;
use crate::source::SliceJob;
use crate::source::changes::capture;
use crate::source::reading::zones::{Mismatch, Offsets};

/// The time by the database's clock, and whether this is a replica.
const NOW: &str = "SELECT clock_timestamp() AS now, pg_is_in_recovery() AS replica";

/// The ID of the oldest open transaction, the first ID after all ended transactions, and an ID of
/// this transaction: every transaction with an earlier ID has a lower one. A read-only transaction
/// may take an ID. `pg_snapshot_xmax` instead would be wrong. It is one more than the newest ID
/// that *ended*, and ignores open transactions with newer IDs.
const IDS: &str = "SELECT pg_snapshot_xmin(s)::text::bigint AS oldest, \
                   pg_snapshot_xmax(s)::text::bigint AS next, \
                   pg_current_xact_id()::text::bigint AS own FROM pg_current_snapshot() s";

/// Whether this role sees other roles' transactions. PostgreSQL hides their start from most roles.
const SEES_ALL: &str = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'usage')";

const LOOKING: &str = "looking for older transactions";

/// Time between two checks whether the transactions before the horizon have ended: at first, and at
/// most.
const LOOK_AFTER: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];

/// Within a transaction PostgreSQL shows the same snapshot of the others until this call.
const FORGET: &str = "SELECT pg_stat_clear_snapshot()";

/// How long a look at open transactions serves other slices.
const SHARED_FOR: Duration = Duration::from_secs(60);

/// A transaction ID. Every transaction that wrote before it was read has a lower one.
type Horizon = u64;

/// One slice's look at the open transactions of the source, shared with the other slices of this
/// process.
#[derive(Debug, Default)]
pub(crate) struct Horizons(Mutex<Option<SeenHorizon>>);

/// A horizon and its state.
#[derive(Clone, Copy, Debug)]
struct SeenHorizon {
    /// Time by the source's clock before the horizon was taken.
    at: DateTime<Utc>,
    /// `None`: it is passed, so every transaction that had an ID at that instant has ended.
    open: Option<Horizon>,
    since: Stopwatch,
}

impl Horizons {
    /// A look that serves a slice readable at `readable_at`: its horizon was taken after that.
    fn serving(&self, readable_at: DateTime<Utc>, now: DateTime<Utc>) -> Option<SeenHorizon> {
        let look = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // If the clock was set back, the order of events is unknown.
        look.filter(|it| readable_at <= it.at && it.at <= now && it.since.elapsed() < SHARED_FOR)
    }

    /// Drops the shared look, so that the next slice looks again.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn keep(&self, look: SeenHorizon) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_older = kept.is_some_and(|kept| kept.at > look.at && kept.open.is_none());
        if !is_older {
            *kept = Some(look);
        }
    }
}

/// Whether a slice may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It may. The value names the reason: `capture`, `clock`, `column` or `grace`.
    By(&'static str),
    /// The server and this program have different rules for the zone of its local times. The text
    /// names the difference.
    OtherZone(Fault),
    /// Its time is still to come, or a transaction is still open.
    NotYet {
        /// The open transaction and how to find it, or the time to wait for.
        not_now: NotNow,
        /// The horizon, for the next attempt too.
        horizon: Option<Horizon>,
    },
}

/// How long a slice waits for open transactions, and which ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait<'a> {
    /// The horizon that an earlier attempt waited for.
    pub(crate) horizon: Option<Horizon>,
    pub(crate) longest: Duration,
    /// The looks of other slices.
    pub(crate) shared: &'a Horizons,
}

/// Checks whether a slice is settled, and waits for transactions to end.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn settle(
    tx: &mut Tx,
    SliceJob { rollup, shape, slice, .. }: SliceJob<'_>,
    wait: Wait<'_>,
) -> Result<Settled, DbError> {
    let readable_at = rollup.readable_at(slice);
    let comparison = Offsets::around(&shape.axis, slice.start(), slice.end());
    let (now, is_replica, zones) = now_comparing(tx, comparison.as_ref()).await?;
    if now < readable_at {
        let not_now = NotNow::until(Why::NotReadable(readable_at), readable_at);
        return Ok(Settled::NotYet { not_now, horizon: None });
    }
    if let Err(mismatch) = zones {
        return Ok(Settled::OtherZone(Fault::of(&mismatch)));
    }
    if is_replica {
        // A replica does not see the primary's transactions, and cannot assign an ID.
        return Ok(Settled::By("grace"));
    }
    // Checked before the horizon is taken, so that a transaction prepared in between is below it.
    if rollup.late == Late::Clock
        && let Some(who) = began_before(tx, slice).await?
    {
        let not_now = NotNow::because(Why::OpenTransaction { who, by_its_start: true });
        return Ok(Settled::NotYet { not_now, horizon: None });
    }
    // With `clock`, the horizon must come after the check for older transactions, so shared looks
    // are unsuitable.
    let look = wait.shared.serving(readable_at, now).filter(|_| rollup.late != Late::Clock);
    let passed = pass_shared(tx, wait, now, look).await?;
    if let Some(Blocker { horizon, who }) = passed {
        let not_now = NotNow::because(Why::OpenTransaction { who, by_its_start: false });
        return Ok(Settled::NotYet { not_now, horizon: Some(horizon) });
    }
    match &rollup.late {
        Late::Grace => Ok(Settled::By("grace")),
        Late::Clock => Ok(Settled::By("clock")),
        Late::Column(_) if sees_all(tx).await? => Ok(Settled::By("column")),
        // The change times of an open transaction's rows are unpredictable.
        Late::Column(_) => Ok(Settled::By("grace")),
        Late::Capture => {
            let standing = capture::standing(tx, rollup, shape).await?;
            // A missing trigger raises an alarm in the tick. The slice reports its actual state.
            Ok(Settled::By(if standing.is_whole() { "capture" } else { "grace" }))
        }
    }
}

/// As [`pass`], but uses another slice's look where possible. If that slice passed the horizon,
/// this one is done. If it waited to no effect, this one checks once more without waiting again.
/// `now` was read before.
async fn pass_shared(
    tx: &mut Tx,
    Wait { horizon: own, longest, shared }: Wait<'_>,
    now: DateTime<Utc>,
    look: Option<SeenHorizon>,
) -> Result<Option<Blocker>, DbError> {
    let (horizon, longest, at) = match look {
        Some(SeenHorizon { open: None, .. }) => return Ok(None),
        Some(SeenHorizon { open: Some(open), at, .. }) => {
            (Some(own.map_or(open, |own| own.min(open))), Duration::ZERO, at)
        }
        None => (own, longest, now),
    };
    let passed = pass(tx, horizon, longest).await?;
    // It is unknown when a horizon of an earlier attempt was taken.
    if own.is_none() {
        let open = passed.as_ref().map(|blocker| blocker.horizon);
        shared.keep(SeenHorizon { at, open, since: Stopwatch::start() });
    }
    Ok(passed)
}

/// The time by the database's clock, and whether it is a replica. Later statements read younger
/// data.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn now(tx: &mut Tx) -> Result<(DateTime<Utc>, bool), DbError> {
    let (now, is_replica, _) = now_comparing(tx, None).await?;
    Ok((now, is_replica))
}

/// As [`now`], with the offsets of a zone in the same statement.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn now_comparing(
    tx: &mut Tx,
    comparison: Option<&Offsets>,
) -> Result<(DateTime<Utc>, bool, Result<(), Mismatch>), DbError> {
    let offsets = comparison.map(|it| format!(", {} AS offsets", it.question()));
    let sql = format!("{NOW}{}", offsets.unwrap_or_default());
    let row = tx.ask_row("asking for the time", sql).await?;
    let read = || {
        let zones = match comparison {
            Some(comparison) => comparison.judge(row.try_get("offsets")?),
            None => Ok(()),
        };
        Ok::<_, sqlx::Error>((row.try_get("now")?, row.try_get("replica")?, zones))
    };
    read().map_err(|source| tx.error("asking for the time", source))
}

/// A transaction below the horizon that is still open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocker {
    horizon: Horizon,
    /// The transaction, its start, and how to find it.
    who: String,
}

/// Waits until every transaction of this database below the horizon has ended, for at most `wait`.
/// Returns one that is still open after that. Without a `horizon` it takes the present one.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn pass(
    tx: &mut Tx,
    horizon: Option<Horizon>,
    wait: Duration,
) -> Result<Option<Blocker>, DbError> {
    let watch = Stopwatch::start();
    let ids = ids(tx).await?;
    // A horizon from another cluster, which this one replaced, would never be passed.
    let horizon = horizon.filter(|horizon| *horizon <= ids.next).unwrap_or(ids.own);
    if ids.oldest >= horizon {
        return Ok(None);
    }
    // A transaction is open in this cluster, perhaps in another database.
    let [mut pause, longest] = LOOK_AFTER;
    loop {
        tx.row("forgetting who was open", FORGET.into()).await?;
        let Some(who) = blocker(tx, horizon).await? else { return Ok(None) };
        if watch.elapsed() >= wait {
            return Ok(Some(Blocker { horizon, who }));
        }
        tokio::time::sleep(pause.min(wait)).await;
        pause = (pause * 2).min(longest);
    }
}

struct Ids {
    oldest: Horizon,
    next: Horizon,
    own: Horizon,
}

async fn ids(tx: &mut Tx) -> Result<Ids, DbError> {
    let row = tx.ask_row("looking at the transactions", IDS.into()).await?;
    let read = |name| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
    let all = || {
        Ok::<_, sqlx::Error>(Ids {
            oldest: read("oldest")?,
            next: read("next")?,
            own: read("own")?,
        })
    };
    all().map_err(|source| tx.error("looking at the transactions", source))
}

/// Whether this role sees when other roles' transactions began.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn sees_all(tx: &mut Tx) -> Result<bool, DbError> {
    let row = tx.row("asking for a privilege", SEES_ALL.into()).await?;
    row.try_get(0).map_err(|source| tx.error("asking for a privilege", source))
}

/// A description of the transaction that keeps the horizon from being passed.
async fn blocker(tx: &mut Tx, horizon: Horizon) -> Result<Option<String>, DbError> {
    let sql = format!(include_str!("blocker.sql"), horizon = horizon);
    let rows = tx.rows("looking for open transactions", sql).await?;
    let who = rows.first().map(in_words).transpose();
    who.map_err(|source| tx.error("looking for open transactions", source))
}

/// When the oldest transaction of this database began. `None`: none is open. Prepared transactions
/// hide their start, and a role without `pg_read_all_stats` sees only its own transactions.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn oldest(tx: &mut Tx) -> Result<Option<DateTime<Utc>>, DbError> {
    let row = tx.row(LOOKING, include_str!("oldest_start.sql").into()).await?;
    row.try_get("since").map_err(|source| tx.error(LOOKING, source))
}

/// A description of the oldest open transaction that began before the slice's end.
async fn began_before(tx: &mut Tx, slice: Slice) -> Result<Option<String>, DbError> {
    let sql = format!(include_str!("oldest.sql"), before = timestamptz(slice.end()));
    let rows = tx.rows(LOOKING, sql).await?;
    let who = rows.first().map(in_words).transpose();
    who.map_err(|source| tx.error(LOOKING, source))
}

/// `the transaction of pid 4711 (web, role app) since 2026-02-10T00:00:00Z`
fn in_words(row: &sqlx::postgres::PgRow) -> Result<String, sqlx::Error> {
    let since: Option<DateTime<Utc>> = row.try_get("since")?;
    let who: String = row.try_get("who")?;
    Ok(match since {
        Some(since) => format!("{who}, since {},", rfc3339(since)),
        None => who,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_horizon_taken_before_a_slice_was_readable_does_not_serve_it() {
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        let horizons = Horizons::default();
        horizons.keep(SeenHorizon { at: at(100), open: None, since: Stopwatch::start() });
        let serves = |readable, now| horizons.serving(at(readable), at(now)).is_some();
        assert!(serves(99, 200) && serves(100, 100));
        // A transaction that wrote between the horizon and the slice's end and grace may still be
        // open.
        assert!(!serves(101, 200));
        assert!(!serves(99, 99), "the clock was set back");
        // A pending look must not replace a newer one that has passed.
        horizons.keep(SeenHorizon { at: at(50), open: Some(7), since: Stopwatch::start() });
        assert!(serves(99, 200));
        horizons.forget();
        assert!(!serves(99, 200));
    }
}
