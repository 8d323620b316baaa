//! What is to be known about a proposal, and the commands that follow.

use std::path::Path;

use super::catalogue::{CatalogueServer, CatalogueTable, Seen, TimeExtent};
use super::choose::{CountableTable, Proposed};
use super::{LABEL, NewArgs};
use crate::cli::ui;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Db};
use crate::config::SCHEMA_DEFAULT;
use crate::model::clock::{Clock as _, SystemClock};
use crate::model::hint::{Fault, Hinted};
use crate::model::rollup::Rollup;
use crate::source::reading::plan_guard::{self, By, unindexed};
use crate::source::{self, Servers};
use crate::work::worker::WorkError;

/// The source's answer to a definition.
#[derive(Debug, Default)]
pub(super) struct Proof {
    pub(super) notes: Vec<String>,
    /// The statements that create a missing index.
    pub(super) index: Vec<String>,
    /// Why the plan guard would refuse the slices.
    pub(super) refusal: Option<Fault>,
}

/// Compares `rollup` with the source as `check` does: its columns, privileges and index.
pub(super) async fn prove(db: &Db, rollup: &Rollup) -> Result<Proof, WorkError> {
    let schema = SCHEMA_DEFAULT;
    let servers = Servers { source: db, target: db, is_one: true, schema, app: None };
    let shape = source::of(rollup).shape(servers, rollup).await?;
    let newest = rollup.newest(SystemClock.now());
    let slice = newest.unwrap_or_else(|| rollup.calendar.containing(rollup.start));
    let bounds = (slice.start(), slice.end());
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, LABEL).await?;
    let planned = plan_guard::inspect(&mut tx, rollup, &shape, bounds.0, bounds.1).await?;
    let missing = unindexed(&mut tx, (rollup, &shape), By::Time, bounds).await?;
    tx.rollback().await?;
    let refusal = planned.refusal;
    let Some(missing) = missing else {
        let notes = refusal.iter().map(Hinted::in_one_line).collect();
        return Ok(Proof { notes, refusal, ..Proof::default() });
    };
    let felt = match refusal {
        Some(_) => "without one every slice would read the whole table, so slices are refused",
        None => "which is felt once the table has grown",
    };
    let note = format!(
        "no index finds rows by `{}`, {felt}; as the table's owner: {}",
        shape.axis.column(),
        missing.remedy()
    );
    let index = missing.statements.into_iter().chain(missing.wholes);
    Ok(Proof { notes: vec![note], index: index.collect(), refusal })
}

/// What an operator should know of the table and of the server.
pub(super) fn notes(
    candidate: &CountableTable<'_>,
    range: TimeExtent,
    server: &CatalogueServer,
    tables: &[CatalogueTable],
) -> Vec<String> {
    let mut notes = Vec::new();
    let CountableTable { table, .. } = candidate;
    if range.seen == Seen::Rows && range.last.is_none() {
        notes.push(format!("{} has no rows yet, so columns are chosen by name", table.name));
    } else if !table.is_view && table.columns.iter().all(|column| column.distinct.is_none()) {
        notes.push(format!(
            "{0} has no statistics yet, so columns are chosen by name; after ANALYZE {0} this command \
             knows more",
            crate::model::sql::table(&table.name)
        ));
    }
    if server.is_read_only {
        notes.push(
            "this server takes no writes; give the primary's address, or a [target] of its own"
                .to_owned(),
        );
    } else if !server.may_create {
        notes.push(
            "this role may not create schemas here; `tallymark init --dry-run` prints the SQL for an \
             administrator"
                .to_owned(),
        );
    }
    let unreadable = tables.iter().filter(|table| !table.is_readable).count();
    if unreadable > 0 {
        let tables = ui::counted(unreadable, "table");
        notes.push(format!("this role may not read {tables}"));
    }
    notes
}

/// The commands that lead to a verified rollup, in their order.
pub(super) fn commands(
    draft: &Proposed,
    index: &[String],
    new: &NewArgs,
    file: &Path,
) -> Vec<String> {
    let file = file.to_string_lossy();
    let tallymark = match &*file {
        "tallymark.toml" => "tallymark".to_owned(),
        file => format!("tallymark --config {}", in_shell(file)),
    };
    let yes = if new.yes { " --yes" } else { "" };
    let name = &draft.name;
    let psql = index
        .iter()
        .map(|statement| format!("psql \"${}\" -c {}", new.source_env, in_shell(statement)));
    let ours = [
        format!("{tallymark} check"),
        format!("{tallymark} init"),
        format!("{tallymark} backfill {name}{yes}"),
        format!("{tallymark} verify {name}"),
        format!("{tallymark} run"),
    ];
    psql.chain(ours).collect()
}

/// `text` as one word of a shell.
fn in_shell(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-/=:".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
