//! Whether the source rows of a slice are as usual: a pure function of the slices of eight weeks.
//!
//! The law: compare with the same weekday and time of day by the modified z-score, which takes
//! median and median absolute deviation, so that a few odd days change little, and whose usual limit
//! is 3.5 (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993). It is taken of
//! logarithms, as traffic grows and varies by factors. A holiday resembles another weekday, so a slice
//! is odd only if it also lies outside of what every other day at this time had.

/// Days that are looked back.
pub(super) const DAYS: u16 = 56;

/// Fewer slices of the same weekday tell too little.
const SAME_MIN: usize = 4;

/// The limit of the modified z-score.
const LIMIT: f64 = 3.5;

/// The standard deviation is this multiple of the median absolute deviation, for normal values.
const OF_DEVIATION: f64 = 1.4826;

/// The least deviation that is believed: a few weeks may agree by chance. By it, doubled rows are
/// odd, and half of them alone are not.
const DEVIATION_MIN: f64 = 0.18;

/// A low number is below this part of the second lowest of all days.
const LOW_PART: f64 = 0.6;

/// A high number is above this multiple of the second highest of all days.
const HIGH_PART: f64 = 1.6;

/// An earlier slice at the same time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) days_ago: u16,
    pub(super) rows: u64,
}

/// An odd number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Odd {
    Low,
    High,
}

/// Whether `rows` is odd beside the past, and the usual number. `None`: too little is known.
#[must_use]
pub(super) fn judge(rows: u64, past: &[Past]) -> Option<(Option<Odd>, u64)> {
    let same: Vec<f64> =
        past.iter().filter(|it| it.days_ago % 7 == 0).map(|it| logarithm(it.rows)).collect();
    if same.len() < SAME_MIN {
        return None;
    }
    let usual = median(same.clone());
    let deviations = same.iter().map(|it| (it - usual).abs()).collect();
    let count = usual.exp() - 1.0;
    // Counts of independent events vary by their root.
    let by_chance = 1.0 / count.max(1.0).sqrt();
    let deviation = (OF_DEVIATION * median(deviations)).max(DEVIATION_MIN).max(by_chance);
    let score = (logarithm(rows) - usual) / deviation;
    // Of few rows there may be none at times, which is far away by logarithms.
    if (as_float(rows) - count).abs() <= LIMIT * count.max(1.0).sqrt() {
        return Some((None, rounded(count)));
    }
    let mut all: Vec<f64> = past.iter().map(|it| as_float(it.rows)).collect();
    all.sort_by(f64::total_cmp);
    // The lowest and the highest may be odd days themselves.
    let (low, high) = (all[1.min(all.len() - 1)], all[all.len().saturating_sub(2)]);
    let odd = if score < -LIMIT && as_float(rows) <= LOW_PART * low {
        Some(Odd::Low)
    } else if score > LIMIT && as_float(rows) >= HIGH_PART * high {
        Some(Odd::High)
    } else {
        None
    };
    Some((odd, rounded(count)))
}

/// The logarithm of one more, as a slice may be empty.
fn logarithm(rows: u64) -> f64 {
    as_float(rows).ln_1p()
}

/// The value in the middle of at least one.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[half - 1], values[half]),
        _ => values[half],
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
const fn as_float(rows: u64) -> f64 {
    rows as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn rounded(count: f64) -> u64 {
    count.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A year of days of a site: weekdays and weekends, growth, noise, and a dozen holidays with
    /// the traffic of a Sunday.
    struct Site {
        days: Vec<u64>,
        random: fastrand::Rng,
    }

    impl Site {
        fn new(seed: u64) -> Self {
            let mut site = Self { days: Vec::new(), random: fastrand::Rng::with_seed(seed) };
            let base = 10.0_f64.powf(2.0 + 3.0 * site.random.f64());
            let growth = 1.0 + 2.0 * site.random.f64();
            // A shop of weekdays, a site for the evening, or one of weekends.
            let weekend = [0.4, 0.8, 1.0, 1.8][site.random.usize(..4)];
            let noise = 0.1 * site.random.f64();
            for day in 0..365_u16 {
                let is_holiday = day > 60 && site.random.u32(..25) == 0;
                let level = match day % 7 {
                    5 => f64::midpoint(1.0, weekend),
                    6 => weekend,
                    _ if is_holiday => weekend * (0.85 + 0.3 * site.random.f64()),
                    _ => 1.0,
                };
                let grown = growth.powf(f64::from(day) / 365.0);
                let mean = base * level * grown * (noise * site.normal()).exp();
                let counted = mean + mean.sqrt() * site.normal();
                site.days.push(rounded(counted.max(0.0)));
            }
            site
        }

        fn normal(&mut self) -> f64 {
            (0..12).map(|_| self.random.f64()).sum::<f64>() - 6.0
        }

        fn judge(&self, day: usize, rows: u64) -> Option<(Option<Odd>, u64)> {
            let past: Vec<_> = (1..=DAYS)
                .filter_map(|days_ago| {
                    let rows = *self.days.get(day.checked_sub(usize::from(days_ago))?)?;
                    Some(Past { days_ago, rows })
                })
                .collect();
            judge(rows, &past)
        }
    }

    #[test]
    fn a_clean_year_with_weekends_and_holidays_has_no_false_alarm() {
        for seed in 0..400 {
            let site = Site::new(seed);
            for (day, rows) in site.days.iter().enumerate() {
                let odd = site.judge(day, *rows).and_then(|it| it.0);
                assert_eq!(odd, None, "seed {seed}, day {day}: {:?}", site.judge(day, *rows));
            }
        }
    }

    /// Where half of the eight weekdays were holidays, a spike hides among them.
    #[test]
    fn a_drop_a_spike_doubled_rows_and_an_empty_day_are_odd() {
        const SITES: u64 = 400;
        let mut missed = Vec::new();
        for seed in 0..SITES {
            let site = Site::new(seed);
            // Any weekday, once eight weeks are known.
            let day = 60 + usize::try_from(seed).unwrap() % 300;
            let usual = site.judge(day, 0).unwrap().1;
            let max = site.days[day - usize::from(DAYS)..day].iter().max().unwrap();
            for (rows, odd) in [
                (0, Odd::Low),
                (usual / 10, Odd::Low),
                (usual * 6, Odd::High),
                // Rows of the strongest day that are counted twice.
                (max * 2, Odd::High),
            ] {
                let judged = site.judge(day, rows);
                if judged.unwrap().0 != Some(odd) {
                    missed.push((seed, rows, judged));
                }
            }
        }
        assert!(missed.len() <= 8, "{} of {}: {missed:?}", missed.len(), 4 * SITES);
    }

    #[test]
    fn hours_in_another_zone_are_odd() {
        // Night and noon of a site.
        let past = |rows: u64| {
            let of_day = |days_ago| Past { days_ago, rows: rows + u64::from(days_ago % 5) };
            (1..=DAYS).map(of_day).collect::<Vec<_>>()
        };
        assert_eq!(judge(1_000, &past(100)).unwrap().0, Some(Odd::High));
        assert_eq!(judge(100, &past(1_000)).unwrap().0, Some(Odd::Low));
    }

    #[test]
    fn too_short_a_past_and_few_rows_tell_nothing() {
        let past = |days: u16, rows| (1..=days).map(move |days_ago| Past { days_ago, rows });
        assert_eq!(judge(0, &past(27, 1_000).collect::<Vec<_>>()), None);
        assert_eq!(judge(0, &past(28, 1_000).collect::<Vec<_>>()), Some((Some(Odd::Low), 1_000)));
        assert_eq!(judge(0, &past(56, 3).collect::<Vec<_>>()), Some((None, 3)));
        assert_eq!(judge(12, &past(56, 3).collect::<Vec<_>>()), Some((None, 3)));
        assert_eq!(judge(0, &past(56, 0).collect::<Vec<_>>()), Some((None, 0)));
    }
}
