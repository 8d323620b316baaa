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

/// The columns of the view that a page shows, with their headings.
const COLUMNS: [(&str, &str); 9] = [
    ("complete through", "complete_through"),
    ("expected through", "expected_through"),
    ("open through", "open_through"),
    ("missing slices", "missing"),
    ("stale slices", "stale"),
    ("failing slices", "failing"),
    ("settled by", "settled_by"),
    ("verified through", "verified_through"),
    ("checked at", "checked_at"),
];

/// A row of `tallymark.coverage`: the values of [`COLUMNS`] as texts.
pub(super) struct Coverage(Vec<Option<String>>);

impl Coverage {
    /// The coverage of `rollup`. `None`: the target does not know the rollup.
    pub(super) async fn read(worker: &Worker, rollup: &Rollup) -> Result<Option<Self>, Fault> {
        let columns: Vec<_> = COLUMNS.iter().map(|(_, it)| format!("{it}::text")).collect();
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
                (pairs(&COLUMNS.iter().zip(cells).map(|((title, _), it)| (*title, cell(it))).collect::<Vec<_>>()))
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
