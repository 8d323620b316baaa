//! Texts of users and of the source that would end a literal, an identifier, a statement or a
//! buffer, at every place where text enters SQL or an expression of DynamoDB.

use chrono::NaiveDate;
use serde_json::{Value, json};
use tallymark::checkpoint::Scope;
use tallymark::model::clock::{Clock as _, Deadline, SystemClock};
use tallymark::tick;

use crate::support::cli::{Place, day, lines};
use crate::support::fixture::Fixture;
use crate::support::runtime_api::Function;
use crate::support::world::{BUDGET, Setup, World, install_capture, records};

/// The longest of them, far beyond every limit.
const LONG_BYTES: usize = 10_240;

fn hostile() -> Vec<String> {
    [
        "'; DROP TABLE events; --",
        "\"; DROP TABLE events; --",
        "\\'; DROP TABLE events; --",
        "'); DROP TABLE events; /*",
        "$$; DROP TABLE events; $$",
        "a\nb\r\n\tc\x0b\x7f",
        "#pk = :x OR attribute_exists(#pk)",
        ":set_reason, #state = :set_reason",
        "%s %n {0} ${jndi:x} `id` $(id)",
        "\u{202e}é🦀\u{feff}",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(["'\"\\;-".repeat(LONG_BYTES / 5)])
    .collect()
}

/// Rings the bell, sets colours, moves the cursor, reverses the direction, forges a line of output.
const RAW: &str =
    "\u{1b}[2J\u{7}\u{9b}31m\u{8}\u{7f}\r\u{202e}\u{2028}\u{200b}\u{e0041}\nok    forged";

/// Every command of the tests is checked for characters that a terminal obeys
/// (`support::cli::ended`). These commands are given as many as possible.
#[tokio::test]
async fn no_text_of_others_reaches_a_terminal_raw() {
    let (place, _database) = Place::with_events(2).await;
    place.sql(&format!(
        "CREATE VIEW wrong AS SELECT at, kind || E'{0}' AS kind, (kind || E'{0}')::int AS amount \
         FROM events WHERE kind IS NOT NULL; \
         UPDATE events SET kind = kind || E'{0}'", escaped(RAW)
    )).await;
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    place.sql("UPDATE events SET amount = amount + 1").await;
    let verified = place.run(&["verify"]);
    assert_eq!(verified.code, Some(1), "{verified:?}");
    assert!(verified.out.contains("u{9b}31m") || verified.out.contains("u{202e}"), "{verified:?}");
    let found = place.run(&["verify", "--json"]).json();
    let examples = found["drifted"][0]["examples"].as_array().unwrap();
    assert!(
        examples.iter().any(|example| example["key"]["kind"] == format!("click{RAW}")),
        "{found}"
    );

    place.configure(&crate::support::cli::daily(2).replace("public.events", "public.wrong"));
    place.sql("GRANT SELECT ON wrong TO PUBLIC").await;
    place.run(&["init"]);
    for arguments in [
        &["run"][..],
        &["run", "-v"],
        &["run", "-vvv", "--slice", RAW, "daily"],
        &["replay", "daily", "--from", &day(2).to_string(), "--yes", "--reason", RAW],
        &["status"],
        &["pause", "daily", "--reason", RAW],
        &["status"],
        &["run"],
        &["resume", RAW],
        &["resume", "daily", RAW],
        &[RAW],
        &["run", "--budget", RAW],
        &["run", "--via", RAW],
        &["--config", RAW, "status"],
        &["rollup", "rename", "daily", RAW],
        &["rollup", "drop", RAW, "--yes"],
        &["backfill", "daily", "--from", RAW],
        &["capture", "install", "--owner-env", RAW],
        &["check"],
        &["plan"],
        &["completions", RAW],
    ] {
        let ended = place.run(arguments);
        assert!(
            !ended.out.contains("\nok    forged") && !ended.err.contains("\nok    forged"),
            "{ended:?}"
        );
        place.run(&[arguments, &["--json"]].concat());
    }
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        place.run(&["completions", shell]).good();
    }
}

/// `text` within `E''`.
fn escaped(text: &str) -> String {
    text.chars().map(|character| format!("\\U{:08x}", u32::from(character))).collect()
}

const TRUTH: &str = "SELECT date_trunc('day', at, 'UTC') AS bucket, kind, count(*) AS events, \
                     sum(amount) AS revenue FROM events GROUP BY 1, 2";

/// Text typed by an operator. Reasons are kept word for word, and invalid names are refused.
#[tokio::test]
async fn whatever_a_person_types_is_kept_or_refused_and_nothing_else() {
    let (place, _database) = Place::with_events(3).await;
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    let slice = day(2).to_string();
    let start: NaiveDate = day(2);
    let start = start.and_time(chrono::NaiveTime::MIN).and_utc();
    for text in hostile() {
        place.run(&["pause", "daily", "--reason", &text]).good();
        let control = place.checkpoints().control().await.unwrap();
        let pause = control.pause_of(Scope::Rollup("daily"), SystemClock.now()).unwrap();
        assert_eq!(pause.reason, text);
        place.run(&["status"]).good();
        place.run(&["resume", "daily"]).good();
        place.run(&["replay", "daily", "--slice", &slice, "--reason", &text, "--yes"]).good();
        let checkpoint = place.checkpoints().get("daily", start).await.unwrap().unwrap();
        // A reason is kept until the slice has succeeded. Here it has succeeded.
        assert_eq!(checkpoint.reason, None);
        for arguments in [
            &["run", &text][..],
            &["run", "daily", "--slice", &text],
            &["replay", &text, "--failed", "--yes"],
            &["backfill", &text, "--yes"],
            &["backfill", "daily", "--from", &text, "--yes"],
            &["verify", &text],
            &["rollup", "rename", "daily", &text],
            &["run", "--at", &text],
        ] {
            let ended = place.run(arguments);
            assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        }
    }
    // An instant that cannot be written would have stopped all work.
    place.run(&["pause", "--for", "3000000 days", "--reason", "ages"]).good();
    place.run(&["status"]).good();
    place.run(&["resume"]).good();
    place.run(&["verify"]).good();
    let truth = lines(&place.source_url, TRUTH).await;
    let found = "SELECT bucket, kind, events, revenue FROM stats.daily";
    assert_eq!(lines(&place.target_url, found).await, truth);
}

/// The text in each field of an event or a message.
#[tokio::test]
async fn whatever_an_event_says_is_answered_and_changes_nothing_else() {
    let fixture = Fixture::create().await;
    let environment = fixture.environment();
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut function = Function::start(&environment);
    let (tenth, name) = ("2026-02-10T00:00:00Z", "entity_daily");
    function.invoke(&json!({ "trigger": "slice", "rollup": name, "start": tenth })).response();
    // The last is longer than a key of DynamoDB.
    let more = ["a\0b".to_owned(), "é'".repeat(500)];
    for text in hostile().into_iter().chain(more) {
        let refused: [Value; 6] = [
            json!({ "trigger": text, "rollup": name }),
            json!({ "trigger": "slice", "rollup": text, "start": tenth }),
            json!({ "trigger": "slice", "rollup": name, "start": text }),
            json!({ "trigger": "backfill", "rollup": name, "from": text }),
            json!({ "trigger": "backfill", "rollup": name, "from": "2026-02-01", "to": text }),
            json!({ "trigger": "replay", "rollup": name, "start": text, "reason": "x" }),
        ];
        for event in refused {
            let answer = function.invoke(&event);
            assert_eq!(answer.error().0, "EventNotUnderstood", "{event}");
        }
        let is_id = text.len() <= 512;
        for (event, is_right) in [
            (
                json!({ "trigger": "slice", "rollup": name, "start": tenth, "backfill": text }),
                is_id,
            ),
            (
                json!({ "trigger": "replay", "rollup": name, "start": tenth, "reason": text }),
                text.len() <= 2048,
            ),
        ] {
            let answer = function.invoke(&event);
            match is_right {
                true => assert_eq!(answer.response()["slice"]["rollup"], name, "{event}"),
                false => assert_eq!(answer.error().0, "EventNotUnderstood", "{event}"),
            }
        }
        let body = json!({ "trigger": "slice", "rollup": name, "start": tenth, "backfill": text });
        let record = json!({
            "messageId": text, "eventSource": "aws:sqs", "body": body.to_string(),
            "receiptHandle": text, "eventSourceARN": format!("arn:aws:sqs:x:1:{text}"),
            "attributes": { "ApproximateReceiveCount": text, "AWSTraceHeader": text },
        });
        let answer = function.invoke(&json!({ "Records": [record] }));
        let back = answer.response()["batchItemFailures"].as_array().unwrap().len();
        assert_eq!(back, usize::from(!is_id), "{text:?}");
    }
    let output = function.stop();
    assert_eq!(output.stderr, Vec::<String>::new());
    assert_eq!(fixture.drift("2026-02-10Z", "2026-02-11Z").await, 0);
}

/// Names that PostgreSQL allows, of at most 63 bytes.
const NAMES: [&str; 8] = [
    "'; DROP TABLE events; --",
    "\"; DROP TABLE events; --",
    "\\'); DROP TABLE events; /*",
    "$$; DROP TABLE events; $$",
    "two\nlines\r\tand a tab",
    "#pk = :x {0} %s",
    "éééééééééééééééééééééééé",
    "E'\\' || 'x",
];

/// A name in SQL.
fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in TOML, which has JSON's escapes.
fn toml(text: &str) -> String {
    Value::from(text).to_string()
}

/// Each name as table, time column, dimension and measure, and each text as a row's value, with a
/// trigger on the table.
#[tokio::test]
async fn whatever_the_source_names_and_holds_is_counted_and_nothing_else() {
    for across in [false, true] {
        let mut sql = "CREATE TABLE events (n int); CREATE SCHEMA \"a '\"\" b\";".to_owned();
        let mut rollups = String::new();
        for (n, name) in NAMES.iter().enumerate() {
            let table = format!("\"a '\"\" b\".{}", ident(name));
            // A different name for each part of one statement.
            let of = |shift: usize| NAMES[(n + shift) % NAMES.len()];
            let [time, kind, value] = [of(1), of(2), of(3)].map(ident);
            sql += &format!(
                "CREATE TABLE {table} ({time} timestamptz, {kind} text, {value} numeric); \
                 CREATE INDEX ON {table} ({time});"
            );
            rollups += &format!(
                "[[rollup]]\nname = \"r{n}\"\nfrom = {}\ntime = {}\nstart = \"2026-01-01\"\n\
                 slice = \"1 day\"\nlate = \"capture\"\ngroup_by = [{}]\n[rollup.measures]\n{} = \"count\"\n\
                 {} = {{ sum = {}, where = {} }}\n",
                toml(&table),
                toml(of(1)),
                toml(of(2)),
                toml(of(4)),
                toml(of(5)),
                toml(of(3)),
                toml(&format!("{value} > 0")),
            );
        }
        let world = World::new(&sql, Setup { rollups: &rollups, across, ..Setup::default() }).await;
        let values: Vec<String> = NAMES.map(str::to_owned).into_iter().chain(hostile()).collect();
        for (n, rollup) in world.worker.config.rollups.iter().enumerate() {
            let table = tallymark::model::sql::table(&rollup.from);
            let insert = format!(
                "INSERT INTO {table} SELECT '2026-01-01 10:00Z', kind, 2 FROM unnest($1::text[]) kind"
            );
            sqlx::query(sqlx::AssertSqlSafe(insert.clone()))
                .bind(&values)
                .execute(&world.pool)
                .await
                .unwrap();
            let one = world.redefined(
                &rollups
                    .split("[[rollup]]")
                    .nth(n + 1)
                    .map_or_else(String::new, |it| format!("[[rollup]]{it}")),
            );
            install_capture(&one.worker).await;
            let report = one.backfill("2026-01-02", false).await;
            assert_eq!((report.succeeded, report.left), (1, 0), "{report:?}");
            // Late rows, noticed by the trigger.
            sqlx::query(sqlx::AssertSqlSafe(insert))
                .bind(&values)
                .execute(&world.pool)
                .await
                .unwrap();
            let worker = &one.worker;
            let deadline = Deadline::after(&*worker.clock, BUDGET);
            let tick = tick::run(worker, tallymark_end(), deadline, None).await.unwrap();
            assert_eq!(tick.problems.len(), 0, "{:?}", tick.problems);
            let [kind, value] =
                [&*rollup.group_by[0].name, rollup.measures[1].column.as_ref().unwrap().name()]
                    .map(ident);
            let expected = format!(
                "SELECT '2026-01-01Z'::timestamptz, {kind}, count(*), sum({value}) FROM {table} GROUP BY 2"
            );
            let found = records(&world.target, &format!("SELECT * FROM stats.r{n}")).await;
            assert_eq!(found, records(&world.pool, &expected).await, "{}", rollup.name);
            one.assert_verified("2026-01-02").await;
        }
        let is_there =
            records(&world.pool, "SELECT to_regclass('public.events') IS NOT NULL").await;
        assert_eq!(is_there, ["(t)"]);
    }
}

/// The end of the range that the ticks of the test above cover.
fn tallymark_end() -> chrono::DateTime<chrono::Utc> {
    "2026-01-02T12:00:00Z".parse().unwrap()
}

/// The driver would log an unknown option with its value.
#[tokio::test]
async fn a_secret_in_an_option_of_the_address_is_written_nowhere() {
    let (place, _database) = Place::with_events(1).await;
    for option in ["sslpassword", "sslpasswort", "connection_limit", "password=a&sw0rdfish"] {
        let url = format!("{}?{option}=sw0rdfish", place.source_url);
        for arguments in [&["check"][..], &["init"], &["run", "-vvv"], &["status", "--json"]] {
            let mut command = place.command(arguments);
            command.env("SOURCE_DATABASE_URL", &url).env("TALLYMARK_LOG", "trace");
            let ended = crate::support::cli::ended(&mut command);
            assert_eq!(ended.code, Some(2), "{ended:?}");
            assert!(!format!("{ended:?}").contains("sw0rdfish"), "{ended:?}");
        }
    }
}
