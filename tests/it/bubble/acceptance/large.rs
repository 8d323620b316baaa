//! Many things: one page in memory, and ticks that end in time.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use super::*;

/// Things of a day.
const EACH: usize = 20_000;

/// Memory of a tick.
const MEMORY_MAX_KB: u64 = 64 * 1_024;

/// The most memory that a process has had, in kB. `None`: it has ended.
fn memory_kb(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A tick of a few seconds does a part of the day, and the next ones do the rest.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_things_a_day_take_several_ticks_and_little_memory() {
    let mirrored = Mirrored::new(1, PLENTY, |app| orders(app, 1, EACH)).await;
    mirrored.fake.take(Duration::from_millis(20));
    let (mut ticks, mut memory) = (0, 0);
    while mirrored.kept().await.is_empty() {
        ticks += 1;
        assert!(ticks < 30, "the day never ends");
        let mut command = mirrored.command(&["run", "--budget", "8s"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut tick = command.spawn().unwrap();
        while tick.try_wait().unwrap().is_none() {
            memory = memory_kb(tick.id()).unwrap_or_default().max(memory);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    mirrored.fake.take(Duration::ZERO);
    mirrored.settle();
    mirrored.is_right().await;
    println!("{ticks} ticks, {memory} kB, {} units", mirrored.fake.bill().units());
    assert!(memory <= MEMORY_MAX_KB, "{memory} kB");
}
