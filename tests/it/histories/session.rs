//! A session of the application, and the clock that it sees.

use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

pub struct Session {
    connection: PgConnection,
    pub name: &'static str,
    pub is_open: bool,
    pub begun_ms: i64,
}

/// Sets the virtual clock.
pub async fn show(control: &mut PgConnection, now_ms: i64) {
    let sql = format!("SELECT setval('virtual.now', {now_ms})");
    control.execute(AssertSqlSafe(sql)).await.unwrap();
}

impl Session {
    pub async fn new(mut connection: PgConnection, name: &'static str) -> Self {
        connection.execute("SET lock_timeout = '10ms'").await.unwrap();
        Self { connection, name, is_open: false, begun_ms: 0 }
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
            ("COMMIT" | "ROLLBACK", _) => self.is_open = false,
            _ => {}
        }
        match ended {
            Ok(_) => "",
            // A lock of the other session, or a missing savepoint, as in real life.
            Err(_) => "  -- refused",
        }
    }
}
