//! A mirror holds the things of the app, and rollups are their `GROUP BY`.

use super::super::fake::{Fault, Moment};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_holds_the_things_and_a_rollup_their_group_by() {
    let mirrored = Mirrored::new(3, PLENTY, |app| orders(app, 3, 230)).await;
    mirrored.settle();
    mirrored.is_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn things_at_the_bounds_of_a_slice_are_in_one_slice_each() {
    let fill = |app: &mut App| {
        for days in [3, 2, 1, 0] {
            for ms in [0, 1, 86_399_998, 86_399_999] {
                app.live().bulk_create("order", 3, &New::at(at(days, ms)));
            }
        }
    };
    let mirrored = Mirrored::new(2, PLENTY, fill).await;
    mirrored.settle();
    assert_eq!(mirrored.kept().await.len(), 2 * 4 * 3);
    mirrored.is_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_things_of_one_millisecond_than_a_page_holds_are_all_there() {
    let fill = |app: &mut App| {
        for (ms, count) in [(10, 1), (20, 450), (21, 99), (22, 101), (23, 1)] {
            app.live().bulk_create("order", count, &New::at(at(1, ms)).with("Status", text("x")));
        }
    };
    let mirrored = Mirrored::new(1, PLENTY, fill).await;
    mirrored.settle();
    mirrored.is_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_beyond_the_wall_is_whole() {
    let mirrored = Mirrored::new(1, PLENTY, |app| {
        app.wall = 250;
        orders(app, 1, 1_000);
    })
    .await;
    mirrored.settle();
    mirrored.is_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_by_id_and_nulls_for_empty_fields_make_no_difference() {
    let mirrored = Mirrored::unset(2, |app| {
        orders(app, 2, 120);
        app.live().has_captions = false;
        app.live().shows_nulls = true;
        app.database("test").has_captions = false;
    })
    .await;
    mirrored.configure("live", PLENTY);
    let config = std::fs::read_to_string(mirrored.place.config()).unwrap();
    let config = config
        .replace("[\"Status\", \"Amount\"]", "[\"status_option_state\", \"amount_number\"]")
        .replace("[\"Status\"]", "[\"status_option_state\"]")
        .replace("\"Amount\"", "\"amount_number\"");
    std::fs::write(mirrored.place.config(), config).unwrap();
    mirrored.run(&["init"]).good();
    mirrored.settle();
    let sql = "SELECT concat_ws('|', _id, \
        to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), \
        coalesce(status_option_state, '-'), coalesce(amount_number::text, '-')) FROM stats.orders";
    assert_eq!(mirrored.lines(sql).await, mirrored.present());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_has_its_own_things() {
    let mirrored = Mirrored::unset(1, |app| {
        orders(app, 1, 10);
        let live = app.live().clone();
        *app.database("test") = live;
        app.database("test").version = "test".to_owned();
        app.live().bulk_create("order", 5, &New::at(at(1, 7)));
    })
    .await;
    mirrored.configure("version-test", PLENTY);
    mirrored.run(&["init"]).good();
    mirrored.settle();
    assert_eq!(mirrored.kept().await.len(), 10);
}

/// All that a client can hope to survive in the course of a day.
#[tokio::test(flavor = "multi_thread")]
async fn passing_faults_change_no_number() {
    let mirrored = Mirrored::new(2, PLENTY, |app| orders(app, 2, 350)).await;
    let mut faults = vec![
        Fault::Status(500),
        Fault::TooMany(Some(1)),
        Fault::Status(502),
        Fault::Cut,
        Fault::Status(503),
        Fault::Html,
        Fault::Hangup,
        Fault::Status(504),
        Fault::TooMany(None),
    ];
    mirrored.fake.script(move |seen, moment, _| {
        let is_due = moment == Moment::Before && seen.number % 3 == 0;
        is_due.then(|| faults.pop()).flatten()
    });
    mirrored.settle();
    mirrored.is_right().await;
}
