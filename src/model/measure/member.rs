//! The canonical form of a column's values: one form for all values that PostgreSQL calls equal.

use super::{Column, Input};
use crate::model::hint::Fault;
use crate::model::sql::ident;

/// The values of a column in their canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// The form over the source's rows.
    pub(super) sql: String,
    /// Its type, which every database knows.
    pub(super) sql_type: String,
}

/// The types whose equal values are the same in every form.
const PLAIN: [&str; 16] = [
    "smallint",
    "integer",
    "bigint",
    "oid",
    "boolean",
    "bytea",
    "date",
    "time without time zone",
    "time with time zone",
    "timestamp without time zone",
    "timestamp with time zone",
    "uuid",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
];

impl Member {
    /// The canonical form of the values of the measure's column.
    ///
    /// # Errors
    /// Its type has none.
    pub(super) fn of(input: &Input<'_>) -> Result<Self, Fault> {
        let name = &input.measure.name;
        let Some(column) = input.columns.first() else {
            return Err(Fault::new(format!("measures.{name}: lacks its column")));
        };
        if !column.deterministic {
            let fault = Fault::new(format!(
                "measures.{name}: {} has a nondeterministic collation, so equal texts may \
                 differ",
                column.in_words()
            ));
            return Err(fault.remedy(format!("{}, such as to COLLATE \"C\"", column.recast())));
        }
        Self::of_type(column).ok_or_else(|| {
            Fault::new(format!(
                "measures.{name}: {} is of type {}, whose equal values have several forms",
                column.in_words(),
                column.sql_type
            ))
            .remedy(format!("{}, or leave `merge` out", column.recast()))
        })
    }

    fn of_type(column: &Column) -> Option<Self> {
        let value = ident(&column.name);
        let of = |sql: String, sql_type: &str| Some(Self { sql, sql_type: sql_type.to_owned() });
        match column.base_type.as_str() {
            plain if PLAIN.contains(&plain) => of(format!("{value}::{plain}"), plain),
            "numeric" => of(format!("trim_scale({value})"), "numeric"),
            // Zero has two signs, and NaN has many forms.
            float @ ("real" | "double precision") => of(
                format!(
                    "CASE {value} WHEN 0 THEN 0 WHEN 'NaN' THEN 'NaN' ELSE {value} END::{float}"
                ),
                float,
            ),
            _ if column.is_enum || is_text(column) => {
                of(format!("{value}::text{}", collation("text")), "text")
            }
            _ => None,
        }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> String {
        let value = &self.sql;
        match self.sql_type.as_str() {
            "smallint" | "integer" | "bigint" => format!("int8send({value}::bigint)"),
            "real" | "double precision" => format!("float8send(({value})::double precision)"),
            "bytea" => value.clone(),
            "uuid" => format!("uuid_send({value})"),
            // The settings of each transaction decide the form of dates and times.
            _ => format!("convert_to(({value})::text, 'UTF8')"),
        }
    }
}

fn is_text(column: &Column) -> bool {
    let base = column.base_type.as_str();
    matches!(base, "text" | "character varying" | "bpchar" | "name" | "\"char\"")
        || base.starts_with("character(")
}

/// The order of members of this type, the same in every database.
pub(super) fn collation(sql_type: &str) -> &'static str {
    if sql_type == "text" { " COLLATE \"C\"" } else { "" }
}

/// The column of the set or sketch of the measure `name`.
pub(super) fn set_of(name: &str) -> String {
    format!("{name}_set")
}
