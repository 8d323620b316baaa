//! The triggers of a captured table and their functions, as SQL.
//!
//! [`crate::source::changes::capture`] states what they guarantee. docs/BENCHMARKS.md has their
//! cost, and the reasons for their form.

use std::time::Duration;

use crate::model::sql::{dollar_quoted, ident, literal};
use crate::source::changes::capture::{UsedColumns, axis_key};
use crate::source::reading::axis::Axis;

/// The triggers of a captured table, each with its event. Their names sort after most others, so
/// the application's own triggers run first.
pub(super) const TRIGGERS: [(&str, Fires); 4] = [
    ("tallymark_delete", Fires::Row { event: "DELETE", rows: &["OLD"] }),
    ("tallymark_insert", Fires::Row { event: "INSERT", rows: &["NEW"] }),
    ("tallymark_truncate", Fires::Truncate),
    ("tallymark_update", Fires::Row { event: "UPDATE", rows: &["OLD", "NEW"] }),
];

/// A transaction's list of marked hours may have this many bytes before it switches to days: about
/// 170 hours, a week. Each further late row is looked up in it.
const HOURS_BYTES_MAX: usize = 2816;

/// The list of marked days may have this many bytes before it switches to units of 32 days: about
/// 125 days.
const DAYS_BYTES_MAX: usize = 1920;

/// Placeholder for the start of a function's body, until its quotes are known. It cannot occur in a
/// name.
pub(super) const BODY: &str = "\0";

/// Seconds since 1970 of 1900 and of 2100. Between them hours are exact: fractions of seconds
/// divided by 3600 in floating point never round up to the next hour. Times outside count as one
/// range on either side.
const SECONDS: [i64; 2] = [-2_208_988_800, 4_102_444_800];

/// When a trigger fires.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fires {
    /// After each late row.
    Row { event: &'static str, rows: &'static [&'static str] },
    /// After the statement.
    Truncate,
}

/// The functions of the capture `name`: the triggers' function, and the function that marks.
pub(super) fn signatures(name: &str) -> [String; 2] {
    let mark = ident(&format!("{name}_mark"));
    [
        format!("tallymark.{}()", ident(name)),
        format!("tallymark.{mark}(oid, text, text, double precision, double precision)"),
    ]
}

/// The statement that creates the triggers' function.
pub(super) fn function(name: &str, axes: &[Axis]) -> String {
    let mut looks = String::new();
    for (place, axis) in axes.iter().enumerate() {
        for row in ["OLD", "NEW"] {
            let (first, last) = axis.seconds(row);
            let (first, last) = (within(&first), last.as_deref().map(within));
            // Days with the same first unit may differ in their last one, where clocks change.
            let key = match &last {
                None => vec![text(&format!(";{place}:")), unit_of(&first), text("=")],
                Some(last) => {
                    let (from, to) = (unit_of(&first), unit_of(last));
                    vec![text(&format!(";{place}:")), from, text("-"), to, text("=")]
                }
            };
            let last = last.as_ref().unwrap_or(&first);
            looks.push_str(&format!(
                include_str!("capture_axis.sql"),
                value = format!("{row}.{}", ident(axis.column())),
                key = key.join(" OPERATOR(pg_catalog.||) "),
                name = name,
                axis = literal(&axis_key(axis)),
                first = first,
                last = last,
                first_hour = hour_of(&first),
                last_hour = hour_of(last),
            ));
        }
    }
    quoted(&format!(
        include_str!("capture_function.sql"),
        name = name,
        quote = BODY,
        axes = looks.trim_end()
    ))
}

/// A statement that creates a function, whose body starts at [`BODY`].
pub(super) fn quoted(statement: &str) -> String {
    match statement.split_once(BODY) {
        Some((head, body)) => format!("{head}{}", dollar_quoted(body)),
        None => statement.to_owned(),
    }
}

/// `text` as a literal with a fixed type, which operators of the session cannot change.
fn text(text: &str) -> String {
    format!("{}::pg_catalog.text", literal(text))
}

/// `seconds`, an expression, limited to [`SECONDS`].
fn within(seconds: &str) -> String {
    let [low, high] = SECONDS;
    format!("greatest(least({seconds}, {high}), {low})")
}

/// The unit that contains the `seconds`, as text. The list starts with the unit's length.
fn unit_of(seconds: &str) -> String {
    format!(
        "pg_catalog.floor({seconds} OPERATOR(pg_catalog./) pg_catalog.split_part(seen, {}, \
         1)::double precision)::bigint::pg_catalog.text",
        text(";")
    )
}

/// The hour that contains the `seconds`.
fn hour_of(seconds: &str) -> String {
    format!("pg_catalog.floor({seconds} OPERATOR(pg_catalog./) 3600::double precision)::bigint")
}

/// The statement that creates the function that marks.
pub(super) fn mark_function(name: &str, axes: &[Axis]) -> String {
    let mut columns: Vec<&str> = axes.iter().map(Axis::column).collect();
    columns.sort_unstable();
    columns.dedup();
    let columns_quoted: Vec<String> = columns.iter().map(|column| literal(column)).collect();
    let everything: Vec<String> =
        axes.iter().map(|axis| format!("({})", literal(&axis_key(axis)))).collect();
    let [low, high] = SECONDS;
    quoted(&format!(
        include_str!("capture_mark.sql"),
        name = name,
        quote = BODY,
        columns_max = columns.len(),
        columns = columns_quoted.join(", "),
        everything = everything.join(", "),
        hours_max = HOURS_BYTES_MAX,
        days_max = DAYS_BYTES_MAX,
        low = low,
        high = high,
    ))
}

/// The statement that creates one trigger on `relation`. An update is marked only if it changes one
/// of the columns `used`.
pub(super) fn trigger(
    (name, fires): (&str, Fires),
    relation: &str,
    function: &str,
    (axes, grace): (&[Axis], Duration),
    used: &UsedColumns,
) -> String {
    let Fires::Row { event, rows } = fires else {
        return format!(
            "CREATE TRIGGER {name} AFTER TRUNCATE ON {relation} FOR EACH STATEMENT EXECUTE \
             FUNCTION {function}"
        );
    };
    let cutoff = format!("clock_timestamp() - interval '{} ms'", grace.as_millis());
    let late: Vec<String> = axes.iter().map(|axis| axis.is_before(rows, &cutoff)).collect();
    let late = late.join(" OR ");
    let changed = if rows.len() == 2 { used.changed() } else { None };
    let when = match changed {
        // The cheap condition comes first, as nearly all rows are fresh.
        Some(changed) => format!("({late}) AND {changed}"),
        None => late,
    };
    format!(
        "CREATE TRIGGER {name} AFTER {event} ON {relation} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION \
         {function}"
    )
}
