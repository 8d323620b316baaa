//! The groups of a slice beside those of a table that another job keeps.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::Row as _;

use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError, Tx};
use crate::model::hint::Fault;
use crate::model::rollup::{Rollup, TableName};
use crate::model::sql::{ident, literal, table, timestamptz};
use crate::model::text::{cut, listed, shown};
use crate::source::reading::shape::{Shape, catalogue};
use crate::target::Difference;
use crate::work::worker::{WorkError, Worker};

/// The values of a group as texts: bucket, dimensions, then measures.
pub(super) type Cells = Vec<Option<String>>;

/// The types whose values are compared as numbers.
pub(super) const NUMBERS: [&str; 6] =
    ["smallint", "integer", "bigint", "numeric", "real", "double precision"];

const FLOATS: [&str; 2] = ["real", "double precision"];

/// The types of a bucket.
pub(in crate::check) const TIMES: [&str; 3] =
    ["timestamp with time zone", "timestamp without time zone", "date"];

/// Sums of floats depend on the order of the rows, in about the last digits.
const FLOAT_RATIO: f64 = 1e-9;

/// How the values of a column are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    /// By value, whatever the scale.
    Number,
    /// As floats, but for the last digits.
    Float,
    /// As instants.
    Time,
    Text,
}

/// A column that both sides have, with its type on each.
#[derive(Debug)]
struct Shared {
    name: String,
    own_type: String,
    foreign_type: String,
    likeness: Likeness,
}

/// The table of another job.
#[derive(Debug)]
pub(super) struct Foreign {
    table: TableName,
    zone: String,
    /// Bucket, dimensions, then measures.
    columns: Vec<Shared>,
    /// How many of them name a group.
    keys: usize,
    /// Measures that the table lacks.
    absent: Vec<String>,
}

/// The result of a comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Parity {
    pub(crate) table: String,
    /// The measures that were compared.
    pub(crate) compared: Vec<String>,
    /// The measures that the table lacks.
    pub(crate) absent: Vec<String>,
    /// Groups that both sides have with the same measures.
    pub(crate) equal: u64,
    /// Groups that both sides have with other measures.
    pub(crate) differ: u64,
    /// Groups that the table lacks.
    pub(crate) missing: u64,
    /// Groups that the table alone has, or has once more.
    pub(crate) extra: u64,
    /// The first groups that are not equal.
    pub(crate) differences: Vec<Difference>,
}

impl Foreign {
    /// Looks the table up in the target.
    ///
    /// # Errors
    /// The target has no such table, or it lacks what names a group.
    pub(super) async fn find(
        worker: &Worker,
        rollup: &Rollup,
        shape: &Shape,
        table: &TableName,
    ) -> Result<Self, WorkError> {
        let db = &worker.target.db;
        let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let found = catalogue(&mut tx, table).await?;
        tx.rollback().await?;
        if found.is_empty() {
            let fault = Fault::new(format!("--against: the target has no table {table}"));
            return Err(WorkError::Usage(
                fault.remedy("name a table or view of [target], as schema.name"),
            ));
        }
        let type_of = |name: &str| {
            let column = found.iter().find(|column| column.name == name)?;
            Some(column.base_type.clone())
        };
        let bucket = (shape.time_key.to_owned(), TIMES[0].to_owned());
        let dimensions = shape.dimensions.iter().map(|it| (it.name.clone(), it.sql_type.clone()));
        let fields = shape.fields.iter().map(|it| (it.name.clone(), it.sql_type.clone()));
        let generated = shape.generated.iter().map(|it| (it.name.clone(), it.sql_type.clone()));
        let (mut columns, mut lacking, mut absent) = (Vec::new(), Vec::new(), Vec::new());
        for (name, own_type) in [bucket].into_iter().chain(dimensions) {
            match type_of(&name) {
                Some(foreign_type) => columns.push(Shared::new(name, own_type, foreign_type)),
                None => lacking.push(name),
            }
        }
        let keys = columns.len();
        for (name, own_type) in fields.chain(generated) {
            match type_of(&name) {
                Some(foreign_type) => columns.push(Shared::new(name, own_type, foreign_type)),
                None => absent.push(name),
            }
        }
        if !lacking.is_empty() || columns.len() == keys {
            let names = listed(lacking.iter().map(String::as_str));
            let what = if lacking.is_empty() { "any measure".to_owned() } else { names };
            let fault = Fault::new(format!("--against: {table} has no column for {what}"));
            return Err(WorkError::Usage(fault.remedy(
                "compare with a view of it that gives its columns the names of the rollup's, such as \
                 CREATE VIEW … AS SELECT day AS bucket, …",
            )));
        }
        if columns[0].likeness != Likeness::Time {
            let of = shown(&columns[0].foreign_type);
            let fault =
                Fault::new(format!("--against: the column bucket of {table} is of type {of}"));
            return Err(WorkError::Usage(
                fault.remedy("compare with a view of it whose bucket is a timestamptz or a date"),
            ));
        }
        let zone = literal(rollup.calendar.zone().name());
        Ok(Self { table: table.clone(), zone, columns, keys, absent })
    }

    /// The comparison before its first group.
    pub(super) fn nothing_yet(&self) -> Parity {
        let compared = self.columns[self.keys..].iter().map(|it| it.name.clone());
        Parity {
            table: self.table.to_string(),
            compared: compared.collect(),
            absent: self.absent.clone(),
            equal: 0,
            differ: 0,
            missing: 0,
            extra: 0,
            differences: Vec::new(),
        }
    }

    /// The rollup's values in the form in which they are compared.
    pub(super) fn own(&self) -> String {
        let columns = self.columns.iter();
        let columns = columns.map(|it| it.comparable("__p", &it.own_type, &self.zone));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// The table's groups in these buckets, and at most `max` and one more.
    ///
    /// # Errors
    /// The target refuses or cannot be reached.
    pub(super) async fn groups(
        &self,
        tx: &mut Tx,
        (start, end): (DateTime<Utc>, DateTime<Utc>),
        max: usize,
    ) -> Result<Vec<Cells>, DbError> {
        const DOING: &str = "reading the other job's table";
        let columns = self.columns.iter();
        let columns = columns.map(|it| it.comparable("__f", &it.foreign_type, &self.zone));
        // As the column is, so that its index is of use.
        let bound = |at| match self.columns[0].foreign_type == TIMES[0] {
            true => timestamptz(at),
            false => format!("({} AT TIME ZONE {})", timestamptz(at), self.zone),
        };
        let sql = format!(
            include_str!("foreign.sql"),
            compared = columns.collect::<Vec<_>>().join(", "),
            table = table(&self.table),
            start = bound(start),
            end = bound(end),
            max = max + 1,
        );
        let rows = tx.rows(DOING, sql).await?;
        let cells = rows.iter().map(|row| row.try_get("compared")).collect::<Result<_, _>>();
        cells.map_err(|source| tx.error(DOING, source))
    }
}

impl Shared {
    fn new(name: String, own_type: String, foreign_type: String) -> Self {
        let both = |types: &[&str]| {
            types.contains(&own_type.as_str()) && types.contains(&foreign_type.as_str())
        };
        let is_float = |of: &str| FLOATS.contains(&of);
        let likeness = match () {
            () if both(&TIMES) => Likeness::Time,
            () if both(&NUMBERS) && (is_float(&own_type) || is_float(&foreign_type)) => {
                Likeness::Float
            }
            () if both(&NUMBERS) => Likeness::Number,
            () => Likeness::Text,
        };
        Self { name, own_type, foreign_type, likeness }
    }

    /// Its values as texts that are alike on both sides, where it is of this type.
    fn comparable(&self, alias: &str, sql_type: &str, zone: &str) -> String {
        let value = format!("{alias}.{}", ident(&self.name));
        match self.likeness {
            Likeness::Number => format!("trim_scale({value}::numeric)::text"),
            Likeness::Float => format!("{value}::double precision::text"),
            Likeness::Time if sql_type == TIMES[0] => format!("{value}::text"),
            Likeness::Time => format!("({value}::timestamp AT TIME ZONE {zone})::text"),
            Likeness::Text => format!("{value}::text"),
        }
    }

    fn is_same(&self, own: Option<&str>, foreign: Option<&str>) -> bool {
        let float = |text: Option<&str>| text.and_then(|text| text.parse::<f64>().ok());
        match (self.likeness, float(own), float(foreign)) {
            (Likeness::Float, Some(own), Some(foreign)) => {
                let most = own.abs().max(foreign.abs());
                own == foreign
                    || (own - foreign).abs() <= most * FLOAT_RATIO
                    || own.is_nan() && foreign.is_nan()
            }
            _ => own == foreign,
        }
    }

    /// A value as JSON.
    fn document(&self, cell: Option<&str>) -> Value {
        let Some(cell) = cell else { return Value::Null };
        let text = || Value::String(cut(cell).into_owned());
        match self.likeness {
            Likeness::Number | Likeness::Float => {
                serde_json::from_str(cell).unwrap_or_else(|_| text())
            }
            Likeness::Time | Likeness::Text => text(),
        }
    }
}

impl Parity {
    /// Groups that are not equal.
    #[must_use]
    pub(crate) const fn unequal(&self) -> u64 {
        self.differ + self.missing + self.extra
    }

    /// Compares the groups of some buckets. Keeps at most `limit` of those that are not equal.
    pub(super) fn add(
        &mut self,
        foreign: &Foreign,
        ours: Vec<Cells>,
        theirs: Vec<Cells>,
        limit: usize,
    ) {
        let split = |mut cells: Cells| {
            let measures = cells.split_off(foreign.keys);
            (cells, measures)
        };
        let mut ours: BTreeMap<Cells, Cells> = ours.into_iter().map(split).collect();
        for (key, theirs) in theirs.into_iter().map(split) {
            let Some(own) = ours.remove(&key) else {
                self.extra += 1;
                self.note(foreign, ("extra", &key), None, Some(&theirs), limit);
                continue;
            };
            let mut pairs = foreign.columns[foreign.keys..].iter().zip(own.iter().zip(&theirs));
            if pairs.all(|(column, (own, its))| column.is_same(own.as_deref(), its.as_deref())) {
                self.equal += 1;
            } else {
                self.differ += 1;
                self.note(foreign, ("differs", &key), Some(&own), Some(&theirs), limit);
            }
        }
        for (key, own) in &ours {
            self.missing += 1;
            self.note(foreign, ("missing", key), Some(own), None, limit);
        }
    }

    fn note(
        &mut self,
        foreign: &Foreign,
        (difference, key): (&str, &Cells),
        own: Option<&Cells>,
        theirs: Option<&Cells>,
        limit: usize,
    ) {
        if self.differences.len() >= limit {
            return;
        }
        let (keys, measures) = foreign.columns.split_at(foreign.keys);
        self.differences.push(Difference {
            difference: difference.to_owned(),
            key: object(keys, key),
            expected: own.map(|cells| object(measures, cells)),
            actual: theirs.map(|cells| object(measures, cells)),
        });
    }
}

fn object(columns: &[Shared], cells: &Cells) -> Value {
    let pairs = columns.iter().zip(cells);
    let pairs = pairs.map(|(it, cell)| (it.name.clone(), it.document(cell.as_deref())));
    Value::Object(pairs.collect::<Map<_, _>>())
}
