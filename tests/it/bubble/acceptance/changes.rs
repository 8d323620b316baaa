//! The app changes while a mirror is read.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use fastrand::Rng;

use super::super::fake::Moment;
use super::*;
use crate::support::cli::{end_of, signal};

/// The ids of each day, at one instant.
type Ids = BTreeMap<String, BTreeSet<String>>;

fn ids(app: &mut App) -> Ids {
    let mut ids = Ids::new();
    for thing in app.live().things("order") {
        let date = timestamp(thing.created)[..10].to_owned();
        ids.entry(date).or_default().insert(thing.id.to_string());
    }
    ids
}

/// Does something to the app, after which G still holds: new things are of today.
fn change(app: &mut App, rng: &mut Rng) {
    let past: Vec<String> = {
        let today = midnight(day(0)).timestamp_millis();
        let past = app.live().things("order").filter(|thing| thing.created < today);
        past.map(|thing| thing.id.to_string()).collect()
    };
    let id = &past[rng.usize(..past.len())];
    let now = midnight(day(0)) + TimeDelta::milliseconds(rng.i64(0..1_000_000));
    match rng.u8(..6) {
        0 => app.live().delete("order", id),
        1 => {
            app.live().delete("order", id);
            app.live().create("order", &New::at(now));
        }
        2 => drop(app.live().bulk_create("order", 5, &New::at(now))),
        _ => {
            let amount = Datum::Number(rng.u8(..).into());
            app.live().edit("order", id, now, &[("Amount", Some(amount)), ("Status", None)]);
        }
    }
}

/// The ids at each instant, and a flag that ends the changes.
pub(super) struct Restless {
    instants: Arc<Mutex<Vec<Ids>>>,
    pub is_over: Arc<AtomicBool>,
}

impl Restless {
    /// Changes the app before one of `odds` requests.
    pub fn new(mirrored: &Mirrored, seed: u64, odds: u8) -> Self {
        let instants = Arc::new(Mutex::new(vec![ids(&mut mirrored.fake.app())]));
        let is_over = Arc::<AtomicBool>::default();
        let (kept, over, mut rng) = (instants.clone(), is_over.clone(), Rng::with_seed(seed));
        mirrored.fake.script(move |_, moment, app| {
            let may_change = moment == Moment::Before && !over.load(Ordering::SeqCst);
            if may_change && rng.u8(..odds) == 0 {
                change(app, &mut rng);
                kept.lock().unwrap().push(ids(app));
            }
            None
        });
        Self { instants, is_over }
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Each day of the mirror has the ids of one instant, or none.
    pub async fn is_of_one_instant(&self, mirrored: &Mirrored) {
        let instants = self.instants.lock().unwrap().clone();
        for days in 1..=mirrored.days {
            let date = day(days.into()).to_string();
            let sql = format!(
                "SELECT _id FROM stats.orders \
                 WHERE (created_at AT TIME ZONE 'UTC')::date = '{date}'"
            );
            let kept: BTreeSet<String> = mirrored.lines(&sql).await.into_iter().collect();
            let is_it = |instant: &Ids| instant.get(&date).is_some_and(|ids| *ids == kept);
            let instants_of_it = instants.iter().filter(|instant| is_it(instant)).count();
            assert!(kept.is_empty() || instants_of_it > 0, "{date}: {} things", kept.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_slice_has_the_ids_of_one_instant_and_all_ends_right() {
    for seed in 0..6 {
        let mirrored = Mirrored::new(3, PLENTY, |app| orders(app, 3, 260)).await;
        let restless = Restless::new(&mirrored, seed, 8);
        for _ in 0..3 {
            let (report, code) = mirrored.tick();
            assert_eq!(code, Some(0), "seed {seed}: {report}");
            restless.is_of_one_instant(&mirrored).await;
        }
        restless.end();
        mirrored.replay_all();
        mirrored.is_right().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_between_two_pages_neither_loses_nor_doubles_a_thing() {
    let mirrored = Mirrored::new(1, PLENTY, |app| orders(app, 1, 500)).await;
    let start = midnight(day(1)).timestamp_millis();
    let mut left = 3;
    mirrored.fake.script(move |seen, moment, app| {
        // After a first page of many, the first of its things goes.
        let is_page =
            seen.query.iter().any(|(name, value)| name == "sort_field" && value == "Created Date");
        if moment == Moment::After && is_page && left > 0 {
            left -= 1;
            let first = app.live().things("order").find(|thing| thing.created >= start);
            let id = first.unwrap().id.to_string();
            app.live().delete("order", &id);
        }
        None
    });
    mirrored.settle();
    mirrored.is_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_run_leaves_its_pages_and_the_next_one_pays_for_the_rest_alone() {
    let whole = Mirrored::new(1, PLENTY, |app| orders(app, 1, 1_500)).await;
    whole.settle();
    let price = whole.fake.bill().units();

    let mirrored = Mirrored::new(1, PLENTY, |app| orders(app, 1, 1_500)).await;
    let process = Arc::<AtomicU32>::default();
    let told = process.clone();
    mirrored.fake.script(move |_, moment, _| {
        let process = told.load(Ordering::SeqCst);
        if moment == Moment::After && process > 0 {
            told.store(0, Ordering::SeqCst);
            signal(process, "TERM");
        }
        None
    });
    for nth in 0..3 {
        mirrored.fake.take(std::time::Duration::from_millis(30));
        let mut command = mirrored.command(&["run"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (id, before) = (child.id(), mirrored.fake.log().len());
        while mirrored.fake.log().len() < before + 5 + nth && child.try_wait().unwrap().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        process.store(id, Ordering::SeqCst);
        end_of(&mut child).await;
        process.store(0, Ordering::SeqCst);
    }
    mirrored.settle();
    mirrored.is_right().await;
    let again = mirrored.fake.bill().units();
    // Each process asks its three questions, and a page under way may be lost.
    assert!(again < price + 3.0 * (1.6 + 2.5), "{again} instead of {price}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_a_deletion_and_a_replay_follows_it() {
    let mirrored = Mirrored::new(2, PLENTY, |app| orders(app, 2, 50)).await;
    mirrored.settle();
    let gone = mirrored.present()[7].split('|').next().unwrap().to_owned();
    mirrored.fake.app().live().delete("order", &gone);
    let found = mirrored.run(&["verify", "orders"]);
    assert_eq!(found.code, Some(1), "{found:?}");
    mirrored.replay_all();
    mirrored.is_right().await;
    assert_eq!(mirrored.run(&["verify", "orders"]).code, Some(0));
}
