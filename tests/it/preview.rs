//! `tallymark preview`: what a slice would hold, and what another job's table holds of it.

use chrono::Timelike as _;
use serde_json::json;
use tallymark::model::clock::{Clock as _, SystemClock};

use crate::cli::is_documented;
use crate::support::Database;
use crate::support::cli::{Place, daily, day, execute, lines};

/// A day has a row every six minutes, of three kinds in turn.
const ROWS: u64 = 240;

/// Everything in the target that Tallymark makes.
const MADE: &str = "SELECT nspname FROM pg_namespace WHERE nspname IN ('stats', 'tallymark')";

/// The same counts by another job, in other types.
const OLD: &str = "CREATE TABLE old_daily AS \
    SELECT (at AT TIME ZONE 'UTC')::date AS bucket, kind::varchar AS kind, count(*)::int AS events, \
           sum(amount)::float8 AS revenue, 'x' AS note FROM events GROUP BY 1, 2";

#[tokio::test]
async fn a_slice_is_shown_before_init_and_nothing_is_written() {
    let (place, _database) = Place::with_events(3).await;
    let preview = place.json(&["preview", "daily"]);
    is_documented(&preview, "preview", 0);
    assert_eq!(preview["slice"], format!("daily@{}T00:00:00Z", day(1)));
    assert_eq!((&preview["rows_read"], &preview["groups"]), (&json!(ROWS), &json!(3)));
    let listed = preview["listed"].as_array().unwrap();
    let sql = format!(
        "SELECT sum(amount) FROM events WHERE at >= '{}Z' AND at < '{}Z'",
        day(1).and_hms_opt(0, 0, 0).unwrap(),
        day(0).and_hms_opt(0, 0, 0).unwrap()
    );
    let revenue: f64 = listed.iter().map(|group| group["revenue"].as_f64().unwrap()).sum();
    let whole = &lines(&place.source_url, &sql).await[0];
    assert_eq!(revenue, whole.trim_matches(['(', ')']).parse::<f64>().unwrap());

    let before = format!("{}", day(2));
    let text = place.run(&["preview", "daily", "--slice", &before, "--limit", "2"]).good().out;
    for words in ["240 rows in 3 groups", "nothing was written", "revenue", "… and 1 more group"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    // The statement gives the same groups, and is all that is printed.
    let sql = place.run(&["preview", "daily", "--sql"]).good().out;
    let groups = lines(&place.source_url, sql.trim().trim_end_matches(';')).await;
    assert_eq!(groups.len(), 3, "{sql}");
    let document = place.json(&["preview", "daily", "--sql"]);
    is_documented(&document, "preview", 1);
    let today = place.run(&["preview", "daily", "--slice", &day(0).to_string()]).good().out;
    assert!(today.contains("0 rows in 0 groups") && today.contains("it is not over"), "{today}");
    assert_eq!(lines(&place.target_url, MADE).await, [""; 0]);

    // The largest group is not the first by its dimension.
    place.sql("INSERT INTO events SELECT at, kind, 0 FROM events WHERE kind = 'view'").await;
    let kinds = |document: serde_json::Value| -> Vec<serde_json::Value> {
        let listed = document["listed"].as_array().unwrap().iter();
        listed.map(|group| group["kind"].clone()).collect()
    };
    let all = kinds(place.json(&["preview", "daily"]));
    assert_eq!(json!(all), json!(["click", "view", null]));
    assert_eq!(kinds(place.json(&["preview", "daily", "--limit", "1"])), ["view"]);
    let sql = place.run(&["preview", "daily", "--sql"]).good().out;
    assert!(sql.contains("ORDER BY \"bucket\", \"kind\""), "{sql}");

    place.run(&["preview", "nightly"]).refused(2, &["nightly"]);
    place.run(&["preview", "daily", "--slice", "2020-02-30"]).refused(2, &["--slice"]);
}

/// Wherever the other table is: in the database of the source, or in another one.
#[tokio::test]
async fn another_jobs_table_is_compared_group_by_group() {
    for is_apart in [false, true] {
        let (source, target) = (Database::create().await, Database::create().await);
        let target_url = if is_apart { target.url() } else { source.url() };
        let place = Place::new(&source.url(), &target_url, &daily(3)).await;
        place.seed(3).await;
        if is_apart {
            let seeded = Place::new(&target_url, &target_url, "").await;
            seeded.seed(3).await;
        }
        let change = async |sql: &str| execute(&place.target_url, sql).await;
        change(OLD).await;
        let against = ["preview", "daily", "--against", "public.old_daily"];
        let same = place.json(&against);
        is_documented(&same, "preview", 2);
        let counts = |document: &serde_json::Value| {
            ["equal", "differ", "missing", "extra"].map(|key| document["against"][key].as_u64())
        };
        assert_eq!(counts(&same), [3, 0, 0, 0].map(Some), "{same}");
        assert_eq!(same["against"]["compared"], json!(["events", "revenue"]));

        let day = day(1);
        change(&format!(
            "UPDATE old_daily SET events = events + 1 WHERE bucket = '{day}' AND kind = 'view'"
        ))
        .await;
        change(&format!("DELETE FROM old_daily WHERE bucket = '{day}' AND kind = 'click'")).await;
        change(&format!("INSERT INTO old_daily VALUES ('{day}', 'ghost', 7, 1.5)")).await;
        let ended = place.run(&[&against[..], &["--json"]].concat());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let other = ended.json();
        assert_eq!(counts(&other), [1, 1, 1, 1].map(Some), "{other}");
        let differences = other["against"]["differences"].as_array().unwrap();
        let of = |kind: &str| differences.iter().find(|it| it["key"]["kind"] == kind).unwrap();
        let (view, ghost) = (of("view"), of("ghost"));
        assert_eq!(view["difference"], "differs");
        assert_eq!(
            view["actual"]["events"].as_u64(),
            view["expected"]["events"].as_u64().map(|events| events + 1)
        );
        assert_eq!((&ghost["difference"], &ghost["expected"]), (&json!("extra"), &json!(null)));
        assert_eq!(of("click")["actual"], json!(null));
        let ended = place.run(&against);
        ended.refused(1, &["3 groups of daily@", "not equal"]);
        assert!(
            ended.words().contains("1 equal, 1 differ, 1 missing there, 1 there alone"),
            "{ended:?}"
        );

        change("ALTER TABLE old_daily DROP COLUMN revenue").await;
        let words = place.run(&against).words();
        assert!(words.contains("not compared, as public.old_daily lacks it: revenue"), "{words}");
        change("ALTER TABLE old_daily DROP COLUMN kind").await;
        place.run(&against).refused(2, &["no column for `kind`", "hint: compare with a view"]);
        place
            .run(&["preview", "daily", "--against", "public.none"])
            .refused(2, &["no table public.none"]);
        place.run(&["preview", "daily", "--against", "a.b.c"]).refused(2, &["is not a table"]);
    }
}

#[tokio::test]
async fn days_of_another_zone_are_compared_in_that_zone() {
    let (place, _database) = Place::with_events(4).await;
    let zone = "timezone = \"America/New_York\"\nslice =";
    place.configure(&daily(4).replace("slice =", zone));
    let old = OLD.replace("'UTC'", "'America/New_York'");
    execute(&place.target_url, &old).await;
    let same = place.json(&["preview", "daily", "--against", "old_daily"]);
    assert_eq!((&same["against"]["equal"], &same["groups"]), (&json!(3), &json!(3)), "{same}");
}

#[tokio::test]
async fn a_preview_reads_under_the_limits_of_a_run() {
    let (place, _database) = Place::with_events(20).await;
    // Hours are known without checkpoints.
    let hour = SystemClock.now().hour();
    let hours = format!("quiet_hours = \"{:02}:00-{:02}:00\"", (hour + 23) % 24, (hour + 2) % 24);
    place.configure_source(&format!("{hours}\nnice_ratio = 0"), &daily(20));
    place.run(&["preview", "daily"]).refused(1, &["quiet_hours"]);
    place.configure(&daily(20));
    place.run(&["init"]).good();
    place.run(&["pause", "daily", "--reason", "sale"]).good();
    place.run(&["preview", "daily"]).refused(1, &["paused", "sale"]);
    place.run(&["resume", "daily"]).good();
    place.run(&["preview", "daily"]).good();
    // A table that only a full scan could read.
    place
        .sql(
            "INSERT INTO events SELECT at, repeat('x', 100), 1 FROM events, generate_series(1, 60); \
             ALTER TABLE events RENAME TO indexed; CREATE TABLE events AS TABLE indexed; \
             DROP TABLE indexed; ANALYZE events",
        )
        .await;
    place.run(&["preview", "daily"]).refused(2, &["rollup `daily`", "events"]);
}
