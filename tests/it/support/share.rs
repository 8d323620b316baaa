//! The share of a large matrix that one run plays. Each run draws its own, so that all of it is
//! played over a few runs. `TALLYMARK_TESTS=all` plays everything in one.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::OnceLock;

/// Whether this run plays everything.
pub fn is_whole() -> bool {
    std::env::var("TALLYMARK_TESTS").is_ok_and(|it| it == "all")
}

/// The seed of this run's share: `SEED`, or a random one.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let asked = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        asked.unwrap_or_else(|| std::hash::RandomState::new().build_hasher().finish() >> 32)
    })
}

/// The cells of a matrix in the order in which this seed draws them.
fn drawn(seed: u64, of: usize) -> Vec<usize> {
    let mut cells: Vec<usize> = (0..of).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut cells);
    cells
}

/// Whether this run plays `cell` of the `of` cells of a matrix, of which it plays `played`.
pub fn is_drawn(matrix: &str, cell: usize, of: usize, played: usize) -> bool {
    let seed = seed();
    let is_drawn = is_whole() || drawn(seed, of)[..played].contains(&cell);
    let word = if is_drawn { "plays" } else { "leaves" };
    println!("SEED={seed}: this run {word} cell {cell} of {of} of {matrix}");
    is_drawn
}

/// The cells of a matrix in the order in which this run tries them, until it has played its share.
pub fn order(matrix: &str, of: usize) -> Vec<usize> {
    let seed = seed();
    println!("SEED={seed}: the order of the {of} cells of {matrix}");
    drawn(seed, of)
}

/// Scenarios that compute months or years. A run plays some of them.
#[derive(Clone, Copy)]
pub enum Long {
    Soak,
    Flights,
    Partitions,
    Calendars,
    Redefined,
    Clocks,
}

/// Number of long scenarios.
const LONG: usize = 6;

/// Number of them that a run plays.
const LONG_PLAYED: usize = 2;

/// Whether this run plays the scenario.
pub fn plays(scenario: Long) -> bool {
    is_drawn("the long scenarios", scenario as usize, LONG, LONG_PLAYED)
}

#[test]
fn a_run_plays_its_share_and_over_some_runs_everything() {
    let mut seen: Vec<usize> = (0..40).flat_map(|seed| drawn(seed, 9)[..3].to_vec()).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (0..9).collect::<Vec<_>>());
    let played = (0..9).filter(|cell| is_drawn("this test", *cell, 9, 3)).count();
    assert_eq!(played, if is_whole() { 9 } else { 3 });
}
