//! Data for graphs and alarms in CloudWatch's embedded metric format, as one log line per
//! invocation.
//!
//! Names, units and meanings: [`registry`]. The only dimension is the function's name, as
//! CloudWatch charges for every further combination as a metric. The format:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::registry::{self, Metric};
use crate::work::report::{SliceReport, Tally, TickReport};

/// The values that CloudWatch turns into metrics, and charges for. The line contains all values in
/// any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// All values.
    #[default]
    All,
    /// The values that alarms watch.
    Alarms,
}

impl FromStr for Kept {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            "alarms" => Ok(Self::Alarms),
            _ => Err("write `all`, or `alarms` for what alarms watch"),
        }
    }
}

/// The metrics of one invocation, in the units of CloudWatch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<(&'static Metric, f64)>);

impl Metrics {
    /// The metrics of processed slices.
    #[must_use]
    pub(crate) fn of_slices<'r>(reports: impl IntoIterator<Item = &'r SliceReport>) -> Self {
        Self::of_tally(Tally::of(reports))
    }

    /// The metrics of processed slices, from counts taken during the work. Every count has its
    /// metric here, and every outcome its count in [`Tally::add`], so that none is left out.
    #[must_use]
    pub(crate) fn of_tally(tally: Tally) -> Self {
        let Tally {
            succeeded,
            failed,
            yielded,
            fenced,
            refused,
            rows_read,
            source_ms,
            workload_units,
        } = tally;
        let mut metrics = Self::default();
        for (metric, value) in [
            (&registry::SLICES_SUCCEEDED, succeeded),
            (&registry::SLICES_FAILED, failed),
            (&registry::SLICES_YIELDED, yielded),
            (&registry::SLICES_FENCED, fenced),
            (&registry::SLICES_REFUSED, refused),
            (&registry::ROWS_READ, rows_read),
            (&registry::SOURCE_TIME, source_ms),
        ] {
            metrics.add(metric, value);
        }
        // Only where an app is billed, as CloudWatch charges for each metric.
        if let Some(units) = workload_units {
            metrics.0.push((&registry::WORKLOAD_UNITS, units.as_f64()));
        }
        metrics
    }

    /// The metrics of a tick, and of the state of all rollups that it found.
    #[must_use]
    pub(crate) fn of_tick(report: &TickReport) -> Self {
        let slices = Tally::of(&report.slices);
        // A tick also pays for looks at changes and for counts.
        let workload_units = report.workload_units.or(slices.workload_units);
        let mut metrics = Self::of_tally(Tally { workload_units, ..slices });
        let gauges = &report.gauges;
        let lag = u64::try_from(gauges.lag.num_seconds()).unwrap_or(0);
        metrics.add(&registry::WATERMARK_LAG, lag);
        let alarms = report.alarms();
        for (metric, count) in [
            (&registry::SLICES_DUE, gauges.due),
            (&registry::SLICES_EXHAUSTED, gauges.exhausted),
            (&registry::ROLLUPS_HELD, report.held.len()),
            (&registry::ROLLUPS_FAILED, report.problems.len() - alarms),
            (&registry::CAPTURE_MISSING, alarms),
            (&registry::SLICES_DIFFERING, report.scrub.differing),
            (&registry::BACKFILLS_ACTIVE, gauges.backfills),
        ] {
            metrics.add(metric, count as u64);
        }
        metrics.add(&registry::SLICES_SENT, report.sent);
        // Only where it is found, as CloudWatch charges for each metric.
        if let Some(pace) = &report.pace {
            metrics.0.push((&registry::NICE_RATIO, pace.nice_ratio));
        }
        // Only where `keep` deletes, as CloudWatch charges for each metric.
        if report.kept_away.slices > 0 {
            metrics.add(&registry::SLICES_KEPT_AWAY, report.kept_away.slices);
        }
        metrics
    }

    /// The metrics with their values.
    pub(super) fn values(&self) -> &[(&'static Metric, f64)] {
        &self.0
    }

    fn add(&mut self, metric: &'static Metric, value: u64) {
        self.0.push((metric, as_float(value)));
    }

    /// The names in the line, each with its metric and its value.
    fn named(&self) -> impl Iterator<Item = (&'static str, &'static Metric, f64)> {
        self.0.iter().filter_map(|(metric, value)| Some((metric.cloudwatch?, *metric, *value)))
    }

    /// The log line for the function with this name.
    #[must_use]
    pub fn line(&self, function: &str, kept: Kept, now: DateTime<Utc>) -> Value {
        let definitions: Vec<_> = self
            .named()
            .filter(|(_, metric, _)| kept == Kept::All || metric.is_watched)
            .map(|(name, metric, _)| json!({ "Name": name, "Unit": metric.unit.cloudwatch() }))
            .collect();
        let mut line = Map::from_iter([
            ("timestamp".to_owned(), json!(now.to_rfc3339_opts(SecondsFormat::Millis, true))),
            ("level".to_owned(), json!("INFO")),
            ("message".to_owned(), json!("metrics")),
            ("FunctionName".to_owned(), json!(function)),
        ]);
        if !definitions.is_empty() {
            let directive = json!({
                "Timestamp": now.timestamp_millis(),
                "CloudWatchMetrics": [{
                    "Namespace": "Tallymark",
                    "Dimensions": [["FunctionName"]],
                    "Metrics": definitions,
                }],
            });
            line.insert("_aws".to_owned(), directive);
        }
        line.extend(self.named().map(|(name, _, value)| (name.to_owned(), json!(value))));
        Value::Object(line)
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
const fn as_float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clients::bubble::Units;
    use crate::target::DeletedSlices;
    use crate::throttle::pace::{Hold, Sense};
    use crate::work::report::{FoundPace, Outcome};

    /// A tick with every metric.
    fn whole() -> TickReport {
        let kept_away = DeletedSlices { slices: 2, rows: 40 };
        let workload_units = Some(Units::whole(3));
        let pace = Some(FoundPace::from((12.0, Hold::Others(Sense::Transactions))));
        TickReport { workload_units, kept_away, pace, ..TickReport::default() }
    }

    /// The format requires that each defined metric is a number at the root, and so is each
    /// dimension.
    #[test]
    fn a_line_defines_every_metric_that_it_holds() {
        let tick = Metrics::of_tick(&whole());
        let line = tick.line("tallymark", Kept::All, DateTime::UNIX_EPOCH);
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(line["_aws"]["Timestamp"], 0);
        let metrics = directive["Metrics"].as_array().unwrap();
        // CloudWatch accepts at most a hundred of them.
        assert!(metrics.len() <= 100);
        for metric in metrics {
            assert!(line[metric["Name"].as_str().unwrap()].is_number(), "{metric}");
        }
        let dimension = directive["Dimensions"][0][0].as_str().unwrap();
        assert_eq!(line[dimension], "tallymark");
    }

    #[test]
    fn what_no_alarm_watches_can_be_left_in_the_line_alone() {
        let line = |metrics: Metrics| metrics.line("tallymark", Kept::Alarms, DateTime::UNIX_EPOCH);
        let tick = line(Metrics::of_tick(&TickReport::default()));
        let metrics = tick["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap();
        let kept: BTreeSet<_> = metrics.iter().map(|it| it["Name"].as_str().unwrap()).collect();
        // The kept metrics are those that the template's alarms name.
        let template = include_str!("../../template.yaml").split("Namespace: Tallymark\n").skip(1);
        let names = template.map(|rest| {
            rest.trim_start().strip_prefix("MetricName: ").unwrap().lines().next().unwrap()
        });
        assert_eq!(kept, names.collect());
        assert_eq!(tick["RowsRead"], 0.0);
        let slices = line(Metrics::of_slices([]));
        assert!(slices["SlicesSucceeded"] == 0.0 && slices.get("_aws").is_none(), "{slices}");
    }

    /// A run that is counted nowhere would be missing from every graph.
    #[test]
    fn every_outcome_moves_exactly_one_count_of_slices() {
        let start = DateTime::UNIX_EPOCH;
        let report = |outcome| SliceReport {
            rollup: "daily".into(),
            start,
            end: start,
            outcome,
            attempt: None,
            reason: None,
            hint: None,
            retry_at: None,
            completion: None,
            not_now: None,
            elapsed_ms: None,
            workload_units: None,
        };
        let documented = include_str!("../../docs/METRICS.md");
        for outcome in Outcome::ALL {
            let metrics = Metrics::of_slices([&report(outcome)]);
            let moved: Vec<_> = metrics.named().filter(|(.., value)| *value > 0.0).collect();
            assert!(matches!(moved[..], [(.., 1.0)]), "{outcome:?}: {moved:?}");
            let row = documented.lines().find(|line| line.contains(moved[0].0));
            assert!(row.unwrap().contains(&format!("`{}`", outcome.word())), "{outcome:?}");
        }
    }

    #[test]
    fn a_tick_has_what_costs_more_only_where_it_found_it() {
        let value = |report: &TickReport, metric: &Metric| {
            let metrics = Metrics::of_tick(report).0;
            metrics.into_iter().find(|it| it.0 == metric).map(|it| it.1)
        };
        for (metric, found) in [
            (&registry::WORKLOAD_UNITS, 3.0),
            (&registry::NICE_RATIO, 12.0),
            (&registry::SLICES_KEPT_AWAY, 2.0),
        ] {
            assert_eq!(value(&whole(), metric), Some(found), "{metric:?}");
            assert_eq!(value(&TickReport::default(), metric), None, "{metric:?}");
        }
    }

    #[test]
    fn a_tick_reports_every_metric_that_has_a_name_in_the_log_line() {
        let named: Vec<_> = Metrics::of_tick(&whole()).named().map(|it| it.0).collect();
        let all: Vec<_> = registry::ALL.iter().filter_map(|metric| metric.cloudwatch).collect();
        assert_eq!(named, all);
    }
}
