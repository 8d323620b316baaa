//! The demo: the main job with the real commands, on embedded servers.

mod chart;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use chrono::{DateTime, Days, Utc};
use clap::Args;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::process::{Child, Command};

use super::ui::{self, Paint};
use super::{Failure, Global};
use crate::embedded::dynamodb::EmbeddedDynamo;
use crate::embedded::postgres::{Binaries, EmbeddedPostgres, Options};
use crate::model::clock::{Clock as _, Stopwatch, SystemClock};
use crate::model::hint::Fault;
use crate::work::worker::Severity;

/// The directory of all state of the demo.
const HOME: &str = ".tallymark";

/// A slice's budget in the demo: a killed worker's lease ends 5 s after it.
const BUDGET: &str = "2s";

/// Working time of the worker before it is killed.
const KILL_AFTER: Duration = Duration::from_millis(1500);

/// Show the main job on embedded servers, without configuration or installation.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the servers running at the end, and print their URLs, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// The running servers, and how to call this program with them.
struct Stage {
    postgres: EmbeddedPostgres,
    dynamo: EmbeddedDynamo,
    config: PathBuf,
}

impl DemoArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        if global.json {
            return Err(Failure::usage(
                Fault::new("the demo is for people: it has no --json").remedy("leave --json out"),
            ));
        }
        let watch = Stopwatch::start();
        let stage = Stage::set().await?;
        stage.play().await?;
        if self.keep {
            stage.keep(global).await;
        }
        ui::note(format!("\ndone in {}; its state is in {HOME}/", ui::duration(watch.elapsed())));
        ui::print("every slice verified");
        Ok(())
    }
}

/// The failure of some work.
fn broken(what: &str, error: impl std::fmt::Display) -> Failure {
    let fault = Fault::new(format!("{what}: {error}"));
    Failure::of(Severity::Failed, fault.remedy("put the cause right, and run the demo again"))
}

/// The failure of a server to start.
fn absent(what: &str, error: impl std::fmt::Display) -> Failure {
    let fault = Fault::new(format!("{what}: {error}"));
    Failure::of(Severity::Unreachable, fault.remedy("run the demo again, which starts over"))
}

/// The failure of a statement, or of its server.
fn refused(what: &str, error: &sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(_) => broken(what, error),
        _ => absent(what, error),
    }
}

impl Stage {
    /// Starts both servers, seeds the source and writes the configuration.
    async fn set() -> Result<Self, Failure> {
        let home = Path::new(HOME);
        std::fs::create_dir_all(home).map_err(|error| broken(HOME, error))?;
        ui::note("starting PostgreSQL and DynamoDB below .tallymark/");
        let directory = home.join("postgres");
        let cache = home.join("cache");
        // Finding (or even fetching) and starting the server blocks the thread.
        let postgres = tokio::task::spawn_blocking(move || {
            EmbeddedPostgres::start(
                Binaries::find(&cache)?,
                Options {
                    directory,
                    max_connections: 50,
                    shared_buffers_mb: 128,
                    durable: true,
                    throwaway: false,
                },
            )
        })
        .await
        .map_err(|error| absent("PostgreSQL", error))?
        .map_err(|error| Failure::of(Severity::Unreachable, Fault::of(&error).at("PostgreSQL")))?;
        let checkpoints = home.join("dynamodb.sqlite");
        for suffix in ["", "-wal", "-shm"] {
            // The demo starts over. The file may be missing.
            let _ = std::fs::remove_file(home.join(format!("dynamodb.sqlite{suffix}")));
        }
        let dynamo = EmbeddedDynamo::start(Some(&checkpoints))
            .await
            .map_err(|error| absent("DynamoDB", error))?;
        let config = home.join("tallymark.toml");
        let stage = Self { postgres, dynamo, config };
        stage.seed().await.map_err(|error| refused("seeding the source", &error))?;
        let first_day = today() - Days::new(365);
        let text = include_str!("tallymark.toml")
            .replace("{url}", &stage.url())
            .replace("{start}", &first_day.date_naive().to_string());
        std::fs::write(&stage.config, text).map_err(|error| broken("writing", error))?;
        Ok(stage)
    }

    fn url(&self) -> String {
        self.postgres.url("demo")
    }

    async fn seed(&self) -> Result<(), sqlx::Error> {
        ui::note("seeding a year of events");
        let mut admin = PgConnection::connect(&self.postgres.url("postgres")).await?;
        for sql in ["DROP DATABASE IF EXISTS demo WITH (FORCE)", "CREATE DATABASE demo"] {
            sqlx::query(sql).execute(&mut admin).await?;
        }
        admin.close().await?;
        let mut source = self.connect().await?;
        sqlx::raw_sql(include_str!("seed.sql")).execute(&mut source).await?;
        let rows: i64 =
            sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&mut source).await?;
        ui::note(format!("{} events of the last 365 days", ui::number(rows.unsigned_abs())));
        source.close().await
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(&self.url()).await
    }

    /// The acts, in order.
    async fn play(&self) -> Result<(), Failure> {
        act("The tables, then the first tick: newest days first, within its budget.");
        self.call(&["init"]).await?;
        self.call(&["run", "--budget", "3s"]).await?;

        act("Backfill the year, and kill -9 the worker half-way.");
        let backfill =
            ["backfill", "entity_daily", "--order", "oldest-first", "--budget", BUDGET, "--yes"];
        self.kill(&backfill).await?;
        self.call(&["status"]).await?;

        act("The same backfill again: the dead worker's lease ends, nothing is done twice.");
        self.call(&backfill).await?;

        act("The application changes its past: refunds. Verify sees it ...");
        let day = (today() - Days::new(30)).date_naive().to_string();
        let refund = format!(
            "DELETE FROM events WHERE kind = 'purchase' \
             AND created_at >= '{day}T00:00:00Z' AND created_at < '{day}T00:00:00Z'::timestamptz + interval '1 day'"
        );
        let mut source = self.connect().await.map_err(|error| refused("connecting", &error))?;
        sqlx::query(AssertSqlSafe(refund))
            .execute(&mut source)
            .await
            .map_err(|error| refused("deleting the purchases", &error))?;
        self.call_expecting(&["verify", "--limit", "1"], 1).await?;

        act("... and a replay of that day puts it right.");
        let replay = ["replay", "entity_daily", "--slice", &day, "--reason", "refunds", "--yes"];
        self.call(&replay).await?;

        act("What the rollup table says.");
        let chart = chart::draw(&mut source).await.map_err(|error| refused("charting", &error))?;
        ui::print(chart);

        act("The proof: every number equals a GROUP BY over the source.");
        self.call(&["verify"]).await?;

        act(
            "Ten days of it at the pace that is set where nothing is set: at rest for 30 times as long as at work.",
        );
        self.set_default_pace()?;
        self.call(&["verify", "--sample", "10"]).await
    }

    /// Removes the settings that make the demo faster than an application's database would allow.
    fn set_default_pace(&self) -> Result<(), Failure> {
        let text =
            std::fs::read_to_string(&self.config).map_err(|error| broken("reading", error))?;
        let is_kept = |line: &&str| !line.starts_with("nice_ratio") && !line.starts_with("slots");
        let kept: Vec<&str> = text.lines().filter(is_kept).collect();
        std::fs::write(&self.config, kept.join("\n")).map_err(|error| broken("writing", error))
    }

    fn command(&self, arguments: &[&str]) -> Result<Command, Failure> {
        let program = std::env::current_exe().map_err(|error| broken("this program", error))?;
        ui::note(format!(
            "\n{}",
            ui::paint(Paint::Bold, format!("$ tallymark {}", arguments.join(" ")))
        ));
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(&self.config)
            .args(arguments)
            .envs(self.environment())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL_DYNAMODB", self.dynamo.endpoint()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", "demo".into()),
            ("AWS_SECRET_ACCESS_KEY", "demo".into()),
        ]
    }

    async fn call(&self, arguments: &[&str]) -> Result<(), Failure> {
        self.call_expecting(arguments, 0).await
    }

    async fn call_expecting(&self, arguments: &[&str], wanted: i32) -> Result<(), Failure> {
        let command = arguments.join(" ");
        let status =
            self.command(arguments)?.status().await.map_err(|error| broken(&command, error))?;
        if status.code() == Some(wanted) {
            return Ok(());
        }
        let ended = format!("ended with {status}, not with exit code {wanted}");
        match status.code() {
            Some(code) if code == Severity::Unreachable as i32 => Err(absent(&command, ended)),
            _ => Err(broken(&command, ended)),
        }
    }

    /// Starts a command, lets it work for a while, and kills it with SIGKILL.
    async fn kill(&self, arguments: &[&str]) -> Result<(), Failure> {
        let fail = |error| broken(&arguments.join(" "), error);
        let mut child: Child = self.command(arguments)?.spawn().map_err(fail)?;
        tokio::time::sleep(KILL_AFTER).await;
        let killed = child.try_wait().map_err(fail)?.is_none();
        child.kill().await.map_err(fail)?;
        ui::note(if killed {
            "\nkilled (SIGKILL): it had no chance to clean up"
        } else {
            "\nit was too quick to be killed"
        });
        Ok(())
    }

    /// Prints how to reach the servers, and waits for Ctrl-C.
    async fn keep(&self, global: &Global) {
        global.signals.await_one();
        ui::note("\nThe servers stay until Ctrl-C. In another terminal:\n");
        for (name, value) in self.environment() {
            ui::note(format!("  export {name}={value}"));
        }
        ui::note(format!("  tallymark --config {} status", self.config.display()));
        ui::note(format!("  psql {}", self.url()));
        global.interrupt.raised().await;
    }
}

fn act(title: &str) {
    ui::note(format!("\n{}", ui::paint(Paint::Title, title)));
}

fn today() -> DateTime<Utc> {
    crate::model::slice::Calendar::new(crate::model::slice::Width::DAY, chrono_tz::Tz::UTC)
        .containing(SystemClock.now())
        .start()
}
