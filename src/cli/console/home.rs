//! The overview: what is right, what is not and why, and what waits.

use maud::{Markup, html};

use super::facts::{Facts, RollupLine};
use super::html::{Setting, at, badge, class, dashes, foreign, maybe_at, said, table};
use super::words::{percent, slice_failed};
use super::{act, process};
use crate::cli::control;
use crate::cli::status::overview::{IS_RIGHT, Overview, RollupState, TITLES};
use crate::cli::status::pace_line;
use crate::cli::ui::{self, Paint};
use crate::model::hint::Hinted as _;
use crate::model::slice::Order;
use crate::work::worker::Worker;

/// The overview of all rollups.
pub(super) fn overview(worker: &Worker, facts: &Facts<'_>, setting: Setting<'_>) -> Markup {
    html! {
        (verdict(facts))
        (troubles(facts, setting))
        @if let Some(known) = setting.process { (process::problems(known, setting)) }
        h2 { "Rollups" }
        (rollups(facts, setting))
        (waits(worker, facts))
        (backfills(facts, setting))
        @if let Some(known) = setting.process {
            (process::ticks(known, setting))
            (process::actions(known))
        }
        (act::of_all(setting))
    }
}

/// One sentence about all rollups.
fn verdict(facts: &Facts<'_>) -> Markup {
    let is = |line: &RollupLine<'_>, states: &[RollupState]| {
        line.overview
            .as_ref()
            .map_or(states.contains(&RollupState::Failing), |it| states.contains(&it.state))
    };
    let count = |states: &[RollupState]| facts.rollups.iter().filter(|it| is(it, states)).count();
    let bad = count(&[RollupState::Failing, RollupState::Unproven]);
    let late = count(&[RollupState::Behind, RollupState::Paused, RollupState::Running]);
    let all = facts.rollups.len();
    let (paint, text) = match (bad, late) {
        (0, 0) => {
            (Paint::Green, format!("All is well: {} up to date.", ui::counted(all, "rollup")))
        }
        (0, late) => (
            Paint::Yellow,
            format!("{} of {all} not up to date, none fails.", ui::counted(late, "rollup")),
        ),
        (bad, _) => {
            let need = if bad == 1 { "needs" } else { "need" };
            (Paint::Alarm, format!("{} of {all} {need} attention.", ui::counted(bad, "rollup")))
        }
    };
    html! { p class={ "verdict " (class(paint)) } { (text) } }
}

/// Why rollups fail.
fn troubles(facts: &Facts<'_>, setting: Setting<'_>) -> Markup {
    let is_bad = |line: &&RollupLine<'_>| line.overview.is_err() || !line.failing.is_empty();
    let bad: Vec<_> = facts.rollups.iter().filter(is_bad).collect();
    html! {
        @if !bad.is_empty() {
            h2 { "What fails" }
            ul {
                @for line in bad {
                    @let name = &line.rollup.name;
                    @if let Err(fault) = &line.overview {
                        li {
                            a href=(setting.rollup(name)) { (foreign(name)) } ": " (said(fault.facts()))
                            @if let Some(hint) = fault.hint() { br; (said(&hint)) }
                        }
                    }
                    @for known in &line.failing {
                        li { (slice_failed(line.rollup, known, setting)) }
                    }
                }
            }
        }
    }
}

fn rollups(facts: &Facts<'_>, setting: Setting<'_>) -> Markup {
    let titles: Vec<String> = TITLES
        .iter()
        .zip(IS_RIGHT)
        .map(|(title, is_right)| if is_right { format!(">{title}") } else { (*title).to_owned() })
        .collect();
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let rows = html! {
        @for line in &facts.rollups {
            tr {
                th scope="row" { a href=(setting.rollup(&line.rollup.name)) { (foreign(&line.rollup.name)) } }
                @match &line.overview {
                    Ok(overview) => (cells(overview)),
                    Err(_) => { td { (badge(Paint::Alarm, "unreadable")) } (dashes(&titles[2..])) }
                }
            }
        }
    };
    table("All rollups", &titles, &rows)
}

fn cells(overview: &Overview) -> Markup {
    let cells = overview.cells();
    html! {
        @for (place, cell) in cells.iter().enumerate().skip(1) {
            @match place {
                1 => { td { (badge(overview.state.paint(), cell)) } }
                _ if IS_RIGHT[place] => { td.n { (cell) } }
                _ => { td.at { (cell) } }
            }
        }
    }
}

/// The operator's commands in force, and the workload of mirrors.
fn waits(worker: &Worker, facts: &Facts<'_>) -> Markup {
    let mut lines = control::lines(worker, &facts.control);
    lines.extend(facts.control.pace().map(pace_line));
    html! {
        @if !lines.is_empty() || facts.workload.is_some() {
            h2 { "In force" }
            ul {
                @for line in &lines { li { (said(line)) } }
                @if let Some(month) = &facts.workload { li { "app: " (said(month)) } }
            }
        }
    }
}

fn backfills(facts: &Facts<'_>, setting: Setting<'_>) -> Markup {
    let rows = html! {
        @for (backfill, progress) in &facts.backfills {
            @let share = percent(progress.done, progress.slices);
            tr {
                th scope="row" { a href=(setting.rollup(&backfill.rollup)) { (foreign(&backfill.rollup)) } }
                td.at { (at(backfill.started_at)) }
                td { (backfill.state.word()) }
                td.n { (share) " %" }
                td.n { (format!("{:.0}", progress.slices_per_hour)) }
                td.at { (maybe_at(progress.done_at)) }
            }
        }
    };
    html! {
        @if !facts.backfills.is_empty() {
            h2 { "Backfills under way" }
            (table("Backfills that a function fans out", &BACKFILLS, &rows))
        }
    }
}

/// The columns of backfills.
const BACKFILLS: [&str; 6] = ["rollup", "began", "state", ">done", ">slices an hour", "done by"];

/// The words of an order.
pub(super) const fn order(order: Order) -> &'static str {
    match order {
        Order::NewestFirst => "newest first",
        Order::OldestFirst => "oldest first",
    }
}
