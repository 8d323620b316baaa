//! Things that are edited more than once before their changes are looked for, and what a look pays.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tallymark::model::clock::{Clock as _, Deadline};
use tallymark::tick;
use tallymark::work::late;
use tallymark::work::report::Outcome;

use super::fake::datum::Datum;
use super::fake::{Fault, Moment, New};
use super::shop::{DAY, Shop, TABLES, all, order};
use crate::support::world::{BUDGET, instant};

/// A shop that follows changes, and has read all of its slices.
async fn open(created: &[New]) -> Shop {
    let tables = TABLES.replace("grace =", "modified = true\ngrace =");
    let shop = Shop::open_with(created, &tables).await;
    shop.backfill().await;
    shop
}

fn pass(shop: &Shop, minutes: u64) {
    shop.clock.advance(Duration::from_secs(60 * minutes));
}

/// Edits a thing now. Returns when that is.
fn edit(shop: &Shop, id: &str) -> DateTime<Utc> {
    let now = shop.clock.now();
    shop.fake.app().live().edit("order", id, now, &[("Amount", Some(Datum::Number(5.0)))]);
    now
}

/// The number of problems of a look for changes.
async fn look(shop: &Shop) -> usize {
    let deadline = Deadline::after(&*shop.worker.clock, BUDGET);
    late::notice(&shop.worker, deadline).await.len()
}

/// The slices that have to run after a look for changes.
async fn reopened(shop: &Shop) -> Vec<DateTime<Utc>> {
    assert_eq!(look(shop).await, 0);
    let unfinished = shop.checkpoints.unfinished("orders").await.unwrap();
    unfinished.iter().map(|it| it.slice_start).collect()
}

/// Without the changes of the last minutes, a thing that is always edited would never be found.
#[tokio::test(flavor = "multi_thread")]
async fn a_thing_that_was_edited_again_a_moment_ago_is_found_and_read_once() {
    let shop = open(&[order(0)]).await;
    let id = all(&mut shop.fake.app())[0].id.to_string();
    pass(&shop, 10);
    edit(&shop, &id);
    pass(&shop, 119);
    edit(&shop, &id);
    pass(&shop, 1);
    assert_eq!(reopened(&shop).await, [instant(DAY)]);
    shop.backfill().await;
    pass(&shop, 120);
    assert!(reopened(&shop).await.is_empty(), "its change was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_pays_no_thing_of_a_day_that_goes_on_and_reads_no_day_again_for_its_own_things() {
    let shop = open(&[order(0)]).await;
    let create = |at: &str| shop.fake.app().live().create("order", &New::at(instant(at)));
    pass(&shop, 12 * 60 + 30);
    create("2026-03-01T23:50:00Z");
    for second in 0..5 {
        create(&format!("2026-03-02T00:10:0{second}Z"));
    }
    assert_eq!(shop.run("2026-03-01").await.outcome, Outcome::Succeeded);
    let before = shop.fake.bill().things;
    assert!(reopened(&shop).await.is_empty());
    assert_eq!(shop.fake.bill().things - before, 1);
    // One that the slice lacks is found by its change all the same.
    pass(&shop, 24 * 60);
    assert_eq!(shop.run("2026-03-02").await.outcome, Outcome::Succeeded);
    create("2026-03-02T23:59:00Z");
    assert_eq!(reopened(&shop).await, [instant("2026-03-02")]);
}

/// A thing of another day is edited before and after the things of the first page.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_was_broken_off_claims_nothing_that_it_may_have_missed() {
    let mut created: Vec<New> = (0..100).map(order).collect();
    created.push(order(86_400));
    let shop = open(&created).await;
    let mut ids: Vec<_> =
        all(&mut shop.fake.app()).iter().map(|thing| thing.id.to_string()).collect();
    let other = ids.pop().unwrap();
    pass(&shop, 90);
    let changed_at = edit(&shop, &other);
    pass(&shop, 1);
    for id in &ids {
        edit(&shop, id);
    }
    pass(&shop, 1);
    edit(&shop, &other);
    pass(&shop, 20);
    let mut answers = 0;
    shop.fake.script(move |_, moment, _| {
        answers += usize::from(moment == Moment::After);
        (moment == Moment::Before && answers > 0).then_some(Fault::Status(503))
    });
    assert_eq!(look(&shop).await, 1, "the app answers once");
    shop.fake.start_over();
    let deadline = Deadline::after(&*shop.worker.clock, BUDGET);
    tick::run(&shop.worker, shop.clock.now(), deadline, None).await.unwrap();
    let told = format!(
        "SELECT c.checked_at > '{changed_at}', o.\"Amount\" FROM tallymark.coverage c, stats.orders o \
         WHERE c.rollup = 'orders' AND o._id = '{other}'"
    );
    assert_eq!(shop.rows(&told).await, ["(t,5)"]);
}
