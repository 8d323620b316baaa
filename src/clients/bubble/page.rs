//! One answer of a search: decoded, and checked against what was asked.
//!
//! Bubble has ways to answer with other things than those that were asked for, and with status 200.
//! Each of them is an error here that names it.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::search::{CREATED, ID, MODIFIED, ThingSearch};
use super::{AppError, Units};
use crate::model::clock::rfc3339;
use crate::model::hint::Fault;
use crate::model::text::shown;

/// The values of a thing by their keys, each as the JSON that Bubble sent. Numbers keep their
/// digits.
type Values = BTreeMap<String, Box<RawValue>>;

/// One thing of the app.
#[derive(Clone, Debug)]
pub(crate) struct Thing {
    pub(crate) id: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) modified_at: DateTime<Utc>,
    pub(crate) values: Values,
}

/// The things that a search returned.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) things: Vec<Thing>,
    /// Things of the range in all, before, in and after this page.
    pub(crate) total: u64,
    /// Things of the range after this page.
    pub(crate) remaining: u64,
    /// The time by the app's clock.
    pub(crate) answered_at: DateTime<Utc>,
    /// What the answer cost.
    pub(crate) units: Units,
}

#[derive(Deserialize)]
struct Envelope {
    response: SearchResult,
}

#[derive(Deserialize)]
struct SearchResult {
    cursor: u64,
    results: Vec<Values>,
    count: u64,
    remaining: u64,
}

impl Page {
    /// The page in `body`, the answer to `search` at `answered_at`.
    ///
    /// # Errors
    /// It is no answer of the Data API, or not the answer to this search.
    pub(super) fn decode(
        body: &[u8],
        answered_at: DateTime<Utc>,
        search: &ThingSearch<'_>,
    ) -> Result<Self, AppError> {
        let found: Envelope = serde_json::from_slice(body).map_err(|_| no_json(body))?;
        let SearchResult { cursor, results, count, remaining } = found.response;
        let returned = results.len() as u64;
        if cursor != search.offset || count != returned || returned > search.limit {
            return refused(
                format!(
                    "the app was asked for {} things from the offset {} on, says that it returns \
                     {count} from {cursor} on, and returns {returned}",
                    search.limit, search.offset
                ),
                "report it: the Data API behaves in a way that is unknown",
            );
        }
        if returned < search.limit && remaining > 0 {
            return refused(
                format!(
                    "the page is shorter than it says: {returned} of {} things at the offset \
                     {cursor}, and {remaining} remain after it; Bubble ends a search at 50,000",
                    search.limit
                ),
                "run the command again; if it stays, report it",
            );
        }
        let things: Vec<Thing> = results.into_iter().map(thing).collect::<Result<_, _>>()?;
        as_asked(&things, search)?;
        Ok(Self {
            things,
            total: cursor + count + remaining,
            remaining,
            answered_at,
            units: Units::of_search(returned, body.len() as u64),
        })
    }
}

/// An answer with status 200 that is no result of a search: a page of maintenance or of a login.
fn no_json(body: &[u8]) -> AppError {
    let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
    AppError::Busy {
        fault: Fault::new(format!(
            "the app answers with status 200 and no result of its Data API: {}",
            shown(start.trim())
        ))
        .remedy("open the app's address in a browser: it may be under maintenance"),
        retry_after: None,
    }
}

fn refused<T>(facts: String, remedy: &str) -> Result<T, AppError> {
    Err(AppError::Refused(Fault::new(facts).remedy(remedy)))
}

fn thing(mut values: Values) -> Result<Thing, AppError> {
    let mut text = |key: &str| -> Result<String, AppError> {
        let raw = values.remove(key);
        let text = raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        match text {
            Some(text) => Ok(text),
            None => refused(
                format!("a thing has no `{key}`, so the token may not see it"),
                "use the token of Settings → API, which privacy rules do not concern",
            ),
        }
    };
    let id = text(ID)?;
    let created_at = instant(CREATED, &text(CREATED)?)?;
    let modified_at = instant(MODIFIED, &text(MODIFIED)?)?;
    Ok(Thing { id, created_at, modified_at, values })
}

/// Bubble's dates have 24 characters: UTC, with milliseconds.
pub(crate) fn instant(key: &str, text: &str) -> Result<DateTime<Utc>, AppError> {
    let parsed = text.parse::<DateTime<Utc>>().ok();
    match parsed.filter(|_| text.len() == 24 && text.ends_with('Z')) {
        Some(at) => Ok(at),
        None => refused(
            format!("`{key}` is {}, which is no date of Bubble's", shown(text)),
            "report it: the Data API behaves in a way that is unknown",
        ),
    }
}

/// Compares the things with the search: a constraint that the token's rights exclude is ignored
/// without a word, and so may be an order.
fn as_asked(things: &[Thing], search: &ThingSearch<'_>) -> Result<(), AppError> {
    let by = search.by;
    let time = |it: &Thing| if by == CREATED { it.created_at } else { it.modified_at };
    let is_outside = |it: &&Thing| time(it) < search.from || time(it) >= search.until;
    let is_young =
        |it: &&Thing| search.created_before.is_some_and(|before| it.created_at >= before);
    let outside = things.iter().find(is_outside).map(|it| (by, it, time(it)));
    let young = || things.iter().find(is_young).map(|it| (CREATED, it, it.created_at));
    if let Some((key, outside, at)) = outside.or_else(young) {
        return refused(
            format!(
                "the app ignores the constraint on `{key}`: that of thing {} is {}, outside of the \
                 range that was asked for",
                shown(&outside.id),
                rfc3339(at)
            ),
            "use the token of Settings → API: with fewer rights, Bubble drops constraints",
        );
    }
    if let Some(pair) = things.windows(2).find(|pair| time(&pair[1]) < time(&pair[0])) {
        return refused(
            format!(
                "the app ignores the order by `{by}`: thing {} follows a later one",
                shown(&pair[1].id)
            ),
            "use the token of Settings → API",
        );
    }
    let mut seen = HashSet::new();
    if let Some(twice) = things.iter().find(|thing| !seen.insert(thing.id.as_str())) {
        return refused(
            format!("thing {} is twice in one page", shown(&twice.id)),
            "report it: the Data API behaves in a way that is unknown",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hint::Hinted as _;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn search(limit: u64) -> ThingSearch<'static> {
        let (from, until) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        ThingSearch { limit, ..ThingSearch::page("order", from, until, 0) }
    }

    fn row(id: &str, created: &str) -> String {
        format!(
            r#"{{"_id":"{id}","Created Date":"{created}","Modified Date":"{created}","amount":0.30}}"#
        )
    }

    fn answer(rows: &[String], count: usize, remaining: u64) -> String {
        let rows = rows.join(",");
        format!(
            r#"{{"response":{{"cursor":0,"results":[{rows}],"count":{count},"remaining":{remaining}}}}}"#
        )
    }

    #[test]
    fn digits_stay_as_they_were_sent() {
        let body = answer(&[row("1x1", "2026-01-01T10:00:00.123Z")], 1, 0);
        let now = at("2026-01-03T00:00:00Z");
        let page = Page::decode(body.as_bytes(), now, &search(100)).unwrap();
        assert_eq!((page.total, page.remaining), (1, 0));
        let thing = &page.things[0];
        assert_eq!(thing.created_at, at("2026-01-01T10:00:00.123Z"));
        assert_eq!(thing.values["amount"].get(), "0.30");
    }

    #[test]
    fn a_thing_that_was_created_too_late_is_not_what_was_asked_for() {
        let day = "2026-01-01T10:00:00.000Z";
        let (asked, body) = (search(100), answer(&[row("1x1", day)], 1, 0));
        let asked = ThingSearch::changes("order", (asked.from, asked.until), at(day), 0);
        let error = Page::decode(body.as_bytes(), at(day), &asked).unwrap_err();
        assert!(error.to_string().contains("the constraint on `Created Date`"), "{error}");
    }

    #[test]
    fn each_way_to_answer_something_else_is_an_error_that_names_it() {
        let day = "2026-01-01T10:00:00.000Z";
        let (one, other) = (row("1x1", day), row("1x2", "2026-01-01T09:00:00.000Z"));
        for (body, limit, said) in [
            (
                answer(&[row("1x1", "2026-01-02T00:00:00.000Z")], 1, 0),
                100,
                "ignores the constraint",
            ),
            (answer(&[one.clone(), other], 2, 0), 100, "ignores the order"),
            (answer(&[one.clone(), one.clone()], 2, 0), 100, "twice in one page"),
            (answer(std::slice::from_ref(&one), 1, 3), 100, "shorter than it says"),
            (answer(&[], 0, 7), 100, "shorter than it says"),
            (answer(std::slice::from_ref(&one), 2, 0), 100, "says that it returns 2"),
            (answer(&[one.clone(), row("1x2", day)], 2, 0), 1, "returns 2"),
            (answer(&[r#"{"_id":"1x1"}"#.into()], 1, 0), 100, "has no `Created Date`"),
            (answer(&[row("1x1", "2026-01-01T10:00:00Z")], 1, 0), 100, "no date of Bubble's"),
            ("<html>login</html>".into(), 100, "no result of its Data API"),
            (r#"{"status":"ok"}"#.into(), 100, "no result of its Data API"),
        ] {
            let error = Page::decode(body.as_bytes(), at(day), &search(limit)).unwrap_err();
            assert!(error.to_string().contains(said), "{said}: {error}");
            assert!(error.hint().is_some(), "{error}");
        }
    }
}
