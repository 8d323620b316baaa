//! Copies the checkpoints of all configured rollups into another store.
//!
//! First both stores stop for all of them, then their items are copied, and at last the new store
//! counts for one after another. If anything goes wrong before that, the old store counts for all.

use serde::Serialize;
use tracing::warn;

use crate::checkpoint::store::StoreError;
use crate::checkpoint::{
    CheckpointError, Checkpoints, CopyError, CopyStanding, CopyToDo, StoreCopy,
};
use crate::config::{Config, StoreKind};
use crate::work::identity;
use crate::work::worker::{WorkError, Worker, store_db};

/// Items that are written concurrently, each over a connection of its own.
pub(crate) const CONNECTIONS: u32 = 8;

/// The copy of one rollup's checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    pub rollup: String,
    /// Whether this run copied them. `false`: an earlier run did.
    pub is_new: bool,
    /// Slices in the new store. `None`: an earlier run copied them.
    pub slices: Option<u64>,
    /// Other items there. `None`: likewise.
    pub other_items: Option<u64>,
}

/// A rollup with the standing of its copy.
#[derive(Clone, Debug)]
pub struct RollupCopy<'w> {
    pub rollup: &'w str,
    pub(crate) standing: CopyStanding,
}

/// How far the copies of all configured rollups are, after a check that they may begin.
///
/// # Errors
/// A worker holds a slice, the checkpoints belong to another installation, the new store holds
/// others, or a store refuses.
pub async fn plan<'w>(
    worker: &'w Worker,
    copy: &StoreCopy<'_>,
) -> Result<Vec<RollupCopy<'w>>, WorkError> {
    let mut rollups: Vec<_> = worker.config.rollups.iter().collect();
    // A finer rollup reopens slices of a coarse one, which follows it.
    rollups.sort_by_key(|rollup| rollup.depth());
    let mut planned = Vec::new();
    for rollup in rollups {
        let rollup = rollup.name.as_str();
        let standing = copy.standing(rollup).await?;
        if let CopyStanding::ToDo(_) = standing {
            match identity::refuse_anothers(worker, rollup).await {
                // Its tombstone leads to the new store.
                Err(WorkError::Checkpoint(CheckpointError::Moved { .. })) => {}
                checked => checked?,
            }
            copy.refuse_leased(rollup).await?;
        }
        planned.push(RollupCopy { rollup, standing });
    }
    Ok(planned)
}

/// The checkpoints of the configuration in the store of this kind. `table` is the table's name in
/// DynamoDB. This sends no request yet.
///
/// # Errors
/// The name is not allowed there, or the environment does not lead to the store.
pub async fn store(
    config: &Config,
    kind: StoreKind,
    table: Option<&str>,
) -> Result<Checkpoints, WorkError> {
    let settings = config.checkpoint.moved_to(kind, table).map_err(WorkError::Usage)?;
    let target = store_db(config, CONNECTIONS)?;
    Ok(Checkpoints::connect(&settings, target).await?)
}

/// Makes the new store's table, unless it is there.
///
/// # Errors
/// The store refuses, or a table of its name has another form.
pub async fn prepare(to: &Checkpoints) -> Result<(), WorkError> {
    match to.describe().await {
        Err(CheckpointError::Store(StoreError::NoTable { .. })) => {
            to.create_table().await?;
        }
        described => drop(described?),
    }
    Ok(())
}

/// Copies what is planned.
///
/// # Errors
/// A worker holds a slice, another process copies, or a store refuses. The same call can be
/// repeated.
pub async fn run(
    copy: &StoreCopy<'_>,
    planned: &[RollupCopy<'_>],
) -> Result<Vec<Copied>, WorkError> {
    let to_do: Vec<_> = planned.iter().filter_map(unfinished).collect();
    let (mut stopped, mut counts) = (Vec::new(), Vec::new());
    let filled = async {
        for (rollup, to_do) in &to_do {
            stopped.push((*rollup, *to_do));
            copy.stop(rollup, to_do).await?;
        }
        for (rollup, to_do) in &to_do {
            counts.push(copy.fill(rollup, to_do).await?);
        }
        Ok::<_, CopyError>(())
    };
    if let Err(error) = filled.await {
        take_back(copy, &stopped).await;
        return Err(error.into());
    }
    let mut is_first = to_do.len() == planned.len();
    for (rollup, to_do) in &to_do {
        copy.commit(rollup, to_do, is_first).await?;
        is_first = false;
    }
    let mut counts = counts.into_iter();
    let copied = planned.iter().map(|planned| {
        let rollup = planned.rollup.to_owned();
        let counts = unfinished(planned).and_then(|_| counts.next());
        let (slices, others) = (counts.map(|it| it.slices), counts.map(|it| it.others));
        Copied { rollup, is_new: counts.is_some(), slices, other_items: others }
    });
    Ok(copied.collect())
}

/// Lets the old store count for all rollups again.
async fn take_back(copy: &StoreCopy<'_>, stopped: &[(&str, &CopyToDo)]) {
    for (rollup, to_do) in stopped {
        match copy.take_back(rollup, to_do).await {
            // The other process goes on with it.
            Ok(()) | Err(CopyError::Overtaken(_)) => {}
            Err(error) => warn!(
                "rollup `{rollup}` stays closed in the old store ({error}); run the same command again"
            ),
        }
    }
}

fn unfinished<'p>(planned: &'p RollupCopy<'p>) -> Option<(&'p str, &'p CopyToDo)> {
    match &planned.standing {
        CopyStanding::ToDo(to_do) => Some((planned.rollup, to_do)),
        CopyStanding::Done => None,
    }
}
