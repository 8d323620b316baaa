//! Remembers during a tick that a server was out of reach, so that it is contacted only once.

use std::sync::{Arc, Mutex, PoisonError};

use super::{DbError, DbErrorKind};

/// The error found, kept while a guard exists.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Mutex<OnceState>>);

#[derive(Debug, Default)]
struct OnceState {
    /// Number of live guards.
    guards: usize,
    found: Option<DbError>,
}

/// While this guard lives, a server found out of reach is not contacted again.
#[derive(Debug)]
#[must_use]
pub(crate) struct Once(Memory);

impl Memory {
    pub(super) fn begin(&self) -> Once {
        let mut state = self.state();
        state.guards += 1;
        // The finding of an earlier guard is outdated.
        state.found = None;
        drop(state);
        Once(self.clone())
    }

    /// Fails as the last attempt did, if that is remembered.
    pub(super) fn recall(&self) -> Result<(), DbError> {
        self.state().found.clone().map_or(Ok(()), Err)
    }

    /// Records why no transaction could begin.
    pub(super) fn keep(&self, error: &DbError) {
        let mut state = self.state();
        let is_down = matches!(error.kind(), DbErrorKind::Unreachable | DbErrorKind::Login);
        if is_down && state.guards > 0 {
            state.found = Some(error.clone());
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, OnceState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.guards -= 1;
        if state.guards == 0 {
            state.found = None;
        }
    }
}
