//! Workload units: what Bubble bills for a request, by the prices in its manual.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::{Serialize, Serializer};

/// Millionths of a workload unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Units(u64);

/// A request from outside.
const CALL: u64 = 10_000;
const SEARCH: u64 = 300_000;
/// The number of things that remain after a page. Whether Bubble bills it is unknown; assume it.
const AGGREGATE: u64 = 200_000;
/// Each thing that a search returns, with all of its fields.
const THING: u64 = 15_000;
/// Each character that is read from the app's database, and each byte of the answer.
const CHARACTER: u64 = 3;

impl Units {
    /// A number of millionths.
    #[must_use]
    pub(crate) const fn millionths(count: u64) -> Self {
        Self(count)
    }

    /// A whole number of units.
    #[must_use]
    pub(crate) const fn whole(count: u32) -> Self {
        Self(count as u64 * 1_000_000)
    }

    #[must_use]
    pub(crate) const fn as_millionths(self) -> u64 {
        self.0
    }

    /// The price of a search that returned this many things in an answer of `bytes`.
    #[must_use]
    pub(crate) const fn of_search(things: u64, bytes: u64) -> Self {
        Self(CALL + SEARCH + AGGREGATE + things * THING + 2 * bytes * CHARACTER)
    }

    /// The price of a request that searches nothing, with an answer of `bytes`.
    #[must_use]
    pub(crate) const fn of_call(bytes: u64) -> Self {
        Self(CALL + bytes * CHARACTER)
    }

    #[must_use]
    pub(crate) const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "for people and documents")]
    pub(crate) fn as_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl Add for Units {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Units {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} WU", self.as_f64())
    }
}

/// JSON has the number of units, to the hundredth.
impl Serialize for Units {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((self.as_f64() * 100.0).round() / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_a_hundred_things_of_500_bytes_costs_2_31_units() {
        assert_eq!(Units::of_search(100, 50_000).to_string(), "2.31 WU");
        assert_eq!(Units::of_search(1, 500).to_string(), "0.53 WU");
        assert_eq!(serde_json::json!(Units::of_search(100, 50_000)), serde_json::json!(2.31));
    }
}
