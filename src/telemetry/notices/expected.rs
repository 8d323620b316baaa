//! Whether a measure keeps the limits of `expect`: a pure function of totals.

use std::cmp::Ordering;

use super::numbers::median;
use crate::model::rollup::expect::Limits;
use crate::model::visible;

/// Fewer earlier slices do not tell what is usual.
const PAST_MIN: usize = 4;

/// A measure's sum over all groups of a slice.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Total<'l> {
    pub(super) limits: &'l Limits,
    pub(super) now: f64,
    /// Those of the earlier slices that it is compared with.
    pub(super) past: Vec<f64>,
}

/// The limit that a measure does not keep, in words.
#[must_use]
pub(super) fn breach(total: &Total<'_>) -> Option<String> {
    let Total { limits, now, past } = total;
    let name = visible::line(&limits.measure);
    let is = format!("{name} is {}", shown(*now));
    // A sum that is no number keeps no limit.
    let is_beyond = |limit: f64, side| now.partial_cmp(&limit).is_none_or(|it| it == side);
    if let Some(min) = limits.min.filter(|min| is_beyond(*min, Ordering::Less)) {
        return Some(format!("{is}, and at least {} is expected", shown(min)));
    }
    if let Some(max) = limits.max.filter(|max| is_beyond(*max, Ordering::Greater)) {
        return Some(format!("{is}, and at most {} is expected", shown(max)));
    }
    let drop = limits.drop.filter(|_| past.len() >= PAST_MIN)?;
    let usual = median(past.clone());
    let least = usual * (1.0 - f64::from(drop) / 100.0);
    let is_low = usual > 0.0 && is_beyond(least, Ordering::Less);
    is_low.then(|| format!("{is}, more than {drop} % below the usual {}", shown(usual)))
}

/// A number with at most three decimals.
fn shown(number: f64) -> String {
    let rounded = (number * 1e3).round() / 1e3;
    // Minus zero is zero.
    (rounded + 0.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_beyond_a_limit_is_told_with_both_numbers() {
        let limits = |min, max, drop| Limits { measure: "events".to_owned(), min, max, drop };
        let (at_least, at_most) = (limits(Some(1.0), None, None), limits(None, Some(9.5), None));
        let half = limits(None, None, Some(50));
        let usual = &[80.0, 120.0, 100.0, 100.0][..];
        for (limits, now, past, told) in [
            (&at_least, 0.0, &[][..], Some("events is 0, and at least 1 is expected")),
            (&at_least, 1.0, &[], None),
            (&at_least, f64::NAN, &[], Some("events is NaN, and at least 1 is expected")),
            (&at_most, 9.75, &[], Some("events is 9.75, and at most 9.5 is expected")),
            (&at_most, 9.5, usual, None),
            (&half, 49.0, usual, Some("events is 49, more than 50 % below the usual 100")),
            (&half, 50.0, usual, None),
            (&half, 900.0, usual, None),
            (&half, 0.0, &usual[..3], None),
            // Half of nothing, or of a loss.
            (&half, 0.0, &[0.0; 8], None),
            (&half, -90.0, &[-50.0; 8], None),
        ] {
            let total = Total { limits, now, past: past.to_vec() };
            assert_eq!(breach(&total).as_deref(), told, "{total:?}");
        }
    }

    #[test]
    fn a_number_is_shown_briefly() {
        for (number, text) in [
            (0.1 + 0.2, "0.3"),
            (-0.0, "0"),
            (-1e-9, "0"),
            (1e15, "1000000000000000"),
            (2.5, "2.5"),
        ] {
            assert_eq!(shown(number), text);
        }
    }
}
