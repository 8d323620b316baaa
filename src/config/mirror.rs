//! `[[mirror]]`: a table that keeps the things of one type of a Bubble app, and the rollups that are
//! computed from it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::compose::{self, FINER_DECIDES, Origins};
use super::cut::{Cut, Usual};
use super::measures::{RESERVED, condition};
use super::raw::{Node, Section};
use super::rollup::{self, Draft, GRACE_RANGE};
use super::{SourceConfig, duration, expect, measures};
use crate::model::hint::Fault;
use crate::model::rollup::expect::Expect;
use crate::model::rollup::mirror::{CREATED_AT, Mirror};
use crate::model::rollup::{Late, Rollup, TableName, TimeColumn};
use crate::model::text::{listed, nearest, shown};

/// The keys of a mirror.
pub(super) const KEYS: [&str; 11] = [
    "name",
    "type",
    "fields",
    "start",
    "slice",
    "timezone",
    "week_start",
    "grace",
    "modified",
    "shrink_guard",
    "seal_before",
];

/// The keys of a rollup that a mirror lacks, with the reasons.
pub(super) const REFUSED: [(&str, &str); 7] = [
    ("from", "a mirror keeps the things of `type`"),
    ("time", "a thing stands at its `Created Date`, which nobody can set or change"),
    ("late", "`modified` says whether changes are looked for"),
    ("lookback", "each page is paid for, so no slice is read again without a reason"),
    ("where", "all things of the type are kept; write it in the rollup"),
    ("group_by", "a mirror keeps things; write it in the rollup"),
    ("measures", "a mirror keeps things; write them in the rollup"),
];

/// A workflow of Bubble's lasts up to five minutes, and stamps its things before it ends.
const GRACE_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// Keys that every thing has, and the columns that are made of them.
pub(super) const BUILT_IN: [(&str, &str); 3] =
    [("_id", "_id"), ("Created Date", "created_at"), ("Modified Date", "modified_at")];

/// Reads all mirrors. Their names are added to `names`.
pub(super) fn read_all(
    node: &Node<'_>,
    source: Option<&SourceConfig>,
    names: &mut HashSet<String>,
) -> Option<Vec<Rollup>> {
    let nodes = node.array("an array of tables: [[mirror]] with double brackets")?;
    if source.is_some_and(|source| source.app.is_none()) {
        return node.wrong(
            Fault::new("a mirror keeps the things of a Bubble app, and the source is a database")
                .remedy("remove it, and read a table: from = \"public.events\""),
        );
    }
    // Read all before failing, so that all mistakes are reported.
    let read: Vec<_> = nodes.iter().map(|node| read(node, source, names)).collect();
    read.into_iter().collect()
}

fn read(
    node: &Node<'_>,
    source: Option<&SourceConfig>,
    names: &mut HashSet<String>,
) -> Option<Rollup> {
    let mut section = node.section("a table: [[mirror]]")?;
    if let Some(name) = section.get("name").and_then(|it| it.as_str()).filter(rollup::is_name) {
        section.key = format!("mirror.{name}");
    }
    let known = KEYS.into_iter().chain(REFUSED.map(|(key, _)| key));
    section.only(&known.collect::<Vec<_>>());
    for (key, why) in REFUSED {
        if let Some(node) = section.get(key) {
            node.wrong::<()>(Fault::new(why).remedy("remove the key"));
        }
    }
    let name = rollup::name(&section, names);
    let thing = section.need("type", r#"write type = "order""#).and_then(|it| thing(&it));
    let fields = section
        .need("fields", r#"write the keys that rollups need: fields = ["status", "amount"]"#)
        .and_then(|node| fields(&node));
    let cut = Cut::read(&section, Usual::DEFAULT);
    let start = section
        .need("start", r#"write the day when history begins: start = "2025-01-01""#)
        .zip(cut.as_ref())
        .and_then(|(node, cut)| rollup::start(&node, &cut.calendar));
    let grace = match section.get("grace") {
        Some(node) => duration::read(&node, GRACE_RANGE),
        None => Some(GRACE_DEFAULT),
    };
    let modified = section.get("modified").map_or(Some(false), |node| node.boolean());
    let shrink_guard = rollup::shrink_guard(&section);
    let seal_before = rollup::seal_before(&section, cut.as_ref());
    let app = source?.app.as_ref()?;
    let Cut { calendar, bucket, bucket_as, .. } = cut?;
    let thing = thing?;
    Some(Rollup {
        name: name?,
        from: TableName { schema: None, name: thing.clone() },
        finer: None,
        trailing: None,
        open: false,
        live: false,
        mirror: Some(Arc::new(Mirror {
            app: app.address.clone(),
            branch: app.branch.clone(),
            thing,
            fields: fields?,
            follows_changes: modified?,
        })),
        time: created_at(),
        start: start?,
        calendar,
        bucket,
        bucket_as,
        grace: grace?,
        lookback: Vec::new(),
        late: Late::Grace,
        filter: None,
        group_by: Vec::new(),
        measures: Vec::new(),
        shrink_guard: shrink_guard?,
        seal_before: seal_before?,
        keep: None,
        partition_by: None,
        plan_guard: false,
        expect: Expect::default(),
        lookups: Vec::new(),
    })
}

fn created_at() -> TimeColumn {
    TimeColumn { column: CREATED_AT.to_owned(), zone: None, unit: None }
}

/// The type as in the address of the Data API.
fn thing(node: &Node<'_>) -> Option<String> {
    let text = node.string(r#"a type as in the address of the Data API, such as "order""#)?;
    if text.is_empty() || text.contains('/') || text.chars().any(char::is_control) {
        return node.wrong(
            Fault::new(format!("{} is no type of an app", shown(text)))
                .remedy(r#"write it as in the address of the Data API, such as "order""#),
        );
    }
    Some(text.to_owned())
}

/// The keys of the fields. Each is the name of a column, too.
fn fields(node: &Node<'_>) -> Option<Vec<String>> {
    let nodes = node.array(r#"an array of keys such as ["status", "amount"]"#)?;
    let mut names = HashSet::new();
    let read: Vec<Option<String>> = nodes.iter().map(|node| field(node, &mut names)).collect();
    read.into_iter().collect()
}

fn field(node: &Node<'_>, names: &mut HashSet<String>) -> Option<String> {
    let key = node.identifier(r#"the key of a field such as "status""#)?;
    if let Some((key, column)) = BUILT_IN.iter().find(|(own, column)| key == *own || key == *column)
    {
        return node.wrong(
            Fault::new(format!("every mirror has `{key}`, as the column {column}"))
                .remedy("remove it"),
        );
    }
    let reserved = RESERVED.iter().find(|(name, _)| *name == key);
    if reserved.is_some() || key.starts_with("__") {
        return node.wrong(
            Fault::new(format!("a column cannot be called {}", shown(key)))
                .remedy("give the field another name in the app"),
        );
    }
    if !names.insert(key.to_owned()) {
        return node
            .wrong(Fault::new(format!("{} is there twice", shown(key))).remedy("remove one"));
    }
    Some(key.to_owned())
}

/// Refuses a rollup of a table where the source has none.
pub(super) fn is_database(draft: &Draft<'_>, known: Origins<'_>) -> Option<()> {
    if known.source.is_none_or(|source| source.app.is_none()) {
        return Some(());
    }
    let fault = Fault::new("the source is a Bubble app, which has no tables");
    let fault = fault.remedy(r#"add a [[mirror]], and write from = { mirror = "orders" }"#);
    match draft.section.get("from") {
        Some(node) => node.wrong(fault),
        None => draft.section.wrong(fault),
    }
}

/// Reads a rollup that is computed from a mirror.
pub(super) fn rollup_of(
    Draft { section, name }: &Draft<'_>,
    (node, wanted): (&Node<'_>, &str),
    known: Origins<'_>,
) -> Option<Rollup> {
    let Some(mirrors) = known.mirrors else {
        return node.wrong(
            Fault::new(format!("{} is no mirror of this file, which has none", shown(wanted)))
                .remedy("add a [[mirror]] of this name"),
        );
    };
    // Errors of the mirrors are already reported, and this rollup is not to blame.
    let mirrors = mirrors?;
    let names = || mirrors.iter().map(|mirror| mirror.name.as_str());
    let Some(found) = mirrors.iter().find(|mirror| mirror.name == wanted) else {
        let hint = match nearest(wanted, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the mirrors are {}", listed(names())),
        };
        return node.wrong(
            Fault::new(format!("{} is no mirror of this file", shown(wanted))).remedy(hint),
        );
    };
    for (key, why, remedy) in FINER_DECIDES.iter().filter(|(key, ..)| *key != "where") {
        if let Some(node) = section.get(key) {
            let why = if *key == "time" { "a row of a mirror stands at `created_at`" } else { why };
            node.wrong::<()>(Fault::new(why).remedy(*remedy));
        }
    }
    rollup::no_window(section)?;
    let cut = Cut::read(section, Usual::of(found));
    let cut = cut.and_then(|cut| compose::fits(section, cut, found));
    let start = cut.as_ref().and_then(|cut| compose::start(section, &cut.calendar, found));
    let keep = rollup::keep(section);
    let seal_before = rollup::seal_before(section, cut.as_ref());
    let shrink_guard = rollup::shrink_guard(section);
    let filter = condition(section);
    rollup::not_open(section)?;
    rollup::not_live(section)?;
    let columns = measures::read(section);
    let expect = expect::read(section, columns.as_ref());
    if let Some((group_by, measures)) = &columns {
        let keys = group_by.iter().map(|key| key.operand.clone());
        let read = keys.chain(measures.iter().flat_map(|measure| measure.reads()));
        let read = read.filter(|operand| operand.sql().is_none());
        are_columns(section, found, read.map(|operand| operand.name().to_owned()))?;
    }
    let (Cut { calendar, bucket, bucket_as, partition_by }, (group_by, measures)) =
        (cut?, columns?);
    Some(Rollup {
        name: name.clone()?,
        from: TableName { schema: Some(known.schema.to_owned()), name: found.name.clone() },
        finer: Some(Arc::new(found.clone())),
        trailing: None,
        open: false,
        live: false,
        mirror: None,
        time: created_at(),
        start: start?,
        calendar,
        bucket,
        bucket_as,
        grace: Duration::ZERO,
        lookback: Vec::new(),
        late: Late::Grace,
        filter: filter?,
        group_by,
        measures,
        shrink_guard: shrink_guard?,
        seal_before: seal_before?,
        keep: keep?,
        partition_by,
        plan_guard: false,
        expect: expect?,
        lookups: Vec::new(),
    })
}

/// Refuses columns that the mirror lacks.
fn are_columns(
    section: &Section<'_>,
    found: &Rollup,
    mut columns: impl Iterator<Item = String>,
) -> Option<()> {
    let mirror = found.mirror.as_ref()?;
    let Some(column) = columns.find(|column| !mirror.has_column(column)) else { return Some(()) };
    let known = || mirror.fields.iter().map(String::as_str).chain(Mirror::OWN);
    let fault = Fault::new(format!("mirror `{}` has no column {}", found.name, shown(&column)));
    section.wrong(fault.remedy(match nearest(&column, known()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("add it to the mirror's `fields`, or use {}", listed(known())),
    }))
}
