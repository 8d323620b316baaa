use std::time::Duration;

use chrono::TimeDelta;
use clap::Args;
use serde_json::json;

use super::{Failure, Global, parse_duration, ui};
use crate::checkpoint::{Control, Pause as Word, Scope};
use crate::config::{AUTO, NiceRatio};
use crate::fanout;
use crate::model::clock::LAST;
use crate::model::rollup::Rollup;
use crate::work::identity;
use crate::work::worker::{WorkError, Worker};

/// Stop all workers before their next chunk, until `resume`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The reason, shown wherever work waits
    #[arg(long, default_value = "")]
    reason: String,
    /// End the pause automatically after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    length: Option<Duration>,
}

/// End a pause.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Lengthen or shorten the rests of workers between chunks, overriding the configured `nice_ratio`.
#[derive(Debug, Args)]
pub(crate) struct SpeedArgs {
    /// Rest of a worker, as a multiple of its chunk's time: 0 to 100, "auto", or "default"
    #[arg(value_name = "NICE_RATIO", value_parser = nice_ratio)]
    nice_ratio: Ratio,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// End the backfills of a rollup that are under way. Finished slices stay done.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The rollup
    rollup: String,
}

#[derive(Debug, Args)]
struct ScopeArgs {
    /// Only this rollup [default: all work on the source]
    rollup: Option<String>,
    /// Only backfills of the rollup
    #[arg(long, requires = "rollup")]
    backfill: bool,
}

/// A `nice_ratio`, or the configured one.
#[derive(Clone, Copy, Debug)]
struct Ratio(Option<NiceRatio>);

fn nice_ratio(text: &str) -> Result<Ratio, String> {
    if text == "default" {
        return Ok(Ratio(None));
    }
    let ratio = text.parse().map(|ratio| Ratio(Some(ratio)));
    ratio.map_err(|_: &str| "write a number from 0 to 100, `auto` or `default`".to_owned())
}

impl ScopeArgs {
    fn scope<'w>(&'w self, worker: &'w Worker) -> Result<Scope<'w>, WorkError> {
        let Some(name) = &self.rollup else { return Ok(Scope::Source) };
        let name = &worker.rollup(name)?.name;
        Ok(if self.backfill { Scope::Backfill(name) } else { Scope::Rollup(name) })
    }
}

impl PauseArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        pause(global, &worker, self.scope.scope(&worker)?, self.reason, self.length).await
    }
}

/// Pauses the work of `scope`, for `length` or until it is resumed.
pub(super) async fn pause(
    global: &Global,
    worker: &Worker,
    scope: Scope<'_>,
    reason: String,
    length: Option<Duration>,
) -> Result<(), Failure> {
    identity::refuse_anothers_of(worker, scope.rollup()).await?;
    let at = worker.clock.now();
    // A length beyond the calendar's years means until it is resumed.
    let until = length.and_then(|length| {
        at.checked_add_signed(TimeDelta::from_std(length).ok()?).filter(|until| *until < LAST)
    });
    let pause = Word { at, reason, until };
    worker.checkpoints.set_pause(scope, Some(&pause)).await.map_err(WorkError::from)?;
    let until = until.map_or_else(
        || "until `tallymark resume`".to_owned(),
        |until| format!("until {}", ui::instant(until)),
    );
    print_controls(
        global,
        worker,
        format!("{scope} paused {until}; chunks that are being read end"),
    )
    .await
}

impl ResumeArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        resume(global, &worker, self.scope.scope(&worker)?).await
    }
}

/// Ends the pause of `scope`.
pub(super) async fn resume(
    global: &Global,
    worker: &Worker,
    scope: Scope<'_>,
) -> Result<(), Failure> {
    identity::refuse_anothers_of(worker, scope.rollup()).await?;
    let before = worker.checkpoints.control().await.map_err(WorkError::from)?;
    let was_paused = before.pause_of(scope, worker.clock.now()).is_some();
    worker.checkpoints.set_pause(scope, None).await.map_err(WorkError::from)?;
    let text = if was_paused { "may go on" } else { "was not paused" };
    print_controls(global, worker, format!("{scope} {text}")).await
}

impl SpeedArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let scope = self.scope.scope(&worker)?;
        identity::refuse_anothers_of(&worker, scope.rollup()).await?;
        let Ratio(ratio) = self.nice_ratio;
        worker.checkpoints.set_nice_ratio(scope, ratio).await.map_err(WorkError::from)?;
        let configured = worker.governor.settings().nice_ratio;
        let text = match ratio {
            Some(ratio) => format!("nice_ratio {ratio} in place of {configured}"),
            None => format!("nice_ratio {configured}, as configured"),
        };
        print_controls(global, &worker, format!("{scope}: {text}")).await
    }
}

impl CancelArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        cancel(global, &worker, worker.rollup(&self.rollup)?).await
    }
}

/// Ends the backfills of `rollup`.
pub(super) async fn cancel(
    global: &Global,
    worker: &Worker,
    rollup: &Rollup,
) -> Result<(), Failure> {
    identity::refuse_anothers_of(worker, Some(&rollup.name)).await?;
    let ended = fanout::cancel_backfills(worker, rollup).await?;
    let name = &rollup.name;
    let text = match ended {
        Some(ended) => format!("backfill {} of {name} is cancelled", ended.id),
        None => format!("backfills of {name} end before their next chunk"),
    };
    print_controls(global, worker, text).await
}

/// Prints `text`, or the state of all pauses and speeds.
async fn print_controls(global: &Global, worker: &Worker, text: String) -> Result<(), Failure> {
    let control = worker.checkpoints.control().await.map_err(WorkError::from)?;
    global.print(&document(worker, &control), || text);
    Ok(())
}

/// All pauses, speeds and cancellations in force.
pub(super) fn document(worker: &Worker, control: &Control) -> serde_json::Value {
    let now = worker.clock.now();
    let words = scopes(worker).into_iter().filter_map(|(name, is_backfill, scope)| {
        let (pause, ratio) = (control.pause_of(scope, now), control.nice_ratio_of(scope));
        (pause.is_some() || ratio.is_some()).then(|| {
            json!({
                "rollup": name,
                "backfill": is_backfill,
                "paused_since": pause.map(|pause| pause.at),
                "paused_until": pause.and_then(|pause| pause.until),
                "reason": pause.map(|pause| &pause.reason),
                "nice_ratio": ratio.map(written),
            })
        })
    });
    json!({ "control": words.collect::<Vec<_>>() })
}

/// A `nice_ratio` in JSON.
fn written(ratio: NiceRatio) -> serde_json::Value {
    match ratio {
        NiceRatio::Auto => AUTO.into(),
        NiceRatio::Fixed(ratio) => ratio.into(),
    }
}

/// All pauses, speeds and cancellations in force, one per line.
pub(super) fn lines(worker: &Worker, control: &Control) -> Vec<String> {
    let now = worker.clock.now();
    let mut lines = Vec::new();
    for (_, _, scope) in scopes(worker) {
        if let Some(pause) = control.pause_of(scope, now) {
            let until =
                pause.until.map_or_else(String::new, |it| format!(" until {}", ui::instant(it)));
            let why = if pause.reason.is_empty() { "" } else { ": " };
            let since = ui::instant(pause.at);
            let line = format!("{scope} paused since {since}{until}{why}{}", pause.reason);
            lines.push(ui::wrapped(&line, 2));
        }
        if let Some(ratio) = control.nice_ratio_of(scope) {
            lines.push(format!("{scope}: nice_ratio {ratio}, by `tallymark speed`"));
        }
    }
    lines
}

/// All possible scopes: the rollup, whether only its backfills, the scope.
fn scopes(worker: &Worker) -> Vec<(Option<&str>, bool, Scope<'_>)> {
    let mut scopes = vec![(None, false, Scope::Source)];
    for rollup in &worker.config.rollups {
        scopes.push((Some(rollup.name.as_str()), false, Scope::Rollup(&rollup.name)));
        scopes.push((Some(rollup.name.as_str()), true, Scope::Backfill(&rollup.name)));
    }
    scopes
}
