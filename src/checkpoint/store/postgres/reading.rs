//! Reads that share one transaction, such as those of a tick that finds nothing due.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::postgres::PgRow;

use super::value::from_row;
use super::{LABEL, Postgres, STATEMENT_TIMEOUT};
use crate::checkpoint::store::{Item, StoreError};
use crate::clients::db::{Access, Tx};

/// The transaction that reads share.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Reads>>);

#[derive(Debug, Default)]
enum Reads {
    /// Each has its own.
    #[default]
    Apart,
    /// They share this one, begun for that access. `None`: it has yet to begin, or a read uses it
    /// now.
    Together(Option<Tx>, Access),
}

impl Shared {
    /// Lets reads share a transaction from here on.
    pub(super) fn begin(&self, may_write: bool) {
        let access = if may_write { Access::ReadWrite } else { Access::ReadOnly };
        *self.lock() = Reads::Together(None, access);
    }

    /// Lets each read have its own transaction again. Returns the one that they shared.
    pub(super) fn end(&self) -> Option<Tx> {
        match std::mem::take(&mut *self.lock()) {
            Reads::Together(tx, _) => tx,
            Reads::Apart => None,
        }
    }

    /// The transaction for the next read, if it shares one. Where that is
    /// `None`, it has to begin it.
    pub(super) fn take(&self) -> Option<(Option<Tx>, Access)> {
        match &mut *self.lock() {
            Reads::Together(tx, access) => Some((tx.take(), *access)),
            Reads::Apart => None,
        }
    }

    /// Keeps the transaction for the next read, unless they have ended meanwhile.
    pub(super) fn keep(&self, tx: Tx) {
        if let Reads::Together(place @ None, _) = &mut *self.lock() {
            *place = Some(tx);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Reads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Postgres {
    pub(super) async fn rows(
        &self,
        operation: &'static str,
        sql: String,
    ) -> Result<Vec<Item>, StoreError> {
        let together = match self.reading.take() {
            Some((tx, access)) => self.read_in(tx, access, operation, &sql).await,
            None => None,
        };
        let rows = match together {
            Some(rows) => rows,
            None => self.run(Access::ReadOnly, operation, sql).await?,
        };
        let found = rows.iter().map(from_row).collect::<Result<_, _>>();
        found.map_err(|error| self.unreadable(operation, error))
    }

    /// Reads in the shared transaction, which may have to begin. `None`: it cannot serve, as when the
    /// server has ended it meanwhile.
    async fn read_in(
        &self,
        tx: Option<Tx>,
        access: Access,
        doing: &'static str,
        sql: &str,
    ) -> Option<Vec<PgRow>> {
        let mut tx = match tx {
            Some(tx) => tx,
            None => self.db.begin(access, STATEMENT_TIMEOUT, LABEL).await.ok()?,
        };
        let rows = tx.rows(doing, sql.to_owned()).await.ok()?;
        self.reading.keep(tx);
        Some(rows)
    }

    /// Runs statements at the end of the shared transaction, and commits it.
    pub(super) async fn write_shared(&self, sql: &str) -> Result<Option<Vec<PgRow>>, StoreError> {
        const DOING: &str = "tell readers";
        let Some((Some(mut tx), Access::ReadWrite)) = self.reading.take() else {
            return Ok(None);
        };
        let written = async {
            let rows = tx.ask(DOING, sql.to_owned()).await?;
            tx.commit().await.map(|()| rows)
        };
        written.await.map(Some).map_err(|error| self.error(DOING, error))
    }
}
