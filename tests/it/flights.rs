//! `examples/flights` with the real binary: the published numbers of nycflights13 come out.

use std::path::Path;
use std::process::{Output, Stdio};

use sqlx::{AssertSqlSafe, FromRow, PgConnection, Row as _};
use tallymark::embedded::dynamodb::EmbeddedDynamo;
use tokio::process::Command;

use crate::support::share::{self, Long};
use crate::support::{Database, cache};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/flights");

/// As load.sh does, but without psql, which some packages of PostgreSQL's server lack.
async fn load(connection: &mut PgConnection) {
    let directory = cache().join("flights");
    let fetched = Command::new("python3")
        .arg(Path::new(EXAMPLE).join("fetch.py"))
        .arg(&directory)
        .status()
        .await
        .expect("python3");
    assert!(fetched.success());
    sqlx::raw_sql(include_str!("../../examples/flights/flights.sql"))
        .execute(&mut *connection)
        .await
        .unwrap();
    let copy = "COPY flights FROM STDIN (FORMAT csv, HEADER, NULL 'NA')";
    let mut sink = connection.copy_in_raw(copy).await.unwrap();
    sink.send(std::fs::read(directory.join("flights.csv")).unwrap()).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 336_776);
}

/// Runs a command of the example, and returns its JSON.
async fn tallymark(
    database: &Database,
    dynamo: &EmbeddedDynamo,
    arguments: &[&str],
) -> serde_json::Value {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_tallymark"))
        .args(["--json", "--config", &format!("{EXAMPLE}/tallymark.toml")])
        .args(arguments)
        .env("SOURCE_DATABASE_URL", crate::support::pooler::pooled(&database.url()))
        .env("AWS_ENDPOINT_URL_DYNAMODB", dynamo.endpoint())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{arguments:?}: {status}\n{stderr}");
    serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

/// The only row of a query.
async fn one<T>(connection: &mut PgConnection, sql: &'static str) -> T
where
    T: for<'r> FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    sqlx::query_as(sql).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn the_flights_of_2013_give_the_published_numbers() {
    if !share::plays(Long::Flights) {
        return;
    }
    let database = Database::create().await;
    let dynamo = EmbeddedDynamo::start(None).await.unwrap();
    let connection = &mut database.connect().await;
    load(connection).await;
    tallymark(&database, &dynamo, &["init"]).await;
    for rollup in ["carrier_daily", "dest_hourly"] {
        let backfill = ["backfill", rollup, "--from", "2013-01-01", "--to", "2014-01-01", "--yes"];
        let report = tallymark(&database, &dynamo, &backfill).await;
        assert_eq!((&report["succeeded"], &report["rows_read"]), (&365.into(), &336_776.into()));
    }
    let report =
        tallymark(&database, &dynamo, &["verify", "--from", "2013-01-01", "--to", "2014-01-01"])
            .await;
    assert_eq!((&report["slices"], &report["differences"]), (&730.into(), &0.into()));

    // As README.md shows them.
    for (sql, flights) in [
        ("bucket = '2013-01-01 00:00 America/New_York'", 842),
        ("carrier = 'UA'", 58_665),
        ("carrier = 'B6'", 54_635),
        ("true", 336_776),
    ] {
        let sql = format!("SELECT sum(flights)::bigint FROM stats.carrier_daily WHERE {sql}");
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), flights);
    }
    let cancelled = "SELECT sum(cancelled)::bigint, sum(flights)::bigint FROM stats.carrier_daily";
    assert_eq!(one::<(i64, i64)>(connection, cancelled).await, (8255, 336_776));
    the_days_on_which_clocks_change_are_right(connection).await;
}

/// Flights by the airlines' date: 908 on the day of 23 hours, 902 on that of 25.
async fn the_days_on_which_clocks_change_are_right(connection: &mut PgConnection) {
    let days = "
        SELECT (slice_start AT TIME ZONE 'America/New_York')::date::text,
               (extract(epoch FROM slice_end - slice_start) / 3600)::int,
               (SELECT sum(flights) FROM stats.carrier_daily WHERE bucket = slice_start)::bigint,
               (SELECT sum(flights) FROM stats.dest_hourly
                WHERE bucket >= slice_start AND bucket < slice_end)::bigint
        FROM tallymark.slice
        WHERE rollup = 'carrier_daily' AND slice_end - slice_start <> '24 hours'
        ORDER BY slice_start";
    let days: Vec<(String, i32, i64, i64)> =
        sqlx::query_as(days).fetch_all(&mut *connection).await.unwrap();
    let expected = [("2013-03-10", 23, 908, 908), ("2013-11-03", 25, 902, 902)];
    assert_eq!(days, expected.map(|(day, hours, a, b)| (day.to_owned(), hours, a, b)));
    // Evening flights at the same local hour, one UTC hour apart, as summer time began in between.
    let hours = "
        SELECT (SELECT sum(flights) FROM stats.dest_hourly WHERE bucket = '2013-03-09T22:00Z')::bigint,
               (SELECT sum(flights) FROM stats.dest_hourly WHERE bucket = '2013-03-10T21:00Z')::bigint,
               (SELECT count(*) FROM flights WHERE scheduled >= '2013-03-09 17:00 America/New_York'
                AND scheduled < '2013-03-09 18:00 America/New_York'),
               (SELECT count(*) FROM flights WHERE scheduled >= '2013-03-10 17:00 America/New_York'
                AND scheduled < '2013-03-10 18:00 America/New_York')";
    let (before, after, expected_before, expected_after): (i64, i64, i64, i64) =
        one(connection, hours).await;
    assert_eq!((before, after), (expected_before, expected_after));
    assert!(before > 0 && after > 0);
}
