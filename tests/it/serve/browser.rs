//! The console in a real browser: every page and every action at the widths of a phone, a tablet and
//! a screen, in both colour schemes, and on paper. `tests/browser` says what a fault is.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use chrono::Datelike as _;
use serde_json::{Value, json};

use super::console::{OPERATOR, server};
use crate::support::Database;
use crate::support::cli::{Place, day, ended, lines, today};
use crate::support::serving::Server;
use crate::support::share;

/// Where `.ci/run` installs what drives a browser, below the repository.
const BROWSER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/browser");

/// The windows. A run looks through one of them, and a run of everything through all.
const VIEWS: [(u32, &str); 6] =
    [(360, "light"), (360, "dark"), (800, "light"), (800, "dark"), (1400, "light"), (1400, "dark")];

/// Days of visits.
const DAYS: u64 = 130;

/// Visits of a site with good and bad times, and orders that cannot be computed on three days.
const SOURCE: &str = "
    CREATE TABLE visits AS
    SELECT at, (ARRAY['search', 'newsletter', 'direct', 'social'])[1 + (n * 7 % 13) % 4] AS channel,
        (n * 31 % 397)::int AS visitor, (n * 13 % 40)::numeric(10, 2) AS revenue
    FROM generate_series('TODAY'::timestamptz - interval 'DAYS days',
        'TODAY'::timestamptz - interval '1 second', '40 minutes') WITH ORDINALITY AS series (at, n)
    WHERE n * 7919 % 97 < 45 + 25 * sin(n / 40.0) + 20 * sin(n / 500.0);
    CREATE INDEX ON visits (at); ANALYZE visits;
    CREATE VIEW orders AS SELECT at, channel, revenue / CASE
        WHEN (at AT TIME ZONE 'UTC')::date IN ('TODAY'::date - 1, 'TODAY'::date - 2, 'TODAY'::date - 40)
        THEN 0 ELSE 1 END AS revenue FROM visits";

/// The cause of the failures is put right.
const MENDED: &str = "CREATE OR REPLACE VIEW public.orders AS SELECT at, channel, revenue / 1 AS revenue FROM visits";

/// Rollups as a site might have them. `orders_daily` fails on some days, `visits_hourly` is paused,
/// and of `signups_daily` no slice has ended yet.
const ROLLUPS: &str = r#"
[checkpoint]
store = "postgres"
failures_max = 1

[[rollup]]
name = "visits_daily"
from = "public.visits"
time = "at"
start = "MONTH"
slice = "1 day"
group_by = ["channel"]
[rollup.measures]
visits = "count"
revenue = { sum = "revenue" }
visitors = { distinct = "visitor", merge = "exact" }

[[rollup]]
name = "visits_monthly"
from = { rollup = "visits_daily" }
slice = "1 month"
measures = ["visits", "visitors"]

[[rollup]]
name = "orders_daily"
from = "public.orders"
time = "at"
start = "START"
slice = "1 day"
group_by = ["channel"]
[rollup.measures]
orders = "count"
revenue = { sum = "revenue" }

[[rollup]]
name = "visits_hourly"
from = "public.visits"
time = "at"
start = "NEW"
slice = "1 hour"
[rollup.measures]
visits = "count"

[[rollup]]
name = "signups_daily"
from = "public.visits"
time = "at"
start = "TODAY"
slice = "1 day"
[rollup.measures]
signups = "count"
"#;

/// A rollup's longest name, and names that are markup, or run from right to left, or neither.
const LONG: &str = "visits_by_a_name_of_as_many_bytes_as_are_allowed";
const DIMENSION: &str = "קבוצה <script>alert(1)</script>";
const MEASURE: &str = "<img src=x onerror=alert(1)>";

/// The view, its values and the rollup that have them.
const HOSTILE_VIEW: &str = r#"CREATE VIEW public."<b>ביקורים</b> 🦀" AS SELECT at, revenue, (ARRAY[
    '</td><script>alert(1)</script>', 'שלום עולם: 5', '🦀🦀🦀', repeat('long', 60),
    E'\u202Ereversed\u2066', NULL])[1 + visitor % 6] AS "קבוצה <script>alert(1)</script>" FROM visits"#;
const HOSTILE: &str = r#"
[[rollup]]
name = "visits_by_a_name_of_as_many_bytes_as_are_allowed"
from = "public.<b>ביקורים</b> 🦀"
time = "at"
start = "NEW"
slice = "1 day"
group_by = ["קבוצה <script>alert(1)</script>"]
[rollup.measures]
"<img src=x onerror=alert(1)>" = "count"
"סכום" = { sum = "revenue" }
"Umsatz_von_allem_was_es_gibt_und_noch_mehr_davon" = { max = "revenue" }
"#;

/// A reason that is a page of its own, and as long as a form takes.
const REASON: &str = "</p><script>alert(1)</script> קבוצה 🦀 ";

/// The pictures of docs/CLI.md.
const PICTURES: [&str; 5] =
    ["console", "console-calendar", "console-chart", "console-dark", "console-slice"];

/// A text with the days that it names.
fn dated(text: &str) -> String {
    let month = day(60).with_day(1).unwrap();
    let days = [("TODAY", today()), ("START", day(DAYS - 10)), ("MONTH", month), ("NEW", day(2))];
    let text = text.replace("DAYS", &DAYS.to_string());
    days.into_iter().fold(text, |text, (word, day)| text.replace(word, &day.to_string()))
}

fn configure(place: &Place, rollups: &str) {
    place.configure_source("nice_ratio = 0\nslots = 2", &dated(rollups));
}

/// A place with the rollups, computed as far as they can be.
async fn site() -> (Place, Database, Server) {
    let database = Database::create().await;
    let mut place = Place::new(&database.url(), &database.url(), "").await;
    configure(&place, ROLLUPS);
    place.stop_dynamo();
    place.sql(&dated(SOURCE)).await;
    place.run(&["init"]).good();
    place.run(&["pause", "visits_hourly", "--reason", "database upgrade"]).good();
    let server = server(&place);
    server.tick("").is(200);
    place.run(&["backfill", "start", "visits_daily", "--force"]).good();
    (place, database, server)
}

/// A text as a part of an address.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Chromium and its driver. `None`: one of them is not installed.
fn driver() -> Option<Command> {
    let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
    let modules = format!("{BROWSER}/node_modules/playwright-core");
    if ![&*chromium, &*modules].iter().all(|it| Path::new(it).exists()) {
        eprintln!("left out: no Chromium, or no driver in target/browser");
        return None;
    }
    let mut command = Command::new("node");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/look.mjs"));
    command.env("CHROMIUM", chromium).env("NODE_MODULES_OF", format!("{BROWSER}/look.mjs"));
    Some(command)
}

/// Looks through one window. `plan` has what tests/browser/look.mjs lists, without what is the same
/// each time.
fn look(server: &Server, view: (u32, &str), mut plan: Value) -> Option<Value> {
    let all = json!({
        "base": format!("http://{}", server.address), "token": OPERATOR.1,
        "view": { "width": view.0, "scheme": view.1 },
        "pages": [], "prints": [], "act": null, "pictures": [],
    });
    for (key, value) in all.as_object().unwrap() {
        plan.as_object_mut().unwrap().entry(key).or_insert_with(|| value.clone());
    }
    plan["folder"] = format!("{BROWSER}/{}", plan["folder"].as_str().unwrap()).into();
    let ended = ended(driver()?.arg(plan.to_string()));
    let last = ended.out.lines().last().unwrap_or_default();
    let said: Value =
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!(said["problems"], json!([]), "{said:#}");
    Some(said)
}

/// The windows of this run.
fn views() -> impl Iterator<Item = (u32, &'static str)> {
    let drawn = share::order("the windows of the browser", VIEWS.len());
    let count = if share::is_whole() { VIEWS.len() } else { 1 };
    drawn.into_iter().take(count).map(|place| VIEWS[place])
}

/// The pages of a site in trouble, with the status of each.
fn pages() -> Value {
    let (failed, hour) = (day(1), format!("{}T05:00:00Z", day(1)));
    json!([
        ["/", 200],
        ["/rollup/orders_daily", 200],
        [format!("/rollup/orders_daily?slice={failed}T00:00:00Z"), 200],
        [format!("/rollup/orders_daily?line={}", &failed.to_string()[..7]), 200],
        ["/rollup/visits_daily", 200],
        ["/rollup/visits_daily?chart=visits&by=channel", 200],
        ["/rollup/visits_monthly?chart=", 200],
        ["/rollup/visits_monthly", 200],
        ["/rollup/visits_hourly", 200],
        [format!("/rollup/visits_hourly?slice={hour}"), 200],
        ["/rollup/signups_daily", 200],
        ["/rollup/signups_daily?chart=signups", 200],
        ["/rollup/none", 404],
        ["/action/9", 404],
    ])
}

/// The pictures for the documentation.
fn pictures() -> Value {
    let failed = day(1);
    let picture = |file: &str,
                   path: &str,
                   width: u32,
                   height: u32,
                   scheme: &str,
                   at: Option<&str>| {
        json!({ "file": file, "path": path, "width": width, "height": height, "scheme": scheme, "at": at })
    };
    let slice = format!("/rollup/orders_daily?slice={failed}T00:00:00Z");
    let chart = "/rollup/visits_daily?chart=visits&by=channel";
    json!([
        picture("console", "/", 1000, 810, "light", None),
        picture("console-calendar", "/rollup/orders_daily", 360, 560, "light", Some("Calendar")),
        picture("console-chart", chart, 1000, 680, "light", None),
        picture("console-dark", "/rollup/orders_daily", 1000, 690, "dark", None),
        picture("console-slice", &slice, 1000, 760, "light", None),
    ])
}

#[tokio::test]
async fn every_page_and_every_action_work_in_a_browser() {
    if driver().is_none() {
        return;
    }
    let (place, _database, server) = site().await;
    for view in views() {
        let prints = ["/rollup/orders_daily", "/rollup/visits_daily?chart=visits&by=channel"];
        let plan = json!({ "folder": "trouble", "pages": pages(), "prints": prints });
        let said = look(&server, view, plan).unwrap();
        let printed: BTreeMap<String, u32> =
            serde_json::from_value(said["printed"].clone()).unwrap();
        assert!(printed.values().all(|pages| (1..=4).contains(pages)), "{printed:?}");
        assert_eq!(printed.len(), prints.len());
    }
    if share::is_whole() {
        let plan = json!({ "folder": "pictures", "pictures": pictures() });
        look(&server, VIEWS[0], plan).unwrap();
    }
    drop(server);
    place.sql(MENDED).await;
    place.sql(HOSTILE_VIEW).await;
    configure(&place, &format!("{ROLLUPS}{HOSTILE}"));
    place.run(&["init"]).good();
    let server = console_of_strangers(&place).await;
    for view in views() {
        place.run(&["backfill", "start", "orders_daily", "--force"]).good();
        let said = look(
            &server,
            view,
            json!({ "folder": "acts", "pages": strangers(&place), "act": {
            "rollup": "orders_daily", "slice": format!("{}T00:00:00Z", day(1)), "from": day(3),
        } }),
        );
        all_was_done(&said.unwrap()["acted"]);
    }
    let control = place.json(&["status"])["control"].clone();
    assert_eq!(control.as_array().map(Vec::len), Some(2), "the pauses from before: {control}");
    let (counted, truth) = (
        "SELECT sum(orders) FROM stats.orders_daily",
        format!("SELECT count(*) FROM orders WHERE at >= '{}'", day(DAYS - 10)),
    );
    assert_eq!(lines(&place.target_url, counted).await, lines(&place.source_url, &truth).await);
}

/// A server whose rollups and values have names that are none of Tallymark's.
async fn console_of_strangers(place: &Place) -> Server {
    let server = server(place);
    server.tick("").is(200);
    let reason = format!("{REASON}{}", "x".repeat(200));
    place.run(&["pause", LONG, "--backfill", "--reason", &reason]).good();
    server
}

/// The pages of names and values that could break one, and the same as a file.
fn strangers(place: &Place) -> Value {
    let file = place.config().with_file_name("page.html");
    let html = place.run(&["status", "--html", file.to_str().unwrap()]).good();
    assert!(html.out.contains("wrote"), "{html:?}");
    is_one_file(&std::fs::read_to_string(&file).unwrap());
    let rollup = format!("/rollup/{LONG}");
    json!([
        ["/", 200],
        [rollup, 200],
        [format!("{rollup}?slice={}T00:00:00Z", day(1)), 200],
        [format!("{rollup}?chart={}&by={}", encoded(MEASURE), encoded(DIMENSION)), 200],
        [format!("file://{}", file.display()), 200],
    ])
}

/// The page of `status --html`: the chart of each rollup, no script, nothing of another file.
fn is_one_file(page: &str) {
    assert_eq!(page.matches("<figure").count(), 6, "{page}");
    for loaded in ["<script", "src=\"", "href=\"http", "url(", "@import", "<form", "\u{202e}"] {
        assert!(!page.contains(loaded), "{loaded}");
    }
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}

/// Each action did what its command does.
fn all_was_done(acted: &Value) {
    for (action, word) in [
        ("replay by keys", "1 slice succeeded"),
        ("verify", "0 differences"),
        ("replay of all", "done"),
        ("plan", "3 to compute"),
        ("backfill", "3 slices succeeded"),
        ("pause of rollup", "done"),
        ("paused rollup", "seen in the browser"),
        ("resume of rollup", "may go on"),
        ("speed 7 of rollup", "nice_ratio 7"),
        ("speed default of rollup", "as configured"),
        ("pause of all", "done"),
        ("paused all", "seen in the browser"),
        ("resume of all", "may go on"),
        ("speed 7 of all", "nice_ratio 7"),
        ("speed default of all", "as configured"),
        ("cancel", "done"),
        ("wrong speed", "failed"),
        ("refused", "reason"),
        ("overview", "none fails"),
    ] {
        let said = acted[action].as_str().unwrap_or_default();
        assert!(said.contains(word), "{action}: {word}: {acted:#}");
    }
}

#[test]
fn the_documentation_shows_the_pictures_that_the_browser_takes() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = std::fs::read_to_string(docs.join("CLI.md")).unwrap();
    for picture in PICTURES {
        let file = docs.join(format!("{picture}.png"));
        let bytes =
            std::fs::metadata(&file).unwrap_or_else(|error| panic!("{picture}: {error}")).len();
        assert!((1..150_000).contains(&bytes), "{picture}: {bytes} bytes");
        assert!(page.contains(&format!("]({picture}.png)")), "{picture}");
    }
    let taken = pictures();
    let taken: Vec<_> =
        taken.as_array().unwrap().iter().map(|it| it["file"].as_str().unwrap()).collect();
    assert_eq!(taken, PICTURES);
}
