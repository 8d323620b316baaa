//! A transaction: its statements, their time limits, and its end.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::time::error::Elapsed;

use super::pool::{Canceller, InUse};
use super::{Access, DbError, Side, locks};
use crate::model::clock::Stopwatch;

/// A transaction. If it is dropped before [`Tx::commit`] or [`Tx::rollback`], its connection is
/// closed, and the server rolls back.
///
/// The connection of an aborted statement must not be reused. A `COPY` that failed to begin, or
/// whose reader stopped, leaves messages in it that the next statement would read as its own.
#[derive(Debug)]
pub struct Tx {
    pub(super) held: InUse,
    pub(super) terms: Terms,
}

/// The terms of a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(super) side: Side,
    pub(super) access: Access,
    /// The server's time limit for a statement.
    pub(super) statement_timeout: Duration,
    /// The time limit for a statement's answer, which is longer.
    pub(super) limit: Duration,
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

    /// What cancels its statement, also after it was moved away.
    #[must_use]
    pub(crate) fn canceller(&self) -> Canceller {
        self.held.canceller(self.terms.side)
    }

    pub(crate) const fn terms(&self) -> Terms {
        self.terms
    }

    /// Wraps `source` as the error of `doing` something on this database.
    #[must_use]
    pub(crate) fn error(&self, doing: impl Into<String>, source: sqlx::Error) -> DbError {
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
    pub(crate) async fn rows(
        &mut self,
        doing: &str,
        sql: String,
    ) -> Result<Vec<sqlx::postgres::PgRow>, DbError> {
        let query = sqlx::query(AssertSqlSafe(sql.clone())).persistent(false);
        let (limit, watch) = (self.terms.limit, Stopwatch::start());
        let answer = tokio::time::timeout(limit, query.fetch_all(self.connection())).await;
        self.judged((doing, &sql), watch, answer).await
    }

    /// As [`Tx::rows`], in one round trip instead of two. Only for a text of Tallymark's own: the
    /// server would run each statement of a text that has several.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub(crate) async fn ask(
        &mut self,
        doing: &str,
        sql: String,
    ) -> Result<Vec<sqlx::postgres::PgRow>, DbError> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.clone()));
        let (limit, watch) = (self.terms.limit, Stopwatch::start());
        let answer = tokio::time::timeout(limit, query.fetch_all(self.connection())).await;
        self.judged((doing, &sql), watch, answer).await
    }

    /// As [`Tx::ask`], for the first row.
    ///
    /// # Errors
    /// As [`Tx::row`].
    pub(crate) async fn ask_row(
        &mut self,
        doing: &str,
        sql: String,
    ) -> Result<sqlx::postgres::PgRow, DbError> {
        let first = self.ask(doing, sql).await?.into_iter().next();
        first.ok_or_else(|| self.error(doing, sqlx::Error::RowNotFound))
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
        self.ended((doing, sql), watch, answer).await
    }

    /// The answer to the last statement. The connection serves the next transaction.
    pub(super) async fn ended<T>(
        mut self,
        what: (&str, &str),
        watch: Stopwatch,
        answer: Result<Result<T, sqlx::Error>, Elapsed>,
    ) -> Result<T, DbError> {
        let answer = self.judged(what, watch, answer).await?;
        self.held.give_back();
        Ok(answer)
    }
}
