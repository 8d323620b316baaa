//! The crash matrix: each call that leaves the real `bootstrap`, with each fault before the call
//! has reached its server and after the server has handled it. Afterwards a plain rerun must leave
//! the result of one `GROUP BY` over the source, with nothing half done. A process that sleeps
//! meanwhile must write nothing when it wakes.
//!
//! All communication of a process goes through [`wire`]s, so that no call can be left out.
//! [`names`] gives each call its name.

mod counted;
mod fanned;
mod names;
mod postgres;
mod retention;
mod scene;
mod slices;
mod windows;
mod wire;

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tallymark::model::clock::Stopwatch;
use tokio::runtime::Handle;

use crate::support::share;
use fanned::{Event, Fanned};
use retention::{Act as Retained, Retention};
use scene::{Invoked, Scene, Sleeper};
use slices::{SLICES, Slices, Ways};
use windows::Windows;
use wire::{Fault, Moment, Planned, Point, points};

/// Lambda's limit of an invocation.
const BUDGET: Duration = Duration::from_secs(6);

/// A lease outlives its invocation's budget by this time.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// Processes that sleep concurrently in each scene, each with up to three connections. The server
/// has 400 for all.
const SLEEPERS: usize = 6;

/// Number of cases of a round, each on a slice of its own. The other slices are spare.
const CASES: usize = 66;

/// Number of tries of a case, each with more time, as on a busy machine a budget may end before the
/// fault.
const TRIES: u32 = 4;

/// Unless `TALLYMARK_TESTS=all`, an eighth of the points gets one kill, before or after, and for each scene
/// at most this number of other faults is drawn.
const DRAWN: usize = 3;

/// Number of kills drawn for each act that deletes or seals.
const RETAINED: usize = 4;

/// Number of pairs of faults drawn for each scene.
const PAIRS: usize = 2;

/// One slice's faults: those of its first invocation, and those of a second one, if there is one.
#[derive(Clone, Debug)]
struct Case {
    first: Vec<Planned>,
    second: Vec<Planned>,
}

impl Case {
    fn of(fault: Planned) -> Self {
        Self { first: vec![fault], second: vec![] }
    }

    fn sleeps(&self) -> bool {
        self.first.iter().any(|it| it.fault == Fault::Stop)
    }
}

/// The faults that a call can meet.
fn faults(point: &Point) -> Vec<Planned> {
    let (name, _) = point;
    let (before, after) = (Moment::Before, Moment::After);
    let mut kinds = Vec::new();
    for moment in [before, after] {
        kinds.extend([(moment, Fault::Kill), (moment, Fault::Stop), (moment, Fault::Cut)]);
    }
    let is_postgres = name.starts_with("source") || name.starts_with("target");
    if is_postgres && !name.ends_with("connect") {
        kinds.extend([(before, Fault::Terminate), (after, Fault::Terminate)]);
    }
    if name.starts_with("dynamodb") {
        kinds.extend([(before, Fault::Throttle), (before, Fault::Break)]);
    }
    if !name.starts_with("runtime") {
        kinds.extend([
            (before, Fault::Silence),
            (after, Fault::Silence),
            (before, Fault::Jump(20)),
            (before, Fault::Jump(-20)),
        ]);
    }
    let planned =
        |(moment, fault): (Moment, Fault)| Planned { point: point.clone(), moment, fault };
    kinds.into_iter().map(planned).collect()
}

/// The faults of one scene: all, or a kill at an eighth of the points and a random choice of the others.
fn cases(points: &[Point], is_whole: bool, random: &mut fastrand::Rng) -> Vec<Case> {
    let all: Vec<Planned> = points.iter().flat_map(faults).collect();
    let (mut kills, mut others): (Vec<_>, Vec<_>) =
        all.iter().cloned().partition(|it| it.fault == Fault::Kill);
    if !is_whole {
        // Those before and after one point are neighbours.
        kills = kills.chunks(2).filter_map(|pair| random.choice(pair).cloned()).collect();
        random.shuffle(&mut kills);
        kills.truncate(points.len().div_ceil(8));
        random.shuffle(&mut others);
        others.truncate(DRAWN);
        // In one round, as each round takes as long as the lease and a rerun.
        let mut sleepers = 0;
        others.retain(|it| {
            sleepers += usize::from(it.fault == Fault::Stop);
            it.fault != Fault::Stop || sleepers <= SLEEPERS
        });
    }
    let mut cases: Vec<Case> = kills.into_iter().chain(others).map(Case::of).collect();
    let pairs = if is_whole { 60 * PAIRS } else { PAIRS };
    for pair in (0..pairs).filter(|_| !all.is_empty()) {
        let mut drawn = || loop {
            let one = random.choice(&all).unwrap().clone();
            if one.fault != Fault::Stop {
                return one;
            }
        };
        let (one, other) = (drawn(), drawn());
        // Both in one invocation, where the second occurs only if the process survives the first,
        // or in two invocations.
        cases.push(match pair % 2 {
            0 => Case { first: vec![one, other], second: vec![] },
            _ => Case { first: vec![one], second: vec![other] },
        });
    }
    cases
}

/// As many concurrent cases as there are slices and sleepers, so that no work is left afterwards.
fn rounds(cases: &[Case]) -> Vec<Vec<Case>> {
    let (asleep, awake): (Vec<_>, Vec<_>) = cases.iter().cloned().partition(Case::sleeps);
    let (mut asleep, mut awake) = (asleep.chunks(SLEEPERS), awake.chunks(CASES - SLEEPERS));
    let round = || [awake.next(), asleep.next()].into_iter().flatten().flatten().cloned().collect();
    std::iter::repeat_with(round).take_while(|round: &Vec<_>| !round.is_empty()).collect()
}

/// Every case of one round, each on a slice of its own.
async fn matrix(scene: &impl Scene, cases: &[Case]) {
    let (met, spare, tries) = (AtomicUsize::new(0), AtomicUsize::new(CASES), AtomicU32::new(1));
    let until_met = |slice, plan: &[Planned], play: &dyn Fn(usize, Duration) -> Invoked| {
        let first = (slice, BUDGET);
        let spares = (2..=TRIES).map(|nth| {
            tries.fetch_max(nth, Ordering::Relaxed);
            (spare.fetch_add(1, Ordering::Relaxed), BUDGET * nth)
        });
        let all = std::iter::once(first).chain(spares);
        let mut last = None;
        for (slice, budget) in all {
            let invoked = play(slice, budget);
            if invoked.met > 0 {
                met.fetch_add(invoked.met, Ordering::Relaxed);
                return;
            }
            last = Some(invoked);
        }
        panic!("{}: never met: {plan:?}; the last try: {last:#?}", scene.name());
    };
    let outlive_leases = || thread::sleep(BUDGET * tries.load(Ordering::Relaxed) + LEASE_MARGIN);
    let (asleep, awake): (Vec<_>, Vec<_>) =
        cases.iter().enumerate().partition(|(_, case)| case.sleeps());
    in_lanes(scene.lanes(), &awake, |(slice, case)| {
        until_met(*slice, &case.first, &|slice, budget| scene.invoke(budget, slice, &case.first));
    });
    scene.agrees().await;
    let seconds: Vec<_> = awake.iter().filter(|(_, case)| !case.second.is_empty()).collect();
    if !seconds.is_empty() {
        // The remaining work after the first invocation may lack the call of the second fault.
        outlive_leases();
        in_lanes(scene.lanes(), &seconds, |(slice, case)| {
            met.fetch_add(scene.invoke(BUDGET, *slice, &case.second).met, Ordering::Relaxed);
        });
    }
    if !asleep.is_empty() {
        let sleeping = Mutex::new(Vec::<Sleeper>::new());
        in_lanes(scene.lanes(), &asleep, |(slice, case)| {
            until_met(*slice, &case.first, &|slice, budget| {
                let sleeper = match scene.put_to_sleep(budget, slice, &case.first) {
                    Ok(sleeper) => sleeper,
                    Err(invoked) => return invoked,
                };
                sleeping.lock().unwrap().push(sleeper);
                Invoked { answer: None, met: 1, calls: vec![] }
            });
        });
        outlive_leases();
        scene.agrees().await;
        scene.rerun().await;
        let before = scene.versions().await;
        sleeping.into_inner().unwrap().into_iter().for_each(Sleeper::wake);
        assert_eq!(scene.versions().await, before, "somebody who woke has written");
    }
    scene.rerun().await;
    scene.is_done().await;
    println!("{}: {} faults met", scene.name(), met.into_inner());
}

/// Does `work` for each of `items`, in a few lanes.
fn in_lanes<T: Sync>(lanes: usize, items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

/// The acts of the matrix, and their options.
struct Act<'a> {
    /// The calls that have met their faults, for each store.
    known: &'a Mutex<BTreeSet<(bool, Point)>>,
    runtime: Handle,
    seed: u64,
}

impl Act<'_> {
    /// Records the calls of a scene, and plays a case for each fault of calls that no earlier scene
    /// made.
    fn play<S: Scene>(&self, make: impl AsyncFn() -> S) {
        let watch = Stopwatch::start();
        let is_whole = share::is_whole();
        let mut scene = self.runtime.block_on(make());
        let mut points = points(&scene.record([SLICES - 2, SLICES - 1]));
        // Elsewhere it is chance whether a transaction is open.
        let asks_again = |name: &str| {
            name.contains("oldest transaction") || name.contains("forget who was open")
        };
        points.retain(|(name, _)| scene.is_waiting() || !asks_again(name));
        let is_new =
            |point: &Point| self.known.lock().unwrap().insert((scene.has_store(), point.clone()));
        points.retain(is_new);
        let cases = cases(&points, is_whole, &mut fastrand::Rng::with_seed(self.seed));
        for (nth, round) in rounds(&cases).iter().enumerate() {
            if nth > 0 {
                scene = self.runtime.block_on(make());
                scene.record([SLICES - 2, SLICES - 1]);
            }
            self.runtime.block_on(matrix(&scene, round));
        }
        let (name, count, elapsed) = (scene.name(), points.len(), watch.elapsed().as_secs());
        println!("{name}: {count} points, {} cases, {elapsed} s", cases.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_meets_a_fault_a_rerun_makes_all_good() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let known = Mutex::default();
    let act = Act { known: &known, runtime: Handle::current(), seed };
    let act = &act;
    let waiting = Ways { has_store: true, is_waiting: true, ..Ways::default() };
    let slices = [
        ("whole", Ways::default()),
        ("copied", Ways { has_target: true, ..Ways::default() }),
        ("chunks", Ways { is_slow: true, ..Ways::default() }),
        ("copied chunks", Ways { has_target: true, is_slow: true, ..Ways::default() }),
        ("waiting", Ways { is_waiting: true, ..Ways::default() }),
        ("replay", Ways { is_replay: true, ..Ways::default() }),
        ("failing", Ways { is_failing: true, ..Ways::default() }),
        ("in the target", Ways { has_store: true, ..Ways::default() }),
        ("copied into it", Ways { has_store: true, has_target: true, ..Ways::default() }),
        ("replayed in it", Ways { is_replay: true, ..waiting }),
        ("copied, waiting", Ways { has_target: true, ..waiting }),
    ];
    thread::scope(|scope| {
        for (name, ways) in slices {
            scope.spawn(move || act.play(|| Slices::new(name, ways)));
        }
        for event in [Event::Tick, Event::Backfill, Event::Sweep] {
            scope.spawn(move || act.play(|| Fanned::new(event, false)));
        }
        scope.spawn(move || act.play(|| Fanned::new(Event::Tick, true)));
    });
    let known = known.into_inner().unwrap();
    let with_faults: BTreeSet<_> = known.into_iter().map(|(_, (name, _))| name).collect();
    let seen = wire::SEEN.lock().unwrap();
    let without = seen.difference(&with_faults).filter(|it| *it != "runtime: next");
    let without: Vec<_> = without.collect();
    assert!(without.is_empty(), "calls that met no fault: {without:#?}");
    assert_eq!(
        names::in_words(&with_faults),
        documented(),
        "docs/RELIABILITY.md lists other calls"
    );
}

/// `kill -9` of a worker that has replaced the rows of an hour and is about to reopen the windows
/// that hold it, or has reopened some of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_between_the_rows_and_their_windows_leaves_none_behind() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let mut random = fastrand::Rng::with_seed(seed.unwrap_or_else(|| fastrand::u64(..)));
    println!("SEED={}", random.get_seed());
    let drawn = random.bool();
    for has_store in [false, true].into_iter().filter(|it| share::is_whole() || *it == drawn) {
        let scene = Windows::new(has_store).await;
        let mut kills = scene.kills(&scene.record(windows::RECORDED));
        let kinds = kills.len();
        random.shuffle(&mut kills);
        kills.truncate(if share::is_whole() { windows::KILLS_MAX } else { DRAWN });
        println!("{}: {} of {kinds} kills", scene.name(), kills.len());
        matrix(&scene, &kills).await;
    }
}

/// `kill -9` of a tick that deletes old slices in several pieces, of a command that seals history, and
/// of one that removes the seal. The same once more ends right.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_while_it_deletes_or_seals_leaves_what_a_rerun_completes() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let mut random = fastrand::Rng::with_seed(seed.unwrap_or_else(|| fastrand::u64(..)));
    println!("SEED={}", random.get_seed());
    for act in [Retained::Keep, Retained::Seal, Retained::Unseal] {
        let drawn = random.bool();
        for has_store in [false, true].into_iter().filter(|it| share::is_whole() || *it == drawn) {
            let scene = Retention::new(act, has_store).await;
            let mut kills = scene.kills(&scene.record([SLICES - 2, SLICES - 1]));
            let kinds = kills.len();
            random.shuffle(&mut kills);
            kills.truncate(if share::is_whole() { CASES - SLEEPERS } else { RETAINED });
            println!("{}, {has_store}: {} of {kinds} kills", scene.name(), kills.len());
            matrix(&scene, &kills).await;
        }
    }
}

/// A kill before and after each call from this place on.
fn kills_from(calls: &[String], first: usize) -> Vec<Case> {
    let mut counts = HashMap::<&String, usize>::new();
    let mut kills = Vec::new();
    for (place, call) in calls.iter().enumerate() {
        let nth = counts.entry(call).or_default();
        let point = (call.clone(), *nth);
        *nth += 1;
        if place >= first && !call.starts_with("runtime") {
            kills.extend([Moment::Before, Moment::After].map(|moment| {
                Case::of(Planned { point: point.clone(), moment, fault: Fault::Kill })
            }));
        }
    }
    kills
}

/// The calls that the documentation lists.
fn documented() -> BTreeSet<String> {
    let text = include_str!("../../../docs/RELIABILITY.md");
    let section = text.split("\n### Calls\n").nth(1).unwrap().split("\n#").next().unwrap();
    let names = section.split('`').skip(1).step_by(2);
    names.map(|name| name.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}
