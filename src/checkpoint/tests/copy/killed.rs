//! Copies that are killed between any two writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;

use super::super::super::item::key;
use super::super::super::store::{
    Cond, Created, Item, Key, Query, Store, StoreAnswer, StoreError, TableSummary, Update, Written,
};
use super::super::{FAILURES_MAX, ROLLUP, at, start};
use super::{LATER, close, copy, each_way, fill, is_open, is_there, snapshot, wish};
use crate::checkpoint::Checkpoints;
use crate::clients::db::Tx;

/// A store of a process that is killed after so many writes, over all of its stores.
#[derive(Debug)]
struct Mortal {
    inner: Arc<dyn Store>,
    writes_left: Arc<AtomicUsize>,
}

impl Mortal {
    fn over(checkpoints: &Checkpoints, writes_left: &Arc<AtomicUsize>) -> Checkpoints {
        let (inner, writes_left) = (Arc::clone(&checkpoints.store), Arc::clone(writes_left));
        Checkpoints::new(Arc::new(Self { inner, writes_left }), FAILURES_MAX)
    }

    fn is_dead(&self) -> Result<(), StoreError> {
        match self.writes_left.load(Ordering::SeqCst) {
            0 => Err(StoreError::Environment("killed".into())),
            _ => Ok(()),
        }
    }

    fn write(&self) -> Result<(), StoreError> {
        let one_less = |left: usize| left.checked_sub(1);
        let left = self.writes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        left.map(drop).map_err(|_| StoreError::Environment("killed".into()))
    }
}

impl Store for Mortal {
    fn table(&self) -> &str {
        self.inner.table()
    }

    fn is_in_target(&self) -> bool {
        self.inner.is_in_target()
    }

    fn get(&self, key: Key) -> StoreAnswer<'_, Option<Item>> {
        async move {
            self.is_dead()?;
            self.inner.get(key).await
        }
        .boxed()
    }

    fn query(&self, query: Query) -> StoreAnswer<'_, Vec<Item>> {
        async move {
            self.is_dead()?;
            self.inner.query(query).await
        }
        .boxed()
    }

    fn update_each<'a>(
        &'a self,
        updates: &'a [Update],
        operation: &'static str,
        within: &'a mut Tx,
    ) -> StoreAnswer<'a, Vec<Item>> {
        self.inner.update_each(updates, operation, within)
    }

    fn find_or_hold<'a>(&'a self, key: Key, within: &'a mut Tx) -> StoreAnswer<'a, bool> {
        self.inner.find_or_hold(key, within)
    }

    fn update_range<'a>(
        &'a self,
        updates: [Update; 2],
        last: String,
        operation: &'static str,
        within: &'a mut Tx,
    ) -> StoreAnswer<'a, u64> {
        self.inner.update_range(updates, last, operation, within)
    }

    fn update<'a>(
        &'a self,
        update: Update,
        operation: &'static str,
        within: Option<&'a mut Tx>,
    ) -> StoreAnswer<'a, Written> {
        async move {
            self.write()?;
            self.inner.update(update, operation, within).await
        }
        .boxed()
    }

    fn update_all<'a>(
        &'a self,
        updates: Vec<Update>,
        operation: &'static str,
        within: Option<&'a mut Tx>,
    ) -> StoreAnswer<'a, bool> {
        async move {
            self.write()?;
            self.inner.update_all(updates, operation, within).await
        }
        .boxed()
    }

    fn put(&self, item: Item, condition: Cond) -> StoreAnswer<'_, bool> {
        async move {
            self.write()?;
            self.inner.put(item, condition).await
        }
        .boxed()
    }

    fn delete(&self, key: Key) -> StoreAnswer<'_, ()> {
        async move {
            self.write()?;
            self.inner.delete(key).await
        }
        .boxed()
    }

    fn create(&self) -> StoreAnswer<'_, Created> {
        self.inner.create()
    }

    fn describe(&self) -> StoreAnswer<'_, TableSummary> {
        self.inner.describe()
    }

    fn create_command(&self) -> String {
        self.inner.create_command()
    }
}

/// Whether a process that is killed after so many writes left its copy unfinished.
async fn killed(from: &Checkpoints, to: &Checkpoints, writes: usize) -> bool {
    let left = Arc::new(AtomicUsize::new(writes));
    copy(&Mortal::over(from, &left), &Mortal::over(to, &left)).await.is_err()
}

/// Forth and, from there, back again, each killed after every write.
#[tokio::test]
async fn whatever_write_kills_a_copy_at_most_one_store_works_and_the_next_copy_ends_right() {
    for is_back in [false, true] {
        let mut writes = 0;
        let mut is_over = false;
        while !is_over {
            is_over = true;
            for [from, to] in each_way().await {
                let (mut from, mut to) = (&from.checkpoints, &to.checkpoints);
                fill(from).await;
                if is_back {
                    copy(from, to).await.unwrap();
                    (from, to) = (to, from);
                    from.reopen(ROLLUP, start(), "late data", at(LATER)).await.unwrap();
                    from.store.delete(key(ROLLUP, wish(3, 0).slice_start)).await.unwrap();
                }
                let before = snapshot(from).await;
                is_over &= !killed(from, to, writes).await;
                let open = [is_open(from).await, is_there(to).await && is_open(to).await];
                assert_ne!(open, [true, true], "after {writes} writes");
                // Another process may be killed too, at another place.
                killed(from, to, writes / 2 + 1).await;
                copy(from, to).await.unwrap();
                assert_eq!(snapshot(to).await, before, "after {writes} writes");
                assert!(is_open(to).await && !is_open(from).await, "after {writes} writes");
                close(from, to).await;
            }
            writes += 1;
        }
        assert!(writes > 7, "{writes} writes");
    }
}
