//! A mirror of a strict Bubble: what it keeps, what it refuses, and what it pays.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tallymark::check::verify::{self, Compared};
use tallymark::model::clock::{Deadline, ManualClock, SystemClock};
use tallymark::work::late;
use tallymark::work::report::{Outcome, SliceReport};

use super::fake::datum::{Datum, text};
use super::fake::{App, Author, Caller, Door, Fake, Fault, Findable, Kind, Moment, New, Rights};
use super::shop::{DAY, NOW, Shop, TABLES, TOKEN, all, order, run, worker};
use crate::support::Database;
use crate::support::cli::{self, PASSWORD, Place};
use crate::support::world::{BUDGET, instant};

/// An order each second from this one on.
fn orders(from: i64, count: i64) -> Vec<New> {
    (from..from + count).map(order).collect()
}

fn assert_succeeded(report: &SliceReport) {
    assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_keeps_the_things_and_a_rollup_of_it_counts_them() {
    let amount = |second, amount: f64| order(second).with("Amount", Datum::Number(amount));
    let shop = Shop::open(&[
        amount(0, 0.1).with("Status", text("paid")).with("Paid?", Datum::Flag(true)),
        amount(86_399, 0.2).with("Status", text("paid")),
        amount(-1, 7.0),
        order(86_400).with("Status", text("it's \"new\" \\")),
    ])
    .await;
    shop.backfill().await;
    for day in ["2026-02-26", DAY, "2026-02-28"] {
        shop.assert_same(day).await;
    }
    let daily = "SELECT bucket::date, \"Status\", orders, revenue FROM stats.orders_daily";
    let expected =
        ["(2026-02-26,,1,7)", "(2026-02-27,paid,2,0.3)", r#"(2026-02-28,"it's ""new"" \\",1,)"#];
    assert_eq!(shop.rows(daily).await, expected);
    let flags = "SELECT \"Paid?\" FROM stats.orders ORDER BY created_at";
    assert_eq!(shop.rows(flags).await, ["()", "()", "()", "(t)"]);
    let log = shop.fake.log();
    assert!(log.iter().all(|seen| seen.method == "GET" && seen.body == 0));
    assert!(log.iter().all(|seen| !format!("{}{:?}", seen.path, seen.query).contains(TOKEN)));
    assert!(!format!("{:?}", shop.worker).contains(TOKEN));
    // A change in the app reaches both once the slice is read again.
    shop.fake.app().live().create("order", &amount(10, 1.5).with("Status", text("paid")));
    let now = instant(NOW);
    shop.checkpoints.reopen("orders", instant(DAY), "test", now).await.unwrap();
    shop.backfill().await;
    assert_eq!(shop.rows(daily).await[1], "(2026-02-27,paid,3,1.8)");
}

/// By the Swagger file, or by a page of things.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_hides_its_description_is_mirrored_with_the_same_types() {
    let full = order(0)
        .with("Status", text("paid"))
        .with("Amount", Datum::Number(1.5))
        .with("Paid?", Datum::Flag(false))
        .with("Due", Datum::Date(instant(DAY).timestamp_millis()));
    for swagger in [Door::Open, Door::Shut] {
        let orders = [order(1), full.clone()];
        let hide = |app: &mut App| (app.live().meta, app.live().swagger) = (Door::Shut, swagger);
        let shop = Shop::open_as(&orders, TABLES, hide).await;
        shop.backfill().await;
        let types = "SELECT format_type(atttypid, NULL) FROM pg_attribute \
                     WHERE attrelid = 'stats.orders'::regclass AND attnum > 3";
        let expected = ["(\"timestamp with time zone\")", "(boolean)", "(numeric)", "(text)"];
        assert_eq!(shop.rows(types).await, expected, "{swagger:?}");
        assert_eq!(shop.rows("SELECT sum(revenue) FROM stats.orders_daily").await, ["(1.5)"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_meet_at_ties_without_a_loss_and_the_units_are_those_of_the_bill() {
    let mut created = orders(0, 150);
    // More things than a page holds have one time.
    created.extend(std::iter::repeat_n(order(40_000), 230));
    created.extend(orders(50_000, 99));
    let shop = Shop::open(&created).await;
    let before = shop.fake.bill().units();
    let report = shop.run(DAY).await;
    assert_succeeded(&report);
    shop.assert_same(DAY).await;
    let billed = shop.fake.bill().units() - before;
    let counted = serde_json::to_value(&report).unwrap()["workload_units"].as_f64().unwrap();
    assert!((counted / billed - 1.0).abs() < 0.1, "counted {counted}, billed {billed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_budget_yields_and_what_was_staged_is_not_paid_again() {
    let shop = Shop::open(&orders(0, 1_000)).await;
    let small = shop.with_budget(8);
    let report = run(&small, &small.config.rollups[0], DAY).await;
    assert_eq!(report.outcome, Outcome::Yielded, "{report:?}");
    let reason = report.reason.unwrap();
    assert!(reason.contains("workload_units_per_month = 8"), "{reason}");
    let spent = shop.fake.bill().units();
    assert!(spent < 8.0 + 2.4, "{spent}");
    shop.clock.advance(Duration::from_secs(2 * 60 * 60));
    assert_succeeded(&shop.run(DAY).await);
    shop.assert_same(DAY).await;
    let things = shop.fake.bill().things;
    assert!(things < 1_030, "{things} things were paid for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thing_that_is_deleted_between_two_counts_is_no_missing_right() {
    let shop = Shop::open(&orders(0, 50)).await;
    let mut victim = Some(all(&mut shop.fake.app())[5].id.to_string());
    shop.fake.script(move |seen, now, app| {
        let is_strangers =
            seen.path.contains("/obj/") && !seen.headers.contains_key("authorization");
        if is_strangers
            && now == Moment::After
            && let Some(victim) = victim.take()
        {
            app.live().delete("order", &victim);
        }
        None
    });
    assert_succeeded(&shop.run(DAY).await);
    assert_eq!(shop.rows("SELECT count(*) FROM stats.orders").await, ["(49)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn things_that_are_deleted_meanwhile_are_not_kept() {
    let shop = Shop::open(&orders(0, 350)).await;
    let victim = all(&mut shop.fake.app())[5].id.to_string();
    let mut pages = 0;
    shop.fake.script(move |seen, now, app| {
        let is_page = seen.query.iter().any(|(name, value)| name == "limit" && value == "100");
        pages += i32::from(is_page && now == Moment::After);
        if pages == 3 {
            pages += 1;
            app.live().delete("order", &victim);
        }
        None
    });
    assert_succeeded(&shop.run(DAY).await);
    shop.assert_same(DAY).await;
    assert_eq!(shop.rows("SELECT count(*) FROM stats.orders").await, ["(349)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thing_that_appears_after_the_grace_is_told_and_nothing_is_kept() {
    let shop = Shop::open(&orders(0, 250)).await;
    let mut pages = 0;
    shop.fake.script(move |seen, now, app| {
        let is_page = seen.query.iter().any(|(name, value)| name == "limit" && value == "100");
        pages += i32::from(is_page && now == Moment::After);
        if pages == 2 {
            pages += 1;
            app.live().create("order", &order(7));
        }
        None
    });
    let report = shop.run(DAY).await;
    assert_eq!(report.outcome, Outcome::Yielded, "{report:?}");
    let reason = report.reason.unwrap();
    assert!(reason.contains("251 things") && reason.contains("after the grace"), "{reason}");
    assert!(report.hint.unwrap().contains("raise `grace`"));
    assert_eq!(shop.rows("SELECT count(*) FROM stats.orders").await, ["(0)"]);
    shop.clock.advance(Duration::from_secs(60 * 60));
    assert_succeeded(&shop.run(DAY).await);
    shop.assert_same(DAY).await;
}

/// A change that makes the app answer wrongly.
type Spoil = fn(&Shop);

/// Each trap, and what its error says.
const TRAPS: [(&str, Spoil, &str); 14] = [
    ("no token", |shop| shop.fake.app().revoke(TOKEN), "Invalid API token"),
    (
        "a token without rights",
        |shop| {
            let hidden = vec!["Created Date"];
            let rights = Rights { findable: Findable::All, hidden };
            shop.fake.app().live().of("order").users = rights;
            shop.fake.app().allow(TOKEN, Caller::User("1x1".into()));
        },
        "`Created Date`",
    ),
    ("another branch", |shop| shop.fake.app().live().version = "test".into(), "branch `test`"),
    (
        "a token that sees nothing",
        |shop| {
            shop.fake.app().live().of("order").users.findable = Findable::Nothing;
            shop.fake.app().live().of("order").public.findable = Findable::Nothing;
            shop.fake.app().allow(TOKEN, Caller::User("1x1".into()));
        },
        "finds no thing of type `order`",
    ),
    (
        "a token that sees less than a stranger",
        |shop| {
            shop.fake.app().live().of("order").users.findable = Findable::Own;
            shop.fake.app().allow(TOKEN, Caller::User("admin_user_shop_test".into()));
            let by_another = order(30).by(&Author::new("1x2", 0));
            shop.fake.app().live().create("order", &by_another);
        },
        "20 things of type `order` with the token, and 21 without one",
    ),
    (
        "a hidden field",
        |shop| {
            let rights = Rights { findable: Findable::All, hidden: vec!["Amount"] };
            shop.fake.app().live().of("order").users = rights;
            shop.fake.app().allow(TOKEN, Caller::User("1x1".into()));
        },
        "the field `Amount`: the token may not see it",
    ),
    (
        "a renamed field",
        |shop| shop.fake.app().live().of("order").rename_field("Amount", "Total"),
        "no field `Amount`",
    ),
    (
        "switched keys",
        |shop| shop.fake.app().live().has_captions = false,
        "by ID, and `Status` is a name by display",
    ),
    (
        "a type that is not ticked",
        |shop| shop.fake.app().live().of("order").is_ticked = false,
        "Missing object",
    ),
    ("a short page", |shop| shop.fake.fail(6, Fault::Short(3)), "says that it returns"),
    ("no date", |shop| shop.fake.fail(6, Fault::NoDate), "no header `Date`"),
    (
        "a redirect",
        |shop| shop.fake.fail(6, Fault::Redirect("http://127.0.0.2:1".into())),
        "redirects to http://127.0.0.2:1",
    ),
    (
        "another type of values",
        |shop| {
            let body = |body: &str| body.replace("\"Amount\":1", "\"Amount\":\"one\"");
            shop.fake.fail(6, Fault::Body(body));
        },
        "which is no number",
    ),
    (
        "a page that ignores its order",
        |shop| {
            let body = |body: &str| body.replace("T00:00:03.000Z", "T00:00:01.000Z");
            shop.fake.fail(6, Fault::Body(body));
        },
        "ignores the order",
    ),
];

/// Each alone gives an error that names it, and no number.
#[tokio::test(flavor = "multi_thread")]
async fn each_trap_is_an_error_that_names_it_and_keeps_nothing() {
    for (what, spoil, said) in TRAPS {
        let one = |second| order(second).with("Amount", Datum::Number(1.0));
        let shop = Shop::open(&(0..20).map(one).collect::<Vec<_>>()).await;
        spoil(&shop);
        let report = shop.run(DAY).await;
        assert_eq!(report.outcome, Outcome::Failed, "{what}: {report:?}");
        let reason = report.reason.unwrap();
        assert!(reason.contains(said), "{what}: {reason}");
        assert!(report.hint.is_some() && !reason.contains(TOKEN), "{what}: {reason}");
        assert_eq!(shop.rows("SELECT count(*) FROM stats.orders").await, ["(0)"], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_fail_for_a_while_are_asked_for_again() {
    let shop = Shop::open(&orders(0, 250)).await;
    for (nth, fault) in [
        (1, Fault::TooMany(Some(1))),
        (3, Fault::Status(503)),
        (6, Fault::Html),
        (8, Fault::Hangup),
        (10, Fault::Cut),
    ] {
        shop.fake.fail(nth, fault);
    }
    assert_succeeded(&shop.run(DAY).await);
    shop.assert_same(DAY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_is_read_once_the_apps_own_clock_has_passed_its_grace() {
    let shop = Shop::open(&orders(0, 5)).await;
    // The worker's clock runs ahead of the app's by a day.
    let ahead = ManualClock::new(instant("2026-03-02T12:00:00Z"));
    let early = worker(&shop.fake, &shop.url, &shop.checkpoints, &ahead, (20_000, TABLES));
    let report = run(&early, &early.config.rollups[0], "2026-03-01").await;
    assert_eq!(report.outcome, Outcome::Yielded, "{report:?}");
    assert!(report.reason.unwrap().contains("readable at 2026-03-02T00:05:00Z"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_thing_is_found_by_the_count_of_its_slice() {
    let shop = Shop::open(&orders(0, 30)).await;
    shop.backfill().await;
    let mirror = &shop.worker.config.rollups[0];
    let slice = mirror.calendar.starting(instant(DAY)).unwrap();
    let compare = || verify::compare(&shop.worker, mirror, slice, BUDGET, 3);
    assert_eq!(compare().await.unwrap(), Compared::Same);
    let gone = all(&mut shop.fake.app())[3].id.to_string();
    shop.fake.app().live().delete("order", &gone);
    let Compared::Drift(_, found) = compare().await.unwrap() else { panic!("no drift") };
    let found = serde_json::to_value(&found).unwrap();
    assert_eq!(found["differences"], 1, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_any_age_reopens_its_slice_once_and_the_rollup_follows() {
    let amount = |amount: f64| Datum::Number(amount);
    let created = [order(0).with("Amount", amount(1.0)), order(86_400).with("Amount", amount(2.0))];
    let tables = TABLES.replace("grace =", "modified = true\ngrace =");
    let shop = Shop::open_with(&created, &tables).await;
    shop.backfill().await;
    let revenue = "SELECT sum(revenue) FROM stats.orders_daily";
    assert_eq!(shop.rows(revenue).await, ["(3)"]);
    let reopened = async || {
        let deadline = Deadline::after(&*shop.worker.clock, BUDGET);
        assert_eq!(late::notice(&shop.worker, deadline).await.len(), 0);
        let unfinished = shop.checkpoints.unfinished("orders").await.unwrap();
        unfinished.iter().map(|it| it.slice_start).collect::<Vec<_>>()
    };
    assert!(reopened().await.is_empty());
    shop.clock.advance(Duration::from_secs(600));
    let id = all(&mut shop.fake.app())[0].id.to_string();
    let now = shop.worker.clock.now();
    shop.fake.app().live().edit("order", &id, now, &[("Amount", Some(amount(5.0)))]);
    assert!(reopened().await.is_empty(), "a look costs, so there is one an hour");
    shop.clock.advance(Duration::from_secs(2 * 60 * 60));
    assert_eq!(reopened().await, [instant(DAY)]);
    shop.backfill().await;
    assert_eq!(shop.rows(revenue).await, ["(7)"]);
    shop.clock.advance(Duration::from_secs(2 * 60 * 60));
    assert!(reopened().await.is_empty(), "each change is found once");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_knows_a_mirror_and_none_shows_the_token() {
    let fake = Fake::start(Arc::new(SystemClock), 7);
    fake.app().allow(PASSWORD, Caller::Administrator);
    fake.app().live().define("Order", &[("Status", Kind::Text), ("Amount", Kind::Number)]);
    let yesterday = cli::day(1).and_time(chrono::NaiveTime::MIN).and_utc();
    for second in 0..120 {
        let at = yesterday + TimeDelta::seconds(second);
        let new = New::at(at).with("Status", text("paid")).with("Amount", Datum::Number(0.5));
        fake.app().live().create("order", &new);
    }
    let database = Database::create().await;
    let place = Place::new(&database.url(), &database.url(), "").await;
    let tables = TABLES
        .replace("2026-02-26", &cli::day(2).to_string())
        .replace(", \"Paid?\", \"Due\"", "")
        .replace("5 minutes", "1 minute");
    let config = format!(
        "[source]\nbubble = {{ app = \"{}\", token = {{ env = \"BUBBLE_TOKEN\" }} }}\n\
         workload_units_per_month = 1000\n[target]\nurl = {{ env = \"TARGET_DATABASE_URL\" }}\n\
         [checkpoint]\nstore = \"postgres\"\n[scrub]\nslices_per_day = 20\n{tables}",
        fake.url()
    );
    fs::write(place.config(), config).unwrap();
    let run = |arguments: &[&str]| {
        cli::ended(place.command(arguments).env("BUBBLE_TOKEN", PASSWORD)).good()
    };
    let dry = run(&["init", "--dry-run"]).words();
    assert!(dry.contains("CREATE UNIQUE INDEX ON \"stats\".\"orders\" (_id)"), "{dry}");
    run(&["init"]);
    let checked = run(&["check"]).words();
    assert!(checked.contains("the token sees all things of type `order`"), "{checked}");
    let from = cli::day(2).to_string();
    let plan = run(&["plan", "orders", "--from", &from, "--json"]).json();
    let estimate = &plan["rollups"][0]["estimate"];
    assert_eq!(estimate["rows"], 120, "{plan}");
    assert!(estimate["workload_units"].as_f64().unwrap() > 2.0, "{plan}");
    let planned = run(&["plan", "orders", "--from", &from]).words();
    assert!(planned.contains("120 things by the app's count"), "{planned}");
    let ran = run(&["run", "--json"]).json();
    assert!(ran.to_string().contains("workload_units"), "{ran}");
    let sql = "SELECT \"Status\", orders, revenue FROM stats.orders_daily";
    assert_eq!(cli::lines(&database.url(), sql).await, ["(paid,120,60.0)"]);
    let preview = run(&["preview", "orders_daily"]).words();
    assert!(preview.contains("120 rows in 1 group,"), "{preview}");
    let refused = cli::ended(place.command(&["preview", "orders"]).env("BUBBLE_TOKEN", PASSWORD));
    refused.refused(2, &["keeps things as they are", "hint: preview a rollup of it"]);
    run(&["status"]);
    run(&["verify", "orders"]);
    run(&["verify", "orders_daily"]);
    run(&["run"]);
    run(&["repair", "orders"]);
    run(&["backfill", "orders", "--from", &from, "--force", "--yes"]);
    assert!(fake.log().iter().all(|seen| seen.method == "GET"));
}
