//! A mirror by the real binary, against the strict Bubble.

mod changes;
mod commands;
mod exact;
mod follows;
mod large;
mod money;
mod random;
mod refusals;
mod secrecy;

use std::process::Command;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde_json::Value;
use tallymark::model::clock::SystemClock;

use super::fake::datum::{Datum, text, timestamp};
use super::fake::{App, Author, Caller, Fake, Findable, Kind, New, Thing};
use super::model::{Measure, group_by};
use crate::support::Database;
use crate::support::cli::{Ended, Place, day, ended, lines};

/// The administrator's token, which no output holds.
const TOKEN: &str = "s3cret-b0bble-t0ken";

/// Workload units of a month that no test spends.
const PLENTY: u32 = 100_000;

/// Ticks within which all that is due is done.
const TICKS_MAX: u32 = 10;

/// A place whose source is an app: a mirror of its orders, and a rollup of it.
struct Mirrored {
    fake: Fake,
    place: Place,
    database: Database,
    /// Days before today that the mirror holds.
    days: u32,
}

impl Mirrored {
    /// A place with this many days, this budget, and the orders that `fill` creates.
    async fn new(days: u32, units: u32, fill: impl FnOnce(&mut App)) -> Self {
        let mirrored = Self::unset(days, fill).await;
        mirrored.configure("live", units);
        mirrored.run(&["init"]).good();
        mirrored
    }

    /// A place without a configuration.
    async fn unset(days: u32, fill: impl FnOnce(&mut App)) -> Self {
        let fake = Fake::start(Arc::new(SystemClock), 11);
        fake.app().allow(TOKEN, Caller::Administrator);
        for database in ["live", "test"] {
            let fields =
                [("Status", Kind::Choice("state")), ("Amount", Kind::Number), ("Note", Kind::Text)];
            let mut app = fake.app();
            let orders = app.database(database).define("Order", &fields);
            // As in any app with privacy rules.
            orders.public.findable = Findable::Nothing;
        }
        fill(&mut fake.app());
        let database = Database::create().await;
        let place = Place::new(&database.url(), &database.url(), "").await;
        Self { fake, place, database, days }
    }

    fn configure(&self, branch: &str, units: u32) {
        let (app, start) = (self.fake.url(), day(self.days.into()));
        let text = format!(
            "[source]\n\
             bubble = {{ app = \"{app}\", branch = \"{branch}\", token = {{ env = \"BUBBLE_TOKEN\" }} }}\n\
             workload_units_per_month = {units}\n\
             [target]\nurl = {{ env = \"TARGET_DATABASE_URL\" }}\n\
             [checkpoint]\nstore = \"postgres\"\n\
             [[mirror]]\nname = \"orders\"\ntype = \"order\"\nfields = [\"Status\", \"Amount\"]\n\
             start = \"{start}\"\nslice = \"1 day\"\ngrace = \"2 minutes\"\n\
             [[rollup]]\nname = \"orders_daily\"\nfrom = {{ mirror = \"orders\" }}\nslice = \"1 day\"\n\
             group_by = [\"Status\"]\n\
             measures = {{ orders = \"count\", revenue = {{ sum = \"Amount\" }} }}\n"
        );
        std::fs::write(self.place.config(), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        command.env("BUBBLE_TOKEN", TOKEN);
        command
    }

    /// Runs a command to its end, and searches its output for the token.
    fn run(&self, arguments: &[&str]) -> Ended {
        let ended = ended(&mut self.command(arguments));
        assert!(!ended.out.contains(TOKEN) && !ended.err.contains(TOKEN), "{ended:?}");
        ended
    }

    /// One tick's report, and its exit code.
    fn tick(&self) -> (Value, Option<i32>) {
        let ended = self.run(&["run", "--json"]);
        let report = ended.out.lines().any(|line| line.starts_with('{'));
        (if report { ended.json() } else { Value::String(ended.words()) }, ended.code)
    }

    /// Ticks until nothing is left, and returns all reports of slices.
    fn settle(&self) -> Vec<Value> {
        let mut slices = Vec::new();
        for _ in 0..TICKS_MAX {
            let (report, code) = self.tick();
            assert_eq!(code, Some(0), "{report}");
            let done = report["slices"].as_array().unwrap();
            slices.extend(done.clone());
            if done.is_empty() && report["left"] == 0 {
                return slices;
            }
        }
        panic!("there is always more to do: {slices:#?}");
    }

    /// Reads all slices again, and what follows from them.
    fn replay_all(&self) {
        let (from, to) = (day(self.days.into()).to_string(), day(0).to_string());
        self.run(&["replay", "orders", "--from", &from, "--to", &to, "--yes"]).good();
        self.settle();
    }

    /// The things in the mirror's table, each as one line.
    async fn kept(&self) -> Vec<String> {
        let sql = "SELECT concat_ws('|', _id, \
            to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), \
            coalesce(\"Status\", '-'), coalesce(\"Amount\"::text, '-')) FROM stats.orders";
        self.lines(sql).await
    }

    /// The things that the table must hold.
    fn present(&self) -> Vec<String> {
        let mut app = self.fake.app();
        let live = app.live();
        let of = live.named("order").unwrap();
        let [status, amount] = ["Status", "Amount"].map(|name| of.field(name));
        let shown = |value: Option<&Datum>| match value {
            Some(Datum::Text(text)) => text.to_string(),
            Some(Datum::Number(value)) => format!("{value}"),
            _ => "-".to_owned(),
        };
        let (start, end) = (midnight(day(self.days.into())), midnight(day(0)));
        let within = |ms: i64| (start.timestamp_millis()..end.timestamp_millis()).contains(&ms);
        let things = live.things("order").filter(|thing| within(thing.created));
        let line = |thing: &Thing| {
            let (status, amount) = (shown(thing.value(status)), shown(thing.value(amount)));
            format!("{}|{}|{status}|{amount}", thing.id, timestamp(thing.created))
        };
        let mut all: Vec<String> = things.map(line).collect();
        all.sort();
        all
    }

    /// The rollup's groups, each as one line.
    async fn rolled(&self) -> Vec<String> {
        let sql = "SELECT concat_ws('|', (bucket AT TIME ZONE 'UTC')::date, \
            coalesce(\"Status\", '-'), orders, coalesce(revenue::text, '-')) FROM stats.orders_daily";
        self.lines(sql).await
    }

    /// The same by the model.
    fn modelled(&self) -> Vec<String> {
        let date = |ms| DateTime::from_timestamp_millis(ms).unwrap().date_naive().to_string();
        let measures = [Measure::Count, Measure::Sum("Amount")];
        let groups = group_by(self.fake.app().live(), "order", date, &["Status"], &measures);
        let shown = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".to_owned());
        let line = |(group, measures): (&Vec<_>, &Vec<_>)| {
            group.iter().chain(measures).map(shown).collect::<Vec<_>>().join("|")
        };
        let days = day(self.days.into()).to_string()..day(0).to_string();
        let mut all: Vec<String> = groups.iter().map(line).collect();
        all.retain(|line| days.contains(&line[..10].to_owned()));
        all.sort();
        all
    }

    /// Mirror and rollup equal the app's things.
    async fn is_right(&self) {
        let present = self.present();
        assert!(!present.is_empty());
        assert_eq!(self.kept().await, present);
        assert_eq!(self.rolled().await, self.modelled());
    }

    async fn lines(&self, sql: &str) -> Vec<String> {
        let rows = lines(&self.database.url(), sql).await;
        let text = |row: &String| row.trim_matches(['(', ')', '"']).to_owned();
        let mut rows: Vec<String> = rows.iter().map(text).collect();
        rows.sort();
        rows
    }
}

fn midnight(date: NaiveDate) -> DateTime<Utc> {
    date.and_hms_opt(0, 0, 0).unwrap().and_utc()
}

/// The instant this long after the start of the day `days` before today.
fn at(days: u32, ms: i64) -> DateTime<Utc> {
    midnight(day(days.into())) + TimeDelta::milliseconds(ms)
}

/// Creates orders of every kind, evenly over each of the days.
fn orders(app: &mut App, days: u32, each: usize) {
    let slow = Author::new("1700000000000x000000000000000001", -4_071_000);
    let fast = Author::new("1700000000000x000000000000000002", 290_000);
    for day in (0..=days).rev() {
        for number in 0..each {
            let ms = i64::try_from(number * (86_400_000 / each)).unwrap();
            let mut new = New::at(at(day, ms)).by(if number % 3 == 0 { &slow } else { &fast });
            if number % 4 > 0 {
                new = new.with("Status", text(["paid", "open"][number % 2]));
            }
            if number % 5 > 0 {
                let half = if number % 2 == 0 { 0.5 } else { 0.0 };
                new = new.with("Amount", Datum::Number(number as f64 + half));
            }
            app.live().create("order", &new);
        }
    }
}
