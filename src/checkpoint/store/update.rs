//! A conditional write of one item, as data. Each store translates it into its own language.

use chrono::{DateTime, TimeDelta, Utc};

use super::value::{Key, Value};

/// The condition that the stored item must meet for a write.
///
/// If an attribute is absent or of another type, a comparison with it fails, except [`Is::Other`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cond {
    /// The item is missing.
    Absent,
    /// The item exists.
    Present,
    /// The item is missing or lacks this attribute.
    Lacks(String),
    /// The comparison of the attribute with the value holds.
    Compare(String, Is, Value),
    /// The instant in the attribute, in epoch milliseconds, has passed. If the store has a clock,
    /// that clock counts. Otherwise this instant of the worker counts.
    Passed(String, DateTime<Utc>),
    /// All of them. An empty list always holds.
    All(Vec<Cond>),
    /// At least one of them.
    Any(Vec<Cond>),
}

/// A comparison of an attribute with a value.
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
    /// The condition that always holds.
    #[must_use]
    pub(crate) const fn always() -> Self {
        Self::All(Vec::new())
    }

    /// Whether a missing item can meet the condition, so that the write may create it.
    #[must_use]
    pub(crate) fn allows_missing(&self) -> bool {
        match self {
            Self::Absent | Self::Lacks(_) | Self::Compare(_, Is::Other, _) => true,
            Self::Present | Self::Compare(..) | Self::Passed(..) => false,
            Self::All(all) => all.iter().all(Self::allows_missing),
            Self::Any(any) => any.iter().any(Self::allows_missing),
        }
    }

    /// The attribute is absent.
    #[must_use]
    pub(crate) fn lacks(name: &str) -> Self {
        Self::Lacks(name.to_owned())
    }

    /// The attribute has this value.
    #[must_use]
    pub(crate) fn is(name: &str, value: Value) -> Self {
        Self::Compare(name.to_owned(), Is::Equal, value)
    }

    /// The attribute is absent or has another value.
    #[must_use]
    pub(crate) fn is_not(name: &str, value: Value) -> Self {
        Self::Compare(name.to_owned(), Is::Other, value)
    }

    /// The attribute is smaller than this value.
    #[must_use]
    pub(crate) fn below(name: &str, value: Value) -> Self {
        Self::Compare(name.to_owned(), Is::Below, value)
    }

    /// The attribute is no greater than this value.
    #[must_use]
    pub(crate) fn at_most(name: &str, value: Value) -> Self {
        Self::Compare(name.to_owned(), Is::AtMost, value)
    }

    /// The attribute is greater than this value.
    #[must_use]
    pub(crate) fn above(name: &str, value: Value) -> Self {
        Self::Compare(name.to_owned(), Is::Above, value)
    }

    /// The instant in the attribute has passed at `now` (see [`Cond::Passed`]).
    #[must_use]
    pub(crate) fn passed(name: &str, now: DateTime<Utc>) -> Self {
        Self::Passed(name.to_owned(), now)
    }

    /// Both conditions hold.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        match self {
            Self::All(mut all) => {
                all.push(other);
                Self::All(all)
            }
            one => Self::All(vec![one, other]),
        }
    }

    /// At least one of the two holds.
    #[must_use]
    pub(crate) fn or(self, other: Self) -> Self {
        match self {
            Self::Any(mut any) => {
                any.push(other);
                Self::Any(any)
            }
            one => Self::Any(vec![one, other]),
        }
    }
}

/// A change of one attribute. All changes of a write read the item as it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It gets this value.
    Set(Value),
    /// It is removed.
    Remove,
    /// It gets the value of the attribute `from`, or `or` if that is absent.
    Copy {
        /// The attribute whose value it gets. Its own name keeps the present value.
        from: String,
        /// The value if that is absent.
        or: Value,
    },
    /// It increases by one. An absent attribute counts as 0. If it is no number, the store answers
    /// [`super::StoreError::Invalid`].
    Increment,
    /// It gets the epoch milliseconds of an instant `after` now. If the store has a clock, that
    /// clock counts. Otherwise `now` of the worker counts.
    FromNow {
        /// The present time by the worker's clock.
        now: DateTime<Utc>,
        /// The distance from now.
        after: TimeDelta,
    },
}

/// A conditional write of one item. It creates a missing item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The item.
    pub(crate) key: Key,
    /// The condition for the write.
    pub(crate) condition: Cond,
    /// The changes of its attributes, at most one for each.
    pub(crate) changes: Vec<(String, Change)>,
}

impl Update {
    /// A write of the item with this key if `condition` holds.
    #[must_use]
    pub(crate) const fn new(key: Key, condition: Cond) -> Self {
        Self { key, condition, changes: Vec::new() }
    }

    fn change(mut self, name: &str, change: Change) -> Self {
        self.changes.push((name.to_owned(), change));
        self
    }

    /// Sets an attribute to a value.
    #[must_use]
    pub(crate) fn set(self, name: &str, value: Value) -> Self {
        self.change(name, Change::Set(value))
    }

    /// Removes attributes.
    #[must_use]
    pub(crate) fn remove(self, names: &[&str]) -> Self {
        names.iter().fold(self, |update, name| update.change(name, Change::Remove))
    }

    /// Sets an attribute, or removes it if there is no value.
    #[must_use]
    pub(crate) fn set_or_remove(self, name: &str, value: Option<Value>) -> Self {
        self.change(name, value.map_or(Change::Remove, Change::Set))
    }

    /// Sets an attribute to the value of another one, or to `or` if that is absent.
    #[must_use]
    pub(crate) fn copy(self, name: &str, from: &str, or: Value) -> Self {
        self.change(name, Change::Copy { from: from.to_owned(), or })
    }

    /// Sets an attribute that is absent.
    #[must_use]
    pub(crate) fn fill(self, name: &str, or: Value) -> Self {
        self.copy(name, name, or)
    }

    /// Increases an attribute by one.
    #[must_use]
    pub(crate) fn increment(self, name: &str) -> Self {
        self.change(name, Change::Increment)
    }

    /// Sets an attribute to an instant `after` now (see [`Change::FromNow`]).
    #[must_use]
    pub(crate) fn set_from_now(self, name: &str, now: DateTime<Utc>, after: TimeDelta) -> Self {
        self.change(name, Change::FromNow { now, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_item_is_allowed_where_the_condition_holds_for_it() {
        let name = || "state".to_owned();
        let value = || Value::Number("1".to_owned());
        let compare = |is| Cond::Compare(name(), is, value());
        let mut each = vec![
            Cond::Absent,
            Cond::Present,
            Cond::Lacks(name()),
            Cond::Passed(name(), DateTime::UNIX_EPOCH),
            Cond::always(),
            Cond::Any(Vec::new()),
        ];
        each.extend([Is::Equal, Is::Other, Is::Below, Is::AtMost, Is::Above].map(compare));
        let pairs = each.iter().flat_map(|one| each.iter().map(move |other| [one, other]));
        let pairs: Vec<_> = pairs.map(|pair| pair.map(Clone::clone).to_vec()).collect();
        let nested = pairs.into_iter().flat_map(|pair| [Cond::All(pair.clone()), Cond::Any(pair)]);
        for condition in each.iter().cloned().chain(nested) {
            assert_eq!(condition.allows_missing(), condition.holds(None, None), "{condition:?}");
        }
    }
}
