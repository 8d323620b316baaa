//! The cost of a backfill compared with the naive job: `cargo bench --bench backfill`.
//!
//! The floor is one `DELETE` and one `INSERT … SELECT … GROUP BY` per slice, in one transaction,
//! through one connection. The contestant is the real command as a child process. Both fill empty
//! tables, on the same embedded PostgreSQL, in alternating rounds. docs/BENCHMARKS.md explains the
//! figures.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod dynamo;
mod figures;
mod place;
mod small;

use std::path::PathBuf;
use std::time::Duration;

use figures::{Figures, mib};
use place::{DAYS, Place, Work};
use tallymark::model::clock::Stopwatch;

/// Every error ends the benchmark.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The options: `cargo bench --bench backfill -- --rows 1000000 --rounds 3`.
struct Arguments {
    rows: u64,
    rounds: u64,
    wide_groups: u64,
    /// Whether only the small slices are measured.
    only_small: bool,
    /// The build to measure.
    binary: PathBuf,
}

impl Arguments {
    fn parse() -> Result<Self> {
        let mut arguments = Self {
            rows: 15_000_000,
            rounds: 5,
            wide_groups: 1_000_000,
            only_small: false,
            binary: env!("CARGO_BIN_EXE_tallymark").into(),
        };
        let mut given = std::env::args().skip(1);
        while let Some(name) = given.next() {
            // This is cargo's own option.
            if name == "--bench" {
                continue;
            }
            if name == "--only-small" {
                arguments.only_small = true;
                continue;
            }
            let value = given.next().ok_or_else(|| format!("{name}: a value is missing"))?;
            let number = match name.as_str() {
                "--rows" => &mut arguments.rows,
                "--rounds" => &mut arguments.rounds,
                "--wide-groups" => &mut arguments.wide_groups,
                "--binary" => {
                    arguments.binary = std::path::absolute(value)?;
                    continue;
                }
                _ => {
                    let known = "--rows, --rounds, --wide-groups, --only-small and --binary";
                    return Err(format!("unknown argument {name}; there are {known}").into());
                }
            };
            *number = value.parse()?;
            if *number == 0 {
                return Err(format!("{name} must be at least 1").into());
            }
        }
        Ok(arguments)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let mut place = Place::new(arguments.rows, arguments.wide_groups, arguments.binary).await?;
    println!(
        "PostgreSQL {}, {} rows in {DAYS} slices, {} rounds",
        place.major(),
        arguments.rows,
        arguments.rounds
    );
    small::run(&mut place, arguments.rounds).await?;
    if arguments.only_small {
        return Ok(());
    }
    writes(&mut place).await?;
    let (mut floor, mut first, mut again) =
        (Figures::default(), Figures::default(), Figures::default());
    let mut memory = 0;
    for round in 1..=arguments.rounds {
        floor.add(round_of_floor(&place).await?);
        let (elapsed, peak) = round_of_tallymark(&mut place, &[]).await?;
        first.add(elapsed);
        memory = memory.max(peak);
        place.rest().await?;
        again.add(place.backfill("daily", &["--force"])?.0);
        println!(
            "round {round}: floor {:.2} s, backfill {:.2} s, again with nothing changed {:.2} s",
            floor.last(),
            first.last(),
            again.last()
        );
    }
    println!("floor: {floor}");
    println!("backfill: {first}, ratio {:.2}", first.median() / floor.median());
    println!("again: {again}, ratio {:.2}", again.median() / floor.median());
    println!("peak memory of the backfill's process: {}", mib(memory));
    foreseen(&mut place).await?;
    wide(&mut place).await
}

/// A round without timing: fills the caches, counts the writes, and compares the results.
async fn writes(place: &mut Place) -> Result<()> {
    round_of_floor(place).await?;
    place.empty().await?;
    place.begin_counting().await?;
    place.backfill("daily", &[])?;
    let counted = place.end_counting();
    println!("DynamoDB: {counted}");
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let each = counted.writes() as f64 / DAYS as f64;
    println!("DynamoDB writes a slice, the watermark included: {each:.2}");
    place.compare(Work::DAILY).await
}

async fn round_of_floor(place: &Place) -> Result<Duration> {
    place.empty_floor().await?;
    place.rest().await?;
    let mut connection = place.connect().await?;
    let watch = Stopwatch::start();
    place.floor(&mut connection, Work::DAILY).await?;
    Ok(watch.elapsed())
}

async fn round_of_tallymark(place: &mut Place, more: &[&str]) -> Result<(Duration, u64)> {
    place.empty().await?;
    place.rest().await?;
    place.backfill("daily", more)
}

/// A backfill's estimate and its real cost, across two databases, so that only reading counts.
async fn foreseen(place: &mut Place) -> Result<()> {
    place.across(true);
    place.empty().await?;
    place.rest().await?;
    place.backfill("daily", &[])?;
    let before = place.blocks().await?;
    let document = place.backfill_again()?;
    let blocks = place.blocks().await? - before;
    let estimate = &document["estimate"];
    for (what, foreseen, found) in [
        ("rows", &estimate["rows"], &document["rows_read"]),
        ("blocks", &estimate["blocks"], &serde_json::json!(blocks)),
        ("ms in statements on the source", &estimate["source_ms"], &document["source_ms"]),
        ("ms in all", &estimate["elapsed_ms"], &document["elapsed_ms"]),
    ] {
        let (Some(foreseen), Some(found)) = (foreseen.as_f64(), found.as_f64()) else {
            return Err(format!("no {what} in {document}").into());
        };
        println!(
            "foreseen {foreseen} {what}, found {found}: {:+.0} %",
            (foreseen / found - 1.0) * 100.0
        );
    }
    place.across(false);
    Ok(())
}

/// One slice with a very large number of groups, within one database and across two.
async fn wide(place: &mut Place) -> Result<()> {
    for (across, name) in [(false, "in one database"), (true, "from one database to another")] {
        place.across(across);
        place.empty().await?;
        place.rest().await?;
        let (elapsed, peak) = place.backfill("wide", &["--to", "2026-01-02"])?;
        let groups = place.wide_groups().await?;
        println!(
            "one slice of {groups} groups {name}: {:.2} s, peak memory {}",
            elapsed.as_secs_f64(),
            mib(peak)
        );
    }
    Ok(())
}
