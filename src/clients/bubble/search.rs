//! A search of things by the time of their creation, as a request of the Data API.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::clients::address::encoded;

/// Things that a search returns at most. Bubble cuts a higher `limit` down without a word.
pub(crate) const PAGE_MAX: u64 = 100;

/// The key of the time of creation.
pub(crate) const CREATED: &str = "Created Date";
/// The key of the time of the last change.
pub(crate) const MODIFIED: &str = "Modified Date";
/// The key of a thing's unique ID.
pub(crate) const ID: &str = "_id";

/// Things of one type whose time `by` is in `[from, until)`, the earliest first, equal times by ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ThingSearch<'s> {
    /// The type, as in the address of the Data API.
    pub(crate) thing: &'s str,
    /// [`CREATED`] or [`MODIFIED`].
    pub(crate) by: &'static str,
    pub(crate) from: DateTime<Utc>,
    pub(crate) until: DateTime<Utc>,
    /// Things that were created at this instant or later are left out.
    pub(crate) created_before: Option<DateTime<Utc>>,
    /// Things to pass over.
    pub(crate) offset: u64,
    /// Things to return, at most [`PAGE_MAX`].
    pub(crate) limit: u64,
    /// A field that must be empty and not empty at once, so that no thing is found, unless the app
    /// ignores constraints on it.
    pub(crate) contradicts: Option<&'s str>,
}

impl<'s> ThingSearch<'s> {
    /// The first things of a range.
    #[must_use]
    pub(crate) const fn page(
        thing: &'s str,
        from: DateTime<Utc>,
        until: DateTime<Utc>,
        offset: u64,
    ) -> Self {
        Self {
            thing,
            by: CREATED,
            from,
            until,
            created_before: None,
            offset,
            limit: PAGE_MAX,
            contradicts: None,
        }
    }

    /// The first things of a range of changes, of those that were created before an instant.
    #[must_use]
    pub(crate) const fn changes(
        thing: &'s str,
        (from, until): (DateTime<Utc>, DateTime<Utc>),
        created_before: DateTime<Utc>,
        offset: u64,
    ) -> Self {
        let created_before = Some(created_before);
        Self { by: MODIFIED, created_before, ..Self::page(thing, from, until, offset) }
    }

    /// A search for the number of things of a range. Bubble returns at least one thing.
    #[must_use]
    pub(crate) const fn count(thing: &'s str, from: DateTime<Utc>, until: DateTime<Utc>) -> Self {
        Self { limit: 1, ..Self::page(thing, from, until, 0) }
    }

    /// Path and query, below the address of the app's branch.
    #[must_use]
    pub(super) fn path(&self) -> String {
        let order = json!([{ "sort_field": ID, "descending": "false" }]);
        format!(
            "/api/1.1/obj/{}?constraints={}&cursor={}&limit={}&sort_field={}&descending=false\
             &additional_sort_fields={}",
            encoded(self.thing),
            encoded(&self.constraints().to_string()),
            self.offset,
            self.limit,
            encoded(self.by),
            encoded(&order.to_string()),
        )
    }

    /// Bubble has neither ≥ nor ≤ for dates, and its dates have milliseconds. So a range begins
    /// after the millisecond before it.
    fn constraints(&self) -> Value {
        let bound = |key: &str, kind: &str, at: DateTime<Utc>| {
            let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
            json!({ "key": key, "constraint_type": kind, "value": at })
        };
        let mut all = vec![
            bound(self.by, "greater than", self.from - TimeDelta::milliseconds(1)),
            bound(self.by, "less than", self.until),
        ];
        all.extend(self.created_before.map(|at| bound(CREATED, "less than", at)));
        for kind in ["is_empty", "is_not_empty"] {
            all.extend(self.contradicts.map(|key| json!({ "key": key, "constraint_type": kind })));
        }
        all.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_begins_after_the_millisecond_before_it_and_ties_are_in_order_of_their_ids() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let (from, until) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        let search = ThingSearch::page("tbl.conta pagar", from, until, 7);
        let path = search.path();
        assert!(path.starts_with("/api/1.1/obj/tbl.conta%20pagar?constraints=%5B%7B"), "{path}");
        assert!(path.contains("&cursor=7&limit=100&sort_field=Created%20Date&"), "{path}");
        let by_id = "&additional_sort_fields=%5B%7B%22descending%22%3A%22false%22%2C%22sort_field%22%3A%22_id%22";
        assert!(path.contains(by_id), "{path}");
        assert!(path.len() < 2_000, "{}", path.len());
        let bounds = search.constraints();
        assert_eq!(bounds[0]["value"], "2025-12-31T23:59:59.999Z");
        assert_eq!(bounds[0]["constraint_type"], "greater than");
        assert_eq!(bounds[1]["value"], "2026-01-02T00:00:00.000Z");
        let changes = ThingSearch::changes("order", (from, until), from, 0).constraints();
        assert_eq!((&changes[0]["key"], &changes[2]["key"]), (&MODIFIED.into(), &CREATED.into()));
        assert_eq!(changes[2]["constraint_type"], "less than");
        assert_eq!(changes[2]["value"], "2026-01-01T00:00:00.000Z");
    }
}
