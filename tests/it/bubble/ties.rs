//! More things of one instant than a page holds, while some of them go: offsets shift, and nothing
//! is lost.

use std::time::Duration;

use tallymark::model::clock::{Clock as _, Deadline};
use tallymark::work::late;
use tallymark::work::report::Outcome;

use super::fake::datum::Datum;
use super::fake::{App, Moment, New};
use super::shop::{DAY, Shop, TABLES, all, order};
use crate::support::world::{BUDGET, instant};

/// Changes the app once, before the first request with an offset.
fn before_an_offset(shop: &Shop, change: impl FnOnce(&mut App) + Send + 'static) {
    let mut change = Some(change);
    shop.fake.script(move |seen, moment, app| {
        let has_offset = seen.query.iter().any(|(name, value)| name == "cursor" && value != "0");
        if has_offset
            && moment == Moment::Before
            && let Some(change) = change.take()
        {
            change(app);
        }
        None
    });
}

/// Without a look at the total, as many things as the app counts would be there, and one of them
/// would be the deleted one.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_within_a_tie_of_several_pages_loses_no_other_thing() {
    let tied: Vec<New> = (0..230).map(|_| order(40_000)).collect();
    let shop = Shop::open(&tied).await;
    let first = all(&mut shop.fake.app())[0].id.to_string();
    before_an_offset(&shop, move |app| app.live().delete("order", &first));
    let report = shop.run(DAY).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
    shop.assert_same(DAY).await;
    assert_eq!(shop.rows("SELECT count(*) FROM stats.orders").await, ["(229)"]);
}

/// A hundred things of one day, one of the next, and more of the day after it are edited at once.
/// While they are looked for, one of the first is edited again.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_edit_within_many_of_one_instant_hides_no_other_one() {
    const NEXT: i64 = 86_400;
    let seconds = (-NEXT..-NEXT + 100).chain([0]).chain(NEXT..NEXT + 20);
    let created: Vec<New> = seconds.map(order).collect();
    let shop =
        Shop::open_with(&created, &TABLES.replace("grace =", "modified = true\ngrace =")).await;
    shop.backfill().await;
    shop.clock.advance(Duration::from_secs(600));
    let edit = |app: &mut App, id: &str, at| {
        app.live().edit("order", id, at, &[("Amount", Some(Datum::Number(5.0)))]);
    };
    let at = shop.clock.now();
    let things = all(&mut shop.fake.app());
    for thing in things {
        edit(&mut shop.fake.app(), &thing.id, at);
    }
    shop.clock.advance(Duration::from_secs(2 * 60 * 60));
    let (first, now) = (all(&mut shop.fake.app())[0].id.to_string(), shop.clock.now());
    before_an_offset(&shop, move |app| edit(app, &first, now));
    let deadline = Deadline::after(&*shop.worker.clock, BUDGET);
    assert_eq!(late::notice(&shop.worker, deadline).await.len(), 0);
    let unfinished = shop.checkpoints.unfinished("orders").await.unwrap();
    let mut reopened: Vec<_> = unfinished.iter().map(|it| it.slice_start).collect();
    reopened.sort();
    assert_eq!(reopened, ["2026-02-26", DAY, "2026-02-28"].map(instant));
}
