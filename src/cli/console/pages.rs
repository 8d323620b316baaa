//! Which page an address asks for, and all of them as one file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use maud::{Markup, html};

use super::act::{self, Actions, Asked};
use super::facts::{Facts, RollupFacts, SliceFacts};
use super::html::{Setting, escaped, foreign, page};
use super::words::told;
use super::{calendar, chart, detail, home, process, story};
use crate::cli::status::grid::arranged;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::work::worker::{WorkError, Worker};

/// The addresses of rollups and actions begin with these.
const ROLLUP: &str = "/rollup/";
const ACTION: &str = "/action/";

/// An action that ends within this time is answered with its end.
const ACT_WAIT: Duration = Duration::from_secs(3);

/// Bytes of a file's charts. A file with 10,000 slices has at most 1 MB with them.
const CHARTS_MAX: usize = 400_000;

/// A page as a server answers it.
pub(in crate::cli) enum Page {
    Shown(String),
    /// Nothing is at this address.
    Missing(String),
    /// The facts cannot be read.
    Unavailable(String),
    /// The form asks for something that cannot be.
    Refused(String),
}

/// The answer to a form.
pub(in crate::cli) enum Acted {
    /// The page of the action that was started.
    At(String),
    Shown(Page),
}

/// Whether a page may be at this path.
pub(in crate::cli) fn is_page(path: &str) -> bool {
    let is_below = |place| path.strip_prefix(place).is_some_and(|name: &str| !name.is_empty());
    path == "/" || is_below(ROLLUP) || is_below(ACTION)
}

/// The parameters of an address or a form. Of equal names, the last counts.
pub(in crate::cli) fn parameters(text: &[u8]) -> BTreeMap<String, String> {
    form_urlencoded::parse(text).into_owned().collect()
}

/// The page at `address`.
pub(in crate::cli) fn show<'s>(
    worker: &'s Worker,
    address: &'s str,
    query: &'s str,
    setting: Setting<'s>,
) -> BoxFuture<'s, Page> {
    // Boxed, as the compiler follows types of futures only to a depth.
    Box::pin(page_at(worker, address, query, setting))
}

async fn page_at(worker: &Worker, address: &str, query: &str, setting: Setting<'_>) -> Page {
    if let Some(number) = address.strip_prefix(ACTION) {
        return show_action(number, setting);
    }
    let Some(name) = address.strip_prefix(ROLLUP) else {
        return match Facts::read(worker).await {
            Ok(facts) => {
                let body = home::overview(worker, &facts, setting);
                Page::Shown(page("Rollups", &[], setting, &body))
            }
            Err(error) => unavailable(&error, setting),
        };
    };
    let query = parameters(query.as_bytes());
    let name = parameters(name.as_bytes()).into_keys().next().unwrap_or_default();
    let Some(rollup) = worker.config.rollups.iter().find(|it| it.name == name) else {
        return missing("There is no such rollup.", setting);
    };
    if query.contains_key("chart") {
        let body = chart::chart(worker, rollup, &query, setting).await;
        let title = format!("Chart of {}", rollup.name);
        return Page::Shown(page(&title, &path(rollup, setting), setting, &body));
    }
    let shown = match (query.get("slice"), query.get("line")) {
        (Some(slice), _) => show_slice(worker, rollup, slice, setting).await,
        (None, Some(line)) => show_line(worker, rollup, line, setting).await,
        (None, None) => show_rollup(worker, rollup, setting).await.map(Page::Shown),
    };
    shown.unwrap_or_else(|error| unavailable(&error, setting))
}

async fn show_rollup(
    worker: &Worker,
    rollup: &Rollup,
    setting: Setting<'_>,
) -> Result<String, WorkError> {
    let facts = RollupFacts::read(worker, rollup).await?;
    let body = detail::rollup(worker, &facts, &html! {}, setting);
    Ok(page(&rollup.name, &[overview()], setting, &body))
}

async fn show_slice(
    worker: &Worker,
    rollup: &Rollup,
    start: &str,
    setting: Setting<'_>,
) -> Result<Page, WorkError> {
    let slice = rollup.calendar.instant(start).ok();
    let slice = slice.and_then(|start| rollup.calendar.starting(start).ok());
    let Some(slice) = slice.filter(|it| it.start() >= rollup.start) else {
        return Ok(missing("No slice of this rollup starts then.", setting));
    };
    let facts = SliceFacts::read(worker, rollup, slice.start()).await?;
    let title = format!("{} {}", rollup.name, rollup.calendar.label(&slice));
    let body = story::story(&facts, setting);
    Ok(Page::Shown(page(&title, &path(rollup, setting), setting, &body)))
}

async fn show_line(
    worker: &Worker,
    rollup: &Rollup,
    label: &str,
    setting: Setting<'_>,
) -> Result<Page, WorkError> {
    let now = worker.clock.now();
    let facts = RollupFacts::slices(worker, rollup, now).await?;
    let lines = arranged(rollup, &facts);
    let Some(slices) = calendar::line_of(&lines, label) else {
        return Ok(missing("The calendar has no such line.", setting));
    };
    let ends = slices.first().zip(slices.last());
    let (from, to) =
        ends.map_or((now, now), |(first, last)| (first.slice.start(), last.slice.end()));
    let known = worker.checkpoints.range(&rollup.name, from, to).await?;
    let body = story::list(rollup, &slices, &known, setting);
    let title = format!("{} {label}", rollup.name);
    Ok(Page::Shown(page(&title, &path(rollup, setting), setting, &body)))
}

fn show_action(number: &str, setting: Setting<'_>) -> Page {
    let known = setting.process.map_or(&[][..], |it| &it.actions);
    let Some(action) = known.iter().find(|it| it.number.to_string() == number) else {
        return missing("This process has no such action. An older one is in its log.", setting);
    };
    let title = format!("Action {number}");
    Page::Shown(page(&title, &[overview()], setting, &process::action(action)))
}

/// Does what a form asks for.
pub(in crate::cli) fn act<'s>(
    actions: &'s Arc<Actions>,
    fields: &'s BTreeMap<String, String>,
    by: SocketAddr,
    setting: Setting<'s>,
) -> BoxFuture<'s, Acted> {
    Box::pin(act_on(actions, fields, by, setting))
}

async fn act_on(
    actions: &Arc<Actions>,
    fields: &BTreeMap<String, String>,
    by: SocketAddr,
    setting: Setting<'_>,
) -> Acted {
    let words = match act::asked(fields) {
        Ok(Asked::Act(words)) => words,
        Ok(Asked::Plan(words)) => {
            return Acted::Shown(plan(actions, fields, &words, setting).await);
        }
        Err(fault) => return Acted::Shown(refused(&fault, setting)),
    };
    let Ok(action) = actions.start(words, by, setting.now) else {
        let fault = Fault::new("as many actions run as may at once");
        return Acted::Shown(refused(&fault.remedy("wait for the end of one"), setting));
    };
    action.wait(ACT_WAIT).await;
    Acted::At(format!("{ACTION}{}", action.number))
}

/// The plan of a backfill with its price.
async fn plan(
    actions: &Actions,
    fields: &BTreeMap<String, String>,
    words: &[String],
    setting: Setting<'_>,
) -> Page {
    let ended = actions.run(words).await;
    if let Some(fault) = &ended.failure {
        return refused(fault, setting);
    }
    let body = act::proposal(fields, &ended.output, setting);
    Page::Shown(page("Plan of a backfill", &[overview()], setting, &body))
}

fn refused(fault: &Fault, setting: Setting<'_>) -> Page {
    Page::Refused(page("Refused", &[overview()], setting, &told(fault)))
}

/// The page above all others.
fn overview() -> (&'static str, String) {
    ("Overview", "/".to_owned())
}

/// The pages above those of a slice.
fn path<'r>(rollup: &'r Rollup, setting: Setting<'_>) -> [(&'r str, String); 2] {
    [overview(), (&rollup.name, setting.rollup(&rollup.name))]
}

fn missing(text: &str, setting: Setting<'_>) -> Page {
    let body = html! { p { (text) } p { a href="/" { "All rollups" } } };
    Page::Missing(page("Not found", &[overview()], setting, &body))
}

fn unavailable(error: &WorkError, setting: Setting<'_>) -> Page {
    Page::Unavailable(page("Not available", &[overview()], setting, &told(&Fault::of(error))))
}

/// The main chart of a rollup, where the target answers and the file has room for it.
async fn brief_chart(
    worker: &Worker,
    facts: &RollupFacts<'_>,
    room: &mut usize,
    setting: Setting<'_>,
) -> Markup {
    if *room == 0 || facts.coverage.is_err() {
        return html! {};
    }
    let shown = Box::pin(chart::brief(worker, facts.rollup, setting)).await;
    within(shown, room, &facts.rollup.name)
}

/// The chart of the rollup `name`, if the file has room for it. Otherwise it has none for later
/// ones either.
fn within(chart: Markup, room: &mut usize, name: &str) -> Markup {
    if let Some(rest) = room.checked_sub(chart.0.len()) {
        *room = rest;
        return chart;
    }
    *room = 0;
    html! {
        p {
            "This file has no room for further charts. "
            code { "tallymark status " (name) " --html FILE" } " draws this one."
        }
    }
}

/// All pages as one file: the overview, and each rollup below it. With `only`, that one alone.
///
/// # Errors
/// The checkpoints cannot be read.
pub(in crate::cli) async fn file(
    worker: &Worker,
    only: Option<&Rollup>,
    now: DateTime<Utc>,
) -> Result<String, WorkError> {
    let setting = Setting { form_token: None, is_served: false, process: None, now };
    let mut room = CHARTS_MAX;
    if let Some(rollup) = only {
        let facts = RollupFacts::read(worker, rollup).await?;
        let chart = brief_chart(worker, &facts, &mut room, setting).await;
        let body = detail::rollup(worker, &facts, &chart, setting);
        return Ok(page(&rollup.name, &[], setting, &body));
    }
    let facts = Facts::read(worker).await?;
    let mut body = home::overview(worker, &facts, setting);
    for line in &facts.rollups {
        let rollup = line.rollup;
        let shown = match RollupFacts::read(worker, rollup).await {
            Ok(facts) => {
                let chart = brief_chart(worker, &facts, &mut room, setting).await;
                detail::rollup(worker, &facts, &chart, setting)
            }
            Err(error) if error.is_for_all() => return Err(error),
            Err(error) => told(&Fault::of(&error)),
        };
        let section = html! {
            hr;
            section id={ "rollup-" (escaped(&rollup.name)) } {
                h2 { (foreign(&rollup.name)) }
                (shown)
            }
        };
        body.0.push_str(&section.0);
    }
    Ok(page("Rollups", &[], setting, &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_leave_a_file_as_small_as_it_has_to_be() {
        let mut room = 25;
        let chart = || html! { "ten bytes." };
        let shown: Vec<_> =
            (0..3).map(|_| within(chart(), &mut room, "daily").into_string()).collect();
        assert_eq!(shown[..2], ["ten bytes.", "ten bytes."]);
        assert!(
            shown[2].contains("no room") && shown[2].contains("status daily --html"),
            "{shown:?}"
        );
        assert_eq!(room, 0);
    }
}
