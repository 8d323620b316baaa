//! `tallymark moved`: an operator says that other addresses lead to the same installation.

use super::found::{look_up, servers, source_history};
use super::keeping::keep_at;
use super::proof::{CHECKPOINTS_LOST, TABLES_CHANGED, TARGET_BACK, are_checkpoints_lost, course};
use super::{belongs, place};
use crate::checkpoint::Bond;
use crate::clients::db::history::Course;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::text::random_token;
use crate::work::consumer;
use crate::work::worker::{WorkError, Worker};

/// How `tallymark moved` changes the addresses of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// The present addresses replace the known ones.
    Replace,
    /// The present addresses are added to the known ones of the same databases.
    Also,
    /// The target is a copy, and becomes an installation of its own.
    Copy,
}

/// The result of [`moved`] for one rollup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Moved {
    pub(crate) rollup: String,
    /// The installation that owns it now.
    pub(crate) installation: String,
    /// Whether `tallymark repair` must run before any work.
    pub(crate) needs_repair: bool,
}

/// Records the present addresses of `rollup`'s installation.
///
/// # Errors
/// Its tables are missing, or a server refuses.
pub(crate) async fn moved(worker: &Worker, rollup: &Rollup, how: Move) -> Result<Moved, WorkError> {
    let place = place(worker).await?;
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    let found = look_up(worker, rollup, &place).await;
    let found = found.map_err(|error| belongs::nothing_moved(worker, rollup, error))?;
    let stored = seen.bond().map(|bond| bond.installation.clone());
    // A store in the target was copied with it, and the original keeps its own.
    let is_shared = !worker.checkpoints.is_in_target();
    let id = match how {
        Move::Copy if is_shared && stored.is_some() && stored != found.mine => {
            let fault = Fault::new(format!(
                "rollup `{}`: the checkpoint table {} belongs to the original",
                rollup.name,
                worker.checkpoints.table()
            ));
            return Err(WorkError::Usage(
                fault.remedy("give the copy another [checkpoint] table first"),
            ));
        }
        Move::Copy if found.mine.is_some() => found.mine.clone(),
        Move::Copy => None,
        Move::Replace | Move::Also => found.keeper.clone().or_else(|| stored.clone()),
    };
    let id = id.unwrap_or_else(random_token);
    let mut places = match how {
        Move::Also if found.keeper.as_ref() == Some(&id) => found.places.clone(),
        _ => Vec::new(),
    };
    places.retain(|known| *known != place);
    places.push(place);
    keep_at(worker, rollup, &id, &places).await?;
    let before = seen.bond();
    let is_same = before.is_none_or(|bond| bond.tables == found.tables);
    let known = before.and_then(|bond| bond.target_history.as_ref());
    let is_other = course(known, found.history.as_ref()) == Course::Other;
    let bond = Bond {
        installation: id.clone(),
        places,
        servers: servers(worker).await?,
        tables: found.tables,
        repair: match () {
            () if !is_same => Some(TABLES_CHANGED.to_owned()),
            () if is_other => Some(TARGET_BACK.to_owned()),
            () if before.is_none() => {
                (are_checkpoints_lost(worker, rollup).await?).then(|| CHECKPOINTS_LOST.to_owned())
            }
            () => before.and_then(|bond| bond.repair.clone()),
        },
        source_history: source_history(worker, rollup).await?,
        target_history: found.history,
        // The owner vouches for the databases.
        unproven: None,
    };
    if how == Move::Copy && stored.is_some_and(|stored| stored != id) {
        // Before the copy may work, which would acknowledge marks for the original.
        consumer::replace(worker, rollup).await?;
    }
    worker.checkpoints.bind(&rollup.name, before, &bond).await?;
    worker.forget(rollup);
    let needs_repair = bond.repair.is_some();
    Ok(Moved { rollup: rollup.name.clone(), installation: id, needs_repair })
}
