//! Measures of every kind in the registry, for tests that cover all of them.

use serde_json::Map;
use tallymark::model::measure::{Form, Kind, Measure, Parameter, Subject};
use tallymark::model::operand::Operand;
use tallymark::source::reading::shape::Shape;

/// A measure of this kind as the configuration writes it, with the example of every parameter.
/// `rest` follows, such as a condition.
pub fn written(kind: &dyn Kind, column: &str, rest: &str) -> String {
    written_by(kind, column, None, rest)
}

/// As [`written`], with this expression in place of the columns that are parameters.
pub fn written_by(kind: &dyn Kind, column: &str, sql: Option<&str>, rest: &str) -> String {
    let subject = match kind.subject() {
        Subject::Rows(_) => "true".to_owned(),
        Subject::Column => format!("\"{column}\""),
    };
    let choice = kind.choice().map(|(key, value)| format!(", {key} = {value:?}"));
    let value = |it: &Parameter| match sql.filter(|_| matches!(it.form, Form::Operand)) {
        Some(sql) => format!("{{ sql = \"{sql}\" }}"),
        None => it.example.to_owned(),
    };
    let parameters = kind.parameters().iter().map(|it| format!(", {} = {}", it.key, value(it)));
    let parameters: String = choice.into_iter().chain(parameters).collect();
    format!("{{ {} = {subject}{parameters}{rest} }}", kind.word())
}

/// A name of this kind of its own.
pub fn label(kind: &dyn Kind) -> String {
    match kind.choice() {
        None => kind.word().to_owned(),
        Some((_, value)) => format!("{}_{value}", kind.word()),
    }
}

/// The written columns of `measure`, and their SQL in one `GROUP BY` over the source.
pub fn direct<'s>(measure: &Measure, shape: &'s Shape) -> Vec<(&'s str, String)> {
    let (names, reads) = (measure.names(), measure.kind.reads(measure));
    let expressions = reads.iter().filter_map(|operand| Some((operand.name(), operand.sql()?)));
    // An expression has its name beside the rows that Tallymark reads, and its text elsewhere.
    let named: Vec<_> =
        expressions.map(|(name, sql)| (format!("\"{name}\""), format!("({sql})"))).collect();
    let written = |direct: &String| {
        named.iter().fold(direct.clone(), |text, (name, sql)| text.replace(name, sql))
    };
    let own = shape.fields.iter().filter(|field| names.contains(&field.name));
    own.map(|field| {
        let direct = &field.expressions.direct;
        (field.name.as_str(), written(&by_hand(measure, direct).unwrap_or_else(|| direct.clone())))
    })
    .collect()
}

/// The plain SQL of a number or set of different values, which Tallymark's statements compute from
/// arrays. `None`: `direct` is plain.
fn by_hand(measure: &Measure, direct: &str) -> Option<String> {
    const SET: &str = "(SELECT array_agg(DISTINCT __value ORDER BY __value) FROM unnest(array_agg(";
    let value = format!("\"{}\"", measure.column.as_ref()?.name());
    if measure.kind.word() == "distinct" && measure.kind.choice().is_none() {
        let filter = measure.filter.as_deref().unwrap_or("true");
        return Some(format!("count(DISTINCT {value}) FILTER (WHERE (\n{filter}\n))"));
    }
    let (before, of_set) = direct.split_once(SET)?;
    let (member, rest) = of_set.split_once(") FILTER ")?;
    let (filter, after) = rest.rsplit_once(") AS __value)")?;
    Some(format!("{before}array_agg(DISTINCT {member} ORDER BY {member}) FILTER {filter}{after}"))
}

/// Whether a coarse rollup can merge measures of this kind.
pub fn merges(kind: &'static dyn Kind) -> bool {
    let (name, column) = ("m".to_owned(), Some(Operand::column("c")));
    let measure = Measure { name, kind, column, parameters: Map::new(), filter: None };
    kind.merged_by(&measure, "finer").is_ok()
}
