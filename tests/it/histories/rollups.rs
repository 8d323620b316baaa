//! The rollups of a history.

use fastrand::Rng;
use tallymark::model::measure::{KINDS, Kind as MeasureKind};

use super::search::Kind;
use crate::support::{kinds, share};

/// Number of kinds of measures that one world draws. With more, PostgreSQL plans for longer than it works.
const KINDS_DRAWN: usize = 6;

/// The kinds of measures of a world: all, or those that its seed draws.
pub fn kinds_drawn(random: &mut Rng) -> Vec<&'static dyn MeasureKind> {
    let mut drawn = KINDS.to_vec();
    random.shuffle(&mut drawn);
    drawn.truncate(if share::is_whole() { KINDS.len() } else { KINDS_DRAWN });
    drawn
}

/// The rollups of one hour and, if requested, of two and of four hours, some of them open, and of
/// trailing windows.
/// `events` and `total` are compared with SQL of this test. `every_…` is a measure of each kind drawn.
pub fn rollups(kind: Kind, drawn: &[&'static dyn MeasureKind], open: [bool; 2]) -> String {
    let late = match kind.late {
        "column" => "{ column = \"updated_at\" }".to_owned(),
        word => format!("\"{word}\""),
    };
    // In some histories the column by which rows are ordered is an expression too.
    let by = Some("coalesce(updated_at)").filter(|_| !kind.looks_up);
    let every = drawn.iter().map(|kind| {
        let measure = kinds::written_by(*kind, kind.example_column(), by, "");
        format!("every_{} = {measure}\n", kinds::label(*kind))
    });
    let every: String = every.collect();
    let merged = drawn.iter().filter(|kind| kinds::merges(**kind));
    let merged: String =
        merged.map(|kind| format!(", \"every_{}\"", kinds::label(*kind))).collect();
    let coarse = |name, finer, slice: &str| {
        format!(
            "[[rollup]]\nname = \"{name}\"\nfrom = {{ rollup = \"{finer}\" }}\n{slice}\n\
             shrink_guard = 0.0\ngroup_by = [\"kind\"]\nmeasures = [\"events\", \"total\"{merged}]\n"
        )
    };
    // An expression takes the place of its column, with the same values.
    let (key, amount) = match kind.is_composed {
        _ if kind.looks_up => ("{ kind = \"label.name\" }", "\"amount\""),
        true => ("\"kind\"", "\"amount\""),
        false => ("{ kind = \"lower(kind)\" }", "{ sql = \"amount + 0\" }"),
    };
    let lookup = match kind.looks_up {
        true => "lookup = [{ label = \"public.labels\", on = \"label.kind = kind\" }]\n",
        false => "",
    };
    let hourly = format!(
        "[[rollup]]\nname = \"hourly\"\nfrom = \"public.events\"\ntime = \"at\"\n\
         start = \"2026-01-01\"\nslice = \"1 hour\"\nbucket = \"30 minutes\"\nlate = {late}\n\
         grace = \"2 minutes\"\nshrink_guard = 0.0\n{lookup}group_by = [{key}]\n[rollup.measures]\nevents = \"count\"\n\
         total = {{ sum = {amount} }}\n{every}"
    );
    if !kind.is_composed {
        return hourly;
    }
    let [two, four] = open;
    let two = coarse("two_hourly", "hourly", &format!("slice = \"2 hours\"\nopen = {two}"));
    let four = coarse("four_hourly", "two_hourly", &format!("slice = \"4 hours\"\nopen = {four}"));
    let windows = coarse("windows", "hourly", "slice = \"1 hour\"\ntrailing = \"3 hours\"");
    format!("{hourly}{two}{four}{windows}")
}

/// The same rollups in partitions. The first one ends when a history is two hours old.
pub fn partitioned(rollups: &str) -> String {
    let start = "start = \"2026-01-01T00:00:00Z\"\ntimezone = \"America/Manaus\"";
    let moved = rollups.replace("start = \"2026-01-01\"", start);
    moved.replace("shrink_guard", "partition_by = \"month\"\nshrink_guard")
}

/// The measure that [`changed`] adds.
pub const ADDED: &str = "every_added";

/// The same rollups by another definition: fewer rows count, and there is one more measure.
pub fn changed(rollups: &str) -> String {
    let total = "total = { sum =";
    let changed = rollups
        .replacen("group_by", "where = \"amount >= 40\"\ngroup_by", 1)
        .replacen(total, &format!("{ADDED} = {{ max = \"amount\" }}\n{total}"), 1)
        .replace("measures = [", &format!("measures = [\"{ADDED}\", "));
    assert_ne!(changed, rollups);
    changed
}
