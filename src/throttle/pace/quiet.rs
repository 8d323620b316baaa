//! How a server looks without load: the baseline that looks are compared with.
//!
//! A baseline that was learned under load would call that load normal. So only the low values of
//! many looks are believed, and they are believed up to a limit. The store keeps them for processes
//! that see too little of their own, such as an invocation that reads one slice.

use std::collections::VecDeque;

use super::Seen;

/// Looks of this process that are remembered.
const LOOKS_MAX: usize = 64;

/// Looks that it takes before this process believes itself.
const LOOKS_MIN: usize = 8;

/// A nap of a millisecond lasts little more on a server that has a free processor.
const NAP_MS_MAX: f64 = 1.5;

/// The probe takes this long at most on a slow server without load.
const PROBE_MS_MAX: f64 = 20.0;

/// An answer may take this many times as long as the shortest, as the way of it varies.
const ANSWER_SHARE_MAX: f64 = 1.1;

/// And this many milliseconds longer. Where a processor is shared, the probe alone takes as much
/// longer.
const ANSWER_MS_LATE: f64 = 5.0;

/// A stored baseline rises by this factor at most each time it is written again, so that hours of
/// load hardly raise it.
const RISE_MAX: f64 = 1.02;

/// The lengths of naps, probes and answers of a quiet server, in milliseconds. `None`: unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Quiet {
    pub(crate) nap_ms: Option<f64>,
    pub(crate) probe_ms: Option<f64>,
    /// Of this process alone, as it depends on the way from here to there.
    pub(crate) answer_ms: Option<f64>,
}

impl Quiet {
    /// The longest nap of a calm server.
    #[must_use]
    pub(super) fn nap_limit(&self) -> Option<f64> {
        self.nap_ms.map(|quiet| quiet.min(NAP_MS_MAX).mul_add(1.5, 0.3))
    }

    /// The longest probe of a calm server. Beside one other process on each processor, a probe
    /// takes 1.8 times as long as on a quiet server.
    #[must_use]
    pub(super) fn probe_limit(&self) -> Option<f64> {
        self.probe_ms.map(|quiet| quiet.min(PROBE_MS_MAX).mul_add(1.5, 0.3))
    }

    /// The longest wait of a process for the answer of a calm server.
    #[must_use]
    pub(super) fn answer_limit(&self) -> Option<f64> {
        self.answer_ms.map(|quiet| quiet.mul_add(ANSWER_SHARE_MAX, ANSWER_MS_LATE))
    }

    /// The lower of both, value by value.
    #[must_use]
    pub(crate) fn or_lower(self, other: Self) -> Self {
        let lower = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self {
            nap_ms: lower(self.nap_ms, other.nap_ms),
            probe_ms: lower(self.probe_ms, other.probe_ms),
            answer_ms: lower(self.answer_ms, other.answer_ms),
        }
    }

    /// The baseline to store after this process has `learned`, where `self` is stored.
    #[must_use]
    pub(crate) fn renewed(self, learned: Self) -> Self {
        let raised = |value: Option<f64>| value.map(|value| value * RISE_MAX);
        let (nap_ms, probe_ms) = (raised(self.nap_ms), raised(self.probe_ms));
        let risen = Self { nap_ms, probe_ms, answer_ms: None };
        learned.or_lower(risen)
    }
}

/// The recent looks of this process.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    naps: VecDeque<f64>,
    probes: VecDeque<f64>,
    answers: VecDeque<f64>,
}

impl Recent {
    pub(super) fn add(&mut self, seen: &Seen) {
        let values = [
            (&mut self.naps, seen.nap_ms),
            (&mut self.probes, seen.probe_ms),
            (&mut self.answers, seen.answer_ms),
        ];
        for (values, value) in values {
            // A clock that was set back shows no length.
            values.extend(value.filter(|ms| ms.is_finite() && *ms > 0.0));
            if values.len() > LOOKS_MAX {
                values.pop_front();
            }
        }
    }

    /// The low values, if there are enough.
    pub(super) fn quiet(&self) -> Quiet {
        // The way of an answer only adds to it, and its length is by a clock that runs steadily.
        let shortest = |values: &VecDeque<f64>| ordered(values)?.first().copied();
        Quiet {
            nap_ms: low(&self.naps),
            probe_ms: low(&self.probes),
            answer_ms: shortest(&self.answers),
        }
    }
}

/// The tenth part of `values` is lower than this.
fn low(values: &VecDeque<f64>) -> Option<f64> {
    let ordered = ordered(values)?;
    ordered.get(ordered.len() / 10).copied()
}

/// The values from the lowest on, if there are enough.
fn ordered(values: &VecDeque<f64>) -> Option<Vec<f64>> {
    let mut ordered: Vec<f64> = values.iter().copied().collect();
    ordered.sort_by(f64::total_cmp);
    (ordered.len() >= LOOKS_MIN).then_some(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(looks: impl IntoIterator<Item = f64>) -> Quiet {
        let mut recent = Recent::default();
        let seen = |ms| Seen {
            nap_ms: Some(ms),
            probe_ms: Some(ms),
            answer_ms: Some(ms),
            ..Seen::default()
        };
        looks.into_iter().for_each(|ms| recent.add(&seen(ms)));
        recent.quiet()
    }

    #[test]
    fn few_looks_tell_nothing_and_the_low_ones_of_many_are_believed() {
        assert_eq!(learned([1.1; LOOKS_MIN - 1]), Quiet::default());
        // Four of five looks under load.
        let mixed = (0..60).map(|look| if look % 5 == 0 { 1.1 } else { 7.0 });
        assert_eq!(learned(mixed).nap_ms, Some(1.1));
        let answers = learned((0..64).map(|look| 9.0 + f64::from(look % 7)));
        assert_eq!(answers.answer_ms, Some(9.0));
        assert!((14.8..15.0).contains(&answers.answer_limit().unwrap()));
        assert_eq!(learned([f64::NAN, -1.0, f64::INFINITY].repeat(9)), Quiet::default());
    }

    #[test]
    fn a_baseline_learned_under_load_makes_no_load_normal() {
        let loaded = learned([8.0; 40]);
        assert!(loaded.nap_limit().unwrap() < 3.0, "{loaded:?}");
        // A day of load, written once a minute, and an hour of quiet.
        let quiet = Quiet { nap_ms: Some(1.1), probe_ms: Some(2.0), answer_ms: None };
        let hour = (0..12).fold(quiet, |stored, _| stored.renewed(loaded));
        assert!(hour.nap_ms.unwrap() < 1.5, "{hour:?}");
        assert_eq!(hour.renewed(quiet), quiet);
    }

    #[test]
    fn the_lower_of_two_baselines_holds() {
        let some = |nap: f64| Quiet { nap_ms: Some(nap), ..Quiet::default() };
        assert_eq!(some(1.0).or_lower(some(2.0)), some(1.0));
        assert_eq!(Quiet::default().or_lower(some(2.0)), some(2.0));
        assert_eq!(Quiet::default().probe_limit(), None);
    }
}
