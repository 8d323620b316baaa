//! What readers are told of a rollup, as the target says it.

use maud::{Markup, html};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::html::{foreign, pairs};
use super::target::ask;
use super::words::told;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::sql::literal;
use crate::work::worker::Worker;

const DOING: &str = "reading coverage";

/// What a column of the view holds.
#[derive(Clone, Copy)]
enum Kind {
    Instant,
    Text,
}

/// The columns of the view that a page shows, with their headings.
const COLUMNS: [(&str, &str, Kind); 9] = [
    ("complete through", "complete_through", Kind::Instant),
    ("expected through", "expected_through", Kind::Instant),
    ("open through", "open_through", Kind::Instant),
    ("missing slices", "missing", Kind::Text),
    ("stale slices", "stale", Kind::Text),
    ("failing slices", "failing", Kind::Text),
    ("settled by", "settled_by", Kind::Text),
    ("verified through", "verified_through", Kind::Instant),
    ("checked at", "checked_at", Kind::Instant),
];

/// The expression that reads a column as the text that a page shows.
fn shown(column: &str, kind: Kind) -> String {
    match kind {
        // As the other instants of a page. An infinite one has no such form.
        Kind::Instant => format!(
            "coalesce(to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), {column}::text)"
        ),
        Kind::Text => format!("{column}::text"),
    }
}

/// A row of `tallymark.coverage`: the values of [`COLUMNS`] as texts.
pub(super) struct Coverage(Vec<Option<String>>);

impl Coverage {
    /// The coverage of `rollup`. `None`: the target does not know the rollup.
    pub(super) async fn read(worker: &Worker, rollup: &Rollup) -> Result<Option<Self>, Fault> {
        let columns: Vec<_> =
            COLUMNS.iter().map(|(_, column, kind)| shown(column, *kind)).collect();
        let sql = format!(
            "SELECT {} FROM tallymark.coverage WHERE rollup = {}",
            columns.join(", "),
            literal(&rollup.name)
        );
        let read = |row: &PgRow| {
            (0..COLUMNS.len()).map(|place| row.try_get(place)).collect::<Result<_, _>>().map(Self)
        };
        Ok(ask(worker, rollup, (DOING, sql), read).await?.pop())
    }
}

/// The section about it.
pub(super) fn section(coverage: &Result<Option<Coverage>, Fault>) -> Markup {
    let cell = |text: &Option<String>| text.as_ref().map(|text| html! { (foreign(text)) });
    html! {
        h2 { "Coverage" }
        p { "What readers are told by " code { "tallymark.coverage" } "." }
        @match coverage {
            Ok(Some(Coverage(cells))) => {
                (pairs(&COLUMNS.iter().zip(cells).map(|((title, ..), it)| (*title, cell(it))).collect::<Vec<_>>()))
            }
            Ok(None) => {
                p {
                    "The target does not know this rollup yet: no tick has run since "
                    code { "tallymark init" } "."
                }
            }
            Err(fault) => { p { "It could not be read." } (told(fault)) }
        }
    }
}
