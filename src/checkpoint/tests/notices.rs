//! The item of notices: one writer after another.

use futures_util::future::join_all;

use super::on_each_store;

#[tokio::test]
async fn of_workers_that_saw_the_same_notices_one_writes() {
    on_each_store(async |fixture| {
        let store = &fixture.checkpoints;
        for round in 0..3_u64 {
            let seen = store.notices().await.unwrap();
            let write = |worker: u64| store.keep_notices(&seen, format!("{round} by {worker}"));
            let written = join_all((0..10).map(write)).await;
            let written: Vec<_> = written.into_iter().filter_map(Result::unwrap).collect();
            assert_eq!(written, [store.notices().await.unwrap()]);
        }
    })
    .await;
}
