//! Ticks and backfills of a function that fans out, with its configuration and its password stored
//! elsewhere, and with late rows in every case.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;
use tokio::runtime::Handle;

use super::names;
use super::scene::Scene;
use super::wire::{Wires, apart};
use crate::fanout::{Account, Fleet, backfill, quiesce, scheduled, this_hour};
use crate::kill::versions;
use crate::store::contradictions;
use crate::support::cli::{execute, lines};
use crate::support::kept::Kept;
use crate::support::sqs::Faults;

const HOURS: u32 = 30;

/// Longer than the work takes to end, even on a busy machine.
const QUIET_MAX: Duration = Duration::from_secs(600);

/// The kind of event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A scheduled one.
    Tick,
    /// One that begins a backfill.
    Backfill,
    /// A scheduled one while a backfill is under way.
    Sweep,
}

pub struct Fanned {
    account: Account,
    kept: Kept,
    event: Event,
    has_store: bool,
    runtime: Handle,
}

impl Fanned {
    /// `has_store`: the checkpoints are in the target.
    pub async fn new(event: Event, has_store: bool) -> Self {
        let store = if has_store { "[checkpoint]\nstore = \"postgres\"\n" } else { "" };
        let account = Account::keeping(HOURS, 2, "capture", Faults::default(), store).await;
        Self { account, kept: Kept::start(), event, has_store, runtime: Handle::current() }
    }
}

impl Fanned {
    /// Leaves a backfill under way that has sent nothing for a day.
    async fn leave_quiet(&self) {
        let checkpoints = self.account.place.checkpoints();
        let active = async || {
            let seen = checkpoints.watermark("hourly").await.unwrap();
            seen.backfill().map(str::to_owned)
        };
        if active().await.is_none() {
            self.account.function().invoke(&backfill(HOURS, true)).response();
        }
        let id = active().await.expect("a backfill");
        let mut quiet = checkpoints.backfill("hourly", &id).await.unwrap().expect("its item");
        quiet.sent_at = Some(quiet.started_at - TimeDelta::days(1));
        checkpoints.write_backfill(&mut quiet).await.unwrap();
    }
}

impl Scene for Fanned {
    fn name(&self) -> &'static str {
        match self.event {
            Event::Tick if self.has_store => "tick in the target",
            Event::Tick => "tick",
            Event::Backfill => "backfill",
            Event::Sweep => "sweep",
        }
    }

    fn lanes(&self) -> usize {
        // One after another, as the work of a tick depends on the previous one.
        1
    }

    fn has_store(&self) -> bool {
        self.has_store
    }

    async fn agrees(&self) {
        if self.has_store {
            let found = lines(&self.account.place.target_url, &contradictions("hourly")).await;
            assert_eq!(found, [""; 0], "rows, marker and checkpoint contradict each other");
        }
    }

    fn prepare(&self, case: usize) {
        let hours_ago = 2 + i64::try_from(case).unwrap() % i64::from(HOURS - 2);
        let late = (this_hour() - TimeDelta::hours(hours_ago)).to_rfc3339();
        let sql = format!("INSERT INTO events VALUES ('{late}', 'late', 1)");
        apart(execute(&self.account.place.source_url, &sql));
        match self.event {
            Event::Tick => {}
            // There may be none.
            Event::Backfill => drop(self.account.place.run(&["backfill", "cancel", "hourly"])),
            Event::Sweep => self.runtime.block_on(self.leave_quiet()),
        }
    }

    fn event(&self, _: usize) -> Value {
        match self.event {
            Event::Tick | Event::Sweep => scheduled(),
            Event::Backfill => backfill(HOURS, true),
        }
    }

    fn environment(&self, wires: &Arc<Wires>) -> Vec<(&'static str, String)> {
        let text = std::fs::read_to_string(self.account.place.config()).unwrap();
        let url = wires.postgres("source", &self.account.place.source_url);
        // Each invocation has separate wires.
        let [config, secret] =
            ["config", "url"].map(|it| format!("/tallymark/{it}/{:x}", fastrand::u64(..)));
        let address = format!("{{ secret = \"{secret}\" }}");
        self.kept.keep(&config, &text.replace("{ env = \"SOURCE_DATABASE_URL\" }", &address));
        self.kept.keep(&secret, &url);
        let mut environment = self.account.environment.clone();
        environment.retain(|(name, _)| {
            !matches!(*name, "TALLYMARK_CONFIG" | "SOURCE_DATABASE_URL")
                && !name.starts_with("AWS_")
        });
        let dynamo = environment_of(&self.account, "AWS_ENDPOINT_URL_DYNAMODB");
        let kept = wires.http(&self.kept.endpoint, names::of_service);
        environment.extend([
            ("TALLYMARK_CONFIG_PARAMETER", config),
            ("AWS_ENDPOINT_URL_SSM", format!("http://{kept}")),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", format!("http://{kept}")),
            (
                "AWS_ENDPOINT_URL_SQS",
                format!("http://{}", wires.http(&self.account.sqs.endpoint(), names::of_service)),
            ),
            (
                "AWS_ENDPOINT_URL_DYNAMODB",
                format!("http://{}", wires.http(&dynamo, names::of_dynamo)),
            ),
        ]);
        environment
    }

    async fn rerun(&self) {
        if self.event == Event::Backfill {
            self.account.place.run(&["backfill", "cancel", "hourly"]);
            self.account.function().invoke(&self.event(0)).response();
        }
        let fleet = Fleet::start(&self.account, 1, 0.0, Duration::from_millis(500));
        quiesce(&self.account, QUIET_MAX).await;
        fleet.end();
    }

    async fn versions(&self) -> Vec<String> {
        versions(&self.account.place).await
    }

    async fn is_done(&self) {
        assert_eq!(self.account.differences().await, "(0)");
    }
}

fn environment_of(account: &Account, name: &str) -> String {
    account.environment.iter().find(|(it, _)| *it == name).unwrap().1.clone()
}
