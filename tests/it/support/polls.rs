//! Work that is killed at an await of its own: it is dropped, with its connections.

use std::future::Future;
use std::iter;
use std::pin::{Pin, pin};
use std::task::Poll;

/// More polls than any work of the tests has.
const POLLS_MAX: usize = 5_000;

/// The numbers of polls after which a loop kills its work: from `first` on, each `step()` more than the one before it.
/// The loop ends with the work that is not killed.
///
/// # Panics
///
/// If the loop goes on, as then no work ends as the test expects.
pub fn sweep(first: usize, mut step: impl FnMut() -> usize) -> impl Iterator<Item = usize> {
    iter::successors(Some(first), move |polls| Some(polls + step())).inspect(|polls| {
        assert!(*polls < POLLS_MAX, "no work ended as expected before {polls} polls")
    })
}

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
