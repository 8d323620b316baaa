//! Faults, scripts, the log and the bill.

use std::time::Duration;

use fastrand::Rng;
use tallymark::model::clock::Stopwatch;

use super::super::fake::{Bill, Fault, Moment};
use super::*;

/// The answer to the next request for orders, with a fault.
fn spoiled(fake: &Fake, fault: Fault) -> Reply {
    fake.fail(1, fault);
    get(fake, ORDERS, Some(TOKEN))
}

#[test]
fn errors_of_the_server_come_as_html() {
    let fake = shop_with(1);
    for status in [500, 502, 503, 504] {
        let reply = spoiled(&fake, Fault::Status(status));
        assert_eq!((reply.status, reply.headers["content-type"].as_str()), (status, "text/html"));
    }
    let html = spoiled(&fake, Fault::Html);
    assert_eq!((html.status, html.body.starts_with("<!DOCTYPE")), (200, true));
    assert_eq!(orders(&fake, &[]).count, 1, "a fault ends with its answer");
}

#[test]
fn too_many_requests_may_say_when_to_come_again() {
    let fake = shop();
    for seconds in [None, Some(7)] {
        let reply = spoiled(&fake, Fault::TooMany(seconds));
        let after = reply.headers.get("retry-after").map(|it| it.parse().unwrap());
        assert_eq!((reply.status, after), (429, seconds));
    }
}

#[test]
fn a_page_can_be_shorter_than_it_says() {
    let fake = shop_with(5);
    for (missing, left) in [(2, 3), (5, 0)] {
        let page = spoiled(&fake, Fault::Short(missing)).json()["response"].clone();
        assert_eq!(page["results"].as_array().unwrap().len(), left);
        assert_eq!((&page["count"], &page["remaining"]), (&5.into(), &0.into()));
    }
}

#[test]
fn a_connection_ends_within_a_body_or_before_it() {
    let fake = shop_with(5);
    let cut = spoiled(&fake, Fault::Cut);
    assert!(cut.body.len() < cut.headers["content-length"].parse().unwrap(), "{cut:?}");
    fake.fail(1, Fault::Hangup);
    assert!(ask(&fake, "GET", ORDERS, Some(TOKEN)).is_none());
    assert_eq!(orders(&fake, &[]).count, 5);
}

#[test]
fn answers_are_slow_when_told_so() {
    let fake = shop_with(1);
    let watch = Stopwatch::start();
    fake.take(Duration::from_millis(20));
    assert_eq!(orders(&fake, &[]).count, 1);
    assert!(watch.elapsed() >= Duration::from_millis(20));
    spoiled(&fake, Fault::Slow(Duration::from_millis(40)));
    assert!(watch.elapsed() >= Duration::from_millis(60));
}

#[test]
fn a_redirect_leads_to_another_host() {
    let (fake, other) = (shop(), shop());
    let reply = spoiled(&fake, Fault::Redirect(other.url()));
    assert_eq!((reply.status, reply.headers["location"].clone()), (302, other.url() + ORDERS));
    assert!(other.log().is_empty());
}

#[test]
fn the_date_is_that_of_its_clock_and_may_be_missing() {
    let fake = shop();
    let reply = get(&fake, ORDERS, Some(TOKEN));
    assert_eq!(reply.headers["date"], "Sun, 01 Mar 2026 12:00:00 GMT");
    assert_eq!(spoiled(&fake, Fault::NoDate).headers.get("date"), None);
}

#[test]
fn a_body_can_be_any_other() {
    let fake = shop_with(2);
    let reply = spoiled(&fake, Fault::Body(|body| body.replace("\"count\":2", "\"count\":3")));
    assert_eq!(reply.page().count, 3);
}

#[test]
fn things_change_between_two_requests() {
    let fake = shop_with(1);
    fake.before(2, |app| drop(app.live().create("order", &New::at(ago(0)))));
    fake.after(2, |app| drop(app.live().create("order", &New::at(ago(0)))));
    let counts = [(); 3].map(|()| orders(&fake, &[]).count);
    assert_eq!(counts, [1, 2, 3]);
}

#[test]
fn a_script_sees_each_request_and_one_seed_gives_one_run() {
    let run = |seed: u64| -> Vec<u16> {
        let fake = shop_with(1);
        let mut rng = Rng::with_seed(seed);
        fake.script(move |seen, moment, app| {
            assert!(seen.path.ends_with("/order") && seen.status == 0);
            if moment == Moment::Before && rng.bool() {
                app.live().bulk_create("order", 1, &New::at(ago(0)));
            }
            (moment == Moment::After && rng.u8(..4) == 0).then_some(Fault::Status(503))
        });
        (0..30).map(|_| get(&fake, ORDERS, Some(TOKEN)).status).collect()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
    assert!(run(3).contains(&503) && run(3).contains(&200));
}

#[test]
fn the_bill_is_by_the_prices_of_the_manual() {
    let fake = shop();
    let padding = "ü".repeat(300);
    for _ in 0..100 {
        order(&fake, "Note", text(&padding));
    }
    let page = get(&fake, ORDERS, Some(TOKEN));
    let row = page.json()["response"]["results"][0].to_string().chars().count();
    let expected = Bill {
        calls: 1,
        searches: 1,
        things: 100,
        characters: 100 * row,
        bytes: page.body.len(),
        aggregates: 1,
    };
    assert_eq!(fake.bill(), expected);
    let units = 0.01 + 0.3 + 1.5 + 0.000_003 * (100 * row + page.body.len()) as f64 + 0.2;
    assert!((fake.bill().units() - units).abs() < 1e-9, "{}", fake.bill().units());

    let spent = |act: &dyn Fn()| {
        let before = fake.bill().units();
        act();
        fake.bill().units() - before
    };
    let count = spent(&|| drop(orders(&fake, &[("limit", "1")])));
    assert!((0.525..0.53).contains(&count), "{count}");
    let uncounted =
        spent(&|| drop(orders(&fake, &[("limit", "1"), ("exclude_remaining", "true")])));
    assert!((uncounted - (count - 0.2)).abs() < 0.001, "{uncounted}");
    let refused = spent(&|| drop(get(&fake, ORDERS, Some("another"))));
    assert!((0.01..0.011).contains(&refused), "{refused}");
    let unseen = spent(&|| drop(spoiled(&fake, Fault::TooMany(None))));
    assert!(unseen.abs() < 1e-9, "what did not reach the app: {unseen}");
    let cut = spent(&|| drop(spoiled(&fake, Fault::Cut)));
    assert!(cut > 2.0, "what was lost on its way is paid: {cut}");
}

#[test]
fn the_log_keeps_each_request() {
    let fake = shop_with(1);
    orders(&fake, &[("sort_field", "Created Date")]);
    let id = orders(&fake, &[]).ids()[0].clone();
    let deletion = ask(&fake, "DELETE", &format!("{ORDERS}/{id}"), Some(TOKEN)).unwrap();
    assert_eq!(deletion.status, 405);
    let log = fake.log();
    let seen: Vec<_> = log.iter().map(|it| (it.number, it.method.as_str(), it.status)).collect();
    assert_eq!(seen, [(1, "GET", 200), (2, "GET", 200), (3, "DELETE", 405)]);
    assert_eq!((log[0].path.as_str(), log[0].body), (ORDERS, 0));
    assert_eq!(log[0].query, [("sort_field".to_owned(), "Created Date".to_owned())]);
    assert_eq!(log[0].headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(log[0].headers["host"], fake.url().replace("http://", ""));
}
