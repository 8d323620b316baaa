//! The story of one slice, and lists of slices.

use std::time::Duration;

use maud::{Markup, html};

use super::act;
use super::facts::SliceFacts;
use super::html::{Setting, at, badge, class, dashes, foreign, maybe_at, pairs, table};
use super::words::{label, meaning, why};
use crate::checkpoint::{Checkpoint, Completion, State};
use crate::cli::status::grid::color;
use crate::cli::ui::{self, Paint};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::work::compose::finer_name;
use crate::work::due::Planned;

/// The columns of [`row`].
pub(super) const TITLES: [&str; 8] =
    ["slice", "state", ">attempt", "ended", ">rows read", ">groups", ">took", "reason"];

/// A slice as a row of a table.
pub(super) fn row(rollup: &Rollup, known: &Checkpoint, setting: Setting<'_>) -> Markup {
    let outcome = known.outcome.as_ref();
    let count =
        |of: fn(&Completion) -> u64| outcome.map_or_else(|| "–".into(), |it| ui::number(of(it)));
    let took =
        outcome.map_or_else(|| "–".into(), |it| ui::duration(Duration::from_millis(it.elapsed_ms)));
    html! {
        tr {
            th.s scope="row" { (setting.slice_link(&rollup.name, known.slice_start, &label(rollup, known))) }
            td { (badge(paint(known.state), known.state.word())) }
            td.n { (known.attempt) }
            td.at { (maybe_at(known.finished_at)) }
            td.n { (count(|it| it.rows_read)) }
            td.n { (count(|it| it.groups)) }
            td.n { (took) }
            td.t { (why(known).map(foreign).unwrap_or_default()) }
        }
    }
}

const fn paint(state: State) -> Paint {
    match state {
        State::Succeeded => Paint::Green,
        State::Running => Paint::Cyan,
        State::Yielded | State::Stale => Paint::Yellow,
        State::Failed => Paint::Alarm,
    }
}

/// The slices of one line of the calendar. `known` are their checkpoints.
pub(super) fn list(
    rollup: &Rollup,
    slices: &[&Planned],
    known: &[Checkpoint],
    setting: Setting<'_>,
) -> Markup {
    let of = |slice: Slice| known.iter().find(|it| it.slice_start == slice.start());
    let rows = html! {
        @for planned in slices {
            @match of(planned.slice) {
                Some(known) => (row(rollup, known, setting)),
                None => {
                    tr {
                        th.s scope="row" {
                            (setting.slice_link(&rollup.name, planned.slice.start(), &rollup.calendar.label(&planned.slice)))
                        }
                        td { (badge(color(planned.standing), planned.standing.word())) }
                        (dashes(&TITLES[2..]))
                    }
                }
            }
        }
    };
    table("Slices", &TITLES, &rows)
}

/// All that is known of one slice.
pub(super) fn story(facts: &SliceFacts<'_>, setting: Setting<'_>) -> Markup {
    let SliceFacts { rollup, planned, checkpoint, .. } = facts;
    let Planned { slice, standing } = planned;
    let (before, after) = (rollup.calendar.previous(*slice), rollup.calendar.next(*slice));
    html! {
        p class={ "verdict " (class(color(*standing))) } {
            strong { (standing.word()) } ". " (meaning(*standing))
        }
        (pairs(&[
            ("time", Some(html! { (at(slice.start())) " to " (at(slice.end())) })),
            ("readable from", Some(at(rollup.readable_at(*slice)))),
        ]))
        @match checkpoint {
            Some(known) => { (attempt(facts, known)) (result(known)) }
            None => { p { "No worker has taken it yet." } }
        }
        (beside(facts, setting))
        (act::of_slice(rollup, *slice, setting))
        @if setting.is_served {
            nav aria-label="Neighbours" {
                @if before.start() >= rollup.start {
                    (setting.slice_link(&rollup.name, before.start(), "Slice before"))
                }
                (setting.slice_link(&rollup.name, after.start(), "Slice after"))
            }
        }
    }
}

/// The newest attempt: which worker, when, and how it ended.
fn attempt(facts: &SliceFacts<'_>, known: &Checkpoint) -> Markup {
    let text = |text: &Option<String>| text.as_deref().map(|it| html! { (foreign(it)) });
    let failures = (known.failures > 0).then(|| {
        html! { (known.failures) " of at most " (facts.failures_max) " since it last succeeded or was reopened" }
    });
    let definition = match facts.is_present_definition {
        true => html! { "the present one" },
        false => html! { "an older one" },
    };
    let reopened = (known.dirty > 0)
        .then(|| html! { (ui::counted(usize::try_from(known.dirty).unwrap_or(usize::MAX), "time")) ", last " (maybe_at(known.reopened_at)) });
    html! {
        h2 { "Newest attempt" }
        (pairs(&[
            ("attempt", Some(html! { (ui::number(known.attempt)) })),
            ("worker", text(&known.owner)),
            ("began", known.started_at.map(at)),
            ("ended", known.finished_at.map(at)),
            ("lease until", known.lease_until.map(at)),
            ("again at", known.retry_at.map(at)),
            ("failures", failures),
            ("last error", text(&known.error)),
            ("reason", text(&known.reason)),
            ("reopened", reopened),
            ("waits for the source's transaction", known.horizon.map(|it| html! { (it) })),
            ("definition", Some(definition)),
        ]))
    }
}

/// The result of the newest attempt that completed, with the rows before and after it.
fn result(known: &Checkpoint) -> Markup {
    let Some(it) = &known.outcome else { return html! {} };
    let before = it.updated + it.deleted + it.unchanged;
    let ms = |ms| ui::duration(Duration::from_millis(ms));
    html! {
        h2 { "Newest result" }
        (pairs(&[
            ("source rows counted", Some(html! { (ui::number(it.rows_read)) })),
            ("groups before", Some(html! { (ui::number(before)) })),
            ("groups after", Some(html! {
                (ui::number(it.groups)) ": " (ui::number(it.inserted)) " inserted, " (ui::number(it.updated))
                " updated, " (ui::number(it.unchanged)) " unchanged; " (ui::number(it.deleted)) " deleted"
            })),
            ("settled by", Some(html! { (foreign(&it.settled_by)) })),
            ("open until", it.open_until.map(at)),
            ("statements on the source", Some(html! { (ui::number(it.chunks)) ", " (ms(it.source_ms)) })),
            ("took", Some(html! { (ms(it.elapsed_ms)) })),
        ]))
    }
}

/// Drift, and the rollup that it is computed from.
fn beside(facts: &SliceFacts<'_>, setting: Setting<'_>) -> Markup {
    let finer = finer_name(facts.rollup);
    html! {
        @if let Some(drift) = facts.drift {
            h2 { "Drift" }
            p {
                (badge(Paint::Red, "drift")) " " (ui::number(drift.groups)) " groups differed from the source at "
                (at(drift.found_at)) ". A replay puts them right."
            }
        }
        @if let Some(finer) = &finer {
            @let (from, to) = facts.rollup.window(facts.planned.slice);
            p {
                "It is computed from the slices of " a href=(setting.rollup(finer)) { (foreign(finer)) }
                " from " (at(from)) " to " (at(to)) "."
            }
        }
    }
}
