//! The rollup that would compute what a table of another job holds, by the names and types of both.

use std::fmt::Write as _;

use serde_json::json;

use super::super::new::catalogue::{self, CatalogueColumn, CatalogueTable, Content};
use super::super::new::write::{key, quoted};
use super::super::{Failure, Global};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Db, DbError};
use crate::model::hint::Fault;
use crate::model::rollup::TableName;
use crate::model::sql::{ident, table};
use crate::work::worker::{WorkError, Worker};

const LABEL: &str = "adopt";

/// Names of a column that counts rows.
const COUNTS: [&str; 9] =
    ["count", "n", "cnt", "num", "rows", "total", "events", "hits", "row_count"];

/// Names of a bucket, likelier ones first.
const BUCKETS: [&str; 8] = ["bucket", "day", "date", "hour", "week", "month", "ts", "time"];

/// Words beside a column's name, and the measure that they stand for.
const WORDS: [(&str, &str); 8] = [
    ("sum", "sum"),
    ("total", "sum"),
    ("min", "min"),
    ("max", "max"),
    ("unique", "distinct"),
    ("uniq", "distinct"),
    ("distinct", "distinct"),
    ("avg", "avg"),
];

/// What a table of the source explains of the other job's.
#[derive(Default)]
struct Explained {
    dimensions: Vec<String>,
    /// Each measure and its definition.
    measures: Vec<(String, String)>,
    /// Columns that nothing explains, and why.
    left: Vec<(String, &'static str)>,
}

/// Prints the rollup for `foreign`.
pub(super) async fn propose(
    global: &Global,
    worker: &Worker,
    foreign: &TableName,
    from: Option<&TableName>,
) -> Result<(), Failure> {
    let found = tables(&worker.target.db, Some(foreign)).await?;
    let Some(theirs) = found.into_iter().next() else {
        let fault = Fault::new(format!("the target has no table {foreign}"));
        return Err(Failure::usage(fault.remedy("name a table or view, as schema.name")));
    };
    let Some(bucket) = bucket(&theirs) else {
        let fault = Fault::new(format!("no column of {foreign} is a time or a date"));
        return Err(Failure::usage(fault.remedy("adopt a view of it that has one, named bucket")));
    };
    let sources = tables(&worker.source, from).await?;
    let sources = sources.iter().filter(|it| !it.is_rollup && it.name != theirs.name);
    let explained = sources.filter_map(|source| {
        let time = time(source)?;
        Some((explain(&theirs, bucket, source, time), source, time))
    });
    let score = |it: &Explained| 2 * it.dimensions.len() + it.measures.len();
    let best = explained.max_by_key(|(it, ..)| score(it)).filter(|(it, ..)| score(it) > 0);
    let Some((explained, source, time)) = best else {
        let fault = Fault::new(format!("no table of the source explains the columns of {foreign}"));
        return Err(Failure::usage(fault.remedy("name the one that it counts, with --from")));
    };
    let begins = begins(worker, &theirs.name, bucket).await?;
    let name = match theirs.name.schema.as_deref() == Some(worker.target.schema.as_str()) {
        true => format!("{}_kept", theirs.name.name),
        false => theirs.name.name.clone(),
    };
    let toml = toml(&name, (source, time), &explained, &begins);
    let view = (bucket.name != "bucket").then(|| view(&theirs, bucket, &explained));
    let adopted = view.as_ref().map_or_else(|| theirs.name.to_string(), |(name, _)| name.clone());
    let next = format!("tallymark adopt {adopted} --rollup {name}");
    let document = json!({
        "table": theirs.name.to_string(),
        "from": source.name.to_string(),
        "toml": toml,
        "view": view.as_ref().map(|(_, sql)| sql),
        "unexplained": explained.left.iter().map(|(column, why)| json!({
            "column": column,
            "why": why,
        })).collect::<Vec<_>>(),
        "next": ["tallymark init", next],
    });
    global.print_script(&document, || {
        let mut text =
            format!("# {} counts {}, by their columns' names.\n", theirs.name, source.name);
        if let Some((_, sql)) = &view {
            let _ = writeln!(text, "# The table needs a view that names its bucket:\n#   {sql};");
        }
        let _ = write!(
            text,
            "# Add this to the configuration, then run `tallymark init` and\n# `{next}`\n\n{toml}"
        );
        text.trim_end().to_owned()
    });
    Ok(())
}

async fn tables(db: &Db, only: Option<&TableName>) -> Result<Vec<CatalogueTable>, WorkError> {
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, LABEL).await?;
    let found = catalogue::tables(&mut tx, only).await?;
    tx.rollback().await?;
    Ok(found)
}

const fn is_time(column: &CatalogueColumn) -> bool {
    matches!(column.content, Content::Instant | Content::LocalTime | Content::Date)
}

/// The column that names the time of a row.
fn bucket(theirs: &CatalogueTable) -> Option<&CatalogueColumn> {
    let times = || theirs.columns.iter().filter(|column| is_time(column));
    let named = BUCKETS.iter().find_map(|name| times().find(|column| column.name == *name));
    named.or_else(|| times().next())
}

/// The column by which the source's rows are cut: one with an index, if there is one.
fn time(source: &CatalogueTable) -> Option<&CatalogueColumn> {
    let times = || source.columns.iter().filter(|column| is_time(column) && column.is_readable);
    times().find(|column| column.index.is_some()).or_else(|| times().next())
}

fn explain(
    theirs: &CatalogueTable,
    bucket: &CatalogueColumn,
    source: &CatalogueTable,
    time: &CatalogueColumn,
) -> Explained {
    let own: Vec<_> = source
        .columns
        .iter()
        .filter(|column| column.name != time.name && column.is_readable)
        .collect();
    let mut explained = Explained::default();
    for column in theirs.columns.iter().filter(|column| column.name != bucket.name) {
        let name = column.name.as_str();
        let same = own.iter().find(|it| it.name == name);
        match (same, named(name, &own)) {
            (Some(same), _) if is_key(same.content) => explained.dimensions.push(name.to_owned()),
            (Some(_), _) => explained.measures.push((name.to_owned(), of("sum", name))),
            (None, Some(("avg", _))) => {
                explained
                    .left
                    .push((name.to_owned(), "an average alone tells no sum and no count"));
            }
            (None, Some((word, own))) => {
                explained.measures.push((name.to_owned(), of(word, own)));
            }
            (None, None) if is_whole(column.content) && is_count(name, source) => {
                explained.measures.push((name.to_owned(), "\"count\"".to_owned()));
            }
            (None, None) => match single_number(&own).filter(|_| is_number(column.content)) {
                Some(number) => {
                    explained.measures.push((name.to_owned(), of("sum", number) + "   # a guess"));
                }
                None => {
                    explained.left.push((name.to_owned(), "no column of the source has its name"))
                }
            },
        }
    }
    explained
}

fn of(word: &str, column: &str) -> String {
    format!("{{ {word} = {} }}", quoted(column))
}

/// The measure and the column that a name such as `sum_amount` or `unique_users` stands for.
fn named<'o>(name: &str, own: &[&'o CatalogueColumn]) -> Option<(&'static str, &'o str)> {
    WORDS.iter().find_map(|(word, kind)| {
        let rest = name
            .strip_prefix(word)
            .and_then(|rest| rest.strip_prefix('_'))
            .or_else(|| name.strip_suffix(word).and_then(|rest| rest.strip_suffix('_')))?;
        let one = rest.strip_suffix('s').unwrap_or(rest);
        let wanted = [rest.to_owned(), one.to_owned(), format!("{one}_id")];
        let found = wanted.iter().find_map(|it| own.iter().find(|column| column.name == *it))?;
        Some((*kind, found.name.as_str()))
    })
}

/// Whether a whole number of this name counts the rows of `source`.
fn is_count(name: &str, source: &CatalogueTable) -> bool {
    let table = source.name.name.as_str();
    COUNTS.contains(&name)
        || name == table
        || name.strip_suffix('s') == Some(table)
        || name.ends_with("_count")
        || name.starts_with("num_")
}

/// The only fractional number among the source's columns.
fn single_number<'o>(own: &[&'o CatalogueColumn]) -> Option<&'o str> {
    let mut numbers = own.iter().filter(|column| column.content == Content::Decimal);
    let first = numbers.next()?;
    numbers.next().is_none().then_some(first.name.as_str())
}

const fn is_key(content: Content) -> bool {
    !matches!(content, Content::Decimal | Content::Other)
}

const fn is_whole(content: Content) -> bool {
    matches!(content, Content::Integer | Content::Bigint | Content::Decimal)
}

const fn is_number(content: Content) -> bool {
    is_whole(content)
}

/// The first date of the table, and the width of its buckets.
async fn begins(
    worker: &Worker,
    name: &TableName,
    bucket: &CatalogueColumn,
) -> Result<(String, String), WorkError> {
    const DOING: &str = "reading the other job's table";
    let sql = format!(
        "-- The width of the other job's buckets\n\
         SELECT (SELECT min(f.{at})::date::text FROM {from} f) AS first, \
         (SELECT extract(epoch FROM min(d.step))::float8 FROM ( \
             SELECT b.at - lag(b.at) OVER (ORDER BY b.at) AS step FROM ( \
                 SELECT DISTINCT f.{at}::timestamp AS at FROM {from} f ORDER BY 1 DESC LIMIT 1000) b) d \
         ) AS step",
        at = ident(&bucket.name),
        from = table(name),
    );
    let read = async {
        let mut tx = worker.target.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, LABEL).await?;
        let row = tx.row(DOING, sql).await?;
        let values = (|| {
            use sqlx::Row as _;
            Ok::<_, sqlx::Error>((row.try_get("first")?, row.try_get("step")?))
        })();
        let values = values.map_err(|source| tx.error(DOING, source))?;
        tx.rollback().await?;
        Ok::<(Option<String>, Option<f64>), DbError>(values)
    };
    let (first, step) = read.await?;
    Ok((first.unwrap_or_else(|| "2025-01-01".to_owned()), width(step.unwrap_or(86_400.0))))
}

/// A distance between buckets as a width.
fn width(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "a number of minutes or hours")]
    let whole = |unit: f64| ((seconds / unit).round() as i64).max(1);
    match seconds {
        0.0..3600.0 => format!("{} minutes", whole(60.0)),
        3600.0..86_400.0 if whole(3600.0) == 1 => "1 hour".to_owned(),
        3600.0..86_400.0 => format!("{} hours", whole(3600.0)),
        86_400.0..604_800.0 => "1 day".to_owned(),
        604_800.0..2_400_000.0 => "1 week".to_owned(),
        2_400_000.0..7_700_000.0 => "1 month".to_owned(),
        7_700_000.0..31_000_000.0 => "1 quarter".to_owned(),
        _ => "1 year".to_owned(),
    }
}

fn toml(
    name: &str,
    (source, time): (&CatalogueTable, &CatalogueColumn),
    explained: &Explained,
    (start, slice): &(String, String),
) -> String {
    let dimensions: Vec<_> = explained.dimensions.iter().map(|it| quoted(it)).collect();
    let mut text = String::from("[[rollup]]\n");
    let _ = writeln!(text, "name = {}", quoted(name));
    let _ = writeln!(text, "from = {}", quoted(&source.name.to_string()));
    let _ = writeln!(text, "time = {}", quoted(&time.name));
    let _ = writeln!(text, "start = {}", quoted(start));
    let _ = writeln!(text, "slice = {}", quoted(slice));
    text.push_str("# timezone = \"Europe/Berlin\"   # whose days; by default UTC\n");
    let _ = writeln!(text, "group_by = [{}]\n\n[rollup.measures]", dimensions.join(", "));
    for (name, definition) in &explained.measures {
        let _ = writeln!(text, "{} = {definition}", key(name));
    }
    for (name, why) in &explained.left {
        let _ = writeln!(text, "# {}: {why}", key(name));
    }
    text
}

/// The view that gives the table's columns the names of the rollup's.
fn view(
    theirs: &CatalogueTable,
    bucket: &CatalogueColumn,
    explained: &Explained,
) -> (String, String) {
    let name = TableName {
        schema: theirs.name.schema.clone(),
        name: format!("{}_to_adopt", theirs.name.name),
    };
    let measures = explained.measures.iter().map(|(name, _)| name);
    let columns = explained.dimensions.iter().chain(measures).map(|it| ident(it));
    let columns: Vec<_> =
        [format!("{} AS bucket", ident(&bucket.name))].into_iter().chain(columns).collect();
    let sql = format!(
        "CREATE VIEW {} AS SELECT {} FROM {}",
        table(&name),
        columns.join(", "),
        table(&theirs.name)
    );
    (name.to_string(), sql)
}

#[cfg(test)]
mod tests {
    use super::width;

    #[test]
    fn the_distance_of_buckets_is_a_width() {
        let known = [
            (60.0, "1 minutes"),
            (900.0, "15 minutes"),
            (3600.0, "1 hour"),
            (21_600.0, "6 hours"),
            (86_400.0, "1 day"),
            (604_800.0, "1 week"),
            (28.0 * 86_400.0, "1 month"),
            (90.0 * 86_400.0, "1 quarter"),
            (366.0 * 86_400.0, "1 year"),
        ];
        for (seconds, wanted) in known {
            assert_eq!(width(seconds), wanted);
        }
    }
}
