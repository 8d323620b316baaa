//! A table that another job keeps is taken over: verified where the source still has its rows, sealed
//! where not, and nothing is lost.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tallymark::check::adopt;
use tallymark::config::parse_table;
use tallymark::work::worker::WorkError;

use crate::capture::tick;
use crate::cli::is_documented;
use crate::interrupt::wait_for;
use crate::series::make;
use crate::support::Database;
use crate::support::cli::{Place, daily, day, end_of, execute, lines};
use crate::support::polls::{killed as killed_after, sweep};
use crate::support::share;
use crate::support::world::{EVENTS, Keeper, Setup, World, clock};

/// Two years, of which the source holds the last 90 days, the first of them in part.
const DAYS: u64 = 730;
const HELD: u64 = 90;

const SEALED: u64 = DAYS - HELD + 1;
const COMMON: u64 = HELD - 1;

const ADOPT: [&str; 4] = ["adopt", "public.daily_stats_to_adopt", "--rollup", "daily_stats"];

const POSTGRES: &str = "[checkpoint]\nstore = \"postgres\"\n";

/// Events of two years, the other job's table of them, and a purge.
async fn place(store: &str) -> (Place, Database) {
    let database = Database::create().await;
    let place = Place::new(&database.url(), &database.url(), &daily(3)).await;
    place.configure(&format!("{store}{}", daily(3)));
    let (today, held) = (day(0), day(HELD));
    place
        .sql(&format!(
            "CREATE TABLE events AS \
             SELECT at, (ARRAY['view', 'click', NULL])[1 + n % 3] AS kind, \
                    (n % 7)::numeric(10, 2) AS amount \
             FROM generate_series('{today}'::timestamptz - interval '{DAYS} days', \
                    '{today}'::timestamptz - interval '1 second', '4 hours') \
                    WITH ORDINALITY AS series (at, n); \
             CREATE INDEX ON events (at); \
             CREATE TABLE daily_stats AS SELECT (at AT TIME ZONE 'UTC')::date AS day, kind, \
                    count(*)::int AS events, sum(amount) AS revenue FROM events GROUP BY 1, 2; \
             CREATE INDEX ON daily_stats (day); \
             DELETE FROM events WHERE at < '{held}'::timestamptz + interval '12 hours'; \
             ANALYZE events"
        ))
        .await;
    (place, database)
}

/// The same with a partition for each month.
fn partitioned(toml: &str) -> String {
    toml.replacen("slice =", "partition_by = \"month\"\nslice =", 1)
}

/// Writes the configuration that `adopt` proposes, and makes the view and the tables.
async fn proposed(place: &Place, store: &str) -> Value {
    let proposal = place.json(&["adopt", "public.daily_stats"]);
    is_documented(&proposal, "adopt", 0);
    let toml = proposal["toml"].as_str().unwrap();
    // With one of the stores the rows come to lie in partitions.
    let toml = if store.is_empty() { partitioned(toml) } else { toml.to_owned() };
    place.configure(&format!("{store}{toml}"));
    execute(&place.target_url, proposal["view"].as_str().unwrap()).await;
    place.run(&["init"]).good();
    proposal
}

const THEIRS: &str =
    "SELECT day::timestamp AT TIME ZONE 'UTC', kind, events::bigint, revenue FROM daily_stats";
const OURS: &str = "SELECT bucket, kind, events, revenue FROM stats.daily_stats";

/// The table of the other job and the rollup's have the same rows.
async fn is_whole(place: &Place, theirs: &[String]) {
    assert_eq!(lines(&place.target_url, THEIRS).await, theirs, "the other table has changed");
    assert_eq!(lines(&place.target_url, OURS).await, theirs);
}

/// Each command passes the adopted slices over by name, and keeps their rows.
async fn is_kept(place: &Place, theirs: &[String]) {
    let plan = place.json(&["plan", "--from", &day(DAYS).to_string(), "--force"]);
    let plan = &plan["rollups"][0];
    assert_eq!((&plan["adopted"], &plan["slices"]), (&json!(SEALED), &json!(COMMON)), "{plan}");
    let verify = place.json(&["verify"]);
    let counts = (&verify["adopted"], &verify["slices"], &verify["differences"]);
    assert_eq!(counts, (&json!(SEALED), &json!(COMMON), &json!(0)), "{verify}");
    let first = day(DAYS).to_string();
    let one = place.json(&["verify", "daily_stats", "--slice", &first]);
    let why = one["pending"][0].to_string();
    assert!(why.contains("taken over from another table"), "{one}");
    let status = place.run(&["status", "--lines", "40"]).good().out;
    assert!(status.contains(&format!("A {SEALED} adopted")), "{status}");
    place.run(&["purgeable", "public.events", "--unseal"]).good();
    place.run(&["replay", "daily_stats", "--slice", &first, "--yes"]);
    place.run(&["backfill", "daily_stats", "--force", "--yes", "--budget", "5m"]).good();
    let run = place.json(&["run"]);
    assert_eq!(run["slices"], json!([]), "{run}");
    is_whole(place, theirs).await;
}

#[tokio::test]
async fn history_without_its_source_is_kept_and_the_rest_is_verified() {
    for store in ["", POSTGRES] {
        let (place, _database) = place(store).await;
        let theirs = lines(&place.target_url, THEIRS).await;
        let proposal = proposed(&place, store).await;
        assert_eq!(
            (&proposal["from"], &proposal["unexplained"]),
            (&json!("public.events"), &json!([]))
        );
        let adopted = place.json(&[&ADOPT[..], &["--yes", "--compare", "1000"]].concat());
        is_documented(&adopted, "adopt", 1);
        let compared = &adopted["compared"];
        assert_eq!((&compared["slices"], &compared["unequal"]), (&json!(COMMON), &json!(0)));
        assert_eq!(adopted["before"], format!("{}T00:00:00Z", day(COMMON)));
        assert_eq!(adopted["taken_over"]["slices"], SEALED, "{adopted}");
        let again = place.json(&[&ADOPT[..], &["--yes", "--compare", "3"]].concat());
        assert_eq!(again["taken_over"], json!({ "slices": 0, "rows": 0 }));
        place.run(&["backfill", "daily_stats", "--yes"]).good();
        is_whole(&place, &theirs).await;
        is_kept(&place, &theirs).await;
        let told = "SELECT state, count(*), min(reason) FROM tallymark.slice_state \
                    WHERE state = 'adopted' GROUP BY 1";
        let state = format!(
            "(adopted,{SEALED},\"its rows were taken over from public.daily_stats_to_adopt\")"
        );
        assert_eq!(lines(&place.target_url, told).await, [state]);
        if store == POSTGRES {
            execute(&place.target_url, "TRUNCATE tallymark.checkpoint").await;
            place.run(&["repair"]).good();
            is_kept(&place, &theirs).await;
        }
    }
}

/// A killed adoption leaves whole slices, and the same command goes on.
#[tokio::test]
async fn an_adoption_that_is_killed_goes_on_and_takes_no_row_twice() {
    for (cell, store) in ["", POSTGRES].into_iter().enumerate() {
        if share::is_drawn("the stores of an adoption that is killed", cell, 2, 1) {
            killed(store).await;
        }
    }
}

async fn killed(store: &str) {
    let (place, _database) = place(store).await;
    let theirs = lines(&place.target_url, THEIRS).await;
    proposed(&place, store).await;
    let middle = day(DAYS - 300);
    // Another transaction has the marker of a slice in the middle, so that the adoption waits there.
    let blocker = format!(
        "BEGIN; INSERT INTO tallymark.slice (rollup, slice_start, slice_end, attempt) \
         VALUES ('daily_stats', '{middle}T00:00Z', '{middle}T00:00Z'::timestamptz + interval '1 day', 1)"
    );
    let mut other = PgConnection::connect(&place.target_url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(blocker)).execute(&mut other).await.unwrap();
    // With a transaction open, nothing tells where the source's rows begin.
    let arguments = [&ADOPT[..], &["--yes", "--compare", "0"]].concat();
    place.run(&arguments).refused(2, &["does not tell where", "hint: give the start"]);
    let before = day(COMMON).to_string();
    let arguments = [&arguments[..], &["--before", &before]].concat();
    let mut command = place.command(&arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND datname = current_database() AND query LIKE '%adopted_from%'";
    // On a machine that stands still, the command may give the lock up before the kill.
    while lines(&place.target_url, waiting).await.is_empty() && child.try_wait().unwrap().is_none()
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let _ = child.kill();
    end_of(&mut child).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    // The server ends the killed process' statement at the latest when it meets the closed connection.
    wait_for(&place, waiting, false).await;
    let taken =
        "SELECT count(*) BETWEEN 1 AND 640 FROM tallymark.slice WHERE adopted_from IS NOT NULL";
    assert_eq!(lines(&place.target_url, taken).await, ["(t)"]);
    // A tick in between computes nothing that is sealed.
    place.run(&["run", "--budget", "2m"]).good();
    place.run(&arguments).good();
    place.run(&["backfill", "daily_stats", "--yes"]).good();
    is_whole(&place, &theirs).await;
}

const WEEKLY: &str = r#"
[[rollup]]
name = "daily"
from = "public.events"
time = "created_at"
start = "2025-12-29"
slice = "1 day"
group_by = ["kind"]
measures = { events = "count" }

[[rollup]]
name = "weekly"
from = { rollup = "daily" }
slice = "1 week"
group_by = []
measures = ["events"]
"#;

/// Four events a day. The source has them from the Sunday of a week on, the other job from a Monday.
const FOUR_A_DAY: &str = "INSERT INTO events (created_at, kind) SELECT at, 'view' \
    FROM generate_series('2026-02-01Z'::timestamptz, '2026-02-10T23:00Z', '6 hours') at; \
    CREATE TABLE theirs AS SELECT at AS bucket, 'view' AS kind, 4::bigint AS events \
    FROM generate_series('2025-12-29Z'::timestamptz, '2026-02-03Z', '1 day') at";

/// What is half, at one instant: days with a marker that lack rows or the seal, rows without a marker,
/// and weeks that are told as complete and are not the sum of their days.
const HALF: &str = "SELECT concat_ws(' ', \
    (SELECT count(*) FROM tallymark.slice m WHERE m.rollup = 'daily' AND m.adopted_from IS NOT NULL \
        AND (m.groups <> (SELECT count(*) FROM stats.daily d JOIN theirs USING (bucket, kind, events) \
                WHERE d.bucket = m.slice_start) \
            OR NOT EXISTS (SELECT FROM tallymark.rollup r WHERE r.rollup = 'daily' \
                AND r.sealed_before > m.slice_start))), \
    (SELECT count(*) FROM stats.daily d WHERE NOT EXISTS (SELECT FROM tallymark.slice m \
        WHERE m.rollup = 'daily' AND m.slice_start = d.bucket AND m.replaced_at IS NOT NULL)), \
    (SELECT count(*) FROM stats.weekly_series('2025-12-29Z', '2026-02-09Z', '1 week') w \
        WHERE w.complete AND w.events <> (SELECT coalesce(sum(d.events), 0) FROM stats.daily d \
            WHERE d.bucket >= w.bucket AND d.bucket < w.bucket + interval '7 days')))";

/// Its tries that met the locks of one that was killed.
const REFUSED_MAX: u32 = 20;

/// Killed at one await after another, with ticks in between.
#[tokio::test]
async fn an_adoption_that_is_killed_at_any_await_leaves_nothing_half() {
    for (cell, keeper) in [Keeper::DynamoDb, Keeper::Target].into_iter().enumerate() {
        if !share::is_drawn("the stores of an adoption that is killed at awaits", cell, 2, 1) {
            continue;
        }
        let clock = Arc::new(clock("2026-02-11T12:00:00Z"));
        let setup = Setup { rollups: WEEKLY, clock, keeper, ..Setup::default() };
        let world = World::new(&format!("{EVENTS}; {FOUR_A_DAY}"), setup).await;
        make(&world).await;
        tick(&world).await;
        tick(&world).await;
        let mut refused = 0;
        let stride = || if share::is_whole() { 1 } else { fastrand::usize(1..25) };
        'sweep: for polls in sweep(1, stride) {
            while let Some(ended) = killed_after(adopted(&world), polls).await {
                let Err(error) = ended else { break 'sweep };
                refused += 1;
                assert!(refused < REFUSED_MAX, "{error}");
            }
            assert_eq!(world.target_value(HALF).await, "0 0 0", "{keeper:?}, {polls} polls");
            if polls % 3 == 0 {
                tick(&world).await;
                assert_eq!(world.target_value(HALF).await, "0 0 0", "{keeper:?}, {polls} polls");
            }
        }
        tick(&world).await;
        let weeks = "SELECT string_agg(events || ' ' || complete, ',') \
            FROM stats.weekly_series('2025-12-29Z', '2026-02-09Z', '1 week')";
        assert_eq!(world.target_value(weeks).await, ["28 true"; 6].join(","), "{keeper:?}");
        assert_eq!(world.target_value(HALF).await, "0 0 0");
    }
}

async fn adopted(world: &World) -> Result<(), WorkError> {
    let (worker, rollup) = (&world.worker, world.rollup());
    let plan = adopt::plan(worker, rollup, &parse_table("public.theirs").unwrap(), None).await?;
    adopt::take_over(worker, rollup, &plan, &|_| {}).await.map(drop)
}

#[tokio::test]
async fn a_table_that_differs_or_does_not_fit_is_refused() {
    const TOTAL: &str = "[[rollup]]\nname = \"total\"\nfrom = { rollup = \"daily_stats\" }\n\
        slice = \"1 month\"\nmeasures = [\"events\"]\n";
    let (place, _database) = place("").await;
    let toml = partitioned(proposed(&place, "").await["toml"].as_str().unwrap());
    place.configure(&format!("{toml}\n{TOTAL}"));
    let coarse = place.run(&["adopt", "public.daily_stats_to_adopt", "--rollup", "total"]);
    coarse.refused(2, &["`total` is no rollup of a table", "hint: adopt the table by the rollup"]);
    place.run(&["init"]).good();
    place.run(&["backfill", "--all", "--yes"]).good();
    let newest = day(1);
    let change =
        |by: &str| format!("UPDATE daily_stats SET events = events {by} WHERE day = '{newest}'");
    execute(&place.target_url, &change("+ 1")).await;
    let refused = place.run(&[&ADOPT[..], &["--yes"]].concat());
    refused.refused(1, &["3 groups", "hint: look with `tallymark preview daily_stats --slice"]);
    let taken = "SELECT count(*) FROM tallymark.slice WHERE adopted_from IS NOT NULL";
    assert_eq!(lines(&place.target_url, taken).await, ["(0)"]);
    place.run(&["adopt", "public.nothing", "--rollup", "daily_stats"]).refused(2, &["no table"]);
    place.run(&["adopt", "public.events", "--rollup", "daily_stats"]).refused(2, &["`bucket`"]);
    let noon = format!("{}T12:00:00Z", day(400));
    place.run(&[&ADOPT[..], &["--before", &noon]].concat()).refused(2, &["no slice starts"]);
    place.run(&[&ADOPT[..], &["--yes", "--accept-differences"]].concat()).good();
    // The day that the source holds in part was computed before.
    assert_eq!(lines(&place.target_url, taken).await, [format!("({})", SEALED - 1)]);
    // What was computed before from days without rows is computed again.
    let months = format!(
        "SELECT state FROM tallymark.slices_of('total', '-infinity', 'infinity') \
         WHERE slice_start < '{}Z' AND state <> 'stale'",
        day(HELD)
    );
    assert_eq!(lines(&place.target_url, &months).await, [""; 0]);
    place.run(&["run"]).good();
    let differing = "SELECT m.bucket FROM stats.total m WHERE m.events IS DISTINCT FROM (SELECT sum(d.events) \
        FROM stats.daily_stats d WHERE d.bucket >= m.bucket AND d.bucket < m.bucket + interval '1 month')";
    assert_eq!(lines(&place.target_url, differing).await, [""; 0]);
    let months = "SELECT count(*) > 20 FROM stats.total";
    assert_eq!(lines(&place.target_url, months).await, ["(t)"]);
}
