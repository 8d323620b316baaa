//! A PostgreSQL server. It is connected when first needed, and used in one bounded transaction at a
//! time.
//!
//! Every statement runs inside a transaction, and none is prepared under a name. So a transaction
//! pooler (PgBouncer, Supavisor, Neon's `-pooler`) may give every transaction another backend.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::sync::RwLock;
use tokio::time::error::Elapsed;

use crate::clients::address::{Address, DatabaseUrl};
use crate::clients::secret;
use crate::model::clock::Stopwatch;
use crate::model::sql::literal;

mod error;
pub mod history;
mod locks;
mod once;
mod pool;

pub use error::{DbError, DbErrorKind};
pub use once::Once;

use once::Memory;
use pool::{InUse, Pool};

/// How long a question to a catalogue may take.
pub const CATALOGUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of connecting, unless the address sets another. A suspended Neon wakes in a few
/// hundred milliseconds. A server that stays silent for this long is reported as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A transaction may be idle for two statements of the other database plus this.
const IDLE_SLACK: Duration = Duration::from_secs(1);

/// A server ends its own statements. If it stays silent for this much longer than the statement's
/// limit, it counts as cut off.
const ANSWER_SLACK: Duration = Duration::from_secs(10);

/// PostgreSQL counts milliseconds in 31 bits, and the idle limit of a transaction is more than
/// twice this.
const STATEMENT_TIMEOUT_MAX: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// Longest wait for a lock that another session holds (DDL on the source, another writer's marker).
const LOCK_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// The part of a statement's time that a wait for a lock may take.
const LOCK_SHARE: f64 = 0.75;

/// One of the two databases. Errors contain the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The application's database, which is only read.
    Source,
    /// The database that holds the rollup tables.
    Target,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

/// The rights of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `BEGIN READ ONLY`.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// A PostgreSQL server with its credentials. It connects when first used.
///
/// An address stored elsewhere is read then, and read again after a refused login. So a rotated
/// password costs one refused connection.
#[derive(Clone, Debug)]
pub struct Db {
    address: Address,
    side: Side,
    connections_max: u32,
    /// Whether refused connections are retried.
    is_patient: bool,
    opened: Arc<RwLock<Option<Opened>>>,
    memory: Memory,
}

/// The connections to one address.
#[derive(Clone, Debug)]
struct Opened {
    url: DatabaseUrl,
    /// Host and port, or socket, for errors.
    place: String,
    pool: Arc<Pool>,
}

/// The options for connecting to `url`. A remote host is verified in full, unless the URL has an
/// `sslmode`.
pub(crate) fn options(url: &DatabaseUrl) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.for_driver().parse()?;
    // A pooler refuses unknown startup parameters. The transaction sets this one itself.
    let options = options.extra_float_digits(None);
    let options = options.application_name(url.application_name().unwrap_or("tallymark"));
    if !url.has_ssl_mode() && !url.is_loopback() {
        return Ok(options.ssl_mode(PgSslMode::VerifyFull));
    }
    Ok(options)
}

impl Opened {
    fn new(url: DatabaseUrl, side: Side, connections_max: u32) -> Result<Self, DbError> {
        let options = options(&url)
            .map_err(|source| DbError::new(side, "reading the connection URL", source))?;
        let place = url.place();
        let pool = Arc::new(Pool::new(options.statement_cache_capacity(0), connections_max));
        Ok(Self { url, place, pool })
    }
}

impl Db {
    /// Prepares the connection to `address`, with at most `connections_max` connections.
    ///
    /// A remote host without an `sslmode` in its URL is verified in full (certificate and name).
    /// Less must be requested explicitly.
    ///
    /// # Errors
    /// The URL is invalid.
    pub fn new(address: &Address, side: Side, connections_max: u32) -> Result<Self, DbError> {
        let known = address.known().cloned();
        let opened = known.map(|url| Opened::new(url, side, connections_max)).transpose()?;
        let (address, opened) = (address.clone(), Arc::new(RwLock::new(opened)));
        let is_patient = true;
        Ok(Self { address, side, connections_max, is_patient, opened, memory: Memory::default() })
    }

    /// Reports a server's first answer, instead of retrying while it may be starting.
    #[must_use]
    pub fn at_once(self) -> Self {
        Self { is_patient: false, ..self }
    }

    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// Begins a transaction in which every statement ends within `statement_timeout`.
    ///
    /// `label` names the work in `pg_stat_activity`, of which the server keeps 63 bytes.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn begin(
        &self,
        access: Access,
        statement_timeout: Duration,
        label: &str,
    ) -> Result<Tx, DbError> {
        self.memory.recall()?;
        let begin = begin_sql(access, statement_timeout, label);
        let begun = self.begin_anew(access, &begin, statement_timeout).await;
        if let Err(error) = &begun {
            self.memory.keep(error);
        }
        begun
    }

    /// Until the guard is dropped, a server found out of reach is not contacted again: each further
    /// [`Db::begin`] fails immediately with the same error.
    pub fn ask_once(&self) -> Once {
        self.memory.begin()
    }

    async fn begin_anew(
        &self,
        access: Access,
        begin: &str,
        statement_timeout: Duration,
    ) -> Result<Tx, DbError> {
        let what = (access, begin, statement_timeout);
        let opened = self.opened(None).await?;
        match self.begin_on(&opened, what).await {
            Err(refused)
                if refused.kind() == DbErrorKind::Login && self.address.known().is_none() =>
            {
                let renewed = self.opened(Some(&opened.url)).await?;
                if renewed.url == opened.url {
                    return Err(refused);
                }
                self.begin_on(&renewed, what).await
            }
            begun => begun,
        }
    }

    async fn begin_on(
        &self,
        opened: &Opened,
        (access, begin, statement_timeout): (Access, &str, Duration),
    ) -> Result<Tx, DbError> {
        // Within the caller's time, unless the address sets more, so that a caller with less time
        // learns the reason.
        let limit = opened.url.connect_timeout().unwrap_or(CONNECT_TIMEOUT.min(statement_timeout));
        let refused = |source| {
            let within = match source {
                sqlx::Error::PoolTimedOut => format!(" within {:.1} s", limit.as_secs_f64()),
                _ => String::new(),
            };
            DbError::new(self.side, format!("connecting to {}{within}", opened.place), source)
                .before_any_work()
        };
        let mut held = opened.pool.acquire(limit, self.is_patient).await.map_err(refused)?;
        let mut begun = held.begin(begin, limit).await;
        if begun.is_err() && held.is_reused() {
            // The server may have closed an idle connection long ago. Nothing was started on it.
            held = opened.pool.reconnect(held, limit).await.map_err(refused)?;
            begun = held.begin(begin, limit).await;
        }
        begun.map_err(refused)?;
        let limit = statement_timeout.saturating_add(ANSWER_SLACK);
        let terms = Terms { side: self.side, access, statement_timeout, limit };
        Ok(Tx { held, terms })
    }

    /// The pool. After a refused login, pass the refused URL: the address is read again, and a
    /// changed one gets a new pool.
    async fn opened(&self, refused: Option<&DatabaseUrl>) -> Result<Opened, DbError> {
        let is_good = |opened: &&Opened| refused != Some(&opened.url);
        if let Some(opened) = self.opened.read().await.as_ref().filter(is_good) {
            return Ok(opened.clone());
        }
        let mut place = self.opened.write().await;
        if let Some(opened) = place.as_ref().filter(is_good) {
            // Another task has read it meanwhile.
            return Ok(opened.clone());
        }
        let url = secret::read(&self.address).await.map_err(|error| {
            let source = sqlx::Error::Configuration(error.into());
            DbError::new(self.side, format!("reading {}", self.address), source)
        })?;
        if let Some(opened) = place.as_ref().filter(|opened| opened.url == url) {
            return Ok(opened.clone());
        }
        let opened = Opened::new(url, self.side, self.connections_max)?;
        *place = Some(opened.clone());
        Ok(opened)
    }

    /// Cancels the running statements of Tallymark's transactions, over a separate connection. If
    /// the server is out of reach, it ends them when it notices the closed connections.
    pub async fn cancel_running(&self) {
        let Some(opened) = self.opened.read().await.clone() else { return };
        if let Err(error) = opened.pool.cancel_running().await {
            let error = DbError::new(self.side, "cancelling what runs", error);
            tracing::info!(error = %error, "not cancelled");
        }
    }

    /// Identifies the database of the address by host, port and name, independent of spelling. All
    /// names of this machine count as one.
    ///
    /// # Errors
    /// The address is stored elsewhere and cannot be read.
    pub async fn location(&self) -> Result<String, DbError> {
        let opened = self.opened(None).await?;
        let options = options(&opened.url)
            .map_err(|source| DbError::new(self.side, "reading the connection URL", source))?;
        let host = match opened.url.is_loopback() || options.get_socket().is_some() {
            true => "localhost".to_owned(),
            false => options.get_host().trim_end_matches('.').to_ascii_lowercase(),
        };
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        Ok(format!("{host}:{}/{database}", options.get_port()))
    }

    pub async fn close(&self) {
        if let Some(opened) = &*self.opened.read().await {
            opened.pool.close().await;
        }
    }
}

/// The statements that open a transaction, for one round trip.
fn begin_sql(access: Access, statement_timeout: Duration, label: &str) -> String {
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

/// A transaction. If it is dropped before [`Tx::commit`] or [`Tx::rollback`], its connection is
/// closed, and the server rolls back.
///
/// The connection of an aborted statement must not be reused. A `COPY` that failed to begin, or
/// whose reader stopped, leaves messages in it that the next statement would read as its own.
#[derive(Debug)]
pub struct Tx {
    held: InUse,
    terms: Terms,
}

/// The terms of a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    side: Side,
    access: Access,
    /// The server's time limit for a statement.
    statement_timeout: Duration,
    /// The time limit for a statement's answer, which is longer.
    limit: Duration,
}

impl Terms {
    /// The error of a statement that ran for `took`. The server has one code for a statement that
    /// ran into its limit and for one that an operator cancelled. Only the elapsed time tells them
    /// apart.
    pub(crate) fn broken_off(self, doing: &str, source: sqlx::Error, took: Duration) -> DbError {
        let error = DbError::new(self.side, doing, source);
        // The server's clock may run a little faster than this one.
        let has_passed = took >= self.statement_timeout.mul_f64(0.99);
        if has_passed { error } else { error.cancelled_by_another() }
    }
}

impl Tx {
    /// The connection, for queries. Wrap their errors with [`Tx::error`].
    pub const fn connection(&mut self) -> &mut sqlx::PgConnection {
        self.held.connection()
    }

    /// The time limit for a statement's answer.
    pub(crate) const fn limit(&self) -> Duration {
        self.terms.limit
    }

    pub(crate) const fn terms(&self) -> Terms {
        self.terms
    }

    /// Wraps `source` as the error of `doing` something on this database.
    #[must_use]
    pub fn error(&self, doing: impl Into<String>, source: sqlx::Error) -> DbError {
        DbError::new(self.terms.side, doing, source)
    }

    /// Runs one statement, never two in one text, and returns the rows affected.
    ///
    /// # Errors
    /// The server refuses, or the connection breaks, while `doing` it.
    pub async fn execute(&mut self, doing: &str, sql: String) -> Result<u64, DbError> {
        let query = sqlx::query(AssertSqlSafe(sql.clone())).persistent(false);
        let (limit, watch) = (self.terms.limit, Stopwatch::start());
        let answer = tokio::time::timeout(limit, query.execute(self.connection())).await;
        Ok(self.judged((doing, &sql), watch, answer).await?.rows_affected())
    }

    /// Runs one statement and returns its only row.
    ///
    /// # Errors
    /// As [`Tx::execute`], and if there is no row.
    pub async fn row(
        &mut self,
        doing: &str,
        sql: String,
    ) -> Result<sqlx::postgres::PgRow, DbError> {
        let query = sqlx::query(AssertSqlSafe(sql.clone())).persistent(false);
        let (limit, watch) = (self.terms.limit, Stopwatch::start());
        let answer = tokio::time::timeout(limit, query.fetch_one(self.connection())).await;
        self.judged((doing, &sql), watch, answer).await
    }

    /// Runs one statement and returns its rows, all in memory.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn rows(
        &mut self,
        doing: &str,
        sql: String,
    ) -> Result<Vec<sqlx::postgres::PgRow>, DbError> {
        let query = sqlx::query(AssertSqlSafe(sql.clone())).persistent(false);
        let (limit, watch) = (self.terms.limit, Stopwatch::start());
        let answer = tokio::time::timeout(limit, query.fetch_all(self.connection())).await;
        self.judged((doing, &sql), watch, answer).await
    }

    /// The answer to a statement, with the time limit of a working server.
    async fn judged<T>(
        &mut self,
        (doing, sql): (&str, &str),
        watch: Stopwatch,
        answer: Result<Result<T, sqlx::Error>, Elapsed>,
    ) -> Result<T, DbError> {
        let source = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(source)) => source,
            Err(_) => return Err(DbError::silent(self.terms.side, doing, self.terms.limit)),
        };
        let error = self.terms.broken_off(doing, source, watch.elapsed());
        if !error.is_locked() {
            return Err(error);
        }
        let waited = locks::holders(&mut self.held, self.terms.access, sql).await;
        Err(waited.map_or(error.clone(), |waited| error.held_by(&waited)))
    }

    /// Commits.
    ///
    /// # Errors
    /// The server refuses or the connection breaks. It is then unknown whether the commit happened,
    /// and only the marker shows it.
    pub async fn commit(self) -> Result<(), DbError> {
        self.end("committing", "COMMIT").await
    }

    /// Rolls back, and waits until that is done.
    ///
    /// # Errors
    /// The connection breaks. The server then rolls back by itself.
    pub async fn rollback(self) -> Result<(), DbError> {
        self.end("rolling back", "ROLLBACK").await
    }

    async fn end(mut self, doing: &str, sql: &'static str) -> Result<(), DbError> {
        let (limit, watch) = (self.terms.limit, Stopwatch::start());
        let answer = tokio::time::timeout(limit, self.held.simple(sql)).await;
        self.judged((doing, sql), watch, answer).await?;
        self.held.give_back();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_host_is_verified_unless_its_address_has_an_sslmode() {
        let mode = |text: &str| {
            let url = DatabaseUrl::new(text).unwrap();
            format!("{:?}", options(&url).unwrap().get_ssl_mode())
        };
        for text in [
            "postgres://app@db.example.com/x",
            "postgres://app@db.example.com/x?sslrootcert=ca.pem",
            "postgres://app@localhost/x?host=db.example.com",
            // Words in other places have no effect.
            "postgres://app:sslmode=prefer@db.example.com/x",
            "postgres://app@db.example.com/sslmode=prefer",
            "postgres://app@db.example.com/x?application_name=sslmode=prefer",
        ] {
            assert_eq!(mode(text), "VerifyFull", "{text}");
        }
        for (option, expected) in [
            ("sslmode=require", "Require"),
            ("ssl-mode=verify-ca", "VerifyCa"),
            ("sslmode=disable", "Disable"),
        ] {
            assert_eq!(mode(&format!("postgres://app@db.example.com/x?{option}")), expected);
        }
    }

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
