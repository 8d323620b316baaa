//! The request to stop: workers give back their slices and start nothing more.
//!
//! It is checked wherever a pause is, before every slice and chunk, and ends rests and waits.
//! Running statements are cancelled on their server, as a closed connection alone may leave them
//! running.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::checkpoint::Checkpoints;
use crate::clients::db::Db;
use crate::model::clock::Clock;

/// After this time a server that did not answer the cancellation is left to notice the closed
/// connection.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// A cancelled statement, or a commit that was under way, has ended within this time.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Raised once, seen by all clones.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<InterruptState>);

#[derive(Debug)]
struct InterruptState {
    raised: watch::Sender<bool>,
    /// Slices in work.
    busy: AtomicUsize,
    /// Whether giving back one of them failed.
    is_left: AtomicBool,
    /// The servers whose statements are cancelled.
    servers: Mutex<Vec<Db>>,
    /// The stores of the workers.
    stores: Mutex<Vec<Checkpoints>>,
}

impl Default for InterruptState {
    fn default() -> Self {
        let (raised, _) = watch::channel(false);
        Self {
            raised,
            busy: AtomicUsize::new(0),
            is_left: AtomicBool::new(false),
            servers: Mutex::default(),
            stores: Mutex::default(),
        }
    }
}

/// Work that must be given back before the end.
#[derive(Debug)]
pub(crate) struct Busy(Arc<InterruptState>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Interrupt {
    /// When raised, also cancels the statements on `server`.
    pub(crate) fn cancels(&self, server: &Db) {
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner).push(server.clone());
    }

    /// [`Interrupt::close`] also closes the connections to `store`.
    pub(crate) fn closes(&self, store: &Checkpoints) {
        self.0.stores.lock().unwrap_or_else(PoisonError::into_inner).push(store.clone());
    }

    /// Closes the idle connections of the workers that share it, once their work has ended. A
    /// process that lives on would keep them for a minute otherwise.
    pub(crate) async fn close(&self) {
        let servers =
            std::mem::take(&mut *self.0.servers.lock().unwrap_or_else(PoisonError::into_inner));
        let stores =
            std::mem::take(&mut *self.0.stores.lock().unwrap_or_else(PoisonError::into_inner));
        let closed = async {
            join_all(servers.iter().map(Db::close)).await;
            join_all(stores.iter().map(Checkpoints::close)).await;
        };
        // A connection that is dropped ends too.
        let _ = tokio::time::timeout(CANCEL_TIMEOUT, closed).await;
    }

    /// Whether the stop was requested.
    #[must_use]
    pub(crate) fn is_raised(&self) -> bool {
        *self.0.raised.borrow()
    }

    /// Waits for the request to stop.
    pub(crate) async fn raised(&self) {
        // The sender lives as long as this.
        let _ = self.0.raised.subscribe().wait_for(|raised| *raised).await;
    }

    /// Sleeps, at most until work is to end.
    pub(crate) async fn sleep(&self, clock: &dyn Clock, time: Duration) {
        tokio::select! {
            () = clock.sleep(time) => {}
            () = self.raised() => {}
        }
    }

    /// Requests the stop, and cancels the running statements.
    pub(crate) async fn raise(&self) {
        self.0.raised.send_replace(true);
        let servers = self.0.servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let cancelled = join_all(servers.iter().map(Db::cancel_running));
        if tokio::time::timeout(CANCEL_TIMEOUT, cancelled).await.is_err() {
            tracing::info!("a server did not accept the cancellation; its connections are closed");
        }
    }

    /// Marks work as under way until the result is dropped.
    pub(crate) fn busy(&self) -> Busy {
        self.0.busy.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(&self.0))
    }

    /// Records that a slice could not be given back. The process then reports that its lease must
    /// run out.
    pub(crate) fn leave(&self) {
        self.0.is_left.store(true, Ordering::SeqCst);
    }

    /// Whether a slice could not be given back, or is still to be given back.
    #[must_use]
    pub(crate) fn has_left(&self) -> bool {
        self.is_busy() || self.0.is_left.load(Ordering::SeqCst)
    }

    /// Whether work is under way that must be given back.
    #[must_use]
    pub(crate) fn is_busy(&self) -> bool {
        self.0.busy.load(Ordering::SeqCst) > 0
    }
}
