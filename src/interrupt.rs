//! The wish to end: work gives back what it has under way and begins nothing more.
//!
//! It is looked at wherever a pause is, before every slice and chunk, and ends rests and waits. The statements that
//! run are cancelled on their server, which a closed connection alone would not always do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::db::Db;

/// Why work ended, in reports and checkpoints.
pub const REASON: &str = "interrupted";

/// A server that does not take the cancellation in this time is left to notice the closed connection.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// A statement that was cancelled has ended by then, and so has a commit that was under way.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Told once, heard by all clones.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    raised: watch::Sender<bool>,
    /// Slices that are being worked on.
    busy: AtomicUsize,
    /// Whether one of them could not be given back.
    is_left: AtomicBool,
    /// The servers whose statements are cancelled.
    servers: Mutex<Vec<Db>>,
}

impl Default for Shared {
    fn default() -> Self {
        let (raised, _) = watch::channel(false);
        Self {
            raised,
            busy: AtomicUsize::new(0),
            is_left: AtomicBool::new(false),
            servers: Mutex::default(),
        }
    }
}

/// Something is under way that has to be given back.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Interrupt {
    /// Cancels the statements of `server`, too, when it is raised.
    pub fn cancels(&self, server: &Db) {
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner).push(server.clone());
    }

    /// Whether work is to end.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        *self.0.raised.borrow()
    }

    /// Waits until work is to end.
    pub async fn raised(&self) {
        // The sender lives as long as this.
        let _ = self.0.raised.subscribe().wait_for(|raised| *raised).await;
    }

    /// Lets work end, and cancels the statements that run.
    pub async fn raise(&self) {
        self.0.raised.send_replace(true);
        let servers = self.0.servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let cancelled = join_all(servers.iter().map(Db::cancel_running));
        if tokio::time::timeout(CANCEL_TIMEOUT, cancelled).await.is_err() {
            tracing::info!("a server did not take the cancellation; its connections are closed");
        }
    }

    /// Marks that something is under way until the answer is dropped.
    pub(crate) fn busy(&self) -> Busy {
        self.0.busy.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(&self.0))
    }

    /// A slice could not be given back, which matters to who ends: its lease runs out.
    pub(crate) fn leave(&self) {
        self.0.is_left.store(true, Ordering::SeqCst);
    }

    /// Whether a slice could not be given back, or has not been yet.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.is_busy() || self.0.is_left.load(Ordering::SeqCst)
    }

    /// Whether something is under way that has to be given back.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.0.busy.load(Ordering::SeqCst) > 0
    }
}
