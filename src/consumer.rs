//! A captured rollup as a consumer of the source's marks: registered before it relies on them.
//!
//! The store holds the consumer's number, and the source a row of it. A mark is kept on the source until every
//! consumer has acknowledged it. Where the source does not know the number, marks may have gone without the
//! rollup: it gets another number, every slice that was read runs again, and only then is it known again.

use std::time::Duration;

use tracing::warn;

use crate::checkpoint::{Consumer, ConsumerStanding};
use crate::clock::Deadline;
use crate::db::{Access, CATALOGUE_TIMEOUT, DbError, DbErrorKind};
use crate::rollup::{Late, Rollup};
use crate::source::marks::Hours;
use crate::source::{capture, consumers, settle};
use crate::worker::{WorkError, Worker, lock};

/// Reopening what a consumer missed goes on for this long at most; it is begun anew the next time.
const REOPENING_MAX: Duration = Duration::from_secs(600);

impl Worker {
    /// The consumer's number of `rollup`, asked once per process; `None`: the rollup is not captured.
    ///
    /// # Errors
    /// A server refuses or cannot be reached.
    pub(crate) async fn consumer(&self, rollup: &Rollup) -> Result<Option<i64>, WorkError> {
        if rollup.late != Late::Capture {
            return Ok(None);
        }
        let known = lock(&self.consumers).get(&rollup.name).copied();
        match known {
            Some(id) => Ok(Some(id)),
            None => Box::pin(self.enlist(rollup)).await,
        }
    }

    /// As [`Worker::consumer`], asked anew: somebody may have forgotten it.
    ///
    /// # Errors
    /// As [`Worker::consumer`].
    pub(crate) async fn enlist(&self, rollup: &Rollup) -> Result<Option<i64>, WorkError> {
        lock(&self.consumers).remove(&rollup.name);
        let shape = self.ready(rollup).await?;
        let label = format!("late changes of {}", rollup.from);
        let mut tx = self.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &label).await?;
        let standing = capture::standing(&mut tx, rollup, &shape).await?;
        tx.rollback().await?;
        let Some(key) = standing.key else { return Ok(None) };
        let mut kept = self.kept_consumer(rollup).await?;
        let mut tx = self.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &label).await?;
        let mut is_there = consumers::is_enlisted(&mut tx, &key, kept.id, &rollup.name).await?;
        tx.commit().await?;
        if !is_there && kept.standing != ConsumerStanding::New {
            // Another number: the old one must not seem known before the slices are reopened.
            let next = Consumer { id: new_id(), standing: ConsumerStanding::Forgotten };
            self.checkpoints.set_consumer(&rollup.name, Some(kept.id), &next).await?;
            kept = self.kept_consumer(rollup).await?;
            is_there = false;
        }
        if !is_there {
            let mut tx = self.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &label).await?;
            let installation = self.installation(rollup).await?;
            let names = (&*installation, &*rollup.name);
            let is_new = kept.standing == ConsumerStanding::New;
            if let Err(error) = consumers::enlist(&mut tx, &key, kept.id, names, is_new).await {
                return Err(unregistered(rollup, error));
            }
            tx.commit().await?;
        }
        if kept.standing != ConsumerStanding::Known(key.clone()) {
            if kept.standing == ConsumerStanding::Forgotten {
                self.reopen_everything(rollup, &label).await?;
            }
            let known = Consumer { id: kept.id, standing: ConsumerStanding::Known(key) };
            self.checkpoints.set_consumer(&rollup.name, Some(kept.id), &known).await?;
        }
        lock(&self.consumers).insert(rollup.name.clone(), kept.id);
        Ok(Some(kept.id))
    }

    /// The consumer that the store holds, chosen now if there is none.
    async fn kept_consumer(&self, rollup: &Rollup) -> Result<Consumer, WorkError> {
        if let Some(kept) = self.checkpoints.consumer(&rollup.name).await? {
            return Ok(kept);
        }
        let chosen = Consumer { id: new_id(), standing: ConsumerStanding::New };
        self.checkpoints.set_consumer(&rollup.name, None, &chosen).await?;
        // Another worker may have come first.
        Ok(self.checkpoints.consumer(&rollup.name).await?.unwrap_or(chosen))
    }

    /// Makes every slice that was read run again.
    async fn reopen_everything(&self, rollup: &Rollup, label: &str) -> Result<(), WorkError> {
        let mut tx = self.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, label).await?;
        let (now, _) = settle::now(&mut tx).await?;
        tx.rollback().await?;
        let deadline = Deadline::after(&*self.clock, REOPENING_MAX);
        let reason = "its consumer of late changes was forgotten";
        self.reopen_hours(rollup, &[Hours::ALL], now, deadline, reason).await?;
        Ok(())
    }

    /// Ends the consumer of a rollup that is dropped. The store may have been lost since it registered: so
    /// whatever carries the names of `installation` and `rollup` ends too. A source that cannot be asked
    /// keeps them, which is told: marks go on waiting.
    pub(crate) async fn dismiss(&self, rollup: &str, installation: &str) -> Result<(), WorkError> {
        let kept = self.checkpoints.consumer(rollup).await?.map(|kept| kept.id);
        let ended = async {
            let mut tx = self.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, "capture").await?;
            if consumers::are_kept(&mut tx).await? {
                let named = consumers::named(&mut tx, installation, rollup).await?;
                for id in named.into_iter().chain(kept) {
                    consumers::forget(&mut tx, id).await?;
                }
            }
            tx.commit().await
        };
        if let Err(error) = ended.await {
            warn!(
                "the source may still keep marks for rollup `{rollup}` ({error}); `tallymark capture \
                 status` shows it, `capture forget` ends it"
            );
        }
        Ok(())
    }

    /// Gives the consumer of a rollup that was renamed its name `new`. A source that cannot be asked learns
    /// it from the next tick.
    pub(crate) async fn rename_consumer(&self, new: &str) -> Result<(), WorkError> {
        let Some(kept) = self.checkpoints.consumer(new).await? else { return Ok(()) };
        let renamed = async {
            let mut tx = self.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, "capture").await?;
            if consumers::are_kept(&mut tx).await? {
                consumers::rename(&mut tx, kept.id, new).await?;
            }
            tx.commit().await
        };
        if let Err(error) = renamed.await {
            warn!("the source learns the name `{new}` from the next tick: {error}");
        }
        Ok(())
    }

    /// The consumers of some rollups, of which the source knows `all`; those that it does not know, or
    /// this process not yet, are registered. Of a rollup that is not captured there is none.
    pub(crate) async fn consumers_of(
        &self,
        rollups: impl Iterator<Item = &Rollup>,
        all: &[consumers::Consumer],
    ) -> Result<Vec<i64>, WorkError> {
        let mut found = Vec::new();
        for rollup in rollups {
            let known = lock(&self.consumers).get(&rollup.name).copied();
            let is_known = |id: &i64| all.iter().any(|it| it.id == *id && it.rollup == rollup.name);
            match known.filter(is_known) {
                Some(id) => found.push(id),
                None => found.extend(self.enlist(rollup).await?),
            }
        }
        Ok(found)
    }
}

/// A number that no other consumer gets.
fn new_id() -> i64 {
    i64::try_from(fastrand::u64(1..u64::MAX / 4)).unwrap_or(i64::MAX)
}

fn unregistered(rollup: &Rollup, error: DbError) -> WorkError {
    if error.kind() != DbErrorKind::Denied {
        return error.into();
    }
    WorkError::Usage(format!(
        "rollup `{}` cannot register for late changes ({error}); run `tallymark capture install`, \
         which grants that",
        rollup.name
    ))
}
