//! A conditional write of one item, as data: each store renders it in its own language.

use chrono::{DateTime, TimeDelta, Utc};

use super::value::{Key, Value};

/// What the stored item must be like for a write to be made.
///
/// A comparison with an attribute that is absent or of another type does not hold, except
/// [`Is::Other`], which does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cond {
    /// There is no item.
    Absent,
    /// There is an item.
    Present,
    /// The item, if there is one, lacks this attribute.
    Lacks(String),
    /// The attribute compares so with the value.
    Compare(String, Is, Value),
    /// The instant that the attribute holds in epoch milliseconds has come. It is compared with the
    /// store's own clock where the store has one, and with this instant of the worker's otherwise.
    Passed(String, DateTime<Utc>),
    /// All of them; none at all always holds.
    All(Vec<Cond>),
    /// One of them at least.
    Any(Vec<Cond>),
}

/// How an attribute compares with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// Equal.
    Equal,
    /// Not equal.
    Other,
    /// Smaller.
    Below,
    /// Smaller or equal.
    AtMost,
    /// Greater.
    Above,
}

impl Cond {
    /// Every item, and none.
    #[must_use]
    pub const fn always() -> Self {
        Self::All(Vec::new())
    }

    /// The attribute is absent.
    #[must_use]
    pub fn lacks(name: &str) -> Self {
        Self::Lacks(name.to_owned())
    }

    /// The attribute has this value.
    #[must_use]
    pub fn is(name: &str, value: Value) -> Self {
        Self::Compare(name.to_owned(), Is::Equal, value)
    }

    /// The attribute is absent or has another value.
    #[must_use]
    pub fn is_not(name: &str, value: Value) -> Self {
        Self::Compare(name.to_owned(), Is::Other, value)
    }

    /// The attribute is smaller than this value.
    #[must_use]
    pub fn below(name: &str, value: Value) -> Self {
        Self::Compare(name.to_owned(), Is::Below, value)
    }

    /// The attribute is no greater than this value.
    #[must_use]
    pub fn at_most(name: &str, value: Value) -> Self {
        Self::Compare(name.to_owned(), Is::AtMost, value)
    }

    /// The attribute is greater than this value.
    #[must_use]
    pub fn above(name: &str, value: Value) -> Self {
        Self::Compare(name.to_owned(), Is::Above, value)
    }

    /// The instant in the attribute has come by `now`; see [`Cond::Passed`].
    #[must_use]
    pub fn passed(name: &str, now: DateTime<Utc>) -> Self {
        Self::Passed(name.to_owned(), now)
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::All(mut all) => {
                all.push(other);
                Self::All(all)
            }
            one => Self::All(vec![one, other]),
        }
    }

    /// One of both at least.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match self {
            Self::Any(mut any) => {
                any.push(other);
                Self::Any(any)
            }
            one => Self::Any(vec![one, other]),
        }
    }
}

/// What becomes of one attribute. All changes of a write read the item as it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets this value.
    Set(Value),
    /// It goes.
    Remove,
    /// It gets the value of the attribute `from`, or `or` where that is absent.
    Copy {
        /// The attribute whose value it gets; its own name keeps what is there.
        from: String,
        /// The value in its place.
        or: Value,
    },
    /// It is raised by one; absent counts as 0. A store refuses what is no number as
    /// [`super::StoreError::Invalid`].
    Increment,
    /// It gets the epoch milliseconds of an instant `after` now: by the store's own clock where the
    /// store has one, and by `now` of the worker's otherwise.
    FromNow {
        /// The present instant by the worker's clock.
        now: DateTime<Utc>,
        /// How much later.
        after: TimeDelta,
    },
}

/// A conditional write of one item, which it makes where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Which item.
    pub key: Key,
    /// What it must be like.
    pub condition: Cond,
    /// What becomes of its attributes; each stands here once at most.
    pub changes: Vec<(String, Change)>,
}

impl Update {
    /// A write of the item with this key that is made only where `condition` holds.
    #[must_use]
    pub const fn new(key: Key, condition: Cond) -> Self {
        Self { key, condition, changes: Vec::new() }
    }

    fn change(mut self, name: &str, change: Change) -> Self {
        self.changes.push((name.to_owned(), change));
        self
    }

    /// Sets an attribute to a value.
    #[must_use]
    pub fn set(self, name: &str, value: Value) -> Self {
        self.change(name, Change::Set(value))
    }

    /// Removes attributes.
    #[must_use]
    pub fn remove(self, names: &[&str]) -> Self {
        names.iter().fold(self, |update, name| update.change(name, Change::Remove))
    }

    /// Sets an attribute, or removes it where there is no value.
    #[must_use]
    pub fn set_or_remove(self, name: &str, value: Option<Value>) -> Self {
        self.change(name, value.map_or(Change::Remove, Change::Set))
    }

    /// Sets an attribute to the value of another one, or to `or` where that is absent.
    #[must_use]
    pub fn copy(self, name: &str, from: &str, or: Value) -> Self {
        self.change(name, Change::Copy { from: from.to_owned(), or })
    }

    /// Sets an attribute that is absent.
    #[must_use]
    pub fn fill(self, name: &str, or: Value) -> Self {
        self.copy(name, name, or)
    }

    /// Raises an attribute by one.
    #[must_use]
    pub fn increment(self, name: &str) -> Self {
        self.change(name, Change::Increment)
    }

    /// Sets an attribute to an instant `after` now; see [`Change::FromNow`].
    #[must_use]
    pub fn set_from_now(self, name: &str, now: DateTime<Utc>, after: TimeDelta) -> Self {
        self.change(name, Change::FromNow { now, after })
    }
}
