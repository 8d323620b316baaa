//! A session of the application, and the clock that it sees.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

pub struct Session {
    connection: PgConnection,
    pub name: &'static str,
    pub is_open: bool,
    pub begun_ms: i64,
    /// Whether its open TRUNCATE keeps the table from all others.
    keeps_table: bool,
}

/// A worker that waits for such a table is killed after this time. A patient one waits for five
/// seconds, until the server refuses.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Ends when a worker is to be killed, as it waits for a table that one of the sessions keeps.
pub async fn patience(sessions: &[Session], is_patient: bool) {
    if is_patient || !sessions.iter().any(|session| session.keeps_table) {
        return std::future::pending().await;
    }
    tokio::time::sleep(WAIT_MAX).await;
}

/// Sets the virtual clock.
pub async fn show(control: &mut PgConnection, now_ms: i64) {
    let sql = format!("SELECT setval('virtual.now', {now_ms})");
    control.execute(AssertSqlSafe(sql)).await.unwrap();
}

impl Session {
    pub async fn new(mut connection: PgConnection, name: &'static str) -> Self {
        connection.execute("SET lock_timeout = '10ms'").await.unwrap();
        Self { connection, name, is_open: false, begun_ms: 0, keeps_table: false }
    }

    /// Runs a statement. Says so if it was refused.
    pub async fn run(
        &mut self,
        control: &mut PgConnection,
        now_ms: i64,
        sql: &str,
    ) -> &'static str {
        // A single statement is its own transaction, which begins now.
        if !self.is_open {
            let letter = self.name.strip_prefix("app_").unwrap();
            let begun = format!("SELECT setval('virtual.begin_{letter}', {now_ms})");
            control.execute(AssertSqlSafe(begun)).await.unwrap();
            self.begun_ms = now_ms;
        }
        let ended = self.connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
        match (sql, &ended) {
            ("BEGIN", Ok(_)) => self.is_open = true,
            ("COMMIT" | "ROLLBACK", _) => (self.is_open, self.keeps_table) = (false, false),
            (_, Ok(_)) if sql.starts_with("TRUNCATE") => self.keeps_table = self.is_open,
            _ => {}
        }
        match ended {
            Ok(_) => "",
            // A lock of the other session, or a missing savepoint, as in real life.
            Err(_) => "  -- refused",
        }
    }
}
