//! Charts of a measure over time, from the rollup's series. Steps that are not final, or not
//! computed, are shown as such.

mod numbers;
mod plot;

use std::collections::BTreeMap;

use maud::{Markup, PreEscaped, html};

use self::numbers::{Line, Numbers, Wanted};
use self::plot::COLORS;
use super::html::{Setting, escaped, foreign, table};
use super::words::told;
use crate::cli::ui;
use crate::model::hint::Fault;
use crate::model::rollup::{BucketType, Rollup};
use crate::work::worker::Worker;

/// The chart of a rollup's first measure over its newest steps, for a file. Nothing, where the
/// rollup has no series.
pub(super) async fn brief(worker: &Worker, rollup: &Rollup, setting: Setting<'_>) -> Markup {
    let picture = match Wanted::read(rollup, &BTreeMap::new(), setting.now) {
        Ok(wanted) => numbers::read(worker, rollup, &wanted).await,
        Err(fault) => Err(fault),
    };
    let picture = match picture {
        Ok(Some(numbers)) => shown(rollup, &numbers),
        Ok(None) => return html! {},
        Err(fault) => told(&fault),
    };
    html! { h2 { "Chart" } (picture) }
}

/// The chart that the parameters ask for, and the form that asks for another one.
pub(super) async fn chart(
    worker: &Worker,
    rollup: &Rollup,
    query: &BTreeMap<String, String>,
    setting: Setting<'_>,
) -> Markup {
    let wanted = match Wanted::read(rollup, query, setting.now) {
        Ok(wanted) => wanted,
        Err(fault) => return told(&fault),
    };
    match numbers::read(worker, rollup, &wanted).await {
        Ok(Some(numbers)) => html! {
            (form(rollup, &numbers, &wanted))
            (shown(rollup, &numbers))
        },
        Ok(None) => told(&without_series(rollup)),
        Err(fault) => told(&fault),
    }
}

fn without_series(rollup: &Rollup) -> Fault {
    Fault::new(format!("{} has no series with numbers", rollup.name)).remedy(
        "run `tallymark init`, which makes it; mirrors and rollups with `trailing` have none",
    )
}

/// Chooses the measure, the dimension and the range.
fn form(rollup: &Rollup, numbers: &Numbers, wanted: &Wanted) -> Markup {
    let dimensions: Vec<&str> = rollup.group_by.iter().map(|it| &*it.name).collect();
    let by = wanted.by.as_deref();
    html! {
        form method="get" action={ "/rollup/" (escaped(&rollup.name)) } {
            label {
                "Measure " select name="chart" {
                    @for name in &numbers.measures {
                        option value=(name) selected[*name == numbers.measure] { (foreign(name)) }
                    }
                }
            }
            @if !dimensions.is_empty() {
                label {
                    "by " select name="by" {
                        option value="" { "nothing" }
                        @for name in dimensions { option value=(name) selected[by == Some(name)] { (foreign(name)) } }
                    }
                }
            }
            label { "from " input type="date" name="from" value=(wanted.first_date(rollup)); }
            label { "to " input type="date" name="to" value=(wanted.last_date(rollup)); }
            button type="submit" { "Draw" }
        }
    }
}

/// The picture, its legend, and its numbers as a table.
fn shown(rollup: &Rollup, numbers: &Numbers) -> Markup {
    // A date is a day of the rollup's zone already.
    let zone = match rollup.bucket_as {
        BucketType::Instant => rollup.calendar.zone(),
        BucketType::Date => chrono_tz::Tz::UTC,
    };
    let (name, width) = (&rollup.name, rollup.calendar.width());
    let zone_name = rollup.calendar.zone().name();
    let about = format!("{} of {name} for each {width}, in {zone_name}", numbers.measure);
    let picture = match plot::svg(numbers, zone) {
        Ok(_) if numbers.lines.is_empty() => html! {},
        Ok(svg) => html! {
            div.wide.newest role="region" aria-label={ "Chart of " (name) } tabindex="0" {
                figure.chart role="img"
                    aria-label={ "Chart: " (foreign(&about)) ". Its numbers are in the table below." } {
                    (PreEscaped(svg))
                }
            }
        },
        Err(problem) => html! { p { "The chart could not be drawn: " (foreign(&problem)) } },
    };
    html! {
        p {
            bdi { strong { (foreign(&numbers.measure)) } }
            @if let Some(by) = &numbers.by { " by " bdi { (foreign(by)) } }
            ", a point for each " (width.to_string()) ", in " (zone_name)
        }
        (picture)
        (legend(numbers))
        details {
            summary { "The numbers" }
            (table(&about, &["time", "part", ">value", "state"], &rows(numbers, zone)))
        }
    }
}

fn rows(numbers: &Numbers, zone: chrono_tz::Tz) -> Markup {
    html! {
        @for line in &numbers.lines {
            @for step in &line.steps {
                tr {
                    td.at { (plot::label(step.at, zone, numbers.step_seconds)) }
                    td { (foreign(line.name())) }
                    td.n { @match step.value { Some(value) => (value), None => "–" } }
                    td { (step.state()) }
                }
            }
        }
    }
}

/// What the colours stand for.
fn legend(numbers: &Numbers) -> Markup {
    let is_parted = numbers.lines.iter().any(|line| line.part.is_some());
    let counted = |of: fn(&numbers::Step) -> bool| {
        numbers.lines.first().map_or(0, |line| line.steps.iter().filter(|it| of(it)).count())
    };
    let (open, missing) = (counted(|it| it.is_open()), counted(|it| it.value.is_none()));
    html! {
        @if numbers.lines.is_empty() { p { "Nothing is in this range." } }
        @if is_parted || numbers.lines.len() > 1 {
            p.legend { @for (line, color) in numbers.lines.iter().zip(COLORS) { (named(line, color)) } }
        }
        p.legend {
            @if open > 0 { span { b.wait { "▒" } " not final: " (ui::counted(open, "step")) ", hollow points" } }
            @if missing > 0 { span { b.dim { "▒" } " not computed, or without a value: " (ui::counted(missing, "step")) ", gaps" } }
            @if open + missing == 0 && !numbers.lines.is_empty() { span { "All steps are final." } }
        }
    }
}

fn named(line: &Line, (red, green, blue): (u8, u8, u8)) -> Markup {
    let color = format!("#{red:02x}{green:02x}{blue:02x}");
    html! {
        span {
            svg width="24" height="12" aria-hidden="true" {
                line x1="0" y1="6" x2="24" y2="6" stroke=(color) stroke-width="4" {}
            }
            " " (foreign(line.name()))
        }
    }
}
