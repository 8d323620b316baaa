//! Watches for others while a statement reads without rests.
//!
//! The looks before a statement say nothing of work that begins during it. So short looks go on
//! beside it, in a session of their own. Once others are at work, the statement's transaction is
//! cancelled, and what it read is read again at the slow pace. So they feel a worker that had the
//! server to itself for some hundredths of a second.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{self, Either, FutureExt as _};
use sqlx::Row as _;

use super::Governor;
use super::pace::OTHERS;
use super::permit::Throttle;
use crate::clients::db::{Access, Canceller, Db, DbError, Whole};
use crate::model::hint::Hinted as _;
use crate::model::not_now::Why;

/// Time between two short looks, each of which costs the server half a millisecond.
const BETWEEN: Duration = Duration::from_millis(20);

/// Time before others that were seen are looked for again. The single transaction of a monitor or of
/// an idle pool has ended by then.
const AGAIN: Duration = Duration::from_millis(10);

/// So many looks for others who were seen. Sessions of a busy application are between two transactions
/// most of the time.
const AGAIN_MAX: u32 = 6;

/// Others have written in so many transactions between two looks that they are at work.
const WRITTEN_MIN: f64 = 4.0;

/// So many sessions more than at one of the latest looks are an application that connects, and is about to work.
const CONNECTED_MIN: f64 = 3.0;

/// So many looks are the latest ones: about a fifth of a second. An application connects its sessions one after another,
/// each in some milliseconds.
const LATEST: usize = 10;

/// The time after which others who came are looked for again. Short jobs have ended by then.
const SPELL: Duration = Duration::from_millis(500);

/// So many looks then tell whether they stay, if so many of them show others.
const SPELL_LOOKS: u32 = 5;
const SPELL_SEEN: u32 = 2;

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
    /// Reads from `source`. Without rests it reads only while nobody else works there. Box a large
    /// `read`.
    ///
    /// # Errors
    /// Others began to work, and `read` was cancelled.
    pub(crate) async fn read<T, E>(
        &self,
        source: &Db,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<Result<T, E>, Why> {
        match self.governor().filter(|_| self.is_fast()) {
            Some(governor) => Box::pin(governor.while_alone(source, read)).await,
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
        let mut watch = Watch::new(self, source);
        let mut read = pin!(read);
        match future::select(&mut read, pin!(watch.others_come())).await {
            Either::Left((ended, _)) => return self.unless_met(meetings, ended),
            Either::Right(((), _)) => {}
        }
        tracing::info!("{BEGAN}, so what was read without rests is read again");
        self.pacer.meet_others();
        // A server may not answer the cancellation. The statement has a time limit of its own.
        let cancel = self.readers.cancel().then(|()| future::pending::<Infallible>());
        let ended = match future::select(read, pin!(cancel)).await {
            Either::Left((ended, _)) => ended,
            Either::Right((never, _)) => match never {},
        };
        if watch.others_stay().await {
            self.pacer.stay_slow();
        }
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

/// Short looks at a source.
struct Watch<'g> {
    governor: &'g Governor,
    source: &'g Db,
    latest: VecDeque<ShortLook>,
}

/// What a short look saw.
#[derive(Clone, Copy, Debug)]
struct ShortLook {
    /// Sessions of others in a transaction.
    sessions: f64,
    /// The next ID of a transaction that writes.
    next_xid: f64,
    /// All sessions of others.
    connected: f64,
    /// Transactions that this process had begun on the server by then.
    begun: f64,
}

impl ShortLook {
    /// What it shows, given the latest ones before it. Own transactions count as ones that write.
    fn after(&self, latest: &VecDeque<Self>) -> Sight {
        let written = |last: &Self| self.next_xid - last.next_xid - (self.begun - last.begun);
        let have_written = latest.back().is_some_and(|last| written(last) >= WRITTEN_MIN);
        let connect = latest.iter().any(|look| self.connected - look.connected >= CONNECTED_MIN);
        match self.sessions {
            _ if have_written || connect => Sight::Several,
            1.0.. => Sight::Some,
            _ => Sight::Nobody,
        }
    }
}

/// How much a short look shows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sight {
    Nobody,
    /// Others in a transaction at this moment, which may be a single one.
    Some,
    /// Others have written in several transactions since the last look, or have connected.
    Several,
}

impl<'g> Watch<'g> {
    const fn new(governor: &'g Governor, source: &'g Db) -> Self {
        Self { governor, source, latest: VecDeque::new() }
    }

    /// Waits until others are seen at work. After a look that fails, the next one is a second later.
    async fn others_come(&mut self) {
        // Short looks that are left to confirm one that has shown others.
        let mut again = 0;
        // Bounded by the statement that is watched.
        loop {
            tokio::time::sleep(if again > 0 { AGAIN } else { BETWEEN }).await;
            match self.look().await {
                Ok(Sight::Several) => return,
                Ok(Sight::Some) if again > 0 => return,
                Ok(Sight::Some) => again = AGAIN_MAX,
                Ok(Sight::Nobody) => again = again.saturating_sub(1),
                Err(error) => {
                    tracing::info!(error = %error.in_one_line(), "others are not seen");
                    // What came meanwhile may have come slowly.
                    self.latest.clear();
                    tokio::time::sleep(LOOK_TIMEOUT).await;
                }
            }
        }
    }

    /// Whether others who came are still at work after a while.
    async fn others_stay(&mut self) -> bool {
        tokio::time::sleep(SPELL).await;
        let mut seen = 0;
        for _ in 0..SPELL_LOOKS {
            tokio::time::sleep(BETWEEN).await;
            // That they connected counts once, as it does not tell whether they work.
            self.latest.drain(..self.latest.len().saturating_sub(1));
            seen += u32::from(!matches!(self.look().await, Ok(Sight::Nobody)));
        }
        seen >= SPELL_SEEN
    }

    async fn look(&mut self) -> Result<Sight, DbError> {
        let whole = Whole {
            access: Access::ReadOnly,
            statement_timeout: LOOK_TIMEOUT,
            label: "watch",
            doing: "watching for others",
            sql: OTHERS.to_owned(),
        };
        let begun = self.governor.pacer.begun();
        let rows = self.source.run_whole(&whole).await?;
        let read = || -> Result<ShortLook, sqlx::Error> {
            let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
            let (sessions, next_xid) = (row.try_get("sessions")?, row.try_get("next_xid")?);
            Ok(ShortLook { sessions, next_xid, connected: row.try_get("connected")?, begun })
        };
        let wrong = |error| DbError::new(self.source.side(), whole.doing, error);
        let look = read().map_err(wrong)?;
        let sight = look.after(&self.latest);
        keep(&mut self.latest, look);
        Ok(sight)
    }
}

/// Adds a look to the latest ones.
fn keep(latest: &mut VecDeque<ShortLook>, look: ShortLook) {
    if latest.len() == LATEST {
        latest.pop_front();
    }
    latest.push_back(look);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_transactions_that_write_or_new_sessions_are_an_application_at_work() {
        let quiet = ShortLook { sessions: 0.0, next_xid: 500.0, connected: 9.0, begun: 40.0 };
        let one = ShortLook { sessions: 1.0, next_xid: 503.0, connected: 11.0, ..quiet };
        let own = ShortLook { next_xid: 520.0, begun: 60.0, ..quiet };
        let writing = ShortLook { next_xid: 524.0, begun: 60.0, ..quiet };
        let connecting = ShortLook { connected: 12.0, ..quiet };
        for (look, sight) in [
            (quiet, Sight::Nobody),
            (one, Sight::Some),
            (own, Sight::Nobody),
            (writing, Sight::Several),
            (connecting, Sight::Several),
        ] {
            assert_eq!(look.after(&VecDeque::from([quiet])), sight, "{look:?}");
            // The first look has nothing to be compared with.
            assert_ne!(look.after(&VecDeque::new()), Sight::Several);
        }
        // One after another.
        let two = ShortLook { connected: 11.0, ..quiet };
        assert_eq!(connecting.after(&VecDeque::from([two])), Sight::Nobody);
        let mut latest = VecDeque::from([quiet]);
        for _ in 1..LATEST {
            assert_eq!(connecting.after(&latest), Sight::Several);
            keep(&mut latest, two);
        }
        keep(&mut latest, two);
        assert_eq!(connecting.after(&latest), Sight::Nobody, "they came slowly");
    }
}
