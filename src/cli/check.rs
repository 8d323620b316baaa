mod index;
mod state;

use std::sync::Arc;

use clap::Args;
use serde_json::json;
use sqlx::Row as _;

use super::ui::{self, Paint};
use super::{Failure, Global, rollups};
use crate::checkpoint::store::StoreError;
use crate::checkpoint::{CheckpointError, Checkpoints};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Db, DbError, Side};
use crate::config::Checkpoint;
use crate::model::clock::SystemClock;
use crate::model::not_now::Why;
use crate::model::rollup::{Late, Rollup};
use crate::source::changes::capture;
use crate::source::changes::consumers;
use crate::source::reading::shape::Shape;
use crate::source::reading::zones::Offsets;
use crate::source::{self, settle};
use crate::target::ddl::{self, DdlError};
use crate::target::readers;
use crate::work::identity::{self, is_unproven};
use crate::work::ready;
use crate::work::worker::{Severity, WorkError, Worker, store_db};

/// Look for problems before they are felt, each with its fix.
#[derive(Debug, Args)]
pub struct Check {
    /// Only this rollup
    rollup: Option<String>,
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Grade {
    Good,
    Note,
    ToDo,
    Bad,
}

/// The result of one check.
#[derive(Debug, serde::Serialize)]
struct Finding {
    grade: Grade,
    subject: String,
    finding: String,
    #[serde(skip)]
    severity: Option<Severity>,
}

/// Collects findings.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, grade: Grade, subject: &str, finding: impl Into<String>) {
        let severity = (grade == Grade::Bad).then_some(Severity::Usage);
        self.0.push(Finding { grade, subject: subject.into(), finding: finding.into(), severity });
    }

    /// Whether a step of `init` is still to do for `subject`.
    fn has_to_do(&self, subject: &str) -> bool {
        self.0.iter().any(|it| it.grade == Grade::ToDo && it.subject == subject)
    }

    fn trouble(&mut self, subject: &str, error: &WorkError) {
        let hint = error.hint().map_or_else(String::new, |hint| format!("; hint: {hint}"));
        let error_text = error.to_string();
        // The subject is already printed before it.
        let twice = [format!("rollup `{subject}`: "), format!("{subject} database: ")];
        let said = twice.iter().find_map(|begin| error_text.strip_prefix(begin));
        let finding = format!("{}{hint}", said.unwrap_or(&error_text));
        let subject = subject.into();
        let severity = Some(error.severity());
        self.0.push(Finding { grade: Grade::Bad, subject, finding, severity });
    }
}

impl Check {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let mut findings = Findings::default();
        let (worker, has_region) = worker(global, &mut findings).await?;
        let chosen = rollups(&worker, self.rollup.as_deref())?;
        let mut reached = source(&worker, &mut findings).await?;
        if !worker.target.is_source {
            let looked = server(&alone(&worker, Side::Target)?, true, &mut findings).await;
            reached &= looked.is_ok();
            if let Err(error) = looked {
                findings.trouble("target", &error.into());
            }
        }
        let has_store = has_region && checkpoints(&worker, &mut findings).await;
        for chosen in chosen.into_iter().filter(|_| reached) {
            match rollup(&worker, chosen, &mut findings).await {
                Ok(()) => {}
                // Already reported as the problem of the checkpoints.
                Err(WorkError::Checkpoint(_)) if !has_store => {}
                Err(error) => findings.trouble(&chosen.name, &error),
            }
        }
        if reached && let Err(error) = readers(&worker, &mut findings).await {
            findings.trouble("target", &error);
        }
        if !reached {
            let finding = "not looked at, as a server of theirs cannot be asked";
            findings.add(Grade::Note, "rollups", finding);
        }
        let findings = findings.0;
        global.print(&json!({ "findings": findings }), || text(&findings));
        let bad = findings.iter().filter(|finding| finding.grade == Grade::Bad);
        let worst = bad.clone().filter_map(|finding| finding.severity).max_by_key(|it| *it as u8);
        match worst {
            None if findings.iter().any(|finding| finding.grade == Grade::ToDo) => {
                ui::note("to do: run `tallymark init`");
                Ok(())
            }
            None => Ok(()),
            Some(severity) => Err(Failure::printed(
                severity,
                format!("{} to put right", ui::counted(bad.count(), "finding")),
            )),
        }
    }
}

/// A worker, and whether AWS has a region. Checks that need no region run in any case.
async fn worker(global: &Global, findings: &mut Findings) -> Result<(Worker, bool), Failure> {
    let config = global.config()?;
    let store = store_db(&config, 1).map_err(WorkError::from)?.at_once();
    let (checkpoints, has_region) = match Checkpoints::connect(&config.checkpoint, store).await {
        Ok(checkpoints) => (checkpoints, true),
        Err(error) => {
            findings.trouble("checkpoints", &error.into());
            let Checkpoint { table, failures_max, .. } = &config.checkpoint;
            (Checkpoints::nowhere(table, *failures_max), false)
        }
    };
    let worker = Worker::with_checkpoints(config, checkpoints, Arc::new(SystemClock), 1)?;
    Ok((worker.interrupted_by(global.interrupt.clone()), has_region))
}

/// Checks the source. `false`: it cannot be read, which is one finding.
async fn source(worker: &Worker, findings: &mut Findings) -> Result<bool, Failure> {
    let looked = server(&alone(worker, Side::Source)?, worker.target.is_source, findings).await;
    if let Err(error) = looked {
        findings.trouble("source", &error.into());
        return Ok(false);
    }
    if let Err(error) = load(worker, findings).await {
        findings.trouble("source", &error.into());
    }
    if let Err(error) = naps(worker, findings).await {
        findings.trouble("source", &error.into());
    }
    Ok(true)
}

/// Checks whether the configured readers can read.
async fn readers(worker: &Worker, findings: &mut Findings) -> Result<(), WorkError> {
    let configured = &worker.config.target.readers;
    if configured.is_empty() {
        return Ok(());
    }
    let (db, rollups) = (&worker.target.db, &worker.config.rollups);
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "check").await?;
    match readers::grants(&mut tx, &worker.target, configured, rollups).await? {
        Ok(missing) if missing.is_empty() => {
            let finding = format!("{} can read the rollup tables", configured.join(", "));
            findings.add(Grade::Good, "target", finding);
        }
        Ok(missing) => {
            let missing = ui::counted(missing.len(), "grant");
            let finding = format!("readers lack {missing}; `tallymark init` makes them");
            findings.add(Grade::ToDo, "target", finding);
        }
        Err(unknown) => findings.add(Grade::Bad, "target", unknown.to_string()),
    }
    Ok(tx.rollback().await?)
}

/// Checks the checkpoints' table. `false`: there is no readable one.
async fn checkpoints(worker: &Worker, findings: &mut Findings) -> bool {
    const SUBJECT: &str = "checkpoints";
    match worker.checkpoints.describe().await {
        Ok(summary) => {
            let finding = format!("table {} is {}", worker.checkpoints.table(), summary.status);
            findings.add(Grade::Good, SUBJECT, finding);
            return true;
        }
        // A step that is still to do, and no failure.
        Err(CheckpointError::Store(StoreError::NoTable { table })) => {
            let finding = format!("table {table} is not there yet; `tallymark init` makes it");
            findings.add(Grade::ToDo, SUBJECT, finding);
        }
        Err(error) => findings.trouble(SUBJECT, &error.into()),
    }
    false
}

/// A separate connection to one server. Two transactions on it have two backends only behind a
/// pooler.
fn alone(worker: &Worker, side: Side) -> Result<Db, WorkError> {
    let (source, target) = (&worker.config.source.url, &worker.config.target.url);
    let url = match side {
        Side::Source => source,
        Side::Target => target.as_ref().unwrap_or(source),
    };
    Ok(Db::new(url, side, 1)?.at_once())
}

/// Checks connection, version, TLS, pooler and state of one server. `writes` says whether Tallymark
/// writes to it.
async fn server(db: &Db, writes: bool, findings: &mut Findings) -> Result<(), DbError> {
    let subject = db.side().to_string();
    let question = "SELECT current_setting('server_version_num')::int AS version, \
         coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS tls, \
         current_user::text AS role, pg_backend_pid() AS pid, \
         host(inet_server_addr()) AS address, pg_is_in_recovery() AS replica";
    let mut pids = Vec::new();
    for round in 0..2 {
        let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "check").await?;
        let row = tx.row("looking at the server", question.into()).await?;
        let read = || {
            Ok::<_, sqlx::Error>((
                row.try_get::<i32, _>("version")?,
                row.try_get::<bool, _>("tls")?,
                row.try_get::<String, _>("role")?,
                row.try_get::<i32, _>("pid")?,
                row.try_get::<Option<String>, _>("address")?,
                row.try_get::<bool, _>("replica")?,
            ))
        };
        let (version, tls, role, pid, address, replica) =
            read().map_err(|source| tx.error("looking at the server", source))?;
        if round == 0 {
            state::inspect(&mut tx, &subject, writes, findings).await?;
        }
        tx.rollback().await?;
        pids.push(pid);
        if round > 0 {
            continue;
        }
        let (major, minor) = (version / 10_000, version % 10_000);
        let answer = format!("PostgreSQL {major}.{minor}, connected as {role}");
        if version < 130_000 {
            findings.add(
                Grade::Bad,
                &subject,
                format!("{answer}; PostgreSQL 13 or later is needed"),
            );
        } else {
            findings.add(Grade::Good, &subject, answer);
        }
        let (grade, finding) = encryption(tls, address.as_deref());
        findings.add(grade, &subject, finding);
        if replica {
            findings.add(
                Grade::Note,
                &subject,
                "a replica: the writers of the primary cannot be seen from here, so allow for its \
                 replay lag in `grace`",
            );
        }
    }
    if pids[0] != pids[1] {
        findings.add(
            Grade::Good,
            &subject,
            "behind a transaction pooler (two transactions had two backends); nothing here needs \
             a session",
        );
    }
    Ok(())
}

/// The readable signals of the governor, and its present decision.
async fn load(worker: &Worker, findings: &mut Findings) -> Result<(), DbError> {
    /// Rates need two samples this far apart.
    const BETWEEN: std::time::Duration = std::time::Duration::from_millis(1100);
    let governor = &worker.governor;
    let look = async || {
        let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "check").await?;
        let seen = governor.describe_load(&mut tx).await?;
        tx.rollback().await?;
        Ok::<_, DbError>(seen)
    };
    let (mut signals, mut why) = look().await?;
    if !signals.is_empty() {
        tokio::time::sleep(BETWEEN).await;
        (signals, why) = look().await?;
    }
    if why.is_none() {
        why = governor.throttled(&worker.source).await;
    }
    let settings = governor.settings();
    let (slots, nice) = (settings.slots, settings.nice_ratio);
    let mut finding = format!(
        "governor: at most {} at once, rests {nice} × as long as each took",
        ui::counted(slots as usize, "chunk")
    );
    finding.push_str(&match signals.is_empty() {
        true => "; no max_load is set".to_owned(),
        false => format!("; load now: {}", signals.join(", ")),
    });
    match why {
        None => findings.add(Grade::Good, "source", finding),
        Some(why @ Why::Unreadable(_)) => {
            findings.add(Grade::Bad, "source", format!("governor: {why}"));
        }
        Some(why) => findings.add(
            Grade::Note,
            "source",
            format!("{finding}; nothing would be read now: {why}"),
        ),
    }
    Ok(())
}

/// Checks whether statements can nap.
async fn naps(worker: &Worker, findings: &mut Findings) -> Result<(), DbError> {
    let settings = worker.governor.settings();
    if !settings.naps || settings.nice_ratio == 0.0 {
        return Ok(());
    }
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "check").await?;
    let question =
        "SELECT has_function_privilege('pg_catalog.pg_sleep(double precision)', 'EXECUTE')";
    let row = tx.row("looking at privileges", question.into()).await?;
    let may: bool = row.try_get(0).map_err(|source| tx.error("looking at privileges", source))?;
    tx.rollback().await?;
    if !may {
        findings.add(
            Grade::Bad,
            "source",
            "the role may not execute pg_sleep, in which statements rest; GRANT EXECUTE ON FUNCTION \
             pg_sleep(double precision) to it, or set naps = false in [source]",
        );
    }
    Ok(())
}

/// Compares the definition with source and target.
async fn rollup(
    worker: &Worker,
    rollup: &Rollup,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    let subject = &rollup.name;
    let shape = ready::shape(worker, rollup).await?;
    findings.add(
        Grade::Good,
        subject,
        format!(
            "{} can be read: {}, {}",
            rollup.from,
            ui::counted(shape.dimensions.len(), "dimension"),
            ui::counted(shape.fields.len(), "measure column"),
        ),
    );
    let assurance = source::of(rollup).assurance(rollup);
    if assurance.is_none() {
        index::inspect(worker, rollup, &shape, findings).await?;
        zones(worker, rollup, &shape, findings).await?;
    }
    let mut tx = worker.target.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, subject).await?;
    match ddl::plan(&mut tx, &worker.target, rollup, &shape).await {
        Ok(missing) if missing.is_empty() => {
            tx.rollback().await?;
            match identity::identify_for_check(worker, rollup).await {
                Ok(()) => {}
                Err(error @ WorkError::Stranger(_)) => {
                    findings.trouble(subject, &error);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            let registered = worker.target.check(rollup, &shape, CATALOGUE_TIMEOUT).await?;
            match registered.is_open(rollup) {
                Ok(()) => {
                    let finding = format!("{} is ready", worker.target.table(rollup));
                    findings.add(Grade::Good, subject, finding);
                }
                Err(closed) => findings.trouble(subject, &closed.into()),
            }
            if let Some(reason) = identity::unproven(worker, rollup) {
                let text = is_unproven(rollup, &reason);
                findings.trouble(subject, &WorkError::Usage(text));
            }
            outside(worker, rollup, findings).await?;
        }
        Ok(missing) => {
            tx.rollback().await?;
            to_do(worker, rollup, missing.len(), findings).await?;
        }
        Err(DdlError::Db(error)) => return Err(error.into()),
        Err(error) => findings.trouble(subject, &error.into()),
    }
    match assurance {
        None => late(worker, rollup, &shape, findings).await,
        Some(finding) => {
            findings.add(Grade::Good, subject, finding);
            Ok(())
        }
    }
}

/// The objects that `init` would still create. If the checkpoints belong to other tables, `init`
/// may not create anything.
async fn to_do(
    worker: &Worker,
    rollup: &Rollup,
    statements: usize,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    let fits = match identity::refuse_stranger(worker, rollup).await {
        Ok(()) => identity::refuse_gone(worker, rollup).await,
        refused => refused,
    };
    match fits {
        Err(error @ WorkError::Stranger(_)) => findings.trouble(&rollup.name, &error),
        // Wrong checkpoints are a finding of their own.
        Ok(()) | Err(WorkError::Checkpoint(_)) => {
            let are = if statements == 1 { "is" } else { "are" };
            let finding = format!(
                "{} of `tallymark init` {are} still to run; `init --dry-run` prints {}",
                ui::counted(statements, "statement"),
                if statements == 1 { "it" } else { "them" },
            );
            findings.add(Grade::ToDo, &rollup.name, finding);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Checks whether the table contains rows outside of the present calendar's slices.
async fn outside(
    worker: &Worker,
    rollup: &Rollup,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    let subject = &rollup.name;
    // Calendars are unknown without checkpoints, which have findings of their own.
    let Ok(seen) = ready::watermark(worker, rollup).await else { return Ok(()) };
    if seen.generation_for(rollup) != seen.generation() {
        let finding = format!(
            "the calendar has changed from {} to {}: every slice is computed again; `tallymark init` \
             says how many",
            seen.calendar().unwrap_or_default(),
            rollup.calendar_words()
        );
        findings.add(Grade::Note, subject, finding);
    }
    let shape = ready::shape(worker, rollup).await?.fingerprint.clone();
    if let Some((known, shape)) = seen.shape().zip(shape)
        && shape.has_changed_since(&known)
    {
        let finding = format!(
            "types, expressions, views or tables behind {} have changed since its slices were computed: \
             every slice is computed again, from the next tick on that has anything to do",
            rollup.from
        );
        findings.add(Grade::Note, subject, finding);
    }
    if let Some(rows) = super::outside::find(worker, rollup).await? {
        findings.add(Grade::Note, subject, rows.text());
    }
    Ok(())
}

/// How late changes are noticed, and whether that is possible.
async fn late(
    worker: &Worker,
    rollup: &Rollup,
    shape: &Shape,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    let subject = &rollup.name;
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, subject).await?;
    let (grade, finding) = match &rollup.late {
        Late::Grace => (
            Grade::Note,
            format!(
                "late = \"grace\": rows that become visible more than {} after their slice's end, \
                 and later changes, are found by {} only",
                ui::duration(rollup.grace),
                match rollup.lookback.len() {
                    0 => "replay or verify (there is no lookback)".to_owned(),
                    many => {
                        format!("lookback ({} of each slice)", ui::counted(many, "rerun"))
                    }
                },
            ),
        ),
        Late::Clock => (
            Grade::Good,
            "late = \"clock\": exact if the database stamps the rows and they never change".into(),
        ),
        Late::Capture => {
            let standing = capture::standing(&mut tx, rollup, shape).await?;
            if let Some(key) = &standing.key {
                let waiting = consumers::all(&mut tx, key).await?;
                for alarm in waiting.iter().filter_map(consumers::Consumer::alarm) {
                    findings.add(Grade::Bad, subject, alarm);
                }
            }
            match standing.problem {
                None => (Grade::Good, "late = \"capture\": every late change is marked".into()),
                // Before `init` it is only a further step.
                Some(problem) if standing.can_be_installed && findings.has_to_do(subject) => {
                    (Grade::ToDo, problem)
                }
                Some(problem) => (Grade::Bad, problem),
            }
        }
        Late::Column(column) if settle::sees_all(&mut tx).await? => (
            Grade::Good,
            format!(
                "late: inserts and updates are found by `{}`, if the database stamps it; deletes \
                 are not",
                column.column
            ),
        ),
        Late::Column(column) => (
            Grade::Note,
            format!(
                "late: inserts and updates are found by `{}` only of transactions that last no \
                 longer than the grace ({}), as this role cannot see when others began; GRANT \
                 pg_read_all_stats to it",
                column.column,
                ui::duration(rollup.grace),
            ),
        ),
    };
    tx.rollback().await?;
    findings.add(grade, subject, finding);
    Ok(())
}

/// Checks whether the server has the same rules of the zone as this program, over the whole
/// history.
async fn zones(
    worker: &Worker,
    rollup: &Rollup,
    shape: &Shape,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    let ahead = chrono::TimeDelta::days(366);
    let (start, end) = (rollup.start, worker.clock.now() + ahead);
    let axes = std::iter::once(&shape.axis).chain(shape.changes.as_ref());
    for comparison in axes.filter_map(|axis| Offsets::of_history(axis, start, end)) {
        let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let (_, _, zones) = settle::now_comparing(&mut tx, Some(&comparison)).await?;
        tx.rollback().await?;
        if let Err(mismatch) = zones {
            findings.add(Grade::Bad, &rollup.name, mismatch.to_string());
        }
    }
    Ok(())
}

fn text(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|finding| {
            let mark = match finding.grade {
                Grade::Good => ui::paint(Paint::Green, "ok  "),
                Grade::Note => ui::paint(Paint::Yellow, "note"),
                Grade::ToDo => ui::paint(Paint::Yellow, "todo"),
                Grade::Bad => ui::paint(Paint::Alarm, "bad "),
            };
            ui::wrapped(&format!("{mark}  {}: {}", finding.subject, finding.finding), 6)
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The finding about a connection to the server at `address`. `None`: a Unix socket.
fn encryption(tls: bool, address: Option<&str>) -> (Grade, &'static str) {
    let is_local = address.is_none_or(|address| address == "127.0.0.1" || address == "::1");
    match (tls, is_local) {
        (true, _) => (Grade::Good, "the connection is encrypted"),
        (false, true) => (Grade::Good, "not encrypted, but on this machine"),
        (false, false) => {
            (Grade::Note, "the connection is not encrypted; remove sslmode=disable from the URL")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_tells_of_a_connection_that_is_not_encrypted() {
        let said = |tls, address| {
            let (grade, finding) = encryption(tls, address);
            (
                matches!(grade, Grade::Note),
                finding.contains("not encrypted; remove sslmode=disable"),
            )
        };
        assert_eq!(said(false, Some("10.0.0.1")), (true, true));
        for (tls, address) in [(true, Some("10.0.0.1")), (false, Some("127.0.0.1")), (false, None)]
        {
            assert_eq!(said(tls, address), (false, false));
        }
    }
}
