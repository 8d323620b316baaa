//! All items of a rollup but its watermark: page by page, the new store is made equal to the old.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use futures_util::future::try_join_all;

use super::{CopyError, CopyToDo, Counts, StoreCopy, canonical, is_free, same};
use crate::checkpoint::checkpoints::Checkpoints;
use crate::checkpoint::item::{Reader, WATERMARK};
use crate::checkpoint::store::{Cond, Item, Key, Query, SK, Sorts};
use crate::checkpoint::tombstone::{FILL_ID, FILLER};
use crate::checkpoint::watermark::watermark_key;

/// Items that are read at a time.
const PAGE: u16 = 250;

/// Items that are written concurrently.
const WRITTEN_AT_ONCE: usize = 8;

/// The first pass copies. The second one finds both stores equal, unless a worker still wrote.
const PASSES_MAX: usize = 5;

/// No key of an item sorts after it.
const LAST: &str = "\u{10ffff}";

/// Every write of a worker changes one of these.
const PROGRESS: [&str; 9] = [
    "state",
    "attempt",
    "owner",
    "dirty",
    "version",
    "verified",
    "changes_until",
    "consumer",
    "consumer_of",
];

/// Some items in the order of their keys.
struct ItemPage {
    items: BTreeMap<String, Item>,
    /// The key of the last one that was read. `None`: there are no more.
    last: Option<String>,
}

#[derive(Debug, Default)]
struct CopyPass {
    counts: Counts,
    /// Items that differed.
    changed: u64,
}

impl StoreCopy<'_> {
    /// Copies the items of `rollup` until both stores hold the same. The old store refuses work
    /// meanwhile.
    ///
    /// # Errors
    /// A worker holds a slice, another process copies, or a store refuses.
    pub(crate) async fn fill(&self, rollup: &str, to_do: &CopyToDo) -> Result<Counts, CopyError> {
        for _ in 0..PASSES_MAX {
            let pass = self.pass(rollup, &to_do.id).await?;
            if pass.changed == 0 {
                return Ok(pass.counts);
            }
        }
        Err(CopyError::Unsteady(rollup.to_owned()))
    }

    async fn pass(&self, rollup: &str, id: &str) -> Result<CopyPass, CopyError> {
        let mut pass = CopyPass::default();
        // Every key begins with a digit or a letter.
        let mut from = " ".to_owned();
        loop {
            let old = page(self.from, rollup, &from).await?;
            let new = page(self.to, rollup, &from).await?;
            // Beyond the shorter page it is unknown what a store holds.
            let Some(end) = [&old.last, &new.last].into_iter().flatten().min() else {
                // The watermark.
                pass.counts.others += 1;
                return Ok(pass);
            };
            for (sort, item) in old.items.range(..=end.clone()) {
                is_free(item, self.clock.now())?;
                let is_slice = sort.starts_with(|first: char| first.is_ascii_digit());
                pass.counts.slices += u64::from(is_slice);
                pass.counts.others += u64::from(!is_slice);
            }
            pass.changed += self.equalise(rollup, id, &old, &new, end).await?;
            let done = pass.counts.slices + pass.counts.others;
            if (self.listener)(rollup, done) == ControlFlow::Break(()) {
                return Err(CopyError::Interrupted);
            }
            // The smallest key of an item after it.
            from = format!("{end} ");
        }
    }

    /// Makes the items up to `end` the same, and returns how many differed.
    async fn equalise(
        &self,
        rollup: &str,
        id: &str,
        old: &ItemPage,
        new: &ItemPage,
        end: &str,
    ) -> Result<u64, CopyError> {
        let up_to_end =
            |page: &ItemPage| page.items.range(..=end.to_owned()).map(|it| it.0.clone()).collect();
        let (mut sorts, others): (BTreeSet<String>, BTreeSet<String>) =
            (up_to_end(old), up_to_end(new));
        sorts.extend(others);
        let pair = |sort: &String| (old.items.get(sort), new.items.get(sort));
        sorts.retain(|sort| pair(sort).0.map(canonical::item) != pair(sort).1.map(canonical::item));
        if sorts.is_empty() {
            return Ok(0);
        }
        // A store that counts already may have been changed by workers since it was read.
        let now = self.to.item(watermark_key(rollup)).await?.unwrap_or_default();
        let read = Reader { item: &now };
        if read.text(FILL_ID)?.as_deref() != Some(id)
            || read.text(FILLER)? != Some(self.filler.clone())
        {
            return Err(CopyError::Overtaken(rollup.to_owned()));
        }
        let sorts: Vec<_> = sorts.into_iter().collect();
        for some in sorts.chunks(WRITTEN_AT_ONCE) {
            try_join_all(some.iter().map(async |sort| {
                let key = Key::new(rollup, sort);
                match pair(sort) {
                    (Some(old), new) => {
                        let unchanged = new.map_or(Cond::Absent, unchanged);
                        self.to.store.put(canonical::item(old), unchanged).await.map(drop)
                    }
                    (None, _) => self.to.store.delete(key).await,
                }
            }))
            .await?;
        }
        Ok(sorts.len() as u64)
    }
}

/// The condition that no worker has written the item since.
fn unchanged(item: &Item) -> Cond {
    PROGRESS.into_iter().map(|name| same(item, name)).fold(Cond::Present, Cond::and)
}

/// The next items of `rollup` from this key on.
async fn page(store: &Checkpoints, rollup: &str, from: &str) -> Result<ItemPage, CopyError> {
    let sorts = Sorts::Between(from.to_owned(), LAST.to_owned());
    let found = store.store.query(Query::new(rollup, sorts).first(PAGE)).await?;
    let mut items = BTreeMap::new();
    for item in found {
        let sort = Reader { item: &item }.text(SK)?.unwrap_or_default();
        items.insert(sort, item);
    }
    let last = items.last_key_value().map(|it| it.0.clone());
    items.remove(WATERMARK);
    Ok(ItemPage { items, last })
}
