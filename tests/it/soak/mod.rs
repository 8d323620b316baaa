//! Years of one installation within a minute: ticks, backfills, replays, late changes, changing
//! definitions, faults, and a clock that the test moves. Every simulated month the faults stop.
//! When all work is done, each rollup must equal one `GROUP BY` over the source (`reference`), with
//! nothing left behind. Memory, descriptors, sessions and items are sampled every month and must
//! stay flat (`flat`).
//!
//! The seed draws the store of the checkpoints, and `TALLYMARK_TESTS=all` lives on both.
//! `TALLYMARK_SOAK` sets the length: simulated months (`36`), or a time (`2h`, `20m`). `SEED`
//! repeats the same life. With `TALLYMARK_SOAK_LEAK=1` it leaks on purpose, and must fail.

mod application;
mod change;
mod definition;
mod flat;
mod life;
mod reference;
mod scene;
mod work;

use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tallymark::model::clock::Stopwatch;
use tokio::runtime::Builder;

use flat::{Sample, flat};
use life::{Length, Life};

use crate::support::share::{self, Long};
use crate::support::world::Keeper;

/// In an unoptimised build, the futures of a whole life exceed a test thread's stack.
const STACK: usize = 32 << 20;

/// Set in the process that runs the life, to the number of its keeper of checkpoints.
const LIFE: &str = "TALLYMARK_SOAK_LIFE";

/// The keepers of checkpoints, by the seed's remainder. That in the target asks the source's clock,
/// which the test moves.
const KEEPERS: [Keeper; 2] = [Keeper::DynamoDb, Keeper::TargetsClock];

/// Nearly everything happens once in these months. At the end of the third the source begins to
/// purge.
const MONTHS: u32 = 4;

/// Shorter lives are not checked for growth, as they have no warm third for comparison.
const MONTHS_MIN: usize = 4;

fn length() -> Length {
    let Ok(text) = env::var("TALLYMARK_SOAK") else { return Length::Months(MONTHS) };
    let number = text.trim_end_matches(['h', 'm']);
    let number: u32 = number.parse().expect("TALLYMARK_SOAK is months, or a time such as 2h");
    match text.chars().last() {
        Some('h') => Length::Wall(Duration::from_secs(u64::from(number) * 60 * 60)),
        Some('m') => Length::Wall(Duration::from_secs(u64::from(number) * 60)),
        _ => Length::Months(number),
    }
}

fn seed() -> u64 {
    let seed = env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    seed.unwrap_or_else(|| fastrand::u64(..1 << 32))
}

/// Runs in a process of its own, so that its memory is measured alone.
#[test]
fn years_of_one_installation_are_exact_and_leave_nothing_behind() {
    if let Ok(keeper) = env::var(LIFE) {
        return live(KEEPERS[keeper.parse::<usize>().unwrap()]);
    }
    let is_asked = ["SEED", "TALLYMARK_SOAK", "TALLYMARK_SOAK_LEAK"].map(env::var_os);
    if is_asked.iter().all(Option::is_none) && !share::plays(Long::Soak) {
        return;
    }
    let seed = seed();
    let drawn = usize::try_from(seed % 2).unwrap();
    for keeper in (0..KEEPERS.len()).filter(|keeper| *keeper == drawn || share::is_whole()) {
        let name = "soak::years_of_one_installation_are_exact_and_leave_nothing_behind";
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([name, "--exact", "--nocapture"]).stdout(Stdio::piped());
        command.env(LIFE, keeper.to_string()).env("SEED", seed.to_string());
        let mut child = command.spawn().unwrap();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            println!("{}", line.unwrap());
        }
        assert!(child.wait().unwrap().success());
    }
}

fn live(keeper: Keeper) {
    let seed = seed();
    let length = length();
    println!("SEED={seed} {length:?}");
    let watch = Stopwatch::start();
    // One thread that waits only for servers.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let life = move || runtime.block_on(async { Life::new(seed, keeper).await.live(length).await });
    let thread = thread::Builder::new().stack_size(STACK).spawn(life).unwrap();
    let (samples, done) = thread.join().unwrap();
    println!("{} simulated months in {:.0?}", samples.len(), watch.elapsed());
    for (what, count) in &done {
        println!("{count:>10}  {what}");
    }
    println!("first month: {}\n last month: {}", samples[0], samples[samples.len() - 1]);
    if samples.len() >= MONTHS_MIN {
        flat(&samples).unwrap();
    }
}

/// A megabyte a month is noise. Eight megabytes, or forty descriptors, are a leak.
#[test]
fn a_leak_is_not_flat() {
    let sample = |month: u64, rss_kb: u64, fds: u64| Sample {
        rss_kb: 80_000 + rss_kb * month,
        fds: 60 + fds * month,
        ..Sample::default()
    };
    let grown =
        |rss_kb, fds| -> Vec<_> { (0..6).map(|month| sample(month, rss_kb, fds)).collect() };
    assert_eq!(flat(&grown(1024, 1)), Ok(()));
    assert!(flat(&grown(8 * 1024, 1)).unwrap_err().contains("memory grows"));
    assert!(flat(&grown(1024, 40)).unwrap_err().contains("descriptors grow"));
}
