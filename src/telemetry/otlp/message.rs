//! Samples as a message of the OpenTelemetry protocol.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsDouble;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::telemetry::registry::{self, Kind, Sample, Unit};

/// A metric with its labels.
pub(super) type Series = (&'static str, Vec<(&'static str, String)>);

/// The sums of counters by their series.
pub(super) type Sums = BTreeMap<Series, f64>;

/// The sums that a message tells.
pub(super) fn sums(samples: &[Sample]) -> Sums {
    let counters = samples.iter().filter(|sample| sample.metric.kind == Kind::Counter);
    counters.map(|sample| (series(sample), sample.value)).collect()
}

fn series(sample: &Sample) -> Series {
    (sample.metric.name, sample.labels.clone())
}

/// What counters tell.
#[derive(Clone, Copy)]
pub(super) enum Told<'s> {
    /// The sums since this instant.
    Since(DateTime<Utc>),
    /// What was added since this instant, when the sums were these.
    Added(DateTime<Utc>, &'s Sums),
}

/// The message of a process with these attributes.
pub(super) fn message(
    attributes: &[(String, String)],
    samples: &[Sample],
    told: Told<'_>,
    now: DateTime<Utc>,
) -> ExportMetricsServiceRequest {
    let attributes = attributes.iter().map(|(name, value)| attribute(name, value)).collect();
    let metrics = registry::ALL.iter().filter_map(|metric| {
        let points: Vec<_> = samples
            .iter()
            .filter(|sample| sample.metric == *metric)
            .map(|sample| point(sample, told, now))
            .collect();
        (!points.is_empty()).then(|| of_metric(metric, points, told))
    });
    let (name, version) = ("tallymark".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let scope = InstrumentationScope { name, version, ..InstrumentationScope::default() };
    let metrics = metrics.collect();
    let scope = ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() };
    let resource = Resource { attributes, ..Resource::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![scope],
            schema_url: String::new(),
        }],
    }
}

fn of_metric(
    metric: &registry::Metric,
    data_points: Vec<NumberDataPoint>,
    told: Told<'_>,
) -> Metric {
    let temporality = match told {
        Told::Since(_) => AggregationTemporality::Cumulative,
        Told::Added(..) => AggregationTemporality::Delta,
    };
    let data = match metric.kind {
        Kind::Gauge => Data::Gauge(Gauge { data_points }),
        Kind::Counter => Data::Sum(Sum {
            data_points,
            aggregation_temporality: temporality.into(),
            is_monotonic: true,
        }),
    };
    Metric {
        name: name(metric),
        description: metric.meaning.to_owned(),
        unit: unit(metric.unit).to_owned(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

/// The name by the conventions of OpenTelemetry, which leave unit and kind out. A receiver that
/// translates it for Prometheus adds both again.
fn name(metric: &registry::Metric) -> String {
    let name = metric.name.strip_suffix("_total").unwrap_or(metric.name);
    let name = name.strip_suffix("_seconds").unwrap_or(name);
    name.replacen('_', ".", 1)
}

/// The unit by UCUM. A ratio has none, as its name says what it is.
const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Of(things) => things,
        Unit::Milliseconds | Unit::Seconds => "s",
        Unit::One => "",
    }
}

fn point(sample: &Sample, told: Told<'_>, now: DateTime<Utc>) -> NumberDataPoint {
    let (since, value) = match (sample.metric.kind, told) {
        (Kind::Gauge, _) => (None, sample.value),
        (Kind::Counter, Told::Since(since)) => (Some(since), sample.value),
        (Kind::Counter, Told::Added(since, before)) => {
            let before = before.get(&series(sample)).copied().unwrap_or_default();
            (Some(since), sample.value - before)
        }
    };
    NumberDataPoint {
        attributes: sample.labels.iter().map(|(name, value)| attribute(name, value)).collect(),
        start_time_unix_nano: since.map_or(0, nanoseconds),
        time_unix_nano: nanoseconds(now),
        value: Some(AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn attribute(name: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: name.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn nanoseconds(at: DateTime<Utc>) -> u64 {
    at.timestamp_nanos_opt().and_then(|it| u64::try_from(it).ok()).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The only value of the only metric.
    pub(in crate::telemetry::otlp) fn value(message: &ExportMetricsServiceRequest) -> f64 {
        let metrics = &message.resource_metrics[0].scope_metrics[0].metrics;
        let [metric] = &metrics[..] else { panic!("{metrics:?}") };
        let points = points(message, &metric.name);
        let [(.., value)] = points[..] else { panic!("{points:?}") };
        value
    }

    /// How receivers name metrics for Prometheus:
    /// <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>.
    fn translated(metric: &registry::Metric) -> String {
        let unit = match unit(metric.unit) {
            "s" => "_seconds",
            // Words in braces are comments.
            text if text.is_empty() || text.starts_with('{') => "",
            other => panic!("{other}"),
        };
        let total = if metric.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", name(metric).replace('.', "_"))
    }

    #[test]
    fn a_receiver_for_prometheus_gives_each_metric_its_name_there() {
        for metric in registry::ALL {
            assert_eq!(translated(metric), metric.name);
        }
        assert_eq!(name(&registry::SOURCE_TIME), "tallymark.source");
        assert_eq!(name(&registry::SLICES_SUCCEEDED), "tallymark.slices_succeeded");
    }

    /// The points of a counter: start, time and value.
    fn points(message: &ExportMetricsServiceRequest, wanted: &str) -> Vec<(u64, u64, f64)> {
        let metrics = &message.resource_metrics[0].scope_metrics[0].metrics;
        let metric = metrics.iter().find(|metric| metric.name == wanted).unwrap();
        let points = match metric.data.as_ref().unwrap() {
            Data::Sum(sum) => &sum.data_points,
            Data::Gauge(gauge) => &gauge.data_points,
            other => panic!("{other:?}"),
        };
        let value = |point: &NumberDataPoint| match point.value {
            Some(AsDouble(value)) => value,
            _ => panic!("{point:?}"),
        };
        points.iter().map(|it| (it.start_time_unix_nano, it.time_unix_nano, value(it))).collect()
    }

    #[test]
    fn counters_tell_sums_or_what_was_added_and_gauges_their_value() {
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        let samples = |ticks: f64| {
            vec![
                Sample::new(&registry::TICKS, ticks).labelled("outcome", "good"),
                Sample::new(&registry::TICKS, 1.0).labelled("outcome", "failed"),
                Sample::new(&registry::SLICES_DUE, 7.0),
            ]
        };
        let second = 1_000_000_000_u64;
        let whole = message(&[], &samples(5.0), Told::Since(at(1)), at(3));
        let ticks = [(second, 3 * second, 5.0), (second, 3 * second, 1.0)];
        assert_eq!(points(&whole, "tallymark.ticks"), ticks);
        assert_eq!(points(&whole, "tallymark.slices_due"), [(0, 3 * second, 7.0)]);
        let before = sums(&samples(3.0));
        let more = message(&[], &samples(5.0), Told::Added(at(2), &before), at(3));
        let ticks = [(2 * second, 3 * second, 2.0), (2 * second, 3 * second, 0.0)];
        assert_eq!(points(&more, "tallymark.ticks"), ticks);
        assert_eq!(points(&more, "tallymark.slices_due"), [(0, 3 * second, 7.0)]);
        for (message, wanted) in
            [(whole, AggregationTemporality::Cumulative), (more, AggregationTemporality::Delta)]
        {
            let metrics = &message.resource_metrics[0].scope_metrics[0].metrics;
            let sums = metrics.iter().filter_map(|metric| match &metric.data {
                Some(Data::Sum(sum)) => Some((sum.is_monotonic, sum.aggregation_temporality)),
                _ => None,
            });
            assert_eq!(sums.collect::<Vec<_>>(), [(true, wanted as i32)]);
        }
    }
}
