//! A PostgreSQL server, reached lazily, one bounded transaction at a time.
//!
//! Nothing runs outside a transaction and nothing is prepared under a name, so that a transaction
//! pooler (PgBouncer, Supavisor, Neon's `-pooler`) may hand every transaction another backend.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::sync::RwLock;
use tokio::time::error::Elapsed;

use crate::clock::Stopwatch;
use crate::db::address::{Address, DatabaseUrl};
use crate::secret;
use crate::sql::literal;

pub mod address;
mod error;
pub mod history;
mod locks;
mod once;
mod pool;

pub use error::{DbError, DbErrorKind};
pub use once::Once;

use once::Memory;
use pool::{Held, Pool};

/// How long a question to a catalogue may take.
pub const CATALOGUE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may take, unless the address says otherwise: a suspended Neon wakes in a few hundred
/// milliseconds, and a server that has not answered after this long is reported as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A transaction may be idle for two statements of the other database, and this much more.
const IDLE_SLACK: Duration = Duration::from_secs(1);

/// A server ends its statements itself. One that says nothing for this much longer than a statement may take is cut
/// off, and no longer waited for.
const ANSWER_SLACK: Duration = Duration::from_secs(10);

/// PostgreSQL counts milliseconds in 31 bits, and the time that a transaction may be idle is more than twice this.
const STATEMENT_TIMEOUT_MAX: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// Longest wait for a lock that another session holds (DDL on the source, another writer's marker).
const LOCK_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// ... and the part of a statement's time that it may take.
const LOCK_SHARE: f64 = 0.75;

/// Which of the two databases; the word stands in errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The application's database, which is read.
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

/// What a transaction may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `BEGIN READ ONLY`.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// A PostgreSQL server and the credentials for it. Connects when first used.
///
/// An address that is kept elsewhere is read then, and read again when the server refuses the login: a password that was
/// rotated costs one refused connection.
#[derive(Clone, Debug)]
pub struct Db {
    address: Address,
    side: Side,
    connections_max: u32,
    /// Whether a refused connection is tried again.
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

/// How to connect to `url`: a host that is not this machine is verified in full, unless the URL has an `sslmode`.
pub(crate) fn options(url: &DatabaseUrl) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.for_driver().parse()?;
    // A pooler refuses startup parameters it does not know; the transaction sets its own.
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
    /// Prepares the connection to `address`, with at most `connections_max` at once.
    ///
    /// A remote host without an `sslmode` in its URL is verified in full (certificate and name);
    /// less must be asked for explicitly.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn new(address: &Address, side: Side, connections_max: u32) -> Result<Self, DbError> {
        let known = address.known().cloned();
        let opened = known.map(|url| Opened::new(url, side, connections_max)).transpose()?;
        let (address, opened) = (address.clone(), Arc::new(RwLock::new(opened)));
        let is_patient = true;
        Ok(Self { address, side, connections_max, is_patient, opened, memory: Memory::default() })
    }

    /// Says what a server answers at once, in place of trying again for as long as it may be starting.
    #[must_use]
    pub fn at_once(self) -> Self {
        Self { is_patient: false, ..self }
    }

    /// Which database this is.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// Begins a transaction whose every statement ends within `statement_timeout`.
    ///
    /// `label` names the work in `pg_stat_activity` (at most 63 bytes are kept by the server).
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

    /// Until the guard is dropped, a server that was once found out of reach is not asked again: each further
    /// [`Db::begin`] fails at once, with the same words.
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
        // Within the caller's time, unless the address asks for more: whoever has less must hear why.
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
            // The server may have ended an idle connection long ago; nothing was begun on it.
            held = opened.pool.reconnect(held, limit).await.map_err(refused)?;
            begun = held.begin(begin, limit).await;
        }
        begun.map_err(refused)?;
        let limit = statement_timeout.saturating_add(ANSWER_SLACK);
        let terms = Terms { side: self.side, access, statement_timeout, limit };
        Ok(Tx { held, terms })
    }

    /// The connections; with `refused` those to an address that is not that one any more, if it has changed.
    async fn opened(&self, refused: Option<&DatabaseUrl>) -> Result<Opened, DbError> {
        let is_good = |opened: &&Opened| refused != Some(&opened.url);
        if let Some(opened) = self.opened.read().await.as_ref().filter(is_good) {
            return Ok(opened.clone());
        }
        let mut place = self.opened.write().await;
        if let Some(opened) = place.as_ref().filter(is_good) {
            // Somebody else has read it meanwhile.
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

    /// Cancels what our transactions have running on the server, over a connection of its own. A server that cannot
    /// be asked ends them when it notices that their connections are closed.
    pub async fn cancel_running(&self) {
        let Some(opened) = self.opened.read().await.clone() else { return };
        if let Err(error) = opened.pool.cancel_running().await {
            let error = DbError::new(self.side, "cancelling what runs", error);
            tracing::info!(error = %error, "not cancelled");
        }
    }

    /// Which database the address names, however it is spelled: host, port and name. All names of
    /// this machine are one.
    ///
    /// # Errors
    /// The address is kept elsewhere and cannot be read.
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

    /// Closes all connections.
    pub async fn close(&self) {
        if let Some(opened) = &*self.opened.read().await {
            opened.pool.close().await;
        }
    }
}

/// The statements that open a transaction, sent in one round trip.
fn begin_sql(access: Access, statement_timeout: Duration, label: &str) -> String {
    let statement_timeout = statement_timeout.min(STATEMENT_TIMEOUT_MAX);
    let statement_ms = statement_timeout.as_millis().max(1);
    // While one database works, the transaction on the other is idle.
    let idle_ms = 2 * statement_ms + IDLE_SLACK.as_millis();
    // Before the statement's own limit, which would count as the slice's failure.
    let lock_timeout = statement_timeout.mul_f64(LOCK_SHARE).min(LOCK_TIMEOUT_MAX);
    let lock_ms = lock_timeout.as_millis().max(1);
    let mut sql = String::from(match access {
        // A snapshot for each statement, whatever the database's default is: settling relies on it.
        Access::ReadOnly => "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
        Access::ReadWrite => "BEGIN ISOLATION LEVEL READ COMMITTED",
    });
    for (name, value) in [
        ("statement_timeout", format!("{statement_ms}ms")),
        ("lock_timeout", format!("{lock_ms}ms")),
        // A frozen Lambda must not sit on an open transaction.
        ("idle_in_transaction_session_timeout", format!("{idle_ms}ms")),
        ("application_name", format!("tallymark {label}")),
        // What COPY writes as text must read the same on the other side.
        ("TimeZone", "UTC".into()),
        ("DateStyle", "ISO".into()),
        ("IntervalStyle", "postgres".into()),
        ("extra_float_digits", "1".into()),
        ("bytea_output", "hex".into()),
        ("lc_monetary", "C".into()),
        ("quote_all_identifiers", "off".into()),
        // What a definition says must not depend on what a role's settings make of it.
        ("standard_conforming_strings", "on".into()),
        ("array_nulls", "on".into()),
        ("transform_null_equals", "off".into()),
        // Compiling costs more than these short statements take.
        ("jit", "off".into()),
        // One statement is one processor: a chunk must not take the server's others.
        ("max_parallel_workers_per_gather", "0".into()),
    ] {
        let _ = write!(sql, "; SET LOCAL {name} = {}", literal(&value));
    }
    // Under row-level security a role without BYPASSRLS would count 0 rows without an error.
    sql.push_str("; SET LOCAL row_security = off");
    // What older servers do not know, or what depends on what is set, in the same round trip. From 14 on a server
    // notices that a killed client has gone. From 17 on a role or database may limit whole transactions: ours are
    // limited by their statements. And what DynamoDB will call done must survive a crash of the server.
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

/// A transaction. Dropped before [`Tx::commit`] or [`Tx::rollback`] it takes its connection with it,
/// and the server rolls back.
///
/// The connection of a statement that broke off cannot be used again: a `COPY` that failed to begin,
/// or whose reader went away, leaves messages in it that the next statement would take for its own.
#[derive(Debug)]
pub struct Tx {
    held: Held,
    terms: Terms,
}

/// What a transaction was begun for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    side: Side,
    access: Access,
    /// How long the server lets a statement run.
    statement_timeout: Duration,
    /// How long a statement's answer is waited for: longer than that.
    limit: Duration,
}

impl Terms {
    /// The error of a statement that ran for `took`. The server has one code for a statement that ran into its limit
    /// and for one that an operator cancelled; only the limit tells them apart.
    pub(crate) fn broken_off(self, doing: &str, source: sqlx::Error, took: Duration) -> DbError {
        let error = DbError::new(self.side, doing, source);
        // The server's clock may run a little faster than this one.
        let has_passed = took >= self.statement_timeout.mul_f64(0.99);
        if has_passed { error } else { error.cancelled_by_another() }
    }
}

impl Tx {
    /// The connection, for queries; wrap their errors with [`Tx::error`].
    pub const fn connection(&mut self) -> &mut sqlx::PgConnection {
        self.held.connection()
    }

    /// How long a statement's answer is waited for.
    pub(crate) const fn limit(&self) -> Duration {
        self.terms.limit
    }

    /// What it was begun for.
    pub(crate) const fn terms(&self) -> Terms {
        self.terms
    }

    /// `source`, said to have happened while `doing` something here.
    #[must_use]
    pub fn error(&self, doing: impl Into<String>, source: sqlx::Error) -> DbError {
        DbError::new(self.terms.side, doing, source)
    }

    /// Runs one statement, which may not hide a second one, and returns the rows affected.
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
    /// As [`Tx::execute`]; no row is an error too.
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

    /// The answer to a statement, which is waited for no longer than a server that works may take.
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
    /// The server refuses or the connection breaks; it is then unknown whether the commit
    /// happened, and only the marker tells.
    pub async fn commit(self) -> Result<(), DbError> {
        self.end("committing", "COMMIT").await
    }

    /// Rolls back and waits until that is done.
    ///
    /// # Errors
    /// The connection breaks; the server rolls back by itself then.
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
            // Words in other places say nothing.
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
