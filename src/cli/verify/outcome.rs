//! The outcome of a comparison or repair: its text, its JSON and its exit code.

use serde_json::{Value, json};

use super::{Repaired, SliceSample, Verified};
use crate::cli::run::{AGAIN, named};
use crate::cli::{Failure, ui};
use crate::model::hint::{Fault, Hinted as _};
use crate::work::report::{NotCompared, SliceVerification};
use crate::work::worker::Severity;

/// Maximum number of uncompared slices listed. The JSON lists all.
const LISTED_MAX: usize = 10;

fn differences(verified: &Verified) -> u64 {
    verified.drifted.iter().map(|slice| slice.differences).sum()
}

pub(super) fn document(
    verified: &Verified,
    sample: Option<&SliceSample>,
    repaired: Option<&Repaired>,
) -> serde_json::Value {
    json!({
        "slices": verified.slices,
        "unfinished": verified.unfinished,
        "adopted": verified.adopted,
        "left": verified.left,
        "pending": verified.pending,
        "differences": differences(verified),
        "drifted": verified.drifted,
        "outside": verified.outside,
        "broken": verified.broken,
        "sample": sample.map(|SliceSample { seed, of }| json!({ "seed": seed, "of": of })),
        "repair": repaired.map(|repaired| json!({
            "succeeded": repaired.succeeded,
            "failed": repaired.failed,
            "pending": repaired.again.pending,
            "drifted": repaired.again.drifted,
        })),
    })
}

/// The documents of two parts of one comparison as one. What concerns whole rollups is in the later
/// one.
pub(in crate::cli) fn merged(before: Value, mut after: Value) -> Value {
    for key in ["slices", "differences"] {
        let sum = [&before, &after].map(|part| part[key].as_u64().unwrap_or(0)).iter().sum::<u64>();
        after[key] = sum.into();
    }
    for key in ["pending", "drifted", "broken"] {
        let mut all = before[key].as_array().cloned().unwrap_or_default();
        for one in after[key].as_array().into_iter().flatten() {
            if !all.contains(one) {
                all.push(one.clone());
            }
        }
        after[key] = all.into();
    }
    after
}

/// The exit code of a comparison.
pub(super) fn found(verified: &Verified) -> Result<(), Failure> {
    if let (Some(first), []) = (verified.broken.first(), verified.drifted.as_slice()) {
        return Err(Failure::printed(first.severity, first.fault.clone()));
    }
    if verified.drifted.is_empty() {
        let many = verified.pending.iter().filter(|pending| pending.is_too_large()).count();
        if many == 0 && verified.outside.is_empty() {
            return Ok(());
        }
        if many == 0 {
            let fault = Fault::new("rows were found that belong to no slice").remedy(
                "compute the slices that are due, or run `tallymark init --delete-outside`",
            );
            return Err(Failure::printed(Severity::Failed, fault));
        }
        let many = ui::counted(many, "slice");
        let fault = Fault::new(format!("{many} could not be compared in time")).remedy(
            "give more with --timeout, or look with `tallymark check` for an index on the time column",
        );
        return Err(Failure::printed(Severity::Failed, fault));
    }
    let groups = usize::try_from(differences(verified)).unwrap_or(usize::MAX);
    Err(Failure::printed(
        Severity::Failed,
        Fault::new(format!(
            "{} found to differ from the source, in {}",
            ui::counted(verified.drifted.len(), "slice"),
            ui::counted(groups, "group"),
        ))
        .remedy("run `tallymark verify --repair`, or `tallymark replay` for single slices"),
    ))
}

/// The exit code of a repair, which requires all slices to be right in the end.
pub(super) fn left(Repaired { failed, again, .. }: &Repaired) -> Result<(), Failure> {
    let parts: Vec<String> = [
        (failed.len(), "could not be recomputed"),
        (again.drifted.len(), "still found to differ"),
        (again.pending.len() + again.broken.len(), "not compared again"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", ui::counted(*count, "slice")))
    .collect();
    if parts.is_empty() {
        return Ok(());
    }
    let mut message = parts.join(", ");
    if let Some(first) = failed.first() {
        let reason = first.reason.as_deref().unwrap_or_default();
        message.push_str(&format!("; the first, {}: {reason}", named(&first.rollup, first.start)));
    }
    let remedy = failed.first().and_then(|first| first.hint.as_deref()).unwrap_or(AGAIN);
    Err(Failure::printed(Severity::Failed, Fault::new(message).remedy(remedy)))
}

pub(super) fn repaired_text(repaired: &Repaired) -> String {
    format!("{} recomputed, {}", ui::counted(repaired.succeeded, "slice"), text(&repaired.again))
}

/// One slice that differs, with its groups.
pub(in crate::cli) fn difference(slice: &SliceVerification) -> Vec<String> {
    let many = usize::try_from(slice.differences).unwrap_or(usize::MAX);
    let differ = if many == 1 { "differs" } else { "differ" };
    let name = named(&slice.rollup, slice.start);
    let mut lines = vec![format!("{name}: {} {differ}", ui::counted(many, slice.noun))];
    for example in &slice.examples {
        let show = |value: &Option<serde_json::Value>| {
            value.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string)
        };
        lines.push(format!("  {} {}", example.difference, example.key));
        lines.push(format!("    source {}", show(&example.expected)));
        lines.push(format!("    rollup {}", show(&example.actual)));
    }
    lines
}

/// Slices that were not compared, each with its reason.
pub(in crate::cli) fn not_compared(pending: &[NotCompared]) -> Vec<String> {
    let line = |it: &NotCompared| {
        let facts = format!("{} not compared: {}", named(&it.rollup, it.start), it.why.explained());
        ui::hinted(&Fault::new(facts).remedy_if_known(it.why.hint()), 2)
    };
    let mut lines: Vec<String> = pending.iter().take(LISTED_MAX).map(line).collect();
    if pending.len() > LISTED_MAX {
        let more = ui::counted(pending.len() - LISTED_MAX, "more slice");
        lines.push(format!("… and {more} not compared"));
    }
    lines
}

pub(super) fn text(verified: &Verified) -> String {
    let mut lines: Vec<String> = verified.drifted.iter().flat_map(difference).collect();
    lines.extend(not_compared(&verified.pending));
    for outside in &verified.outside {
        lines.push(ui::wrapped(&format!("{}: {}", outside.rollup(), outside.text()), 2));
    }
    let broken = verified.broken.iter();
    lines.extend(broken.map(|it| {
        ui::hinted(&it.fault.clone().at(format!("{} not compared to the end", it.rollup)), 2)
    }));
    if verified.unfinished > 0 {
        lines.push(format!(
            "{} not computed yet, not compared",
            ui::counted(verified.unfinished, "slice")
        ));
    }
    if verified.adopted > 0 {
        lines.push(format!(
            "{} adopted from another table, not compared",
            ui::counted(verified.adopted, "slice")
        ));
    }
    if verified.left > 0 {
        let left = ui::counted(verified.left, "slice");
        lines.push(match ui::is_keeping() {
            false => format!("{left} not compared, as the command was interrupted"),
            true => format!("{left} not compared yet, as the time was up"),
        });
    }
    let is_whole = verified.outside.is_empty() && verified.broken.is_empty() && verified.left == 0;
    let all = ui::counted(verified.slices, "slice");
    lines.push(match (verified.slices, verified.drifted.len()) {
        (0, _) if verified.pending.is_empty() && is_whole => "nothing to verify yet".into(),
        (0, _) => "nothing was compared".into(),
        (_, 0) if !is_whole => {
            format!("{all} compared with the source, 0 differences in them")
        }
        (_, 0) => {
            format!("{all} compared with the source, 0 differences: every slice verified")
        }
        (_, drifted) => {
            let differ = if drifted == 1 { "differs" } else { "differ" };
            format!("{all} compared with the source, {drifted} {differ}")
        }
    });
    lines.join("\n")
}
