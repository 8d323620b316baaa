//! The workload units that the app's owner pays, by the prices of the manual.

use std::iter::Sum;
use std::ops::Add;

const CALL: f64 = 0.01;
const SEARCH: f64 = 0.3;
const THING: f64 = 0.015;
const CHARACTER: f64 = 0.000_003;
const BYTE: f64 = 0.000_003;
const AGGREGATE: f64 = 0.2;

/// The items of a bill. Things that a search looked at and did not return cost nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// Requests that reached the app.
    pub calls: usize,
    pub searches: usize,
    /// Things returned.
    pub things: usize,
    /// Characters of these things, with all of their fields.
    pub characters: usize,
    /// Bytes of the answers.
    pub bytes: usize,
    /// Counts of the things that remain, which are taken for aggregates.
    pub aggregates: usize,
}

impl Bill {
    /// The sum in workload units.
    pub fn units(&self) -> f64 {
        let lines = [
            (self.calls, CALL),
            (self.searches, SEARCH),
            (self.things, THING),
            (self.characters, CHARACTER),
            (self.bytes, BYTE),
            (self.aggregates, AGGREGATE),
        ];
        lines.into_iter().map(|(count, price)| count as f64 * price).sum()
    }
}

impl Add for Bill {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            searches: self.searches + other.searches,
            things: self.things + other.things,
            characters: self.characters + other.characters,
            bytes: self.bytes + other.bytes,
            aggregates: self.aggregates + other.aggregates,
        }
    }
}

impl Sum for Bill {
    fn sum<I: Iterator<Item = Self>>(bills: I) -> Self {
        bills.fold(Self::default(), Add::add)
    }
}
