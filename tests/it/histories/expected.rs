//! The expected result of a history.

use tallymark::work::ready;

use crate::support::kinds;
use crate::support::world::World;

/// The columns of the measures of every kind in each rollup, and their SQL over the source.
pub async fn every(world: &World) -> Vec<(String, String)> {
    let hourly = world.rollup();
    let shape = ready::shape(&world.worker, hourly).await.unwrap();
    let every = hourly.measures.iter().filter(|measure| measure.name.starts_with("every_"));
    let direct: Vec<_> = every.flat_map(|measure| kinds::direct(measure, &shape)).collect();
    assert!(!direct.is_empty());
    let mut columns = Vec::new();
    for rollup in &world.worker.config.rollups {
        let own = ready::shape(&world.worker, rollup).await.unwrap();
        let has = |name: &str| own.fields.iter().any(|field| field.name == name);
        let kept: Vec<_> = direct.iter().filter(|(name, _)| has(name)).collect();
        let names: String = kept.iter().map(|(name, _)| format!(", \"{name}\"")).collect();
        columns.push((names, kept.iter().map(|(_, sql)| format!(", {sql}")).collect()));
    }
    columns
}

/// The names of the kinds, beside the events.
const LABELS: &str = " LEFT JOIN (SELECT kind AS labelled, name AS label FROM public.labels) labels \
    ON labelled = kind";

/// The width of a rollup's buckets. `None`: windows of three hours, one for each hour.
fn width(rollup: &str) -> Option<&'static str> {
    match rollup {
        "hourly" => Some("30 minutes"),
        "two_hourly" => Some("2 hours"),
        "four_hourly" => Some("4 hours"),
        _ => None,
    }
}

/// The buckets of a rollup, and the rows of `events` behind each, as a relation with `bucket` and the
/// columns of `events`. `until` ends the last bucket.
pub fn rows_behind(rollup: &str, events: &str, until: &str) -> String {
    match width(rollup) {
        Some(width) => format!(
            "(SELECT *, date_bin('{width}', at, '2026-01-01Z') AS bucket FROM {events} e) events \
             WHERE at < {until}"
        ),
        None => format!(
            "generate_series('2026-01-01Z', {until}, '1 hour') bucket JOIN {events} events \
             ON at >= bucket - interval '2 hours' AND at < bucket + interval '1 hour' AND bucket < {until}"
        ),
    }
}

/// The rows by which `rollup` differs from one `GROUP BY` over `rows`, up to the instant `$1`.
/// `names` are the columns of the measures of every kind, and `sql` is their SQL. `looks_up`: the kind
/// is named by the table of labels.
pub fn differences(rollup: &str, rows: &str, names: &str, sql: &str, looks_up: bool) -> String {
    let (kind, labels) = match looks_up {
        true => ("label", LABELS),
        false => ("kind", ""),
    };
    format!(
        "WITH wanted AS (SELECT bucket, {kind}, count(*), sum(amount){sql} \
         FROM (SELECT * FROM {rows}) events{labels} WHERE at >= '2026-01-01Z' GROUP BY 1, 2), \
         found AS (SELECT bucket, kind, events, total{names} \
         FROM stats.{rollup} WHERE bucket < $1::timestamptz) \
         SELECT '{rollup} misses ' || x::text FROM (TABLE wanted EXCEPT TABLE found) x \
         UNION ALL \
         SELECT '{rollup} has ' || x::text FROM (TABLE found EXCEPT TABLE wanted) x"
    )
}
