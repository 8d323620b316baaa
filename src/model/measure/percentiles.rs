//! Percentiles of a column, from a sketch that merges.
//!
//! The sketch counts values by buckets. A bucket is the sign, the exponent and the first 6 bits of
//! the fraction of a double, so an octave has 64 of them, each at most 1/64 wide. The middle of the
//! bucket is within 1/128 = 0.79 % of each value in it. Zero and magnitudes below 2^-1022 share a
//! bucket, and so do each infinity and NaN, which is greater than all others as for PostgreSQL.
//!
//! Stored is an array in ascending order, of the bucket's number times 2^44 plus its count.

use serde_json::{Value, json};

use super::{
    Columns, Expressions, Field, Form, Function, Generated, Input, Kind, Measure, Parameter, Role,
};
use crate::model::hint::Fault;
use crate::model::sql::ident;

/// `{ percentiles = "column", at = [0.5, 0.95] }`. NULL is not a value.
#[derive(Debug)]
pub(super) struct Percentiles;

/// The most percentiles of one measure.
const AT_MAX: usize = 16;

/// Shares have at most this many decimals: 10,000 different ones.
const PARTS: f64 = 1e4;

/// The bits of a count.
const COUNT_BITS: u32 = 44;

/// The bucket of NaN, after that of infinity.
const NAN: u32 = (2047 << 6) + 1;

const FUNCTIONS: &[Function] = &[
    Function {
        name: "percentile",
        arguments: "bigint[], double precision",
        sql: include_str!("sql/percentile.sql"),
        comment: "For readers: a percentile of the values in a sketch",
    },
    Function {
        name: "merged_counts",
        arguments: "bigint[], bigint[]",
        sql: include_str!("sql/merged_counts.sql"),
        comment: "Two sketches of percentiles as one",
    },
    Function {
        name: "merge_sketches",
        arguments: "bigint[]",
        sql: include_str!("sql/merge_counts.sql"),
        comment: "For readers: sketches of percentiles as one",
    },
];

impl Kind for Percentiles {
    fn word(&self) -> &'static str {
        "percentiles"
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter {
            key: "at",
            example: "[0.5, 0.95, 0.99]",
            role: Role::Shown,
            form: Form::Value {
                check,
                schema: || {
                    let share = json!({ "type": "number", "minimum": 0, "maximum": 1 });
                    json!({ "type": "array", "minItems": 1, "maxItems": AT_MAX, "items": share })
                },
            },
        }]
    }

    fn approximation(&self) -> Option<&'static str> {
        Some("a percentile is within 0.79 % of a value of that rank")
    }

    fn functions(&self) -> &'static [Function] {
        FUNCTIONS
    }

    fn names(&self, measure: &Measure) -> Vec<String> {
        let percentiles = shares(measure).into_iter().map(|share| share.column(&measure.name));
        percentiles.chain([sketch_of(&measure.name)]).collect()
    }

    /// PostgreSQL's own percentile takes what can be a double, and intervals.
    fn typed(&self, measure: &Measure) -> String {
        let column = ident(measure.column_name());
        format!("percentile_cont(0.5) WITHIN GROUP (ORDER BY {column})")
    }

    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        if input.sql_type == "interval" {
            let (name, column) = (&input.measure.name, input.column());
            let fault = Fault::new(format!(
                "measures.{name}: column `{column}` is of type interval, whose percentiles are no \
                 numbers"
            ));
            return Err(fault.remedy("extract its seconds in a view: extract(epoch FROM …)"));
        }
        let value = ident(input.column());
        let filter = input.filter_and(&format!("{value} IS NOT NULL"));
        let buckets = format!("unnest(array_agg({}){filter}) AS __bucket", bucket(&value));
        let counts =
            format!("SELECT __bucket::bigint, count(*) AS __count FROM {buckets} GROUP BY 1");
        Ok(columns(input, &packed(&counts)))
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(self)
    }

    fn reads_finer(&self, measure: &Measure) -> Vec<String> {
        vec![sketch_of(measure.column_name())]
    }

    fn over_finer(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        Ok(columns(input, &total(&sketch_of(input.column()), &input.filter())))
    }
}

/// The columns of the sketch and of the percentiles. `rows` is the sketch over the source's rows.
fn columns(input: &Input<'_>, rows: &str) -> Columns {
    let name = &input.measure.name;
    let sketch = sketch_of(name);
    let merge = |rows: &str| total(&sketch, rows);
    let expressions = Expressions::merged(input, rows.to_owned(), rows.to_owned(), merge);
    // A slice that one statement reads has one row of a group in the stage.
    let from_whole = format!("max({})", ident(&sketch));
    let field = Field::new(&sketch, "bigint[]", Expressions { from_whole, ..expressions }).or("{}");
    let percentile = |share: Share| Generated {
        name: share.column(name),
        sql_type: "double precision".to_owned(),
        expression: format!("tallymark.percentile({}, {})", ident(&sketch), share.sql()),
        plain: Some(value_at(&sketch, &share.sql())),
    };
    let generated = shares(input.measure).into_iter().map(percentile).collect();
    Columns { fields: vec![field], generated }
}

/// The bucket of `value`, from the bits of the double.
fn bucket(value: &str) -> String {
    let double = format!("{value}::double precision");
    let bits = format!("float8send({double})");
    format!(
        "CASE WHEN {double} = 'NaN' THEN {NAN} \
         WHEN abs({double}) < '2.2250738585072014e-308'::double precision THEN 0 \
         ELSE CASE WHEN {double} < 0 THEN -1 ELSE 1 END * (((get_byte({bits}, 0) & 127) << 10) | \
         (get_byte({bits}, 1) << 2) | (get_byte({bits}, 2) >> 6)) END"
    )
}

/// The sketch of these buckets with their counts.
fn packed(counts: &str) -> String {
    format!(
        "(SELECT coalesce(array_agg(__bucket * {} + __count ORDER BY __bucket), '{{}}') \
         FROM ({counts}) AS __counts)",
        1_u64 << COUNT_BITS
    )
}

/// The sum of the sketches in `column`. A sketch in a row of its own may have another length than
/// the others, which elements of one array may not.
fn total(column: &str, rows: &str) -> String {
    let column = ident(column);
    packed(&format!(
        "SELECT __entry >> {COUNT_BITS} AS __bucket, sum(__entry & {})::bigint AS __count \
         FROM unnest(array_agg(ROW({column})){rows}) AS __sketches (__sketch bigint[]), \
         unnest(__sketch) AS __entry GROUP BY 1",
        (1_u64 << COUNT_BITS) - 1
    ))
}

/// The value of `percentile.sql` in one expression.
fn value_at(sketch: &str, share: &str) -> String {
    let (sketch, counted) = (ident(sketch), (1_u64 << COUNT_BITS) - 1);
    format!(
        "(SELECT CASE WHEN __bucket = 0 THEN 0 WHEN __bucket = {NAN} THEN 'NaN' \
         WHEN abs(__bucket) = {NAN} - 1 THEN sign(__bucket) * 'Infinity'::double precision \
         ELSE sign(__bucket) * (1 + ((abs(__bucket) & 63) + 0.5::double precision) / 64) * \
         2::double precision ^ ((abs(__bucket) >> 6) - 1023) END FROM (\
         SELECT __entry >> {COUNT_BITS} AS __bucket, \
         sum(__entry & {counted}) OVER (ORDER BY __entry) AS __seen, \
         sum(__entry & {counted}) OVER () AS __total FROM unnest({sketch}) AS __entry) AS __counts \
         WHERE __seen >= greatest(1, ceil({share} * __total::double precision)) \
         ORDER BY __bucket LIMIT 1)"
    )
}

/// A share of the values, in parts of 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share(u32);

impl Share {
    fn of(value: &Value) -> Option<Self> {
        let share = value.as_f64().filter(|share| (0.0..=1.0).contains(share))?;
        let parts = (share * PARTS).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
        (parts / PARTS == share).then_some(Self(parts as u32))
    }

    /// The column of its percentile: `latency_p50`, `latency_p99_9`.
    fn column(self, name: &str) -> String {
        let (whole, rest) = (self.0 / 100, format!("{:02}", self.0 % 100));
        match rest.trim_end_matches('0') {
            "" => format!("{name}_p{whole}"),
            rest => format!("{name}_p{whole}_{rest}"),
        }
    }

    fn sql(self) -> String {
        format!("{}::double precision", f64::from(self.0) / PARTS)
    }
}

fn shares(measure: &Measure) -> Vec<Share> {
    let at = measure.parameters.get("at").and_then(Value::as_array);
    at.into_iter().flatten().filter_map(Share::of).collect()
}

/// The column of the sketch.
fn sketch_of(name: &str) -> String {
    format!("{name}_sketch")
}

fn check(value: &Value) -> Result<(), String> {
    let is_number =
        |share: &Value| share.as_f64().is_some_and(|share| (0.0..=1.0).contains(&share));
    let Some(given) = value.as_array().filter(|given| given.iter().all(is_number)) else {
        return Err("expected numbers from 0 to 1 such as [0.5, 0.95, 0.99]".to_owned());
    };
    let shares: Vec<u32> = given.iter().filter_map(Share::of).map(|share| share.0).collect();
    if shares.len() < given.len() {
        return Err("has a share with more than four decimals".to_owned());
    }
    match shares.len() {
        0 => Err("is empty".to_owned()),
        1..=AT_MAX if shares.is_sorted_by(|one, next| one < next) => Ok(()),
        1..=AT_MAX => Err("is not in ascending order".to_owned()),
        count => Err(format!("has {count} shares; {AT_MAX} is the most")),
    }
}
