//! Copies a rollup's items into another store, which then takes the place of the old one.
//!
//! At any instant at most one of the two stores lets work on the rollup start:
//!
//! 1. The new store's `watermark` item says that it is filling, so nothing starts there.
//! 2. Tombstones make the old store refuse claims and reopenings.
//! 3. The items are copied, and compared until both stores hold the same. A lease that is found
//!    takes the tombstones back.
//! 4. The new store's `watermark` item is written. From here on the new store counts.
//!
//! A copy that was killed can be run again, and recognises its own traces by the ID in them. Of two
//! copies at the same time, the one that began last ends. A worker that reads neither trace, because
//! it stood still between its checks and its claim, is stopped by the fence in the target: the same
//! attempt has another owner, or a newer one has the marker.

mod canonical;
mod items;
mod shared;

use std::borrow::Cow;
use std::ops::ControlFlow;

use chrono::{DateTime, Utc};

use super::checkpoints::Checkpoints;
use super::error::{CheckpointError, short};
use super::item::{Reader, text};
use super::state::State;
use super::store::{Cond, Item, PK, Query, SK, Sorts, StoreError, Update, Written};
use super::tombstone::{
    COPY_ID, Elsewhere, FILL_ID, FILLER, FILLING_FROM, MOVE_ID, MOVED_TO, Traces,
};
use super::watermark::watermark_key;
use crate::model::clock::{Clock, rfc3339};
use crate::model::hint::Hinted;
use crate::model::text::random_token;

/// The reason of the repair that a second copy needs.
const COPIED_AGAIN: &str =
    "its checkpoints were copied a second time, from before the first copy was lost";

/// The attribute of [`super::Bond::repair`].
const REPAIR: &str = "repair";
const INSTALLATION: &str = "installation";

/// Hears how many items are compared so far, and may stop the copy.
pub type Listener<'l> = &'l (dyn Fn(&str, u64) -> ControlFlow<()> + Send + Sync);

/// Why a copy ended before its end. The old store counts on, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// A store refuses or cannot be reached.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A worker is at work.
    #[error("{worker} holds {slice} until {}", rfc3339(*.until))]
    Leased {
        slice: String,
        /// The owner of the lease.
        worker: String,
        until: DateTime<Utc>,
    },
    /// The other store holds checkpoints of the rollup that came from elsewhere.
    #[error("rollup `{rollup}`: {place} holds other checkpoints of it, which are not of this copy")]
    Foreign {
        rollup: String,
        /// The other store.
        place: String,
    },
    /// Another process copies at the same time.
    #[error("rollup `{0}`: another process has begun the same copy")]
    Overtaken(String),
    /// The items differ again after each pass.
    #[error("rollup `{0}`: its checkpoints kept changing")]
    Unsteady(String),
    /// The operator ended it.
    #[error("interrupted; nothing has changed its place")]
    Interrupted,
}

impl Hinted for CopyError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::Checkpoint(error) => return error.hint(),
            Self::Leased { .. } => {
                "end all workers, wait until then, and run the same command again"
            }
            Self::Foreign { .. } => {
                "delete them there if they are left over, or choose another table"
            }
            Self::Overtaken(_) => "let that one end",
            Self::Unsteady(_) => "end all workers, and run the same command again",
            Self::Interrupted => "run the same command, which begins again",
        };
        Some(hint.into())
    }
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> Self {
        Self::Checkpoint(error.into())
    }
}

/// How far a copy of a rollup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopyStanding {
    /// It is still to begin, or to go on.
    ToDo(CopyToDo),
    /// The new store counts already.
    Done,
}

/// A copy that is to begin or to go on, as far as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopyToDo {
    id: String,
    /// A new store that was complete is lost, so the old one's items are from before its time.
    is_lost: bool,
    /// The new store's `watermark` item.
    found: Option<Item>,
}

/// What a store holds of a rollup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub slices: u64,
    /// The watermark, the scrub's progress, backfills and the like.
    pub others: u64,
}

/// A copy between two stores.
pub struct StoreCopy<'c> {
    from: &'c Checkpoints,
    to: &'c Checkpoints,
    clock: &'c dyn Clock,
    listener: Listener<'c>,
    /// The token of this process.
    filler: String,
}

impl<'c> StoreCopy<'c> {
    #[must_use]
    pub fn new(
        from: &'c Checkpoints,
        to: &'c Checkpoints,
        clock: &'c dyn Clock,
        listener: Listener<'c>,
    ) -> Self {
        Self { from, to, clock, listener, filler: random_token() }
    }

    /// How far the copy of `rollup` is.
    ///
    /// # Errors
    /// The checkpoints are elsewhere already, or the new store holds others.
    pub(crate) async fn standing(&self, rollup: &str) -> Result<CopyStanding, CopyError> {
        let key = watermark_key(rollup);
        let old = self.from.item(key.clone()).await?;
        let new = if_there(self.to.item(key).await)?;
        let traces = |item: &Option<Item>| item.as_ref().map(Traces::read).transpose();
        let (before, after) = (traces(&old)?.unwrap_or_default(), traces(&new)?);
        let of = |item: &Option<Item>| item.as_ref().and_then(|it| it.get(INSTALLATION).cloned());
        if let Some((from, _)) = before.filling {
            return Err(CheckpointError::Incomplete { rollup: rollup.to_owned(), from }.into());
        }
        let installation = of(&new);
        let to_do = |id: &str, is_lost| {
            let (id, found) = (id.to_owned(), new.clone());
            Ok(CopyStanding::ToDo(CopyToDo { id, is_lost, found }))
        };
        let Some(after) = after else {
            if !self.is_empty(rollup).await? {
                return Err(self.foreign(rollup));
            }
            let Some((_, id)) = &before.moved else { return to_do(&random_token(), false) };
            return self.is_moved_here(rollup, &before).and_then(|()| to_do(id, true));
        };
        self.is_moved_here(rollup, &before)?;
        match (&before.moved, &after.filling, &after.moved) {
            (Some((_, id)), Some((_, other)), _) if id == other => to_do(id, false),
            (Some((_, id)), None, None) if after.copy_id.as_ref() == Some(id) => {
                Ok(CopyStanding::Done)
            }
            // Killed after its first write, or taken back.
            (None, Some((_, id)), _) if of(&old) == installation => to_do(id, false),
            // The items came from there.
            (None, None, Some((_, id))) if before.copy_id.as_ref() == Some(id) => {
                to_do(&random_token(), false)
            }
            _ => Err(self.foreign(rollup)),
        }
    }

    /// A tombstone must lead to the new store.
    fn is_moved_here(&self, rollup: &str, before: &Traces) -> Result<(), CopyError> {
        match &before.moved {
            Some((to, _)) if to.place != self.to.place() => {
                Err(CheckpointError::Moved { rollup: rollup.to_owned(), to: to.clone() }.into())
            }
            _ => Ok(()),
        }
    }

    async fn is_empty(&self, rollup: &str) -> Result<bool, CopyError> {
        let one = Query::new(rollup, Sorts::All).first(1);
        let found = self.to.store.query(one).await.map_err(CheckpointError::from);
        Ok(if_there(found.map(Some))?.unwrap_or_default().is_empty())
    }

    fn foreign(&self, rollup: &str) -> CopyError {
        CopyError::Foreign { rollup: rollup.to_owned(), place: self.to.place() }
    }

    /// Refuses while a worker holds a slice of `rollup`, as far as the store's index shows.
    ///
    /// # Errors
    /// [`CopyError::Leased`], or the store refuses.
    pub(crate) async fn refuse_leased(&self, rollup: &str) -> Result<(), CopyError> {
        let unfinished = self.from.store.query(Query::new(rollup, Sorts::Unfinished)).await?;
        unfinished.iter().try_for_each(|item| is_free(item, self.clock.now()))
    }

    /// Makes both stores refuse work on `rollup`.
    ///
    /// # Errors
    /// A store refuses, or another process copies.
    pub(crate) async fn stop(&self, rollup: &str, to_do: &CopyToDo) -> Result<(), CopyError> {
        self.begin(rollup, to_do).await?;
        self.entomb(rollup, &to_do.id).await
    }

    /// Marks the new store as filling, by this process, if it still is as it was looked at.
    async fn begin(&self, rollup: &str, to_do: &CopyToDo) -> Result<(), CopyError> {
        let CopyToDo { id, is_lost, found: new } = to_do;
        let key = watermark_key(rollup);
        let old = self.from.item(key.clone()).await?.unwrap_or_default();
        let unchanged = match new {
            None => Cond::Absent,
            Some(item) => [FILL_ID, FILLER, MOVE_ID, COPY_ID]
                .into_iter()
                .map(|name| same(item, name))
                .fold(Cond::Present, Cond::and),
        };
        let mut item = key.to_item();
        let from = self.elsewhere(self.from);
        item.insert(FILLING_FROM.to_owned(), from.to_attribute());
        item.insert(FILL_ID.to_owned(), text(id));
        item.insert(FILLER.to_owned(), text(&self.filler));
        item.extend(old.get(INSTALLATION).map(|id| (INSTALLATION.to_owned(), id.clone())));
        let repair = new.as_ref().filter(|new| new.contains_key(FILLING_FROM));
        let repair = repair.and_then(|new| new.get(REPAIR).cloned());
        let repair = if *is_lost { Some(text(COPIED_AGAIN)) } else { repair };
        item.extend(repair.map(|reason| (REPAIR.to_owned(), reason)));
        match self.to.store.put(item, unchanged).await? {
            true => Ok(()),
            false => Err(CopyError::Overtaken(rollup.to_owned())),
        }
    }

    /// Makes the old store refuse claims first, then reopenings.
    async fn entomb(&self, rollup: &str, id: &str) -> Result<(), CopyError> {
        let to = self.elsewhere(self.to);
        shared::entomb(self.from, rollup, Some(&to)).await?;
        let mine = Cond::lacks(MOVED_TO).or(Cond::is(MOVE_ID, text(id)));
        // A higher version invalidates the advances of workers that read the item before.
        let update = Update::new(watermark_key(rollup), mine)
            .set(MOVED_TO, to.to_attribute())
            .set(MOVE_ID, text(id))
            .increment("version");
        match self.from.store.update(update, "leave a tombstone", None).await? {
            Written::Done(_) => Ok(()),
            Written::Refused { .. } => Err(CopyError::Overtaken(rollup.to_owned())),
        }
    }

    /// Lets the old store work again, unless the new one may be complete.
    ///
    /// # Errors
    /// A store refuses. The old store then goes on refusing work.
    pub(crate) async fn take_back(&self, rollup: &str, to_do: &CopyToDo) -> Result<(), CopyError> {
        let id = &to_do.id;
        // From here on no process can complete the new store with what it has read.
        let mine = Update::new(watermark_key(rollup), self.is_filling(id)).remove(&[FILLER]);
        let mine = self.to.store.update(mine, "end a copy", None).await?;
        if let Written::Refused { .. } = mine {
            return Err(CopyError::Overtaken(rollup.to_owned()));
        }
        let own = Cond::is(MOVE_ID, text(id));
        let update = Update::new(watermark_key(rollup), own).remove(&[MOVED_TO, MOVE_ID]);
        self.from.store.update(update, "remove a tombstone", None).await?;
        Ok(shared::entomb(self.from, rollup, None).await?)
    }

    /// Completes the new store, which counts from now on. `is_first`: no other rollup of this copy
    /// counts there yet.
    ///
    /// # Errors
    /// A store refuses, or another process copies.
    pub(crate) async fn commit(
        &self,
        rollup: &str,
        to_do: &CopyToDo,
        is_first: bool,
    ) -> Result<(), CopyError> {
        let id = &to_do.id;
        let key = watermark_key(rollup);
        let global = is_first.then(|| (id.as_str(), self.clock.now()));
        shared::copy(self.from, self.to, rollup, global).await?;
        let old = self.from.item(key.clone()).await?.unwrap_or_default();
        let new = self.to.item(key.clone()).await?.unwrap_or_default();
        let mut item = canonical::item(&old);
        item.extend(key.to_item());
        for name in [MOVED_TO, MOVE_ID] {
            item.remove(name);
        }
        item.extend(new.get(REPAIR).map(|reason| (REPAIR.to_owned(), reason.clone())));
        item.insert(COPY_ID.to_owned(), text(id));
        match self.to.store.put(item, self.is_filling(id)).await? {
            true => Ok(()),
            // An earlier request may have been answered too late.
            false if self.standing(rollup).await? == CopyStanding::Done => Ok(()),
            false => Err(CopyError::Overtaken(rollup.to_owned())),
        }
    }

    /// The condition that the new store is being filled by this process.
    fn is_filling(&self, id: &str) -> Cond {
        Cond::is(FILL_ID, text(id)).and(Cond::is(FILLER, text(&self.filler)))
    }

    fn elsewhere(&self, store: &Checkpoints) -> Elsewhere {
        Elsewhere { place: store.place(), setting: store.setting(), at: self.clock.now() }
    }
}

/// The condition that an attribute is as in `item`.
fn same(item: &Item, name: &str) -> Cond {
    item.get(name).map_or_else(|| Cond::lacks(name), |value| Cond::is(name, value.clone()))
}

/// Refuses the item of a slice whose lease lasts.
fn is_free(item: &Item, now: DateTime<Utc>) -> Result<(), CopyError> {
    let read = Reader { item };
    if item.get("state") != Some(&text(State::Running.word())) {
        return Ok(());
    }
    let Some(until) = read.epoch_ms("lease_until")?.filter(|until| *until > now) else {
        return Ok(());
    };
    let part = |name| read.text(name).map(Option::unwrap_or_default);
    let slice = format!("{}@{}", part(PK)?, part(SK)?);
    let worker = read.text("owner")?.map_or_else(|| "a worker".to_owned(), |it| short(&it));
    Err(CopyError::Leased { slice, worker, until })
}

/// An answer of a store whose table may be missing.
fn if_there<T>(answer: Result<Option<T>, CheckpointError>) -> Result<Option<T>, CheckpointError> {
    match answer {
        Err(CheckpointError::Store(StoreError::NoTable { .. })) => Ok(None),
        answer => answer,
    }
}
