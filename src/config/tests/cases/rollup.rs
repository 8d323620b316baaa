//! Mistakes in rollups.

use super::Case;

/// `[[rollup]]`.
pub(in crate::config::tests) const ROLLUP: &[Case] = &[
    (
        "[[rollup]]\nname = \"hits\"",
        "[[rollups]]\nname = \"hits\"",
        r#"tallymark.toml:36: rollups: unknown key; did you mean `rollup`?"#,
    ),
    (
        "from = \"hits\"",
        "from = \"\\u0000\"",
        r#"tallymark.toml:38: rollup.hits.from: "\0" contains a NUL character; remove it"#,
    ),
    (
        "slice = \"1 day\"\nbucket = \"1 hour\"",
        "slice = \"1 week\"",
        r#"tallymark.toml:17: rollup.entity_daily.start: 2025-01-01T00:00:00Z is not the start of a slice; the neighbours are 2024-12-30T00:00:00Z and 2025-01-06T00:00:00Z"#,
    ),
    (
        "slice = \"1 day\"\nbucket = \"1 hour\"",
        "slice = \"1 month\"\nbucket = \"1 week\"",
        r#"tallymark.toml:19: rollup.entity_daily.bucket: "1 week" does not divide the slice of "1 month"; use one that does, or remove the key"#,
    ),
    (
        "slice = \"1 day\"\nbucket = \"1 hour\"",
        "slice = \"1 week\"\nbucket = \"3 minutes\"",
        r#"tallymark.toml:19: rollup.entity_daily.bucket: "3 minutes" cuts the slice of "1 week" into more than 3000 buckets; use a wider bucket or a narrower slice"#,
    ),
    (
        "slice = \"1 day\"\nbucket = \"1 hour\"",
        "slice = \"1 day\"\nweek_start = \"sunday\"",
        r#"tallymark.toml:19: rollup.entity_daily.week_start: neither slice nor bucket is a week; remove the key"#,
    ),
    (
        "slice = \"1 day\"\nbucket = \"1 hour\"",
        "slice = \"1 week\"\nweek_start = \"Sunday\"",
        r#"tallymark.toml:19: rollup.entity_daily.week_start: "Sunday" is not a day of the week; did you mean `sunday`?"#,
    ),
    (
        "bucket = \"1 hour\"",
        "bucket = \"1 hour\"\nbucket_as = \"date\"",
        r#"tallymark.toml:20: rollup.entity_daily.bucket_as: several buckets of "1 hour" have the same date; set bucket to 1 day or wider, or remove the key"#,
    ),
    (
        "bucket = \"1 hour\"",
        "bucket_as = \"day\"",
        r#"tallymark.toml:19: rollup.entity_daily.bucket_as: "day" is not a type of a bucket; use "timestamptz" or "date""#,
    ),
    (
        "slice = \"1 hour\"",
        "slice = \"5 months\"",
        r#"tallymark.toml:41: rollup.hits.slice: `5 months` does not divide a year exactly; write `4 months` or `6 months`"#,
    ),
    (
        "slice = \"1 hour\"",
        "slice = \"25 hours\"",
        r#"tallymark.toml:41: rollup.hits.slice: `25 hours` is longer than a day; write `1 day`, `1 week` or `1 month`"#,
    ),
    (
        "[\"entity_id\", \"kind\"]",
        "[\"slice_start\", \"__rows\"]",
        r#"tallymark.toml:25: rollup.entity_daily.group_by[0]: the column "slice_start" is already taken by the stage's key; leave it out, or read from a view in which it has another name
tallymark.toml:25: rollup.entity_daily.group_by[1]: the column "__rows" begins with `__`, as Tallymark's own do; leave it out, or read from a view in which it has another name"#,
    ),
    (
        "late = \"grace\"",
        "later = \"grace\"",
        r#"tallymark.toml:23: rollup.entity_daily.later: unknown key; did you mean `late`?"#,
    ),
    (
        "late = \"grace\"",
        "late = true",
        r#"tallymark.toml:23: rollup.entity_daily.late: expected "grace", "clock", "capture", or { column = "updated_at" } with an indexed change time, found a boolean"#,
    ),
    (
        "time = { column = \"at_ms\", unit = \"milliseconds\" }",
        "time = { column = \"at_ms\", tz = \"UTC\" }",
        r#"tallymark.toml:39: rollup.hits.time.tz: unknown key; use `column`, `zone`, `unit`"#,
    ),
    (
        "name = \"hits\"",
        "name = \"Hits\"",
        r#"tallymark.toml:37: rollup[1].name: "Hits" cannot name a table; use a-z, 0-9 and _, and begin with a letter"#,
    ),
    (
        "name = \"hits\"\n",
        "",
        r#"tallymark.toml:36: rollup[1].name: missing; write name = "entity_daily""#,
    ),
    (
        "name = \"hits\"",
        "name = \"entity_daily\"",
        r#"tallymark.toml:37: rollup.entity_daily.name: "entity_daily" is the name of an earlier rollup; choose another"#,
    ),
    (
        "name = \"hits\"",
        "name = \"a234567890123456789012345678901234567890123456789\"",
        r#"tallymark.toml:37: rollup.a234567890123456789012345678901234567890123456789.name: the name has 49 bytes; 48 is the most"#,
    ),
    (
        "from = \"hits\"",
        "from = \"a.b.c\"",
        r#"tallymark.toml:38: rollup.hits.from: "a.b.c" is not a table; write schema.name, and a part with dots or quotes in double quotes"#,
    ),
    (
        "from = \"hits\"",
        "from = \"a.\"",
        r#"tallymark.toml:38: rollup.hits.from: "a." is not a table; write schema.name, and a part with dots or quotes in double quotes"#,
    ),
    (
        "from = \"hits\"",
        "from = ['a']",
        r#"tallymark.toml:38: rollup.hits.from: expected a table such as "public.events", found an array"#,
    ),
    (
        "from = \"hits\"",
        "form = \"hits\"",
        r#"tallymark.toml:38: rollup.hits.form: unknown key; did you mean `from`?"#,
    ),
    (
        "\"at_ms\", unit",
        "\"at_ms\", zone = \"UTC\", unit",
        r#"tallymark.toml:39: rollup.hits.time.unit: an integer column has no zone; remove `zone` or `unit`"#,
    ),
    (
        "\"milliseconds\"",
        "\"ms\"",
        r#"tallymark.toml:39: rollup.hits.time.unit: "ms" is not a unit; use "seconds" or "milliseconds""#,
    ),
    (
        "\"Europe/Berlin\"",
        "\"Europe/Berlni\"",
        r#"tallymark.toml:16: rollup.entity_daily.time.zone: "Europe/Berlni" is not a time zone; did you mean `Europe/Berlin`?"#,
    ),
    (
        "timezone = \"UTC\"",
        "timezone = \"berlin\"",
        r#"tallymark.toml:20: rollup.entity_daily.timezone: "berlin" is not a time zone; did you mean `Europe/Berlin`?"#,
    ),
    (
        "timezone = \"UTC\"",
        "timezone = \"Mars/Olympus_Mons\"",
        r#"tallymark.toml:20: rollup.entity_daily.timezone: "Mars/Olympus_Mons" is not a time zone; use an IANA name such as `Europe/Berlin`"#,
    ),
    (
        "time = { column = \"at_ms\", unit = \"milliseconds\" }",
        "time = { unit = \"seconds\" }",
        r#"tallymark.toml:39: rollup.hits.time.column: missing; write { column = "created_at" }"#,
    ),
    (
        "time = { column = \"at_ms\", unit = \"milliseconds\" }",
        "time = 5",
        r#"tallymark.toml:39: rollup.hits.time: expected a column such as "created_at", or { column = "created_at" }, found an integer"#,
    ),
    (
        "start = \"2025-01-01\"",
        "start = \"January\"",
        r#"tallymark.toml:17: rollup.entity_daily.start: `January` is not a date or time; write `2025-01-01` or `2025-01-01T06:00` (in UTC), or `2025-01-01T06:00:00Z`, or with an offset `2025-01-01T06:00:00+01:00`"#,
    ),
    (
        "start = \"2025-01-01\"",
        "start = \"2025-01-01T12:30:00Z\"",
        r#"tallymark.toml:17: rollup.entity_daily.start: 2025-01-01T12:30:00Z is not the start of a slice; the neighbours are 2025-01-01T00:00:00Z and 2025-01-02T00:00:00Z"#,
    ),
    (
        "start = 2025-01-01",
        "start = 2025-01-01T00:30:00Z",
        r#"tallymark.toml:40: rollup.hits.start: 2025-01-01T00:30:00Z is not the start of a slice; the neighbours are 2025-01-01T00:00:00Z and 2025-01-01T01:00:00Z"#,
    ),
    (
        "start = 2025-01-01",
        "start = 2025",
        r#"tallymark.toml:40: rollup.hits.start: expected a date such as "2025-01-01", found an integer"#,
    ),
    (
        "start = 2025-01-01\n",
        "",
        r#"tallymark.toml:36: rollup.hits.start: missing; write the day when history begins: start = "2025-01-01""#,
    ),
    (
        "slice = \"1 hour\"",
        "slice = \"1 fortnight\"",
        r#"tallymark.toml:41: rollup.hits.slice: `1 fortnight` is not a width; write `N minutes`, `N hours`, `1 day`, `1 week`, `1 month`, `1 quarter` or `1 year`, where the minutes or hours divide a day exactly"#,
    ),
    (
        "slice = \"1 hour\"\n",
        "",
        r#"tallymark.toml:36: rollup.hits.slice: missing; write slice = "1 day""#,
    ),
    (
        "bucket = \"1 hour\"",
        "bucket = \"7 hours\"",
        r#"tallymark.toml:19: rollup.entity_daily.bucket: `7 hours` does not divide a day exactly; write `6 hours` or `8 hours`"#,
    ),
    (
        "slice = \"1 hour\"",
        "slice = \"1 hour\"\nbucket = \"1 day\"",
        r#"tallymark.toml:42: rollup.hits.bucket: "1 day" does not divide the slice of "1 hour"; use one that does, or remove the key"#,
    ),
    (
        "slice = \"1 day\"\nbucket = \"1 hour\"",
        "slice = \"1 month\"\nbucket = \"10 minutes\"",
        r#"tallymark.toml:19: rollup.entity_daily.bucket: "10 minutes" cuts the slice of "1 month" into more than 3000 buckets; use a wider bucket or a narrower slice"#,
    ),
    (
        "\"10 minutes\"",
        "\"10 fortnights\"",
        r#"tallymark.toml:21: rollup.entity_daily.grace: "10 fortnights" is not a duration; write one such as "500ms", "30s", "2 minutes" or "1 hour""#,
    ),
    (
        "\"10 minutes\"",
        "\"400 days\"",
        r#"tallymark.toml:21: rollup.entity_daily.grace: "400 days" is out of range; use 0s to 366 days"#,
    ),
    (
        "lookback = 2",
        "lookback = 2\nkeep = \"12 hours\"",
        r#"tallymark.toml:23: rollup.entity_daily.keep: "12 hours" is out of range; use 1 day to 36500 days"#,
    ),
    (
        "lookback = 2",
        "lookback = 367",
        r#"tallymark.toml:22: rollup.entity_daily.lookback: expected an integer from 0 to 366, found 367"#,
    ),
    (
        "lookback = 2",
        "lookback = -1",
        r#"tallymark.toml:22: rollup.entity_daily.lookback: expected an integer from 0 to 366, found -1"#,
    ),
    (
        "lookback = 2",
        "lookback = []",
        r#"tallymark.toml:22: rollup.entity_daily.lookback: is empty; write such as [1, 2, 7, 28], or remove the key"#,
    ),
    (
        "lookback = 2",
        "lookback = [1, 0]",
        r#"tallymark.toml:22: rollup.entity_daily.lookback[1]: expected an integer from 1 to 366, found 0"#,
    ),
    (
        "lookback = 2",
        "lookback = [1, 7, 7]",
        r#"tallymark.toml:22: rollup.entity_daily.lookback[2]: 7 does not come after 7; write each number once, in ascending order"#,
    ),
    (
        "lookback = 2",
        "lookback = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]",
        r#"tallymark.toml:22: rollup.entity_daily.lookback: has 17 entries; 16 is the most"#,
    ),
    (
        "late = \"grace\"",
        "late = \"column\"",
        r#"tallymark.toml:23: rollup.entity_daily.late: say which: late = { column = "updated_at" }"#,
    ),
    (
        "late = \"grace\"",
        "late = \"never\"",
        r#"tallymark.toml:23: rollup.entity_daily.late: "never" is not a way to notice late changes; use "grace", "clock", "capture", or { column = "updated_at" } with an indexed change time"#,
    ),
    (
        "\"kind <> 'test'\"",
        "\"true) OR (true\"",
        r#"tallymark.toml:24: rollup.entity_daily.where: closes a `)` that it did not open; balance the parentheses"#,
    ),
    (
        "\"kind <> 'test'\"",
        "\" \"",
        r#"tallymark.toml:24: rollup.entity_daily.where: is empty; write an SQL condition, or remove the key"#,
    ),
    (
        "[\"entity_id\", \"kind\"]",
        "[\"kind\", \"kind\"]",
        r#"tallymark.toml:25: rollup.entity_daily.group_by[1]: the column "kind" is already taken by group_by; leave it out, or read from a view in which it has another name"#,
    ),
    (
        "[\"entity_id\", \"kind\"]",
        "[\"bucket\", 5, \"\"]",
        r#"tallymark.toml:25: rollup.entity_daily.group_by[0]: the column "bucket" is already taken by the column of the bucket's start; leave it out, or read from a view in which it has another name
tallymark.toml:25: rollup.entity_daily.group_by[1]: expected the name of a column such as "entity_id", found an integer
tallymark.toml:25: rollup.entity_daily.group_by[2]: "" is empty; write the name as PostgreSQL stores it"#,
    ),
    (
        "[\"entity_id\", \"kind\"]",
        "[\"kind\", { kind = \"lower(kind)\" }, { a = \"b\", c = \"d\" }, { a = 5 }]",
        r#"tallymark.toml:25: rollup.entity_daily.group_by[1]: the column "kind" is already taken by group_by; leave it out, or read from a view in which it has another name
tallymark.toml:25: rollup.entity_daily.group_by[2]: does not name one expression; write { plan = "props->>'plan'" }
tallymark.toml:25: rollup.entity_daily.group_by[3].a: expected an SQL expression such as "props->>'plan'", found an integer"#,
    ),
    (
        "[\"entity_id\", \"kind\"]",
        "[]\nlookup = [{ account = \"accounts\", on = \"account.id = account_id\" }, { a = \"public.a\" }, { on = \"\" }, { A = \"public.a\", on = \"\" }]",
        r#"tallymark.toml:26: rollup.entity_daily.lookup[0].account: the table of a lookup needs its schema; write schema.accounts, such as public.accounts
tallymark.toml:26: rollup.entity_daily.lookup[1].on: missing; write on = "account.id = account_id"
tallymark.toml:26: rollup.entity_daily.lookup[2]: does not name one table; write { account = "public.accounts", on = "account.id = account_id" }
tallymark.toml:26: rollup.entity_daily.lookup[3].A: "A" cannot name a lookup; use at most 20 of a-z, 0-9 and _, and begin with a letter"#,
    ),
    (
        "[\"entity_id\", \"kind\"]",
        "[{ a = \"a.x\" }]\nlookup = [{ a = \"public.a\", on = \"a.id = a_id\" }, { a = \"public.b\", on = \"a.id = a_id\" }, { c = \"public.c\", on = \"c.id < c_id\" }]",
        r#"tallymark.toml:26: rollup.entity_daily.lookup[1].a: "a" is the name of an earlier lookup; choose another
tallymark.toml:26: rollup.entity_daily.lookup[2].on: "c.id < c_id" does not equate columns of the lookup with columns of the table; write "c.id = c_id"; several equations are joined by AND"#,
    ),
    (
        "[\"entity_id\", \"kind\"]",
        "[]\nlookup = [{ a = \"public.a\", on = \"a.id = a_id\" }]",
        r#"tallymark.toml:26: rollup.entity_daily.lookup: no expression and no condition reads the lookup `a`; write a.column where it is to be read: { country = "a.country" }"#,
    ),
    (
        "[\"entity_id\", \"kind\"]",
        "[{ a = \"a.x23456789012345678901234567890123456789012345678901234567890123\" }]\nlookup = [{ a = \"public.a\", on = \"a.id = a_id\" }]",
        r#"tallymark.toml:26: rollup.entity_daily.lookup: "a.x23456789012345678901234567890123456789012345678901234567890123" is longer than the 63 bytes that PostgreSQL keeps of a name; shorten the name of the lookup"#,
    ),
    (
        "[\"entity_id\", \"kind\"]",
        "\"kind\"",
        r#"tallymark.toml:25: rollup.entity_daily.group_by: expected an array of columns such as ["entity_id", "kind"], found a string"#,
    ),
    (
        "shrink_guard = 0.25",
        "shrink_guard = 50",
        r#"tallymark.toml:26: rollup.entity_daily.shrink_guard: expected a number from 0 to 1, found 50"#,
    ),
    (
        "shrink_guard = 0.25",
        "shrink_guard = nan",
        r#"tallymark.toml:26: rollup.entity_daily.shrink_guard: expected a number from 0 to 1, found nan"#,
    ),
    (
        "lookback = 2",
        "live = true",
        r#"tallymark.toml:22: rollup.entity_daily.live: a live view reads the source's rows, and [target] has a database of its own; remove `url` of [target] where both are one database, or remove `live`"#,
    ),
    (
        "\"2025-02-01\"",
        "\"soon\"",
        r#"tallymark.toml:27: rollup.entity_daily.seal_before: `soon` is not a date or time; write `2025-01-01` or `2025-01-01T06:00` (in UTC), or `2025-01-01T06:00:00Z`, or with an offset `2025-01-01T06:00:00+01:00`"#,
    ),
];

/// `[rollup.measures]`.
pub(in crate::config::tests) const MEASURES: &[Case] = &[
    (
        "events = \"count\"",
        "events = \"sum\"",
        r#"tallymark.toml:31: rollup.entity_daily.measures.events: "sum" needs a column; write { sum = "column" }"#,
    ),
    (
        "events = \"count\"",
        "events = \"conut\"",
        r#"tallymark.toml:31: rollup.entity_daily.measures.events: "conut" is unknown; did you mean "count"?"#,
    ),
    (
        "events = \"count\"",
        "events = \"average\"",
        r#"tallymark.toml:31: rollup.entity_daily.measures.events: "average" is unknown; use "count", or a table such as { sum = "amount" }"#,
    ),
    (
        "events = \"count\"",
        "events = \"median\"",
        r#"tallymark.toml:31: rollup.entity_daily.measures.events: "median" is unknown; use "count", or a table such as { sum = "amount" }"#,
    ),
    (
        "events = \"count\"",
        "events = 5",
        r#"tallymark.toml:31: rollup.entity_daily.measures.events: expected "count", or a table such as { sum = "amount" }, found an integer"#,
    ),
    (
        "events = \"count\"",
        "events = {}",
        r#"tallymark.toml:31: rollup.entity_daily.measures.events: says nothing to compute; give one of {kinds}"#,
    ),
    (
        "events = \"count\"",
        "events = { sum = \"a\", max = \"b\" }",
        r#"tallymark.toml:31: rollup.entity_daily.measures.events: computes `sum`, `max`; give each a measure of its own"#,
    ),
    (
        "events = \"count\"",
        "events = { summ = \"a\" }",
        r#"tallymark.toml:31: rollup.entity_daily.measures.events.summ: unknown key; did you mean `sum`?"#,
    ),
    (
        "events = \"count\"",
        "events = { count = \"a\" }",
        r#"tallymark.toml:31: rollup.entity_daily.measures.events.count: `count` counts rows and takes only `true`; to count values write { count = true, where = "column IS NOT NULL" }"#,
    ),
    (
        "events = \"count\"",
        "events = { sum = true }",
        r#"tallymark.toml:31: rollup.entity_daily.measures.events.sum: expected the name of a column such as "amount", found a boolean"#,
    ),
    (
        "events = \"count\"",
        "events = { count = true, where = \"a;\" }",
        r#"tallymark.toml:31: rollup.entity_daily.measures.events.where: contains `;`; write one condition, not statements"#,
    ),
    (
        "events = \"count\"",
        "kind = \"count\"",
        r#"tallymark.toml:31: rollup.entity_daily.measures.kind: the column "kind" is already taken by group_by; choose another name"#,
    ),
    (
        "events = \"count\"",
        "bucket = \"count\"",
        r#"tallymark.toml:31: rollup.entity_daily.measures.bucket: the column "bucket" is already taken by the column of the bucket's start; choose another name"#,
    ),
    (
        "events = \"count\"",
        "xmin = \"count\"",
        r#"tallymark.toml:31: rollup.entity_daily.measures.xmin: the column "xmin" is already taken by a column that PostgreSQL keeps for itself; choose another name"#,
    ),
    (
        "events = \"count\"",
        "price_sum = \"count\"",
        r#"tallymark.toml:34: rollup.entity_daily.measures.price: the column "price_sum" is already taken by another measure; choose another name"#,
    ),
    (
        "events = \"count\"",
        "\"\" = \"count\"",
        r#"tallymark.toml:31: rollup.entity_daily.measures."": the measure's name is empty; it becomes the column's name"#,
    ),
    (
        "events = \"count\"",
        "\"a\\u0000\" = \"count\"",
        r#"tallymark.toml:31: rollup.entity_daily.measures."a\0": the measure's name contains a NUL character; remove it"#,
    ),
    (
        "events = \"count\"",
        "a234567890123456789012345678901234567890123456789 = \"count\"",
        r#"tallymark.toml:31: rollup.entity_daily.measures.a234567890123456789012345678901234567890123456789: the measure's name has 49 bytes; 48 is the most"#,
    ),
    (
        "measures = { hits = \"count\", \"höchst %\" = { max = \"ms\" }, least = { min = \"ms\" } }",
        "measures = {}",
        r#"tallymark.toml:42: rollup.hits.measures: is empty; add a line such as events = "count""#,
    ),
    (
        "measures = { hits = \"count\", \"höchst %\" = { max = \"ms\" }, least = { min = \"ms\" } }",
        "",
        r#"tallymark.toml:36: rollup.hits.measures: missing; add [rollup.measures] with a line such as events = "count""#,
    ),
    (
        "\"höchst %\" = { max = \"ms\" }",
        "\"höchst %\" = { max = \"\" }",
        r#"tallymark.toml:42: rollup.hits.measures."höchst %".max: "" is empty; write the name as PostgreSQL stores it"#,
    ),
];
