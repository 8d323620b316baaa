//! Random histories by the real binary: two workers at once, of which one is killed or terminated
//! between any two requests, while the app changes and its answers break.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fastrand::Rng;

use super::super::fake::{Fault, Moment};
use super::changes::Restless;
use super::*;
use crate::support::cli::{end_of, signal};
use crate::support::share;

/// Histories of one run, and of a run of everything.
const HISTORIES: [u64; 2] = [1, 20];

/// Rounds of two workers in one history.
const ROUNDS: usize = 2;

/// A fault that passes soon.
fn fault(rng: &mut Rng) -> Fault {
    let all = [Fault::TooMany(Some(0)), Fault::Status(503), Fault::Html, Fault::Cut, Fault::Hangup];
    rng.choice(all).unwrap()
}

/// A process that is to be sent a signal at some request. 0: none.
#[derive(Default)]
struct Victim {
    process: AtomicU32,
    requests: AtomicU32,
}

impl Victim {
    /// Counts a request, and sends the signal at the last one.
    fn count(&self, name: &str) {
        let is_due = self.requests.fetch_sub(1, Ordering::SeqCst) == 1;
        let process = if is_due { self.process.swap(0, Ordering::SeqCst) } else { 0 };
        if process > 0 {
            signal(process, name);
        }
    }
}

/// Two workers, of which the first is sent a signal at this request of both.
async fn round(mirrored: &Mirrored, victim: &Victim, requests: u32) {
    victim.requests.store(requests, Ordering::SeqCst);
    let start = || -> Child {
        let mut worker = mirrored.command(&["run", "--budget", "2s"]);
        worker.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let (mut one, mut other) = (start(), start());
    victim.process.store(one.id(), Ordering::SeqCst);
    end_of(&mut other).await;
    // Until here it has its number, even if it has ended. From then on, there are no requests.
    end_of(&mut one).await;
    victim.process.store(0, Ordering::SeqCst);
}

async fn play(seed: u64) {
    println!("SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let (each, ties) = (rng.usize(30..300), rng.usize(..250));
    let mirrored = Mirrored::new(2, PLENTY, |app| {
        orders(app, 2, each);
        app.live().bulk_create("order", ties, &New::at(at(1, 4_000_000)));
    })
    .await;
    let restless = Restless::new(&mirrored, seed, 4);
    let victim = Arc::<Victim>::default();
    let (mut faulty, over, counted) = (rng.fork(), restless.is_over.clone(), victim.clone());
    mirrored.fake.script(move |_, moment, _| {
        if over.load(Ordering::SeqCst) || moment == Moment::After {
            return None;
        }
        counted.count(if faulty.u8(..4) > 0 { "KILL" } else { "TERM" });
        (faulty.u8(..12) == 0).then(|| fault(&mut faulty))
    });
    for _ in 0..ROUNDS {
        round(&mirrored, &victim, rng.u32(1..40)).await;
        restless.is_of_one_instant(&mirrored).await;
    }
    restless.end();
    // It waits for the leases of workers that are gone, and ends their slices. The pages that they
    // staged may have older values, so every slice is read once more.
    mirrored.run(&["backfill", "orders", "--yes"]).good();
    mirrored.run(&["backfill", "orders", "--force", "--yes"]).good();
    mirrored.run(&["backfill", "orders_daily", "--yes"]).good();
    mirrored.settle();
    mirrored.is_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_of_which_one_is_killed_end_right() {
    let asked: Option<u64> = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let first = asked.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let count = if asked.is_some() { 1 } else { HISTORIES[usize::from(share::is_whole())] };
    for seed in first..first + count {
        play(seed).await;
    }
}
