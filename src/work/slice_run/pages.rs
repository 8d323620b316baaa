//! The pages of one slice of a mirror, and the proof that they are all of it.
//!
//! A page begins at the time of creation of the last thing before it, so what is inserted or deleted
//! elsewhere shifts nothing, and no offset grows. Things that two pages return are staged once.
//!
//! The slice is read after its grace, so its set of things can only shrink. A thing that is there at
//! the end was there all the time, and is staged. At the end the app counts the whole slice. If it
//! counts as many things as are staged, these are the same things. If it counts fewer, some were
//! deleted meanwhile, and the slice is read again. If it counts more, the grace is too short.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{Instrument as _, info_span};

use super::chunks::SliceRead;
use super::values::literals;
use super::with_rows::Completing;
use super::{Done, Stop, Work};
use crate::clients::bubble::{PAGE_MAX, Page, ThingSearch};
use crate::model::hint::Fault;
use crate::model::not_now::{NotNow, Why};
use crate::model::rollup::mirror::Mirror;
use crate::source::SliceJob;
use crate::source::things::SETTLED_BY;
use crate::target::{StageProgress, StagedPage, StatementOptions};
use crate::work::access;
use crate::work::meter::Meter;

/// Readings of a slice whose things are deleted meanwhile. Then it yields.
const READINGS_MAX: u32 = 3;

/// Bubble returns nothing beyond this offset, and says nothing about it.
const OFFSET_MAX: u64 = 50_000;

/// The next try of a slice whose things change.
const CHANGING_RETRY: TimeDelta = TimeDelta::minutes(5);

/// A slice in reading.
pub(super) struct Pages<'w> {
    work: &'w Work<'w>,
    mirror: &'w Mirror,
    meter: Meter<'w>,
    progress: StageProgress,
    /// Fields that no thing of some page had.
    absent: BTreeSet<String>,
}

/// Reads the slice and replaces it.
pub(super) async fn read(work: &Work<'_>, mirror: &Mirror) -> Result<Done, Stop> {
    let (rollup, backfill) = (work.job.rollup, work.options.backfill);
    let meter = Meter::new(work.worker, rollup, backfill, work.deadline, &work.units);
    let meter = meter.map_err(failed)?.for_slice(work.job.slice);
    let progress = StageProgress::at_start(work.job.slice);
    let mut pages = Pages { work, mirror, meter, progress, absent: BTreeSet::new() };
    let done = pages.read_and_replace().await;
    pages.meter.settle().await;
    done
}

impl Pages<'_> {
    async fn read_and_replace(&mut self) -> Result<Done, Stop> {
        let Work { worker, lease, job, .. } = *self.work;
        let SliceJob { rollup, slice, .. } = job;
        let now = worker.clock.now();
        let proved = access::prove(rollup, self.mirror, slice, now, &mut self.meter).await?;
        proved.map_err(failed)?;
        // An earlier attempt may have staged pages, and they are paid.
        self.progress = worker.target.resume(lease, job, self.options()?).await?;
        if self.progress.chunks > 0 {
            self.absent.extend(self.mirror.fields.iter().cloned());
        }
        for _ in 0..READINGS_MAX {
            let is_one_answer = self.read_all().await?;
            let fields = access::prove_fields(self.mirror, slice, &self.absent, &mut self.meter);
            fields.await?.map_err(failed)?;
            let staged = self.progress.rows_read;
            let counted = if is_one_answer { staged } else { self.count().await? };
            if counted == staged {
                return self.replace(staged).instrument(info_span!("replace")).await;
            }
            self.forget().await?;
            if counted > staged {
                return Err(self.appeared(staged, counted));
            }
        }
        let fault = Fault::new(format!(
            "things of the slice were deleted during each of {READINGS_MAX} readings"
        ));
        Err(self.changing(fault.remedy("the slice is read again when fewer things are deleted")))
    }

    /// Stages all pages from the progress on. Returns whether one answer had the whole slice.
    async fn read_all(&mut self) -> Result<bool, Stop> {
        let slice = self.work.job.slice;
        let is_from_start = self.progress.chunks == 0;
        let (mut offset, mut tied, mut pages) = (0, None, 0_u32);
        // Bounded by the deadline and the budget: each page moves the cursor or the offset.
        loop {
            let from = self.progress.cursor;
            let search = ThingSearch::page(&self.mirror.thing, from, slice.end(), offset);
            let page = self.meter.find(&search).await?.map_err(failed)?;
            pages += 1;
            self.is_readable(page.answered_at)?;
            let last = page.things.last().map(|thing| thing.created_at);
            let (total, remaining) = (page.total, page.remaining);
            if offset > 0 && tied != Some(total) {
                // Something of this very instant is gone, and has shifted the offset.
                (offset, tied) = (0, None);
                continue;
            }
            self.stage(&page, last.unwrap_or(from)).await?;
            if remaining == 0 {
                return Ok(is_from_start && pages == 1);
            }
            if last > Some(from) {
                (offset, tied) = (0, None);
                continue;
            }
            // More things than a page holds were created in one millisecond.
            (offset, tied) = (offset + page.things.len() as u64, Some(total));
            if offset + PAGE_MAX > OFFSET_MAX {
                let facts = format!(
                    "more than {OFFSET_MAX} things of type `{}` were created in one millisecond, \
                     {from}: Bubble returns no more of them",
                    self.mirror.thing
                );
                return Err(failed(Fault::new(facts).remedy(
                    "set `start` or seal_before to a later slice; nothing else reads these things",
                )));
            }
        }
    }

    /// The things of the slice may be read once the app's own clock has passed the grace.
    fn is_readable(&self, answered_at: DateTime<Utc>) -> Result<(), Stop> {
        let SliceJob { rollup, slice, .. } = self.work.job;
        let readable_at = rollup.readable_at(slice);
        if answered_at < readable_at {
            return Err(NotNow::until(Why::NotReadable(readable_at), readable_at).into());
        }
        Ok(())
    }

    /// Stages a page under the fence.
    async fn stage(&mut self, page: &Page, cursor: DateTime<Utc>) -> Result<(), Stop> {
        let Work { worker, lease, job, .. } = *self.work;
        let fields = &self.mirror.fields;
        if !page.things.is_empty() {
            let is_absent = |key: &&String| {
                page.things.iter().all(|thing| !thing.values.contains_key(key.as_str()))
            };
            self.absent.extend(fields.iter().filter(is_absent).cloned());
        }
        let rows = page.things.iter().map(|thing| literals(thing, job.shape));
        let rows = rows.collect::<Result<Vec<_>, Fault>>().map_err(failed)?;
        let page = StagedPage { rows, cursor, source_ms: self.meter.took_ms() };
        let before = self.progress;
        let staged = worker.target.stage_page(lease, job, &page, before, self.options()?);
        self.progress = staged.await?;
        Ok(())
    }

    /// How many things the whole slice has now, by the app's count.
    async fn count(&mut self) -> Result<u64, Stop> {
        let slice = self.work.job.slice;
        let search = ThingSearch::count(&self.mirror.thing, slice.start(), slice.end());
        Ok(self.meter.find(&search).await?.map_err(failed)?.total)
    }

    async fn forget(&mut self) -> Result<(), Stop> {
        let Work { worker, lease, job, .. } = *self.work;
        self.progress = worker.target.forget_pages(lease, job, self.options()?).await?;
        self.absent.clear();
        Ok(())
    }

    async fn replace(&self, things: u64) -> Result<Done, Stop> {
        let Work { worker, lease, job, .. } = *self.work;
        let StageProgress { chunks, source_ms, .. } = self.progress;
        let completing = Completing::new(self.work, SETTLED_BY, Some((chunks, source_ms)));
        let options = StatementOptions { last: completing.last_write(), ..self.options()? };
        let replaced = worker.target.replace_from_pages(lease, job, things, options).await?;
        Ok(Done { read: SliceRead { replaced, chunks, source_ms }, settled_by: SETTLED_BY })
    }

    /// Yields, because things appeared after the grace.
    fn appeared(&self, staged: u64, counted: u64) -> Stop {
        let rollup = self.work.job.rollup;
        let fault = Fault::new(format!(
            "the app counts {counted} things in the slice, and {staged} were read: some became \
             visible after the grace of {} s",
            rollup.grace.as_secs()
        ));
        self.changing(fault.remedy("raise `grace` of the mirror above the longest workflow"))
    }

    fn changing(&self, fault: Fault) -> Stop {
        let retry_at = self.work.worker.clock.now() + CHANGING_RETRY;
        NotNow::until(Why::Changing(fault), retry_at).into()
    }

    fn options(&self) -> Result<StatementOptions<'_>, Stop> {
        let options = self.work.statement_options(self.work.statement_timeout()?);
        Ok(StatementOptions { governor: None, ..options })
    }
}

/// A failure of the slice. The app may be set right meanwhile.
const fn failed(fault: Fault) -> Stop {
    Stop::Fail { fault, retryable: true }
}
