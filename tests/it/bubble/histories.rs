//! Random histories of a mirror: things that come, change and go between any two requests, faults,
//! small budgets, and two workers at once.
//!
//! A slice that is accepted has exactly the things of the instant of one answer in its last turn. Once the app
//! is quiet and its changes and counts were looked at, mirror and rollup are equal to the app.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use tallymark::check::verify::{self, Compared};
use tallymark::model::clock::Deadline;
use tallymark::work::late;
use tallymark::work::report::Outcome;
use tallymark::work::worker::WorkError;

use super::fake::datum::text;
use super::fake::{App, Fault, Moment, New, Thing};
use super::mirror::{DAY, NOW, Shop, TABLES, all, order, run, try_run};
use crate::support::share;
use crate::support::world::{BUDGET, instant};

/// Histories of one run, and of a run of everything.
const HISTORIES: [u64; 2] = [12, 300];

/// Turns after which a slice must have succeeded: each yields for a reason that passes.
const TURNS_MAX: u32 = 40;

const STATES: [&str; 3] = ["new", "paid", "sent"];

/// Orders of the day: spread, in ties, and more at one time than a page holds.
fn created(rng: &mut Rng) -> Vec<New> {
    let mut all = Vec::new();
    for _ in 0..rng.u32(1..5) {
        let (second, count) = (rng.i64(0..86_400), rng.usize(1..40));
        match rng.u32(0..4) {
            0 => all.extend(std::iter::repeat_n(order(second), count)),
            1 => all.extend(std::iter::repeat_n(order(second), 90 + 3 * count)),
            _ => all.extend((0..3 * count).map(|_| order(rng.i64(0..86_400)))),
        }
    }
    all.into_iter().map(|it| it.with("Status", text(rng.choice(STATES).unwrap()))).collect()
}

/// The orders of the day, by id.
fn of_the_day(app: &mut App) -> Vec<Thing> {
    let start = instant(DAY).timestamp_millis();
    let day = start..start + 86_400_000;
    all(app).into_iter().filter(|it| day.contains(&it.created)).collect()
}

/// Deletes, edits or creates an order, or deletes one and creates another.
fn change(app: &mut App, rng: &mut Rng, now: chrono::DateTime<chrono::Utc>) {
    let kind = rng.u32(0..4);
    let known = of_the_day(app);
    if let Some(one) = rng.choice(&known) {
        let state = text(rng.choice(STATES).unwrap());
        match kind {
            0 | 1 => app.live().delete("order", &one.id),
            2 => app.live().edit("order", &one.id, now, &[("Status", Some(state))]),
            _ => {}
        }
    }
    if kind != 0 && kind != 2 {
        // What is created now belongs to a later slice.
        app.live().create("order", &New::at(now));
    }
}

async fn play(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let tables = TABLES.replace("grace =", "modified = true\ngrace =");
    let shop = Shop::open_with(&created(&mut rng), &tables).await;
    let answered = Arc::<Mutex<Vec<Vec<String>>>>::default();
    let is_quiet = Arc::new(AtomicBool::new(false));
    let (seen, quiet, mut chance) = (Arc::clone(&answered), Arc::clone(&is_quiet), rng.fork());
    let clock = shop.clock.clone();
    shop.fake.script(move |request, moment, app| {
        let now = tallymark::model::clock::Clock::now(&clock);
        if moment == Moment::After && request.path.contains("/obj/") {
            let things = of_the_day(app).iter().map(|it| format!("({})", it.id)).collect();
            seen.lock().unwrap().push(things);
        }
        if quiet.load(Ordering::Relaxed) {
            return None;
        }
        if chance.f32() < 0.06 {
            change(app, &mut chance, now);
        }
        let faults = [Fault::TooMany(Some(0)), Fault::Status(503), Fault::Html, Fault::Cut];
        let is_faulty = moment == Moment::Before && chance.f32() < 0.04;
        is_faulty.then(|| chance.choice(faults).unwrap())
    });
    let mut budget = rng.u32(3..30);
    let mut outcome = Outcome::Yielded;
    for _ in 0..TURNS_MAX {
        answered.lock().unwrap().clear();
        let workers = [shop.with(budget, &tables), shop.with(budget, &tables)];
        let [one, other] = [0, 1].map(|place: usize| try_run(&workers[place], shop.mirror(), DAY));
        let (one, other) = tokio::join!(one, other);
        for worker in &workers {
            worker.close().await;
        }
        let ended = [one, other].into_iter().filter_map(|ended| match ended {
            Ok(report) => Some(report),
            // The budget was spent before the worker looked at the slice.
            Err(WorkError::NotNow(_)) => None,
            Err(error) => panic!("SEED={seed}: {error:?}"),
        });
        let last = ended.max_by_key(|it| (it.outcome == Outcome::Succeeded, it.attempt));
        outcome = last.as_ref().map_or(Outcome::Yielded, |it| it.outcome);
        if outcome == Outcome::Succeeded {
            break;
        }
        assert_eq!(outcome, Outcome::Yielded, "SEED={seed}: {last:?}");
        budget += rng.u32(2..20);
        shop.clock.advance(Duration::from_secs(60 * 61));
    }
    assert_eq!(outcome, Outcome::Succeeded, "SEED={seed}");
    let kept = "SELECT _id FROM stats.orders WHERE created_at < '2026-02-28Z'";
    let kept = shop.rows(kept).await;
    assert!(answered.lock().unwrap().contains(&kept), "SEED={seed}: {kept:?}");
    is_quiet.store(true, Ordering::Relaxed);
    settle(&shop, seed).await;
    let mut expected = BTreeMap::<String, u32>::new();
    let things = of_the_day(&mut shop.fake.app());
    for thing in &things {
        let Some(super::fake::datum::Datum::Text(state)) = thing.value(0) else {
            panic!("no state")
        };
        *expected.entry(state.to_string()).or_default() += 1;
    }
    let expected: Vec<_> =
        expected.iter().map(|(state, count)| format!("({state},{count})")).collect();
    let counted = "SELECT \"Status\", orders FROM stats.orders_daily WHERE bucket < '2026-02-28Z'";
    assert_eq!(shop.rows(counted).await, expected, "SEED={seed}");
    // The server has few connections for all histories.
    shop.worker.close().await;
}

/// Looks for changes and deletes until there are none, and follows them.
async fn settle(shop: &Shop, seed: u64) {
    let slice = shop.mirror().calendar.starting(instant(DAY)).unwrap();
    for _ in 0..TURNS_MAX {
        shop.clock.advance(Duration::from_secs(3 * 60 * 60));
        let deadline = Deadline::after(&*shop.worker.clock, BUDGET);
        let problems = late::notice(&shop.worker, deadline).await;
        assert!(problems.is_empty(), "SEED={seed}: {problems:?}");
        let compared =
            verify::compare(&shop.worker, shop.mirror(), slice, BUDGET, 1).await.unwrap();
        let now = instant(NOW);
        if matches!(compared, Compared::Drift(..)) {
            shop.checkpoints.reopen("orders", instant(DAY), "scrub", now).await.unwrap();
        }
        let mirror = run(&shop.worker, shop.mirror(), DAY).await;
        let rollup = run(&shop.worker, &shop.worker.config.rollups[1], DAY).await;
        let is_still = |outcome| outcome == Outcome::AlreadySucceeded;
        if compared == Compared::Same && is_still(mirror.outcome) && is_still(rollup.outcome) {
            return;
        }
    }
    panic!("SEED={seed}: it never comes to rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_in_the_app_an_accepted_slice_has_the_things_of_one_instant() {
    let asked = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    if let Some(seed) = asked {
        return play(seed).await;
    }
    let first: u64 = fastrand::u64(..1 << 32);
    for seed in first..first + HISTORIES[usize::from(share::is_whole())] {
        println!("SEED={seed}");
        play(seed).await;
    }
}
