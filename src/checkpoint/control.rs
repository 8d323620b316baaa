//! The operator's commands about the work: one item for all rollups, read before every chunk.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::checkpoints::Checkpoints;
use super::error::CheckpointError;
use super::item::{ALL, Reader, instant, text};
use super::pace::KeptPace;
use super::store::{Cond, Item, Key, Update, Value, Written};
use super::tombstone::Elsewhere;
use crate::config::{AUTO, NICE_RATIO, NiceRatio};

/// The second part of its key.
const CONTROL: &str = "control";

const PAUSE: &str = "pause";
const NICE: &str = "nice_ratio";
const CANCEL: &str = "cancel";
const WOKEN: &str = "woken_at";
const SEAL: &str = "seal";

/// The pace that workers have found.
pub(super) const PACE: &str = "pace";

/// The attribute of a seal: slices that start before it are sealed.
const BEFORE: &str = "before";

/// The attributes that concern all work.
pub(super) const GLOBAL: [&str; 4] = [PAUSE, NICE, WOKEN, PACE];

/// The attributes that concern `rollup` alone.
pub(super) fn of_rollup(rollup: &str) -> Vec<String> {
    let scopes = [Scope::Rollup(rollup), Scope::Backfill(rollup)];
    let kinds = [PAUSE, NICE, CANCEL];
    let commands = scopes.iter().flat_map(|scope| kinds.map(|kind| scope.attribute(kind)));
    commands.chain([seal_of(rollup)]).collect()
}

/// The attribute of a rollup's seal.
pub(super) fn seal_of(rollup: &str) -> String {
    Scope::Rollup(rollup).attribute(SEAL)
}

/// Encodes a seal for [`Control::read`].
pub(super) fn encoded_seal(before: DateTime<Utc>) -> Value {
    Value::Map(Item::from([(BEFORE.to_owned(), instant(before))]))
}

/// The scope of an operator's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'s> {
    /// All work that reads the source.
    Source,
    /// All work on a rollup.
    Rollup(&'s str),
    /// Backfills of a rollup.
    Backfill(&'s str),
}

impl<'s> Scope<'s> {
    /// The rollup. `None`: all of them.
    #[must_use]
    pub(crate) const fn rollup(self) -> Option<&'s str> {
        match self {
            Self::Source => None,
            Self::Rollup(name) | Self::Backfill(name) => Some(name),
        }
    }

    /// The attribute of this `kind` of command.
    fn attribute(self, kind: &str) -> String {
        match self {
            Self::Source => kind.to_owned(),
            Self::Rollup(name) => format!("{kind}_rollup_{name}"),
            Self::Backfill(name) => format!("{kind}_backfill_{name}"),
        }
    }
}

#[cfg(feature = "faults")]
impl Scope<'_> {
    /// The attribute of its pause.
    pub(super) fn pause(self) -> String {
        self.attribute(PAUSE)
    }
}

impl std::fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source => f.write_str("all work"),
            Self::Rollup(name) => f.write_str(name),
            Self::Backfill(name) => write!(f, "backfills of {name}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When it was requested.
    pub at: DateTime<Utc>,
    pub reason: String,
    /// When it ends automatically.
    pub until: Option<DateTime<Utc>>,
}

impl Pause {
    /// Encodes it for [`Control::read`].
    pub(super) fn to_attribute(&self) -> Value {
        let mut fields = Item::from([
            ("at".to_owned(), instant(self.at)),
            ("reason".to_owned(), text(&self.reason)),
        ]);
        fields.extend(self.until.map(|until| ("until".to_owned(), instant(until))));
        Value::Map(fields)
    }
}

/// All commands in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Control {
    pauses: BTreeMap<String, Pause>,
    nice_ratios: BTreeMap<String, NiceRatio>,
    cancelled: BTreeMap<String, DateTime<Utc>>,
    woken_at: Option<DateTime<Utc>>,
    seals: BTreeMap<String, DateTime<Utc>>,
    moved: BTreeMap<String, Elsewhere>,
    pace: Option<KeptPace>,
}

impl Control {
    /// The pause of exactly this scope, if it lasts at `now`.
    #[must_use]
    pub fn pause_of(&self, scope: Scope<'_>, now: DateTime<Utc>) -> Option<&Pause> {
        let pause = self.pauses.get(&scope.attribute(PAUSE))?;
        pause.until.is_none_or(|until| now < until).then_some(pause)
    }

    /// The pause that holds work on `rollup` at `now`. `is_backfill` says whether the work belongs
    /// to a backfill.
    #[must_use]
    pub(crate) fn paused(
        &self,
        rollup: &str,
        is_backfill: bool,
        now: DateTime<Utc>,
    ) -> Option<&Pause> {
        scopes(rollup, is_backfill).find_map(|scope| self.pause_of(scope, now))
    }

    /// The `nice_ratio` of exactly this scope.
    #[must_use]
    pub(crate) fn nice_ratio_of(&self, scope: Scope<'_>) -> Option<NiceRatio> {
        self.nice_ratios.get(&scope.attribute(NICE)).copied()
    }

    /// The `nice_ratio` that was set for `rollup`, from the narrowest scope.
    #[must_use]
    pub(crate) fn nice_ratio(&self, rollup: &str, is_backfill: bool) -> Option<NiceRatio> {
        scopes(rollup, is_backfill).find_map(|scope| self.nice_ratio_of(scope))
    }

    /// When backfills of `rollup` were cancelled. All that had begun by then are over.
    #[must_use]
    pub(crate) fn cancelled(&self, rollup: &str) -> Option<DateTime<Utc>> {
        self.cancelled.get(&Scope::Backfill(rollup).attribute(CANCEL)).copied()
    }

    /// Refuses a rollup whose checkpoints were copied into another store.
    ///
    /// # Errors
    /// [`CheckpointError::Moved`], with the store that counts.
    pub fn refuse_moved(&self, rollup: &str) -> Result<(), CheckpointError> {
        match self.moved.get(rollup) {
            None => Ok(()),
            Some(to) => Err(CheckpointError::Moved { rollup: rollup.to_owned(), to: to.clone() }),
        }
    }

    /// The seal of `rollup` in the store. `None`: there is none.
    #[must_use]
    pub(crate) fn seal(&self, rollup: &str) -> Option<DateTime<Utc>> {
        self.seals.get(&seal_of(rollup)).copied()
    }

    /// The pace that a worker has found. `None`: none has told it.
    #[must_use]
    pub(crate) const fn pace(&self) -> Option<&KeptPace> {
        self.pace.as_ref()
    }

    /// When a tick last woke the source.
    #[must_use]
    pub(crate) const fn woken_at(&self) -> Option<DateTime<Utc>> {
        self.woken_at
    }

    pub(super) fn read(item: &Item) -> Result<Self, CheckpointError> {
        let mut control = Self { woken_at: Reader { item }.instant(WOKEN)?, ..Self::default() };
        for (name, value) in item {
            control.moved.extend(Elsewhere::in_control(name, value)?);
            match value {
                Value::Map(fields) if name.starts_with(PAUSE) => {
                    let read = Reader { item: fields };
                    let pause = Pause {
                        at: read.instant("at")?.ok_or_else(|| read.missing("at"))?,
                        reason: read.text("reason")?.unwrap_or_default(),
                        until: read.instant("until")?,
                    };
                    control.pauses.insert(name.clone(), pause);
                }
                Value::Map(fields) if name == PACE => control.pace = KeptPace::read(fields),
                Value::Map(fields) if name.starts_with(SEAL) => {
                    // An invalid seal must not open history, so it is an error.
                    let read = Reader { item: fields };
                    let before = read.instant(BEFORE)?.ok_or_else(|| read.missing(BEFORE))?;
                    control.seals.insert(name.clone(), before);
                }
                Value::Number(number) if name.starts_with(NICE) => {
                    // An invalid number must not speed up the work, so it is ignored and logged.
                    match number.parse() {
                        Ok(ratio) if NICE_RATIO.contains(&ratio) => {
                            control.nice_ratios.insert(name.clone(), NiceRatio::Fixed(ratio));
                        }
                        _ => tracing::warn!(name, number, "not a nice_ratio"),
                    }
                }
                Value::Text(word) if name.starts_with(NICE) && word == AUTO => {
                    control.nice_ratios.insert(name.clone(), NiceRatio::Auto);
                }
                Value::Text(at) if name.starts_with(CANCEL) => {
                    if let Ok(at) = at.parse() {
                        control.cancelled.insert(name.clone(), at);
                    }
                }
                _ => {}
            }
        }
        Ok(control)
    }
}

/// The scopes that include work on `rollup`, the narrowest first.
fn scopes(rollup: &str, is_backfill: bool) -> impl Iterator<Item = Scope<'_>> {
    let backfill = is_backfill.then_some(Scope::Backfill(rollup));
    backfill.into_iter().chain([Scope::Rollup(rollup), Scope::Source])
}

impl Checkpoints {
    /// All commands in force.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub async fn control(&self) -> Result<Control, CheckpointError> {
        let item = self.item(control_key()).await?;
        item.as_ref().map_or_else(|| Ok(Control::default()), Control::read)
    }

    /// Pauses the scope, or resumes it with `None`.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub async fn set_pause(
        &self,
        scope: Scope<'_>,
        pause: Option<&Pause>,
    ) -> Result<(), CheckpointError> {
        self.set_control(&scope.attribute(PAUSE), pause.map(Pause::to_attribute)).await
    }

    /// Sets another `nice_ratio`, or restores the configured one with `None`.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn set_nice_ratio(
        &self,
        scope: Scope<'_>,
        nice_ratio: Option<NiceRatio>,
    ) -> Result<(), CheckpointError> {
        let value = nice_ratio.map(|nice_ratio| match nice_ratio {
            NiceRatio::Auto => text(AUTO),
            NiceRatio::Fixed(ratio) => Value::Number(ratio.to_string()),
        });
        self.set_control(&scope.attribute(NICE), value).await
    }

    /// Ends the backfills of `rollup` that have begun by `now`.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn cancel(
        &self,
        rollup: &str,
        now: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        self.set_control(&Scope::Backfill(rollup).attribute(CANCEL), Some(instant(now))).await
    }

    /// Wakes the source at `now`, unless a tick did so after `since`. Returns whether this tick
    /// may.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn wake(
        &self,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<bool, CheckpointError> {
        let condition = Cond::lacks(WOKEN).or(Cond::at_most(WOKEN, instant(since)));
        let update = Update::new(control_key(), condition).set(WOKEN, instant(now));
        Ok(matches!(self.send(update, "wake the source").await?, Written::Done(_)))
    }

    pub(super) async fn set_control(
        &self,
        attribute: &str,
        value: Option<Value>,
    ) -> Result<(), CheckpointError> {
        let update = Update::new(control_key(), Cond::always()).set_or_remove(attribute, value);
        self.send(update, "write the control item").await.map(drop)
    }
}

pub(super) fn control_key() -> Key {
    Key::new(ALL, CONTROL)
}
