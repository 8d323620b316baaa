//! A PostgreSQL server, reached lazily, one bounded transaction at a time.
//!
//! Nothing runs outside a transaction and nothing is prepared under a name, so that a transaction
//! pooler (PgBouncer, Supavisor, Neon's `-pooler`) may hand every transaction another backend.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, PgPool, Postgres};
use tokio::sync::RwLock;

use crate::config::{Address, DatabaseUrl};
use crate::secret;
use crate::sql::literal;

/// How long a connection may take, unless the address says otherwise: a suspended Neon wakes in a few hundred
/// milliseconds, and a server that has not answered after this long is reported as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle connections are closed after this, so that a scale-to-zero database can go to sleep.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A transaction may be idle for two statements of the other database, and this much more.
const IDLE_SLACK: Duration = Duration::from_secs(1);

/// PostgreSQL counts milliseconds in 31 bits, and the time that a transaction may be idle is more than twice this.
const STATEMENT_TIMEOUT_MAX: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// Longest wait for a lock held by somebody else (DDL on the source, another writer's marker).
const LOCK_TIMEOUT_MAX: Duration = Duration::from_secs(5);

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
    opened: Arc<RwLock<Option<Opened>>>,
}

/// The connections to one address.
#[derive(Clone, Debug)]
struct Opened {
    url: DatabaseUrl,
    /// Host and port, for errors.
    place: String,
    pool: PgPool,
}

/// How to connect to `url`: a host that is not this machine is verified in full, unless the URL has an `sslmode`.
pub(crate) fn options(url: &DatabaseUrl) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.for_driver().parse()?;
    // A pooler refuses startup parameters it does not know; the transaction sets its own.
    let options = options.extra_float_digits(None).application_name("tallymark");
    if !url.has_ssl_mode() && !url.is_loopback() {
        return Ok(options.ssl_mode(PgSslMode::VerifyFull));
    }
    Ok(options)
}

impl Opened {
    fn new(url: DatabaseUrl, side: Side, connections_max: u32) -> Result<Self, DbError> {
        let options = options(&url)
            .map_err(|source| DbError::new(side, "reading the connection URL", source))?;
        let place = format!("{}:{}", options.get_host(), options.get_port());
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(url.connect_timeout().unwrap_or(CONNECT_TIMEOUT))
            .idle_timeout(IDLE_TIMEOUT)
            .connect_lazy_with(options.statement_cache_capacity(0));
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
        Ok(Self { address, side, connections_max, opened })
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
        let opened = self.opened(None).await?;
        let begin = begin_sql(access, statement_timeout, label);
        match self.begin_on(&opened, &begin, statement_timeout).await {
            Err(refused)
                if refused.kind() == DbErrorKind::Login && self.address.known().is_none() =>
            {
                let renewed = self.opened(Some(&opened.url)).await?;
                if renewed.url == opened.url {
                    return Err(refused);
                }
                self.begin_on(&renewed, &begin, statement_timeout).await
            }
            begun => begun,
        }
    }

    async fn begin_on(&self, opened: &Opened, begin: &str, limit: Duration) -> Result<Tx, DbError> {
        // Within the caller's time, unless the address asks for more: whoever has less must hear why.
        let limit = opened.url.connect_timeout().unwrap_or(CONNECT_TIMEOUT.min(limit));
        let refused = |source| {
            let within = match source {
                sqlx::Error::PoolTimedOut => format!(" within {:.1} s", limit.as_secs_f64()),
                _ => String::new(),
            };
            DbError::new(self.side, format!("connecting to {}{within}", opened.place), source)
        };
        let connection = tokio::time::timeout(limit, opened.pool.acquire())
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
            .map_err(refused)?;
        let mut tx = Tx { connection, side: self.side, ended: false };
        tx.simple(begin).await.map_err(refused)?;
        Ok(tx)
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
    let lock_ms = statement_timeout.min(LOCK_TIMEOUT_MAX).as_millis().max(1);
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
        // Compiling costs more than these short statements take.
        ("jit", "off".into()),
        // One statement is one processor: a chunk must not take the server's others.
        ("max_parallel_workers_per_gather", "0".into()),
    ] {
        let _ = write!(sql, "; SET LOCAL {name} = {}", literal(&value));
    }
    // Under row-level security a role without BYPASSRLS would count 0 rows without an error.
    sql.push_str("; SET LOCAL row_security = off");
    // PostgreSQL 14 and later notice that a killed client has gone.
    sql.push_str(
        "; SELECT CASE WHEN current_setting('server_version_num')::int >= 140000 \
         THEN set_config('client_connection_check_interval', '500ms', true) END",
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
    connection: PoolConnection<Postgres>,
    side: Side,
    ended: bool,
}

impl Drop for Tx {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

impl Tx {
    /// The connection, for queries; wrap their errors with [`Tx::error`].
    pub fn connection(&mut self) -> &mut sqlx::PgConnection {
        &mut self.connection
    }

    /// Runs statements that take no parameters and return nothing.
    async fn simple(&mut self, sql: impl Into<String>) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(&mut *self.connection).await.map(drop)
    }

    /// `source`, said to have happened while `doing` something here.
    #[must_use]
    pub fn error(&self, doing: impl Into<String>, source: sqlx::Error) -> DbError {
        DbError::new(self.side, doing, source)
    }

    /// Runs one statement, which may not hide a second one, and returns the rows affected.
    ///
    /// # Errors
    /// The server refuses, or the connection breaks, while `doing` it.
    pub async fn execute(&mut self, doing: &str, sql: String) -> Result<u64, DbError> {
        sqlx::query(AssertSqlSafe(sql))
            .persistent(false)
            .execute(&mut *self.connection)
            .await
            .map(|done| done.rows_affected())
            .map_err(|source| DbError::new(self.side, doing, source))
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
        sqlx::query(AssertSqlSafe(sql))
            .persistent(false)
            .fetch_one(&mut *self.connection)
            .await
            .map_err(|source| DbError::new(self.side, doing, source))
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
        sqlx::query(AssertSqlSafe(sql))
            .persistent(false)
            .fetch_all(&mut *self.connection)
            .await
            .map_err(|source| DbError::new(self.side, doing, source))
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

    async fn end(mut self, doing: &str, sql: &str) -> Result<(), DbError> {
        let ended = self.simple(sql).await;
        self.ended = ended.is_ok();
        ended.map_err(|source| DbError::new(self.side, doing, source))
    }
}

/// What kind of trouble a database reported, as far as the caller would act differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DbErrorKind {
    /// No connection, or it broke, or the server is starting, stopping or out of something: try again later.
    Unreachable,
    /// The server refused the login, or there is no such database.
    Login,
    /// The statement ran into its time limit or was cancelled.
    Cancelled,
    /// A lock was not free in time, a deadlock or a serialisation failure: try again.
    Contended,
    /// The role lacks a privilege.
    Denied,
    /// Row-level security would hide rows from this role.
    RowSecurity,
    /// A table, column, function or type is not there.
    Missing,
    /// Any other refusal.
    Refused,
}

/// Trouble with a PostgreSQL server, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{side} database: {doing}: {}", text(source))]
pub struct DbError {
    side: Side,
    doing: String,
    source: sqlx::Error,
}

impl DbError {
    pub(crate) fn new(side: Side, doing: impl Into<String>, source: sqlx::Error) -> Self {
        Self { side, doing: doing.into(), source }
    }

    /// Which database.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// What kind of trouble.
    #[must_use]
    pub fn kind(&self) -> DbErrorKind {
        kind(&self.source)
    }
}

/// Sorts by SQLSTATE (PostgreSQL's appendix A).
fn kind(error: &sqlx::Error) -> DbErrorKind {
    let Some(code) = error.as_database_error().and_then(|error| error.code()) else {
        return match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => DbErrorKind::Unreachable,
            // The address could not be read, where it is kept elsewhere.
            sqlx::Error::Configuration(_) => DbErrorKind::Login,
            _ => DbErrorKind::Refused,
        };
    };
    match &*code {
        "57014" => DbErrorKind::Cancelled,
        "42501" => {
            let text = error.as_database_error().map_or("", |error| error.message());
            if text.contains("row-level security") {
                DbErrorKind::RowSecurity
            } else {
                DbErrorKind::Denied
            }
        }
        "42P01" | "42703" | "42883" | "42704" | "3F000" => DbErrorKind::Missing,
        "3D000" => DbErrorKind::Login,
        // 25P03: this client was too slow, which says nothing about the server.
        "25P03" | "40001" | "40P01" | "55P03" => DbErrorKind::Contended,
        // Out of disk, memory or connections, or its disk fails: whatever the slice. Its own is 53400, a limit of its
        // temporary files.
        "53000" | "53100" | "53200" | "53300" | "58030" => DbErrorKind::Unreachable,
        code if code.starts_with("08") || code.starts_with("57P") => DbErrorKind::Unreachable,
        code if code.starts_with("28") => DbErrorKind::Login,
        _ => DbErrorKind::Refused,
    }
}

/// What may be done about a server that cannot be verified.
fn with_remedy(said: String) -> String {
    if said.contains("does not support TLS") {
        said + "; turn it on there, or add ?sslmode=disable to the address to send everything in the open"
    } else if said.contains("peer certificate") {
        said + "; add ?sslrootcert=FILE to the address for a certificate authority of its own, or \
                ?sslmode=require for encryption without verification"
    } else {
        said
    }
}

/// The server's own words, or the driver's.
fn text(error: &sqlx::Error) -> String {
    let said = match error.as_database_error() {
        Some(error) => error.message().to_owned(),
        None => match error {
            sqlx::Error::Io(error) => with_remedy(error.to_string()),
            sqlx::Error::Tls(error) => with_remedy(error.to_string()),
            sqlx::Error::PoolTimedOut => "no answer in time; if the server sleeps when idle, add \
                                          ?connect_timeout=SECONDS to its address"
                .to_owned(),
            sqlx::Error::Configuration(error) => error.to_string(),
            error => error.to_string(),
        },
    };
    said.split_whitespace().collect::<Vec<_>>().join(" ")
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
