use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::outside::{self, RowsOutside};
use super::run::named;
use super::{Failure, Global, Range, parse_duration, rollups, slice_starting, ui};
use crate::check::verify::{self, Compared};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::work::backfill::{self, Batch, BatchLimits, Interrupted};
use crate::work::due::Standing;
use crate::work::empty;
use crate::work::identity;
use crate::work::ready;
use crate::work::report::SliceReport;
use crate::work::report::{Pending, SliceVerification};
use crate::work::slice_run::RunOptions;
use crate::work::standings;
use crate::work::worker::{Severity, WorkError, Worker};

/// Maximum number of uncompared slices listed. The JSON lists all.
const LISTED_MAX: usize = 10;

/// Recompute and compare, without writing.
#[derive(Debug, Args)]
pub struct Verify {
    /// Only this rollup
    rollup: Option<String>,
    /// Only this slice
    #[arg(long, value_name = "START", requires = "rollup", conflicts_with_all = ["from", "to"])]
    slice: Option<String>,
    #[command(flatten)]
    range: Range,
    /// Only this number of slices, chosen at random
    #[arg(long, value_name = "N", conflicts_with = "slice",
          value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// Repeat the random choice of the run that printed this seed
    #[arg(long, value_name = "SEED", requires = "sample")]
    seed: Option<u32>,
    /// Longest time for one statement; a slice that takes longer is compared in several
    #[arg(long, value_name = "DURATION", default_value = "5 minutes", value_parser = parse_duration)]
    timeout: Duration,
    /// Number of differing groups to list for each slice
    #[arg(long, value_name = "N", default_value_t = 3)]
    limit: usize,
    /// Recompute the slices that differ, and compare them again
    #[arg(long)]
    repair: bool,
    /// Do not ask before the repair
    #[arg(long, short, requires = "repair")]
    yes: bool,
}

/// The result of a comparison.
#[derive(Debug, Default)]
struct Verified {
    slices: usize,
    /// Unfinished slices, whose rows are still to come.
    unfinished: usize,
    /// Slices that an interruption left.
    left: usize,
    /// Slices that will run again, or changed while they were compared.
    pending: Vec<Pending>,
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
    error: String,
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
        let (rollup, error) = (rollup.name.clone(), error.to_string());
        self.broken.push(Broken { rollup, error, severity });
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
struct Sample {
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

impl Verify {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let mut verified = Verified::default();
        let mut chosen = Chosen::new();
        for rollup in rollups(&worker, self.rollup.as_deref())? {
            match self.slices(&worker, rollup, &mut verified).await? {
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
            global.announce(format!(
                "{} of {}, chosen by --seed {seed}",
                ui::count(chosen.len()),
                ui::counted(of, "slice")
            ));
            Sample { seed, of }
        });
        self.compare(&worker, &chosen, &mut verified).await?;
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

    /// The slices to compare: the given one, or all of the range that have succeeded.
    async fn slices(
        &self,
        worker: &Worker,
        rollup: &Rollup,
        verified: &mut Verified,
    ) -> Result<Result<Vec<Slice>, WorkError>, Failure> {
        if let Some(start) = &self.slice {
            return Ok(Ok(vec![slice_starting(rollup, start, worker.clock.now())?]));
        }
        let now = worker.clock.now();
        let (from, to) = self.range.bounds(rollup, now)?;
        // First, because the tables may be missing.
        if let Err(error) = ready::check(worker, rollup).await {
            return Ok(Err(error));
        }
        // Rows that were added before all others must be reported as missing.
        if let Err(error) = empty::probe(worker, rollup).await {
            return Ok(Err(error));
        }
        let plan = match standings::in_range(worker, rollup, from, to, now).await {
            Ok(plan) => plan,
            Err(error) => return Ok(Err(error)),
        };
        let mut slices = Vec::new();
        for planned in plan.slices {
            match planned.standing {
                // Later, each slice's turn shows whether it can be compared.
                Standing::Succeeded | Standing::Lookback | Standing::Stale => {
                    slices.push(planned.slice);
                }
                // The slice is empty, or its differences are known, as another definition gives
                // other numbers.
                Standing::Empty | Standing::Redefined => {}
                _ => verified.unfinished += 1,
            }
        }
        Ok(Ok(slices))
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
        let done = progress.during(worker.governor.waits(), work).await;
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
                Compared::Pending(pending) => {
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
                None => verified.has_doubts(rollup),
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
            let batch = Batch { concurrency: 1, budget, deadline: None, options, limits };
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

/// Keeps `count` of the slices, the same ones for the same seed. Each slice added or removed since
/// changes at most one of the others.
fn choose(slices: &mut Chosen<'_>, count: u32, seed: u32) {
    let mut ranked: Vec<_> = slices
        .drain(..)
        .enumerate()
        .map(|(place, (rollup, slice))| {
            let rank = Sha256::digest(format!("{seed} {}", slice.id(&rollup.name)).as_bytes());
            (rank, place, (rollup, slice))
        })
        .collect();
    ranked.sort_by_key(|(rank, place, _)| (*rank, *place));
    ranked.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    ranked.sort_by_key(|(_, place, _)| *place);
    slices.extend(ranked.into_iter().map(|(_, _, slice)| slice));
}

fn differences(verified: &Verified) -> u64 {
    verified.drifted.iter().map(|slice| slice.differences).sum()
}

fn document(
    verified: &Verified,
    sample: Option<&Sample>,
    repaired: Option<&Repaired>,
) -> serde_json::Value {
    json!({
        "slices": verified.slices,
        "unfinished": verified.unfinished,
        "left": verified.left,
        "pending": verified.pending,
        "differences": differences(verified),
        "drifted": verified.drifted,
        "outside": verified.outside,
        "broken": verified.broken,
        "sample": sample.map(|Sample { seed, of }| json!({ "seed": seed, "of": of })),
        "repair": repaired.map(|repaired| json!({
            "succeeded": repaired.succeeded,
            "failed": repaired.failed,
            "pending": repaired.again.pending,
            "drifted": repaired.again.drifted,
        })),
    })
}

/// The exit code of a comparison.
fn found(verified: &Verified) -> Result<(), Failure> {
    if let (Some(first), []) = (verified.broken.first(), verified.drifted.as_slice()) {
        return Err(Failure::printed(first.severity, first.error.clone()));
    }
    if verified.drifted.is_empty() {
        let many = verified.pending.iter().filter(|pending| pending.is_too_large()).count();
        if many == 0 && verified.outside.is_empty() {
            return Ok(());
        }
        if many == 0 {
            let message = "rows were found that belong to no slice".to_owned();
            return Err(Failure::printed(Severity::Failed, message));
        }
        let message = format!(
            "{} could not be compared in time; give more with --timeout, or look with \
             `tallymark check` for an index on the time column",
            ui::counted(many, "slice")
        );
        return Err(Failure::printed(Severity::Failed, message));
    }
    let groups = usize::try_from(differences(verified)).unwrap_or(usize::MAX);
    Err(Failure::printed(
        Severity::Failed,
        format!(
            "{} found to differ from the source, in {}; see `tallymark verify --repair` and \
             `tallymark replay`",
            ui::counted(verified.drifted.len(), "slice"),
            ui::counted(groups, "group"),
        ),
    ))
}

/// The exit code of a repair, which requires all slices to be right in the end.
fn left(Repaired { failed, again, .. }: &Repaired) -> Result<(), Failure> {
    let parts: Vec<String> = [
        (failed.len(), "could not be recomputed"),
        (again.drifted.len(), "still found to differ"),
        (again.pending.len() + again.broken.len(), "not compared again"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", ui::counted(*count, "slice")))
    .collect();
    if parts.is_empty() {
        return Ok(());
    }
    let mut message = parts.join(", ");
    if let Some(first) = failed.first() {
        let reason = first.reason.as_deref().unwrap_or_default();
        message.push_str(&format!("; the first, {}: {reason}", named(&first.rollup, first.start)));
    }
    Err(Failure::printed(Severity::Failed, message))
}

fn repaired_text(repaired: &Repaired) -> String {
    format!("{} recomputed, {}", ui::counted(repaired.succeeded, "slice"), text(&repaired.again))
}

/// One slice that differs, with its groups.
pub(super) fn difference(slice: &SliceVerification) -> Vec<String> {
    let many = usize::try_from(slice.differences).unwrap_or(usize::MAX);
    let differ = if many == 1 { "differs" } else { "differ" };
    let name = named(&slice.rollup, slice.start);
    let mut lines = vec![format!("{name}: {} {differ}", ui::counted(many, "group"))];
    for example in &slice.examples {
        let show = |value: &Option<serde_json::Value>| {
            value.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string)
        };
        lines.push(format!("  {} {}", example.difference, example.key));
        lines.push(format!("    source {}", show(&example.expected)));
        lines.push(format!("    rollup {}", show(&example.actual)));
    }
    lines
}

/// Slices that were not compared, each with its reason.
pub(super) fn not_compared(pending: &[Pending]) -> Vec<String> {
    let line = |it: &Pending| {
        let why = it.why.explained();
        ui::wrapped(&format!("{} not compared: {why}", named(&it.rollup, it.start)), 2)
    };
    let mut lines: Vec<String> = pending.iter().take(LISTED_MAX).map(line).collect();
    if pending.len() > LISTED_MAX {
        let more = ui::counted(pending.len() - LISTED_MAX, "more slice");
        lines.push(format!("… and {more} not compared"));
    }
    lines
}

fn text(verified: &Verified) -> String {
    let mut lines: Vec<String> = verified.drifted.iter().flat_map(difference).collect();
    lines.extend(not_compared(&verified.pending));
    for outside in &verified.outside {
        lines.push(ui::wrapped(&format!("{}: {}", outside.rollup(), outside.text()), 2));
    }
    let broken = verified.broken.iter();
    lines.extend(
        broken.map(|it| {
            ui::wrapped(&format!("{} not compared to the end: {}", it.rollup, it.error), 2)
        }),
    );
    if verified.unfinished > 0 {
        lines.push(format!(
            "{} not computed yet, not compared",
            ui::counted(verified.unfinished, "slice")
        ));
    }
    if verified.left > 0 {
        let left = ui::counted(verified.left, "slice");
        lines.push(format!("{left} not compared, as the command was interrupted"));
    }
    let is_whole = verified.outside.is_empty() && verified.broken.is_empty() && verified.left == 0;
    let all = ui::counted(verified.slices, "slice");
    lines.push(match (verified.slices, verified.drifted.len()) {
        (0, _) if verified.pending.is_empty() && is_whole => "nothing to verify yet".into(),
        (0, _) => "nothing was compared".into(),
        (_, 0) if !is_whole => {
            format!("{all} compared with the source, 0 differences in them")
        }
        (_, 0) => {
            format!("{all} compared with the source, 0 differences: every slice verified")
        }
        (_, drifted) => {
            let differ = if drifted == 1 { "differs" } else { "differ" };
            format!("{all} compared with the source, {drifted} {differ}")
        }
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollup() -> Rollup {
        let text = "[source]\nurl = \"postgres://app@localhost/shop\"\n[[rollup]]\nname = \"daily\"\n\
                    from = \"events\"\ntime = \"at\"\nstart = \"2026-01-01\"\nslice = \"1 day\"\n\
                    measures = { events = \"count\" }\n";
        let path = std::path::Path::new("tallymark.toml");
        let config = crate::config::Config::parse(path, text, &|_| None).unwrap();
        config.rollups[0].clone()
    }

    fn chosen(rollup: &Rollup, days: i64, count: u32, seed: u32) -> Vec<Slice> {
        let end = rollup.start + chrono::TimeDelta::days(days);
        let mut slices: Chosen<'_> =
            rollup.calendar.slices(rollup.start, end).map(|slice| (rollup, slice)).collect();
        choose(&mut slices, count, seed);
        slices.into_iter().map(|(_, slice)| slice).collect()
    }

    #[test]
    fn a_seed_chooses_the_same_slices_and_another_one_others() {
        let rollup = rollup();
        let first = chosen(&rollup, 100, 10, 7);
        assert_eq!(first.len(), 10);
        assert!(first.is_sorted());
        assert_eq!(first, chosen(&rollup, 100, 10, 7));
        assert_ne!(first, chosen(&rollup, 100, 10, 8));
        assert_eq!(chosen(&rollup, 5, 10, 7).len(), 5);
    }

    #[test]
    fn one_slice_more_changes_at_most_one_of_a_sample() {
        let rollup = rollup();
        for seed in 0..50 {
            let (one, other) = (chosen(&rollup, 100, 10, seed), chosen(&rollup, 101, 10, seed));
            assert!(one.iter().filter(|slice| !other.contains(slice)).count() <= 1, "{seed}");
        }
    }

    #[test]
    fn every_slice_is_chosen_about_as_often() {
        let rollup = rollup();
        let mut counts = BTreeMap::<Slice, u32>::new();
        for slice in (0..1000).flat_map(|seed| chosen(&rollup, 20, 5, seed)) {
            *counts.entry(slice).or_default() += 1;
        }
        assert_eq!(counts.len(), 20);
        assert!(counts.values().all(|count| (190..=310).contains(count)), "{counts:?}");
    }
}
