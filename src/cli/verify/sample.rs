//! The random choice of slices.

use sha2::{Digest as _, Sha256};

use super::Chosen;

/// Keeps `count` of the slices, the same ones for the same seed. Each slice added or removed since
/// changes at most one of the others.
pub(super) fn choose(slices: &mut Chosen<'_>, count: u32, seed: u32) {
    let mut ranked: Vec<_> = slices
        .drain(..)
        .enumerate()
        .map(|(place, (rollup, slice))| {
            let rank = Sha256::digest(format!("{seed} {}", slice.id(&rollup.name)).as_bytes());
            (rank, place, (rollup, slice))
        })
        .collect();
    ranked.sort_by_key(|(rank, place, _)| (*rank, *place));
    ranked.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    ranked.sort_by_key(|(_, place, _)| *place);
    slices.extend(ranked.into_iter().map(|(_, _, slice)| slice));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::rollup::Rollup;
    use crate::model::slice::Slice;

    fn rollup() -> Rollup {
        let text = "[source]\nurl = \"postgres://app@localhost/shop\"\n[[rollup]]\nname = \"daily\"\n\
                    from = \"events\"\ntime = \"at\"\nstart = \"2026-01-01\"\nslice = \"1 day\"\n\
                    measures = { events = \"count\" }\n";
        let path = std::path::Path::new("tallymark.toml");
        let config = crate::config::Config::parse(path, text, &|_| None).unwrap();
        config.rollups[0].clone()
    }

    fn chosen(rollup: &Rollup, days: i64, count: u32, seed: u32) -> Vec<Slice> {
        let end = rollup.start + chrono::TimeDelta::days(days);
        let mut slices: Chosen<'_> =
            rollup.calendar.slices(rollup.start, end).map(|slice| (rollup, slice)).collect();
        choose(&mut slices, count, seed);
        slices.into_iter().map(|(_, slice)| slice).collect()
    }

    #[test]
    fn a_seed_chooses_the_same_slices_and_another_one_others() {
        let rollup = rollup();
        let first = chosen(&rollup, 100, 10, 7);
        assert_eq!(first.len(), 10);
        assert!(first.is_sorted());
        assert_eq!(first, chosen(&rollup, 100, 10, 7));
        assert_ne!(first, chosen(&rollup, 100, 10, 8));
        assert_eq!(chosen(&rollup, 5, 10, 7).len(), 5);
    }

    #[test]
    fn one_slice_more_changes_at_most_one_of_a_sample() {
        let rollup = rollup();
        for seed in 0..50 {
            let (one, other) = (chosen(&rollup, 100, 10, seed), chosen(&rollup, 101, 10, seed));
            assert!(one.iter().filter(|slice| !other.contains(slice)).count() <= 1, "{seed}");
        }
    }

    #[test]
    fn every_slice_is_chosen_about_as_often() {
        let rollup = rollup();
        let mut counts = BTreeMap::<Slice, u32>::new();
        for slice in (0..1000).flat_map(|seed| chosen(&rollup, 20, 5, seed)) {
            *counts.entry(slice).or_default() += 1;
        }
        assert_eq!(counts.len(), 20);
        assert!(counts.values().all(|count| (190..=310).contains(count)), "{counts:?}");
    }
}
