mod cursor;
mod outcome;
mod sample;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outside::{self, RowsOutside};
use super::remote::{self, Remote};
use super::{
    Failure, Global, RangeArgs, Via, excluded, needed, parse_duration, rollups, slice_starting, ui,
};
use crate::check::verify::{self, Compared};
use crate::model::hint::Fault;
use crate::model::not_now::Why;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::work::backfill::{self, BatchLimits, BatchOptions, Interrupted};
use crate::work::due::Standing;
use crate::work::report::SliceReport;
use crate::work::report::{NotCompared, SliceVerification};
use crate::work::slice_run::RunOptions;
use crate::work::standings;
use crate::work::worker::{Severity, WorkError, Worker};
use crate::work::{empty, identity, ready, things};

use cursor::Cursor;
use outcome::{document, found, left, repaired_text, text};

use sample::choose;

pub(super) use outcome::{difference, merged, not_compared};

/// Differing groups that are listed for each slice.
const EXAMPLES_DEFAULT: usize = 3;

const fn examples_default() -> usize {
    EXAMPLES_DEFAULT
}

/// As long as the default of `--timeout`.
const fn timeout_default() -> Duration {
    Duration::from_secs(5 * 60)
}

/// Recompute and compare, without writing.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct VerifyArgs {
    /// Only this rollup
    rollup: Option<String>,
    /// Only this slice
    #[arg(long, value_name = "START", requires = "rollup", conflicts_with_all = ["from", "to"])]
    slice: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    range: RangeArgs,
    /// Only this number of slices, chosen at random
    #[arg(long, value_name = "N", conflicts_with = "slice",
          value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// Repeat the random choice of the run that printed this seed
    #[arg(long, value_name = "SEED", requires = "sample")]
    seed: Option<u32>,
    /// Longest time for one statement; a slice that takes longer is compared in several
    #[arg(long, value_name = "DURATION", default_value = "5 minutes", value_parser = parse_duration)]
    #[serde(with = "remote::duration", default = "timeout_default")]
    timeout: Duration,
    /// Number of differing groups to list for each slice
    #[arg(long, value_name = "N", default_value_t = EXAMPLES_DEFAULT)]
    #[serde(default = "examples_default")]
    limit: usize,
    /// Recompute the slices that differ, and compare them again
    #[arg(long, conflicts_with = "via")]
    #[serde(skip)]
    repair: bool,
    /// Do not ask before the repair
    #[arg(long, short, requires = "repair")]
    #[serde(skip)]
    yes: bool,
    /// Where the run before ended, whose time was up.
    #[arg(skip)]
    after: Option<Cursor>,
    #[command(flatten)]
    #[serde(skip)]
    via: Via,
}

/// The result of a comparison.
#[derive(Debug, Default)]
struct Verified {
    slices: usize,
    /// Unfinished slices, whose rows are still to come.
    unfinished: usize,
    /// Slices whose rows were taken over from another job's table. They are compared with nothing.
    adopted: usize,
    /// Slices that an interruption left.
    left: usize,
    /// Slices that will run again, or changed while they were compared.
    pending: Vec<NotCompared>,
    drifted: Vec<SliceVerification>,
    /// Rows outside of every slice.
    outside: Vec<RowsOutside>,
    /// Rollups whose comparison ended early.
    broken: Vec<Broken>,
}

/// A rollup whose comparison ended early, with the reason.
#[derive(Debug, serde::Serialize)]
struct Broken {
    rollup: String,
    #[serde(flatten)]
    fault: Fault,
    #[serde(skip)]
    severity: Severity,
}

impl Verified {
    /// Records the failure of one rollup. Returns the error if it would affect the others too.
    fn breaks_off(&mut self, rollup: &Rollup, error: WorkError) -> Result<(), WorkError> {
        let severity = error.severity();
        if error.is_for_all() || severity == Severity::Unreachable {
            return Err(error);
        }
        let (rollup, fault) = (rollup.name.clone(), Fault::of(&error));
        self.broken.push(Broken { rollup, fault, severity });
        Ok(())
    }

    /// Whether some slices of `rollup` were not compared.
    fn has_gaps(&self, rollup: &Rollup) -> bool {
        self.is_broken(rollup) || self.pending.iter().any(|it| it.rollup == rollup.name)
    }

    /// Whether some slices of `rollup` differ or were not compared.
    fn has_doubts(&self, rollup: &Rollup) -> bool {
        self.has_gaps(rollup) || self.drifted.iter().any(|it| it.rollup == rollup.name)
    }

    fn is_broken(&self, rollup: &Rollup) -> bool {
        self.broken.iter().any(|broken| broken.rollup == rollup.name)
    }
}

/// The slices of a random choice, and the number that they were chosen from.
struct SliceSample {
    seed: u32,
    of: usize,
}

/// The outcome for the slices that differed.
#[derive(Debug, Default)]
struct Repaired {
    succeeded: usize,
    failed: Vec<SliceReport>,
    /// The second comparison.
    again: Verified,
}

/// Slices in the order in which they are compared.
type Chosen<'r> = Vec<(&'r Rollup, Slice)>;

/// The slices that the arguments ask for.
enum WantedSlices {
    One(Slice),
    /// All that begin from the first instant until before the second.
    Between(DateTime<Utc>, DateTime<Utc>),
}

impl VerifyArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self.via.function() {
            Some(function) => remote::ask(global, &function, Remote::Verify(self)).await,
            None => self.run_here(global).await,
        }
    }

    /// Runs the command in this process.
    pub(super) async fn run_here(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let mut verified = Verified::default();
        let mut chosen = Chosen::new();
        for rollup in rollups(&worker, self.rollup.as_deref())? {
            let wanted = self.wanted(rollup, worker.clock.now())?;
            match slices(&worker, rollup, wanted, &mut verified).await {
                Ok(slices) => chosen.extend(slices.into_iter().map(|slice| (rollup, slice))),
                Err(error) => verified.breaks_off(rollup, error)?,
            }
            if self.slice.is_none() && !verified.is_broken(rollup) {
                match outside::find(&worker, rollup).await {
                    Ok(rows) => verified.outside.extend(rows),
                    Err(error) => verified.breaks_off(rollup, error)?,
                }
            }
        }
        let sample = self.sample.map(|count| {
            let (seed, of) = (self.seed.unwrap_or_else(|| fastrand::u32(..)), chosen.len());
            choose(&mut chosen, count, seed);
            if self.after.is_none() {
                global.announce(format!(
                    "{} of {}, chosen by --seed {seed}",
                    ui::count(chosen.len()),
                    ui::counted(of, "slice")
                ));
            }
            SliceSample { seed, of }
        });
        if let Some(after) = &self.after {
            after.skip(&mut chosen);
        }
        self.compare(&worker, &chosen, &mut verified).await?;
        self.keep_next(&worker, &chosen, &verified);
        if !self.repair || verified.drifted.is_empty() {
            self.prove(&worker, &verified, None, global).await?;
            global.print(&document(&verified, sample.as_ref(), None), || text(&verified));
            return found(&verified);
        }
        global.announce(text(&verified));
        ui::confirm("Recompute what differs?", self.yes)?;
        let repaired = self.repair(&worker, &verified).await?;
        self.prove(&worker, &verified, Some(&repaired), global).await?;
        global.print(&document(&verified, sample.as_ref(), Some(&repaired)), || {
            repaired_text(&repaired)
        });
        left(&repaired)
    }

    /// Why the arguments exclude each other.
    pub(super) fn refusal(&self) -> Option<Fault> {
        let Self { rollup, slice, range, sample, seed, .. } = self;
        let others = [("from", range.from.is_some()), ("to", range.to.is_some())];
        let mut others = others.into_iter().chain([("sample", sample.is_some())]);
        match (slice, sample) {
            (Some(_), _) if rollup.is_none() => Some(needed("slice", "rollup")),
            (Some(_), _) => others.find(|it| it.1).map(|other| excluded("slice", other.0)),
            (None, None) if seed.is_some() => Some(needed("seed", "sample")),
            (None, Some(0)) => Some(Fault::new("sample is 0").remedy("give at least 1")),
            (None, _) => None,
        }
    }

    /// Chooses the seed of a sample, which is the same for all parts of the comparison.
    pub(super) fn fix_sample(&mut self) {
        if self.sample.is_some() {
            self.seed.get_or_insert_with(|| fastrand::u32(..));
        }
    }

    /// Lets the comparison continue at `next`, where one before it ended.
    pub(super) fn continue_at(&mut self, next: Value) -> Result<(), serde_json::Error> {
        self.after = Some(serde_json::from_value(next)?);
        Ok(())
    }

    /// What the arguments ask for.
    fn wanted(&self, rollup: &Rollup, now: DateTime<Utc>) -> Result<WantedSlices, Failure> {
        if let Some(start) = &self.slice {
            return Ok(WantedSlices::One(slice_starting(rollup, start, now)?));
        }
        let (from, to) = self.range.bounds(rollup, now)?;
        Ok(WantedSlices::Between(from, to))
    }

    /// Compares slices one after another, and shows the progress and its waits.
    async fn compare(
        &self,
        worker: &Worker,
        chosen: &[(&Rollup, Slice)],
        verified: &mut Verified,
    ) -> Result<(), Failure> {
        let progress = ui::ProgressLine::quiet("verify", chosen.len());
        let work = self.compare_all(worker, chosen, verified, &progress);
        let done = progress.during(&worker.governor, work).await;
        progress.finish();
        done
    }

    async fn compare_all(
        &self,
        worker: &Worker,
        chosen: &[(&Rollup, Slice)],
        verified: &mut Verified,
        progress: &ui::ProgressLine,
    ) -> Result<(), Failure> {
        let mut noted = BTreeMap::new();
        for (place, (rollup, slice)) in chosen.iter().enumerate() {
            progress.compared(place);
            if worker.interrupt.is_raised() {
                verified.left = chosen.len() - place;
                break;
            }
            if verified.is_broken(rollup) {
                continue;
            }
            let name = &rollup.name;
            if !noted.contains_key(name) {
                let scrub = worker.checkpoints.scrub(name).await.map_err(WorkError::from)?;
                noted.insert(name, scrub.drift);
            }
            let compared =
                match verify::compare(worker, rollup, *slice, self.timeout, self.limit).await {
                    Ok(compared) => compared,
                    // The interruption cancels the comparison under way.
                    Err(_) if worker.interrupt.is_raised() => {
                        verified.left = chosen.len() - place;
                        break;
                    }
                    Err(error) => {
                        verified.breaks_off(rollup, error)?;
                        continue;
                    }
                };
            match compared {
                // The next part compares it.
                Compared::NotYet(pending)
                    if ui::is_keeping() && pending.why == Why::Interrupted =>
                {
                    verified.left = chosen.len() - place;
                    break;
                }
                Compared::NotYet(pending) => {
                    verified.pending.push(pending);
                    continue;
                }
                Compared::Drift(_, found) => verified.drifted.push(found),
                Compared::Same if noted[name].contains_key(&slice.start()) => {
                    // The drift that a scrub found there is resolved.
                    let right = [slice.start()];
                    let forget = worker.checkpoints.forget_drift(name, &right);
                    forget.await.map_err(WorkError::from)?;
                }
                Compared::Same => {}
            }
            verified.slices += 1;
        }
        Ok(())
    }

    /// Records for each unproven rollup that all of it was compared and is right.
    async fn prove(
        &self,
        worker: &Worker,
        verified: &Verified,
        repaired: Option<&Repaired>,
        global: &Global,
    ) -> Result<(), Failure> {
        let is_whole = self.slice.is_none() && self.sample.is_none() && self.range.is_whole();
        if !is_whole || worker.interrupt.is_raised() {
            return Ok(());
        }
        for rollup in rollups(worker, self.rollup.as_deref())? {
            let is_wrong = match repaired {
                None => verified.has_doubts(rollup) || self.doubts(rollup),
                Some(Repaired { failed, again, .. }) => {
                    let has_failed = failed.iter().any(|report| report.rollup == rollup.name);
                    verified.has_gaps(rollup) || again.has_doubts(rollup) || has_failed
                }
            };
            if !is_wrong && identity::proven(worker, rollup).await? {
                global.announce(format!("{}: proven, as all of it was compared", rollup.name));
            }
        }
        Ok(())
    }

    /// Recomputes the slices that differ, and compares them again.
    async fn repair(&self, worker: &Worker, verified: &Verified) -> Result<Repaired, Failure> {
        let mut repaired = Repaired::default();
        let mut chosen = Chosen::new();
        for slices in verified.drifted.chunk_by(|one, other| one.rollup == other.rollup) {
            let rollup = worker.rollup(&slices[0].rollup)?;
            let slices: Vec<Slice> =
                slices.iter().map(|found| rollup.calendar.containing(found.start)).collect();
            let (budget, options) = (self.timeout, RunOptions::default());
            let limits = BatchLimits::default();
            let batch = BatchOptions { concurrency: 1, budget, deadline: None, options, limits };
            let progress = ui::ProgressLine::new(&rollup.name, slices.len());
            let report =
                backfill::replay(worker, rollup, &slices, "verify", batch, &progress).await;
            progress.finish();
            let report = report.map_err(|Interrupted { error, .. }| *error)?;
            repaired.succeeded += report.succeeded;
            repaired.failed.extend(report.failed.into_iter().chain(report.refused));
            chosen.extend(slices.into_iter().map(|slice| (rollup, slice)));
        }
        self.compare(worker, &chosen, &mut repaired.again).await?;
        Ok(repaired)
    }
}

/// The slices to compare: the given one, or all of the range that have succeeded.
async fn slices(
    worker: &Worker,
    rollup: &Rollup,
    wanted: WantedSlices,
    verified: &mut Verified,
) -> Result<Vec<Slice>, WorkError> {
    // The counts of another branch, or of a token with fewer rights, would show nothing.
    things::prove(worker, rollup).await?;
    let (from, to) = match wanted {
        WantedSlices::One(slice) => return Ok(vec![slice]),
        WantedSlices::Between(from, to) => (from, to),
    };
    // First, because the tables may be missing.
    ready::check(worker, rollup).await?;
    // Rows that were added before all others must be reported as missing.
    empty::probe(worker, rollup).await?;
    let plan = standings::in_range(worker, rollup, from, to, worker.clock.now()).await?;
    let mut slices = Vec::new();
    for planned in plan.slices {
        match planned.standing {
            // Later, each slice's turn shows whether it can be compared.
            Standing::Succeeded
            | Standing::Lookback
            | Standing::Stale
            | Standing::Grown
            | Standing::Open => slices.push(planned.slice),
            // The slice is empty, or its differences are known, as another definition gives other
            // numbers.
            Standing::Empty | Standing::Redefined => {}
            Standing::Adopted => verified.adopted += 1,
            _ => verified.unfinished += 1,
        }
    }
    Ok(slices)
}
