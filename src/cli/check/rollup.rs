//! One rollup: its definition, its tables, its calendar and its late changes.

use super::{Findings, Grade, index, lookups, size};
use crate::cli::ui;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT};
use crate::model::hint::Fault;
use crate::model::rollup::{Late, Rollup};
use crate::source::changes::{capture, consumers};
use crate::source::reading::expressions::Proof;
use crate::source::reading::shape::Shape;
use crate::source::reading::zones::Offsets;
use crate::source::{self, settle};
use crate::target::beside;
use crate::target::ddl::{self, DdlError};
use crate::work::identity::{self, is_unproven};
use crate::work::ready;
use crate::work::worker::{WorkError, Worker};

/// Compares the definition with source and target.
pub(super) async fn rollup(
    worker: &Worker,
    rollup: &Rollup,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    let subject = &rollup.name;
    let shape = ready::shape(worker, rollup).await?;
    definition(rollup, &shape, findings);
    proof(worker, rollup, findings).await?;
    let assurance = source::of(rollup).assurance(rollup);
    if assurance.is_none() {
        index::inspect(worker, rollup, &shape, findings).await?;
        zones(worker, rollup, &shape, findings).await?;
    }
    let mut tx = worker.target.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, subject).await?;
    match ddl::plan(&mut tx, &worker.target, rollup, &shape).await {
        Ok(missing) if missing.is_empty() => {
            let old = beside::plan(&mut tx, &worker.target, rollup, &shape).await;
            tx.rollback().await?;
            if rollup.live {
                index::live(worker, rollup, &shape, findings).await?;
            }
            readable(worker, rollup, old, findings).await?;
            match identity::identify_for_check(worker, rollup).await {
                Ok(()) => {}
                Err(error @ WorkError::Stranger(_)) => {
                    findings.trouble(subject, &error);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            writable(worker, rollup, &shape, findings).await?;
            outside(worker, rollup, findings).await?;
        }
        Ok(missing) => {
            tx.rollback().await?;
            let statements = findings.plan(missing);
            to_do(worker, rollup, statements, findings).await?;
        }
        Err(DdlError::Db(error)) => return Err(error.into()),
        Err(error) => findings.trouble(subject, &error.into()),
    }
    match size::inspect(worker, rollup, findings).await {
        // Wrong checkpoints are a finding of their own.
        Ok(()) | Err(WorkError::Checkpoint(_)) => {}
        Err(error) => return Err(error),
    }
    match assurance {
        None => late(worker, rollup, &shape, findings).await,
        Some(finding) => {
            findings.add(Grade::Good, subject, finding);
            Ok(())
        }
    }
}

/// What the definition reads, and what of it is approximate.
fn definition(rollup: &Rollup, shape: &Shape, findings: &mut Findings) {
    findings.add(
        Grade::Good,
        &rollup.name,
        format!(
            "{} can be read: {}, {}",
            rollup.from,
            ui::counted(shape.dimensions.len(), "dimension"),
            ui::counted(shape.fields.len(), "measure column"),
        ),
    );
    for measure in &rollup.measures {
        if let Some(error) = measure.kind.approximation() {
            let finding = format!("`{}` is approximate: {error}", measure.name);
            findings.add(Grade::Note, &rollup.name, finding);
        }
    }
}

/// Whether what readers have beside its table is there. `planned` would make it.
async fn readable(
    worker: &Worker,
    rollup: &Rollup,
    planned: Result<Vec<String>, DdlError>,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    match planned {
        Ok(missing) if missing.is_empty() => {}
        Ok(missing) => to_do(worker, rollup, missing.len(), findings).await?,
        Err(DdlError::Db(error)) => return Err(error.into()),
        Err(error) => findings.trouble(&rollup.name, &error.into()),
    }
    Ok(())
}

/// Whether slices can be written to its table.
async fn writable(
    worker: &Worker,
    rollup: &Rollup,
    shape: &Shape,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    let subject = &rollup.name;
    let registered = worker.target.check(rollup, shape, CATALOGUE_TIMEOUT).await?;
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
    Ok(())
}

/// Whether the values of its expressions can be relied on.
async fn proof(worker: &Worker, rollup: &Rollup, findings: &mut Findings) -> Result<(), WorkError> {
    let expressions = rollup.expressions().len();
    if expressions == 0 {
        return Ok(());
    }
    let expressions = ui::counted(expressions, "expression");
    let (grade, finding) = match source::prove(worker.servers(), rollup).await? {
        Proof::Proven => {
            (Grade::Good, Fault::new(format!("{expressions}: each changes only when its row does")))
        }
        Proof::OnReplica => (
            Grade::Note,
            Fault::new(format!(
                "{expressions}: a replica cannot say whether each changes only when its row does"
            ))
            .remedy("run `tallymark check` once with the primary's address"),
        ),
    };
    findings.add(grade, &rollup.name, finding);
    Ok(())
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
        // Those that it shares with another rollup are told there.
        Ok(()) | Err(WorkError::Checkpoint(_)) if statements == 0 => {}
        // Wrong checkpoints are a finding of their own.
        Ok(()) | Err(WorkError::Checkpoint(_)) => {
            let are = if statements == 1 { "is" } else { "are" };
            let statements = ui::counted(statements, "statement");
            let finding =
                Fault::new(format!("{statements} of `tallymark init` {are} still to run"));
            let remedy =
                "run `tallymark init`; `tallymark init --dry-run` prints what it would run";
            findings.add(Grade::ToDo, &rollup.name, finding.remedy(remedy));
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
        let finding = Fault::new(format!(
            "the calendar has changed from {} to {}, so every slice is computed again",
            seen.calendar().unwrap_or_default(),
            rollup.calendar_words()
        ));
        let remedy = "run `tallymark init`, which says how many";
        findings.add(Grade::Note, subject, finding.remedy(remedy));
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
    if let Some(rows) = crate::cli::outside::find(worker, rollup).await? {
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
            )
            .into(),
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
            )
            .into(),
        ),
        Late::Column(column) => (
            Grade::Note,
            Fault::new(format!(
                "late: inserts and updates are found by `{}` only of transactions that last no \
                 longer than the grace ({}), as this role cannot see when others began",
                column.column,
                ui::duration(rollup.grace),
            ))
            .remedy("as a superuser, GRANT pg_read_all_stats to the role"),
        ),
    };
    if rollup.late == Late::Capture {
        lookups::indexes(&mut tx, rollup, shape, findings).await?;
    }
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
