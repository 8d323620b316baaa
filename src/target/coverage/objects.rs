//! The views and functions for readers, and the comments of Tallymark's own objects.

use sqlx::Row as _;

use crate::clients::db::{DbError, Tx};
use crate::model::sql::literal;
use crate::target::beside::marked;

const DOING: &str = "looking at the comments of Tallymark's objects";

/// An object: its kind and name, the statement that makes it, and its meaning. Tables have their
/// statements elsewhere.
struct Object {
    kind: &'static str,
    name: &'static str,
    sql: &'static str,
    comment: &'static str,
}

/// In the order in which they are made.
const OBJECTS: [Object; 19] = [
    table("tallymark.slice", "One marker per slice: the attempt that has it, and its rows' origin"),
    table("tallymark.progress", "How far the chunks of an unfinished slice are"),
    table("tallymark.rollup", "The registry of rollups, with their tables and installations"),
    table("tallymark.installation", "One row per installation of Tallymark"),
    table("tallymark.outstanding", "Slices that had to run again, by generations"),
    table("tallymark.checked", "What the last tick has found about each rollup"),
    function(
        "tallymark.outdated_windows(text, timestamptz, timestamptz)",
        include_str!("outdated_windows.sql"),
        "The trailing windows of a rollup that lack a change of their finer slices",
    ),
    function(
        "tallymark.slices_of(text, timestamptz, timestamptz)",
        include_str!("slices_of.sql"),
        "The slices of a rollup that overlap a range and have numbers or are stale",
    ),
    function(
        "tallymark.incomplete(text, text, timestamptz, timestamptz)",
        include_str!("../series/incomplete.sql"),
        "The parts of a range in which a rollup is not complete",
    ),
    function(
        "tallymark.standing_of(text, text, timestamptz[])",
        include_str!("../series/standing.sql"),
        "How far the steps of a series are computed",
    ),
    function(
        "tallymark.reached(timestamp, text)",
        include_str!("../series/reached.sql"),
        "The instant from which on the clocks of a zone show a time or later",
    ),
    function(
        "tallymark.days_begin(date[], text)",
        include_str!("../series/days.sql"),
        "The instants at which days begin in a zone",
    ),
    function(
        "tallymark.clock_steps(bigint, text, timestamptz, timestamptz)",
        include_str!("../series/clock_steps.sql"),
        "The instants at which steps of less than a day begin in a zone",
    ),
    function(
        "tallymark.inside_bucket(timestamptz[], interval, text, integer)",
        include_str!("../series/inside_bucket.sql"),
        "The first of some instants at which no bucket of a rollup begins",
    ),
    function(
        "tallymark.steps_of(text, text, integer, timestamptz, timestamptz, interval, text)",
        include_str!("../series/steps.sql"),
        "The starts of the steps of a series",
    ),
    function(
        "tallymark.refuse_unknown(text[], text[], jsonb)",
        include_str!("../series/refuse_unknown.sql"),
        "An error where a series is asked for by what is no dimension",
    ),
    function(
        "tallymark.plain_until(text)",
        include_str!("plain_until.sql"),
        "The instant before which every slice of a rollup, and of those that it is computed from, is \
         complete, sealed, deleted or empty",
    ),
    Object {
        kind: "VIEW",
        name: "tallymark.slice_state",
        sql: include_str!("slice_state.sql"),
        comment: "For readers: the slices that are open, stale, failing, sealed or adopted, and why",
    },
    Object {
        kind: "VIEW",
        name: "tallymark.coverage",
        sql: include_str!("coverage.sql"),
        comment: "For readers: one row per rollup. Every slice before complete_through holds all \
                  changes that were committed before checked_at",
    },
];

const fn table(name: &'static str, comment: &'static str) -> Object {
    Object { kind: "TABLE", name, sql: "", comment }
}

const fn function(name: &'static str, sql: &'static str, comment: &'static str) -> Object {
    Object { kind: "FUNCTION", name, sql, comment }
}

impl Object {
    /// The comment, with a mark of the statement.
    fn described(&self) -> String {
        if self.sql.is_empty() {
            return self.comment.to_owned();
        }
        marked(self.comment, self.sql)
    }
}

/// The statements that make the views and functions, where one is missing or different.
pub(in crate::target) async fn objects(tx: &mut Tx) -> Result<Vec<String>, DbError> {
    let names: Vec<String> = OBJECTS.iter().map(|object| literal(object.name)).collect();
    let sql = format!(include_str!("comments.sql"), names = format!("ARRAY[{}]", names.join(", ")));
    let rows = tx.rows(DOING, sql).await?;
    let found = rows.iter().map(|row| row.try_get::<Option<String>, _>("comment"));
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|source| tx.error(DOING, source))?;
    let mut statements = Vec::new();
    for (object, found) in OBJECTS.iter().zip(found) {
        let described = object.described();
        if found.as_ref() == Some(&described) {
            continue;
        }
        if !object.sql.is_empty() {
            statements.push(object.sql.trim().to_owned());
        }
        let Object { kind, name, .. } = object;
        statements.push(format!("COMMENT ON {kind} {name} IS {}", literal(&described)));
    }
    Ok(statements)
}
