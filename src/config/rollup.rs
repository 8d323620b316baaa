//! Reads `[[rollup]]`.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};

use crate::model::hint::Fault;
use crate::model::rollup::{EpochUnit, Late, Rollup, TableName, TimeColumn};
use crate::model::slice::Calendar;
use crate::model::text::{nearest, shown};

use super::cut::{Cut, Usual};
use super::measures::condition;
use super::raw::{Node, Section, identifier_fault};
use super::{duration, expect, lookup, measures};

pub(super) const KEYS: [&str; 25] = [
    "name",
    "from",
    "time",
    "start",
    "slice",
    "trailing",
    "open",
    "live",
    "bucket",
    "bucket_as",
    "timezone",
    "week_start",
    "grace",
    "lookback",
    "late",
    "where",
    "lookup",
    "group_by",
    "measures",
    "shrink_guard",
    "seal_before",
    "keep",
    "partition_by",
    "plan_guard",
    "expect",
];

/// A rollup of which only the name was read.
pub(super) struct Draft<'d> {
    pub(super) section: Section<'d>,
    pub(super) name: Option<String>,
}

/// Reads a rollup's name, and reports keys that no rollup has.
pub(super) fn draft<'d>(node: &Node<'d>, names: &mut HashSet<String>) -> Option<Draft<'d>> {
    let mut section = node.section("a table: [[rollup]]")?;
    if let Some(name) = section.get("name").and_then(|node| node.as_str()).filter(is_name) {
        section.key = format!("rollup.{name}");
    }
    section.only(&KEYS);
    let name = name(&section, names);
    Some(Draft { section, name })
}

/// Reads a rollup of a table.
pub(super) fn read(Draft { section, name }: &Draft<'_>, has_own_target: bool) -> Option<Rollup> {
    let late = section.get("late").map_or(Some(Late::default()), |node| late(&node));
    let from = section.need("from", r#"write from = "public.events""#).and_then(|n| table(&n));
    let time = section.need("time", r#"write time = "created_at""#).and_then(|n| time(&n));
    let cut = Cut::read(section, Usual::DEFAULT);
    no_window(section)?;
    not_open(section)?;
    let live = live(section, has_own_target);
    let start = section
        .need("start", r#"write the day when history begins: start = "2025-01-01""#)
        .zip(cut.as_ref())
        .and_then(|(node, cut)| start(&node, &cut.calendar));
    let seal_before = seal_before(section, cut.as_ref());
    let keep = keep(section);
    let grace = match section.get("grace") {
        Some(node) => duration::read(&node, GRACE_RANGE),
        None => Some(GRACE_DEFAULT),
    };
    let lookback = section.get("lookback").map_or(Some(Vec::new()), |node| lookback(&node));
    let shrink_guard = shrink_guard(section);
    let plan_guard = section.get("plan_guard").map_or(Some(true), |node| node.boolean());
    let filter = condition(section);
    let columns = measures::read(section);
    let expect = expect::read(section, columns.as_ref());
    let lookups = lookup::read(section, from.as_ref());
    if late == Some(Late::Capture)
        && let (Some(TableName { schema: None, name }), Some(node)) = (&from, section.get("from"))
    {
        return node.wrong(
            Fault::new("a captured table needs its schema")
                .remedy(format!("write schema.{name}, such as public.{name}")),
        );
    }
    let (Cut { calendar, bucket, bucket_as, partition_by }, (group_by, measures)) =
        (cut?, columns?);
    let read = Rollup {
        name: name.clone()?,
        from: from?,
        finer: None,
        trailing: None,
        open: false,
        live: live?,
        mirror: None,
        lookups: lookups?,
        time: time?,
        start: start?,
        calendar,
        bucket,
        bucket_as,
        grace: grace?,
        lookback: lookback?,
        late: late?,
        filter: filter?,
        group_by,
        measures,
        shrink_guard: shrink_guard?,
        seal_before: seal_before?,
        keep: keep?,
        partition_by,
        plan_guard: plan_guard?,
        expect: expect?,
    };
    lookup::resolve(section, read)
}

const GRACE_DEFAULT: Duration = Duration::from_secs(2 * 60);
/// A year. Later rows are a case for `replay`.
pub(super) const GRACE_RANGE: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(366 * 24 * 60 * 60);
/// A year of days. Every tick reads the checkpoints this far behind the newest slice.
pub(super) const LOOKBACK_MAX: u32 = 366;
/// For more reruns of one slice, `verify` and `replay` are better.
pub(super) const LOOKBACK_ENTRIES_MAX: usize = 16;
/// From a day to a hundred years.
pub(super) const KEEP_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(24 * 3600)..=Duration::from_secs(36_500 * 24 * 3600);
const SHRINK_GUARD_DEFAULT: f64 = 0.5;

/// Reads `keep`: rows that are older are deleted.
pub(super) fn keep(section: &Section<'_>) -> Option<Option<Duration>> {
    section.get("keep").map_or(Some(None), |node| duration::read(&node, KEEP_RANGE).map(Some))
}

/// Reads `seal_before`: slices that start earlier are never computed.
pub(super) fn seal_before(
    section: &Section<'_>,
    cut: Option<&Cut>,
) -> Option<Option<DateTime<Utc>>> {
    match (section.get("seal_before"), cut) {
        (Some(node), Some(cut)) => instant(&node, &cut.calendar).map(Some),
        (Some(_), None) => None,
        (None, _) => Some(None),
    }
}

/// Refuses `trailing` where no finer rollup holds the rows of a window.
pub(super) fn no_window(section: &Section<'_>) -> Option<()> {
    let Some(node) = section.get("trailing") else { return Some(()) };
    node.wrong(
        Fault::new("windows overlap, so each row would be read once for each of them")
            .remedy(r#"compute a finer rollup, and this one from it: from = { rollup = "daily" }"#),
    )
}

/// Reads whether readers have a live view, which reads the source itself.
fn live(section: &Section<'_>, has_own_target: bool) -> Option<bool> {
    let Some(node) = section.get("live") else { return Some(false) };
    let live = node.boolean()?;
    if live && has_own_target {
        return node.wrong(
            Fault::new(
                "a live view reads the source's rows, and [target] has a database of its own",
            )
            .remedy("remove `url` of [target] where both are one database, or remove `live`"),
        );
    }
    Some(live)
}

/// Refuses `live` where the rows are those of another rollup.
pub(super) fn not_live(section: &Section<'_>) -> Option<()> {
    let Some(node) = section.get("live") else { return Some(()) };
    node.wrong(Fault::new("a live view reads rows of a table of the source").remedy(
        "set `live` on the finer rollup, and `open = true` here for the slice that goes on",
    ))
}

/// Refuses `open` where no finer rollup says which rows are final.
pub(super) fn not_open(section: &Section<'_>) -> Option<()> {
    let Some(node) = section.get("open") else { return Some(()) };
    node.wrong(
        Fault::new("an open slice is the sum of finer slices that are done").remedy(
            r#"compute a finer rollup, and this one from it: from = { rollup = "hourly" }"#,
        ),
    )
}

pub(super) fn shrink_guard(section: &Section<'_>) -> Option<f64> {
    section.get("shrink_guard").map_or(Some(SHRINK_GUARD_DEFAULT), |node| node.number(0.0..=1.0))
}

pub(super) fn name(section: &Section<'_>, names: &mut HashSet<String>) -> Option<String> {
    /// PostgreSQL's 63, less room for prefixes and suffixes.
    const BYTES_MAX: usize = 48;
    let node = section.need("name", r#"write name = "entity_daily""#)?;
    let name = node.string(r#"a name such as "entity_daily""#)?;
    if !is_name(&name) {
        return node.wrong(
            Fault::new(format!("{} cannot name a table", shown(name)))
                .remedy("use a-z, 0-9 and _, and begin with a letter"),
        );
    }
    if name.len() > BYTES_MAX {
        return node.wrong(format!("the name has {} bytes; {BYTES_MAX} is the most", name.len()));
    }
    if !names.insert(name.to_owned()) {
        return node.wrong(
            Fault::new(format!("{name:?} is the name of an earlier rollup"))
                .remedy("choose another"),
        );
    }
    Some(name.to_owned())
}

pub(super) fn is_name(name: &&str) -> bool {
    let allowed = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '_');
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.chars().all(allowed)
}

/// Reads the offsets after which a slice runs again: `2` is `[1, 2]`.
fn lookback(node: &Node<'_>) -> Option<Vec<u32>> {
    if !node.is_array() {
        return node.integer(0..=LOOKBACK_MAX).map(|slices| (1..=slices).collect());
    }
    let entries = node.array("an array such as [1, 2, 7, 28]")?;
    if entries.is_empty() {
        return node.wrong(
            Fault::new("is empty").remedy("write such as [1, 2, 7, 28], or remove the key"),
        );
    }
    if entries.len() > LOOKBACK_ENTRIES_MAX {
        return node
            .wrong(format!("has {} entries; {LOOKBACK_ENTRIES_MAX} is the most", entries.len()));
    }
    let read: Option<Vec<u32>> =
        entries.iter().map(|entry| entry.integer(1..=LOOKBACK_MAX)).collect();
    let offsets = read?;
    if let Some(place) = offsets.windows(2).position(|pair| pair[0] >= pair[1]) {
        return entries[place + 1].wrong(
            Fault::new(format!("{} does not come after {}", offsets[place + 1], offsets[place]))
                .remedy("write each number once, in ascending order"),
        );
    }
    Some(offsets)
}

/// Reads how late changes are noticed.
fn late(node: &Node<'_>) -> Option<Late> {
    const FORM: &str =
        r#""grace", "clock", "capture", or { column = "updated_at" } with an indexed change time"#;
    if node.as_section().is_some() {
        return time(node).map(Late::Column);
    }
    match node.string(FORM)? {
        "grace" => Some(Late::Grace),
        "clock" => Some(Late::Clock),
        "capture" => Some(Late::Capture),
        "column" => node.wrong(r#"say which: late = { column = "updated_at" }"#),
        other => node.wrong(
            Fault::new(format!("{} is not a way to notice late changes", shown(other)))
                .remedy(format!("use {FORM}")),
        ),
    }
}

pub(super) fn table(node: &Node<'_>) -> Option<TableName> {
    let text = node.string(r#"a table such as "public.events""#)?;
    match parse_table(text) {
        Ok(table) => Some(table),
        Err(fault) => node.wrong(fault.rephrased(|facts| format!("{} {facts}", shown(text)))),
    }
}

/// Parses the name of a table or view, with or without its schema.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence.
pub fn parse_table(text: &str) -> Result<TableName, Fault> {
    let parts = parts(text);
    let (schema, name) = match parts.as_deref() {
        Some([name]) => (None, name),
        Some([schema, name]) => (Some(schema), name),
        _ => {
            return Err(Fault::new("is not a table")
                .remedy("write schema.name, and a part with dots or quotes in double quotes"));
        }
    };
    let fault = schema.and_then(|schema| identifier_fault(schema)).or(identifier_fault(name));
    match fault {
        Some((facts, remedy)) => Err(Fault::new(facts).remedy(remedy)),
        None => Ok(TableName { schema: schema.cloned(), name: name.clone() }),
    }
}

/// Splits `public."Order.Items"` at its dots. `None`: a part is malformed.
fn parts(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let part;
        (part, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_part(quoted)?,
            None => {
                let (part, rest) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
                // White space at an end is a typing mistake.
                if part.is_empty() || part.contains('"') || part.trim() != part {
                    return None;
                }
                (part.to_owned(), rest)
            }
        };
        parts.push(part);
        if rest.is_empty() {
            return Some(parts);
        }
        rest = rest.strip_prefix('.')?;
    }
}

/// The name in double quotes whose first quote is already passed, and the text after it.
fn quoted_part(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, after)),
        }
    }
}

fn time(node: &Node<'_>) -> Option<TimeColumn> {
    const COLUMN: &str = r#"the name of a column such as "created_at""#;
    let Some(mut section) = node.as_section() else {
        let expected = r#"a column such as "created_at", or { column = "created_at" }"#;
        let column = node.identifier(expected)?.to_owned();
        return Some(TimeColumn { column, zone: None, unit: None });
    };
    section.only(&["column", "zone", "unit"]);
    let column = section
        .need("column", r#"write { column = "created_at" }"#)
        .and_then(|node| node.identifier(COLUMN).map(str::to_owned));
    let zone = section.get("zone").map_or(Some(None), |node| zone(&node).map(Some));
    let unit = section.get("unit").map_or(Some(None), |node| unit(&node).map(Some));
    if let (Some(_), Some(node)) = (section.get("zone"), section.get("unit")) {
        return node
            .wrong(Fault::new("an integer column has no zone").remedy("remove `zone` or `unit`"));
    }
    Some(TimeColumn { column: column?, zone: zone?, unit: unit? })
}

fn unit(node: &Node<'_>) -> Option<EpochUnit> {
    const FORM: &str = r#""seconds" or "milliseconds""#;
    match node.string(FORM)? {
        "seconds" => Some(EpochUnit::Seconds),
        "milliseconds" => Some(EpochUnit::Milliseconds),
        other => node.wrong(
            Fault::new(format!("{} is not a unit", shown(other))).remedy(format!("use {FORM}")),
        ),
    }
}

pub(super) fn zone(node: &Node<'_>) -> Option<Tz> {
    let text = node.string(r#"a time zone such as "Europe/Berlin""#)?;
    if let Ok(zone) = text.parse() {
        return Some(zone);
    }
    // Users omit the region (`Berlin`) as often as they mistype (`Europe/Berlni`).
    let names = || TZ_VARIANTS.iter().map(|zone| zone.name());
    let city = names()
        .find(|name| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(text)));
    node.wrong(match city.or_else(|| nearest(text, names())) {
        Some(near) => Fault::new(format!("{} is not a time zone", shown(text)))
            .remedy(format!("did you mean `{near}`?")),
        None => Fault::new(format!("{} is not a time zone", shown(text)))
            .remedy("use an IANA name such as `Europe/Berlin`"),
    })
}

fn instant(node: &Node<'_>, calendar: &Calendar) -> Option<DateTime<Utc>> {
    let text = node.instant_text(r#"a date such as "2025-01-01""#)?;
    match calendar.instant(&text) {
        Ok(instant) => Some(instant),
        Err(fault) => node.refused(&text, &fault, r#"write a date such as "2025-01-01""#),
    }
}

/// Reads the start of history, which must be the start of a slice.
pub(super) fn start(node: &Node<'_>, calendar: &Calendar) -> Option<DateTime<Utc>> {
    let at = instant(node, calendar)?;
    match calendar.starting(at) {
        Ok(_) => Some(at),
        Err(fault) => node.wrong(Fault::of(&fault)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_taken_exactly_as_written_and_quotes_protect_dots() {
        let read = |text| parts(text).unwrap().join("|");
        assert_eq!(read("events"), "events");
        assert_eq!(read("Public.Events"), "Public|Events");
        assert_eq!(read(r#"public."Order.Items""#), "public|Order.Items");
        assert_eq!(read(r#""a""b".c d"#), r#"a"b|c d"#);
        assert_eq!(read(r#""x".y.z"#), "x|y|z");
        for text in ["", ".", "a.", ".a", "a..b", r#"a"b"#, r#""a"#, r#""a"b"#, "a. b", r#"a."b"""#]
        {
            assert_eq!(parts(text), None, "{text}");
        }
    }
}
