//! A mirror's table, which rollups are computed from as from a table of the application. Its slices
//! are followed as those of a finer rollup.

use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Side, Tx};
use crate::model::rollup::Rollup;
use crate::model::sql::{ident, table};
use crate::source::reading::expressions::{self, Proof};
use crate::source::reading::shape::{self, Shape, ShapeError, catalogue};
use crate::source::{Answer, Servers, Source, of, things};

/// How slices over a mirror are settled: a slice is claimed after the mirror's slices in it.
const SETTLED_BY: &str = "mirror";

/// The table of a mirror, in the target. The worker that replaces one of its slices reopens those
/// that contain it.
#[derive(Debug)]
pub(crate) struct Mirrored;

impl Source for Mirrored {
    fn feeds(&self, rollup: &Rollup) -> bool {
        rollup.finer.as_ref().is_some_and(|finer| finer.mirror.is_some())
    }

    fn side(&self) -> Side {
        Side::Target
    }

    fn shape<'a>(
        &'a self,
        servers: Servers<'a>,
        rollup: &'a Rollup,
    ) -> Answer<'a, Shape, ShapeError> {
        Box::pin(async move {
            let mut tx = begin(servers, rollup, Access::ReadOnly).await?;
            let inspected = shape::inspect(&mut tx, rollup, true).await;
            tx.rollback().await?;
            // The mirror's definition has all that decides its rows.
            Ok(Shape { fingerprint: None, ..inspected? })
        })
    }

    fn prove<'a>(
        &'a self,
        servers: Servers<'a>,
        rollup: &'a Rollup,
    ) -> Answer<'a, Proof, ShapeError> {
        Box::pin(async move {
            let mut tx = begin(servers, rollup, Access::ReadWrite).await?;
            let proof = expressions::prove(&mut tx, rollup).await?;
            tx.rollback().await?;
            Ok(proof)
        })
    }

    fn settled_by_default(&self) -> &'static str {
        SETTLED_BY
    }

    fn reruns_after_loss(&self) -> Option<&'static str> {
        Some("slices of the mirror may have changed since")
    }

    /// A mirror's table has an index on the time of creation.
    fn assurance(&self, rollup: &Rollup) -> Option<String> {
        let finer = rollup.finer.as_ref()?;
        Some(format!("computed from the mirror `{}`, and again whenever that changes", finer.name))
    }
}

/// A transaction in which the mirror's table is there, to be rolled back.
async fn begin(servers: Servers<'_>, rollup: &Rollup, access: Access) -> Result<Tx, ShapeError> {
    let db = servers.target;
    let mut tx = db.begin(access, CATALOGUE_TIMEOUT, &rollup.name).await?;
    if let Some(finer) = &rollup.finer
        && catalogue(&mut tx, &rollup.from).await?.is_empty()
    {
        // Before `init`, PostgreSQL is shown the table that it will make.
        tx.rollback().await?;
        let columns = of(finer).shape(servers, finer).await?;
        tx = db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &rollup.name).await?;
        foresee(&mut tx, rollup, &columns).await?;
    }
    Ok(tx)
}

/// Makes the mirror's table for this transaction alone.
async fn foresee(tx: &mut Tx, rollup: &Rollup, mirror: &Shape) -> Result<(), ShapeError> {
    const DOING: &str = "looking at the mirror's table to be";
    let schema = rollup.from.schema.as_deref().unwrap_or_default();
    let columns = things::columns(mirror);
    let columns: Vec<String> =
        columns.iter().map(|(name, kind)| format!("{} {kind}", ident(name))).collect();
    tx.execute(DOING, format!("CREATE SCHEMA IF NOT EXISTS {}", ident(schema))).await?;
    let (name, columns) = (table(&rollup.from), columns.join(", "));
    tx.execute(DOING, format!("CREATE TABLE {name} ({columns})")).await?;
    Ok(())
}
