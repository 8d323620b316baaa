//! What the serving process knows: its ticks, what they met, and the actions of operators.

use std::sync::Arc;

use maud::{Markup, html};

use super::act::Action;
use super::html::{Setting, at, badge, foreign, said, table};
use super::words::told;
use crate::cli::ui::{self, Paint};
use crate::model::hint::{Fault, Hinted as _};

/// What the serving process knows.
#[derive(Default)]
pub(in crate::cli) struct Process {
    /// The ticks, in sentences.
    pub(in crate::cli) ticks: Vec<String>,
    /// What the last tick met: the rollup, and the problem.
    pub(in crate::cli) problems: Vec<(String, Fault)>,
    /// Rollups that the last tick held back, and why.
    pub(in crate::cli) held: Vec<(String, String)>,
    /// What the tick that runs waits for.
    pub(in crate::cli) waits: Option<String>,
    /// The actions, newest first.
    pub(in crate::cli) actions: Vec<Arc<Action>>,
}

/// What the last tick met.
pub(super) fn problems(process: &Process, setting: Setting<'_>) -> Markup {
    html! {
        @if !process.problems.is_empty() {
            h2 { "What the last tick met" }
            ul {
                @for (rollup, fault) in &process.problems {
                    li {
                        @if !rollup.is_empty() { a href=(setting.rollup(rollup)) { (foreign(rollup)) } ": " }
                        (said(fault.facts()))
                        @if let Some(hint) = fault.hint() { br; (said(&hint)) }
                    }
                }
            }
        }
    }
}

/// The ticks, and what they wait for.
pub(super) fn ticks(process: &Process, setting: Setting<'_>) -> Markup {
    html! {
        h2 { "Ticks of this process" }
        ul {
            @for line in &process.ticks { li { (said(line)) } }
            @if let Some(waits) = &process.waits { li { "It waits now: " (said(waits)) } }
            @for (rollup, why) in &process.held {
                li { a href=(setting.rollup(rollup)) { (foreign(rollup)) } " is held back: " (said(why)) }
            }
        }
    }
}

/// The actions of operators.
pub(super) fn actions(process: &Process) -> Markup {
    let rows = html! {
        @for action in &process.actions {
            tr {
                td.at { a href={ "/action/" (action.number) } { (ui::instant(action.began_at)) } }
                td { (outcome(action)) }
                td.t { code { (foreign(&action.command)) } }
                td { (foreign(&action.by)) }
            }
        }
    };
    html! {
        @if !process.actions.is_empty() {
            h2 { "Actions in this process" }
            (table("The newest actions of operators", &["began", "state", "command", "from"], &rows))
        }
    }
}

fn outcome(action: &Action) -> Markup {
    match action.ended() {
        None => badge(Paint::Cyan, "running"),
        Some(ended) if ended.failure.is_some() => badge(Paint::Alarm, "failed"),
        Some(_) => badge(Paint::Green, "done"),
    }
}

/// The page of one action.
pub(super) fn action(action: &Action) -> Markup {
    let ended = action.ended();
    html! {
        p { (outcome(action)) " " code { (foreign(&action.command)) } }
        p { "Began " (at(action.began_at)) ", asked for from " (foreign(&action.by)) "." }
        @match &ended {
            None => {
                p {
                    "It goes on when this page is left. "
                    a href={ "/action/" (action.number) } { "Look again" }
                }
            }
            Some(ended) => {
                p { "It took " (ui::duration(ended.took)) "." }
                @if let Some(fault) = &ended.failure { (told(fault)) }
                @for text in &ended.output { pre { (foreign(text)) } }
            }
        }
    }
}
