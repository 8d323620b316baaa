//! A copy of a rollup's checkpoints into another store, in both directions.

mod killed;

use std::ops::ControlFlow;
use std::sync::Mutex;

use chrono::TimeDelta;

use super::super::item::{key, number, text};
use super::super::store::{Cond, Item, Key, Query, Sorts, Value};
use super::super::tombstone::{COPY_ID, MOVE_ID, MOVED_TO};
use super::{Fixture, ROLLUP, at, outcome, start, turn};
use crate::checkpoint::{
    Bond, Budget, CheckpointError, Checkpoints, Claim, CopyError, CopyStanding, Drift,
    KeptConsumer, KeptPace, Pause, Registration, Scope, ScrubProgress, Spending, StoreCopy,
};
use crate::clients::bubble::Units;
use crate::config::NiceRatio;
use crate::model::clock::ManualClock;
use crate::model::hint::Hinted as _;

/// Both stores, once in each direction.
async fn each_way() -> [[Fixture; 2]; 2] {
    let (a, b) = (Fixture::in_dynamodb().await, Fixture::in_postgres().await);
    let (c, d) = (Fixture::in_postgres().await, Fixture::in_dynamodb().await);
    [[a, b], [c, d]]
}

async fn on_each_way(test: impl AsyncFn(&Checkpoints, &Checkpoints)) {
    for [from, to] in each_way().await {
        eprintln!("from {} to {}", from.checkpoints.place(), to.checkpoints.place());
        test(&from.checkpoints, &to.checkpoints).await;
        close(&from.checkpoints, &to.checkpoints).await;
    }
}

/// Closes the connections, of which a server has few.
async fn close(from: &Checkpoints, to: &Checkpoints) {
    from.close().await;
    to.close().await;
}

/// A slice by its number, and the claim of it at second `now`.
fn wish(slice: i64, now: i64) -> Claim<'static> {
    let slice_start = start() + TimeDelta::hours(slice);
    Claim { slice_start, ..super::wish(now) }
}

/// Items of every sort, with slices in every state.
async fn fill(store: &Checkpoints) {
    let bond = Bond {
        installation: "1f".into(),
        places: vec!["b0".into(), "a1".into()],
        servers: "one two".into(),
        tables: "1/2".into(),
        ..Bond::default()
    };
    store.bind(ROLLUP, None, &bond).await.unwrap();
    for slice in 0..5 {
        let lease = store.claim(&wish(slice, 0)).await.unwrap();
        match slice {
            0 | 1 => drop(store.complete(&lease, &outcome(), at(1)).await.unwrap()),
            2 => drop(store.fail(&lease, "division by zero", true, at(1)).await.unwrap()),
            3 => drop(store.yield_(&lease, &turn("unsettled", Some(at(9))), at(1)).await.unwrap()),
            // Its worker died.
            _ => {}
        }
    }
    store.reopen(ROLLUP, wish(1, 0).slice_start, "late data", at(2)).await.unwrap();
    let known = KeptConsumer { id: 77, standing: Registration::Known("events".into()) };
    store.set_consumer(ROLLUP, None, &known).await.unwrap();
    let seen = ScrubProgress::default();
    assert!(store.take_scrub(ROLLUP, &seen, &seen.after(at(0), true, at(3))).await.unwrap());
    let drift = Drift { found_at: at(3), groups: 2, attempt: 1 };
    store.record_scrub(ROLLUP, start(), Some(drift), at(3)).await.unwrap();
    let budget = Budget { day: at(0).date_naive(), verified_today: 1, paid_until: at(4) };
    store.spend_scrub_budget(None, &budget).await.unwrap();
    let pause = Pause { at: at(4), reason: "holidays".into(), until: Some(at(5)) };
    store.set_pause(Scope::Source, Some(&pause)).await.unwrap();
    store.set_pause(Scope::Backfill(ROLLUP), Some(&pause)).await.unwrap();
    store.set_nice_ratio(Scope::Rollup(ROLLUP), Some(NiceRatio::Fixed(0.5))).await.unwrap();
    let (nap_ms, probe_ms) = (Some(1.1), Some(4.7));
    let held_by = "nothing".to_owned();
    let pace = KeptPace { at: at(4), nice_ratio: 0.0, held_by, nap_ms, probe_ms };
    store.keep_pace(&pace).await.unwrap();
    assert_eq!(store.control().await.unwrap().pace(), Some(&pace));
    store.set_seal(ROLLUP, Some(at(5)), at(5)).await.unwrap();
    let mut backfill = Key::new(ROLLUP, "backfill#20261125T171219123Z").to_item();
    backfill.extend([("state".to_owned(), text("running")), ("version".to_owned(), number(3))]);
    assert!(store.store.put(backfill, Cond::Absent).await.unwrap());
}

/// When no lease of [`fill`] holds any more.
const LATER: i64 = 1000;

async fn copy_at(now: i64, from: &Checkpoints, to: &Checkpoints) -> Result<(), CopyError> {
    let clock = ManualClock::new(at(now));
    let on = |_: &str, _: u64| ControlFlow::Continue(());
    let copy = StoreCopy::new(from, to, &clock, &on);
    let CopyStanding::ToDo(to_do) = copy.standing(ROLLUP).await? else { return Ok(()) };
    let filled = async {
        copy.stop(ROLLUP, &to_do).await?;
        copy.fill(ROLLUP, &to_do).await
    };
    if let Err(error) = filled.await {
        copy.take_back(ROLLUP, &to_do).await?;
        return Err(error);
    }
    copy.commit(ROLLUP, &to_do, true).await
}

async fn copy(from: &Checkpoints, to: &Checkpoints) -> Result<(), CopyError> {
    copy_at(LATER, from, to).await
}

/// All items, without the traces of copies and what they raise.
async fn snapshot(store: &Checkpoints) -> Vec<Item> {
    let mut found = Vec::new();
    for rollup in [ROLLUP, "*"] {
        found.extend(store.store.query(Query::new(rollup, Sorts::All)).await.unwrap());
    }
    for item in &mut found {
        item.retain(|name, _| ![COPY_ID, MOVED_TO, MOVE_ID].contains(&&**name));
        item.retain(|name, _| !name.starts_with("moved_rollup_"));
        if item["sk"] == text("watermark") {
            item.remove("version");
        }
        for value in item.values_mut() {
            if let Value::Texts(texts) = value {
                texts.sort();
            }
        }
    }
    found
}

/// Whether workers may start work here.
async fn is_open(store: &Checkpoints) -> bool {
    let control = store.control().await.unwrap();
    store.watermark(ROLLUP).await.is_ok() && control.refuse_moved(ROLLUP).is_ok()
}

async fn is_there(store: &Checkpoints) -> bool {
    !store.items(ROLLUP).await.unwrap().is_empty()
}

#[tokio::test]
async fn a_copy_has_every_item_and_the_way_back_too() {
    on_each_way(async |from, to| {
        fill(from).await;
        let before = snapshot(from).await;
        copy(from, to).await.unwrap();
        assert_eq!(snapshot(to).await, before);
        assert!(is_open(to).await && !is_open(from).await);
        assert_eq!(before.len(), 11);
        // A second run has nothing to do, and disturbs no work that was done meanwhile.
        let lease = to.claim(&wish(7, LATER)).await.unwrap();
        copy(from, to).await.unwrap();
        to.complete(&lease, &outcome(), at(LATER)).await.unwrap();

        to.store.delete(key(ROLLUP, wish(2, 0).slice_start)).await.unwrap();
        to.set_pause(Scope::Source, None).await.unwrap();
        to.set_pause(
            Scope::Rollup(ROLLUP),
            Some(&Pause { at: at(6), reason: "x".into(), until: None }),
        )
        .await
        .unwrap();
        let changed = snapshot(to).await;
        assert_ne!(changed, before);
        copy(to, from).await.unwrap();
        assert_eq!(snapshot(from).await, changed);
        assert!(is_open(from).await && !is_open(to).await);
        copy(from, to).await.unwrap();
        assert_eq!(snapshot(to).await, changed);
    })
    .await;
}

/// Without them the month's budget would begin anew in the new store.
#[tokio::test]
async fn a_copy_takes_the_workload_units_of_the_month_along_once() {
    on_each_way(async |from, to| {
        fill(from).await;
        let month = at(LATER);
        let spend = async |store: &Checkpoints, units: u32| {
            let (more, all) = (Units::whole(units), Units::whole(1_000));
            let spending = store.spend_workload(more, Units::default(), all, month).await;
            assert_eq!(spending.unwrap(), Spending::Granted);
        };
        let spent = async |store: &Checkpoints| store.workload(month).await.unwrap();
        spend(from, 40).await;
        // Another installation spends in the new store, and a copy was killed before its end.
        spend(to, 5).await;
        let (clock, on) = (ManualClock::new(month), |_: &str, _: u64| ControlFlow::Continue(()));
        let copying = StoreCopy::new(from, to, &clock, &on);
        let CopyStanding::ToDo(to_do) = copying.standing(ROLLUP).await.unwrap() else { panic!() };
        copying.stop(ROLLUP, &to_do).await.unwrap();
        let tombstone = from.store.get(Key::new(ROLLUP, "watermark")).await.unwrap().unwrap();
        let Value::Text(id) = &tombstone[MOVE_ID] else { panic!("{tombstone:?}") };
        for _ in 0..2 {
            to.take_workload(from, id, false, month).await.unwrap();
        }
        copy(from, to).await.unwrap();
        assert_eq!(spent(to).await, Units::whole(45));
        // The way back, with what was spent since.
        spend(to, 3).await;
        copy(to, from).await.unwrap();
        assert_eq!(spent(from).await, Units::whole(48));
        let all = Units::whole(48);
        let more = from.spend_workload(Units::whole(1), Units::default(), all, month).await;
        assert_eq!(more.unwrap(), Spending::Over { spent: all });
    })
    .await;
}

#[tokio::test]
async fn pages_of_different_lengths_are_copied_and_what_is_left_over_goes() {
    on_each_way(async |from, to| {
        let put = async |store: &Checkpoints, slice: i64| {
            let mut item = key(ROLLUP, wish(slice, 0).slice_start).to_item();
            item.insert("attempt".to_owned(), number(slice.unsigned_abs()));
            assert!(store.store.put(item, Cond::Absent).await.unwrap());
        };
        for slice in 0..520 {
            put(from, slice).await;
        }
        copy(from, to).await.unwrap();
        assert_eq!(snapshot(to).await, snapshot(from).await);
        // Only the new store goes on, and loses most of its slices.
        for slice in (0..520).filter(|slice| slice % 100 > 0) {
            to.store.delete(key(ROLLUP, wish(slice, 0).slice_start)).await.unwrap();
        }
        put(to, 900).await;
        copy(to, from).await.unwrap();
        assert_eq!(snapshot(from).await.len(), 9);
        assert_eq!(snapshot(from).await, snapshot(to).await);
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_holds_ends_the_copy_and_the_old_store_goes_on() {
    on_each_way(async |from, to| {
        fill(from).await;
        let lease = from.claim(&wish(7, LATER)).await.unwrap();
        let refused = copy(from, to).await.unwrap_err();
        let CopyError::Leased { slice, worker, until } = &refused else { panic!("{refused}") };
        assert_eq!(*slice, format!("{ROLLUP}@2026-02-10T07:00:00Z"));
        assert!(worker.contains(&format!("pid {}", std::process::id())), "{worker}");
        assert_eq!(*until, lease.until());
        let on = |_: &str, _: u64| ControlFlow::Continue(());
        let clock = ManualClock::new(at(LATER));
        let early = StoreCopy::new(from, to, &clock, &on).refuse_leased(ROLLUP).await;
        assert_eq!(early.unwrap_err().to_string(), refused.to_string());
        assert!(is_open(from).await && !is_open(to).await);
        from.complete(&lease, &outcome(), at(LATER)).await.unwrap();
        from.reopen(ROLLUP, lease.slice_start(), "late data", at(LATER)).await.unwrap();
        let before = snapshot(from).await;
        copy(from, to).await.unwrap();
        assert_eq!(snapshot(to).await, before);
    })
    .await;
}

#[tokio::test]
async fn the_old_store_refuses_whatever_would_be_lost_there() {
    on_each_way(async |from, to| {
        fill(from).await;
        copy(from, to).await.unwrap();
        let (slice, seal) = (wish(0, 0).slice_start, at(0));
        let before = snapshot(from).await;
        let moved = |answer: Result<(), CheckpointError>| {
            let error = answer.unwrap_err();
            assert!(matches!(&error, CheckpointError::Moved { .. }), "{error}");
            assert!(error.to_string().contains(&to.place()), "{error}");
            assert!(error.hint().unwrap().contains(&to.setting()), "{error}");
        };
        moved(from.watermark(ROLLUP).await.map(drop));
        moved(from.reopen(ROLLUP, slice, "late", at(9)).await.map(drop));
        moved(from.lower_watermark(ROLLUP, slice).await.map(drop));
        moved(from.note_sealed(ROLLUP, slice, seal).await);
        moved(from.control().await.unwrap().refuse_moved(ROLLUP));
        assert_eq!(snapshot(from).await, before);
        // Marks stay unacknowledged where a reopening of many slices fails at its end.
        moved(from.reopen_all(ROLLUP, &[slice], "late", at(9)).await);
    })
    .await;
}

#[tokio::test]
async fn checkpoints_of_another_origin_are_never_overwritten() {
    on_each_way(async |from, to| {
        fill(from).await;
        // A slice without a watermark.
        to.claim(&wish(3, 0)).await.unwrap();
        let foreign = |answer: Result<(), CopyError>| {
            let error = answer.unwrap_err();
            assert!(matches!(error, CopyError::Foreign { .. }), "{error}");
        };
        foreign(copy(from, to).await);
        to.bind(ROLLUP, None, &Bond { installation: "other".into(), ..Bond::default() })
            .await
            .unwrap();
        let before = snapshot(to).await;
        foreign(copy(from, to).await);
        assert_eq!(snapshot(to).await, before);
        assert!(is_open(from).await && is_open(to).await);
    })
    .await;
}

/// A worker that had passed its checks before the tombstone was left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_straggler_writes_during_the_copy_is_copied_too() {
    on_each_way(async |from, to| {
        fill(from).await;
        let clock = ManualClock::new(at(LATER));
        let written = Mutex::new(false);
        let (sent, runtime) = (from.clone(), tokio::runtime::Handle::current());
        let on = |_: &str, _: u64| {
            if !std::mem::replace(&mut *written.lock().unwrap(), true) {
                let (store, runtime) = (sent.clone(), runtime.clone());
                let write = move || {
                    runtime.block_on(async {
                        let lease = store.claim(&wish(9, 0)).await.unwrap();
                        store.complete(&lease, &outcome(), at(1)).await.unwrap();
                    });
                };
                std::thread::spawn(write).join().unwrap();
            }
            ControlFlow::Continue(())
        };
        let copy = StoreCopy::new(from, to, &clock, &on);
        let CopyStanding::ToDo(to_do) = copy.standing(ROLLUP).await.unwrap() else { panic!() };
        copy.stop(ROLLUP, &to_do).await.unwrap();
        assert_eq!(copy.fill(ROLLUP, &to_do).await.unwrap().slices, 6);
        copy.commit(ROLLUP, &to_do, true).await.unwrap();
        assert_eq!(snapshot(to).await, snapshot(from).await);
    })
    .await;
}

#[tokio::test]
async fn of_two_copies_at_once_the_later_one_ends() {
    on_each_way(async |from, to| {
        fill(from).await;
        let (clock, before) = (ManualClock::new(at(LATER)), snapshot(from).await);
        let on = |_: &str, _: u64| ControlFlow::Continue(());
        let first = StoreCopy::new(from, to, &clock, &on);
        let CopyStanding::ToDo(to_do) = first.standing(ROLLUP).await.unwrap() else { panic!() };
        first.stop(ROLLUP, &to_do).await.unwrap();
        copy(from, to).await.unwrap();
        to.claim(&wish(1, LATER)).await.unwrap();
        let now = snapshot(to).await;
        for answer in [
            first.fill(ROLLUP, &to_do).await.map(drop),
            first.take_back(ROLLUP, &to_do).await,
            first.stop(ROLLUP, &to_do).await,
        ] {
            let error = answer.unwrap_err();
            assert!(matches!(error, CopyError::Overtaken(_)), "{error}");
        }
        assert!(is_open(to).await && !is_open(from).await);
        assert_eq!((snapshot(to).await, snapshot(from).await), (now, before));
    })
    .await;
}

#[tokio::test]
async fn a_lost_new_store_is_filled_again_and_asks_for_a_repair() {
    on_each_way(async |from, to| {
        fill(from).await;
        copy(from, to).await.unwrap();
        let items = to.items(ROLLUP).await.unwrap();
        to.delete_items(&items).await.unwrap();
        copy(from, to).await.unwrap();
        let seen = to.watermark(ROLLUP).await.unwrap();
        let repair = seen.bond().unwrap().repair.clone().unwrap();
        assert!(repair.contains("a second time"), "{repair}");
    })
    .await;
}
