//! Verify recomputes a slice and compares, without writing.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::check::late_change;
use crate::checkpoint::{Checkpoint, State, Watermark};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbErrorKind, Side};
use crate::model::hint::Fault;
use crate::model::not_now::{NotNow, Permit, Why};
use crate::model::rollup::Rollup;
use crate::model::slice::{Slice, boundaries};
use crate::source::reading::nap::Nap;
use crate::source::reading::shape::Shape;
use crate::source::reading::zones::Offsets;
use crate::source::{self, SliceJob, settle};
use crate::target::{Comparison, TargetError, Verification};
use crate::throttle::{Patience, SLOT_WAIT_MAX, Throttle};
use crate::work::compose;
use crate::work::due::{Standing, View};
use crate::work::ready;
use crate::work::report::{NotCompared, SliceVerification};
use crate::work::standings;
use crate::work::things;
use crate::work::worker::{WorkError, Worker};

/// Whether a slice's checkpoint promises that its rows are right.
enum Promise {
    Kept(Box<Checkpoint>),
    /// The reason why not.
    Open(&'static str),
}

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Compared {
    /// Every group equals the result of one `GROUP BY` over the source.
    Same,
    /// Some groups differ although the slice succeeded and no change since is known. Holds the
    /// attempt that computed it, and the differences.
    Drift(u64, SliceVerification),
    /// The slice will run again, or changed meanwhile.
    NotYet(NotCompared),
}

/// A cancelled comparison is tried again with this many times fewer buckets. Each try costs the
/// whole time limit.
const NARROWER: usize = 4;

/// A comparison of a slice with several buckets is cut so that a statement works for about this long.
const PIECE_WORK: Duration = Duration::from_millis(660);

/// A comparison holds its slot for at most about this long for the sake of its naps. A longer one works
/// without naps, and rests afterwards.
const NAPPING_MAX: Duration = Duration::from_secs(30);

/// With naps, a comparison is to end within this part of its time limit.
const NAPPING_SHARE: u32 = 4;

/// The options of a comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Longest time for one statement, and for waiting for a busy source.
    pub(crate) timeout: Duration,
    /// Differing groups to return.
    pub(crate) limit: usize,
    /// Longest time to wait for a slot. From [`SLOT_WAIT_MAX`] on, its end is an error instead of a
    /// skipped slice.
    pub(crate) patience: Duration,
}

/// Compares `slice` with the present result of one `GROUP BY` over the source, or over the
/// finer rollup. Returns at most `limit` of the groups that differ. Every statement ends within
/// `timeout`. If that is too short for the slice, its buckets are compared in several
/// statements.
///
/// # Errors
/// The databases cannot be read, or contradict the definition. Or a single bucket takes too
/// long, or a pause or the hours hold it back.
pub async fn verify_slice(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    timeout: Duration,
    limit: usize,
) -> Result<SliceVerification, WorkError> {
    let known = match rollup.open {
        true => worker.checkpoints.get(&rollup.name, slice.start()).await?,
        false => None,
    };
    let open_until = known.and_then(|known| known.outcome).and_then(|it| it.open_until);
    let whole = Piece { slice, open_until, pieces: 1, work: None };
    verify_in(worker, rollup, whole, Asked { timeout, limit, patience: timeout }).await
}

/// What is compared.
#[derive(Clone, Copy)]
struct Piece {
    slice: Slice,
    /// The end of the finer slices that an open slice was computed from.
    open_until: Option<DateTime<Utc>>,
    /// About this number of statements from the start.
    pieces: u64,
    /// How long the source worked when the slice was computed.
    work: Option<Duration>,
}

/// The number of buckets of the first statement, where a slice of `all` was computed in `pieces` by this
/// `work`.
fn first_step(all: usize, pieces: u64, work: Option<Duration>) -> usize {
    let by_work = work.map_or(1, |work| work.as_millis() / PIECE_WORK.as_millis() + 1);
    let pieces = u128::from(pieces).max(by_work);
    all.div_ceil(usize::try_from(pieces).unwrap_or(usize::MAX))
}

/// As [`verify_slice`].
async fn verify_in(
    worker: &Worker,
    rollup: &Rollup,
    whole: Piece,
    Asked { timeout, limit, patience }: Asked,
) -> Result<SliceVerification, WorkError> {
    let Piece { slice, open_until, .. } = whole;
    let shape = ready::check(worker, rollup).await?;
    let job = SliceJob { rollup, shape: &shape, slice, open_until };
    if rollup.mirror.is_some() {
        return count_things(worker, job).await;
    }
    let (cut, start) = (cuts(job), slice.start());
    compare_zones(worker, rollup, &shape, slice).await?;
    let mut step = first_step(cut.len(), whole.pieces, whole.work);
    let (mut place, mut differences, mut examples) = (0, 0, Vec::new());
    let (mut bucket_work, mut may_nap) =
        (whole.work.map(|it| it.div_f64(counted(cut.len()))), true);
    // Bounded: a statement advances by a bucket or more, or the next one goes without naps, or takes
    // fewer.
    while place < cut.len() {
        let next = (place + step).min(cut.len());
        let work = bucket_work.map(|work| work.mul_f64(counted(next - place)));
        let buckets = (cut[place], cut.get(next).copied().unwrap_or(slice.end()));
        let limit = limit.saturating_sub(examples.len());
        let governor = worker.governor_of(rollup);
        let what = Verification { job, buckets, timeout, nap: None, limit, governor };
        let mut asking = Asking { work, may_nap, nap: None, patience };
        match compare_permitted(worker, &what, &mut asking).await {
            Ok((found, throttle)) => {
                differences += found.differences;
                examples.extend(found.examples.into_iter().take(limit));
                bucket_work = Some(found.work.div_f64(counted(next - place)));
                place = next;
                throttle.chunk_read(found.work, asking.nap.is_some());
            }
            Err(WorkError::Db(error))
                if error.kind() == DbErrorKind::Cancelled && asking.nap.is_some() =>
            {
                may_nap = false;
            }
            Err(WorkError::Db(error)) if error.kind() == DbErrorKind::Cancelled && step > 1 => {
                step = narrower(step.min(cut.len() - place));
            }
            Err(error) => return Err(error),
        }
    }
    let noun = "group";
    Ok(SliceVerification { rollup: rollup.name.clone(), start, differences, examples, noun })
}

/// The starts of the slice's buckets from which a statement may read.
pub(crate) fn cuts(SliceJob { rollup, shape, slice, .. }: SliceJob<'_>) -> Vec<DateTime<Utc>> {
    let start = slice.start();
    let mut cut = boundaries(rollup.bucket, rollup.calendar.zone(), start, slice.end());
    cut.retain(|bucket| *bucket == start || shape.axis.cut(start, *bucket) == Some(*bucket));
    cut
}

#[expect(clippy::cast_precision_loss, reason = "a number of buckets")]
const fn counted(buckets: usize) -> f64 {
    buckets as f64
}

/// The number of buckets of the next statement, after one with so many that was cancelled.
pub(crate) fn narrower(buckets: usize) -> usize {
    buckets.div_ceil(NARROWER)
}

/// Compares a slice of a mirror with the app's own count. The time of creation can be neither set
/// nor changed, so after the grace an equal count is an equal set.
async fn count_things(worker: &Worker, job: SliceJob<'_>) -> Result<SliceVerification, WorkError> {
    let SliceJob { rollup, slice, .. } = job;
    let gate = ready::gate(worker, rollup, None).for_slice(slice);
    if let Permit::NotNow(not_now) = gate.may_start().await? {
        return Err(WorkError::NotNow(not_now));
    }
    let counted = things::count(worker, rollup, (slice.start(), slice.end())).await?;
    let kept = worker.target.things_in(job).await?;
    if counted != kept {
        // A token with fewer rights counts fewer things, and nothing is wrong with the mirror.
        things::prove(worker, rollup).await?;
    }
    let (differences, examples) = (counted.abs_diff(kept), Vec::new());
    Ok(SliceVerification {
        rollup: rollup.name.clone(),
        start: slice.start(),
        differences,
        examples,
        noun: "thing",
    })
}

/// How a statement is to be run.
struct Asking {
    /// Its expected work, if that is known.
    work: Option<Duration>,
    may_nap: bool,
    /// The naps with which it ran.
    nap: Option<Nap>,
    /// The longest wait for a slot.
    patience: Duration,
}

impl Asking {
    /// The naps at the pace of this moment, if they leave enough of the time limit.
    fn nap_at(&self, throttle: &Throttle<'_>, timeout: Duration) -> Option<Nap> {
        let longest = NAPPING_MAX.min(timeout / NAPPING_SHARE);
        let fits = self.work?.mul_f64(throttle.stretch()) <= longest;
        throttle.nap().filter(|_| self.may_nap && fits)
    }
}

/// Waits for the gate, finds the pace, then compares. It waits for a busy source as long as a statement
/// may take.
async fn compare_permitted<'w>(
    worker: &'w Worker,
    what: &Verification<'w>,
    asking: &mut Asking,
) -> Result<(Comparison, Throttle<'w>), WorkError> {
    let patience = asking.patience;
    let mut gate = ready::gate(worker, what.job.rollup, None).for_slice(what.job.slice);
    let waits = Patience::AtMost { load: what.timeout, slot: patience };
    // Bounded by the patience.
    loop {
        let not_now = match gate.permit(None, waits).await? {
            Permit::NotNow(not_now) => not_now,
            Permit::Given(throttle) => {
                let work = asking.work.unwrap_or_default();
                let throttle = gate.listen(throttle, work, waits).await;
                asking.nap = asking.nap_at(&throttle, what.timeout);
                let what = Verification { nap: asking.nap, ..*what };
                let compare = Box::pin(worker.target.verify(gate.source, &what));
                match throttle.read(gate.source, compare).await {
                    Err(why) | Ok(Err(TargetError::NotNow(why))) => NotNow::because(why),
                    Ok(found) => return Ok((found?, throttle)),
                }
            }
        };
        if let Err(not_now) = gate.wait(not_now, waits).await {
            let is_slot = matches!(not_now.why, Why::SlotsTaken { .. });
            return Err(match is_slot && patience >= SLOT_WAIT_MAX {
                true => WorkError::Starved(not_now.why),
                false => WorkError::NotNow(not_now),
            });
        }
    }
}

/// Refuses to compare a slice whose local times the server reads differently, as the comparison
/// would confirm its own mistake.
pub(crate) async fn compare_zones(
    worker: &Worker,
    rollup: &Rollup,
    shape: &Shape,
    slice: Slice,
) -> Result<(), WorkError> {
    // The dates of a rollup's table are compared as they stand, without a zone of the server.
    let is_read = source::of(rollup).side() == Side::Source;
    let comparison = Offsets::around(&shape.axis, slice.start(), slice.end());
    let Some(comparison) = comparison.filter(|_| is_read) else {
        return Ok(());
    };
    let source = worker.source_of(rollup);
    let mut tx = source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let (_, _, zones) = settle::now_comparing(&mut tx, Some(&comparison)).await?;
    tx.rollback().await?;
    zones.map_err(|mismatch| {
        WorkError::Usage(Fault::of(&mismatch).at(format!("rollup `{}`", rollup.name)))
    })
}

/// As [`verify_slice`], but a difference counts as drift only under two conditions. The
/// slice's checkpoint promised the same rows before and after, and the source knows of no late
/// change that is still to be counted.
///
/// # Errors
/// As [`verify_slice`], or the checkpoints cannot be read.
pub async fn compare(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    timeout: Duration,
    limit: usize,
) -> Result<Compared, WorkError> {
    compare_asked(worker, rollup, slice, Asked { timeout, limit, patience: SLOT_WAIT_MAX }).await
}

/// As [`compare`], with its own patience.
pub(crate) async fn compare_asked(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    asked: Asked,
) -> Result<Compared, WorkError> {
    let pending = |why| Ok(Compared::NotYet(NotCompared::new(rollup, slice, why)));
    let open = |why| pending(Why::NotClaimedRight(why));
    let before = match promise(worker, rollup, slice).await? {
        Promise::Kept(before) => before,
        Promise::Open(why) => {
            // A purge behind the seal reopens its slices, and they stay so.
            let seen = ready::watermark(worker, rollup).await?;
            let is_adopted = seen.adopted().is_some_and(|end| slice.start() < end);
            if is_adopted && why == Standing::Missing.word() {
                return open("adopted: its rows were taken over from another table");
            }
            let seal = seen.seal();
            return match seal.filter(|seal| slice.start() < *seal) {
                Some(seal) => pending(Why::Sealed(seal)),
                None => open(why),
            };
        }
    };
    // A slice that was read in chunks is compared in as many pieces.
    let pieces = before.outcome.as_ref().map_or(1, |outcome| outcome.chunks);
    let open_until = before.outcome.as_ref().and_then(|outcome| outcome.open_until);
    let work = before.outcome.as_ref().map(|outcome| Duration::from_millis(outcome.source_ms));
    let whole = Piece { slice, open_until, pieces, work };
    let found = match verify_in(worker, rollup, whole, asked).await {
        Err(WorkError::Db(error)) if error.kind() == DbErrorKind::Cancelled => {
            return pending(Why::TooLarge(asked.timeout.as_secs()));
        }
        Err(_) if worker.interrupt.is_raised() => return pending(Why::Interrupted),
        Err(WorkError::NotNow(not_now)) => return pending(not_now.why),
        found => found?,
    };
    if found.differences == 0 {
        return Ok(Compared::Same);
    }
    // Marks first and the checkpoint afterwards, as a worker raises `dirty` before it deletes a
    // mark.
    let range = (slice.start(), slice.end());
    if late_change::first(worker, rollup, range).await?.is_some() {
        return open("a late change is not counted yet");
    }
    // Before the second read of the checkpoint. A finer slice that is done has already reopened
    // this one if it changed.
    if compose::waits_for(worker, rollup, slice, open_until).await?.is_some() {
        return open("a finer slice is not done");
    }
    match promise(worker, rollup, slice).await? {
        Promise::Open(why) => open(why),
        Promise::Kept(now) if (now.attempt, now.dirty) != (before.attempt, before.dirty) => {
            open("changed while it was compared")
        }
        Promise::Kept(now)
            if standing_now(worker, rollup, &now, slice).await? == Standing::Lookback =>
        {
            open(Standing::Lookback.word())
        }
        Promise::Kept(now) => Ok(Compared::Drift(now.attempt, found)),
    }
}

/// Whether the slice's checkpoint promises that its rows are right.
async fn promise(worker: &Worker, rollup: &Rollup, slice: Slice) -> Result<Promise, WorkError> {
    let Some(checkpoint) = worker.checkpoints.get(&rollup.name, slice.start()).await? else {
        return Ok(Promise::Open(Standing::Missing.word()));
    };
    let definition = ready::definition(worker, rollup).await?;
    let standing = standing_of(worker, rollup, &definition, &checkpoint, slice);
    Ok(match standing {
        // Also of a sealed slice, if it was computed once.
        _ if checkpoint.state != State::Succeeded => Promise::Open(standing.word()),
        _ if checkpoint.definition.as_deref() != Some(&*definition) => {
            Promise::Open("computed by another definition")
        }
        _ => Promise::Kept(Box::new(checkpoint)),
    })
}

async fn standing_now(
    worker: &Worker,
    rollup: &Rollup,
    checkpoint: &Checkpoint,
    slice: Slice,
) -> Result<Standing, WorkError> {
    let definition = ready::definition(worker, rollup).await?;
    Ok(standing_of(worker, rollup, &definition, checkpoint, slice))
}

/// The standing of this checkpoint's slice.
pub(crate) fn standing_of(
    worker: &Worker,
    rollup: &Rollup,
    definition: &str,
    checkpoint: &Checkpoint,
    slice: Slice,
) -> Standing {
    // Where the source's rows begin matters only to slices without a checkpoint.
    let view = standings::view(worker, rollup, &Watermark::default(), worker.clock.now());
    let view = View { definition: definition.to_owned(), ..view };
    view.judge(Some(checkpoint), slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NiceRatio, Settings};
    use crate::throttle::Governor;

    #[test]
    fn a_comparison_naps_where_that_holds_its_slot_for_seconds() {
        let governor = Governor::new(Settings::default());
        let naps = |work: Option<u64>, ratio: f64, timeout: u64| {
            let throttle = Throttle::new(Some(&governor), Some(NiceRatio::Fixed(ratio)));
            let (work, patience) = (work.map(Duration::from_millis), Duration::ZERO);
            let asking = Asking { work, may_nap: true, nap: None, patience };
            asking.nap_at(&throttle, Duration::from_secs(timeout)).is_some()
        };
        assert!(
            naps(Some(660), 30.0, 300) && naps(Some(4000), 6.0, 300) && naps(Some(0), 30.0, 300)
        );
        assert!(!naps(Some(1000), 30.0, 300) && !naps(Some(660), 0.0, 300));
        // Its time limit counts, too, and work that nobody knows may be any.
        assert!(!naps(Some(660), 30.0, 60) && !naps(None, 30.0, 300));
    }

    #[test]
    fn a_comparison_is_cut_by_the_chunks_and_the_work_of_its_slice() {
        let second = |count| Some(Duration::from_secs(count));
        let cut =
            [(1, None), (3, None), (1, second(0)), (1, second(2)), (9, second(2)), (0, second(99))];
        let steps = cut.map(|(pieces, work)| first_step(24, pieces, work));
        assert_eq!(steps, [24, 8, 24, 6, 3, 1]);
    }
}
