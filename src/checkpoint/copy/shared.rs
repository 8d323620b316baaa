//! The items of all rollups: operators' commands, the budget of the scrubs, what operators were
//! told, and the workload units of the month. Other installations may share the new store's.

use chrono::{DateTime, Utc};

use crate::checkpoint::CheckpointError;
use crate::checkpoint::checkpoints::Checkpoints;
use crate::checkpoint::control::{GLOBAL, control_key, of_rollup};
use crate::checkpoint::notices::notices_key;
use crate::checkpoint::scrub::budget_key;
use crate::checkpoint::store::{Cond, Item, StoreError, Update, Value};
use crate::checkpoint::tombstone::{Elsewhere, moved_rollup};

/// Leaves or removes the tombstone of `rollup` among the operators' commands.
pub(super) async fn entomb(
    store: &Checkpoints,
    rollup: &str,
    to: Option<&Elsewhere>,
) -> Result<(), StoreError> {
    let update = Update::new(control_key(), Cond::always())
        .set_or_remove(&moved_rollup(rollup), to.map(Elsewhere::to_attribute));
    store.store.update(update, "leave a tombstone", None).await.map(drop)
}

/// Takes along the commands about `rollup`. `global`, the copy's ID and the time: also those about
/// all work, the scrubs' budget, the notices, and the workload units of the month. Those that the
/// new store already has stay, unless `rollup` returns there.
pub(super) async fn copy(
    from: &Checkpoints,
    to: &Checkpoints,
    rollup: &str,
    global: Option<(&str, DateTime<Utc>)>,
) -> Result<(), CheckpointError> {
    let old = from.store.get(control_key()).await?.unwrap_or_default();
    let new = to.store.get(control_key()).await?.unwrap_or_default();
    let tombstone = moved_rollup(rollup);
    let returns = new.contains_key(&tombstone);
    let mut update = Update::new(control_key(), Cond::always()).remove(&[&tombstone]);
    let taken = |name: &str, old: &Item| old.get(name).filter(|it| **it != Value::Other).cloned();
    for name in of_rollup(rollup) {
        update = update.set_or_remove(&name, taken(&name, &old));
    }
    for name in GLOBAL.into_iter().filter(|_| global.is_some()) {
        update = match taken(name, &old) {
            value if returns => update.set_or_remove(name, value),
            Some(value) => update.fill(name, value),
            None => update,
        };
    }
    to.store.update(update, "copy the commands", None).await?;
    let Some((id, now)) = global else { return Ok(()) };
    if let Some(budget) = from.store.get(budget_key()).await? {
        let condition = if returns { Cond::always() } else { Cond::Absent };
        to.store.put(super::canonical::item(&budget), condition).await?;
    }
    if let Some(notices) = from.store.get(notices_key()).await? {
        let condition = if returns { Cond::always() } else { Cond::Absent };
        to.store.put(super::canonical::item(&notices), condition).await?;
    }
    to.take_workload(from, id, returns, now).await
}
