//! Backfills that a deployed function fans out. Their items outlive every process.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::Direction;
use crate::checkpoint::{Backfill, BackfillState, Scope};
use crate::cli::{Failure, Global, RangeArgs, control, rollups, ui, via};
use crate::fanout::{self, BackfillProgress};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::work::worker::{WorkError, Worker};

/// Interval between two reads of a backfill's progress.
const POLL: Duration = Duration::from_secs(2);

/// Maximum number of reads of one backfill, which is more than a month of them.
const POLLS_MAX: usize = 2_000_000;

/// A backfill that the deployed function fans out.
#[derive(Debug, Subcommand)]
pub(super) enum BackfillCommand {
    /// Start one: the function's next tick sends its slices to the queue
    Start {
        /// The rollup
        rollup: String,
        #[command(flatten)]
        range: RangeArgs,
        /// The end of history to start with
        #[arg(long, value_enum, default_value_t = Direction::NewestFirst)]
        order: Direction,
        /// Also recompute slices that already succeeded
        #[arg(long)]
        force: bool,
    },
    /// Show the backfills under way, and those that have ended
    List {
        /// Only this rollup
        rollup: Option<String>,
    },
    /// Show the progress of a rollup's newest backfill
    Status {
        /// The rollup
        rollup: String,
        /// Keep showing it until it has ended
        #[arg(long)]
        watch: bool,
    },
    /// Pause it; chunks that are being read are finished
    Pause {
        /// The rollup
        rollup: String,
        /// The reason, shown wherever work waits
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// End a pause
    Resume {
        /// The rollup
        rollup: String,
    },
    /// End it; finished slices stay done
    Cancel {
        /// The rollup
        rollup: String,
    },
}

impl BackfillCommand {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        match self {
            Self::Start { rollup, range, order, force } => {
                let rollup = worker.rollup(&rollup)?;
                let (from, to) = range.bounds(rollup, worker.clock.now())?;
                let bounds = (from, range.to.is_some().then_some(to));
                let (order, reason) = (order.into(), "asked for on the command line");
                let backfill =
                    fanout::start_backfill(&worker, rollup, bounds, order, force, reason).await?;
                let name = &rollup.name;
                global.print(&json!({ "backfill": backfill }), || {
                    format!(
                        "backfill {} of {name} begins with the deployed function's next tick\n  \
                         `tallymark backfill status {name} --watch` shows how far it is",
                        backfill.id
                    )
                });
                Ok(())
            }
            Self::List { rollup } => list(global, &worker, rollup.as_deref()).await,
            Self::Status { rollup, watch } => {
                let rollup = worker.rollup(&rollup)?;
                let Some(backfill) = newest(&worker, rollup).await? else {
                    let name = &rollup.name;
                    let fault = Fault::new(format!(
                        "rollup `{name}` has had no backfill that was fanned out"
                    ));
                    return Err(Failure::usage(
                        fault.remedy(format!("run `tallymark backfill start {name}` to begin one")),
                    ));
                };
                if watch {
                    return follow(&worker, rollup, &backfill.id).await?.print(global);
                }
                let progress = fanout::progress_of(&worker, rollup, &backfill).await?;
                let backfill = fanout::as_it_stands(&worker, rollup, backfill).await?;
                let document = json!({ "backfill": backfill, "progress": progress });
                global.print(&document, || text(&backfill, &progress));
                Ok(())
            }
            Self::Pause { rollup, reason } => {
                let scope = Scope::Backfill(&worker.rollup(&rollup)?.name);
                control::pause(global, &worker, scope, reason, None).await
            }
            Self::Resume { rollup } => {
                let scope = Scope::Backfill(&worker.rollup(&rollup)?.name);
                control::resume(global, &worker, scope).await
            }
            Self::Cancel { rollup } => {
                control::cancel(global, &worker, worker.rollup(&rollup)?).await
            }
        }
    }
}

async fn newest(worker: &Worker, rollup: &Rollup) -> Result<Option<Backfill>, WorkError> {
    Ok(worker.checkpoints.backfills(&rollup.name).await?.into_iter().next())
}

async fn list(global: &Global, worker: &Worker, only: Option<&str>) -> Result<(), Failure> {
    let mut backfills = Vec::new();
    for rollup in rollups(worker, only)? {
        let found = worker.checkpoints.backfills(&rollup.name).await.map_err(WorkError::from)?;
        for backfill in found {
            backfills.push(fanout::as_it_stands(worker, rollup, backfill).await?);
        }
    }
    backfills.sort_by_key(|backfill| std::cmp::Reverse(backfill.started_at));
    global.print(&json!({ "backfills": backfills }), || {
        if backfills.is_empty() {
            return "no backfill has been fanned out".into();
        }
        let rows: Vec<Vec<String>> = backfills
            .iter()
            .map(|it| {
                vec![
                    it.rollup.clone(),
                    ui::instant(it.started_at),
                    it.state.word().to_owned(),
                    ui::number(it.sent),
                    range(it),
                ]
            })
            .collect();
        ui::table(&["rollup", "began", "state", ">sent", "range"], &rows)
    });
    Ok(())
}

fn range(backfill: &Backfill) -> String {
    let day = |at: chrono::DateTime<chrono::Utc>| at.format("%Y-%m-%d").to_string();
    format!("{} to {}", day(backfill.from), day(backfill.to))
}

fn text(backfill: &Backfill, progress: &BackfillProgress) -> String {
    let count = |count: usize| ui::number(count as u64);
    let percent = (100 * progress.done).checked_div(progress.slices).unwrap_or(100);
    let mut lines = vec![
        format!(
            "backfill of {}, {}, began {}: {}",
            backfill.rollup,
            range(backfill),
            ui::instant(backfill.started_at),
            backfill.state.word()
        ),
        format!(
            "  {} of {} slices done ({percent} %), {} rows read",
            count(progress.done),
            count(progress.slices),
            ui::number(progress.rows_read)
        ),
        format!(
            "  {} left, {} running, {} failed and tried again, {} exhausted",
            count(progress.left),
            count(progress.running),
            count(progress.failed),
            count(progress.exhausted)
        ),
    ];
    if backfill.state.is_active() && progress.computed > 0 && !progress.is_through() {
        let mut line = format!("  {:.0} slices an hour", progress.slices_per_hour);
        if let Some(at) = progress.done_at {
            line.push_str(&format!(", done by {}", ui::instant(at)));
        }
        lines.push(line);
    }
    if progress.exhausted > 0 {
        let rollup = &backfill.rollup;
        lines.push(format!("  `tallymark replay {rollup} --failed` reopens the exhausted ones"));
    }
    lines.join("\n")
}

/// The end of a backfill that a function does.
pub(super) struct Ended {
    pub(super) document: Value,
    pub(super) text: String,
    /// The exit code of the command.
    pub(super) result: Result<(), Failure>,
}

impl Ended {
    /// Prints it, and ends the command with it.
    pub(super) fn print(self, global: &Global) -> Result<(), Failure> {
        global.print(&self.document, || self.text);
        self.result
    }
}

/// Lets the function do the backfill of `event`, and shows its progress until it has ended.
pub(super) async fn send(
    worker: &Worker,
    function: &str,
    rollup: &Rollup,
    event: &Value,
) -> Result<Ended, Failure> {
    let answer = via::invoke(function, event).await?;
    let Some(id) = answer["backfill"]["id"].as_str() else {
        // A function without a queue has done the work itself.
        let text = via::text(&answer);
        return Ok(Ended {
            text,
            result: via::ended(std::slice::from_ref(&answer)),
            document: answer,
        });
    };
    ui::note(format!("backfill {id} goes on in {function}, watched or not"));
    follow(worker, rollup, id).await
}

/// Shows the progress of the backfill until it has ended.
async fn follow(worker: &Worker, rollup: &Rollup, id: &str) -> Result<Ended, Failure> {
    let mut bar: Option<ui::ProgressLine> = None;
    let mut polls = 0;
    loop {
        let found = worker.checkpoints.backfill(&rollup.name, id).await.map_err(WorkError::from)?;
        let Some(backfill) = found else {
            return Err(Failure::usage(
                Fault::new(format!("backfill {id} of {} is gone", rollup.name))
                    .remedy("run `tallymark backfill status`, which shows the present one"),
            ));
        };
        let progress = fanout::progress_of(worker, rollup, &backfill).await?;
        let bar = bar.get_or_insert_with(|| ui::ProgressLine::new(&rollup.name, progress.slices));
        bar.set(progress.done as u64, progress.rows_read);
        // A tick notices a minute later that no slice is left.
        if !backfill.state.is_active() || progress.is_through() || polls >= POLLS_MAX {
            bar.finish();
            let backfill = fanout::as_it_stands(worker, rollup, backfill).await?;
            let document = json!({ "backfill": backfill, "progress": progress });
            let (text, result) = (text(&backfill, &progress), ended(&backfill, &progress));
            return Ok(Ended { document, text, result });
        }
        polls += 1;
        tokio::time::sleep(POLL).await;
    }
}

fn ended(backfill: &Backfill, progress: &BackfillProgress) -> Result<(), Failure> {
    let failed = |fault: Fault| Err(Failure::printed(crate::work::worker::Severity::Failed, fault));
    let rollup = &backfill.rollup;
    if backfill.state == BackfillState::Cancelled {
        return failed(
            Fault::new("the backfill was cancelled")
                .remedy(format!("run `tallymark backfill start {rollup}`, which goes on")),
        );
    }
    if progress.exhausted > 0 {
        return failed(
            Fault::new(format!("{} failed too often", ui::counted(progress.exhausted, "slice")))
                .remedy(format!(
                    "put the cause right and run `tallymark replay {rollup} --failed`"
                )),
        );
    }
    Ok(())
}

/// The event that starts a backfill.
pub(super) fn event(
    rollup: &Rollup,
    (from, to): (chrono::DateTime<chrono::Utc>, chrono::DateTime<chrono::Utc>),
    order: crate::model::slice::Order,
    force: bool,
) -> Value {
    json!({
        "trigger": "backfill",
        "rollup": rollup.name,
        "from": ui::instant(from),
        "to": ui::instant(to),
        "order": order,
        "force": force,
    })
}
