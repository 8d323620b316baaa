//! Identity: source, target, rollup and checkpoints know that they belong together.
//!
//! A random ID names an installation. The target holds it (`tallymark.installation`, and for each
//! rollup the ID of its owner in `tallymark.rollup`), and so does each rollup's `watermark` item.
//! Beside the ID both hold the installation's *places*: hashes of the configured addresses of
//! source and target. A process compares them once per rollup, where it connects to the target
//! anyway. A tick with nothing due compares its place with the item that it reads, and needs no
//! connection.
//!
//! A new address belongs to the same installation if both servers are the same running ones (with
//! equal server start and database number). So a pooler beside the direct address is accepted
//! silently. All other changes are refused until `tallymark moved`, and so is another server behind
//! a known address.
//!
//! The same comparison detects restores: the target's tables have other numbers, a database's
//! [`History`] went back or forked, or the checkpoints are older than the newest marker.

mod belongs;
mod found;
mod keeping;
mod moved;
mod proof;

use found::{OwnerRecord, has_registry, history_of, look_up, servers, source_history};
use keeping::keep_at;
pub(crate) use moved::{Move, moved};
pub use proof::proven;
use proof::{
    CHECKPOINTS_LOST, are_checkpoints_lost, course, must_repair, note_histories, restored,
    set_unproven,
};
pub(crate) use proof::{has_target_gone_back, is_unproven, repaired, still_unproven, unproven};

use belongs::without_tables;
pub(crate) use belongs::{refuse_anothers, refuse_anothers_of, refuse_gone};

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use crate::checkpoint::{Bond, Watermark};
use crate::clients::db::history::{Course, History};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::text::random_token;
use crate::target::ddl::DdlError;
use crate::work::ready;
use crate::work::worker::{WorkError, Worker};

/// Why a process identifies the rollup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IdentityUse {
    /// Whether findings are recorded.
    records: bool,
    /// Whether checkpoints that contradict the tables are refused.
    relies: bool,
}

impl IdentityUse {
    const WORK: Self = Self { records: true, relies: true };
    /// After this the checkpoints match the tables again.
    const REPAIR: Self = Self { records: true, relies: false };
    const CHECK: Self = Self { records: false, relies: true };
    const DRY_RUN: Self = Self { records: false, relies: false };
}

/// The findings of a process after it connected to both databases.
struct Observed<'a> {
    id: &'a str,
    place: &'a str,
    found: &'a OwnerRecord,
    /// `None`: not read, or a replica.
    source: Option<History>,
}

/// The ID of the installation that owns `rollup`, read once per process.
///
/// # Errors
/// The rollup is not ready, or it belongs to another installation.
pub(crate) async fn installation(worker: &Worker, rollup: &Rollup) -> Result<String, WorkError> {
    ready::check(worker, rollup).await?;
    Ok(worker.target.keeper(&rollup.name).unwrap_or_default())
}

/// The hash of both addresses as configured.
///
/// # Errors
/// An address is stored elsewhere and cannot be read.
pub async fn place(worker: &Worker) -> Result<String, WorkError> {
    let (source, target) = (worker.source.location().await?, worker.target.db.location().await?);
    let digest = Sha256::digest(format!("{source}\n{target}"));
    Ok(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// Ensures that the checkpoints of `rollup` belong to this installation. `bond` comes from its
/// `watermark` item. If it already lists this process's addresses, the databases are left
/// alone.
pub(crate) async fn recognise(
    worker: &Worker,
    rollup: &Rollup,
    bond: Option<&Bond>,
) -> Result<(), WorkError> {
    if let Some(bond) = bond
        && is_recognised(worker, rollup, bond).await?
    {
        return Ok(());
    }
    // Another process may have moved it since this one started, or the item is gone.
    worker.forget(rollup);
    Box::pin(ready::check(worker, rollup)).await.map(drop)
}

/// Whether the checkpoints of `rollup`, which are bound by `bond`, list this process's addresses.
pub(crate) async fn is_recognised(
    worker: &Worker,
    rollup: &Rollup,
    bond: &Bond,
) -> Result<bool, WorkError> {
    set_unproven(worker, rollup, bond.unproven.clone());
    if let Some(reason) = &bond.repair {
        worker.forget(rollup);
        return Err(must_repair(rollup, reason));
    }
    Ok(bond.places.contains(&place(worker).await?))
}

/// As `recognise`, for commands that have not read the `watermark` item.
///
/// # Errors
/// The checkpoints are not this installation's, or a repair must come first.
pub(crate) async fn recognised(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    recognise(worker, rollup, seen.bond()).await
}

/// Binds source, target, `rollup` and its checkpoints together, or reports that they do not
/// belong together. The tables must exist.
pub(crate) async fn identify(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    identify_for(worker, rollup, IdentityUse::WORK).await
}

/// As `identify`, before a repair, which accepts restored tables.
pub(crate) async fn identify_for_repair(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    identify_for(worker, rollup, IdentityUse::REPAIR).await
}

/// As `identify_for_repair`, without writing.
pub(crate) async fn identify_for_dry_run(
    worker: &Worker,
    rollup: &Rollup,
) -> Result<(), WorkError> {
    identify_for(worker, rollup, IdentityUse::DRY_RUN).await
}

/// As `identify`, without writing.
///
/// # Errors
/// The same as for work on the rollup.
pub(crate) async fn identify_for_check(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    identify_for(worker, rollup, IdentityUse::CHECK).await
}

/// Before `init` creates any table, refuses checkpoints that belong to another installation.
///
/// # Errors
/// They do, or a server refuses.
pub(crate) async fn refuse_stranger(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    refuse_stranger_to(worker, rollup, &seen, &mut Histories::default()).await
}

/// As [`refuse_stranger`], for all rollups, whose watermarks are `seen`. Each server is asked once.
///
/// # Errors
/// As [`refuse_stranger`].
pub(crate) async fn refuse_strangers(
    worker: &Worker,
    seen: &HashMap<String, Watermark>,
) -> Result<(), WorkError> {
    let mut histories = Histories::default();
    for rollup in &worker.config.rollups {
        if let Some(seen) = seen.get(&rollup.name) {
            refuse_stranger_to(worker, rollup, seen, &mut histories).await?;
        }
    }
    Ok(())
}

/// The positions of source and target, each read when it is first needed.
#[derive(Debug, Default)]
struct Histories {
    source: Option<Option<History>>,
    target: Option<Option<History>>,
}

async fn refuse_stranger_to(
    worker: &Worker,
    rollup: &Rollup,
    seen: &Watermark,
    known: &mut Histories,
) -> Result<(), WorkError> {
    let Some(bond) = seen.bond() else { return Ok(()) };
    let place = place(worker).await?;
    if bond.places.contains(&place) {
        if known.source.is_none() && !worker.target.holds_source_of(rollup) {
            known.source = Some(source_history(worker, rollup).await?);
        }
        if known.target.is_none() {
            known.target = Some(history_of(&worker.target.db).await?);
        }
        // The target's history covers a source that is in it.
        let source = known.source.as_ref().filter(|_| !worker.target.holds_source_of(rollup));
        let (source, target) = (source.and_then(Option::as_ref), known.target.as_ref());
        let target = target.and_then(Option::as_ref);
        return are_not_other_servers(worker, rollup, bond, source, target);
    }
    let keeper = match has_registry(worker).await? {
        true => look_up(worker, rollup, &place).await?.keeper,
        false => None,
    };
    is_not_anothers(worker, rollup, Some(bond), keeper.as_deref(), &place)
}

/// Refuses checkpoints that do not belong to the databases, even if they show no work to do.
/// The work itself reports a server out of reach, or tables that are not ready.
///
/// # Errors
/// They do not belong together.
pub(crate) async fn refuse_other_places(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    match ready::check(worker, rollup).await {
        Err(error @ WorkError::Stranger(_)) => Err(error),
        _ => Ok(()),
    }
}

/// As `identify`, at the end of `init`. Returns why a repair must come before any work.
///
/// # Errors
/// The checkpoints or the table belong to another installation, or a server refuses.
pub async fn identify_at_init(
    worker: &Worker,
    rollup: &Rollup,
) -> Result<Option<String>, WorkError> {
    identify_for_repair(worker, rollup).await?;
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    Ok(seen.bond().and_then(|bond| bond.repair.clone()))
}

async fn identify_for(
    worker: &Worker,
    rollup: &Rollup,
    purpose: IdentityUse,
) -> Result<(), WorkError> {
    let place = place(worker).await?;
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    let bond = seen.bond();
    let found = look_up(worker, rollup, &place).await;
    let found = found.map_err(|error| without_tables(rollup, error))?;
    if found.is_gone() {
        return Err(DdlError::NotReady { rollup: rollup.name.clone() }.into());
    }
    let source = source_history(worker, rollup).await?;
    let is_known = match bond {
        Some(bond) => bond.places.contains(&place),
        None => found.keeper.is_some() && found.keeper == found.mine,
    };
    let mine = found.keeper.as_ref().or(found.mine.as_ref());
    is_not_anothers(worker, rollup, bond, mine.map(String::as_str), &place)?;
    if let Some(keeper) = &found.keeper {
        // Another way to the same running servers, such as a pooler.
        let recorded = bond.map_or(&found.servers, |bond| &bond.servers);
        if !is_known && *recorded != servers(worker).await? {
            return Err(kept_elsewhere(worker, rollup, keeper));
        }
    }
    if let Some(bond) = bond {
        are_not_other_servers(worker, rollup, bond, source.as_ref(), found.history.as_ref())?;
    }
    let known = mine.or_else(|| bond.map(|bond| &bond.installation));
    let id = known.map_or_else(random_token, Clone::clone);
    if found.keeper.is_none() && purpose.records {
        keep_at(worker, rollup, &id, std::slice::from_ref(&place)).await?;
    }
    let observed = Observed { id: &id, place: &place, found: &found, source };
    bind(worker, rollup, bond, observed, purpose).await?;
    worker.target.set_keeper(&rollup.name, &id);
    Ok(())
}

/// Writes the bond if it is new, and compares its entries with the databases.
async fn bind(
    worker: &Worker,
    rollup: &Rollup,
    before: Option<&Bond>,
    observed: Observed<'_>,
    purpose: IdentityUse,
) -> Result<(), WorkError> {
    let mut bond = match before {
        Some(before) => before.clone(),
        None => Bond {
            installation: observed.id.to_owned(),
            tables: observed.found.tables.clone(),
            servers: servers(worker).await?,
            repair: (are_checkpoints_lost(worker, rollup).await?)
                .then(|| CHECKPOINTS_LOST.to_owned()),
            ..Bond::default()
        },
    };
    if !bond.places.iter().any(|known| known == observed.place) {
        bond.places.push(observed.place.to_owned());
    }
    if bond.repair.is_none() {
        let reason = restored(worker, rollup, &bond, &observed).await?;
        bond.repair = reason.map(str::to_owned);
    }
    note_histories(&mut bond, observed);
    if purpose.records && before != Some(&bond) {
        worker.checkpoints.bind(&rollup.name, before, &bond).await?;
    }
    set_unproven(worker, rollup, bond.unproven);
    match &bond.repair {
        Some(reason) if purpose.relies => Err(must_repair(rollup, reason)),
        _ => Ok(()),
    }
}

/// Refuses another cluster behind a known address, as two machines may both be called
/// `localhost`.
fn are_not_other_servers(
    worker: &Worker,
    rollup: &Rollup,
    bond: &Bond,
    source: Option<&History>,
    target: Option<&History>,
) -> Result<(), WorkError> {
    let is_other = |known: &Option<History>, now| course(known.as_ref(), now) == Course::Other;
    let which = match () {
        () if is_other(&bond.source_history, source) => "source",
        () if is_other(&bond.target_history, target) => "target",
        () => return Ok(()),
    };
    let fault = Fault::new(format!(
        "rollup `{}`: another server than before answers at the {which}'s address",
        rollup.name
    ));
    Err(WorkError::Stranger(fault.remedy(format!(
        "{}; if the server was upgraded, replaced or restored, run `tallymark moved`",
        belongs::way_of_its_own(worker),
    ))))
}

/// Refuses checkpoints that are bound to another installation, or to this one elsewhere.
fn is_not_anothers(
    worker: &Worker,
    rollup: &Rollup,
    bond: Option<&Bond>,
    id: Option<&str>,
    place: &str,
) -> Result<(), WorkError> {
    let Some(bond) = bond else { return Ok(()) };
    let is_known_here = bond.places.iter().any(|known| known == place);
    let is_same = match id {
        Some(id) => bond.installation == id,
        // The target knows no owner. If the address is known, the target was created again.
        None => is_known_here,
    };
    if is_same {
        return Ok(());
    }
    Err(belongs::anothers(worker, &rollup.name, bond))
}

fn kept_elsewhere(worker: &Worker, rollup: &Rollup, keeper: &str) -> WorkError {
    let fault = Fault::new(format!(
        "rollup `{}`: {} is kept by installation {}, which has another source or target address than \
         this configuration",
        rollup.name,
        worker.target.table(rollup),
        short(keeper),
    ));
    WorkError::Stranger(fault.remedy(
        "if another installation writes this table, choose another rollup name or [target] schema; if \
         it is the same one at a new address, run `tallymark moved` (`--also` if the old address stays \
         in use, `--copy` if this target is a copy)",
    ))
}

/// The first digits of an ID, which identify installations in messages.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
