//! The page of one rollup.

use maud::{Markup, html};

use super::calendar::calendar;
use super::facts::RollupFacts;
use super::home::order;
use super::html::{Setting, at, badge, foreign, maybe_at, pairs, said, table};
use super::words::{percent, slice_failed};
use super::{act, coverage, story};
use crate::checkpoint::Scope;
use crate::cli::status::overview::roughly;
use crate::cli::status::pace_line;
use crate::cli::ui::{self, Paint};
use crate::model::clock::LAST;
use crate::work::compose::finer_name;
use crate::work::worker::Worker;

/// Unfinished slices that are listed with their reason.
const UNFINISHED_MAX: usize = 100;

/// All of one rollup, below its name.
///
/// `chart` is the picture of its numbers, in a file. A server has pages for charts.
pub(super) fn rollup(
    worker: &Worker,
    facts: &RollupFacts<'_>,
    chart: &Markup,
    setting: Setting<'_>,
) -> Markup {
    html! {
        (state(facts))
        @if setting.is_served {
            nav aria-label="Numbers" {
                a href={ (setting.rollup(&facts.rollup.name)) "?chart=" } { "Chart of its numbers" }
            }
        }
        (chart)
        (waits(worker, facts, setting))
        (unfinished(facts, setting))
        (drift(facts, setting))
        h2 { "Calendar" }
        (cut(facts))
        (calendar(facts.rollup, &facts.status.slices, setting))
        (recent(facts, setting))
        (backfills(facts))
        (coverage::section(&facts.coverage))
        (act::of_rollup(facts.rollup, setting))
        (definition(facts))
    }
}

fn state(facts: &RollupFacts<'_>) -> Markup {
    let RollupFacts { rollup, overview, status, .. } = facts;
    let redefined = match status.redefined {
        (0, _) => None,
        (old, all) => Some(html! { (ui::count(old)) " of " (ui::counted(all, "slice")) }),
    };
    html! {
        (pairs(&[
            ("state", Some(badge(overview.state.paint(), overview.state.word()))),
            ("complete through", Some(html! {
                (at(status.watermark)) ", " (roughly(status.lag)) " ago: all before it succeeded"
            })),
            ("failing", Some(html! { (ui::counted(overview.failing, "slice")) })),
            ("left", Some(html! { (ui::counted(overview.left, "slice")) })),
            ("next due", Some(html! { @match overview.next_due { Some(next) => (at(next)), None => "blocked" } })),
            ("sealed before", status.seal.map(at)),
            ("hold an old definition", redefined),
            ("unproven", status.unproven.as_deref().map(|reason| html! {
                (badge(Paint::Alarm, "unproven")) " " (said(reason)) "; " code { "tallymark repair" } " and "
                code { "tallymark verify " (rollup.name) " --repair" } " prove it"
            })),
        ]))
    }
}

/// What holds the rollup back, and its pace.
fn waits(worker: &Worker, facts: &RollupFacts<'_>, setting: Setting<'_>) -> Markup {
    let RollupFacts { rollup, control, now, .. } = facts;
    let scopes = [Scope::Source, Scope::Rollup(&rollup.name), Scope::Backfill(&rollup.name)];
    let pauses =
        scopes.into_iter().filter_map(|scope| Some((scope, control.pause_of(scope, *now)?)));
    let ratios =
        scopes.into_iter().filter_map(|scope| Some((scope, control.nice_ratio_of(scope)?)));
    let closed = worker.governor.closed(*now, false);
    let held = setting.process.map_or(&[][..], |it| &it.held);
    let held = held.iter().filter(|(name, _)| *name == rollup.name);
    let lines = html! {
        @for (scope, pause) in pauses {
            li {
                (foreign(&scope.to_string())) " paused since " (at(pause.at))
                @if let Some(until) = pause.until.filter(|until| *until < LAST) { " until " (at(until)) }
                @if !pause.reason.is_empty() { ": " (foreign(&pause.reason)) }
            }
        }
        @for (scope, ratio) in ratios {
            li { (foreign(&scope.to_string())) ": nice_ratio " (ratio) ", by " code { "tallymark speed" } }
        }
        @if let Some(pace) = control.pace() { li { (said(&pace_line(pace))) } }
        @if let Some(closed) = &closed {
            li { (said(&closed.why.explained())) @if let Some(at_) = closed.retry_at { ", until " (at(at_)) } }
        }
        @for (_, why) in held { li { "The last tick held it back: " (said(why)) } }
        @if let (Some(finer), blocked @ 1..) = (finer_name(rollup), facts.blocked()) {
            li {
                (ui::counted(blocked, "slice")) " wait for unfinished slices of "
                a href=(setting.rollup(&finer)) { (foreign(&finer)) }
            }
        }
    };
    html! {
        h2 { "What it waits for" }
        @if lines.0.is_empty() { p { "Nothing holds it back." } } @else { ul { (lines) } }
    }
}

fn unfinished(facts: &RollupFacts<'_>, setting: Setting<'_>) -> Markup {
    let all = &facts.status.unfinished;
    html! {
        @if !all.is_empty() {
            h2 #unfinished { "Unfinished, newest first" }
            ul {
                @for known in all.iter().rev().take(UNFINISHED_MAX) {
                    li { (slice_failed(facts.rollup, known, setting)) }
                }
                @if all.len() > UNFINISHED_MAX {
                    li { "and " (ui::counted(all.len() - UNFINISHED_MAX, "more slice")) }
                }
            }
        }
    }
}

/// What comparisons with the source found.
fn drift(facts: &RollupFacts<'_>, setting: Setting<'_>) -> Markup {
    let name = &facts.rollup.name;
    html! {
        h2 { "Comparisons with the source" }
        @match &facts.status.scrub {
            None => { p { "None yet." } }
            Some(scrubbed) => {
                p {
                    (ui::number(scrubbed.scrub.verified_in_round())) " of " (ui::counted(scrubbed.slices, "slice"))
                    " in round " (scrubbed.scrub.round) ", last " (maybe_at(scrubbed.scrub.verified_at)) "."
                }
                @if scrubbed.drift.is_empty() { p { "No difference is left." } }
                ul {
                    @for (start, drift) in &scrubbed.drift {
                        li {
                            (badge(Paint::Red, "drift")) " "
                            (setting.slice_link(name, *start, &ui::instant(*start)))
                            ": " (ui::number(drift.groups)) " groups differed at " (at(drift.found_at))
                        }
                    }
                }
            }
        }
    }
}

fn cut(facts: &RollupFacts<'_>) -> Markup {
    html! {
        @if facts.is_cut {
            p {
                "The newest slices. History begins " (at(facts.rollup.start))
                "; " code { "tallymark status --lines N" } " shows more."
            }
        }
    }
}

/// Rows and time of the newest slices.
fn recent(facts: &RollupFacts<'_>, setting: Setting<'_>) -> Markup {
    let rows = html! {
        @for known in &facts.recent { (story::row(facts.rollup, known, setting)) }
    };
    html! {
        @if !facts.recent.is_empty() {
            h2 { "Newest slices" }
            (table(&format!("The newest slices of {}", facts.rollup.name), &story::TITLES, &rows))
        }
    }
}

fn backfills(facts: &RollupFacts<'_>) -> Markup {
    let rows = html! {
        @for (backfill, progress) in &facts.backfills {
            tr {
                td.at { (at(backfill.started_at)) }
                td { (backfill.state.word()) }
                td.at { (ui::instant(backfill.from)) " to " (ui::instant(backfill.to)) }
                td { (order(backfill.order)) }
                td.t {
                    @match progress {
                        Some(progress) => {
                            @let share = percent(progress.done, progress.slices);
                            progress value=(share) max="100" aria-label="done" { (share) " %" } " "
                            (ui::count(progress.done)) " of " (ui::counted(progress.slices, "slice")) " done, "
                            (ui::count(progress.running)) " running, " (ui::count(progress.failed)) " failed, "
                            (ui::count(progress.exhausted)) " exhausted; "
                            (format!("{:.0}", progress.slices_per_hour)) " an hour"
                            @if let Some(done) = progress.done_at { ", done by " (at(done)) }
                        }
                        None => { "ended " (maybe_at(backfill.finished_at)) }
                    }
                }
                td.t { (foreign(&backfill.reason)) }
            }
        }
    };
    html! {
        @if !facts.backfills.is_empty() {
            h2 { "Backfills" }
            (table(&format!("Backfills of {}", facts.rollup.name), &BACKFILLS, &rows))
        }
    }
}

/// The columns of backfills.
const BACKFILLS: [&str; 6] = ["began", "state", "range", "order", "progress", "reason"];

/// Names, each in the direction of its own letters.
fn names(names: &[&str]) -> Markup {
    html! {
        @for (place, name) in names.iter().enumerate() {
            @if place > 0 { ", " }
            bdi { (foreign(name)) }
        }
    }
}

fn definition(facts: &RollupFacts<'_>) -> Markup {
    let rollup = facts.rollup;
    let calendar = &rollup.calendar;
    let dimensions: Vec<&str> = rollup.group_by.iter().map(|it| &*it.name).collect();
    let measures: Vec<&str> = rollup.measures.iter().map(|it| &*it.name).collect();
    html! {
        h2 { "Definition" }
        (pairs(&[
            ("counts", Some(html! { code { (foreign(&rollup.from.to_string())) } })),
            ("slices", Some(html! { (calendar.width().to_string()) " in " (calendar.zone().name()) ", from " (at(rollup.start)) })),
            ("buckets", Some(html! { (rollup.bucket.to_string()) })),
            ("dimensions", Some(names(&dimensions)).filter(|_| !dimensions.is_empty())),
            ("measures", Some(names(&measures)).filter(|_| !measures.is_empty())),
            ("late rows", Some(html! { (rollup.late.word()) ", grace " (ui::duration(rollup.grace)) })),
            ("kept", rollup.keep.map(|keep| html! { (ui::duration(keep)) })),
        ]))
    }
}
