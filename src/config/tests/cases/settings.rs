//! Mistakes outside of rollups.

use super::Case;

/// `[source]`.
pub(in crate::config::tests) const SOURCE: &[Case] = &[
    (
        "[source]",
        "[checkpoint.source]",
        r#"tallymark.toml: source: missing; add [source] with url = { env = "SOURCE_DATABASE_URL" }
tallymark.toml:1: checkpoint.source: unknown key; use `store`, `table`, `failures_max`"#,
    ),
    ("[source]", "[sauce]", r#"tallymark.toml:1: sauce: unknown key; did you mean `source`?"#),
    (
        "chunk_time",
        "chunktime",
        r#"tallymark.toml:3: source.chunktime: unknown key; did you mean `chunk_time`?"#,
    ),
    (
        "chunk_time = \"250ms\"",
        "slots = 0\nmax_load = { activ = 40 }\nwindow = \"22-6\"\nthrottle_query = \"SELECT 1; SELECT 2\"",
        r#"tallymark.toml:3: source.slots: expected an integer from 1 to 64, found 0
tallymark.toml:4: source.max_load.activ: unknown key; did you mean `active`?
tallymark.toml:5: source.window: "22-6" are not hours of a day; write hours such as "22:00-06:00"
tallymark.toml:6: source.throttle_query: contains `;`; write one condition, not statements"#,
    ),
    (
        "chunk_time = \"250ms\"",
        "nice_ratio = \"fast\"\nnice_min = 31",
        r#"tallymark.toml:3: source.nice_ratio: "fast" is no nice_ratio; write "auto" or a number from 0 to 100
tallymark.toml:4: source.nice_min: expected a number from 0 to 30, found 31"#,
    ),
    (
        "\"250ms\"",
        "250",
        r#"tallymark.toml:3: source.chunk_time: expected a duration such as "500ms", "30s", "2 minutes" or "1 hour", found an integer"#,
    ),
    (
        "\"250ms\"",
        "\"quick\"",
        r#"tallymark.toml:3: source.chunk_time: "quick" is not a duration; write one such as "500ms", "30s", "2 minutes" or "1 hour""#,
    ),
    (
        "\"250ms\"",
        "\"2 minutes\"",
        r#"tallymark.toml:3: source.chunk_time: "2 minutes" is out of range; use 10ms to 60s"#,
    ),
    (
        "\"250ms\"",
        "\"9 ms\"",
        r#"tallymark.toml:3: source.chunk_time: "9 ms" is out of range; use 10ms to 60s"#,
    ),
    (
        "url = { env = \"SOURCE_DATABASE_URL\" }\n",
        "",
        r#"tallymark.toml:1: source.url: missing; write url = { env = "SOURCE_DATABASE_URL" }"#,
    ),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "{ env = \"SOURCE_URL\" }",
        r#"tallymark.toml:2: source.url.env: the environment variable SOURCE_URL is not set or empty; export SOURCE_URL=postgres://user:password@host:5432/database"#,
    ),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "{ env = \"EMPTY\" }",
        r#"tallymark.toml:2: source.url.env: the environment variable EMPTY is not set or empty; export EMPTY=postgres://user:password@host:5432/database"#,
    ),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "{ env = \"OTHER\" }",
        r#"tallymark.toml:2: source.url.env: in the environment variable OTHER, the address begins with neither postgres:// nor postgresql://; write postgres://user:password@host:5432/database"#,
    ),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "{ env = \"postgres://app:hunter2@db/x\" }",
        r#"tallymark.toml:2: source.url.env: the value (not shown: it may hold a password) is not the name of an environment variable; use letters, digits and _"#,
    ),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "{ env = \"1 X\" }",
        r#"tallymark.toml:2: source.url.env: "1 X" is not the name of an environment variable; use letters, digits and _"#,
    ),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "{ en = \"SOURCE_DATABASE_URL\" }",
        r#"tallymark.toml:2: source.url.en: unknown key; did you mean `env`?"#,
    ),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "{ parameter = \"postgres://app:hunter2@db/x\" }",
        r#"tallymark.toml:2: source.url.parameter: not a name; write for example "/app/db""#,
    ),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "{ secret = \"arn\", env = \"SOURCE_DATABASE_URL\" }",
        r#"tallymark.toml:2: source.url.secret: give one of env, parameter and secret"#,
    ),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "{}",
        r#"tallymark.toml:2: source.url.env: missing; write { env = "NAME" }"#,
    ),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "5",
        r#"tallymark.toml:2: source.url: expected { env = "NAME" } or a string "postgres://…", found an integer"#,
    ),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "\"app:hunter2@db\"",
        r#"tallymark.toml:2: source.url: the address begins with neither postgres:// nor postgresql://; write postgres://user:password@host:5432/database"#,
    ),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "\"postgres://app:hun/ter2@db/x\"",
        r#"tallymark.toml:2: source.url: the address has `@` or `#` after the host; write special characters of the password as %40 (@), %2F (/), %3F (?), %23 (#)"#,
    ),
];

/// `[target]` and `[checkpoint]`.
pub(in crate::config::tests) const TARGET: &[Case] = &[
    (
        "[target]",
        "[[target]]",
        r#"tallymark.toml:5: target: expected a table: [target], found an array"#,
    ),
    (
        "\"numbers\"",
        "\"tallymark\"",
        r#"tallymark.toml:7: target.schema: "tallymark" is where the markers are; use another such as "stats""#,
    ),
    (
        "\"numbers\"",
        "\"pg_stats\"",
        r#"tallymark.toml:7: target.schema: "pg_stats" is reserved by PostgreSQL; use another such as "stats""#,
    ),
    (
        "\"numbers\"",
        "\"\"",
        r#"tallymark.toml:7: target.schema: "" is empty; write the name as PostgreSQL stores it"#,
    ),
    (
        "\"numbers\"",
        "1.5",
        r#"tallymark.toml:7: target.schema: expected the name of a schema such as "stats", found a float"#,
    ),
    (
        "\"numbers\"",
        "\"a23456789012345678901234567890123456789012345678901234567890123x\"",
        r#"tallymark.toml:7: target.schema: "a23456789012345678901234567890123456789012345678901234567890123x" is longer than the 63 bytes that PostgreSQL keeps of a name; shorten it"#,
    ),
    (
        "schema =",
        "auth = \"iam\"\nschema =",
        r#"tallymark.toml:7: target.auth: "iam" is unknown; use "password" or "rds-iam""#,
    ),
    (
        "url = { env = \"TARGET_DATABASE_URL\" }",
        "auth = \"rds-iam\"",
        r#"tallymark.toml:6: target.auth: there is no url beside it; write it beside the url that it is for"#,
    ),
    (
        "chunk_time = \"250ms\"",
        "auth = \"rds-iam\"",
        r#"tallymark.toml:3: source.auth: "rds-iam" logs in by tokens, and the address has a password; remove the password from the address"#,
    ),
    (
        "url = { env = \"TARGET_DATABASE_URL\" }",
        "url = \"postgres://app@db/x?sslmode=disable\"\nauth = \"rds-iam\"",
        r#"tallymark.toml:7: target.auth: a login by tokens needs TLS, and the address has sslmode=disable; remove sslmode from the address"#,
    ),
    ("schema", "shema", r#"tallymark.toml:7: target.shema: unknown key; did you mean `schema`?"#),
    (
        "failures_max = 3",
        "failures_max = 0",
        r#"tallymark.toml:11: checkpoint.failures_max: expected an integer from 1 to 100, found 0"#,
    ),
    (
        "failures_max = 3",
        "failures_max = \"3\"",
        r#"tallymark.toml:11: checkpoint.failures_max: expected an integer from 1 to 100, found a string"#,
    ),
    (
        "failures_max = 3",
        "failures_max = 99999999999999999999",
        r#"tallymark.toml:11: checkpoint.failures_max: expected an integer from 1 to 100, found 99999999999999999999"#,
    ),
    (
        "failures_max = 3",
        "colour = 3",
        r#"tallymark.toml:11: checkpoint.colour: unknown key; use `store`, `table`, `failures_max`"#,
    ),
    (
        "\"tallymark-test\"",
        "\"t!\"",
        r#"tallymark.toml:10: checkpoint.table: "t!" is not a DynamoDB table name; use 3 to 255 of a-z A-Z 0-9 _ - ."#,
    ),
    (
        "table = \"tallymark-test\"",
        "store = \"postgers\"",
        r#"tallymark.toml:10: checkpoint.store: "postgers" is unknown; did you mean "postgres"?"#,
    ),
    (
        "table = \"tallymark-test\"",
        "store = \"sqlite\"",
        r#"tallymark.toml:10: checkpoint.store: "sqlite" is unknown; use "dynamodb" or "postgres""#,
    ),
    (
        "table = \"tallymark-test\"",
        "store = 1",
        r#"tallymark.toml:10: checkpoint.store: expected "dynamodb" or "postgres", found an integer"#,
    ),
    (
        "failures_max = 3",
        "store = \"postgres\"",
        r#"tallymark.toml:10: checkpoint.table: names a table in DynamoDB; remove it, as store = "postgres" keeps checkpoints in the table tallymark.checkpoint of the target"#,
    ),
    (
        "name = \"hits\"",
        "name = \"entity_daily_series\"",
        r#"tallymark.toml:37: rollup.entity_daily_series.name: "entity_daily_series" is the name of the series of `entity_daily`; choose another"#,
    ),
];

/// `[scrub]`.
pub(in crate::config::tests) const SCRUB: &[Case] = &[
    (
        "slices_per_day = 20",
        "slices_per_day = 0",
        r#"tallymark.toml:45: scrub.slices_per_day: expected an integer from 1 to 10000, found 0"#,
    ),
    (
        "slices_per_day = 20",
        "slices_per_day = 10001",
        r#"tallymark.toml:45: scrub.slices_per_day: expected an integer from 1 to 10000, found 10001"#,
    ),
    (
        "slices_per_day = 20\n",
        "",
        r#"tallymark.toml:44: scrub.slices_per_day: missing; write slices_per_day = 20"#,
    ),
    (
        "repair = true",
        "repair = \"yes\"",
        r#"tallymark.toml:46: scrub.repair: expected true or false, found a string"#,
    ),
    (
        "repair = true",
        "repare = true",
        r#"tallymark.toml:46: scrub.repare: unknown key; did you mean `repair`?"#,
    ),
];

/// `[notify]`.
pub(in crate::config::tests) const NOTIFY: &[Case] = &[
    (
        "[scrub]",
        "[notify]\n[scrub]",
        r#"tallymark.toml:44: notify.url: missing; write url = { env = "SLACK_WEBHOOK_URL" }"#,
    ),
    (
        "[scrub]",
        "[notify]\nurll = 1\n[scrub]",
        r#"tallymark.toml:45: notify.urll: unknown key; did you mean `url`?"#,
    ),
    (
        "[scrub]",
        "[notify]\nurl = \"https://hooks.slack.com/hunter2\"\nping = \"https://hc-ping.com/hunter2\"\n[scrub]",
        r#"tallymark.toml:45: notify.url: who knows the address may write to it, and it stands in a file; keep it elsewhere: url = { env = "SLACK_WEBHOOK_URL" }
tallymark.toml:46: notify.ping: who knows the address may write to it, and it stands in a file; keep it elsewhere: ping = { env = "PING_URL" }"#,
    ),
    (
        "[scrub]",
        "[notify]\nurl = { env = \"OTHER\" }\nformat = \"teams\"\n[scrub]",
        r#"tallymark.toml:45: notify.url.env: in the environment variable OTHER, the address holds a login, which is not sent; copy the whole address, which begins with https://
tallymark.toml:46: notify.format: "teams" is unknown; use "slack", which Mattermost and others take too, or "json""#,
    ),
    (
        "[scrub]",
        "[notify]\nurl = { parameter = \"/app/hook\" }\nconsole = \"tally.example.com/x\"\n[scrub]",
        r#"tallymark.toml:46: notify.console: is no address of a console; write scheme and host of `tallymark serve` such as "https://tally.example.com""#,
    ),
    (
        "[scrub]",
        "[notify]\nping = { parameter = \"/app/ping\" }\nformat = \"json\"\n[scrub]",
        r#"tallymark.toml:46: notify.format: there is no url beside it; write it beside the url it is for"#,
    ),
];

/// TOML itself.
pub(in crate::config::tests) const SYNTAX: &[Case] = &[
    (
        "url = { env = \"SOURCE_DATABASE_URL\" }",
        "url = \"postgres://app:hunter2@db/x",
        r#"tallymark.toml:2: not TOML: invalid basic string, expected `"`"#,
    ),
    (
        "[checkpoint]",
        "[target]",
        r#"tallymark.toml:9: not TOML: a key or table is there twice; remove one"#,
    ),
    ("[source]", "[source", r#"tallymark.toml:1: not TOML: unclosed table, expected `]`"#),
    (
        "\"numbers\"",
        "\"numbers",
        r#"tallymark.toml:7: not TOML: invalid basic string, expected `"`"#,
    ),
    (
        "\"numbers\"",
        "numbers",
        r#"tallymark.toml:7: not TOML: not a value; put text in double quotes"#,
    ),
    (
        "failures_max = 3",
        "failures_max = 3\nfailures_max = 4",
        r#"tallymark.toml:12: not TOML: a key or table is there twice; remove one"#,
    ),
    (
        "lookback = 2",
        "lookback =",
        r#"tallymark.toml:22: not TOML: not a value; put text in double quotes"#,
    ),
];
