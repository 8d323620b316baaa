//! The command line. Each command decodes its arguments, calls the library, and prints the result.

mod adopt;
mod backfill;
mod capture;
mod check;
mod checkpoints;
mod console;
mod control;
#[cfg(feature = "embedded")]
mod demo;
#[cfg(test)]
mod hints;
mod init;
mod manual;
mod moved;
mod new;
mod outside;
mod plan;
mod preview;
mod purgeable;
pub mod remote;
mod repair;
mod replay;
mod rollup;
mod run;
mod serve;
mod signals;
mod status;
mod ui;
mod verify;
mod via;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, FromArgMatches as _, Parser, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::{Config, ConfigError, json_schema};
use crate::model::clock::{Clock, SystemClock};
use crate::model::hint::Fault;
use crate::model::not_now::Why;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::model::visible;
use crate::throttle::interrupt::Interrupt;
use crate::work::worker::{Severity, WorkError, Worker};

use signals::Signals;

/// The heading of the options that every command accepts.
const EVERYWHERE: &str = "Options of every command";

/// Accurate, rerunnable statistics of a PostgreSQL that offers no replication.
#[derive(Debug, Parser)]
#[command(name = "tallymark", version, max_term_width = 80)]
#[command(after_help = "Exit codes: 0 done; 1 the work ran and something failed or differs; \
    2 wrong usage or configuration; 3 a server could not be reached; 130 interrupted (Ctrl-C), \
    143 terminated: the same command goes on.")]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Args)]
struct Global {
    /// The configuration file
    #[arg(long = "config", global = true, value_name = "FILE", default_value = "tallymark.toml",
          env = "TALLYMARK_CONFIG", hide_env_values = true, help_heading = EVERYWHERE)]
    file: PathBuf,
    /// Print one JSON document (docs/CLI.md) on stdout; logs go to stderr
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    json: bool,
    /// Log progress; given twice, log every step
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = EVERYWHERE)]
    verbose: u8,
    /// The configuration, in place of the file.
    #[arg(skip)]
    given: Option<Box<Config>>,
    /// Raised by a signal.
    #[arg(skip)]
    interrupt: Interrupt,
    /// The received signals.
    #[arg(skip)]
    signals: Signals,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the main job on embedded servers; nothing to install
    #[cfg(feature = "embedded")]
    Demo(demo::DemoArgs),
    /// Write a configuration for a live database
    New(new::NewArgs),
    /// Create the checkpoint table, the schemas and the rollup tables
    Init(init::InitArgs),
    /// Look for problems before they are felt, each with its fix
    Check(check::CheckArgs),
    /// Install, remove or show the triggers that mark late changes
    Capture(capture::CaptureArgs),
    /// Show the due slices, or the plan of a backfill
    Plan(plan::PlanArgs),
    /// Show what a slice would hold, without writing, or compare it with another table
    Preview(preview::PreviewArgs),
    /// Take over a table that another job keeps: propose a rollup, compare, keep its history
    Adopt(adopt::AdoptArgs),
    /// Work on the slices that are due now: one tick, in this process
    Run(run::RunArgs),
    /// Tick by itself, or when a scheduler asks over HTTP
    Serve(serve::ServeArgs),
    /// Compute a range of slices, several concurrently
    Backfill(backfill::BackfillArgs),
    /// Recompute slices in any state
    Replay(replay::ReplayArgs),
    /// Stop all workers before their next chunk
    Pause(control::PauseArgs),
    /// End a pause
    Resume(control::ResumeArgs),
    /// Lengthen or shorten the rests of workers between chunks
    Speed(control::SpeedArgs),
    /// End a rollup's backfills that are under way
    Cancel(control::CancelArgs),
    /// Show the state of the slices, and the reasons of failures
    Status(status::StatusArgs),
    /// Recompute and compare, without writing
    Verify(verify::VerifyArgs),
    /// Show which rows of the source are no longer needed, and seal history there
    Purgeable(purgeable::PurgeableArgs),
    /// Rebuild lost checkpoints from the target's markers
    Repair(repair::RepairArgs),
    /// Record a new address of source or target
    Moved(moved::MovedArgs),
    /// Copy the checkpoints into the other store
    Checkpoints {
        #[command(subcommand)]
        command: checkpoints::CheckpointsCommand,
    },
    /// Rename or drop a rollup
    Rollup {
        #[command(subcommand)]
        command: rollup::RollupCommand,
    },
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    Man(manual::ManArgs),
}

/// Why a command failed, as a line of text and an exit code.
#[derive(Debug)]
struct Failure {
    severity: Severity,
    message: String,
    /// The hint, if there is one.
    hint: Option<String>,
    /// Whether the command's JSON document has been printed and includes it.
    is_printed: bool,
}

impl Failure {
    /// Wrong usage or configuration.
    #[must_use]
    pub(crate) fn usage(fault: impl Into<Fault>) -> Self {
        Self::of(Severity::Usage, fault)
    }

    fn of(severity: Severity, fault: impl Into<Fault>) -> Self {
        let (message, hint) = fault.into().into_parts();
        Self { severity, message, hint, is_printed: false }
    }

    /// The JSON document of the error.
    fn document(&self) -> serde_json::Value {
        let mut document = json!({ "error": self.message, "exit": self.severity as u8 });
        if let Some(hint) = &self.hint {
            document["hint"] = hint.as_str().into();
        }
        document
    }

    /// The work ran, but some of it failed or differs, as the printed result shows.
    fn printed(severity: Severity, fault: impl Into<Fault>) -> Self {
        Self { is_printed: true, ..Self::of(severity, fault) }
    }
}

impl From<WorkError> for Failure {
    fn from(error: WorkError) -> Self {
        Self::of(error.severity(), Fault::of(&error))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(Fault::of(&error))
    }
}

impl Arguments {
    /// Parses the arguments of this process. An error quotes them in a safe form.
    fn given() -> Result<Self, clap::Error> {
        Self::of(std::env::args_os()).map_err(|error| {
            let shown = |argument: std::ffi::OsString| {
                visible::line(&argument.to_string_lossy()).into_owned().into()
            };
            Self::of(std::env::args_os().map(shown)).err().unwrap_or(error)
        })
    }

    fn of(words: impl Iterator<Item = std::ffi::OsString>) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&manual::command().try_get_matches_from(words)?)
    }
}

/// Runs the command line and returns its exit code.
pub async fn main() -> ExitCode {
    // A panic may quote values.
    std::panic::set_hook(Box::new(|panic| ui::note(panic.to_string())));
    let Arguments { global, command } = match Arguments::given() {
        Ok(arguments) => arguments,
        Err(error) => {
            ui::usage(&error);
            return ExitCode::from(if error.use_stderr() { Severity::Usage as u8 } else { 0 });
        }
    };
    crate::telemetry::log::cli(global.verbose, ::console::colors_enabled_stderr());
    global.signals.listen(&global.interrupt);
    let ended = dispatch(&global, command).await;
    if let Some(code) = global.signals.code() {
        return interrupted(&global, ended, code);
    }
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if global.json && !failure.is_printed {
                ui::json(&failure.document());
            }
            let Failure { severity, message, hint, .. } = failure;
            ui::error(&message);
            if let Some(hint) = &hint {
                ui::hint(hint);
            }
            ExitCode::from(severity as u8)
        }
    }
}

/// Ends after a signal. A failure that is missing in the result is attributed to the signal.
fn interrupted(global: &Global, ended: Result<(), Failure>, code: u8) -> ExitCode {
    match ended {
        Err(Failure { message, hint, is_printed: true, .. }) => {
            ui::error(&message);
            if let Some(hint) = &hint {
                ui::hint(hint);
            }
        }
        Err(_) if global.json => {
            ui::json(&json!({ "error": Why::Interrupted.to_string(), "exit": code }));
        }
        _ => {}
    }
    global.signals.print_how_to_continue(global.interrupt.has_left());
    ExitCode::from(code)
}

async fn dispatch(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        #[cfg(feature = "embedded")]
        Command::Demo(command) => command.run(global).await,
        Command::New(command) => command.run(global).await,
        Command::Init(command) => command.run(global).await,
        Command::Check(command) => command.run(global).await,
        Command::Capture(command) => command.run(global).await,
        Command::Plan(command) => command.run(global).await,
        Command::Preview(command) => command.run(global).await,
        Command::Adopt(command) => command.run(global).await,
        Command::Run(command) => command.run(global).await,
        Command::Serve(command) => command.run(global).await,
        Command::Backfill(command) => command.run(global).await,
        Command::Replay(command) => command.run(global).await,
        Command::Pause(command) => command.run(global).await,
        Command::Resume(command) => command.run(global).await,
        Command::Speed(command) => command.run(global).await,
        Command::Cancel(command) => command.run(global).await,
        Command::Status(command) => command.run(global).await,
        Command::Verify(command) => command.run(global).await,
        Command::Purgeable(command) => command.run(global).await,
        Command::Repair(command) => command.run(global).await,
        Command::Moved(command) => command.run(global).await,
        Command::Checkpoints { command } => command.run(global).await,
        Command::Rollup { command } => command.run(global).await,
        Command::Man(command) => command.run(global),
        Command::Schema => {
            ui::json(&json_schema());
            Ok(())
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut manual::command(), "tallymark", &mut script);
            // Printed here, because the generator panics on a closed pipe.
            ui::verbatim(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
    }
}

impl Global {
    fn config(&self) -> Result<Config, Failure> {
        if let Some(config) = &self.given {
            return Ok((**config).clone());
        }
        Ok(Config::load(&self.file, &|name: &str| std::env::var(name).ok())?)
    }

    /// A worker for the configuration file, with room for `concurrency` concurrent slices.
    async fn worker(&self, concurrency: u32) -> Result<Worker, Failure> {
        self.worker_of(self.config()?, concurrency).await
    }

    async fn worker_of(&self, config: Config, concurrency: u32) -> Result<Worker, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let worker = Worker::new(config, clock, concurrency).await?;
        Ok(worker.interrupted_by(self.interrupt.clone()))
    }

    /// Announces the work of a command. With `--json` stdout is reserved for the document.
    fn announce(&self, text: impl AsRef<str>) {
        if self.json { ui::note(text) } else { ui::announce(text) }
    }

    /// Prints the result: `document` with `--json`, else `text`.
    fn print(&self, document: &impl serde::Serialize, text: impl FnOnce() -> String) {
        if self.json {
            ui::json(document);
        } else {
            ui::keep_document(document);
            ui::print(text());
        }
    }

    /// As [`Global::print`], for lines that must not be wrapped.
    fn print_script(&self, document: &impl serde::Serialize, text: impl FnOnce() -> String) {
        if self.json {
            ui::json(document);
        } else {
            ui::keep_document(document);
            ui::verbatim(text());
        }
    }
}

/// A range of slices in a command's options.
#[derive(Debug, Args, Serialize, Deserialize)]
struct RangeArgs {
    /// First slice: a date in the rollup's zone, or an instant
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// End of the range, exclusive [default: now]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

impl RangeArgs {
    /// Whether it covers everything.
    const fn is_whole(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    /// The range for `rollup`, by default from its start until now.
    fn bounds(
        &self,
        rollup: &Rollup,
        now: DateTime<Utc>,
    ) -> Result<(DateTime<Utc>, DateTime<Utc>), Failure> {
        let at = |option: &str, text: &Option<String>, default| {
            text.as_ref().map_or(Ok(default), |text| {
                rollup
                    .calendar
                    .instant(text)
                    .map_err(|error| Failure::usage(Fault::of(&error).at(format!("--{option}"))))
            })
        };
        Ok((at("from", &self.from, rollup.start)?, at("to", &self.to, now)?))
    }
}

/// Where the work is done.
#[derive(Debug, Default, Args)]
struct Via {
    /// Let this deployed function do it (its name or ARN)
    #[arg(long, value_name = "FUNCTION")]
    via: Option<String>,
}

impl Via {
    fn function(&self) -> Option<String> {
        self.via.clone()
    }
}

/// A refusal of two arguments that exclude each other.
fn excluded(one: &str, other: &str) -> Fault {
    Fault::new(format!("{one} and {other} exclude each other")).remedy("leave one out")
}

/// A refusal of an argument without another.
fn needed(one: &str, other: &str) -> Fault {
    Fault::new(format!("{one} needs {other}")).remedy(format!("give {other}"))
}

/// The slice that starts at the given text, if it has begun by `now`.
fn slice_starting(rollup: &Rollup, text: &str, now: DateTime<Utc>) -> Result<Slice, Failure> {
    let usage = |fault: Fault| Failure::usage(fault.at("--slice"));
    // A full slice name, as printed in status and logs, is accepted too.
    let start = text.strip_prefix(&format!("{}@", rollup.name)).unwrap_or(text);
    let instant = rollup.calendar.instant(start).map_err(|error| usage(Fault::of(&error)))?;
    let slice = rollup.calendar.starting(instant).map_err(|error| usage(Fault::of(&error)))?;
    rollup.begun(slice, now).map_err(|error| usage(Fault::of(&error)))
}

/// The rollups that a command applies to: the named one, or all.
fn rollups<'a>(worker: &'a Worker, name: Option<&str>) -> Result<Vec<&'a Rollup>, Failure> {
    match name {
        Some(name) => Ok(vec![worker.rollup(name)?]),
        None => Ok(worker.config.rollups.iter().collect()),
    }
}

/// Parses `500ms`, `30s`, `5 minutes` for an option.
fn parse_duration(text: &str) -> Result<Duration, String> {
    crate::config::parse_duration(text)
        .ok_or_else(|| "write a duration such as 30s, 5 minutes or 1 hour".to_owned())
}
