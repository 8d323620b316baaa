//! The application's own work, which knows nothing of Tallymark.

use fastrand::Rng;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection};

use super::scene::Scene;

const HOUR_MS: i64 = 60 * 60_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Rows are stamped up to this far ahead of the clock, some of them in the next slice.
pub const AHEAD_MAX_MS: i64 = HOUR_MS;

/// Most late changes concern rows at most this old.
const LATE_MOSTLY_MS: i64 = 35 * DAY_MS;

/// One of the application's sessions.
pub struct Session {
    connection: PgConnection,
    is_open: bool,
}

impl Session {
    pub async fn connect(options: &PgConnectOptions, name: &str) -> Self {
        let options = options.clone().application_name(name);
        let mut connection = options.connect().await.unwrap();
        connection.execute("SET lock_timeout = '10ms'").await.unwrap();
        Self { connection, is_open: false }
    }

    /// Runs a statement, and returns whether it succeeded. It may fail because of a lock or a
    /// missing savepoint, as in real life.
    async fn say(&mut self, sql: &str) -> bool {
        let ended = self.connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
        match sql {
            "BEGIN" => self.is_open = true,
            "COMMIT" | "ROLLBACK" => self.is_open = false,
            _ => {}
        }
        ended.is_ok()
    }

    /// Ends the transaction, if one is open.
    pub async fn end(&mut self, random: &mut Rng) {
        self.say(if random.u8(..4) == 0 { "ROLLBACK" } else { "COMMIT" }).await;
    }

    /// Performs an action, and returns its name for the table at the end.
    pub async fn act(&mut self, random: &mut Rng, scene: &Scene, since_ms: i64) -> &'static str {
        let (what, sql) = self.statement(random, scene, since_ms);
        if self.say(&sql).await { what } else { "statements refused" }
    }

    fn statement(&self, random: &mut Rng, scene: &Scene, since_ms: i64) -> (&'static str, String) {
        let now_ms = scene.now_ms();
        let floor_ms = scene.floor_ms();
        let oldest = if random.u8(..5) == 0 { floor_ms } else { now_ms - LATE_MOSTLY_MS };
        let from_ms = random.i64(oldest.max(floor_ms).min(now_ms - HOUR_MS)..now_ms);
        let (from, to) = (scene.literal(from_ms), scene.literal(from_ms + 2 * HOUR_MS));
        let some = format!("at >= {from} AND at < {to} AND id % 3 = {}", random.u32(..3));
        let amount = random.u32(1..100);
        match random.u8(..20) {
            0 if !self.is_open => ("transactions", "BEGIN".into()),
            1 | 2 if self.is_open => ("commits", "COMMIT".into()),
            3 if self.is_open => ("rollbacks", "ROLLBACK".into()),
            4 if self.is_open => ("savepoints", "SAVEPOINT s".into()),
            5 if self.is_open => ("savepoints rolled back", "ROLLBACK TO s".into()),
            6 | 7 => {
                let rows = random.u32(1..5);
                let end_ms = from_ms + 3 * HOUR_MS;
                ("late inserts", insert(random, scene, (from_ms, end_ms.min(now_ms)), rows))
            }
            8 => {
                let rows = insert(random, scene, (from_ms, from_ms + HOUR_MS), 2);
                let sql = format!(
                    "SET session_replication_role = replica; {rows}; RESET session_replication_role"
                );
                ("late inserts by replication", sql)
            }
            9 | 10 => {
                let set = format!("amount = {amount}, person = {}", amount % 17);
                ("late updates", format!("UPDATE public.events SET {set} WHERE {some}"))
            }
            11 => {
                let other =
                    scene.literal(random.i64(floor_ms.max(now_ms - LATE_MOSTLY_MS)..now_ms));
                ("moves", format!("UPDATE public.events SET at = {other} WHERE {some}"))
            }
            12 => ("late deletes", format!("DELETE FROM public.events WHERE {some}")),
            _ => {
                let ahead_ms = if random.bool() { 0 } else { AHEAD_MAX_MS };
                let rows = random.u32(2..16);
                ("fresh inserts", insert(random, scene, (since_ms, now_ms + ahead_ms), rows))
            }
        }
    }
}

/// Rows in `[from, to)`.
fn insert(random: &mut Rng, scene: &Scene, (from_ms, to_ms): (i64, i64), rows: u32) -> String {
    let (from, to) = (scene.literal(from_ms), scene.literal(to_ms));
    let salt = random.u32(1..1_000_000);
    format!(
        "INSERT INTO public.events (at, entity, kind, person, amount) SELECT \
         {from} + ({to} - {from}) * ((n * 7919 + {salt}) % 1000 / 1000.0), \
         nullif(n * {salt} % 4, 3), (ARRAY['view', 'buy', NULL])[1 + (n + {salt}) % 3], \
         n * {salt} % 17, 1 + n * {salt} % 99 FROM generate_series(1, {rows}) n"
    )
}
