//! The table to count: the best one whose file passes `check`.

use std::path::Path;

use serde::Serialize;

use super::catalogue::{self, CatalogueServer, CatalogueTable, TimeExtent};
use super::choose::{self, CountableTable, Proposed};
use super::{LABEL, NewArgs, ask, next, nothing, refuse, write};
use crate::cli::{Failure, ui};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Db, DbError, DbErrorKind};
use crate::config::{Config, SCHEMA_DEFAULT, StoreKind};
use crate::model::hint::Fault;
use crate::work::worker::{Severity, WorkError};

/// Each table that is tried costs a few questions to the server.
const TRIED_MAX: usize = 20;

/// What was found about the chosen table, and what follows from it.
pub(super) struct Proposal {
    pub(super) draft: Proposed,
    pub(super) text: String,
    pub(super) passed_over: Vec<PassedOver>,
    pub(super) notes: Vec<String>,
    /// The statements that create a missing index.
    pub(super) index: Vec<String>,
}

/// A table that seemed better than the chosen one, and fails its check.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PassedOver {
    table: String,
    #[serde(flatten)]
    why: Fault,
}

impl PassedOver {
    /// The warning about it.
    pub(super) fn text(&self) -> String {
        let why = self.why.clone().at(format!("warning: {} was passed over", self.table));
        ui::hinted(&why, 6)
    }
}

impl NewArgs {
    /// The proposal for the best table that passes its check. If none does, the one for the best
    /// table whose only fault is the missing index that a note names.
    pub(super) async fn propose(
        &self,
        db: &Db,
        file: &Path,
        (server, tables): (&CatalogueServer, &[CatalogueTable]),
        candidates: &[CountableTable<'_>],
    ) -> Result<Proposal, Failure> {
        let is_asked = !self.yes && self.table.is_none();
        let asked = is_asked.then(|| ask::table(candidates)).transpose()?;
        let looked_at = asked.map_or(candidates, std::slice::from_ref);
        let (mut passed_over, mut unindexed, mut unfit) = (Vec::new(), None, None);
        for candidate in looked_at.iter().take(TRIED_MAX) {
            let why = match self.tried(db, file, (server, tables), candidate).await {
                Ok((proposal, None)) => return Ok(Proposal { passed_over, ..proposal }),
                Ok((proposal, Some(why))) => {
                    let passed_over = passed_over.clone();
                    unindexed.get_or_insert(Proposal { passed_over, ..proposal });
                    why
                }
                Err(failure) if failure.severity == Severity::Usage => {
                    let failure = unfit.get_or_insert(failure);
                    Fault::new(&failure.message).remedy_if_known(failure.hint.as_deref())
                }
                Err(failure) => return Err(failure),
            };
            passed_over.push(PassedOver { table: write::written(&candidate.table.name), why });
        }
        unindexed.ok_or_else(|| unfit.unwrap_or_else(|| nothing(tables)))
    }

    /// The proposal for one table, and why the plan guard would refuse its slices.
    async fn tried(
        &self,
        db: &Db,
        file: &Path,
        (server, tables): (&CatalogueServer, &[CatalogueTable]),
        candidate: &CountableTable<'_>,
    ) -> Result<(Proposal, Option<Fault>), Failure> {
        let range = range(db, candidate).await?;
        let CountableTable { table, time, .. } = candidate;
        if !choose::is_plausible(time, range) {
            let message = format!(
                "{}: `{}` counts neither seconds nor milliseconds since 1970",
                table.name, time.name
            );
            let remedy = "name another table, or a view with a time column, by --table";
            return Err(refuse(message, remedy));
        }
        let slice = match self.slice {
            Some(slice) => slice,
            None if self.yes => candidate.width(range, server.now),
            None => ask::slice(candidate.width(range, server.now))?,
        };
        let store = match self.store.as_deref().and_then(StoreKind::of) {
            Some(store) => store,
            None if self.yes => StoreKind::Postgres,
            None => ask::store()?,
        };
        let draft = choose::draft(candidate, range, server, (slice, store));
        let text = write::file(&draft, &self.source_env, SCHEMA_DEFAULT);
        // Read as every command will read it, and compared with the source as `check` does.
        let config = Config::parse(file, &text, &|name: &str| std::env::var(name).ok())?;
        let next::Proof { mut notes, index, refusal } = next::prove(db, &config.rollups[0]).await?;
        notes.extend(next::notes(candidate, range, server, tables));
        Ok((Proposal { draft, text, passed_over: Vec::new(), notes, index }, refusal))
    }
}

/// The first and the last value of the time column. Nothing is known where the look took too long.
async fn range(db: &Db, candidate: &CountableTable<'_>) -> Result<TimeExtent, Failure> {
    let CountableTable { table, time, .. } = candidate;
    let look = async {
        let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, LABEL).await?;
        let range = catalogue::range(&mut tx, &table.name, time).await?;
        tx.rollback().await?;
        Ok::<_, DbError>(range)
    };
    match look.await {
        Ok(range) => Ok(range),
        Err(error) if error.kind() == DbErrorKind::Cancelled => Ok(TimeExtent::default()),
        Err(error) => Err(WorkError::from(error).into()),
    }
}
