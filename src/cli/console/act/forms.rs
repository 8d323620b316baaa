//! The forms of actions. Each works without a script, and has a label for every field.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::cli::console::html::{Setting, foreign};
use crate::cli::ui;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;

/// Where forms are sent.
const ACT: &str = "/act";

/// A form with the fields that each has. Nothing, where the reader may not act.
fn form(action: &str, rollup: Option<&str>, setting: Setting<'_>, fields: &Markup) -> Markup {
    html! {
        @if let Some(token) = setting.form_token {
            form method="post" action=(ACT) {
                input type="hidden" name="token" value=(token);
                input type="hidden" name="action" value=(action);
                @if let Some(rollup) = rollup { input type="hidden" name="rollup" value=(rollup); }
                (fields)
            }
        }
    }
}

/// A field for one line of text.
fn text(name: &str, label: &str, is_needed: bool) -> Markup {
    html! {
        label { (label) " " input type="text" name=(name) required[is_needed] autocomplete="off" maxlength="300"; }
    }
}

fn check(name: &str, label: &str) -> Markup {
    html! { label { input type="checkbox" name=(name) value="1"; " " (label) } }
}

fn button(label: &str) -> Markup {
    html! { button type="submit" { (label) } }
}

/// What can be done with one slice.
pub(in crate::cli::console) fn of_slice(
    rollup: &Rollup,
    slice: Slice,
    setting: Setting<'_>,
) -> Markup {
    let start = html! { input type="hidden" name="slice" value=(ui::instant(slice.start())); };
    let replay = html! {
        (start)
        (text("reason", "Reason", true))
        (check("allow-shrink", "accept it even if most source rows are gone"))
        (button("Replay this slice"))
    };
    let verify = html! { (start) (button("Compare with the source")) };
    html! {
        @if setting.form_token.is_some() {
            section.act {
                h2 { "Act" }
                (form("replay", Some(&rollup.name), setting, &replay))
                (form("verify", Some(&rollup.name), setting, &verify))
            }
        }
    }
}

/// What can be done with one rollup.
pub(in crate::cli::console) fn of_rollup(rollup: &Rollup, setting: Setting<'_>) -> Markup {
    let name = Some(&*rollup.name);
    let failed = html! {
        input type="hidden" name="failed" value="1";
        (text("reason", "Reason", true))
        (button("Replay all that failed"))
    };
    let backfill = html! {
        label { "From " input type="date" name="from" required; }
        label { "to, exclusive (empty: now) " input type="date" name="to"; }
        (check("force", "also slices that succeeded"))
        (button("Plan a backfill"))
    };
    html! {
        @if setting.form_token.is_some() {
            section.act {
                h2 { "Act" }
                (form("replay", name, setting, &failed))
                (form("plan", name, setting, &backfill))
                (of_work(name, setting))
                (form("cancel", name, setting, &button("Cancel its backfills")))
            }
        }
    }
}

/// What can be done with all work.
pub(in crate::cli::console) fn of_all(setting: Setting<'_>) -> Markup {
    html! {
        @if setting.form_token.is_some() {
            section.act {
                h2 { "Act on all work" }
                (of_work(None, setting))
            }
        }
    }
}

/// Pause, resume and speed, of a rollup or of all work.
fn of_work(rollup: Option<&str>, setting: Setting<'_>) -> Markup {
    let backfills = rollup.map(|_| check("backfill", "only backfills"));
    let backfills = backfills.unwrap_or_default();
    let pause = html! {
        (text("reason", "Reason", false))
        (text("for", "for, such as 2h (empty: until resumed)", false))
        (backfills)
        (button("Pause"))
    };
    let speed = html! {
        (text("ratio", "Rest as a multiple of work (0 to 100, auto, or default)", true))
        (backfills)
        (button("Set the speed"))
    };
    html! {
        (form("pause", rollup, setting, &pause))
        (form("resume", rollup, setting, &html! { (backfills) (button("Resume")) }))
        (form("speed", rollup, setting, &speed))
    }
}

/// The plan of a backfill with its price, and the button that starts it.
pub(in crate::cli::console) fn proposal(
    fields: &BTreeMap<String, String>,
    plan: &[String],
    setting: Setting<'_>,
) -> Markup {
    let rollup = fields.get("rollup").map(String::as_str);
    let kept =
        ["from", "to", "force"].into_iter().filter_map(|name| Some((name, fields.get(name)?)));
    let start = html! {
        @for (name, value) in kept { input type="hidden" name=(name) value=(value); }
        (button("Start this backfill"))
    };
    html! {
        @for text in plan { pre { (foreign(text)) } }
        (form("backfill", rollup, setting, &start))
    }
}
