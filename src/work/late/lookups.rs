//! Changed keys of lookups become marks of the captured table, by statements that the throttle
//! permits and the plan guard has seen. Both lie in the source, so a key and its marks change places
//! in one transaction, and everything after it is as for any other mark.

use std::time::Duration;

use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbErrorKind, Tx};
use crate::model::clock::{Deadline, Stopwatch};
use crate::model::hint::Fault;
use crate::model::not_now::Permit;
use crate::model::rollup::Rollup;
use crate::source::changes::capture::{Capture, CaptureState};
use crate::source::changes::lookup::{LookupCapture, MarkedLookup};
use crate::source::changes::lookup_marks::{self, KEYS_MAX, WaitingKeys};
use crate::throttle::Patience;
use crate::work::backlog::BEGIN_MIN;
use crate::work::ready;
use crate::work::worker::{WorkError, Worker};

/// Statements of one tick. The next tick goes on.
const STATEMENTS_MAX: usize = 200;

/// Keys that have waited longer raise an alarm, whatever they wait for. A daily schedule stays
/// below it.
const AGE_MAX: Duration = Duration::from_secs(48 * 3600);

/// How one statement ended.
enum KeyStep {
    /// Some keys are replaced.
    Replaced,
    /// No key waits any more.
    Done,
    /// The time is up, or the source is busy.
    NotNow,
    /// So many keys take too long.
    TooLong,
    /// The keys stay, and an operator must act.
    Stuck(Fault),
}

/// The keys that wait. `None`: there are none, and the transaction goes on. Otherwise it has ended, as
/// the marks must be read after the keys have become some.
pub(super) async fn waiting(
    begun: &mut Option<Tx>,
    standing: &CaptureState,
) -> Result<Option<WaitingKeys>, WorkError> {
    let Some(tx) = begun.as_mut() else { return Ok(None) };
    let waiting = lookup_marks::waiting(tx, &standing.lookups).await?;
    if waiting.count == 0 {
        return Ok(None);
    }
    if let Some(tx) = begun.take() {
        tx.commit().await?;
    }
    Ok(Some(waiting))
}

/// Replaces the keys that wait.
///
/// # Errors
/// Some have to stay, or the server refuses or cannot be reached.
pub(super) async fn replace(
    worker: &Worker,
    rollup: &Rollup,
    (capture, standing): (&Capture, &CaptureState),
    waiting: WaitingKeys,
    deadline: Deadline,
) -> Result<(), WorkError> {
    let Some(key) = standing.key.as_deref() else { return Ok(()) };
    let mut stuck = None;
    for (of, lookup) in lookup_marks::pairs(&capture.lookups, &standing.lookups) {
        let job = KeyJob { worker, rollup, of, lookup, key, deadline };
        let mut keys_max = KEYS_MAX;
        for _ in 0..STATEMENTS_MAX {
            match job.step(keys_max).await? {
                KeyStep::Replaced => {}
                KeyStep::Done => break,
                KeyStep::NotNow => return alarm(waiting, stuck, true),
                KeyStep::TooLong => keys_max /= 2,
                KeyStep::Stuck(fault) => {
                    stuck = stuck.or(Some(fault));
                    break;
                }
            }
        }
    }
    alarm(waiting, stuck, false)
}

/// The alarm of keys that stay, with the number that waited. `is_left` says whether the next tick has
/// to go on.
fn alarm(waiting: WaitingKeys, stuck: Option<Fault>, is_left: bool) -> Result<(), WorkError> {
    let WaitingKeys { count, age } = waiting;
    let is_old = is_left && age.max(0).unsigned_abs() > AGE_MAX.as_secs();
    let fault = stuck.or_else(|| {
        is_old.then(|| {
            Fault::new("the source was too busy").remedy(
                "let ticks run for longer, or at other hours; `tallymark check` shows the load",
            )
        })
    });
    fault.map_or(Ok(()), |fault| {
        let words = |facts: &str| format!("{count} changed keys of lookups wait: {facts}");
        Err(WorkError::Usage(fault.rephrased(words)))
    })
}

/// The keys of one lookup.
struct KeyJob<'a> {
    worker: &'a Worker,
    /// A rollup that is computed from the captured table.
    rollup: &'a Rollup,
    of: &'a LookupCapture,
    lookup: &'a MarkedLookup,
    key: &'a str,
    deadline: Deadline,
}

impl KeyJob<'_> {
    async fn step(&self, keys_max: usize) -> Result<KeyStep, WorkError> {
        let Self { worker, rollup, deadline, .. } = *self;
        let left = deadline.remaining(&*worker.clock);
        if left < BEGIN_MIN {
            return Ok(KeyStep::NotNow);
        }
        let patience = Patience::Until { deadline, needed: BEGIN_MIN };
        let gate = ready::gate(worker, rollup, None);
        let Permit::Given(throttle) = gate.permit(None, patience).await? else {
            return Ok(KeyStep::NotNow);
        };
        let (limit, watch) = (left.min(CATALOGUE_TIMEOUT), Stopwatch::start());
        let label = format!("lookups of {}", rollup.from);
        let mut tx = worker.source.begin(Access::ReadWrite, limit, &label).await?;
        if let Some(governor) = throttle.governor()
            && governor.enter(&mut tx).await?.is_some()
        {
            tx.rollback().await?;
            return Ok(KeyStep::NotNow);
        }
        let taken = lookup_marks::take(&mut tx, self.lookup, keys_max).await?;
        if taken.count() == 0 {
            tx.rollback().await?;
            return Ok(KeyStep::Done);
        }
        let of = (self.of, self.lookup);
        let replaced = lookup_marks::replace(&mut tx, of, &taken, self.key).await;
        let step = match replaced {
            Ok(None) => {
                tx.commit().await?;
                KeyStep::Replaced
            }
            Ok(Some(fault)) => {
                tx.rollback().await?;
                KeyStep::Stuck(fault)
            }
            Err(error) if error.kind() == DbErrorKind::Cancelled && keys_max > 1 => {
                KeyStep::TooLong
            }
            Err(error) if error.kind() == DbErrorKind::Cancelled => KeyStep::Stuck(self.too_long()),
            Err(error) => return Err(error.into()),
        };
        throttle.chunk_read(watch.elapsed(), false);
        Ok(step)
    }

    /// One key has more rows than a statement can read in its time.
    fn too_long(&self) -> Fault {
        let facts = format!(
            "the rows of one key of the lookup `{}` cannot be read within {} s",
            self.of.lookup.name,
            CATALOGUE_TIMEOUT.as_secs()
        );
        Fault::new(facts).remedy(
            "create an index on the columns of the key followed by the time; `tallymark replay` of \
             all slices makes them right meanwhile",
        )
    }
}
