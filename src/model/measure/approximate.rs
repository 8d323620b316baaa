//! A sketch of a column's distinct values, which merges, and the estimate of their number.
//!
//! A value's hash has 64 bits. The first 14 choose one of 16,384 registers. The register keeps the
//! greatest rank of its hashes, the place of the first 1 among the other 50 bits. So the sketch is a
//! function of the set of values, in any order and however it is merged. `unique_count.sql` turns it
//! into a number with a standard error of 1.04 / √16384 = 0.81 %.
//!
//! It has two forms, by its content. Up to [`SPARSE_MAX`] registers in use take 3 bytes each, in
//! ascending order: 14 bits of the register and 6 of the rank. Otherwise each register takes a byte,
//! 16,384 in all.

use super::member::{Member, set_of};
use super::{Columns, Expressions, Field, Function, Generated, Input, Kind, Measure};
use crate::model::hint::Fault;
use crate::model::sql::ident;

/// `{ distinct = "column", merge = "approximate" }`. NULL is not a value.
#[derive(Debug)]
pub(super) struct Approximate;

/// The number of registers.
const REGISTERS: u32 = 1 << 14;

/// The most registers in use for which 3 bytes each are fewer than a byte for each register.
const SPARSE_MAX: u32 = (REGISTERS - 1) / 3;

/// The bits of a hash that decide the rank.
const RANKED: u32 = 50;

const FUNCTIONS: &[Function] = &[
    Function {
        name: "unique_count",
        arguments: "bytea",
        sql: include_str!("sql/unique_count_of_sketch.sql"),
        comment: "For readers: the estimated number of distinct values in a sketch",
    },
    Function {
        name: "merged_sketches",
        arguments: "bytea[]",
        sql: include_str!("sql/merged_sketches.sql"),
        comment: "Sketches of distinct values as one",
    },
    Function {
        name: "gathered_sketches",
        arguments: "bytea[], bytea",
        sql: include_str!("sql/gathered_sketches.sql"),
        comment: "Sketches of distinct values, gathered to be merged",
    },
    Function {
        name: "merge_sets",
        arguments: "bytea",
        sql: include_str!("sql/merge_sketches.sql"),
        comment: "For readers: sketches of distinct values as one",
    },
];

impl Kind for Approximate {
    fn word(&self) -> &'static str {
        "distinct"
    }

    fn choice(&self) -> Option<(&'static str, &'static str)> {
        Some(("merge", "approximate"))
    }

    fn approximation(&self) -> Option<&'static str> {
        Some("a number of distinct values has a standard error of 0.81 %")
    }

    fn functions(&self) -> &'static [Function] {
        FUNCTIONS
    }

    fn names(&self, measure: &Measure) -> Vec<String> {
        vec![measure.name.clone(), set_of(&measure.name)]
    }

    fn typed(&self, measure: &Measure) -> String {
        format!("count(DISTINCT {})", ident(measure.column_name()))
    }

    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let bytes = Member::of(input)?.bytes();
        let hash =
            format!("('x' || encode(substr(sha256({bytes}), 1, 8), 'hex'))::bit(64)::bigint");
        let filter = input.filter_and(&format!("{} IS NOT NULL", ident(input.column())));
        let hashes = format!("unnest(array_agg({hash}){filter}) AS __hash");
        Ok(columns(input, &packed(&of_hashes(&hashes))))
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(self)
    }

    fn reads_finer(&self, measure: &Measure) -> Vec<String> {
        vec![set_of(measure.column_name())]
    }

    fn over_finer(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        Ok(columns(input, &union(&set_of(input.column()), &input.filter())))
    }
}

/// The columns of the sketch and of the estimate. `rows` is the sketch over the source's rows.
fn columns(input: &Input<'_>, rows: &str) -> Columns {
    let name = &input.measure.name;
    let set = set_of(name);
    let merge = |rows: &str| union(&set, rows);
    let expressions = Expressions::merged(input, rows.to_owned(), rows.to_owned(), merge);
    // A slice that one statement reads has one row of a group in the stage.
    let from_whole = format!("string_agg({}, ''::bytea)", ident(&set));
    let field = Field::new(&set, "bytea", Expressions { from_whole, ..expressions }).or("");
    let estimate = Generated {
        name: name.clone(),
        sql_type: "bigint".to_owned(),
        expression: format!("tallymark.unique_count({})", ident(&set)),
        plain: Some(estimated(&set)),
    };
    Columns { fields: vec![field], generated: vec![estimate] }
}

/// The registers in use of the hashes that `from` yields, as numbers `__e` of 20 bits. The least of a
/// register's hashes has its greatest rank: the exponent of the floating-point number tells where its
/// first 1 is.
fn of_hashes(from: &str) -> String {
    let register = format!("(__hash >> {RANKED}) & {}", REGISTERS - 1);
    let least = format!("min(__hash & {})", (1_u64 << RANKED) - 1);
    let bits = format!("float8send({least}::double precision)");
    format!(
        "SELECT (({register}) << 6)::int | CASE {least} WHEN 0 THEN {RANKED} ELSE \
         {RANKED} + 1023 - ((get_byte({bits}, 0) << 4) | (get_byte({bits}, 1) >> 4)) END AS __e \
         FROM {from} GROUP BY {register}"
    )
}

/// The sketch with these registers in use.
fn packed(registers: &str) -> String {
    format!(
        "(SELECT CASE WHEN count(*) <= {SPARSE_MAX} \
         THEN coalesce(string_agg(substr(int4send(__e), 2), ''::bytea ORDER BY __e), ''::bytea) \
         ELSE (SELECT string_agg(set_byte('\\x00'::bytea, 0, coalesce(__used & 63, 0)), ''::bytea \
         ORDER BY __place) FROM generate_series(0, {}) AS __place \
         LEFT JOIN unnest(array_agg(__e)) AS __used ON (__used >> 6) = __place) END \
         FROM ({registers}) AS __registers)",
        REGISTERS - 1
    )
}

/// The union of the sketches in `column`: the greatest rank of each register.
fn union(column: &str, rows: &str) -> String {
    let column = ident(column);
    let entry = |place: u32| format!("get_byte(__sketch, 3 * __place + {place})");
    packed(&format!(
        "SELECT max(__one) AS __e FROM unnest(array_agg({column}){rows}) AS __sketch, LATERAL (\
         SELECT ({} << 16) | ({} << 8) | {} FROM generate_series(0, \
         CASE WHEN length(__sketch) < {REGISTERS} THEN length(__sketch) / 3 - 1 END) AS __place \
         UNION ALL SELECT (__place << 6) | get_byte(__sketch, __place) FROM generate_series(0, \
         CASE WHEN length(__sketch) = {REGISTERS} THEN {} END) AS __place \
         WHERE get_byte(__sketch, __place) > 0) AS __all (__one) GROUP BY __one >> 6",
        entry(0),
        entry(1),
        entry(2),
        REGISTERS - 1
    ))
}

/// The estimate of `unique_count.sql` in one expression. σ is a sum of powers, those below the least
/// double left out.
fn estimated(column: &str) -> String {
    let column = ident(column);
    format!(
        "(SELECT CASE WHEN __unused = 1 THEN 0 ELSE round(0.72134752044448170368 * {REGISTERS} * \
         {REGISTERS} / (__sum + {REGISTERS} * (__unused + (SELECT coalesce(sum(exp(ln(__unused) * \
         2 ^ __power) * 2 ^ (__power - 1)), 0) FROM generate_series(1, 30) AS __power \
         WHERE __unused > 0 AND ln(__unused) * 2 ^ __power > -700)))) END::bigint \
         FROM (SELECT coalesce(sum(0.5::double precision ^ __rank), 0) AS __sum, \
         1 - count(*)::double precision / {REGISTERS} AS __unused FROM (\
         SELECT get_byte({column}, 3 * __place + 2) & 63 FROM generate_series(0, \
         CASE WHEN length({column}) < {REGISTERS} THEN length({column}) / 3 - 1 END) AS __place \
         UNION ALL SELECT get_byte({column}, __place) FROM generate_series(0, \
         CASE WHEN length({column}) = {REGISTERS} THEN {} END) AS __place \
         WHERE get_byte({column}, __place) > 0) AS __ranks (__rank)) AS __registers)",
        REGISTERS - 1
    )
}
