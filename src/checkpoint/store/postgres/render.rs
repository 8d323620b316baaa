//! Conditions and changes in SQL, over the row `it`.

use chrono::{DateTime, TimeDelta, Utc};

use super::value::{fields_of, key_of, to_json};
use crate::checkpoint::store::{Change, Cond, Is, Item, Key, PK, SK, Update, Value};
use crate::model::sql::literal;

/// `jsonb_build_object` accepts a hundred arguments.
const PAIRS_MAX: usize = 40;

/// The rows after a write.
const ANSWER: &str = "RETURNING it.rollup, it.sort, it.item::text AS item";

/// The clock that gives the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreClock {
    /// The server's clock.
    Server,
    /// The workers' clocks.
    Workers,
}

/// Writes SQL by one clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Render {
    clock: StoreClock,
}

impl Render {
    /// A conditional write that returns the row after it, or no row.
    pub(super) fn update(table: &str, clock: StoreClock, update: &Update) -> String {
        let render = Self { clock };
        let changed = render.changed("it.item", &update.changes);
        let condition = render.condition(&update.condition);
        let (rollup, sort) = key_of(&update.key);
        if update.condition.allows_missing() {
            let made = render.changed("'{}'::jsonb", &update.changes);
            return format!(
                "INSERT INTO {table} AS it (rollup, sort, item) VALUES ({rollup}, {sort}, {made}) \
                 ON CONFLICT (rollup, sort) DO UPDATE SET item = {changed} WHERE {condition} {ANSWER}"
            );
        }
        format!(
            "UPDATE {table} AS it SET item = {changed} \
             WHERE it.rollup = {rollup} AND it.sort = {sort} AND {condition} {ANSWER}"
        )
    }

    /// A conditional write of all rows from the key of `updates` to `last`, each by the first
    /// update whose condition it meets. The subquery locks the rows in the order of their keys,
    /// whatever the plan. A row that changed while it waited is judged as it is then.
    pub(super) fn update_range(
        table: &str,
        clock: StoreClock,
        updates: &[Update; 2],
        last: &str,
    ) -> String {
        let render = Self { clock };
        let (rollup, first) = key_of(&updates[0].key);
        let conditions = updates.each_ref().map(|update| render.condition(&update.condition));
        let changed = updates.each_ref().map(|update| render.changed("it.item", &update.changes));
        format!(
            "WITH held AS MATERIALIZED (SELECT it.rollup, it.sort FROM {table} AS it \
             WHERE it.rollup = {rollup} AND it.sort BETWEEN {first} AND {last} \
             AND ({first_holds} OR {other_holds}) ORDER BY it.sort FOR UPDATE) \
             UPDATE {table} AS it SET item = CASE WHEN {first_holds} THEN {by_first} \
             ELSE {by_other} END FROM held WHERE it.rollup = held.rollup AND it.sort = held.sort",
            last = literal(last),
            first_holds = conditions[0],
            other_holds = conditions[1],
            by_first = changed[0],
            by_other = changed[1],
        )
    }

    /// The conditional writes of several items, in their order, by one statement. `None`: they differ
    /// in more than the key, or a missing item is not allowed.
    pub(super) fn alike(table: &str, clock: StoreClock, updates: &[Update]) -> Option<String> {
        let [first, others @ ..] = updates else { return None };
        let is_alike =
            |other: &Update| other.condition == first.condition && other.changes == first.changes;
        if others.is_empty() || !others.iter().all(is_alike) || !first.condition.allows_missing() {
            return None;
        }
        let render = Self { clock };
        let (made, changed) = (
            render.changed("'{}'::jsonb", &first.changes),
            render.changed("it.item", &first.changes),
        );
        let condition = render.condition(&first.condition);
        let keys = updates.iter().enumerate().map(|(place, update)| {
            let (rollup, sort) = key_of(&update.key);
            format!("({place}, {rollup}, {sort})")
        });
        let keys = keys.collect::<Vec<_>>().join(", ");
        Some(format!(
            "INSERT INTO {table} AS it (rollup, sort, item) SELECT key.rollup, key.sort, {made} \
             FROM (VALUES {keys}) AS key (place, rollup, sort) ORDER BY key.place \
             ON CONFLICT (rollup, sort) DO UPDATE SET item = {changed} WHERE {condition} {ANSWER}"
        ))
    }

    /// A conditional write of a whole item, which returns a row if it was made.
    pub(super) fn put(table: &str, clock: StoreClock, item: &Item, condition: &Cond) -> String {
        let part = |name: &str| match item.get(name) {
            Some(Value::Text(text)) => text.as_str(),
            _ => "",
        };
        let (rollup, sort) = key_of(&Key::new(part(PK), part(SK)));
        let whole = json(&serde_json::Value::Object(fields_of(item)));
        let holds = Self { clock }.condition(condition);
        if condition.allows_missing() {
            return format!(
                "INSERT INTO {table} AS it (rollup, sort, item) VALUES ({rollup}, {sort}, {whole}) \
                 ON CONFLICT (rollup, sort) DO UPDATE SET item = excluded.item WHERE {holds} \
                 RETURNING it.rollup"
            );
        }
        format!(
            "UPDATE {table} AS it SET item = {whole} \
             WHERE it.rollup = {rollup} AND it.sort = {sort} AND {holds} RETURNING it.rollup"
        )
    }

    /// A condition on an existing row.
    fn condition(self, condition: &Cond) -> String {
        let joined = |parts: &[Cond], sign: &str, none: &str| {
            let parts: Vec<_> = parts.iter().map(|part| self.condition(part)).collect();
            if parts.is_empty() { none.to_owned() } else { format!("({})", parts.join(sign)) }
        };
        match condition {
            Cond::Absent => "false".to_owned(),
            Cond::Present => "true".to_owned(),
            Cond::Lacks(name) => format!("NOT jsonb_exists(it.item, {})", literal(name)),
            Cond::Compare(name, is, value) => compared(name, *is, value),
            Cond::Passed(name, now) => {
                let now = self.now_ms(*now, TimeDelta::zero());
                ordered(name, "number", &format!("::numeric <= {now}"))
            }
            Cond::All(parts) => joined(parts, " AND ", "true"),
            Cond::Any(parts) => joined(parts, " OR ", "false"),
        }
    }

    /// The attributes of `before` after the changes.
    fn changed(self, before: &str, changes: &[(String, Change)]) -> String {
        let attribute = |name: &str| format!("{before} -> {}", literal(name));
        let (mut removed, mut pairs) = (Vec::new(), Vec::new());
        for (name, change) in changes {
            let value = match change {
                Change::Set(value) => to_json(value).map(|value| json(&value)),
                Change::Remove => None,
                Change::Copy { from, or } => {
                    to_json(or).map(|or| format!("coalesce({}, {})", attribute(from), json(&or)))
                }
                Change::Increment => {
                    Some(format!("to_jsonb(coalesce(({})::numeric, 0) + 1)", attribute(name)))
                }
                Change::FromNow { now, after } => {
                    Some(format!("to_jsonb({})", self.now_ms(*now, *after)))
                }
            };
            match value {
                Some(value) => pairs.push(format!("{}, {value}", literal(name))),
                None => removed.push(literal(name)),
            }
        }
        let built = pairs.chunks(PAIRS_MAX);
        let built = built.map(|some| format!(" || jsonb_build_object({})", some.join(", ")));
        let built: String = built.collect();
        format!("({before} - ARRAY[{}]::text[]){built}", removed.join(", "))
    }

    /// The epoch milliseconds of an instant `after` now.
    fn now_ms(self, told: DateTime<Utc>, after: TimeDelta) -> String {
        match self.clock {
            StoreClock::Workers => (told + after).timestamp_millis().to_string(),
            StoreClock::Server => format!(
                "floor(extract(epoch FROM clock_timestamp()) * 1000 + {})::bigint",
                after.num_milliseconds()
            ),
        }
    }
}

fn compared(name: &str, is: Is, value: &Value) -> String {
    let Some(told) = to_json(value) else { return (is == Is::Other).to_string() };
    let stored = format!("it.item -> {}", literal(name));
    let sign = match is {
        Is::Equal => return format!("coalesce({stored} = {}, false)", json(&told)),
        Is::Other => return format!("({stored} IS DISTINCT FROM {})", json(&told)),
        Is::Below => "<",
        Is::AtMost => "<=",
        Is::Above => ">",
    };
    match &told {
        serde_json::Value::Number(number) => {
            ordered(name, "number", &format!("::numeric {sign} {number}"))
        }
        serde_json::Value::String(text) => {
            ordered(name, "string", &format!(" COLLATE \"C\" {sign} {}", literal(text)))
        }
        _ => "false".to_owned(),
    }
}

/// A comparison that holds only for values of one type.
fn ordered(name: &str, kind: &str, comparison: &str) -> String {
    let name = literal(name);
    format!(
        "CASE jsonb_typeof(it.item -> {name}) WHEN '{kind}' \
         THEN (it.item ->> {name}){comparison} ELSE false END"
    )
}

fn json(value: &serde_json::Value) -> String {
    format!("{}::jsonb", literal(&value.to_string()))
}
