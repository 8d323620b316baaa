//! The keys of changed rows of lookups. Each becomes marks of the hours in which the captured table
//! has rows of it, in one transaction.

use sqlx::Row as _;

use crate::clients::db::{DbError, Tx};
use crate::model::hint::Fault;
use crate::model::sql::{ident, literal, table};
use crate::source::changes::lookup::{LookupCapture, MarkedLookup};
use crate::source::reading::plan_guard::{self, Unindexed};

/// Keys that become hours in one statement.
pub(crate) const KEYS_MAX: usize = 1_000;

/// The name of the relation of keys in a statement, and so in its plan.
const KEYS: &str = "__key";

/// Changed keys that wait for a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitingKeys {
    pub(crate) count: u64,
    /// The age of the oldest, in seconds by the source's clock.
    pub(crate) age: i64,
}

/// The keys of these lookups that wait.
pub(crate) async fn waiting(tx: &mut Tx, of: &[MarkedLookup]) -> Result<WaitingKeys, DbError> {
    const DOING: &str = "counting the changed keys of lookups";
    if of.is_empty() {
        return Ok(WaitingKeys::default());
    }
    let names: Vec<String> = of.iter().map(|it| literal(&it.name)).collect();
    let sql = format!(
        "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(marked_at)), 0)::bigint \
         FROM tallymark.lookup_mark WHERE lookup IN ({})",
        names.join(", ")
    );
    let row = tx.row(DOING, sql).await?;
    let read = || Ok::<_, sqlx::Error>((row.try_get::<i64, _>(0)?, row.try_get(1)?));
    let (count, age) = read().map_err(|source| tx.error(DOING, source))?;
    Ok(WaitingKeys { count: count.unsigned_abs(), age })
}

/// Some marked keys of a lookup, which no other worker has.
#[derive(Clone, Debug, Default)]
pub(crate) struct TakenKeys {
    ids: Vec<i64>,
    /// Each key by its columns.
    keys: Vec<Vec<String>>,
    /// Whether all keys are marked.
    has_all: bool,
}

impl TakenKeys {
    /// The number of marks.
    pub(crate) fn count(&self) -> usize {
        self.ids.len()
    }
}

/// Takes up to `keys_max` keys of a lookup for this transaction. Those that another worker has are
/// left to it.
pub(crate) async fn take(
    tx: &mut Tx,
    lookup: &MarkedLookup,
    keys_max: usize,
) -> Result<TakenKeys, DbError> {
    const DOING: &str = "taking the changed keys of a lookup";
    let sql = format!(
        "SELECT id, key FROM tallymark.lookup_mark WHERE lookup = {} ORDER BY id LIMIT {keys_max} \
         FOR UPDATE SKIP LOCKED",
        literal(&lookup.name)
    );
    let mut taken = TakenKeys::default();
    for row in tx.rows(DOING, sql).await? {
        let read = || {
            Ok::<(i64, Option<Vec<String>>), sqlx::Error>((row.try_get("id")?, row.try_get("key")?))
        };
        let (id, key) = read().map_err(|source| tx.error(DOING, source))?;
        taken.ids.push(id);
        match key {
            Some(key) => taken.keys.push(key),
            None => taken.has_all = true,
        }
    }
    taken.keys.sort();
    taken.keys.dedup();
    Ok(taken)
}

/// Replaces the keys by marks of hours of the captured table, whose capture is `key`. `Some`: it
/// cannot be done, and nothing was.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn replace(
    tx: &mut Tx,
    (capture, lookup): (&LookupCapture, &MarkedLookup),
    taken: &TakenKeys,
    key: &str,
) -> Result<Option<Fault>, DbError> {
    const DOING: &str = "looking for the rows of a lookup's keys";
    let (key, axis) = (literal(key), literal(&lookup.name));
    let sql = if taken.has_all {
        format!("INSERT INTO tallymark.mark (capture, axis) VALUES ({key}, {axis})")
    } else {
        let found = match unindexed(tx, capture, lookup).await? {
            Some(missing) if missing.is_large => return Ok(Some(refused(capture, &missing))),
            // A small table is read once for all keys.
            Some(_) => {
                tx.execute(DOING, "SET LOCAL enable_seqscan = on".to_owned()).await?;
                hours(capture, lookup, taken, false)
            }
            None => hours(capture, lookup, taken, true),
        };
        format!(include_str!("lookup_hours.sql"), capture = key, axis = axis, found = found)
    };
    tx.execute(DOING, sql).await?;
    let ids: Vec<String> = taken.ids.iter().map(ToString::to_string).collect();
    let sql = format!(
        "DELETE FROM tallymark.lookup_mark WHERE id = ANY ('{{{}}}'::bigint[])",
        ids.join(",")
    );
    tx.execute("replacing the keys of a lookup", sql).await?;
    Ok(None)
}

/// The query of the hours in which the captured table has rows of these keys. `by_index`: it looks
/// them up key by key, whatever PostgreSQL expects of a join.
fn hours(
    capture: &LookupCapture,
    lookup: &MarkedLookup,
    taken: &TakenKeys,
    by_index: bool,
) -> String {
    let (mut lists, mut names, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    for (place, (on, sql_type)) in capture.lookup.on.iter().zip(&lookup.types).enumerate() {
        let values = taken.keys.iter().filter_map(|key| key.get(place)).map(|it| literal(it));
        let values = values.collect::<Vec<_>>().join(",");
        lists.push(format!("ARRAY[{values}]::text[]::{sql_type}[]"));
        names.push(format!("k{place}"));
        pairs.push(format!("{} = {KEYS}.k{place}", ident(&on.column)));
    }
    let (first, last) = capture.axis.hours();
    let keys = format!("unnest({}) AS {KEYS} ({})", lists.join(", "), names.join(", "));
    let hours = format!("DISTINCT {first} AS first_hour, {last} AS last_hour");
    let (source, pairs) = (table(&capture.source), pairs.join(" AND "));
    let has_time = format!("{} IS NOT NULL", ident(capture.axis.column()));
    match by_index {
        // OFFSET keeps the inner query from becoming a join.
        true => format!(
            "SELECT found.* FROM {keys} CROSS JOIN LATERAL (SELECT {hours} FROM {source} WHERE {pairs} \
             AND {has_time} OFFSET 0) AS found"
        ),
        false => format!("SELECT {hours} FROM {keys} JOIN {source} ON {pairs} WHERE {has_time}"),
    }
}

/// Each capture of a lookup whose marks can be read.
pub(crate) fn pairs<'a>(
    captures: &'a [LookupCapture],
    marked: &'a [MarkedLookup],
) -> impl Iterator<Item = (&'a LookupCapture, &'a MarkedLookup)> {
    captures.iter().filter_map(|of| Some((of, marked.iter().find(|it| it.name == of.name)?)))
}

/// The index that the captured table lacks, whatever its size. PostgreSQL's statements avoid whole
/// scans for the rest of `tx`.
pub(crate) async fn unindexed(
    tx: &mut Tx,
    capture: &LookupCapture,
    lookup: &MarkedLookup,
) -> Result<Option<Unindexed>, DbError> {
    let query = hours(capture, lookup, &TakenKeys::default(), true);
    let mut columns: Vec<&str> = capture.lookup.on.iter().map(|on| on.column.as_str()).collect();
    columns.push(capture.axis.column());
    plan_guard::unkeyed(tx, &query, KEYS, &columns).await
}

/// The alarm of keys that only a whole scan of a large table would find.
fn refused(capture: &LookupCapture, missing: &Unindexed) -> Fault {
    let facts = format!(
        "PostgreSQL would read all of {} for the rows of some keys of the lookup `{}`",
        table(&capture.source),
        capture.lookup.name
    );
    Fault::new(facts).remedy(format!("as its owner: {}", missing.remedy()))
}
