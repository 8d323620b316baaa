//! The workload units that the mirrors of all rollups have taken from an app in a month: one item a
//! month.

use chrono::{DateTime, Utc};

use super::checkpoints::Checkpoints;
use super::error::CheckpointError;
use super::item::{ALL, Reader, number, text};
use super::store::{Cond, Key, Update, Written};
use super::tombstone::COPY_ID;
use crate::clients::bubble::Units;

/// The first part of its key's second part. The month follows.
const WORKLOAD: &str = "workload#";

const SPENT: &str = "spent";

/// Workers that write at the same time refuse each other. After so many tries the store is at
/// fault.
const TRIES_MAX: u32 = 100;

/// The answer to a worker that wants to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spending {
    /// It may.
    Granted,
    /// The month's budget has too little left. This much is spent.
    Over { spent: Units },
}

impl Checkpoints {
    /// The units spent in the month of `now`.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub(crate) async fn workload(&self, now: DateTime<Utc>) -> Result<Units, CheckpointError> {
        let item = self.item(workload_key(now)).await?;
        let spent = item.map(|item| Reader { item: &item }.count(SPENT)).transpose()?.flatten();
        Ok(Units::millionths(spent.unwrap_or(0)))
    }

    /// Reserves `more` units of the month of `now` before they are spent, and gives back `unused`
    /// ones. Refuses if the month's `budget` is spent.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails or the item is malformed.
    pub(crate) async fn spend_workload(
        &self,
        more: Units,
        unused: Units,
        budget: Units,
        now: DateTime<Utc>,
    ) -> Result<Spending, CheckpointError> {
        let mut spent = self.workload(now).await?;
        for _ in 0..TRIES_MAX {
            let next = (spent + more).less(unused);
            if more > Units::default() && spent.less(unused) >= budget {
                return Ok(Spending::Over { spent });
            }
            let update = Update::new(workload_key(now), unchanged(spent))
                .set(SPENT, number(next.as_millionths()));
            match self.send(update, "spend workload units").await? {
                Written::Done(_) => return Ok(Spending::Granted),
                Written::Refused { .. } => spent = self.workload(now).await?,
            }
        }
        Ok(Spending::Over { spent })
    }

    /// Takes over what `from` has spent in the month of `now`, once for each copy of checkpoints,
    /// which has the ID `copy`. Both counts hold, as other installations may spend in this store.
    /// `returns`: the checkpoints were here before, so their count includes the one here.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails or an item is malformed.
    pub(crate) async fn take_workload(
        &self,
        from: &Self,
        copy: &str,
        returns: bool,
        now: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        const DOING: &str = "copy the workload units";
        let taken = from.workload(now).await?;
        if taken == Units::default() {
            return Ok(());
        }
        for _ in 0..TRIES_MAX {
            let here = self.workload(now).await?;
            let spent = if returns { here.max(taken) } else { here + taken };
            let is_new = Cond::lacks(COPY_ID).or(Cond::is_not(COPY_ID, text(copy)));
            let update = Update::new(workload_key(now), unchanged(here).and(is_new))
                .set(SPENT, number(spent.as_millionths()))
                .set(COPY_ID, text(copy));
            let found = match self.send(update, DOING).await? {
                Written::Done(_) => return Ok(()),
                Written::Refused { found, .. } => found.unwrap_or_default(),
            };
            if found.get(COPY_ID) == Some(&text(copy)) {
                return Ok(());
            }
        }
        let slice = "the month's workload units".to_owned();
        Err(CheckpointError::Contended { operation: DOING, slice })
    }
}

/// The condition that this much is spent.
fn unchanged(spent: Units) -> Cond {
    match spent.as_millionths() {
        0 => Cond::lacks(SPENT).or(Cond::is(SPENT, number(0))),
        spent => Cond::is(SPENT, number(spent)),
    }
}

/// The key of the month in UTC.
fn workload_key(now: DateTime<Utc>) -> Key {
    Key::new(ALL, &format!("{WORKLOAD}{}", now.format("%Y-%m")))
}
