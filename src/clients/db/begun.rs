//! How many transactions this process has begun on a server, so that they can be told from those of
//! others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count that is shared with its [`Db`](super::Db).
#[derive(Clone, Debug, Default)]
pub(crate) struct Begun(Arc<AtomicU64>);

impl Begun {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The transactions so far.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate is made of it")]
    pub(crate) fn so_far(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64
    }
}
