//! A PostgreSQL server. It is connected when first needed, and used in one bounded transaction at a
//! time.
//!
//! Every statement runs inside a transaction, and none is prepared under a name. So a transaction
//! pooler (PgBouncer, Supavisor, Neon's `-pooler`) may give every transaction another backend.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::sync::RwLock;

use crate::clients::address::{Address, DatabaseUrl};
use crate::clients::secret::{self, SecretError};
use crate::clients::token::TokenLogin;

mod begin;
mod begun;
mod error;
pub(crate) mod history;
mod locks;
mod once;
mod pool;
mod transaction;
mod whole;

pub(crate) use begun::Begun;
pub use error::{CatalogueError, DbError, DbErrorKind};
use once::Once;
pub use transaction::Tx;
pub use whole::Whole;

use begin::{begin_sql, begin_sql_with};
use once::Memory;
pub(crate) use pool::Canceller;
use pool::Pool;
use transaction::Terms;

/// How long a question to a catalogue may take.
pub const CATALOGUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of connecting, unless the address sets another. A suspended Neon wakes in a few
/// hundred milliseconds. A server that stays silent for this long is reported as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server ends its own statements. If it stays silent for this much longer than the statement's
/// limit, it counts as cut off.
const ANSWER_SLACK: Duration = Duration::from_secs(10);

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
    begun: Begun,
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
/// `sslmode`. So is any host that gets a token.
pub(crate) fn options(url: &DatabaseUrl, has_token: bool) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.for_driver().parse()?;
    // A pooler refuses unknown startup parameters. The transaction sets this one itself.
    let options = options.extra_float_digits(None);
    let options = options.application_name(url.application_name().unwrap_or("tallymark"));
    if url.ssl_mode().is_none() && (has_token || !url.is_loopback()) {
        return Ok(options.ssl_mode(PgSslMode::VerifyFull));
    }
    Ok(options)
}

impl Opened {
    fn new(
        address: &Address,
        url: DatabaseUrl,
        side: Side,
        connections_max: u32,
    ) -> Result<Self, DbError> {
        let wrong = |source| DbError::new(side, "reading the connection URL", source);
        let login = match address {
            Address::WithToken(_) => Some(TokenLogin::of(&url).map_err(|fault| {
                wrong(sqlx::Error::Configuration(SecretError::from(fault).into()))
            })?),
            _ => None,
        };
        let options = options(&url, login.is_some()).map_err(wrong)?;
        let place = url.place();
        let options = options.statement_cache_capacity(0);
        let pool = Arc::new(Pool::new(options, login, connections_max));
        Ok(Self { url, place, pool })
    }

    /// The time limit of connecting. It is within the caller's time, unless the address sets more,
    /// so that a caller with less time learns the reason.
    fn connect_limit(&self, statement_timeout: Duration) -> Duration {
        self.url.connect_timeout().unwrap_or(CONNECT_TIMEOUT.min(statement_timeout))
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
        let opened =
            known.map(|url| Opened::new(address, url, side, connections_max)).transpose()?;
        let (address, opened) = (address.clone(), Arc::new(RwLock::new(opened)));
        let (is_patient, memory, begun) = (true, Memory::default(), Begun::default());
        Ok(Self { address, side, connections_max, is_patient, opened, memory, begun })
    }

    /// Reports a server's first answer, instead of retrying while it may be starting.
    #[must_use]
    pub(crate) fn at_once(self) -> Self {
        Self { is_patient: false, ..self }
    }

    /// The count of its transactions.
    #[must_use]
    pub(crate) fn begun(&self) -> Begun {
        self.begun.clone()
    }

    #[must_use]
    pub(crate) const fn side(&self) -> Side {
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
        self.begin_with(access, statement_timeout, label, "").await
    }

    /// As [`Db::begin`], with a `first` statement in the same round trip, whose rows are dropped.
    ///
    /// # Errors
    /// As [`Db::begin`], and if the statement fails.
    pub(crate) async fn begin_with(
        &self,
        access: Access,
        statement_timeout: Duration,
        label: &str,
        first: &str,
    ) -> Result<Tx, DbError> {
        self.memory.recall()?;
        let begin = begin_sql_with(access, statement_timeout, label, first);
        let begun = self.begin_anew(access, &begin, statement_timeout).await;
        if let Err(error) = &begun {
            self.memory.keep(error);
        }
        begun
    }

    /// Until the guard is dropped, a server found out of reach is not contacted again: each further
    /// [`Db::begin`] fails immediately with the same error.
    pub(crate) fn ask_once(&self) -> Once {
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
            Err(refused) => {
                let renewed = self.renewed(&opened, refused).await?;
                self.begin_on(&renewed, what).await
            }
            begun => begun,
        }
    }

    /// The connections by a renewed address, after a refused login with one that is stored
    /// elsewhere. Otherwise returns what was `refused`.
    async fn renewed(&self, opened: &Opened, refused: DbError) -> Result<Opened, DbError> {
        if refused.kind() != DbErrorKind::Login || self.address.known().is_some() {
            return Err(refused);
        }
        let renewed = self.opened(Some(&opened.url)).await?;
        if renewed.url == opened.url { Err(refused) } else { Ok(renewed) }
    }

    /// The error of a connection that could not be made or begin anything within `limit`.
    fn refused(&self, opened: &Opened, limit: Duration, source: sqlx::Error) -> DbError {
        let within = match source {
            sqlx::Error::PoolTimedOut => format!(" within {:.1} s", limit.as_secs_f64()),
            _ => String::new(),
        };
        let is_servers = matches!(source, sqlx::Error::Database(_));
        let doing = format!("connecting to {}{within}", opened.place);
        let error = DbError::new(self.side, doing, source).before_any_work();
        // A token that could not be made has a remedy of its own.
        match self.address {
            Address::WithToken(_) if is_servers => error.of_token(),
            _ => error,
        }
    }

    async fn begin_on(
        &self,
        opened: &Opened,
        (access, begin, statement_timeout): (Access, &str, Duration),
    ) -> Result<Tx, DbError> {
        let limit = opened.connect_limit(statement_timeout);
        let refused = |source| self.refused(opened, limit, source);
        let mut held = opened.pool.acquire(limit, self.is_patient).await.map_err(refused)?;
        let mut begun = held.begin(begin, limit).await;
        if begun.is_err() && held.is_reused() {
            // The server may have closed an idle connection long ago. Nothing was started on it.
            held = opened.pool.reconnect(held, limit).await.map_err(refused)?;
            begun = held.begin(begin, limit).await;
        }
        begun.map_err(refused)?;
        self.begun.count();
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
        let opened = Opened::new(&self.address, url, self.side, self.connections_max)?;
        *place = Some(opened.clone());
        Ok(opened)
    }

    /// Cancels the running statements of Tallymark's transactions, over a separate connection. If
    /// the server is out of reach, it ends them when it notices the closed connections.
    pub(crate) async fn cancel_running(&self) {
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
    pub(crate) async fn location(&self) -> Result<String, DbError> {
        let opened = self.opened(None).await?;
        let options = options(&opened.url, false)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_host_is_verified_unless_its_address_has_an_sslmode() {
        let mode = |text: &str| {
            let url = DatabaseUrl::new(text).unwrap();
            format!("{:?}", options(&url, false).unwrap().get_ssl_mode())
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
}
