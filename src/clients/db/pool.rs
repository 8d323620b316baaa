//! The connections to one address.
//!
//! Tallymark has a pool of its own. A driver's pool retries refused connections until its time is
//! up, and then reports only the timeout. This one keeps the server's last message. An idle
//! connection is not tested before reuse. The following `BEGIN` serves as the test, and saves a
//! round trip.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{DbError, Side};
use crate::clients::token::TokenLogin;
use crate::model::clock::Stopwatch;

/// Idle connections are closed after this time, so that a scale-to-zero database can go to sleep.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// First wait before a refused connection is tried again. Each further wait is twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest of these waits. A starting server accepts connections within seconds.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Connections with the same options, limited in number. Idle ones are kept for a while.
#[derive(Debug)]
pub(super) struct Pool {
    options: PgConnectOptions,
    /// Makes the password of each connection.
    login: Option<TokenLogin>,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<(PgConnection, Stopwatch)>>,
    is_reaping: AtomicBool,
    /// The backends of this pool's open transactions.
    running: Mutex<Vec<i32>>,
}

/// A transaction that is open on a backend.
#[derive(Debug)]
struct OpenTransaction {
    pool: Arc<Pool>,
    pid: i32,
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        let mut running = self.pool.running();
        if let Some(place) = running.iter().position(|pid| *pid == self.pid) {
            running.swap_remove(place);
        }
    }
}

/// Cancels what runs in one transaction, as long as it is open.
#[derive(Clone, Debug)]
pub(crate) struct Canceller {
    pool: Arc<Pool>,
    side: Side,
    /// Its backend. `None`: it has not begun.
    pid: Option<i32>,
}

impl Canceller {
    /// Cancels, over an idle connection if there is one, as connecting takes milliseconds.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn cancel(&self) -> Result<(), DbError> {
        let Some(pid) = self.pid.filter(|pid| self.pool.running().contains(pid)) else {
            return Ok(());
        };
        let idle = self.pool.idle().pop();
        if let Some((idle, _)) = idle
            && cancel(idle, &[pid]).await.is_ok()
        {
            return Ok(());
        }
        // The server may have closed the idle one long ago.
        let cancelled = match self.pool.connect_once().await {
            Ok(connection) => cancel(connection, &[pid]).await,
            Err(error) => Err(error),
        };
        cancelled.map_err(|error| DbError::new(self.side, "cancelling a statement", error))
    }
}

/// A connection in use. Dropping it closes it. [`InUse::give_back`] keeps it for the next
/// transaction.
#[derive(Debug)]
pub(super) struct InUse {
    connection: PgConnection,
    is_reused: bool,
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
    running: Option<OpenTransaction>,
}

impl Pool {
    pub(super) fn new(
        options: PgConnectOptions,
        login: Option<TokenLogin>,
        connections_max: u32,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(connections_max as usize));
        Self {
            options,
            login,
            permits,
            idle: Mutex::default(),
            is_reaping: AtomicBool::new(false),
            running: Mutex::default(),
        }
    }

    /// A connection, preferably an idle one.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        limit: Duration,
        is_patient: bool,
    ) -> Result<InUse, sqlx::Error> {
        let watch = Stopwatch::start();
        let permit = tokio::time::timeout(limit, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = permit.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let permit = permit.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let is_reused = idle.is_some();
        let connection = match idle {
            Some((connection, _)) => connection,
            None => self.connect(limit.saturating_sub(watch.elapsed()), is_patient).await?,
        };
        Ok(InUse { connection, is_reused, pool: Arc::clone(self), permit, running: None })
    }

    /// A new connection that replaces a broken idle one. The other idle ones are as old, and closed
    /// too.
    pub(super) async fn reconnect(
        self: &Arc<Self>,
        broken: InUse,
        limit: Duration,
    ) -> Result<InUse, sqlx::Error> {
        let InUse { permit, connection, .. } = broken;
        drop(connection);
        self.idle().clear();
        let connection = self.connect(limit, true).await?;
        Ok(InUse { connection, is_reused: false, pool: Arc::clone(self), permit, running: None })
    }

    /// Connects. If the server refuses for now, it is tried again until `limit`, and the last
    /// refusal is the error.
    async fn connect(
        &self,
        limit: Duration,
        is_patient: bool,
    ) -> Result<PgConnection, sqlx::Error> {
        let watch = Stopwatch::start();
        let (mut wait, mut refusal) = (RETRY_FIRST, sqlx::Error::PoolTimedOut);
        loop {
            let left = limit.saturating_sub(watch.elapsed());
            match tokio::time::timeout(left, self.connect_once()).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) if !is_patient || !may_pass(&error) => return Err(error),
                Ok(Err(error)) => refusal = error,
                Err(_) => return Err(refusal),
            }
            if watch.elapsed() + wait >= limit {
                return Err(refusal);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    async fn connect_once(&self) -> Result<PgConnection, sqlx::Error> {
        let Some(login) = &self.login else {
            return PgConnection::connect_with(&self.options).await;
        };
        let token = login.token().await;
        let token = token.map_err(|error| sqlx::Error::Configuration(error.into()))?;
        PgConnection::connect_with(&self.options.clone().password(&token)).await
    }

    /// Closes the idle connections.
    pub(super) async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for (connection, _) in idle {
            // The server ends it in any case.
            let _ = connection.close().await;
        }
    }

    /// Closes expired idle connections, until none is left. A pool that nobody has any longer closes its own.
    fn reap(self: &Arc<Self>) {
        if self.is_reaping.swap(true, Ordering::SeqCst) {
            return;
        }
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE_TIMEOUT).await;
                let Some((old, is_last)) = pool.upgrade().map(|pool| pool.outdated()) else {
                    break;
                };
                for connection in old {
                    let _ = connection.close().await;
                }
                if is_last {
                    break;
                }
            }
        });
    }

    /// The expired idle connections, and whether these were the last ones.
    fn outdated(&self) -> (Vec<PgConnection>, bool) {
        let (mut old, mut idle) = (Vec::new(), self.idle());
        for (connection, since) in std::mem::take(&mut *idle) {
            if since.elapsed() >= IDLE_TIMEOUT {
                old.push(connection);
            } else {
                idle.push((connection, since));
            }
        }
        if idle.is_empty() {
            self.is_reaping.store(false, Ordering::SeqCst);
        }
        (old, idle.is_empty())
    }

    /// Cancels the statements of the open transactions, over a separate connection.
    pub(super) async fn cancel_running(&self) -> Result<(), sqlx::Error> {
        let running = self.running().clone();
        if running.is_empty() {
            return Ok(());
        }
        cancel(self.connect_once().await?, &running).await
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<i32>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(PgConnection, Stopwatch)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InUse {
    pub(super) const fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// What cancels the transaction that is open on it.
    pub(super) fn canceller(&self, side: Side) -> Canceller {
        let pid = self.running.as_ref().map(|running| running.pid);
        Canceller { pool: Arc::clone(&self.pool), side, pid }
    }

    /// Whether it was idle before.
    pub(super) const fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Runs statements that take no parameters and return nothing.
    pub(super) async fn simple(&mut self, sql: impl Into<String>) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(&mut self.connection).await.map(drop)
    }

    /// Begins a transaction. Waits until `limit` for a server that accepts a connection and stays
    /// silent.
    pub(super) async fn begin(&mut self, sql: &str, limit: Duration) -> Result<(), sqlx::Error> {
        let begin = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut self.connection);
        let begun = tokio::time::timeout(limit, begin).await;
        let rows = begun.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        if let Some(row) = rows.last() {
            let (pid, pool) = (row.try_get("pid")?, Arc::clone(&self.pool));
            pool.running().push(pid);
            self.running = Some(OpenTransaction { pool, pid });
        }
        Ok(())
    }

    /// Keeps the connection, whose transaction has ended, for the next one.
    pub(super) fn give_back(self) {
        let Self { connection, pool, permit, running, .. } = self;
        drop(running);
        pool.idle().push((connection, Stopwatch::start()));
        drop(permit);
        pool.reap();
    }
}

/// Cancels the statements that run on these backends.
async fn cancel(mut connection: PgConnection, pids: &[i32]) -> Result<(), sqlx::Error> {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let sql = include_str!("cancel.sql").replace("{pids}", &format!("{{{}}}", pids.join(",")));
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}

/// Whether a refused connection may soon succeed, because the server is starting, stopping or full.
fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => {
            matches!(error.code().as_deref(), Some("53300" | "57P03"))
        }
        _ => false,
    }
}
