//! Reads that share one transaction, such as those of a tick that finds nothing due.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clients::db::Tx;

/// The transaction that reads share.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Reads>>);

#[derive(Debug, Default)]
enum Reads {
    /// Each has its own.
    #[default]
    Apart,
    /// They share this one. `None`: it has yet to begin, or a read uses it now.
    Together(Option<Tx>),
}

impl Shared {
    /// Lets reads share a transaction from here on.
    pub(super) fn begin(&self) {
        *self.lock() = Reads::Together(None);
    }

    /// Lets each read have its own transaction again. Returns the one that they shared.
    pub(super) fn end(&self) -> Option<Tx> {
        match std::mem::take(&mut *self.lock()) {
            Reads::Together(tx) => tx,
            Reads::Apart => None,
        }
    }

    /// The transaction for the next read, if it shares one. `Some(None)`: it has to begin it.
    pub(super) fn take(&self) -> Option<Option<Tx>> {
        match &mut *self.lock() {
            Reads::Together(tx) => Some(tx.take()),
            Reads::Apart => None,
        }
    }

    /// Keeps the transaction for the next read, unless they have ended meanwhile.
    pub(super) fn keep(&self, tx: Tx) {
        if let Reads::Together(place @ None) = &mut *self.lock() {
            *place = Some(tx);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Reads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
