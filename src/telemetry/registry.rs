//! Every metric: its names, its unit and its meaning, for each of the ways out.
//!
//! The log line of an invocation, the text for Prometheus, the messages of OTLP and the tests of
//! docs/METRICS.md read this table. Names follow the conventions of Prometheus: base units, `_total`
//! for counters.

/// How a metric changes over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The sum of all ticks.
    Counter,
    /// The newest value.
    Gauge,
}

impl Kind {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// The unit of a metric's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A number of these, as OTLP calls them.
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only OTLP names them"))]
    Of(&'static str),
    /// Milliseconds in the log line, and seconds elsewhere.
    Milliseconds,
    Seconds,
    /// A ratio, or a yes that is 1.
    One,
}

impl Unit {
    /// The unit's name for CloudWatch.
    pub(crate) const fn cloudwatch(self) -> &'static str {
        match self {
            Self::Of(_) => "Count",
            Self::Milliseconds => "Milliseconds",
            Self::Seconds => "Seconds",
            Self::One => "None",
        }
    }

    /// A value of the log line in the base unit.
    pub(crate) fn in_base(self, value: f64) -> f64 {
        if self == Self::Milliseconds { value / 1000.0 } else { value }
    }
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    /// Its name in the log line and in CloudWatch. `None`: only for Prometheus and OTLP.
    pub(crate) cloudwatch: Option<&'static str>,
    /// Whether an alarm of template.yaml and infra/terraform watches it.
    pub(crate) is_watched: bool,
    /// Its name for Prometheus.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: Unit,
    pub(crate) meaning: &'static str,
}

impl Metric {
    const fn counter(name: &'static str, unit: Unit, meaning: &'static str) -> Self {
        let kind = Kind::Counter;
        Self { cloudwatch: None, is_watched: false, name, kind, unit, meaning }
    }

    const fn gauge(name: &'static str, unit: Unit, meaning: &'static str) -> Self {
        Self { kind: Kind::Gauge, ..Self::counter(name, unit, meaning) }
    }

    /// With this name in the log line.
    const fn logged(self, name: &'static str) -> Self {
        Self { cloudwatch: Some(name), ..self }
    }

    /// With an alarm.
    const fn watched(self) -> Self {
        Self { is_watched: true, ..self }
    }
}

/// Defines the metrics, and lists all of them.
macro_rules! metrics {
    ($($name:ident = $metric:expr;)*) => {
        $(pub(crate) static $name: Metric = $metric;)*

        /// Every metric, in the order in which they are shown.
        pub(crate) static ALL: &[&Metric] = &[$(&$name),*];
    };
}

const SLICES: Unit = Unit::Of("{slice}");
const ROLLUPS: Unit = Unit::Of("{rollup}");

metrics! {
    SLICES_SUCCEEDED = Metric::counter(
        "tallymark_slices_succeeded_total",
        SLICES,
        "Runs of slices whose rows are right and whose checkpoint says so.",
    ).logged("SlicesSucceeded");
    SLICES_FAILED = Metric::counter(
        "tallymark_slices_failed_total",
        SLICES,
        "Runs of slices that failed.",
    ).logged("SlicesFailed");
    SLICES_YIELDED = Metric::counter(
        "tallymark_slices_yielded_total",
        SLICES,
        "Runs of slices that gave up their turn and go on later.",
    ).logged("SlicesYielded");
    SLICES_FENCED = Metric::counter(
        "tallymark_slices_fenced_total",
        SLICES,
        "Runs of slices that a newer attempt had taken.",
    ).logged("SlicesFenced");
    SLICES_REFUSED = Metric::counter(
        "tallymark_slices_refused_total",
        SLICES,
        "Claims of slices that were refused.",
    ).logged("SlicesRefused");
    ROWS_READ = Metric::counter(
        "tallymark_rows_read_total",
        Unit::Of("{row}"),
        "Source rows that were counted.",
    ).logged("RowsRead");
    SOURCE_TIME = Metric::counter(
        "tallymark_source_seconds_total",
        Unit::Milliseconds,
        "Seconds in statements on the source, their naps included.",
    ).logged("SourceTime");
    WORKLOAD_UNITS = Metric::counter(
        "tallymark_workload_units_total",
        Unit::Of("{unit}"),
        "Workload units that a Bubble app has billed, by the prices of its manual.",
    ).logged("WorkloadUnits");
    WATERMARK_LAG = Metric::gauge(
        "tallymark_watermark_lag_seconds",
        Unit::Seconds,
        "Seconds from the watermark to the end of the newest readable slice, of the rollup that is \
         furthest behind.",
    ).logged("WatermarkLag").watched();
    SLICES_DUE = Metric::gauge(
        "tallymark_slices_due",
        SLICES,
        "Slices that the last tick found due.",
    ).logged("SlicesDue");
    SLICES_EXHAUSTED = Metric::gauge(
        "tallymark_slices_exhausted",
        SLICES,
        "Slices that failed too often, so that only a replay reopens them.",
    ).logged("SlicesExhausted").watched();
    ROLLUPS_HELD = Metric::gauge(
        "tallymark_rollups_held",
        ROLLUPS,
        "Rollups with due work that a pause, the hours or the source's load held back.",
    ).logged("RollupsHeld").watched();
    ROLLUPS_FAILED = Metric::gauge(
        "tallymark_rollups_failed",
        ROLLUPS,
        "Rollups that failed as a whole.",
    ).logged("RollupsFailed");
    CAPTURE_MISSING = Metric::gauge(
        "tallymark_rollups_alarming",
        ROLLUPS,
        "Rollups whose late changes are missed, or that are unproven since a restore.",
    ).logged("CaptureMissing").watched();
    SLICES_DIFFERING = Metric::gauge(
        "tallymark_slices_differing",
        SLICES,
        "Slices that the scrub of the last tick found to differ from the source.",
    ).logged("SlicesDiffering").watched();
    BACKFILLS_ACTIVE = Metric::gauge(
        "tallymark_backfills_active",
        Unit::Of("{backfill}"),
        "Backfills under way in a deployed function.",
    ).logged("BackfillsActive");
    SLICES_SENT = Metric::counter(
        "tallymark_slices_sent_total",
        SLICES,
        "Slices that were sent to queues.",
    ).logged("SlicesSent");
    NICE_RATIO = Metric::gauge(
        "tallymark_nice_ratio",
        Unit::One,
        "Rests as a multiple of the work, as the last tick found them right. Absent where the \
         configuration fixes it.",
    ).logged("NiceRatio");
    SLICES_KEPT_AWAY = Metric::counter(
        "tallymark_slices_kept_away_total",
        SLICES,
        "Old slices whose rows were deleted by `keep`.",
    ).logged("SlicesKeptAway");
    TICKS = Metric::counter(
        "tallymark_ticks_total",
        Unit::Of("{tick}"),
        "Ticks that have ended.",
    );
    LAST_TICK_TIMESTAMP = Metric::gauge(
        "tallymark_last_tick_timestamp_seconds",
        Unit::Seconds,
        "The end of the last tick.",
    );
    LAST_TICK_DURATION = Metric::gauge(
        "tallymark_last_tick_duration_seconds",
        Unit::Seconds,
        "The length of the last tick.",
    );
    TICK_RUNNING = Metric::gauge(
        "tallymark_tick_running",
        Unit::One,
        "1 while a tick runs.",
    );
    FAILING = Metric::gauge(
        "tallymark_failing",
        Unit::One,
        "1 while /healthz says so.",
    );
    ROLLUP_COMPLETE_THROUGH = Metric::gauge(
        "tallymark_rollup_complete_through_timestamp_seconds",
        Unit::Seconds,
        "Every slice of the rollup before this instant has succeeded.",
    );
    ROLLUP_SLICES_FAILING = Metric::gauge(
        "tallymark_rollup_slices_failing",
        SLICES,
        "Slices of the rollup that failed and have yet to succeed.",
    );
    ROLLUP_SLICES_LEFT = Metric::gauge(
        "tallymark_rollup_slices_left",
        SLICES,
        "Further slices of the rollup that are over and have yet to succeed.",
    );
    ROLLUP_STATE = Metric::gauge(
        "tallymark_rollup_state",
        Unit::One,
        "1 for the state that the rollup is in.",
    );
    BUILD_INFO = Metric::gauge(
        "tallymark_build_info",
        Unit::One,
        "The version of Tallymark.",
    );
}

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) metric: &'static Metric,
    /// Names and values.
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: f64,
}

impl Sample {
    pub(crate) const fn new(metric: &'static Metric, value: f64) -> Self {
        Self { metric, labels: Vec::new(), value }
    }

    /// With a further label.
    pub(crate) fn labelled(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((name, value.into()));
        self
    }

    /// The version that runs.
    pub(crate) fn of_this_build() -> Self {
        Self::new(&BUILD_INFO, 1.0).labelled("version", env!("CARGO_PKG_VERSION"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = include_str!("../../docs/METRICS.md");

    #[test]
    fn names_follow_the_conventions_and_are_used_once() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        let logged: Vec<_> = ALL.iter().filter_map(|metric| metric.cloudwatch).collect();
        assert_eq!(names.len(), ALL.len());
        assert_eq!(logged.iter().collect::<BTreeSet<_>>().len(), logged.len());
        for Metric { name, kind, unit, meaning, is_watched, cloudwatch } in ALL {
            let is_time = matches!(unit, Unit::Seconds | Unit::Milliseconds);
            let base = name.strip_suffix("_total");
            assert_eq!(base.is_some(), *kind == Kind::Counter, "{name}");
            assert_eq!(base.unwrap_or(name).ends_with("_seconds"), is_time, "{name}");
            assert!(name.starts_with("tallymark_"), "{name}");
            assert!(meaning.ends_with('.') && !meaning.contains('\n'), "{name}: {meaning}");
            assert!(!is_watched || cloudwatch.is_some(), "{name}");
        }
    }

    /// docs/METRICS.md has a row for each name, and no other.
    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let of_log = |metric: &Metric| {
            let name = metric.cloudwatch?;
            Some(format!("| `{name}` | {} |", metric.unit.cloudwatch()))
        };
        for metric in ALL {
            if let Some(row) = of_log(metric) {
                assert!(PAGE.contains(&row), "{row}");
            }
            let mut rows = PAGE.lines().filter(|line| {
                let cell = line.strip_prefix("| `").and_then(|it| it.strip_prefix(metric.name));
                cell.is_some_and(|rest| rest.starts_with(['`', '{']))
            });
            let row = rows.next().unwrap_or_else(|| panic!("{} has no row", metric.name));
            assert!(row.contains(&format!(" | {} | ", metric.kind.word())), "{row}");
            assert!(metric.cloudwatch.is_none_or(|it| row.contains(&format!("`{it}`"))), "{row}");
        }
        let is_word = |it: char| it.is_ascii_alphanumeric() || it == '_';
        for word in PAGE.split(|it| !is_word(it)).filter(|word| word.starts_with("tallymark_")) {
            assert!(ALL.iter().any(|metric| metric.name == word), "{word}");
        }
        let units = ["Count", "Milliseconds", "Seconds", "None"];
        for line in PAGE.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = line.split(" | ").collect();
            let is_row = cells.get(1).is_some_and(|unit| units.contains(unit));
            let is_known = ALL.iter().filter_map(|metric| of_log(metric));
            assert!(!is_row || is_known.into_iter().any(|row| line.starts_with(&row)), "{line}");
        }
    }

    /// The words of the dashboard's queries that look like metrics are metrics.
    #[test]
    fn the_dashboard_for_grafana_asks_for_metrics_that_exist() {
        let text = include_str!("../../examples/grafana/tallymark.json");
        let dashboard: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut queries = Vec::new();
        let mut left = vec![&dashboard];
        while let Some(value) = left.pop() {
            queries.extend(value.get("expr").and_then(serde_json::Value::as_str));
            left.extend(value.as_array().into_iter().flatten());
            left.extend(value.as_object().into_iter().flat_map(|object| object.values()));
        }
        let is_word = |it: char| it.is_ascii_alphanumeric() || it == '_';
        let words = queries.iter().flat_map(|query| query.split(|it| !is_word(it)));
        let named: BTreeSet<_> = words.filter(|word| word.starts_with("tallymark_")).collect();
        assert!(named.len() >= 8, "{named:?}");
        for name in named {
            assert!(ALL.iter().any(|metric| metric.name == name), "{name}");
        }
    }
}
