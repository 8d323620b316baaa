//! The metrics of a process that stays, in the text format of Prometheus:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.
//!
//! The values come from [`Metrics`], as in the log line of an invocation. Names follow the
//! conventions of Prometheus: base units, `_total` for counters. docs/METRICS.md lists them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::metrics::Metrics;

/// How a metric changes over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricType {
    /// The sum of all ticks.
    Counter,
    /// The value of the newest tick.
    Gauge,
}

impl MetricType {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// A metric of ticks: its name in [`Metrics`], its name for Prometheus, and its meaning.
struct Family(&'static str, &'static str, MetricType, &'static str);

const FAMILIES: [Family; 19] = [
    Family(
        "SlicesSucceeded",
        "tallymark_slices_succeeded_total",
        MetricType::Counter,
        "Runs of slices whose rows are right and whose checkpoint says so.",
    ),
    Family(
        "SlicesFailed",
        "tallymark_slices_failed_total",
        MetricType::Counter,
        "Runs of slices that failed.",
    ),
    Family(
        "SlicesYielded",
        "tallymark_slices_yielded_total",
        MetricType::Counter,
        "Runs of slices that gave up their turn and go on later.",
    ),
    Family(
        "SlicesFenced",
        "tallymark_slices_fenced_total",
        MetricType::Counter,
        "Runs of slices that a newer attempt had taken.",
    ),
    Family(
        "SlicesRefused",
        "tallymark_slices_refused_total",
        MetricType::Counter,
        "Claims of slices that were refused.",
    ),
    Family(
        "RowsRead",
        "tallymark_rows_read_total",
        MetricType::Counter,
        "Source rows that were counted.",
    ),
    Family(
        "SourceTime",
        "tallymark_source_seconds_total",
        MetricType::Counter,
        "Seconds in statements on the source, their naps included.",
    ),
    Family(
        "WorkloadUnits",
        "tallymark_workload_units_total",
        MetricType::Counter,
        "Workload units that a Bubble app has billed, by the prices of its manual.",
    ),
    Family(
        "WatermarkLag",
        "tallymark_watermark_lag_seconds",
        MetricType::Gauge,
        "Seconds from the watermark to the end of the newest readable slice, of the rollup that is \
         furthest behind.",
    ),
    Family(
        "SlicesDue",
        "tallymark_slices_due",
        MetricType::Gauge,
        "Slices that the last tick found due.",
    ),
    Family(
        "SlicesExhausted",
        "tallymark_slices_exhausted",
        MetricType::Gauge,
        "Slices that failed too often, so that only a replay reopens them.",
    ),
    Family(
        "RollupsHeld",
        "tallymark_rollups_held",
        MetricType::Gauge,
        "Rollups with due work that a pause, the hours or the source's load held back.",
    ),
    Family(
        "RollupsFailed",
        "tallymark_rollups_failed",
        MetricType::Gauge,
        "Rollups that failed as a whole.",
    ),
    Family(
        "CaptureMissing",
        "tallymark_rollups_alarming",
        MetricType::Gauge,
        "Rollups whose late changes are missed, or that are unproven since a restore.",
    ),
    Family(
        "SlicesDiffering",
        "tallymark_slices_differing",
        MetricType::Gauge,
        "Slices that the scrub of the last tick found to differ from the source.",
    ),
    Family(
        "BackfillsActive",
        "tallymark_backfills_active",
        MetricType::Gauge,
        "Backfills under way in a deployed function.",
    ),
    Family(
        "SlicesSent",
        "tallymark_slices_sent_total",
        MetricType::Counter,
        "Slices that were sent to queues.",
    ),
    Family(
        "NiceRatio",
        "tallymark_nice_ratio",
        MetricType::Gauge,
        "Rests as a multiple of the work, as the last tick found them right. Absent where the \
         configuration fixes it.",
    ),
    Family(
        "SlicesKeptAway",
        "tallymark_slices_kept_away_total",
        MetricType::Counter,
        "Old slices whose rows were deleted by `keep`.",
    ),
];

/// The sums and the newest values of a process's ticks.
#[derive(Clone, Debug, Default)]
pub struct Totals(BTreeMap<&'static str, f64>);

impl Totals {
    /// Adds the metrics of one tick.
    pub fn add(&mut self, tick: &Metrics) {
        for &(name, unit, value) in tick.values() {
            let value = if unit == "Milliseconds" { value / 1000.0 } else { value };
            let is_sum = FAMILIES.iter().any(|it| it.0 == name && it.2 == MetricType::Counter);
            let held = self.0.entry(name).or_default();
            *held = if is_sum { *held + value } else { value };
        }
    }

    /// The metrics as text. Before the first tick the gauges are unknown, and left out.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Family(from, name, kind, help) in &FAMILIES {
            match (self.0.get(from), kind) {
                (Some(value), _) => family(&mut text, name, *kind, help, &[("", *value)]),
                (None, MetricType::Counter) => family(&mut text, name, *kind, help, &[("", 0.0)]),
                (None, MetricType::Gauge) => {}
            }
        }
        text
    }
}

/// Adds a metric with its values, each with its labels: `{outcome="failed"}`.
pub fn family(text: &mut String, name: &str, kind: MetricType, help: &str, values: &[(&str, f64)]) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.word());
    for (labels, value) in values {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::bubble::Units;
    use crate::target::DeletedSlices;
    use crate::throttle::pace::Hold;
    use crate::work::report::{FoundPace, TickReport};

    #[test]
    fn every_metric_of_a_tick_has_one_name_for_prometheus() {
        let workload_units = Some(Units::default());
        let kept_away = DeletedSlices { slices: 1, rows: 1 };
        let pace = Some(FoundPace::from((30.0, Hold::Start)));
        let report = TickReport { workload_units, kept_away, pace, ..TickReport::default() };
        let tick = Metrics::of_tick(&report);
        let named: Vec<_> = FAMILIES.iter().map(|family| family.0).collect();
        let values: Vec<_> = tick.values().iter().map(|value| value.0).collect();
        assert_eq!(named, values);
        for Family(_, name, kind, help) in &FAMILIES {
            assert_eq!(name.ends_with("_total"), *kind == MetricType::Counter, "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
        }
    }

    #[test]
    fn counters_add_up_and_gauges_show_the_newest_tick() {
        let mut report = TickReport::default();
        let mut totals = Totals::default();
        assert!(totals.text().contains("\ntallymark_slices_sent_total 0\n"));
        assert!(!totals.text().contains("tallymark_slices_due"));
        (report.sent, report.gauges.due) = (3, 5);
        totals.add(&Metrics::of_tick(&report));
        (report.sent, report.gauges.due) = (2, 1);
        totals.add(&Metrics::of_tick(&report));
        let text = totals.text();
        assert!(text.contains("\n# TYPE tallymark_slices_sent_total counter\n"), "{text}");
        assert!(text.contains("\ntallymark_slices_sent_total 5\n"), "{text}");
        assert!(text.contains("\ntallymark_slices_due 1\n"), "{text}");
    }

    #[test]
    fn the_documentation_lists_every_name() {
        let documented = include_str!("../../docs/METRICS.md");
        for Family(from, name, ..) in &FAMILIES {
            let row = documented.lines().find(|line| line.contains(&format!("`{name}`")));
            assert!(row.is_some_and(|row| row.contains(&format!("`{from}`"))), "{name}");
        }
    }
}
