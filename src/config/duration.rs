//! Durations in the usual notation: `500ms`, `30s`, `2 minutes`, `1 hour`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::raw::Node;
use crate::model::hint::Fault;
use crate::model::text::shown;

/// Reads a duration in `range`.
pub(super) fn read(node: &Node<'_>, range: RangeInclusive<Duration>) -> Option<Duration> {
    const FORMS: &str = r#"such as "500ms", "30s", "2 minutes" or "1 hour""#;
    let text = node.string(&format!("a duration {FORMS}"))?;
    let Some(duration) = parse(text) else {
        return node.wrong(
            Fault::new(format!("{} is not a duration", shown(text)))
                .remedy(format!("write one {FORMS}")),
        );
    };
    if range.contains(&duration) {
        return Some(duration);
    }
    let (least, most) = (range.start(), range.end());
    node.wrong(Fault::new(format!("{} is out of range", shown(text))).remedy(format!(
        "use {} to {}",
        spoken(*least),
        spoken(*most)
    )))
}

fn spoken(duration: Duration) -> String {
    match duration.as_secs() {
        0 if duration.is_zero() => "0s".to_owned(),
        DAY => "1 day".to_owned(),
        seconds if seconds >= DAY && seconds % DAY == 0 => format!("{} days", seconds / DAY),
        _ => format!("{duration:?}"),
    }
}

const DAY: u64 = 24 * 60 * 60;

/// Reads a duration such as `500ms`, `30s`, `2 minutes` or `1 hour`.
#[must_use]
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit.trim_start() {
        "ms" | "millisecond" | "milliseconds" => return Some(Duration::from_millis(number)),
        "s" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 60 * 60,
        "d" | "day" | "days" => DAY,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        assert_eq!(parse("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse(" 2 minutes "), Some(Duration::from_secs(120)));
        assert_eq!(parse("1 hour"), Some(Duration::from_secs(3600)));
        assert_eq!(parse("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse("5m"), parse("5 minutes"));
        assert_eq!(parse("1d"), Some(Duration::from_secs(DAY)));
        for text in ["", "5", "ms", "-1s", "1.5s", "1 fortnight", "1h 30min", "9e9s", "５s"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("18446744073709551615 days"), None);
    }
}
