//! Each test shows one fact by raw HTTP.

mod pages;
mod rights;
mod rows;
mod searches;
mod spoiled;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tallymark::model::clock::ManualClock;

use super::ask::{Page, Reply, ask, path};
use super::fake::datum::{Datum, text};
use super::fake::{Caller, Fake, Kind, New};

/// The administrator's token.
const TOKEN: &str = "4dm1n-t0ken";

/// The path of the orders in live.
const ORDERS: &str = "/api/1.1/obj/order";

/// The instant of the fake's clock, in milliseconds since 1970: 2026-03-01T12:00:00Z.
const NOW: i64 = 1_772_366_400_000;

/// An instant this long before the clock's.
fn ago(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(NOW).unwrap() - TimeDelta::milliseconds(ms)
}

/// An app without things, with the types of a shop.
fn shop() -> Fake {
    let fake = Fake::start(Arc::new(ManualClock::new(ago(0))), 7);
    fake.app().allow(TOKEN, Caller::Administrator);
    for database in ["live", "test"] {
        let fields = [
            ("Status", Kind::Choice("state")),
            ("Amount", Kind::Number),
            ("Paid?", Kind::YesNo),
            ("Note", Kind::Text),
            ("Due", Kind::Date),
            ("Customer", Kind::User),
            ("Tags", Kind::list_of(Kind::Text)),
        ];
        fake.app().database(database).define("Order", &fields);
    }
    fake
}

/// One with this many orders, one a second until a second ago.
fn shop_with(orders: usize) -> Fake {
    let fake = shop();
    for order in 0..orders {
        let age = i64::try_from(orders - order).unwrap() * 1_000;
        fake.app().live().create("order", &New::at(ago(age)));
    }
    fake
}

/// Creates an order of now with one value.
fn order(fake: &Fake, field: &'static str, value: Datum) -> String {
    fake.app().live().create("order", &New::at(ago(0)).with(field, value))
}

fn get(fake: &Fake, path: &str, token: Option<&str>) -> Reply {
    ask(fake, "GET", path, token).unwrap()
}

/// The page of a search of orders.
fn orders(fake: &Fake, parameters: &[(&str, &str)]) -> Page {
    get(fake, &path(ORDERS, parameters), Some(TOKEN)).page()
}
