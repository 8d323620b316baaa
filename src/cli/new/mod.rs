//! `tallymark new`: a configuration for a live database, from its catalogue and statistics.
//!
//! It reads the catalogue, and the first and the last time of one table, in bounded read-only
//! transactions. [`choose`] decides from these facts alone.

mod ask;
pub(super) mod catalogue;
mod choose;
mod next;
mod propose;
#[cfg(test)]
mod tests;
mod words;
pub(super) mod write;

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;

use super::{Failure, Global, ui};
use crate::clients::address::{Address, DatabaseUrl};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Db, Side};
use crate::config::{SCHEMA_DEFAULT, StoreKind, json_schema, parse_table};
use crate::model::hint::Fault;
use crate::model::slice::Width;
use crate::model::sql;
use crate::model::text::nearest;
use crate::work::worker::{Severity, WorkError};

use catalogue::{CatalogueServer, CatalogueTable};
use choose::CountableTable;
use propose::{PassedOver, Proposal};
use write::SCHEMA_FILE;

/// The name of the work in `pg_stat_activity`.
const LABEL: &str = "new";

/// Write a configuration for a live database, from its catalogue and statistics.
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The file to write [default: that of --config]
    #[arg(value_name = "FILE")]
    place: Option<PathBuf>,
    /// Ask nothing, and take what seems best
    #[arg(long, short)]
    yes: bool,
    /// The table to count, as schema.name
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// The width of a slice, such as "1 day"
    #[arg(long, value_name = "WIDTH")]
    slice: Option<Width>,
    /// Where checkpoints are kept
    #[arg(long, value_name = "STORE",
          value_parser = PossibleValuesParser::new(StoreKind::ALL.map(StoreKind::word)))]
    store: Option<String>,
    /// The environment variable with the database's address
    #[arg(long, value_name = "NAME", default_value = "DATABASE_URL")]
    source_env: String,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
}

impl NewArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let file = self.place.as_ref().unwrap_or(&global.file).clone();
        if file.exists() && !self.force {
            let message = format!("{} exists already", file.display());
            return Err(refuse(message, "pass --force to replace it, or name another file"));
        }
        if !self.yes && !ui::can_ask() {
            let message = "there is no terminal to ask questions at".to_owned();
            return Err(refuse(message, "pass --yes to take what seems best"));
        }
        let db = self.source()?;
        let (server, tables) = self.look(&db).await?;
        let candidates = self.candidates(&db, &tables).await?;
        let proposal = self.propose(&db, &file, (&server, &tables), &candidates).await?;
        db.close().await;
        let schema = self.write(&file, &proposal.text)?;
        self.report(global, (&file, &schema), &proposal);
        Ok(())
    }

    /// The database that the environment names.
    fn source(&self) -> Result<Db, Failure> {
        let name = &self.source_env;
        let value = std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or_else(|| {
            let message = format!("the environment variable {name} is not set or empty");
            let set = format!(
                "export {name}=postgres://user:password@host:5432/database, or name another variable \
                 with --source-env"
            );
            refuse(message, &set)
        })?;
        let url = DatabaseUrl::new(value).map_err(|fault| {
            Failure::usage(fault.within(format!("the environment variable {name}")))
        })?;
        let db = Db::new(&Address::Url(url), Side::Source, 1).map_err(WorkError::from)?;
        Ok(db.at_once())
    }

    /// The server's facts, and the tables that may be counted: the named one, or all.
    async fn look(&self, db: &Db) -> Result<(CatalogueServer, Vec<CatalogueTable>), Failure> {
        let only = self.table.as_deref().map(parse_table).transpose().map_err(|fault| {
            let name = self.table.as_deref().unwrap_or_default();
            Failure::usage(fault.rephrased(|facts| format!("--table: {name:?} {facts}")))
        })?;
        let look = async {
            let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, LABEL).await?;
            let server = catalogue::server(&mut tx, SCHEMA_DEFAULT).await?;
            let tables = catalogue::tables(&mut tx, only.as_ref()).await?;
            tx.rollback().await?;
            Ok::<_, WorkError>((server, tables))
        };
        Ok(look.await?)
    }

    /// The tables that can be counted, best first; at least one.
    async fn candidates<'t>(
        &self,
        db: &Db,
        tables: &'t [CatalogueTable],
    ) -> Result<Vec<CountableTable<'t>>, Failure> {
        let Some(named) = &self.table else {
            let candidates = choose::candidates(tables);
            return if candidates.is_empty() { Err(nothing(tables)) } else { Ok(candidates) };
        };
        let Some(table) = tables.first() else { return Err(unknown(db, named).await?) };
        Ok(vec![usable(table)?])
    }

    /// Writes the file, and the schema beside it unless there is one.
    fn write(&self, file: &Path, text: &str) -> Result<PathBuf, Failure> {
        let schema = file.with_file_name(SCHEMA_FILE);
        let put = |path: &Path, text: &str, replaces: bool| {
            let mut options = std::fs::File::options();
            options.write(true).truncate(replaces);
            let opened = if replaces { options.create(true) } else { options.create_new(true) };
            let written = opened
                .open(path)
                .and_then(|mut opened| std::io::Write::write_all(&mut opened, text.as_bytes()));
            written.map_err(|error| {
                Failure::of(
                    Severity::Failed,
                    format!("{} cannot be written: {error}", path.display()),
                )
            })
        };
        put(file, text, self.force)?;
        if self.force || !schema.exists() {
            put(&schema, &format!("{:#}\n", json_schema()), true)?;
        }
        Ok(schema)
    }

    fn report(&self, global: &Global, (file, schema): (&Path, &Path), proposal: &Proposal) {
        let Proposal { draft, notes, index, passed_over, .. } = proposal;
        let next = next::commands(draft, index, self, file);
        let document = json!({
            "file": file.to_string_lossy(),
            "schema_file": schema.to_string_lossy(),
            "rollup": draft.name,
            "table": write::written(&draft.from),
            "time": draft.time,
            "start": draft.start,
            "slice": draft.slice.to_string(),
            "group_by": draft.group_by,
            "measures": draft.measures.iter().map(|(name, ..)| name).collect::<Vec<_>>(),
            "store": draft.store.word(),
            "passed_over": passed_over,
            "notes": notes,
            "next": next,
        });
        global.print(&document, || {
            let mut lines = vec![format!(
                "{}: {} counts {} by {}, in slices of {}",
                file.display(),
                draft.name,
                draft.from,
                draft.time,
                draft.slice
            )];
            lines.extend(passed_over.iter().map(PassedOver::text));
            lines.extend(notes.iter().map(|note| ui::wrapped(&format!("note: {note}"), 6)));
            lines.push("next:".to_owned());
            lines.join("\n")
        });
        if !global.json {
            // A folded line would be two commands.
            ui::verbatim(next.iter().map(|it| format!("  {it}")).collect::<Vec<_>>().join("\n"));
        }
    }
}

/// A refusal with its remedy.
fn refuse(message: String, remedy: &str) -> Failure {
    Failure::usage(Fault::new(message).remedy(remedy))
}

/// Why none of the tables can be counted.
fn nothing(tables: &[CatalogueTable]) -> Failure {
    let readable = tables.iter().filter(|table| table.is_readable).count();
    if tables.is_empty() {
        let message = "this role sees no table of an application in this database".to_owned();
        return refuse(message, "give the address of the application's database");
    }
    if readable == 0 {
        let message = format!("this role may read none of {}", ui::counted(tables.len(), "table"));
        let grant = format!("as its owner: GRANT SELECT ON {} TO …", sql::table(&tables[0].name));
        return refuse(message, &grant);
    }
    let filtered = tables.iter().find(|table| table.is_readable && table.is_filtered);
    if let Some(table) = filtered.filter(|table| CountableTable::of(table).is_some()) {
        return hidden(table);
    }
    let message = format!(
        "none of {} has a time column that this role may read",
        ui::counted(readable, "table")
    );
    refuse(message, "name a table or view with a timestamptz, timestamp or date by --table")
}

/// The named table, if it can be counted.
fn usable(table: &CatalogueTable) -> Result<CountableTable<'_>, Failure> {
    let name = &table.name;
    if !table.is_readable {
        let grant = format!("as its owner: GRANT SELECT ON {} TO …", sql::table(name));
        return Err(refuse(format!("this role may not read {name}"), &grant));
    }
    if table.is_filtered {
        return Err(hidden(table));
    }
    CountableTable::of(table).ok_or_else(|| {
        let message = format!("{name} has no time column that this role may read");
        refuse(
            message,
            "name a table with a timestamptz, timestamp, date, or an integer such as at_ms",
        )
    })
}

/// Why a table cannot be counted of which this role sees some rows only.
fn hidden(table: &CatalogueTable) -> Failure {
    let message = format!("row-level security on {} hides rows from this role", table.name);
    refuse(message, "use a role with BYPASSRLS, or the table's owner")
}

/// Why there is no table `named`.
async fn unknown(db: &Db, named: &str) -> Result<Failure, Failure> {
    let look = async {
        let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, LABEL).await?;
        let tables = catalogue::tables(&mut tx, None).await?;
        tx.rollback().await?;
        Ok::<_, WorkError>(tables)
    };
    let tables = look.await?;
    let names: Vec<String> = tables.iter().map(|table| write::written(&table.name)).collect();
    let remedy = match nearest(named, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => "write schema.name exactly as PostgreSQL stores it".to_owned(),
    };
    Ok(refuse(
        format!("--table: there is no table or view {named:?} that this role can see"),
        &remedy,
    ))
}
