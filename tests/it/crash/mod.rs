//! The crash matrix: each call that leaves the real `bootstrap`, each fault before the call has reached its server and
//! after the server has done it. Afterwards a plain rerun must leave what one `GROUP BY` over the source gives, and
//! nothing half done; whoever sleeps meanwhile must write nothing when it wakes.
//!
//! All that a process says goes over [`wire`]s, so that no call can be left out, and each has its name from [`names`].

mod names;
mod postgres;
mod scene;
mod wire;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tallymark::clock::Stopwatch;

use scene::{Invoked, Scene, Sleeper};
use wire::{Fault, Moment, Planned, Point, points};

/// Processes at once; half of the time they wait for servers.
const LANES: usize = 4;

/// Processes that sleep at once, each with up to three connections.
const SLEEPERS: usize = 32;

/// Unless `TALLYMARK_CRASH=all`: each point is killed at, before and after, and so many of the other faults are drawn.
const DRAWN: usize = 110;

/// Pairs of faults that are drawn.
const PAIRS: usize = 30;

/// One slice's faults: those of its first invocation, and those of a second one, if there is any.
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

/// The faults of one scene: all, or every kill and the others that were drawn.
fn cases(points: &[Point], is_whole: bool, random: &mut fastrand::Rng) -> Vec<Case> {
    let all: Vec<Planned> = points.iter().flat_map(faults).collect();
    let (kills, mut others): (Vec<_>, Vec<_>) =
        all.iter().cloned().partition(|it| it.fault == Fault::Kill);
    if !is_whole {
        random.shuffle(&mut others);
        others.truncate(DRAWN / 4);
    }
    let mut cases: Vec<Case> = kills.into_iter().chain(others).map(Case::of).collect();
    for pair in 0..if is_whole { 4 * PAIRS } else { PAIRS / 4 } {
        let mut drawn = || loop {
            let one = random.choice(&all).unwrap().clone();
            if one.fault != Fault::Stop {
                return one;
            }
        };
        let (one, other) = (drawn(), drawn());
        // In one invocation, where the second is met only if the first left the process alive; or in two.
        cases.push(match pair % 2 {
            0 => Case { first: vec![one, other], second: vec![] },
            _ => Case { first: vec![one], second: vec![other] },
        });
    }
    cases
}

/// Every case of one scene, each on a slice of its own.
async fn matrix(scene: &Scene, cases: &[Case]) {
    let met = AtomicUsize::new(0);
    let sleeping = Mutex::new(Vec::<Sleeper>::new());
    let awake: Vec<_> = cases.iter().enumerate().filter(|(_, case)| !case.sleeps()).collect();
    let asleep: Vec<_> = cases.iter().enumerate().filter(|(_, case)| case.sleeps()).collect();
    in_lanes(&awake, |(nth, case)| {
        let Invoked { met: faults, answer, calls } = scene.invoke(*nth, &case.first);
        assert!(faults > 0, "case {nth} met no fault: {case:?} {answer:?} {calls:#?}");
        met.fetch_add(faults, Ordering::Relaxed);
    });
    let seconds: Vec<_> = awake.iter().filter(|(_, case)| !case.second.is_empty()).collect();
    if !seconds.is_empty() {
        // The first invocation's lease may be held: then the second one meets nothing.
        thread::sleep(scene::LEASE);
        in_lanes(&seconds, |(nth, case)| {
            met.fetch_add(scene.invoke(*nth, &case.second).met, Ordering::Relaxed);
        });
    }
    for some in asleep.chunks(SLEEPERS) {
        in_lanes(some, |(nth, case)| {
            sleeping.lock().unwrap().push(scene.put_to_sleep(*nth, &case.first));
        });
        thread::sleep(scene::LEASE);
        scene.rerun().await;
        let before = scene.versions().await;
        for sleeper in std::mem::take(&mut *sleeping.lock().unwrap()) {
            sleeper.wake();
        }
        assert_eq!(scene.versions().await, before, "somebody who woke has written");
        met.fetch_add(some.len(), Ordering::Relaxed);
    }
    scene.rerun().await;
    scene.is_done().await;
    println!("{}: {} cases, {} faults met", scene.name, cases.len(), met.into_inner());
}

/// Does `work` for each of `items`, a few at once.
fn in_lanes<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_meets_a_fault_a_rerun_makes_all_good() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let is_whole = std::env::var("TALLYMARK_CRASH").is_ok_and(|it| it == "all");
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut known = BTreeSet::new();
    for scene in
        [Scene::new("chunks", false, true).await, Scene::new("copied chunks", true, true).await]
    {
        let watch = Stopwatch::start();
        let mut points = points(&scene.record());
        if !is_whole {
            // What a scene before this one has seen needs no second look.
            points.retain(|point| !known.contains(point));
        }
        known.extend(points.iter().cloned());
        let cases = cases(&points, is_whole, &mut random);
        matrix(&scene, &cases).await;
        println!("{}: {} points, {:?}", scene.name, points.len(), watch.elapsed());
    }
}
