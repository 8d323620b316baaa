//! Sentences that several pages share.

use maud::{Markup, html};

use super::html::{Setting, at, said};
use crate::checkpoint::{Checkpoint, State};
use crate::cli::ui;
use crate::model::hint::{Fault, Hinted as _};
use crate::model::rollup::Rollup;
use crate::work::due::Standing;

/// A failure with its remedy.
pub(super) fn told(fault: &Fault) -> Markup {
    html! {
        p { (said(fault.facts())) }
        @if let Some(hint) = fault.hint() { p { (said(&hint)) } }
    }
}

/// A share in whole percent. Of nothing, all is done.
pub(super) fn percent(part: usize, whole: usize) -> usize {
    (100 * part).checked_div(whole).unwrap_or(100)
}

/// The start of a slice as its rollup's calendar shows it.
pub(super) fn label(rollup: &Rollup, known: &Checkpoint) -> String {
    let slice = rollup.calendar.starting(known.slice_start);
    slice.map_or_else(|_| ui::instant(known.slice_start), |slice| rollup.calendar.label(&slice))
}

/// A slice's state with its reason: `daily 2026-02-08: failed, attempt 3, again at …: division by zero`.
pub(super) fn slice_failed(rollup: &Rollup, known: &Checkpoint, setting: Setting<'_>) -> Markup {
    html! {
        (setting.slice_link(&rollup.name, known.slice_start, &format!("{} {}", rollup.name, label(rollup, known))))
        ": " (state(known))
        @if let Some(why) = why(known) { ": " (said(why)) }
    }
}

/// The state of a slice, and when it goes on.
pub(super) fn state(known: &Checkpoint) -> Markup {
    html! {
        (known.state.word()) ", attempt " (known.attempt)
        @match (known.lease_until, known.retry_at) {
            (Some(until), _) => { ", lease until " (at(until)) }
            (None, Some(retry)) => { ", again at " (at(retry)) }
            (None, None) => {}
        }
    }
}

/// Why a slice is unfinished. The checkpoint of a running attempt still holds an earlier reason.
pub(super) fn why(known: &Checkpoint) -> Option<&str> {
    let why = known.error.as_deref().or(known.reason.as_deref());
    why.filter(|_| known.state != State::Running)
}

/// What a standing means, and what comes next.
pub(super) const fn meaning(standing: Standing) -> &'static str {
    match standing {
        Standing::Missing => "It was never tried. The next tick takes it, or a backfill.",
        Standing::Retry => "The last attempt failed. The next tick tries again.",
        Standing::Yielded => {
            "The last attempt stopped in time, with its work kept. The next tick goes on."
        }
        Standing::LeaseOver => "Its worker died. The next tick takes it over.",
        Standing::Stale => {
            "It was right, and something changed since. The next tick computes it again."
        }
        Standing::Lookback => "It runs again for rows that came late, as `lookback` says.",
        Standing::Redefined => {
            "It holds an old definition, and is computed again when nothing else is due."
        }
        Standing::OtherCalendar => "It was computed in another calendar, and is computed again.",
        Standing::Running => "A worker is computing it now.",
        Standing::Waiting => "The last attempt failed or stopped. It waits for its time.",
        Standing::Exhausted => "It failed too often. Put the cause right, and replay it.",
        Standing::Grown => {
            "It goes on, and more of its finer slices are done. The next tick computes it."
        }
        Standing::Open => "It goes on, and holds all finer slices that are done.",
        Standing::Succeeded => "It is done.",
        Standing::Sealed => "It starts before the seal, so it stays as it is.",
        Standing::Adopted => {
            "Its rows were taken over from another job's table, and stay as they are."
        }
        Standing::Empty => "It ended before the source's first row, so it has none.",
        Standing::Blocked => "It waits for slices of the finer rollup.",
        Standing::NotEnded => "Its end, or its grace, is still to come.",
    }
}
