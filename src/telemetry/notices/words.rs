//! The texts of notices: the numbers, and the command that helps.
//!
//! They hold names of rollups and instants, and texts of Tallymark's own. An error of a server may
//! quote a row, so the command shows it, and the notice does not.

use chrono::{DateTime, TimeDelta, Utc};

use super::incident::{Incident, Kind, Phase};
use crate::model::clock::rfc3339;
use crate::model::text::{counted, cut_to};

/// Slices that a text names.
const NAMED: usize = 3;

/// Bytes of a cause.
const CAUSE_MAX: usize = 400;

/// The sentence about trouble that has begun. `count` is the number of its slices.
pub(super) fn begun(
    incident: &Incident,
    count: usize,
    cause: Option<&str>,
    now: DateTime<Utc>,
) -> String {
    let Incident { kind, rollup, since, .. } = incident;
    let lasted = lasted(now - *since);
    let (slices, first) = (counted(count, "slice"), named(incident, count));
    let cause = cause.map_or_else(String::new, |cause| format!(": {}", cut_to(cause, CAUSE_MAX)));
    let verb = |one: &'static str, many: &'static str| if count == 1 { one } else { many };
    match kind {
        Kind::Stopped => format!("{rollup} could not be worked on for {lasted}{cause}"),
        Kind::Capture => format!("{rollup} may miss late changes{cause}"),
        Kind::Exhausted => format!(
            "{slices} of {rollup} failed too often and {} for a replay: {first}",
            verb("waits", "wait")
        ),
        Kind::Failing => {
            format!("{slices} of {rollup} could not be computed for {lasted}: {first}")
        }
        Kind::Behind => format!(
            "{rollup} is behind: its slice {} has been due for {lasted}{cause}",
            incident.slices.first().map_or_else(String::new, |start| rfc3339(*start)),
        ),
        Kind::Stuck => {
            format!("the backfill of {rollup} has completed no slice for {lasted}{cause}")
        }
        Kind::Backfill => format!("the backfill of {rollup} is under way"),
        Kind::Numbers => {
            format!("the numbers of the slice {first} of {rollup} look wrong{cause}")
        }
        Kind::Drift => {
            format!("{slices} of {rollup} {} from the source: {first}", verb("differs", "differ"))
        }
    }
}

/// The sentence about trouble that is over.
pub(super) fn ended(incident: &Incident, now: DateTime<Utc>) -> String {
    let Incident { kind, rollup, since, .. } = incident;
    let over = match kind {
        Kind::Stopped => format!("{rollup} is worked on again"),
        Kind::Capture => format!("late changes of {rollup} are noticed again"),
        Kind::Exhausted => format!("no slice of {rollup} is exhausted any more"),
        Kind::Failing => format!("the slices of {rollup} that failed are right"),
        Kind::Behind => format!("{rollup} is no longer behind at that slice"),
        Kind::Stuck => format!("the backfill of {rollup} goes on, or is over"),
        Kind::Backfill => format!("the backfill of {rollup} is over"),
        Kind::Numbers => format!("the numbers of the newest slice of {rollup} look right"),
        Kind::Drift => format!("no slice of {rollup} is known to differ from the source"),
    };
    format!("{over}, {} after {}", lasted(now - *since), rfc3339(*since))
}

/// The command that shows the cause, or puts it right.
pub(super) fn command(kind: Kind, phase: Phase, rollup: &str) -> Option<String> {
    if phase == Phase::End {
        return None;
    }
    Some(match kind {
        Kind::Stopped => format!("tallymark check {rollup}"),
        Kind::Capture => "tallymark capture status".to_owned(),
        Kind::Exhausted => {
            format!(
                "tallymark status {rollup}; when the cause is gone: tallymark replay {rollup} --failed"
            )
        }
        Kind::Failing | Kind::Behind | Kind::Numbers => format!("tallymark status {rollup}"),
        Kind::Stuck | Kind::Backfill => format!("tallymark backfill status {rollup}"),
        Kind::Drift => format!("tallymark verify {rollup} --repair"),
    })
}

/// The first slices of an incident.
fn named(incident: &Incident, count: usize) -> String {
    let first = incident.slices.iter().take(NAMED).map(|start| rfc3339(*start));
    let mut first = first.collect::<Vec<_>>().join(", ");
    let more = count.saturating_sub(NAMED.min(incident.slices.len()));
    if more > 0 {
        first.push_str(&format!(" and {more} more"));
    }
    first
}

/// A length of time in its two largest units.
fn lasted(time: TimeDelta) -> String {
    let minutes = time.num_minutes().max(0);
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}
