//! Metrics in the text format of Prometheus:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write as _;

use super::registry::{ALL, Sample};

/// The samples as text, by metric in the order of the registry.
#[must_use]
pub(crate) fn text(samples: &[Sample]) -> String {
    let mut text = String::new();
    for metric in ALL {
        let mut of_metric = samples.iter().filter(|sample| sample.metric == *metric).peekable();
        if of_metric.peek().is_none() {
            continue;
        }
        let (name, word, meaning) = (metric.name, metric.kind.word(), metric.meaning);
        let _ = writeln!(text, "# HELP {name} {meaning}\n# TYPE {name} {word}");
        for Sample { labels, value, .. } in of_metric {
            let _ = writeln!(text, "{name}{} {value}", shown(labels));
        }
    }
    text
}

/// Labels between braces: `{outcome="failed"}`.
fn shown(labels: &[(&'static str, String)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let shown = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
}

/// The three characters that the format escapes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::registry::{ROLLUP_SLICES_LEFT, ROLLUP_STATE};

    #[test]
    fn a_metric_is_described_once_and_no_label_ends_its_line() {
        let samples = [
            Sample::new(&ROLLUP_STATE, 1.0).labelled("rollup", "a\"b\\\n").labelled("state", "ok"),
            Sample::new(&ROLLUP_SLICES_LEFT, 7.0).labelled("rollup", "a"),
            Sample::new(&ROLLUP_STATE, 1.0).labelled("rollup", "b").labelled("state", "behind"),
        ];
        let text = text(&samples);
        let lines: Vec<_> = text.lines().collect();
        let [_, _, left, help, kind, first, second] = lines[..] else { panic!("{text}") };
        assert_eq!(left, "tallymark_rollup_slices_left{rollup=\"a\"} 7");
        assert!(help.starts_with("# HELP tallymark_rollup_state 1 for"), "{help}");
        assert_eq!(kind, "# TYPE tallymark_rollup_state gauge");
        assert_eq!(first, r#"tallymark_rollup_state{rollup="a\"b\\\n",state="ok"} 1"#);
        assert_eq!(second, "tallymark_rollup_state{rollup=\"b\",state=\"behind\"} 1");
    }
}
