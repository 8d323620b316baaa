//! A table or view of the application.

use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Side, Tx};
use crate::model::rollup::Rollup;
use crate::source::reading::expressions::{self, Proof};
use crate::source::reading::first_row::{self, SourceStart};
use crate::source::reading::shape::{self, Shape, ShapeError};
use crate::source::settle::{self, Settled, Wait};
use crate::source::{Answer, Servers, SliceJob, Source};

/// A table or view in the application's database, where `late` says how changes are noticed.
#[derive(Debug)]
pub(crate) struct Table;

impl Source for Table {
    fn feeds(&self, rollup: &Rollup) -> bool {
        rollup.finer.is_none()
    }

    fn side(&self) -> Side {
        Side::Source
    }

    fn shape<'a>(
        &'a self,
        servers: Servers<'a>,
        rollup: &'a Rollup,
    ) -> Answer<'a, Shape, ShapeError> {
        Box::pin(async move {
            let begin = servers.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name);
            let mut tx = begin.await?;
            let shape = shape::inspect(&mut tx, rollup, servers.is_one).await?;
            tx.rollback().await?;
            Ok(shape)
        })
    }

    fn prove<'a>(
        &'a self,
        servers: Servers<'a>,
        rollup: &'a Rollup,
    ) -> Answer<'a, Proof, ShapeError> {
        Box::pin(async move {
            let begin = servers.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &rollup.name);
            let mut tx = begin.await?;
            let proof = expressions::prove(&mut tx, rollup).await?;
            tx.rollback().await?;
            Ok(proof)
        })
    }

    fn has_beginning(&self) -> bool {
        true
    }

    fn first_row<'a>(
        &'a self,
        tx: &'a mut Tx,
        rollup: &'a Rollup,
        shape: &'a Shape,
    ) -> Answer<'a, Option<SourceStart>> {
        Box::pin(first_row::find(tx, rollup, shape))
    }

    fn settle<'a>(
        &'a self,
        tx: &'a mut Tx,
        job: SliceJob<'a>,
        wait: Wait<'a>,
    ) -> Answer<'a, Settled> {
        Box::pin(settle::settle(tx, job, wait))
    }

    fn settled_by_default(&self) -> &'static str {
        "grace"
    }
}
