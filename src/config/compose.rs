//! Reads all rollups. Those computed from finer ones (`from = { rollup = … }`) come last.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::model::clock::rfc3339;
use crate::model::hint::Fault;
use crate::model::rollup::{Late, Rollup, TableName, TimeColumn};
use crate::model::slice::{Calendar, Trailing};
use crate::model::text::{listed, nearest, shown};

use super::cut::{Cut, Usual};
use super::raw::{Node, Section};
use super::rollup::{self, Draft};
use super::{SourceConfig, expect, measures, mirror};

/// The keys that only the finer rollup decides, with the reasons.
pub(super) const FINER_DECIDES: [(&str, &str, &str); 7] = [
    ("time", "a row of a rollup stands in its bucket's time", "remove the key"),
    ("late", "the finer rollup notices late changes, and passes them on", "remove the key"),
    (
        "grace",
        "a slice is due when all finer ones in it are done, which have waited",
        "remove the key",
    ),
    ("lookback", "a slice runs again whenever a finer one in it changed", "remove the key"),
    ("plan_guard", "the finer rollup's table has the index that this needs", "remove the key"),
    ("where", "which source rows count is decided by the finer rollup", "put the condition there"),
    ("lookup", "columns of other tables stand beside rows of a table", "remove the key"),
];

/// The ends of names that `init` gives to objects beside a rollup's table, and what they are.
const SUFFIXES: [(&str, &str); 2] = [("_series", "series"), ("_live", "live view")];

/// What the file offers to rollups.
#[derive(Clone, Copy)]
pub(super) struct Origins<'a> {
    /// The schema of the tables.
    pub(super) schema: &'a str,
    /// The mirrors. `None`: the file has none. `Some(None)`: they have errors.
    pub(super) mirrors: Option<Option<&'a [Rollup]>>,
    /// Whether the target has an address of its own.
    pub(super) has_own_target: bool,
    /// `None`: it has errors.
    pub(super) source: Option<&'a SourceConfig>,
}

/// The source of a rollup's rows.
enum Origin<'d> {
    Table,
    /// The finer rollup's name, and its place in the file.
    Rollup(Node<'d>, &'d str),
    /// The mirror's name, and its place in the file.
    Mirror(Node<'d>, &'d str),
    Unreadable,
}

/// Reads all rollups. `names` are those that are taken.
pub(super) fn read_all(
    node: &Node<'_>,
    known: Origins<'_>,
    mut names: HashSet<String>,
) -> Option<Vec<Rollup>> {
    let nodes = node.array("an array of tables: [[rollup]] with double brackets")?;
    if nodes.is_empty() {
        return node.wrong(
            Fault::new("is empty").remedy("add at least one [[rollup]], as the README shows"),
        );
    }
    let drafts: Vec<_> = nodes.iter().map(|node| rollup::draft(node, &mut names)).collect();
    for draft in drafts.iter().flatten() {
        is_taken(draft, &names);
    }
    let origins: Vec<_> = drafts.iter().map(|draft| draft.as_ref().map(origin)).collect();
    let mut places = HashMap::new();
    for (place, draft) in drafts.iter().enumerate() {
        if let Some(name) = draft.as_ref().and_then(|draft| draft.name.as_deref()) {
            places.entry(name).or_insert(place);
        }
    }
    // `None`: not read yet. `Some(None)`: it has an error.
    let mut read: Vec<Option<Option<Rollup>>> = drafts.iter().map(|_| None).collect();
    let mut left: Vec<usize> = (0..drafts.len()).filter(|place| drafts[*place].is_some()).collect();
    // Each pass reads the rollups whose finer rollup an earlier pass has read, so it reads at least
    // one, or those that are left lead round in a circle.
    loop {
        let before = left.len();
        left.retain(|&place| {
            if let (Some(draft), Some(origin)) = (&drafts[place], &origins[place]) {
                read[place] = read_one(draft, origin, &places, &read, known);
            }
            read[place].is_none()
        });
        if left.is_empty() || left.len() == before {
            break;
        }
    }
    for ((draft, origin), read) in drafts.iter().zip(&origins).zip(&read) {
        if let (Some(draft), Some(Origin::Rollup(node, finer)), None) = (draft, origin, read) {
            is_circular(node, draft, finer);
        }
    }
    // Read all before failing, so that all mistakes are reported.
    read.into_iter().map(Option::flatten).collect()
}

/// Reads one rollup, or returns `None` while its finer one is unread.
fn read_one(
    draft: &Draft<'_>,
    origin: &Origin<'_>,
    places: &HashMap<&str, usize>,
    read: &[Option<Option<Rollup>>],
    known: Origins<'_>,
) -> Option<Option<Rollup>> {
    let (node, name) = match origin {
        Origin::Table => {
            return Some(
                mirror::is_database(draft, known)
                    .and_then(|()| rollup::read(draft, known.has_own_target)),
            );
        }
        Origin::Mirror(node, name) => return Some(mirror::rollup_of(draft, (node, name), known)),
        Origin::Unreadable => return Some(None),
        Origin::Rollup(node, name) => (node, *name),
    };
    let Some(&place) = places.get(name) else {
        let mut names: Vec<_> = places.iter().collect();
        names.sort_by_key(|(_, place)| **place);
        let names = || names.iter().map(|(name, _)| **name);
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the rollups are {}", listed(names())),
        };
        return Some(
            node.wrong(
                Fault::new(format!("{} is no rollup of this file", shown(name))).remedy(hint),
            ),
        );
    };
    // Errors of the finer rollup are already reported, and this one is not to blame.
    read[place].as_ref().map(|finer| coarse(draft, finer.as_ref()?, known.schema))
}

fn origin<'d>(draft: &Draft<'d>) -> Origin<'d> {
    let Some(mut section) = draft.section.get("from").and_then(|node| node.as_section()) else {
        return Origin::Table;
    };
    section.only(&["rollup", "mirror"]);
    if let Some(node) = section.get("mirror") {
        if section.get("rollup").is_some() {
            node.wrong::<()>(
                Fault::new("the rollup is computed from one thing").remedy("remove one"),
            );
            return Origin::Unreadable;
        }
        let name = node.string(r#"the name of a mirror such as "orders""#);
        return name.map_or(Origin::Unreadable, |name| Origin::Mirror(node, name));
    }
    let form = r#"the name of another rollup such as "entity_hourly""#;
    let node = section.need("rollup", r#"write from = { rollup = "entity_hourly" }"#);
    let name = node.and_then(|node| node.string(form).map(|name| (node, name)));
    name.map_or(Origin::Unreadable, |(node, name)| Origin::Rollup(node, name))
}

/// Reports a name that `init` gives to an object beside the table of another rollup.
fn is_taken(draft: &Draft<'_>, names: &HashSet<String>) {
    let Some((name, node)) = draft.name.as_ref().zip(draft.section.get("name")) else { return };
    for (suffix, meaning) in SUFFIXES {
        let other = name.strip_suffix(suffix).filter(|other| names.contains(*other));
        if let Some(other) = other {
            node.wrong::<()>(
                Fault::new(format!("{name:?} is the name of the {meaning} of `{other}`"))
                    .remedy("choose another"),
            );
        }
    }
}

/// Reports why a rollup could not be read: its chain has no first one.
fn is_circular(node: &Node<'_>, draft: &Draft<'_>, finer: &str) {
    node.wrong::<()>(if draft.name.as_deref() == Some(finer) {
        Fault::new("is this rollup itself")
            .remedy(r#"name a finer one, or read a table: from = "public.events""#)
    } else {
        Fault::new("leads round in a circle and never to a table")
            .remedy(r#"let one of the rollups on it read one: from = "public.events""#)
    });
}

/// Reads a rollup that is computed from `finer`.
fn coarse(Draft { section, name }: &Draft<'_>, finer: &Rollup, schema: &str) -> Option<Rollup> {
    for (key, why, remedy) in FINER_DECIDES {
        if let Some(node) = section.get(key) {
            node.wrong::<()>(Fault::new(why).remedy(remedy));
        }
    }
    overlaps(section, finer)?;
    let cut = Cut::read(section, Usual::of(finer)).and_then(|cut| fits(section, cut, finer));
    let trailing = trailing(section, cut, finer);
    let open = open(section);
    rollup::not_live(section)?;
    let start = cut.as_ref().and_then(|cut| start(section, &cut.calendar, finer));
    let seal_before = rollup::seal_before(section, cut.as_ref());
    let keep = rollup::keep(section);
    let shrink_guard = rollup::shrink_guard(section);
    let columns = measures::read_merged(section, finer);
    let expect = expect::read(section, columns.as_ref());
    let (Cut { calendar, bucket, bucket_as, partition_by }, (group_by, measures)) =
        (cut?, columns?);
    Some(Rollup {
        name: name.clone()?,
        from: TableName { schema: Some(schema.to_owned()), name: finer.name.clone() },
        finer: Some(Arc::new(finer.clone())),
        trailing: trailing?,
        open: open?,
        live: false,
        mirror: None,
        time: TimeColumn { column: "bucket".to_owned(), zone: None, unit: None },
        start: start?,
        calendar,
        bucket,
        bucket_as,
        grace: Duration::ZERO,
        lookback: Vec::new(),
        late: Late::Grace,
        filter: None,
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

/// Refuses a finer rollup whose slices share rows.
fn overlaps(section: &Section<'_>, finer: &Rollup) -> Option<()> {
    let Some(below) = finer.finer.as_ref().filter(|_| finer.trailing.is_some()) else {
        return Some(());
    };
    let fault = Fault::new(format!(
        "the windows of `{}` overlap, so each row would count several times",
        finer.name
    ));
    let fault = fault.remedy(format!("compute this rollup from `{}`", below.name));
    section.get("from").and_then(|node| node.wrong(fault))
}

/// Reads how far a slice's window reaches back.
fn trailing(section: &Section<'_>, cut: Option<Cut>, finer: &Rollup) -> Option<Option<Trailing>> {
    let Some(node) = section.get("trailing") else { return Some(None) };
    let text = node.string(r#"a span of time such as "28 days""#)?;
    let span = match text.parse::<Trailing>() {
        Ok(span) => span,
        Err(fault) => return node.refused(text, &fault, r#"write a span such as "28 days""#),
    };
    let (cut, name, width) = (cut?, &finer.name, finer.calendar.width());
    if !span.is_whole_in(width) {
        return node.wrong(
            Fault::new(format!(
                r#""{span}" does not consist of whole slices of `{name}`, of "{width}""#
            ))
            .remedy("name a multiple of them, in days or months where they are dates"),
        );
    }
    let slice = cut.calendar.width();
    if cut.bucket != slice {
        return section.get("bucket").and_then(|node| {
            node.wrong(Fault::new("a window has one bucket, its slice's").remedy("remove the key"))
        });
    }
    let windows = span.approximate().as_secs() / slice.approximate().as_secs().max(1);
    if windows > WINDOWS_MAX {
        return node.wrong(
            Fault::new(format!(
                r#"each slice of `{name}` would be part of {windows} windows; {WINDOWS_MAX} is the most"#
            ))
            .remedy("use a wider slice, or a shorter span"),
        );
    }
    Some(Some(span))
}

/// Reads whether the slice that goes on is computed, too.
fn open(section: &Section<'_>) -> Option<bool> {
    let Some(node) = section.get("open") else { return Some(false) };
    let open = node.boolean()?;
    if open && section.get("trailing").is_some() {
        return node.wrong(
            Fault::new("a window ends with its slice, and needs all of its finer slices")
                .remedy("remove one of `open` and `trailing`"),
        );
    }
    Some(open)
}

/// A changed finer slice makes this many windows run again. A month of hours is 744.
const WINDOWS_MAX: u64 = 1_000;

/// Compares the calendar with the finer rollup's: slices and buckets must consist of whole finer
/// ones.
pub(super) fn fits(section: &Section<'_>, cut: Cut, finer: &Rollup) -> Option<Cut> {
    let Cut { calendar, bucket, .. } = cut;
    let name = &finer.name;
    let (zone, width) = (finer.calendar.zone(), finer.calendar.width());
    let wrong =
        |key: &str, fault: Fault| section.get(key).and_then(|node| node.wrong::<Cut>(fault));
    if calendar.zone() != zone {
        return wrong(
            "timezone",
            Fault::new(format!(
                "the buckets of `{name}` follow {zone}, and need not fill those of {}",
                calendar.zone()
            ))
            .remedy("remove the key, or compute this rollup from the source"),
        );
    }
    if !width.divides(calendar.width()) {
        return wrong(
            "slice",
            Fault::new(format!(
                r#""{}" does not consist of whole slices of `{name}`, of "{width}""#,
                calendar.width()
            ))
            .remedy("use a wider one"),
        );
    }
    if finer.mirror.is_none() && !finer.bucket.divides(bucket) {
        return wrong(
            "bucket",
            Fault::new(format!(
                r#""{bucket}" does not consist of whole buckets of `{name}`, of "{}""#,
                finer.bucket
            ))
            .remedy("use a wider one"),
        );
    }
    Some(cut)
}

/// The start of history: as configured, or the first slice that the finer rollup fills.
pub(super) fn start(
    section: &Section<'_>,
    calendar: &Calendar,
    finer: &Rollup,
) -> Option<DateTime<Utc>> {
    let Some(node) = section.get("start") else {
        let first = calendar.containing(finer.start);
        return Some(if first.start() == finer.start { finer.start } else { first.end() });
    };
    let start = rollup::start(&node, calendar)?;
    if start < finer.start {
        return node.wrong(
            Fault::new(format!(
                "is before the start of `{}`, {}",
                finer.name,
                rfc3339(finer.start)
            ))
            .remedy("use a later one, or remove the key"),
        );
    }
    Some(start)
}
