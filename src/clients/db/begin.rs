//! The statements that open a transaction, with every setting that a transaction needs.

use std::fmt::Write as _;
use std::time::Duration;

use super::Access;
use crate::model::sql::literal;

/// A transaction may be idle for two statements of the other database plus this.
const IDLE_SLACK: Duration = Duration::from_secs(1);

/// PostgreSQL counts milliseconds in 31 bits, and the idle limit of a transaction is more than
/// twice this.
const STATEMENT_TIMEOUT_MAX: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// Longest wait for a lock that another session holds (DDL on the source, another writer's marker).
const LOCK_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// The part of a statement's time that a wait for a lock may take.
const LOCK_SHARE: f64 = 0.75;

/// The statements that open a transaction, for one round trip.
pub(super) fn begin_sql(access: Access, statement_timeout: Duration, label: &str) -> String {
    begin_sql_with(access, statement_timeout, label, "")
}

/// As [`begin_sql`], with a `first` statement in the same round trip. An empty text is none.
pub(super) fn begin_sql_with(
    access: Access,
    statement_timeout: Duration,
    label: &str,
    first: &str,
) -> String {
    let statement_timeout = statement_timeout.min(STATEMENT_TIMEOUT_MAX);
    let statement_ms = statement_timeout.as_millis().max(1);
    // While one database works, the transaction on the other is idle.
    let idle_ms = 2 * statement_ms + IDLE_SLACK.as_millis();
    // Shorter than the statement's own limit, which would count as the slice's failure.
    let lock_timeout = statement_timeout.mul_f64(LOCK_SHARE).min(LOCK_TIMEOUT_MAX);
    let lock_ms = lock_timeout.as_millis().max(1);
    let mut sql = String::from(match access {
        // A snapshot for each statement, as settling relies on it. The database's default may
        // differ.
        Access::ReadOnly => "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
        Access::ReadWrite => "BEGIN ISOLATION LEVEL READ COMMITTED",
    });
    for (name, value) in [
        ("statement_timeout", format!("{statement_ms}ms")),
        ("lock_timeout", format!("{lock_ms}ms")),
        // A frozen Lambda must not keep a transaction open.
        ("idle_in_transaction_session_timeout", format!("{idle_ms}ms")),
        ("application_name", format!("tallymark {label}")),
        // Values that COPY writes as text must have the same meaning on the other side.
        ("TimeZone", "UTC".into()),
        ("DateStyle", "ISO".into()),
        ("IntervalStyle", "postgres".into()),
        ("extra_float_digits", "1".into()),
        ("bytea_output", "hex".into()),
        ("lc_monetary", "C".into()),
        ("lc_numeric", "C".into()),
        ("lc_time", "C".into()),
        ("quote_all_identifiers", "off".into()),
        // A role's settings must not change the meaning of a definition.
        ("standard_conforming_strings", "on".into()),
        ("array_nulls", "on".into()),
        ("transform_null_equals", "off".into()),
        // Compiling costs more than these short statements take.
        ("jit", "off".into()),
        // One statement uses one processor. A chunk must leave the server's others free.
        ("max_parallel_workers_per_gather", "0".into()),
    ] {
        let _ = write!(sql, "; SET LOCAL {name} = {}", literal(&value));
    }
    // Under row-level security a role without BYPASSRLS would count 0 rows without an error.
    sql.push_str("; SET LOCAL row_security = off");
    if !first.is_empty() {
        let _ = write!(sql, "; {first}");
    }
    // Settings that older servers lack, or that depend on present values, in the same round trip.
    // From 14 on a server notices the end of a killed client. From 17 on a role or database may
    // limit whole transactions, and Tallymark's are limited by their statements instead. A commit
    // that a checkpoint will record as done must survive a crash of the server.
    sql.push_str(
        "; SELECT pg_backend_pid() AS pid, CASE WHEN v >= 140000 \
         THEN set_config('client_connection_check_interval', '500ms', true) END, \
         CASE WHEN v >= 170000 THEN set_config('transaction_timeout', '0', true) END, \
         CASE WHEN current_setting('synchronous_commit') = 'off' \
         THEN set_config('synchronous_commit', 'on', true) END \
         FROM (SELECT current_setting('server_version_num')::int AS v) AS server",
    );
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_limit_is_longer_than_postgresql_takes() {
        let sql = begin_sql(Access::ReadOnly, Duration::MAX, "ages");
        let limits: Vec<i32> = sql
            .split("timeout = '")
            .skip(1)
            .map(|rest| rest.split("ms'").next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(limits, [864_000_000, 5000, 1_728_001_000]);
    }

    #[test]
    fn a_label_cannot_leave_its_quotes() {
        let sql = begin_sql(Access::ReadOnly, Duration::from_secs(1), "a'; DROP");
        assert!(sql.starts_with(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = '1000ms'"
        ));
        assert!(sql.contains("application_name = 'tallymark a''; DROP'"));
        assert!(sql.contains("row_security = off"));
    }
}
