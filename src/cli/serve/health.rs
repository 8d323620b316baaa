//! What `/healthz` says. It is open, so it counts troubles and leaves their texts to the log.

use chrono::{DateTime, Utc};

use crate::cli::{Failure, ui};
use crate::work::report::{Outcome, TickReport};
use crate::work::worker::Severity;

/// The troubles that the last ticks met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Since when there are troubles.
    pub(super) since: Option<DateTime<Utc>>,
    /// The troubles. Empty: all is well, or no tick has ended yet.
    pub(super) reasons: Vec<String>,
}

impl Health {
    /// Takes a tick that ended at `now` into account.
    pub(super) fn learn(&mut self, result: &Result<TickReport, Failure>, now: DateTime<Utc>) {
        let reasons = match result {
            Ok(report) => reasons(report),
            Err(failure) => vec![broken(failure.severity).to_owned()],
        };
        // A failed slice waits for its retry, and ticks in between say nothing of it.
        let waits = result.as_ref().is_ok_and(|report| report.gauges.waiting > 0);
        if reasons.is_empty() && waits && !self.reasons.is_empty() {
            return;
        }
        self.since = if reasons.is_empty() { None } else { self.since.or(Some(now)) };
        self.reasons = reasons;
    }
}

const fn broken(severity: Severity) -> &'static str {
    match severity {
        Severity::Unreachable => "the tick failed: a server could not be reached",
        Severity::Usage => "the tick failed: the configuration and the servers do not fit",
        Severity::Failed => "the tick failed",
    }
}

fn reasons(report: &TickReport) -> Vec<String> {
    let failed = report.slices.iter().filter(|it| it.outcome == Outcome::Failed).count();
    let alarms = report.alarms();
    [
        (report.problems.len() - alarms, "rollup", "could not be worked on"),
        (alarms, "rollup", "with missed late changes, or unproven since a restore"),
        (failed, "slice", "failed"),
        (report.gauges.exhausted, "slice", "failed too often; `tallymark replay` reopens it"),
        (report.scrub.differing, "slice", "found to differ from the source"),
    ]
    .iter()
    .filter(|(count, ..)| *count > 0)
    .map(|(count, noun, trouble)| format!("{} {trouble}", ui::counted(*count, noun)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    #[test]
    fn troubles_last_until_a_tick_finds_nothing_that_waits() {
        let mut health = Health::default();
        let unreachable = Failure::of(Severity::Unreachable, "postgres://secret");
        health.learn(&Err(unreachable), at(1));
        assert_eq!(health.since, Some(at(1)));
        assert!(!health.reasons[0].contains("secret"), "{health:?}");
        let mut report = TickReport::default();
        report.gauges.waiting = 1;
        health.learn(&Ok(report), at(2));
        assert_eq!(health.since, Some(at(1)), "a slice still waits for its retry");
        health.learn(&Ok(TickReport::default()), at(3));
        assert_eq!(health, Health::default());
    }

    #[test]
    fn a_slice_that_waits_is_no_trouble_by_itself() {
        let mut report = TickReport::default();
        report.gauges.waiting = 1;
        let mut health = Health::default();
        health.learn(&Ok(report), at(1));
        assert_eq!(health, Health::default());
    }

    #[test]
    fn exhausted_slices_are_a_trouble_at_every_tick() {
        let mut report = TickReport::default();
        report.gauges.exhausted = 2;
        let mut health = Health::default();
        health.learn(&Ok(report), at(1));
        assert_eq!(health.reasons, ["2 slices failed too often; `tallymark replay` reopens it"]);
    }
}
