//! Many things: one page in memory, and ticks that end in time.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use tallymark::model::clock::Stopwatch;

use super::*;

/// Things of a day.
const EACH: usize = 20_000;

/// The ticks' budgets, each longer than the one before, as a slow machine reads little in a short
/// one. The last one holds for all further ticks.
const BUDGETS_S: [u64; 7] = [4, 8, 8, 16, 32, 64, 128];

/// More ticks than leases and the reading of a day need.
const TRIES_MAX: u32 = 300;

/// Memory of a tick.
const MEMORY_MAX_KB: u64 = 64 * 1_024;

/// The most memory that a process has had, in kB. `None`: it has ended.
fn of_process_kb(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// How one tick went.
struct Tick {
    took: Duration,
    memory_kb: u64,
}

impl Mirrored {
    /// A tick of this budget.
    async fn tick_within(&self, budget: &str) -> Tick {
        let (watch, mut memory_kb) = (Stopwatch::start(), 0);
        let mut command = self.command(&["run", "--budget", budget]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut tick = command.spawn().unwrap();
        while tick.try_wait().unwrap().is_none() {
            memory_kb = of_process_kb(tick.id()).unwrap_or_default().max(memory_kb);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Tick { took: watch.elapsed(), memory_kb }
    }
}

/// A tick of a few seconds does a part of the day, and the next ones do the rest.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_things_a_day_take_several_ticks_and_little_memory() {
    let mirrored = Mirrored::new(1, PLENTY, |app| orders(app, 1, EACH)).await;
    mirrored.fake.take(Duration::from_millis(20));
    let (mut budgets_s, mut memory_kb, mut ticks) = (BUDGETS_S.iter(), 0, 0);
    let mut budget_s = budgets_s.next().unwrap();
    while mirrored.kept().await.is_empty() {
        ticks += 1;
        assert!(ticks < TRIES_MAX, "the day never ends: {:?}", mirrored.run(&["status"]));
        let before = mirrored.fake.log().len();
        let tick = mirrored.tick_within(&format!("{budget_s}s")).await;
        memory_kb = tick.memory_kb.max(memory_kb);
        if mirrored.fake.log().len() > before {
            budget_s = budgets_s.next().unwrap_or(budget_s);
        } else {
            // The machine stood still in the last tick, which left the slice to its lease.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    mirrored.fake.take(Duration::ZERO);
    mirrored.settle();
    mirrored.is_right().await;
    println!("{ticks} ticks, {memory_kb} kB, {} units", mirrored.fake.bill().units());
    assert!(memory_kb <= MEMORY_MAX_KB, "{memory_kb} kB");
}

/// A number that a variable sets.
fn set(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |it| it.parse().unwrap())
}

/// The measurement of docs/BENCHMARKS.md.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes about 40 minutes: cargo test --test it a_month_of_history -- --ignored --nocapture"]
async fn a_month_of_history_takes_ticks_that_end_in_time_and_little_memory() {
    let (days, page_ms) = (set("TALLYMARK_DAYS", 30), set("TALLYMARK_PAGE_MS", 300));
    let days = u32::try_from(days).unwrap();
    let mirrored = Mirrored::new(days, PLENTY, |app| orders(app, days, EACH)).await;
    let things = u64::from(days) * EACH as u64;
    mirrored.fake.take(Duration::from_millis(page_ms));
    let (mut ticks, mut memory_kb, mut longest) = (0, 0, Duration::ZERO);
    let mut requests = 0;
    while mirrored.lines("SELECT count(*) FROM stats.orders").await != [things.to_string()] {
        let Tick { took, memory_kb: of_tick } = mirrored.tick_within("240s").await;
        (ticks, memory_kb, longest) = (ticks + 1, memory_kb.max(of_tick), longest.max(took));
        let before = std::mem::replace(&mut requests, mirrored.fake.log().len());
        println!("tick {ticks}: {took:.1?}, {} requests, {of_tick} kB", requests - before);
        assert!(requests > before, "a tick asks for nothing");
    }
    mirrored.fake.take(Duration::ZERO);
    mirrored.settle();
    mirrored.is_right().await;
    let bill = mirrored.fake.bill();
    println!("{things} things in {requests} requests of {page_ms} ms and {ticks} ticks");
    println!("longest {longest:.1?}, {memory_kb} kB, {:.0} units", bill.units());
    assert!(bill.things as u64 <= things + things / 50, "{} things were paid", bill.things);
    assert!(memory_kb <= MEMORY_MAX_KB, "{memory_kb} kB");
}
