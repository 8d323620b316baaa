//! The traces that a copy into another store leaves, by which each store refuses work unless it is
//! the one that counts.
//!
//! In the old store a *tombstone* says where the checkpoints are now. It is in the rollup's
//! `watermark` item, which every command reads first and every reopening writes, and in the item of
//! operators' commands, which a worker reads before each claim. In the new store the `watermark`
//! item says that it is *filling* until the copy is complete.

use chrono::{DateTime, Utc};

use super::error::CheckpointError;
use super::item::{Reader, instant, text};
use super::store::{Cond, Item, PK, Value};

/// The tombstone in the `watermark` item of the old store, and the ID of the copy.
pub(super) const MOVED_TO: &str = "moved_to";
pub(super) const MOVE_ID: &str = "move_id";
/// The mark in the `watermark` item of the new store while it is incomplete, the ID of the copy, and
/// the process that fills it.
pub(super) const FILLING_FROM: &str = "filling_from";
pub(super) const FILL_ID: &str = "fill_id";
pub(super) const FILLER: &str = "filler";
/// The ID of the copy that brought a rollup's items here.
pub(super) const COPY_ID: &str = "copy_id";

/// The tombstone of a rollup in the item of operators' commands begins with this.
const MOVED_ROLLUP: &str = "moved_rollup_";

/// The other store of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The table and its store, in words.
    pub place: String,
    /// The keys of `[checkpoint]` that lead there.
    pub setting: String,
    /// When the copy began.
    pub at: DateTime<Utc>,
}

impl Elsewhere {
    pub(super) fn to_attribute(&self) -> Value {
        Value::Map(Item::from([
            ("place".to_owned(), text(&self.place)),
            ("setting".to_owned(), text(&self.setting)),
            ("at".to_owned(), instant(self.at)),
        ]))
    }

    fn read(item: &Item, name: &'static str) -> Result<Option<Self>, CheckpointError> {
        match item.get(name) {
            None => Ok(None),
            Some(Value::Map(fields)) => Self::of(fields).map(Some),
            Some(_) => Err(Reader { item }.malformed(name, "is not a map (M)")),
        }
    }

    fn of(fields: &Item) -> Result<Self, CheckpointError> {
        let read = Reader { item: fields };
        Ok(Self {
            place: read.text("place")?.ok_or_else(|| read.missing("place"))?,
            setting: read.text("setting")?.ok_or_else(|| read.missing("setting"))?,
            at: read.instant("at")?.ok_or_else(|| read.missing("at"))?,
        })
    }

    /// The tombstone of a rollup in the item of operators' commands.
    pub(super) fn in_control(
        name: &str,
        value: &Value,
    ) -> Result<Option<(String, Self)>, CheckpointError> {
        match (name.strip_prefix(MOVED_ROLLUP), value) {
            (Some(rollup), Value::Map(fields)) => Ok(Some((rollup.to_owned(), Self::of(fields)?))),
            _ => Ok(None),
        }
    }
}

/// The attribute of a rollup's tombstone in the item of operators' commands.
pub(super) fn moved_rollup(rollup: &str) -> String {
    format!("{MOVED_ROLLUP}{rollup}")
}

/// The copies that a rollup's `watermark` item tells of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traces {
    /// The tombstone, with the ID of the copy.
    pub(super) moved: Option<(Elsewhere, String)>,
    /// The mark of an incomplete store, with the ID of the copy.
    pub(super) filling: Option<(Elsewhere, String)>,
    /// The ID of the copy that brought the items.
    pub(super) copy_id: Option<String>,
}

impl Traces {
    pub(super) fn read(item: &Item) -> Result<Self, CheckpointError> {
        let read = Reader { item };
        let (move_id, fill_id) = (read.text(MOVE_ID)?, read.text(FILL_ID)?);
        let moved = Elsewhere::read(item, MOVED_TO)?;
        let filling = Elsewhere::read(item, FILLING_FROM)?;
        Ok(Self {
            moved: moved.map(|to| (to, move_id.unwrap_or_default())),
            filling: filling.map(|from| (from, fill_id.unwrap_or_default())),
            copy_id: read.text(COPY_ID)?,
        })
    }
}

/// Refuses to work with a `watermark` item that is a tombstone, or that is still being filled.
pub(super) fn refuse(item: &Item) -> Result<(), CheckpointError> {
    let rollup = || Reader { item }.text(PK).map(Option::unwrap_or_default);
    let Traces { moved, filling, .. } = Traces::read(item)?;
    if let Some((to, _)) = moved {
        return Err(CheckpointError::Moved { rollup: rollup()?, to });
    }
    if let Some((from, _)) = filling {
        return Err(CheckpointError::Incomplete { rollup: rollup()?, from });
    }
    Ok(())
}

/// The condition of a write that must not be lost in a store that no longer counts, or does not
/// count yet.
pub(super) fn unless_elsewhere(condition: Cond) -> Cond {
    condition.and(Cond::lacks(MOVED_TO)).and(Cond::lacks(FILLING_FROM))
}
