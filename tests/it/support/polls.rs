//! Work that is killed at an await of its own: it is dropped, with its connections.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;

/// Polls this many times. Returns the result if it ended.
pub async fn polled<F: Future>(work: &mut Pin<&mut F>, polls: usize) -> Option<F::Output> {
    let mut polled = 0;
    std::future::poll_fn(|context| {
        polled += 1;
        if polled > polls {
            return Poll::Ready(None);
        }
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// The result of `work` if it ends within this many polls. Otherwise it is dropped.
pub async fn killed<F: Future>(work: F, polls: usize) -> Option<F::Output> {
    polled(&mut pin!(work), polls).await
}
