//! The state as samples of metrics, for a collector that reads files.

use super::StatusArgs;
use super::overview::Overview;
use crate::cli::{Failure, Global, excluded, rollups, ui};
use crate::telemetry::prometheus;
use crate::telemetry::registry::{self, Sample};
use crate::telemetry::totals::epoch_seconds;
use crate::work::report::Gauges;
use crate::work::standings;
use crate::work::survey::{BLOCK, Survey};
use crate::work::worker::{WorkError, Worker};

/// Prints the state in the text format of Prometheus.
pub(super) async fn print(args: &StatusArgs, global: &Global) -> Result<(), Failure> {
    if global.json {
        return Err(Failure::usage(excluded("--format", "--json")));
    }
    let worker = global.worker(1).await?;
    let samples = samples(&worker, args.rollup.as_deref()).await?;
    ui::verbatim(prometheus::text(&samples).trim_end());
    Ok(())
}

/// The state of the chosen rollups. What is said of all of them needs all of them.
async fn samples(worker: &Worker, only: Option<&str>) -> Result<Vec<Sample>, Failure> {
    let control = worker.checkpoints.control().await.map_err(WorkError::from)?;
    let mut samples = vec![Sample::of_this_build()];
    let mut gauges = Gauges::default();
    for block in rollups(worker, only)?.chunks(BLOCK) {
        let now = worker.clock.now();
        let mut survey = Survey::of(worker, block, now).await.map_err(WorkError::from)?;
        for rollup in block {
            let known = standings::surveyed(worker, rollup, &mut survey, now).await?;
            gauges.add(rollup, &known.plan, now);
            gauges.backfills += usize::from(known.seen.backfill().is_some());
            let overview = Overview::new(worker, rollup, &known.plan, &control, now);
            samples.extend(of_rollup(&overview));
        }
    }
    if only.is_none() {
        let lag = f64::from(u32::try_from(gauges.lag.num_seconds().max(0)).unwrap_or(u32::MAX));
        samples.push(Sample::new(&registry::WATERMARK_LAG, lag));
        for (metric, value) in [
            (&registry::SLICES_DUE, gauges.due),
            (&registry::SLICES_EXHAUSTED, gauges.exhausted),
            (&registry::BACKFILLS_ACTIVE, gauges.backfills),
        ] {
            samples.push(Sample::new(metric, number(value)));
        }
    }
    samples.extend(control.pace().map(|it| Sample::new(&registry::NICE_RATIO, it.nice_ratio)));
    Ok(samples)
}

fn of_rollup(overview: &Overview) -> [Sample; 4] {
    [
        (&registry::ROLLUP_COMPLETE_THROUGH, epoch_seconds(overview.complete_through)),
        (&registry::ROLLUP_SLICES_FAILING, number(overview.failing)),
        (&registry::ROLLUP_SLICES_LEFT, number(overview.left)),
        (&registry::ROLLUP_STATE, 1.0),
    ]
    .map(|(metric, value)| {
        let sample = Sample::new(metric, value).labelled("rollup", &*overview.name);
        match metric == &registry::ROLLUP_STATE {
            true => sample.labelled("state", overview.state.word()),
            false => sample,
        }
    })
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
