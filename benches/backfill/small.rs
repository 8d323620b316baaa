//! Many small slices: a year of hours with ten events each. Here the cost of a slice is that of its
//! statements and commits.

use std::time::Duration;

use tallymark::model::clock::Stopwatch;

use crate::Result;
use crate::figures::Figures;
use crate::place::{HOURS, Place, Work};

/// The contestants: whether the checkpoints are in the target, and the concurrent slices, as the
/// command takes them by default or one at a time.
const CONTESTANTS: [(bool, Option<&str>); 4] =
    [(true, None), (true, Some("1")), (false, None), (false, Some("1"))];

pub async fn run(place: &mut Place, rounds: u64) -> Result<()> {
    println!("{HOURS} slices of ten rows");
    let mut floor = Figures::default();
    let mut times: [Figures; 4] = std::array::from_fn(|_| Figures::default());
    for round in 1..=rounds {
        floor.add(round_of_floor(place).await?);
        println!("round {round}: floor {:.2} s", floor.last());
        for ((has_store, concurrency), figures) in CONTESTANTS.into_iter().zip(&mut times) {
            place.keep_in_target(has_store)?;
            place.empty().await?;
            place.rest().await?;
            figures.add(place.backfill_hours(concurrency)?.0);
            place.compare(Work::HOURLY).await?;
            println!("{}: {:.2} s", name(has_store, concurrency), figures.last());
        }
    }
    place.keep_in_target(false)?;
    println!("floor: {floor}");
    for ((has_store, concurrency), figures) in CONTESTANTS.into_iter().zip(&times) {
        let ratio = figures.median() / floor.median();
        println!("{}: {figures}, ratio {ratio:.2}", name(has_store, concurrency));
    }
    Ok(())
}

fn name(has_store: bool, concurrency: Option<&str>) -> String {
    let store = if has_store { "postgres" } else { "dynamodb" };
    format!(
        "store {store}, {}",
        concurrency.map_or_else(|| "as many as usual".to_owned(), |it| format!("{it} at a time"))
    )
}

async fn round_of_floor(place: &Place) -> Result<Duration> {
    place.empty_floor().await?;
    place.rest().await?;
    let mut connection = place.connect().await?;
    let watch = Stopwatch::start();
    place.floor(&mut connection, Work::HOURLY).await?;
    Ok(watch.elapsed())
}
