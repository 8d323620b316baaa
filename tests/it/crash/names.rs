//! The names of the calls that leave a process. Each has its own faults, see docs/RELIABILITY.md.

use std::collections::BTreeSet;

use serde_json::Value;

/// The beginning of each statement, and its name.
const STATEMENTS: [(&str, &str); 62] = [
    ("connect", "connect"),
    ("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", "begin to read"),
    ("BEGIN ISOLATION LEVEL READ COMMITTED;", "begin to write"),
    ("COMMIT", "commit"),
    ("ROLLBACK", "roll back"),
    ("-- The owner of a rollup here", "installation"),
    ("SELECT (SELECT oid FROM pg_database", "server"),
    ("SELECT system_identifier", "cluster"),
    ("-- The columns of one table or view", "columns of the source"),
    ("SELECT count(*) FROM (SELECT", "privileges"),
    ("SELECT FROM \"public\"", "what can be grouped"),
    ("SELECT pg_typeof", "types"),
    ("SELECT to_regclass(", "shape"),
    ("-- The properties that decide the values", "shape"),
    ("-- The relations below a rollup's table", "origin"),
    ("SELECT FROM pg_namespace", "schemas"),
    ("SELECT a.attname", "columns of the target"),
    ("SELECT current_setting('search_path')", "search path"),
    ("SET LOCAL search_path", "search path"),
    ("SELECT set_config('search_path'", "search path"),
    ("-- The comments of Tallymark's own objects", "comments"),
    ("-- Whether a function of the unique indexes", "functions of the unique index"),
    ("-- The columns of a table", "columns of the target"),
    ("-- The unique indexes of a table", "unique indexes"),
    ("-- How each dimension can be part of an index", "widths of the dimensions"),
    ("-- Properties that could make a table", "what alters a table"),
    ("SELECT target_table FROM tallymark.rollup", "known rollups"),
    ("-- The rollup's entry in the registry", "generation"),
    ("SELECT generation, calendar FROM tallymark.rollup", "generation"),
    ("SELECT clock_timestamp() AS now", "clock"),
    ("SELECT pg_snapshot_xmin", "snapshot"),
    ("SELECT pg_stat_clear_snapshot", "forget who was open"),
    ("EXPLAIN", "plan"),
    ("-- Catalogue data for the plan guard", "indexes"),
    ("-- The governor's query", "slot"),
    ("-- Takes the marker", "fence"),
    ("-- Makes the rows of one slice equal", "replace"),
    ("-- Writes the marker", "marker"),
    ("UPDATE tallymark.rollup SET sealed_before", "seal"),
    ("-- Deletes the rows of the oldest slices", "delete what is not kept"),
    ("COPY (SELECT", "copy out"),
    ("COPY tallymark.", "copy in"),
    ("DELETE FROM tallymark.\"stage_", "empty the stage"),
    ("DELETE FROM tallymark.progress", "forget the progress"),
    ("WITH staged AS (INSERT", "stage a chunk"),
    ("SELECT cursor, rows_read", "progress"),
    ("-- A table with its partitions", "triggers"),
    ("-- The marks of a capture", "marks"),
    ("-- How many of some marks", "held marks"),
    ("-- Compares a table's partitions", "partitions"),
    ("SELECT rollup = ", "known consumer"),
    ("-- The consumers of a capture", "consumers"),
    ("WITH gone AS (DELETE FROM tallymark.consumer", "replace a consumer"),
    ("INSERT INTO tallymark.consumer", "register the consumer"),
    ("SELECT id FROM tallymark.consumer", "consumers"),
    ("INSERT INTO tallymark.taken", "acknowledge marks"),
    ("-- Deletes those of some marks", "delete marks"),
    ("-- The oldest transaction of this database", "oldest transaction"),
    ("SELECT floor(extract(epoch FROM min(", "first row"),
    ("SELECT floor(extract(epoch FROM max(", "last row"),
    ("-- How far the chunks of a slice are", "write the progress"),
    ("-- The sessions that hold, or wait for", LOCKS),
];

/// This call occurs only after a lock was not free in time. Here that is chance, so it meets no
/// fault.
pub const LOCKS: &str = "who holds a lock";

/// The name of a call to PostgreSQL with these kinds of messages, given the newest statement on its
/// connection.
pub fn of_sql(side: &str, sql: &str, kinds: &[u8]) -> String {
    if kinds == b"S" {
        return format!("{side}: is it there");
    }
    let known = STATEMENTS.iter().find(|(begin, _)| sql.starts_with(begin)).map(|it| it.1);
    let known = of_store(sql).or_else(|| of_readers(sql)).or(known);
    let name = known.map_or_else(|| format!("?? {}", sql.replace('\n', " ")), str::to_owned);
    let step = match kinds.last() {
        Some(b'd') => ", rows",
        Some(b'c' | b'f') => ", end",
        _ if kinds.contains(&b'P') && !kinds.contains(&b'E') => ", parse",
        _ => "",
    };
    format!("{side}: {name}{step}")
}

/// The name of a statement that tells readers of the target. It may be one message with its
/// transaction.
fn of_readers(sql: &str) -> Option<&'static str> {
    let names = [("-- Raises the generation", "raise"), ("-- Tells readers", "tell readers")];
    names.into_iter().find(|(comment, _)| sql.contains(comment)).map(|(_, name)| name)
}

/// The name of a statement of the store in the target.
fn of_store(sql: &str) -> Option<&'static str> {
    if !sql.contains("tallymark.checkpoint") {
        return None;
    }
    let ends = [("succeeded", "complete"), ("failed", "give back"), ("yielded", "give back")];
    let is = |state: &str| sql.contains(&format!("'state', '\"{state}\"'"));
    let is_write = ["UPDATE", "INSERT INTO"]
        .iter()
        .any(|word| sql.contains(&format!("{word} tallymark.checkpoint")));
    Some(match () {
        () if !is_write => "read checkpoints",
        () if sql.contains("'lease_until', to_jsonb") => "claim",
        () if sql.contains("'reopened_at'") => "reopen",
        () => ends.into_iter().find(|(state, _)| is(state)).map_or("write an item", |it| it.1),
    })
}

/// The name of a call to DynamoDB.
pub fn of_dynamo(text: &str) -> String {
    let operation = text.split("DynamoDB_20120810.").nth(1).and_then(|it| it.lines().next());
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let key = body["Key"]["sk"]["S"].as_str().unwrap_or_default();
    let item = if key.starts_with('2') { "slice" } else { key.split('#').next().unwrap() };
    let values = &body["ExpressionAttributeValues"];
    let name = match operation.unwrap_or_default().trim() {
        "GetItem" => format!("get {item}"),
        "BatchGetItem" => {
            let tables = body["RequestItems"].as_object();
            let table = tables.and_then(|tables| tables.values().next()).unwrap_or(&Value::Null);
            format!("get {}s", table["Keys"][0]["sk"]["S"].as_str().unwrap_or_default())
        }
        "UpdateItem" if !values[":set_lease_until"].is_null() => "claim".to_owned(),
        "UpdateItem" => match values[":set_state"]["S"].as_str() {
            Some(state) => format!("write {item}, {state}"),
            None => format!("write {item}"),
        },
        "Query" if body["IndexName"].is_string() => "unfinished slices".to_owned(),
        "Query" if body["Limit"] == 32 => "recent slices".to_owned(),
        "Query" => "slices".to_owned(),
        "TransactWriteItems" => "reopen".to_owned(),
        other => format!("?? {other} {body}"),
    };
    format!("dynamodb: {name}")
}

/// The name of a call to another of Amazon's services.
pub fn of_service(text: &str) -> String {
    let mut lines = text.lines().filter_map(|line| line.split_once(": "));
    let target = lines.find(|(name, _)| name.eq_ignore_ascii_case("x-amz-target"));
    let (service, call) = target.and_then(|(_, value)| value.split_once('.')).unwrap_or_default();
    format!("{}: {}", service.trim_start_matches("Amazon").to_lowercase(), call.trim())
}

/// The name of a call to the Lambda Runtime API.
pub fn of_runtime(text: &str) -> String {
    let path = text.split(' ').nth(1).unwrap_or_default();
    match path.rsplit('/').next().unwrap_or_default() {
        "response" | "error" => "runtime: answer".to_owned(),
        other => format!("runtime: {other}"),
    }
}

/// Names for people, without the database and the step of a statement.
pub fn in_words(names: &BTreeSet<String>) -> BTreeSet<String> {
    let word = |name: &String| {
        let (server, call) = name.split_once(": ").unwrap();
        let call = call.split(", ").next().unwrap().to_owned();
        match server {
            "source" | "target" => format!("postgres: {call}"),
            "dynamodb" => name.clone(),
            _ => format!("{server}: {call}"),
        }
    };
    names.iter().map(word).collect()
}
