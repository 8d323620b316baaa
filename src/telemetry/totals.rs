//! The metrics of a process's ticks: sums, and the newest values.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::metrics::Metrics;
use super::registry::{self, Kind, Sample};

/// The labels of [`registry::TICKS`]: those that went well, and those that failed.
const OUTCOMES: [&str; 2] = ["good", "failed"];

/// What the ticks of one process add up to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    /// By the names for Prometheus, in base units.
    values: BTreeMap<&'static str, f64>,
    /// How many ticks went well, and how many failed.
    ended: [u32; 2],
    /// The end of the newest tick, and its length.
    last: Option<(DateTime<Utc>, Duration)>,
}

impl Totals {
    /// Adds a tick that began at this instant. One that failed as a whole has no metrics.
    pub(crate) fn add(
        &mut self,
        tick: Option<&Metrics>,
        is_good: bool,
        began_at: DateTime<Utc>,
        took: Duration,
    ) {
        for &(metric, value) in tick.map(Metrics::values).unwrap_or_default() {
            let value = metric.unit.in_base(value);
            let held = self.values.entry(metric.name).or_default();
            *held = if metric.kind == Kind::Counter { *held + value } else { value };
        }
        self.ended[usize::from(!is_good)] += 1;
        let ended_at =
            TimeDelta::from_std(took).ok().and_then(|it| began_at.checked_add_signed(it));
        self.last = Some((ended_at.unwrap_or(began_at), took));
    }

    /// The values. Before the first tick the gauges are unknown, and left out.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for metric in registry::ALL.iter().copied().filter(|metric| metric.cloudwatch.is_some()) {
            match (self.values.get(metric.name), metric.kind) {
                (Some(value), _) => samples.push(Sample::new(metric, *value)),
                (None, Kind::Counter) => samples.push(Sample::new(metric, 0.0)),
                (None, Kind::Gauge) => {}
            }
        }
        samples.extend(OUTCOMES.iter().zip(self.ended).map(|(outcome, ticks)| {
            Sample::new(&registry::TICKS, f64::from(ticks)).labelled("outcome", *outcome)
        }));
        if let Some((ended_at, took)) = self.last {
            samples.push(Sample::new(&registry::LAST_TICK_TIMESTAMP, epoch_seconds(ended_at)));
            samples.push(Sample::new(&registry::LAST_TICK_DURATION, took.as_secs_f64()));
        }
        samples
    }
}

/// An instant as metrics have it.
#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
pub(crate) fn epoch_seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::prometheus;
    use crate::work::report::TickReport;

    #[test]
    fn counters_add_up_and_gauges_show_the_newest_tick() {
        let mut report = TickReport::default();
        let mut totals = Totals::default();
        let before = prometheus::text(&totals.samples());
        assert!(before.contains("\ntallymark_slices_sent_total 0\n"), "{before}");
        assert!(!before.contains("tallymark_slices_due"), "{before}");
        assert!(!before.contains("tallymark_last_tick"), "{before}");
        let mut add = |report: &TickReport, seconds: i64| {
            let began_at = DateTime::from_timestamp(seconds, 0).unwrap();
            totals.add(
                Some(&Metrics::of_tick(report)),
                true,
                began_at,
                Duration::from_millis(1_500),
            );
        };
        (report.sent, report.gauges.due) = (3, 5);
        add(&report, 60);
        (report.sent, report.gauges.due) = (2, 1);
        add(&report, 120);
        totals.add(None, false, DateTime::from_timestamp(180, 0).unwrap(), Duration::from_secs(2));
        let text = prometheus::text(&totals.samples());
        for line in [
            "# TYPE tallymark_slices_sent_total counter",
            "tallymark_slices_sent_total 5",
            "tallymark_slices_due 1",
            "tallymark_ticks_total{outcome=\"good\"} 2",
            "tallymark_ticks_total{outcome=\"failed\"} 1",
            "tallymark_last_tick_timestamp_seconds 182",
            "tallymark_last_tick_duration_seconds 2",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
        }
    }

    #[test]
    fn milliseconds_become_seconds() {
        let mut totals = Totals::default();
        let tick = Metrics::of_tally(crate::work::report::Tally {
            source_ms: 1_500,
            ..Default::default()
        });
        totals.add(Some(&tick), true, DateTime::UNIX_EPOCH, Duration::ZERO);
        let samples = totals.samples();
        let source = samples.iter().find(|it| it.metric == &registry::SOURCE_TIME);
        assert_eq!(source.map(|it| it.value), Some(1.5));
    }
}
