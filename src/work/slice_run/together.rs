//! Several neighbouring small slices in one go: one message claims them, one statement reads them,
//! and one transaction replaces their rows.
//!
//! Each slice keeps its own checkpoint, attempt, fence, guard and marker. The transaction either
//! commits for all of them or has written nothing. In the second case, for whatever reason, each
//! slice goes on alone, by the steps of [`super::run_slice`] after the claim.

use std::time::Duration;

use futures_util::future::join_all;
use tracing::{Instrument as _, info_span};

use super::claim::{self, Claimed};
use super::stop::Stop;
use super::with_rows::Completing;
use super::{Done, NO_ANSWER, OVERTIME, RESERVE, RunOptions, Turn, Work, work_on};
use crate::model::clock::{Deadline, Stopwatch};
use crate::model::hint::Fault;
use crate::model::not_now::{NotNow, Permit, Why};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::source::SliceJob;
use crate::source::reading::pace::Excess;
use crate::target::{Leased, StatementOptions};
use crate::throttle::{Patience, Throttle};
use crate::work::ready;
use crate::work::report::SliceReport;
use crate::work::worker::{WorkError, Worker};

/// The statement is cancelled after this many times `chunk_time`, and each slice goes on alone.
const OVERRUN: u32 = 10;

/// The statement has at least this time, because a cold cache must not make the slices go on alone.
const TIMEOUT_MIN: Duration = Duration::from_secs(5);

/// How the work on several slices went.
#[derive(Debug, Default)]
pub(crate) struct TogetherRun {
    /// The slices whose work has ended, each with its report or the failure beyond it.
    pub(crate) ended: Vec<(Slice, Result<SliceReport, WorkError>)>,
    /// The slices that were not claimed.
    pub(crate) left: Vec<Slice>,
}

/// Works on neighbouring slices, in ascending order. As [`super::run_slice`], it ends at the
/// deadline, and logs one summary line for each slice.
pub(crate) async fn run_together(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
    deadline: Deadline,
    options: RunOptions,
) -> TogetherRun {
    let _busy = worker.interrupt.busy();
    let watch = Stopwatch::start();
    let limit = deadline.remaining(&*worker.clock) + OVERTIME;
    let turn = |slice: &Slice| Turn { worker, rollup, slice: *slice, deadline, options };
    let turns: Vec<_> = slices.iter().map(turn).collect();
    let Some(first) = slices.first().copied() else { return TogetherRun::default() };
    let not_now = |not_now| TogetherRun {
        ended: vec![(first, Ok(SliceReport::not_now(rollup, first, not_now).logged()))],
        left: Vec::new(),
    };
    let claimed = Box::pin(claim::claim_several(&turns));
    let claimed = match tokio::time::timeout(limit, claimed).await {
        Ok(Ok(Permit::Given(claimed))) => claimed,
        Ok(Ok(Permit::NotNow(held))) => return not_now(held),
        Ok(Err(error)) => {
            return TogetherRun { ended: vec![(first, Err(error))], left: Vec::new() };
        }
        Err(_) => return not_now(NotNow::because(Why::OutOfTime(NO_ANSWER.to_owned()))),
    };
    let is_claimed = |slice: &Slice| claimed.iter().any(|(turn, _)| turn.slice == *slice);
    let left = slices.iter().copied().filter(|slice| !is_claimed(slice)).collect();
    let mut ended = Vec::new();
    for some in claimed.chunk_by(|(one, before), (next, after)| {
        one.slice.end() == next.slice.start() && [before, after].iter().all(|it| is_fresh(it))
    }) {
        ended.extend(Box::pin(work_on_all(some, watch)).await);
    }
    TogetherRun { ended, left }
}

/// Whether this is the first attempt. An earlier one may have staged chunks, or replaced the rows
/// without the coarse slices.
fn is_fresh(claimed: &Claimed<'_>) -> bool {
    claimed.lease.attempt() == 1
}

/// Works on claimed slices together, and on each one alone if that writes nothing.
async fn work_on_all(
    claimed: &[(Turn<'_>, Claimed<'_>)],
    watch: Stopwatch,
) -> Vec<(Slice, Result<SliceReport, WorkError>)> {
    let alone = async |(turn, claimed): &(Turn<'_>, Claimed<'_>), watch| {
        let report = Box::pin(work_on(*turn, claimed, watch)).await;
        (turn.slice, report.map(SliceReport::logged))
    };
    if let [only] = claimed {
        return vec![alone(only, watch).await];
    }
    let sharers = u32::try_from(claimed.len()).unwrap_or(u32::MAX);
    let works = claimed.iter().map(|(turn, claimed)| Work::new(*turn, claimed, watch, sharers));
    let works: Vec<_> = works.collect();
    let results: Vec<Result<Done, Stop>> = match Box::pin(together(claimed, &works, watch)).await {
        Ok(Some(done)) => done.into_iter().map(Ok).collect(),
        Ok(None) | Err(_) if !works.iter().any(|work| work.worker.interrupt.is_raised()) => {
            let mut ended = Vec::new();
            for one in claimed {
                ended.push(alone(one, Stopwatch::start()).await);
            }
            return ended;
        }
        Ok(None) | Err(_) => works.iter().map(|work| Err(work.interrupted())).collect(),
    };
    let record = async |(work, result): (&Work<'_>, Result<Done, Stop>)| {
        let report = work.record_in_time(result).instrument(info_span!("complete")).await;
        (work.job.slice, report.map(SliceReport::logged))
    };
    let recorded = works
        .iter()
        .zip(results)
        .map(|(work, result)| record((work, result)).instrument(work.span()));
    join_all(recorded).await
}

/// Reads and replaces slices in one transaction. `None`: one of them needs a turn of its own.
async fn together(
    claimed: &[(Turn<'_>, Claimed<'_>)],
    works: &[Work<'_>],
    watch: Stopwatch,
) -> Result<Option<Vec<Done>>, Stop> {
    let slices: Vec<_> = claimed.iter().map(|(turn, _)| turn.slice).collect();
    let (Some(joined), Some((turn, first))) = (Slice::joined(&slices), claimed.first()) else {
        return Ok(None);
    };
    // Their whole time is settled, planned and read as that of one slice.
    let whole = Work::new(Turn { slice: joined, ..*turn }, first, watch, 1);
    let mut pace = whole.worker.pace(turn.rollup);
    let work = async {
        let settled_by = whole.settle(&mut pace).instrument(info_span!("settle")).await?;
        let work = pace.with_naps().expected(joined.start(), joined.end(), Excess::NONE);
        let reading = read(&whole, works, settled_by, work).instrument(info_span!("read"));
        let Some((done, throttle)) = reading.await? else { return Ok(None) };
        let ms = done.iter().map(|done| done.read.source_ms).sum();
        pace.learn(joined.start(), joined.end(), Duration::from_millis(ms), Excess::NONE);
        throttle.chunk_read(Duration::from_millis(ms), throttle.nap().is_some());
        Ok(Some(done))
    };
    let done = whole.in_time(Box::pin(work)).instrument(whole.span()).await;
    if let Err(stop) = &done {
        tracing::info!(reason = %stop, slices = slices.len(), "each slice goes on alone");
    }
    whole.worker.set_pace(turn.rollup, pace);
    done
}

/// Reads and replaces slices that are expected to take the time `work`. Returns the throttle that
/// they were read with, too.
async fn read<'w>(
    whole: &Work<'w>,
    works: &[Work<'_>],
    settled_by: &'static str,
    work: Duration,
) -> Result<Option<(Vec<Done>, Throttle<'w>)>, Stop> {
    let Work { worker, job: SliceJob { rollup, .. }, deadline, options, throttle, .. } = *whole;
    let gate = ready::gate(worker, rollup, options.backfill).for_slice(whole.job.slice);
    let patience = Patience::Until { deadline, needed: RESERVE };
    match gate.permit(Some(throttle), patience).await {
        Ok(Permit::Given(_)) => {}
        Ok(Permit::NotNow(not_now)) => return Err(not_now.into()),
        Err(error) => return Err(Stop::because(Why::Server(Fault::of(&error)))),
    }
    let left = whole.time_left().saturating_sub(RESERVE);
    let _turn = match throttle.governor() {
        Some(governor) => governor.turn(left).await,
        None => None,
    };
    let throttle = gate.listen(throttle, work, patience).await;
    let longest = (whole.chunk_time * OVERRUN).mul_f64(throttle.stretch()).max(TIMEOUT_MIN);
    let timeout = whole.statement_timeout()?.min(longest);
    let completing = Completing::of_several(works, settled_by);
    let options = whole.statement_options(timeout);
    let options =
        StatementOptions { nap: throttle.nap(), last: completing.last_write(), ..options };
    let leased: Vec<Leased<'_>> = works.iter().map(|work| (work.lease, work.job.slice)).collect();
    let replace = Box::pin(worker.target.replace_together(&leased, whole.job, options));
    let replaced = throttle.read(gate.source, replace).await.map_err(NotNow::because)??;
    let done = |all: Vec<_>| all.into_iter().map(|replaced| completing.done(replaced)).collect();
    Ok(replaced.map(|all| (done(all), throttle)))
}
