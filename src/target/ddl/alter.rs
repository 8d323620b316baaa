//! The difference between an existing rollup table and its definition: new measures are added,
//! every other difference is refused with its remedy.

use super::{ColumnSpec, DdlError, collate};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::sql::ident;
use crate::target::ready::{self, TableColumn};

/// Adds new measures. Refuses every other difference.
pub(super) fn alter_rollup(
    rollup: &Rollup,
    table: &str,
    wanted: &[ColumnSpec],
    found: &[TableColumn],
) -> Result<Vec<String>, DdlError> {
    let incompatible = |problem: Fault| DdlError::Incompatible {
        rollup: rollup.name.clone(),
        table: table.to_owned(),
        problem,
    };
    // The columns of a live view are those of the table.
    let alter = match (rollup.live, table.strip_suffix('"')) {
        (true, Some(name)) => format!("DROP VIEW IF EXISTS {name}_live\"; ALTER TABLE {table}"),
        _ => format!("ALTER TABLE {table}"),
    };
    if let Some(problem) = surplus(&alter, wanted, found) {
        return Err(incompatible(problem));
    }
    let mut statements = Vec::new();
    for column in wanted {
        let name = ident(&column.name);
        let Some(known) = found.iter().find(|known| known.name == column.name) else {
            if !column.may_be_added {
                return Err(incompatible(
                    Fault::new(format!("lacks the dimension {name}"))
                        .remedy("give the rollup with other dimensions a new name"),
                ));
            }
            let (sql_type, rest) = (&column.sql_type, &column.rest);
            statements.push(format!("ALTER TABLE {table} ADD COLUMN {name} {sql_type}{rest}"));
            continue;
        };
        if known.sql_type != column.sql_type {
            return Err(incompatible(retyped(&alter, column, known, wanted)));
        }
        let (collation, generated) = (column.collation.as_ref(), column.generated);
        if let Some(problem) = ready::column_problem(table, known, collation, generated) {
            return Err(incompatible(problem));
        }
        if column.name == "bucket" && !known.is_not_null {
            statements.push(format!("ALTER TABLE {table} ALTER COLUMN bucket SET NOT NULL"));
        }
    }
    Ok(statements)
}

/// Why columns beyond the definition are in the way. A statement that drops them is offered only
/// where they are certainly measures, because they follow all columns of the definition.
fn surplus(alter: &str, wanted: &[ColumnSpec], found: &[TableColumn]) -> Option<Fault> {
    let is_wanted = |name: &String| wanted.iter().any(|column| &column.name == name);
    let first = found.iter().position(|column| !is_wanted(&column.name))?;
    let name = ident(&found[first].name);
    // `init` creates the dimensions first, then the measures.
    let first_measure = wanted
        .iter()
        .filter(|column| column.may_be_added)
        .filter_map(|column| found.iter().position(|known| known.name == column.name))
        .min();
    let dimension_is_gone = first_measure.is_none_or(|measure| first < measure);
    if dimension_is_gone {
        let fault = Fault::new(format!(
            "has a column {name} that the definition lacks; if it is a dimension, its rows cannot be \
             told apart without it"
        ));
        return Some(
            fault.remedy("put it back into group_by, or give the changed rollup a new name"),
        );
    }
    // Starts with the last, as a mean is generated from the columns before it.
    let surplus: Vec<String> = found
        .iter()
        .rev()
        .filter(|column| !is_wanted(&column.name))
        .map(|column| format!("DROP COLUMN {}", ident(&column.name)))
        .collect();
    Some(Fault::new(format!("has a column {name} that the definition lacks")).remedy(format!(
        "put it back, or give the changed rollup a new name, or, if a measure is no longer wanted: \
         {alter} {}; then run `tallymark init`",
        surplus.join(", "),
    )))
}

/// The remedy for a column whose type has changed. Where each old value keeps its meaning in the
/// new type, the table can be altered, and keeps rows whose source is purged.
fn retyped(alter: &str, column: &ColumnSpec, known: &TableColumn, wanted: &[ColumnSpec]) -> Fault {
    let (name, old, new) = (ident(&column.name), &known.sql_type, &column.sql_type);
    if column.generated || !is_wider(old, new) {
        let fault =
            Fault::new(format!("has column {name} of type {old}, the definition now gives {new}"));
        return fault.remedy("give the changed rollup a new name");
    }
    // A mean is computed from the column, and `init` creates it again.
    let means = wanted.iter().filter(|mean| mean.generated && mean.rest.contains(&name));
    let means: String =
        means.map(|mean| format!("DROP COLUMN IF EXISTS {}, ", ident(&mean.name))).collect();
    let fault = Fault::new(format!(
        "has column {name} of type {old}, the definition now gives {new}, which holds every value of it"
    ));
    fault.remedy(format!(
        "keep the rows: {alter} {means}ALTER COLUMN {name} TYPE {new}{}; then run \
         `tallymark init`",
        collate(column.collation.as_ref())
    ))
}

/// Whether every value of type `old` is a value of `new`, with the same equality.
fn is_wider(old: &str, new: &str) -> bool {
    const INTEGERS: [&str; 4] = ["smallint", "integer", "bigint", "numeric"];
    const TEXTS: [&str; 2] = ["character varying", "text"];
    let place = |name: &str| INTEGERS.iter().position(|known| *known == name);
    let length = |name: &str| -> Option<u32> {
        name.strip_prefix("character(")?.strip_suffix(')')?.parse().ok()
    };
    if let (Some(old), Some(new)) = (place(old), place(new)) {
        return old < new;
    }
    if let (Some(old), Some(new)) = (length(old), length(new)) {
        return old < new;
    }
    match (old, new) {
        ("real", "double precision") | ("date", "timestamp without time zone") => true,
        (old, "bpchar") => length(old).is_some(),
        (old, "bit varying") => old.starts_with("bit("),
        (old, new) => TEXTS.contains(&new) && (TEXTS.contains(&old) || length(old).is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_type_that_holds_every_old_value_is_wider() {
        for (old, new) in [
            ("smallint", "integer"),
            ("integer", "bigint"),
            ("bigint", "numeric"),
            ("real", "double precision"),
            ("character varying", "text"),
            ("text", "character varying"),
            ("character(3)", "character(5)"),
            ("character(3)", "text"),
        ] {
            assert!(is_wider(old, new), "{old} {new}");
        }
        for (old, new) in [
            ("bigint", "integer"),
            ("numeric", "bigint"),
            ("double precision", "real"),
            ("bigint", "double precision"),
            ("text", "integer"),
            ("text", "character(3)"),
            ("character(5)", "character(3)"),
            ("text", "uuid"),
        ] {
            assert!(!is_wider(old, new), "{old} {new}");
        }
    }
}
