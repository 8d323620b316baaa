//! The steps of a slice's turn up to its claim.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{Instrument as _, info_span};

use super::Turn;
use crate::checkpoint::{Claim, ClaimError, ClaimRefused, Lease};
use crate::model::not_now::{ClaimWait, NotNow, Permit, Why};
use crate::source::reading::shape::Shape;
use crate::throttle::Throttle;
use crate::work::compose::Computable;
use crate::work::report::{Outcome, SliceReport};
use crate::work::worker::WorkError;
use crate::work::{compose, consumer, ready};

/// When to check a slice again whose finer slices are unfinished. Their completion makes it due
/// sooner. This is for a batch that has nothing else to do.
pub(super) const BLOCKED_RETRY: TimeDelta = TimeDelta::seconds(30);

/// A slice with a lease.
pub(super) struct Claimed<'w> {
    pub(crate) shape: Arc<Shape>,
    pub(crate) lease: Lease,
    /// The consumer of marks that the rollup is registered as.
    pub(crate) consumer: Option<i64>,
    pub(crate) throttle: Throttle<'w>,
    /// The end of the finer slices that an open slice is computed from.
    pub(crate) open_until: Option<DateTime<Utc>>,
}

/// How the steps up to the claim ended.
pub(super) enum Begun<'w> {
    Claimed(Claimed<'w>),
    Ended(SliceReport),
}

/// Claims the slice, if nothing speaks against work on it.
pub(super) async fn claim_if_allowed(turn: Turn<'_>) -> Result<Begun<'_>, WorkError> {
    let Turn { worker, rollup, slice, deadline, options } = turn;
    let refused = |outcome, reason: String| {
        Ok(Begun::Ended(SliceReport::refused(rollup, slice, outcome, reason)))
    };
    let not_now = |not_now| Ok(Begun::Ended(SliceReport::not_now(rollup, slice, not_now)));
    if rollup.is_sealed_at(slice.start()) {
        let reason = "starts before seal_before; history there is never recomputed".into();
        return refused(Outcome::Sealed, reason);
    }
    let open_until = match compose::computable(worker, rollup, slice).await? {
        Computable::Whole => None,
        Computable::Until(until) => Some(until),
        Computable::Waits(finer) => {
            let retry_at = worker.clock.now() + BLOCKED_RETRY;
            return not_now(NotNow::until(Why::FinerSlice(finer), retry_at));
        }
    };
    let gate = ready::gate(worker, rollup, options.backfill).for_slice(slice);
    let throttle = match gate.may_start().await? {
        Permit::Given(throttle) => throttle,
        Permit::NotNow(held) => return not_now(held),
    };
    let shape = ready::prepare(worker, rollup).await?;
    // Registers before the first read, so that from here on every mark is kept for this rollup.
    let consumer = consumer::id_of(worker, rollup).await?;
    let request = Claim {
        rollup: &rollup.name,
        slice_start: slice.start(),
        definition: &ready::definition(worker, rollup).await?,
        now: worker.clock.now(),
        deadline: deadline.instant(),
    };
    match worker.checkpoints.claim(&request).instrument(info_span!("claim")).await {
        Ok(lease) => Ok(Begun::Claimed(Claimed { shape, lease, consumer, throttle, open_until })),
        Err(ClaimError::Refused(claim)) => {
            let reason = claim.to_string();
            let unclaimed =
                |how, until| not_now(NotNow::until(Why::NotClaimed(how, reason.clone()), until));
            match claim {
                ClaimRefused::Leased { until, .. } => unclaimed(ClaimWait::Leased, until),
                ClaimRefused::Backoff { retry_at, .. } => unclaimed(ClaimWait::Backoff, retry_at),
                ClaimRefused::Succeeded => refused(Outcome::AlreadySucceeded, reason),
                ClaimRefused::Exhausted { .. } => refused(Outcome::Exhausted, reason),
                ClaimRefused::NoTimeLeft => not_now(NotNow::because(Why::OutOfTime(reason))),
            }
        }
        Err(ClaimError::Checkpoint(error)) => Err(error.into()),
    }
}

/// Claims neighbouring slices, in ascending order, that nothing but other workers and their own state
/// can keep from being worked on. Returns those that it claimed.
pub(super) async fn claim_several<'w>(
    turns: &[Turn<'w>],
) -> Result<Permit<Vec<(Turn<'w>, Claimed<'w>)>>, WorkError> {
    let Some(Turn { worker, rollup, slice, options, .. }) = turns.first().copied() else {
        return Ok(Permit::Given(Vec::new()));
    };
    // A seal that the first one is behind holds for all of them.
    let throttle =
        match ready::gate(worker, rollup, options.backfill).for_slice(slice).may_start().await? {
            Permit::Given(throttle) => throttle,
            // Each slice tells its own reason.
            Permit::NotNow(held) if !held.why.holds_rollup() => {
                return Ok(Permit::Given(Vec::new()));
            }
            Permit::NotNow(held) => return Ok(Permit::NotNow(held)),
        };
    let shape = ready::prepare(worker, rollup).await?;
    let consumer = consumer::id_of(worker, rollup).await?;
    let definition = ready::definition(worker, rollup).await?;
    let now = worker.clock.now();
    let request = |turn: &Turn<'_>| Claim {
        rollup: &rollup.name,
        slice_start: turn.slice.start(),
        definition: &definition,
        now,
        deadline: turn.deadline.instant(),
    };
    let requests: Vec<_> = turns.iter().map(request).collect();
    let leases =
        worker.checkpoints.claim_several(&requests).instrument(info_span!("claim")).await?;
    let mut turns = turns.iter();
    // Both are in ascending order.
    let claimed = leases.into_iter().filter_map(|lease| {
        let turn = turns.find(|turn| turn.slice.start() == lease.slice_start())?;
        let shape = Arc::clone(&shape);
        Some((*turn, Claimed { shape, lease, consumer, throttle, open_until: None }))
    });
    Ok(Permit::Given(claimed.collect()))
}
