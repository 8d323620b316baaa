//! A search: the parameters of a request, the things that it finds, and the page of them.

use std::cmp::Ordering;
use std::ops::Range;

use super::constraint::{Constraint, Test, constraints};
use super::datum::Datum;
use super::problem::Problem;
use super::schema::{Column, ThingType};
use super::things::{Axis, Slot, Thing};

/// Rows in one answer. A higher limit is taken for this one.
const LIMIT_MAX: usize = 100;

/// The search of a request, without its constraints and sort fields on hidden columns.
#[derive(Debug)]
pub struct Search<'a> {
    of: &'a ThingType,
    has_captions: bool,
    hidden: &'a [&'static str],
    constraints: Vec<Constraint>,
    sort: Vec<SortKey>,
    /// Only things of this user are found.
    pub own: Option<&'a str>,
    pub cursor: usize,
    limit: usize,
    /// Whether the answer tells how many things come after it.
    pub counts: bool,
}

#[derive(Debug)]
struct SortKey {
    column: Column,
    is_descending: bool,
}

/// The result of a search.
#[derive(Debug)]
pub struct Found {
    /// All that it found.
    pub total: usize,
    /// Those of the page.
    pub page: Vec<Slot>,
}

impl<'a> Search<'a> {
    /// A search without parameters.
    pub fn new(of: &'a ThingType, has_captions: bool, hidden: &'a [&'static str]) -> Self {
        let (constraints, sort) = (Vec::new(), Vec::new());
        let (cursor, limit, counts) = (0, LIMIT_MAX, true);
        Self { of, has_captions, hidden, constraints, sort, own: None, cursor, limit, counts }
    }

    /// Takes one parameter. Unknown ones are ignored.
    pub fn take(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        match name {
            "cursor" => self.cursor = count(name, value)?,
            "limit" => {
                let limit = count(name, value)?;
                if limit == 0 {
                    return Err(Problem::invalid("limit 0"));
                }
                self.limit = limit.min(LIMIT_MAX);
            }
            "exclude_remaining" => self.counts = !flag(value)?,
            "constraints" => {
                let mut found = constraints(self.of, self.has_captions, value)?;
                found.retain(|constraint| !self.is_hidden(constraint.column));
                self.constraints = found;
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes the order, which several parameters give together.
    pub fn take_order(
        &mut self,
        parameter: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<(), Problem> {
        let Some(field) = parameter("sort_field") else { return Ok(()) };
        let is_descending = parameter("descending").map_or(Ok(false), flag)?;
        let mut sort = vec![SortKey { column: self.column(field)?, is_descending }];
        if let Some(more) = parameter("additional_sort_fields") {
            let unreadable = |_| Problem::invalid("additional_sort_fields");
            let more: Vec<serde_json::Value> = serde_json::from_str(more).map_err(unreadable)?;
            for key in more {
                let field = key["sort_field"].as_str().unwrap_or_default();
                let is_descending = key["descending"].as_bool();
                let is_descending = is_descending.unwrap_or(key["descending"] == "true");
                sort.push(SortKey { column: self.column(field)?, is_descending });
            }
        }
        sort.retain(|key| !self.is_hidden(key.column));
        self.sort = sort;
        Ok(())
    }

    fn column(&self, key: &str) -> Result<Column, Problem> {
        let found = self.of.column(key, self.has_captions);
        found.ok_or_else(|| Problem::no_field(key, &self.of.name))
    }

    fn is_hidden(&self, column: Column) -> bool {
        let is_it = |name: &&str| self.of.column(name, true) == Some(column);
        self.hidden.iter().any(is_it)
    }

    /// The things found, with those of the page in an order that only `seed` and the sort fields
    /// give: equal ones come in another order at each request.
    pub fn find(&self, wall: usize, seed: u64) -> Found {
        let sorted_by = self.sort.first().map(|key| key.column);
        for axis in Axis::ALL {
            if sorted_by == Some(column(axis)) && self.is_range(axis) {
                return self.along(axis, wall, seed);
            }
        }
        if self.sort.is_empty() && self.constraints.is_empty() && self.own.is_none() {
            let all = self.of.things.by_id();
            let page = all[self.window(all.len(), wall)].to_vec();
            return Found { total: all.len(), page };
        }
        self.among(wall, seed)
    }

    /// Whether the search is nothing but a range of this date.
    fn is_range(&self, axis: Axis) -> bool {
        let is_bound = |it: &Constraint| it.column == column(axis) && it.test.is_bound();
        self.own.is_none() && self.constraints.iter().all(is_bound)
    }

    /// The entries of the order by this date between the bounds of the search.
    fn bounds(&self, axis: Axis) -> Range<usize> {
        let dates = self.of.things.by_date(axis);
        let (mut low, mut high) = (0, dates.len());
        for constraint in self.constraints.iter().filter(|it| it.column == column(axis)) {
            match constraint.test {
                Test::Above(Datum::Date(ms)) => {
                    low = low.max(dates.partition_point(|it| it.0 <= ms))
                }
                Test::Below(Datum::Date(ms)) => {
                    high = high.min(dates.partition_point(|it| it.0 < ms))
                }
                _ => {}
            }
        }
        low..high.max(low)
    }

    /// A page of a range. Looks only at the page and at the ties of its first and last thing.
    fn along(&self, axis: Axis, wall: usize, seed: u64) -> Found {
        let dates = &self.of.things.by_date(axis)[self.bounds(axis)];
        let (total, window) = (dates.len(), self.window(dates.len(), wall));
        if window.is_empty() {
            return Found { total, page: Vec::new() };
        }
        let is_descending = self.sort[0].is_descending;
        let part =
            if is_descending { total - window.end..total - window.start } else { window.clone() };
        let (first, last) = (dates[part.start].0, dates[part.end - 1].0);
        let wide =
            dates.partition_point(|it| it.0 < first)..dates.partition_point(|it| it.0 <= last);
        let mut slots: Vec<Slot> = dates[wide.clone()].iter().map(|it| it.1).collect();
        slots.sort_by(|one, other| self.order(*one, *other, seed));
        let before = if is_descending { wide.end - part.end } else { part.start - wide.start };
        Found { total, page: slots[before..before + window.len()].to_vec() }
    }

    /// A page of any search: looks at all things in the narrower of its two ranges.
    fn among(&self, wall: usize, seed: u64) -> Found {
        let ranges = Axis::ALL.map(|axis| (axis, self.bounds(axis)));
        let (axis, range) = ranges.into_iter().min_by_key(|(_, range)| range.len()).unwrap();
        let slots = self.of.things.by_date(axis)[range].iter().map(|it| it.1);
        let mut slots: Vec<Slot> =
            slots.filter(|slot| self.is_found(self.of.things.at(*slot))).collect();
        let (total, window) = (slots.len(), self.window(slots.len(), wall));
        if window.is_empty() {
            return Found { total, page: Vec::new() };
        }
        let order = |one: &Slot, other: &Slot| self.order(*one, *other, seed);
        slots.select_nth_unstable_by(window.end - 1, order);
        slots.truncate(window.end);
        slots.sort_by(order);
        Found { total, page: slots[window].to_vec() }
    }

    /// The places of the page among `total` things.
    fn window(&self, total: usize, wall: usize) -> Range<usize> {
        let end = self.cursor.saturating_add(self.limit).min(total).min(wall);
        self.cursor.min(end)..end
    }

    fn is_found(&self, thing: &Thing) -> bool {
        self.own.is_none_or(|user| *thing.by == *user)
            && self.constraints.iter().all(|it| it.test.holds(it.column.of(thing).as_ref()))
    }

    /// The order by the sort fields. Without any it is by id, and not by creation.
    fn order(&self, one: Slot, other: Slot, seed: u64) -> Ordering {
        let (one, other) = (self.of.things.at(one), self.of.things.at(other));
        if self.sort.is_empty() {
            return one.id.cmp(&other.id);
        }
        for key in &self.sort {
            let order = match (key.column.of(one), key.column.of(other)) {
                (Some(one), Some(other)) => one.order(&other),
                (one, other) => one.is_some().cmp(&other.is_some()),
            };
            let order = if key.is_descending { order.reverse() } else { order };
            if order.is_ne() {
                return order;
            }
        }
        chance(&one.id, seed).cmp(&chance(&other.id, seed))
    }
}

fn column(axis: Axis) -> Column {
    match axis {
        Axis::Created => Column::Created,
        Axis::Modified => Column::Modified,
    }
}

/// A number that looks random, for one id and one request.
fn chance(id: &str, seed: u64) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    id.bytes().fold(seed, mix).rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn count(name: &str, value: &str) -> Result<usize, Problem> {
    value.parse().map_err(|_| Problem::invalid(&format!("{name} {value}")))
}

fn flag(value: &str) -> Result<bool, Problem> {
    value.parse().map_err(|_| Problem::invalid(&format!("not true or false: {value}")))
}
