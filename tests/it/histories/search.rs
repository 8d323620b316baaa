//! Runs histories until one ends wrong.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use tallymark::model::clock::Stopwatch;
use tokio::runtime::Builder;

use super::driver::World;
use crate::support::world::{DEFAULTS, Keeper};

/// The stores of the checkpoints. Histories on each run concurrently, with databases of their own. A
/// random seed belongs to one of them, and known ones are tried on both.
const KEEPERS: [Keeper; 2] = [Keeper::DynamoDb, Keeper::TargetsClock];

/// The possible actions of an application.
#[derive(Clone, Copy, Debug)]
pub struct Ways {
    /// Rows carry any time. Otherwise they carry the start of their transaction.
    pub any_time: bool,
    /// Rows are changed.
    pub updates: bool,
    /// ... and moved to another time, deleted.
    pub moves: bool,
    /// ... truncated.
    pub truncates: bool,
}

impl Ways {
    pub const ANY: Self = Self { any_time: true, updates: true, moves: true, truncates: true };
    /// A session that has truncated lets no other read what is committed.
    pub const READABLE: Self = Self { truncates: false, ..Self::ANY };
    pub const STAMPED: Self =
        Self { any_time: false, updates: false, moves: false, truncates: false };
    pub const CHANGED: Self = Self { any_time: true, updates: true, ..Self::STAMPED };
}

/// How often known histories are tried before random ones, as those with kills differ slightly each
/// time.
const KNOWN_MAX: usize = 20;

/// One history in this number runs at default settings: one slot, naps, rests.
const DEFAULTS_SHARE: u64 = 4;

/// The keepers of checkpoints, by which seeds are told apart.
const OF_KEEPERS: u64 = KEEPERS.len() as u64;

/// The kind of histories.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// How late rows are noticed.
    pub late: &'static str,
    /// The application's actions.
    pub ways: Ways,
    /// Whether two coarser rollups are computed from the hourly one.
    pub is_composed: bool,
    /// Whether the rows' kind is named by another table, which changes too.
    pub looks_up: bool,
    /// Whether an operator seals history and purges the source, and rollups have `keep`.
    pub purges: bool,
    /// Whether the definition changes and databases are restored in some histories.
    pub changes: bool,
    /// Whether a reader may rely on what it is told.
    pub is_promised: bool,
    /// Seeds of histories that end wrong without some guard. They come first.
    pub known: &'static [u64],
}

impl Kind {
    pub const fn new(late: &'static str, ways: Ways) -> Self {
        let (is_composed, looks_up, purges, changes) = (false, false, false, false);
        Self { late, ways, is_composed, looks_up, purges, changes, is_promised: true, known: &[] }
    }

    /// The rows that count in the hours.
    pub const fn events(self) -> &'static str {
        if self.purges { "truth.behind_hourly" } else { "public.events" }
    }

    pub const fn knowing(self, known: &'static [u64]) -> Self {
        Self { known, ..self }
    }

    /// The reader of the histories compares the rows' own kind.
    pub const fn looking_up(self) -> Self {
        Self { looks_up: true, is_promised: false, ..self }
    }

    pub const fn missing(self) -> Self {
        Self { is_promised: false, ..self }
    }

    pub const fn purging(self) -> Self {
        Self { purges: true, ..self }
    }

    /// Seeds that are known have no changes.
    pub const fn changing(self) -> Self {
        Self { changes: true, ..self }
    }

    pub const fn composed(self) -> Self {
        Self { is_composed: true, ..self }
    }
}

/// One history that ended wrong: its seed, its steps, and the rows that differ.
pub type Counterexample = (u64, Vec<String>);

/// Runs up to `count` histories and returns the first that ends wrong.
pub fn search<S>(kind: Kind, count: u32, spoil: S) -> Option<Counterexample>
where
    S: AsyncFn(&World) + Sync,
{
    let asked: Option<u64> = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let known = if asked.is_some() { &[] } else { kind.known };
    let seed = asked.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("SEED={seed} {kind:?}");
    let watch = Stopwatch::start();
    let (next, is_found) = (AtomicU32::new(0), AtomicBool::new(false));
    let lane = async |keeper: Keeper| {
        let mut drawn = fastrand::Rng::with_seed(seed ^ keeper as u64);
        let mut worlds = [
            World::new(kind, keeper, "", &mut drawn).await,
            World::new(kind, keeper, DEFAULTS, &mut drawn).await,
        ];
        let mut known = known.iter().cycle().take(KNOWN_MAX);
        let own = |seed: &u64| KEEPERS[(seed % OF_KEEPERS) as usize] == keeper;
        let mut random = (seed..).filter(own);
        for world in &worlds {
            spoil(world).await;
        }
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= count || is_found.load(Ordering::Relaxed) {
                return None;
            }
            if place.is_multiple_of(100) {
                println!("{place} histories in {:?}", watch.elapsed());
            }
            let seed = known.next().copied().or_else(|| random.next()).unwrap();
            // A share of them at default settings.
            let is_at_defaults = (seed / OF_KEEPERS).is_multiple_of(DEFAULTS_SHARE);
            let world = &mut worlds[usize::from(is_at_defaults)];
            if let Some(found) = world.history(seed).await {
                is_found.store(true, Ordering::Relaxed);
                println!("history {place}, {keeper:?}, SEED={seed}:\n  {}", found.join("\n  "));
                return Some((seed, found));
            }
        }
    };
    // One thread that waits only for servers, as waking another thread costs more than its work.
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let run = |keeper| runtime().block_on(lane(keeper));
    thread::scope(|scope| {
        let lanes = KEEPERS.map(|keeper| scope.spawn(move || run(keeper)));
        lanes.into_iter().filter_map(|lane| lane.join().unwrap()).next()
    })
}
