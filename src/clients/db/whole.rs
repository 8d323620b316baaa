//! A whole transaction in one message.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use tokio::time::error::Elapsed;

use super::pool::InUse;
use super::transaction::Terms;
use super::{ANSWER_SLACK, Access, Db, DbError, Opened, Tx, begin_sql};
use crate::model::clock::Stopwatch;

/// A transaction whose statements do not depend on each other's answers.
#[derive(Clone, Debug)]
pub struct Whole<'w> {
    pub access: Access,
    /// Time limit of each statement.
    pub statement_timeout: Duration,
    /// The text in `pg_stat_activity`.
    pub label: &'w str,
    /// The purpose, for errors.
    pub doing: &'w str,
    /// The statements, separated by semicolons.
    pub sql: String,
}

impl Db {
    /// Runs a whole transaction in one round trip, and returns the rows of its statements. Its locks
    /// never wait for this process, which may be frozen or killed at any instant.
    ///
    /// If an idle connection turns out to be broken, the transaction is sent once more. Then it may
    /// be carried out twice.
    ///
    /// # Errors
    /// The server cannot be reached or refuses, or the connection breaks. After that it is unknown
    /// whether the transaction was committed.
    pub async fn run_whole(&self, whole: &Whole<'_>) -> Result<Vec<PgRow>, DbError> {
        self.memory.recall()?;
        let opened = self.opened(None).await?;
        let ran = match self.run_on(&opened, whole).await {
            Err(refused) => match self.renewed(&opened, refused).await {
                Ok(renewed) => self.run_on(&renewed, whole).await,
                Err(refused) => Err(refused),
            },
            ran => ran,
        };
        if let Err(error) = &ran {
            self.memory.keep(error);
        }
        ran
    }

    async fn run_on(&self, opened: &Opened, whole: &Whole<'_>) -> Result<Vec<PgRow>, DbError> {
        let Whole { access, statement_timeout, label, doing, .. } = *whole;
        let connect = opened.connect_limit(statement_timeout);
        let refused = |source| self.refused(opened, connect, source);
        let limit = statement_timeout.saturating_add(ANSWER_SLACK);
        let sql = format!("{}; {}; COMMIT", begin_sql(access, statement_timeout, label), whole.sql);
        let mut held = opened.pool.acquire(connect, self.is_patient).await.map_err(refused)?;
        let (mut watch, mut answer) = (Stopwatch::start(), send(&mut held, &sql, limit).await);
        if matches!(&answer, Ok(Err(error)) if is_broken(error)) && held.is_reused() {
            // The server may have closed it long ago.
            held = opened.pool.reconnect(held, connect).await.map_err(refused)?;
            (watch, answer) = (Stopwatch::start(), send(&mut held, &sql, limit).await);
        }
        self.begun.count();
        let terms = Terms { side: self.side, access, statement_timeout, limit };
        Tx { held, terms }.ended((doing, &whole.sql), watch, answer).await
    }
}

/// Whether the connection has ended: silently, or with the server's farewell, which waits on an idle
/// connection for the next read.
fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        // An administrator or a shutdown ended the session, or `idle_session_timeout`.
        sqlx::Error::Database(error) => {
            matches!(error.code().as_deref(), Some("57P01" | "57P05"))
        }
        _ => false,
    }
}

async fn send(
    held: &mut InUse,
    sql: &str,
    limit: Duration,
) -> Result<Result<Vec<PgRow>, sqlx::Error>, Elapsed> {
    let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    let mut answer = tokio::time::timeout(limit, query.fetch_all(held.connection())).await;
    if let Ok(Ok(rows)) = &mut answer {
        // The opening statements answer with one row.
        rows.drain(..rows.len().min(1));
    }
    answer
}
