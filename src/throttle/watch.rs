//! Watches for others while a statement reads without rests.
//!
//! The looks before a statement say nothing of work that begins during it. So short looks go on
//! beside it, in a session of their own. Once others are at work its transaction is cancelled, and
//! what it read is read again at the slow pace. What they feel of a worker that had the server to
//! itself lasts for about a tenth of a second.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{self, Either};
use sqlx::Row as _;

use super::Governor;
use super::pace::OTHERS;
use super::permit::Throttle;
use crate::clients::db::{Access, Canceller, Db, DbError, Whole};
use crate::model::hint::Hinted as _;
use crate::model::not_now::Why;

/// Time between two short looks, each of which costs the server half a millisecond.
const BETWEEN: Duration = Duration::from_millis(40);

/// Time before others that were seen are looked for again. The single transaction of a monitor or of
/// an idle pool has ended by then.
const AGAIN: Duration = Duration::from_millis(10);

/// Time limit of a short look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a statement that read without rests was cancelled.
const BEGAN: &str = "other sessions began to work";

/// The transactions of this process that read, the latest ones. There are as many as slots.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<Vec<Canceller>>);

impl Readers {
    /// Adds one, and forgets the oldest of more than `max`.
    pub(super) fn add(&self, reader: Canceller, max: u32) {
        let mut readers = self.lock();
        readers.push(reader);
        let surplus = readers.len().saturating_sub(max as usize);
        readers.drain(..surplus);
    }

    /// Cancels what runs in those that are open.
    async fn cancel(&self) {
        let readers = self.lock().clone();
        for reader in readers {
            if let Err(error) = reader.cancel().await {
                tracing::info!(error = %error.in_one_line(), "not cancelled");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Canceller>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Throttle<'_> {
    /// Reads from `source`. Without rests it reads only while nobody else works there.
    ///
    /// # Errors
    /// Others began to work, and `read` was cancelled.
    pub(crate) async fn read<T, E>(
        &self,
        source: &Db,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<Result<T, E>, Why> {
        // The future of a whole replacement is large.
        let read = Box::pin(read);
        match self.governor().filter(|_| self.is_fast()) {
            Some(governor) => governor.while_alone(source, read).await,
            None => Ok(read.await),
        }
    }
}

impl Governor {
    /// Awaits `read`, whose transaction has passed [`Governor::enter`], and cancels it once others work
    /// on `source`. Then the pace is the slow one.
    ///
    /// # Errors
    /// It was cancelled, or failed meanwhile.
    pub async fn while_alone<T, E>(
        &self,
        source: &Db,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<Result<T, E>, Why> {
        let meetings = self.pacer.meetings();
        let (read, others) = (pin!(read), pin!(others_come(source)));
        let read = match future::select(read, others).await {
            Either::Left((ended, _)) => return self.unless_met(meetings, ended),
            Either::Right(((), read)) => read,
        };
        tracing::info!("{BEGAN}, so what was read without rests is read again");
        self.pacer.meet_others();
        let ((), ended) = future::join(self.readers.cancel(), read).await;
        self.unless_met(meetings, ended)
    }

    /// A result that a cancellation has not decided, of this statement's watch or of another one's.
    fn unless_met<T, E>(&self, meetings: u64, ended: Result<T, E>) -> Result<Result<T, E>, Why> {
        match ended {
            Err(_) if self.pacer.meetings() > meetings => Err(Why::Load(BEGAN.to_owned())),
            ended => Ok(ended),
        }
    }
}

/// Waits until two looks in a row show others at work on `source`. A server that refuses the looks is
/// not watched: its statement ends within a second or two.
async fn others_come(source: &Db) {
    let whole = Whole {
        access: Access::ReadOnly,
        statement_timeout: LOOK_TIMEOUT,
        label: "watch",
        doing: "watching for others",
        sql: OTHERS.to_owned(),
    };
    let mut were_seen = false;
    // Bounded by the statement that is watched.
    loop {
        tokio::time::sleep(if were_seen { AGAIN } else { BETWEEN }).await;
        match are_seen(source, &whole).await {
            Ok(true) if were_seen => return,
            Ok(seen) => were_seen = seen,
            Err(error) => {
                tracing::info!(error = %error.in_one_line(), "others are not watched for");
                return future::pending().await;
            }
        }
    }
}

async fn are_seen(source: &Db, whole: &Whole<'_>) -> Result<bool, DbError> {
    let rows = source.run_whole(whole).await?;
    let sessions = rows.first().map_or(Ok(0.0), |row| row.try_get::<f64, _>("sessions"));
    let sessions = sessions.map_err(|error| DbError::new(source.side(), whole.doing, error))?;
    Ok(sessions >= 1.0)
}
