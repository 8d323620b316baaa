//! One life of one installation, month after month.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use tallymark::model::clock::Stopwatch;
use tallymark::work::worker::Worker;

use super::application::Session;
use super::definition::Definition;
use super::flat::{Sample, Watch};
use super::scene::{SKEWS_S, Scene, month};
use super::work::Way;
use crate::support::world::{self, Keeper};

/// Hours between two ticks, at most.
const STEP_MAX_HOURS: u64 = 36;

/// Progress is printed after this many months.
const TOLD: u32 = 2;

/// Partitions are made this many months ahead.
const AHEAD: u32 = 2;

/// Memory leaked per step, if a leak is requested.
const LEAK_BYTES: usize = 512 * 1024;

/// The length of a life.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// A number of simulated months.
    Months(u32),
    /// Until this time has passed, and the month is over.
    Wall(Duration),
}

pub struct Life {
    pub random: Rng,
    pub scene: Scene,
    pub definition: Definition,
    pub workers: Vec<Worker>,
    pub sessions: [Session; 2],
    pub watch: Watch,
    /// Whether to leak, to test that it is detected.
    pub leaks: bool,
    /// The actions, and their counts.
    pub done: BTreeMap<String, u64>,
    /// When the application wrote its last rows.
    since_ms: i64,
}

impl Life {
    pub async fn new(seed: u64, keeper: Keeper) -> Self {
        let mut random = Rng::with_seed(seed);
        // Both have days of 23 and 25 hours, and one has a day that does not exist.
        let zone = ["Europe/Berlin", "Pacific/Apia"][random.usize(..2)];
        println!("days of {zone}, checkpoints in {keeper:?}");
        let scene = Scene::new(keeper).await;
        for number in 0..AHEAD {
            scene.add_partition(number).await;
        }
        let sessions = [
            Session::connect(&scene.options, "app_a").await,
            Session::connect(&scene.options, "app_b").await,
        ];
        let (definition, watch) = (Definition::new(zone), Watch::default());
        let (workers, done) = (Vec::new(), BTreeMap::new());
        let (since_ms, leaks) = (0, std::env::var_os("TALLYMARK_SOAK_LEAK").is_some());
        let mut life =
            Self { random, scene, definition, workers, sessions, watch, leaks, done, since_ms };
        life.start_workers().await;
        life
    }

    pub fn count(&mut self, what: impl Into<String>, by: u64) {
        *self.done.entry(what.into()).or_default() += by;
    }

    /// New processes with the present definition, after `init` and `capture install`.
    pub async fn start_workers(&mut self) {
        let text = self.definition.text();
        let workers = SKEWS_S.map(|skew| self.scene.worker(&text, skew));
        workers[0].checkpoints.create_table().await.unwrap();
        world::init(&workers[0]).await.unwrap();
        super::change::install_capture(&workers[0]).await;
        self.workers = workers.into();
    }

    /// Lives for this length. Returns the samples, one per month.
    pub async fn live(mut self, length: Length) -> (Vec<Sample>, BTreeMap<String, u64>) {
        let watch = Stopwatch::start();
        let mut number = 0;
        let is_over = |number: u32| match length {
            Length::Months(months) => number >= months,
            Length::Wall(time) => watch.elapsed() >= time,
        };
        while !is_over(number) {
            self.scene.add_partition(number + AHEAD).await;
            super::change::install_capture(&self.workers[0]).await;
            self.live_month(number).await;
            self.settle_down().await;
            self.is_exact().await;
            self.sample(number).await;
            self.change(number).await;
            number += 1;
            if number.is_multiple_of(TOLD) {
                let last = self.watch.samples.last().unwrap();
                let done = self.done.iter().filter(|(what, _)| what.starts_with("slices"));
                let slices: u64 = done.map(|(_, count)| count).sum();
                let months = format!("{number} months in {:.0?}", watch.elapsed());
                println!("{months}: {slices} slices, {last}");
            }
        }
        (self.watch.samples, self.done)
    }

    async fn live_month(&mut self, number: u32) {
        // Each step takes at least an hour.
        const STEPS_MAX: usize = 31 * 24;
        for _ in 0..STEPS_MAX {
            if self.scene.now() >= month(number + 1) {
                return;
            }
            let hours = self.random.u64(1..=STEP_MAX_HOURS);
            let minutes = self.random.u64(0..60);
            self.scene.advance(Duration::from_secs((hours * 60 + minutes) * 60)).await;
            self.step().await;
            self.watch.look(&self.scene).await;
            if self.leaks {
                std::mem::forget(vec![1_u8; LEAK_BYTES]);
            }
        }
        panic!("a month of more than {STEPS_MAX} steps");
    }

    async fn step(&mut self) {
        for _ in 0..self.random.usize(1..4) {
            let which = self.random.usize(..2);
            let session = &mut self.sessions[which];
            let what = session.act(&mut self.random, &self.scene, self.since_ms).await;
            self.count(what, 1);
        }
        self.since_ms = self.scene.now_ms();
        // With the checkpoints in the target a tick waits more often.
        let polls_max = if self.scene.dynamo.is_some() { 250 } else { 600 };
        let polls = self.random.usize(1..polls_max);
        match self.random.u8(..100) {
            0..=9 => {}
            10..=59 => self.tick(Way::Whole).await,
            60..=69 => self.tick(Way::Killed(polls)).await,
            70..=73 => self.tick(Way::Ended(polls)).await,
            74..=75 => self.tick(Way::Frozen(polls)).await,
            76..=81 => self.tick(Way::Beside).await,
            82..=85 => self.tick_in_trouble(polls).await,
            86..=88 => self.backfill(None).await,
            89..=90 => self.backfill(Some(8 * polls)).await,
            91..=92 => self.replay().await,
            93..=94 => self.spoil_and_verify().await,
            95..=96 => self.pause().await,
            97..=98 => self.go_on().await,
            _ => self.lose_in_flight().await,
        }
    }

    /// Ends the application's transactions.
    pub async fn end_transactions(&mut self) {
        for session in &mut self.sessions {
            session.end(&mut self.random).await;
        }
    }
}
