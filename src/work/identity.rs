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

use belongs::without_tables;
pub use belongs::{refuse_anothers, refuse_anothers_of, refuse_gone};

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use crate::checkpoint::Bond;
use crate::clients::db::history::{self, Course, History};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Db, DbError, Tx};
use crate::model::rollup::Rollup;
use crate::model::sql::literal;
use crate::target::ddl::DdlError;
use crate::work::ready;
use crate::work::worker::{WorkError, Worker, lock};

/// Why a process identifies the rollup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Purpose {
    /// Whether findings are recorded.
    records: bool,
    /// Whether checkpoints that contradict the tables are refused.
    relies: bool,
}

impl Purpose {
    const WORK: Self = Self { records: true, relies: true };
    /// After this the checkpoints match the tables again.
    const REPAIR: Self = Self { records: true, relies: false };
    const CHECK: Self = Self { records: false, relies: true };
    const DRY_RUN: Self = Self { records: false, relies: false };
}

/// The target's data about a rollup's owner.
#[derive(Debug, Default)]
struct Found {
    keeper: Option<String>,
    mine: Option<String>,
    tables: String,
    servers: String,
    places: Vec<String>,
    /// The marker whose rows were replaced last.
    newest: Option<Newest>,
    /// `None`: a replica.
    history: Option<History>,
}

impl Found {
    /// Whether the rollup's table in the registry is gone.
    fn is_gone(&self) -> bool {
        self.tables.starts_with("-/")
    }
}

/// A marker. Its checkpoint must be at least as new, as a claim comes before the write.
#[derive(Debug)]
struct Newest {
    start: DateTime<Utc>,
    attempt: u64,
    owner: Option<String>,
}

/// The findings of a process after it connected to both databases.
struct Look<'a> {
    id: &'a str,
    place: &'a str,
    found: &'a Found,
    /// `None`: not read, or a replica.
    source: Option<History>,
}

/// How `tallymark moved` changes the addresses of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The present addresses replace the known ones.
    Replace,
    /// The present addresses are added to the known ones of the same databases.
    Also,
    /// The target is a copy, and becomes an installation of its own.
    Copy,
}

/// The result of [`moved`] for one rollup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    pub rollup: String,
    /// The installation that owns it now.
    pub installation: String,
    /// Whether `tallymark repair` must run before any work.
    pub needs_repair: bool,
}

/// The ID of the installation that owns `rollup`, read once per process.
///
/// # Errors
/// The rollup is not ready, or it belongs to another installation.
pub async fn installation(worker: &Worker, rollup: &Rollup) -> Result<String, WorkError> {
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
    if let Some(bond) = bond {
        set_unproven(worker, rollup, bond.unproven.clone());
        if let Some(reason) = &bond.repair {
            worker.forget(rollup);
            return Err(must_repair(rollup, reason));
        }
        if bond.places.contains(&place(worker).await?) {
            return Ok(());
        }
    }
    // Another process may have moved it since this one started, or the item is gone.
    worker.forget(rollup);
    Box::pin(ready::check(worker, rollup)).await.map(drop)
}

/// As `recognise`, for commands that have not read the `watermark` item.
///
/// # Errors
/// The checkpoints are not this installation's, or a repair must come first.
pub async fn recognised(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    recognise(worker, rollup, seen.bond()).await
}

/// Binds source, target, `rollup` and its checkpoints together, or reports that they do not
/// belong together. The tables must exist.
pub(crate) async fn identify(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    identify_for(worker, rollup, Purpose::WORK).await
}

/// As `identify`, before a repair, which accepts restored tables.
pub(crate) async fn identify_for_repair(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    identify_for(worker, rollup, Purpose::REPAIR).await
}

/// As `identify_for_repair`, without writing.
pub(crate) async fn identify_for_dry_run(
    worker: &Worker,
    rollup: &Rollup,
) -> Result<(), WorkError> {
    identify_for(worker, rollup, Purpose::DRY_RUN).await
}

/// As `identify`, without writing.
///
/// # Errors
/// The same as for work on the rollup.
pub async fn identify_for_check(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    identify_for(worker, rollup, Purpose::CHECK).await
}

/// Why the rows of `rollup` are unproven, as far as this process knows.
#[must_use]
pub fn unproven(worker: &Worker, rollup: &Rollup) -> Option<String> {
    lock(&worker.unproven).get(&rollup.name).cloned()
}

fn set_unproven(worker: &Worker, rollup: &Rollup, reason: Option<String>) {
    let mut unproven = lock(&worker.unproven);
    match reason {
        Some(reason) => unproven.insert(rollup.name.clone(), reason),
        None => unproven.remove(&rollup.name),
    };
}

/// Records that every success of `rollup` was compared with the source and is right. Returns
/// whether its rows were unproven before.
///
/// # Errors
/// DynamoDB refuses or cannot be reached.
pub async fn proven(worker: &Worker, rollup: &Rollup) -> Result<bool, WorkError> {
    let Some(reason) = unproven(worker, rollup) else { return Ok(false) };
    worker.checkpoints.prove(&rollup.name, &reason).await?;
    set_unproven(worker, rollup, None);
    Ok(true)
}

/// Before `init` creates any table, refuses checkpoints that belong to another installation.
///
/// # Errors
/// They do, or a server refuses.
pub async fn refuse_stranger(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    let Some(bond) = seen.bond() else { return Ok(()) };
    let place = place(worker).await?;
    if bond.places.contains(&place) {
        let source = source_history(worker, rollup).await?;
        let target = history_of(&worker.target.db).await?;
        return are_not_other_servers(worker, rollup, bond, source.as_ref(), target.as_ref());
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
pub async fn refuse_other_places(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
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

/// Whether the target has slices of `rollup` while the checkpoint table has none.
async fn are_checkpoints_lost(worker: &Worker, rollup: &Rollup) -> Result<bool, WorkError> {
    if !worker.checkpoints.recent(&rollup.name).await?.is_empty() {
        return Ok(false);
    }
    let sql = format!(
        "SELECT EXISTS (SELECT FROM tallymark.slice WHERE rollup = {})",
        literal(&rollup.name)
    );
    Ok(ask(worker, sql).await?)
}

async fn has_registry(worker: &Worker) -> Result<bool, WorkError> {
    let sql = "SELECT to_regclass('tallymark.rollup') IS NOT NULL \
               AND to_regclass('tallymark.installation') IS NOT NULL";
    Ok(ask(worker, sql.to_owned()).await?)
}

/// The target's answer to a yes-or-no query.
async fn ask(worker: &Worker, sql: String) -> Result<bool, DbError> {
    const DOING: &str = "looking up the installation";
    let db = &worker.target.db;
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "identity").await?;
    let row = tx.row(DOING, sql).await?;
    let answer = row.try_get(0).map_err(|source| tx.error(DOING, source))?;
    tx.rollback().await?;
    Ok(answer)
}

async fn identify_for(worker: &Worker, rollup: &Rollup, purpose: Purpose) -> Result<(), WorkError> {
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
    let id = known.map_or_else(random_id, Clone::clone);
    if found.keeper.is_none() && purpose.records {
        keep_at(worker, rollup, &id, std::slice::from_ref(&place)).await?;
    }
    let look = Look { id: &id, place: &place, found: &found, source };
    bind(worker, rollup, bond, look, purpose).await?;
    worker.target.set_keeper(&rollup.name, &id);
    Ok(())
}

/// Writes the bond if it is new, and compares its entries with the databases.
async fn bind(
    worker: &Worker,
    rollup: &Rollup,
    before: Option<&Bond>,
    look: Look<'_>,
    purpose: Purpose,
) -> Result<(), WorkError> {
    let mut bond = match before {
        Some(before) => before.clone(),
        None => Bond {
            installation: look.id.to_owned(),
            tables: look.found.tables.clone(),
            servers: servers(worker).await?,
            repair: (are_checkpoints_lost(worker, rollup).await?)
                .then(|| CHECKPOINTS_LOST.to_owned()),
            ..Bond::default()
        },
    };
    if !bond.places.iter().any(|known| known == look.place) {
        bond.places.push(look.place.to_owned());
    }
    if bond.repair.is_none() {
        let reason = restored(worker, rollup, &bond, &look).await?;
        bond.repair = reason.map(str::to_owned);
    }
    note_histories(&mut bond, look);
    if purpose.records && before != Some(&bond) {
        worker.checkpoints.bind(&rollup.name, before, &bond).await?;
    }
    set_unproven(worker, rollup, bond.unproven);
    match &bond.repair {
        Some(reason) if purpose.relies => Err(must_repair(rollup, reason)),
        _ => Ok(()),
    }
}

/// Why the checkpoints contradict the tables, if that can be seen.
async fn restored(
    worker: &Worker,
    rollup: &Rollup,
    bond: &Bond,
    look: &Look<'_>,
) -> Result<Option<&'static str>, WorkError> {
    if bond.tables != look.found.tables {
        return Ok(Some(TABLES_CHANGED));
    }
    if course(bond.target_history.as_ref(), look.found.history.as_ref()) == Course::Back {
        return Ok(Some(TARGET_BACK));
    }
    let Some(newest) = &look.found.newest else { return Ok(None) };
    let known = worker.checkpoints.get(&rollup.name, newest.start).await?;
    let is_known = known.is_some_and(|known| {
        let is_owner = newest.owner.is_none() || known.owner == newest.owner;
        known.attempt > newest.attempt || known.attempt == newest.attempt && is_owner
    });
    Ok((!is_known).then_some(CHECKPOINTS_BACK))
}

/// Records the position of both databases, and whether counted rows may be gone.
fn note_histories(bond: &mut Bond, look: Look<'_>) {
    let target = look.found.history.clone();
    let forked = |known: &Option<History>, now: &Option<History>| {
        matches!(course(known.as_ref(), now.as_ref()), Course::Forked | Course::Back)
    };
    // In one database, markers and rows go back together, and its own markers show it.
    let is_source_back = forked(&bond.source_history, &look.source);
    let is_target_forked = forked(&bond.target_history, &target) && bond.repair.is_none();
    if is_source_back {
        bond.unproven = Some(SOURCE_BACK.to_owned());
    } else if is_target_forked && bond.unproven.is_none() {
        bond.unproven = Some(TARGET_FORKED.to_owned());
    }
    for (known, now) in
        [(&mut bond.source_history, look.source), (&mut bond.target_history, target)]
    {
        if let Some(now) = now.filter(|now| known.as_ref().is_none_or(|it| now.tells_more(it))) {
            *known = Some(now);
        }
    }
}

/// The position in the history of the source of `rollup`. `None`: the source is in the target,
/// whose history covers it, or it is a replica.
async fn source_history(worker: &Worker, rollup: &Rollup) -> Result<Option<History>, WorkError> {
    if worker.target.holds_source_of(rollup) {
        return Ok(None);
    }
    Ok(history_of(&worker.source).await?)
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
    Err(WorkError::Stranger(format!(
        "rollup `{}`: another server than before answers at the {which}'s address. If this is \
         a second installation, give it a [checkpoint] table of its own, instead of {}; if \
         the server was upgraded, replaced or restored, run `tallymark moved`",
        rollup.name,
        worker.checkpoints.table(),
    )))
}

/// Records that the checkpoints of `rollup` follow the present tables. Returns why its rows are
/// unproven: for `reason`, or for an earlier one.
pub(crate) async fn repaired(
    worker: &Worker,
    rollup: &Rollup,
    reason: Option<String>,
) -> Result<Option<String>, WorkError> {
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    let Some(before) = seen.bond() else { return Ok(reason) };
    let found = look_up(worker, rollup, &place(worker).await?).await?;
    let bond = Bond {
        tables: found.tables,
        repair: None,
        unproven: reason.or_else(|| still_unproven(before)),
        ..before.clone()
    };
    if *before != bond {
        worker.checkpoints.bind(&rollup.name, Some(before), &bond).await?;
    }
    set_unproven(worker, rollup, bond.unproven.clone());
    Ok(bond.unproven)
}

/// Records the present addresses of `rollup`'s installation.
///
/// # Errors
/// Its tables are missing, or a server refuses.
pub async fn moved(worker: &Worker, rollup: &Rollup, how: Move) -> Result<Moved, WorkError> {
    let place = place(worker).await?;
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    let found = look_up(worker, rollup, &place).await;
    let found = found.map_err(|error| belongs::nothing_moved(worker, rollup, error))?;
    let stored = seen.bond().map(|bond| bond.installation.clone());
    let id = match how {
        Move::Copy if stored.is_some() && stored != found.mine => {
            return Err(WorkError::Usage(format!(
                "rollup `{}`: the checkpoint table {} belongs to the original; give the copy \
                 another [checkpoint] table first",
                rollup.name,
                worker.checkpoints.table()
            )));
        }
        Move::Copy if found.mine.is_some() => found.mine.clone(),
        Move::Copy => None,
        Move::Replace | Move::Also => found.keeper.clone().or_else(|| stored.clone()),
    };
    let id = id.unwrap_or_else(random_id);
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
    worker.checkpoints.bind(&rollup.name, before, &bond).await?;
    worker.forget(rollup);
    let needs_repair = bond.repair.is_some();
    Ok(Moved { rollup: rollup.name.clone(), installation: id, needs_repair })
}

async fn look_up(worker: &Worker, rollup: &Rollup, place: &str) -> Result<Found, WorkError> {
    const DOING: &str = "looking up the installation";
    let db = &worker.target.db;
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let sql = format!(
        include_str!("../target/identity.sql"),
        place = literal(place),
        rollup = literal(&rollup.name)
    );
    let rows = tx.rows(DOING, sql).await?;
    let found = rows.first().map_or_else(
        || Ok(Found::default()),
        |row| {
            Ok(Found {
                keeper: row.try_get("keeper")?,
                mine: row.try_get("mine")?,
                tables: row.try_get("tables")?,
                servers: row.try_get::<Option<_>, _>("servers")?.unwrap_or_default(),
                places: row.try_get::<Option<_>, _>("places")?.unwrap_or_default(),
                newest: newest(row)?,
                history: None,
            })
        },
    );
    let mut found = found.map_err(|source| tx.error(DOING, source))?;
    found.history = history::read(&mut tx).await?;
    tx.rollback().await?;
    Ok(found)
}

/// The running servers and databases that this process reaches: source, then target.
async fn servers(worker: &Worker) -> Result<String, DbError> {
    Ok(format!("{} {}", server(&worker.source).await?, server(&worker.target.db).await?))
}

/// Makes this installation the owner of a rollup, reached by `places`.
async fn keep_at(
    worker: &Worker,
    rollup: &Rollup,
    id: &str,
    places: &[String],
) -> Result<(), WorkError> {
    let servers = servers(worker).await?;
    let places: Vec<_> = places.iter().map(|place| literal(place)).collect();
    write_identity(
        worker,
        vec![
            format!(
                "INSERT INTO tallymark.installation AS known \
             (id, places, servers) VALUES ({}, ARRAY[{}], {}) ON CONFLICT (id) DO UPDATE SET \
             places = excluded.places, servers = excluded.servers",
                literal(id),
                places.join(", "),
                literal(&servers),
            ),
            format!(
                "UPDATE tallymark.rollup SET installation = {} WHERE rollup = {}",
                literal(id),
                literal(&rollup.name)
            ),
        ],
    )
    .await
}

async fn write_identity(worker: &Worker, statements: Vec<String>) -> Result<(), WorkError> {
    let db = &worker.target.db;
    let mut tx = db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, "identity").await?;
    for statement in statements {
        tx.execute("writing the installation", statement).await?;
    }
    Ok(tx.commit().await?)
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
    WorkError::Stranger(format!(
        "rollup `{}`: {} is kept by installation {}, which has another source or target \
         address than this configuration. If another installation writes this table, choose \
         another rollup name or [target] schema; if it is the same one at a new address, run \
         `tallymark moved` (`--also` if the old address stays in use, `--copy` if this target \
         is a copy)",
        rollup.name,
        worker.target.table(rollup),
        short(keeper),
    ))
}

/// Why checkpoints of earlier tables cannot be trusted.
const TABLES_CHANGED: &str =
    "its tables in the target were created again or restored since its checkpoints were written";

/// As [`TABLES_CHANGED`], where the tables themselves do not show it.
const TARGET_BACK: &str =
    "the target was restored to an earlier moment since its checkpoints were written";

/// Why checkpoints that are older than the newest marker cannot be trusted.
const CHECKPOINTS_BACK: &str =
    "its checkpoints are older than its rows: they were restored, or lost and started over";

/// Why rows that were counted from another past of the source are unproven.
pub(crate) const SOURCE_BACK: &str = "the source was restored or failed over since its rows were \
     counted, and some of them may be gone";

/// Why rows in a target with a possibly different past are unproven.
const TARGET_FORKED: &str =
    "the target was restored or failed over, and its last commits may be gone";

/// Whether a repair is due because the target went back in time.
pub(crate) fn has_target_gone_back(bond: &Bond) -> bool {
    bond.repair.as_deref().is_some_and(|reason| reason == TABLES_CHANGED || reason == TARGET_BACK)
}

/// Why the rows are still unproven after a repair, which finds a target's losses.
pub(crate) fn still_unproven(bond: &Bond) -> Option<String> {
    bond.unproven.clone().filter(|reason| reason != TARGET_FORKED)
}

/// The message about unproven rows.
#[must_use]
pub fn is_unproven(rollup: &Rollup, reason: &str) -> String {
    let name = &rollup.name;
    format!(
        "rollup `{name}` is unproven: {reason}. Run `tallymark repair` and `tallymark verify \
         {name} --repair`; or `tallymark moved`, if you know that nothing was lost"
    )
}

/// How a database's history relates to the stored one, if both are known.
fn course(known: Option<&History>, now: Option<&History>) -> Course {
    known.zip(now).map_or(Course::Onward, |(known, now)| now.since(known))
}

fn newest(row: &sqlx::postgres::PgRow) -> Result<Option<Newest>, sqlx::Error> {
    let Some(start) = row.try_get("newest_start")? else { return Ok(None) };
    let attempt: i64 = row.try_get("newest_attempt")?;
    let owner = row.try_get("newest_owner")?;
    Ok(Some(Newest { start, attempt: attempt.unsigned_abs(), owner }))
}

async fn history_of(db: &Db) -> Result<Option<History>, DbError> {
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "identity").await?;
    let history = history::read(&mut tx).await?;
    tx.rollback().await?;
    Ok(history)
}

/// Why a new checkpoint table cannot be trusted.
const CHECKPOINTS_LOST: &str = "its checkpoint table is empty while the target holds slices of it";

fn must_repair(rollup: &Rollup, reason: &str) -> WorkError {
    WorkError::Stranger(format!(
        "rollup `{}`: {reason}; run `tallymark repair`, as its checkpoints cannot be trusted before",
        rollup.name
    ))
}

fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// The first digits of an ID, which identify installations in messages.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Identifies the running server and the database that `db` reaches, by any route. Two copies of
/// one database differ at least in the start of their servers.
async fn server(db: &Db) -> Result<String, DbError> {
    const DOING: &str = "asking which server this is";
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "identity").await?;
    let sql = "SELECT (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' \
        || (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint || '/' \
        || current_database(), \
        has_function_privilege('pg_control_system()', 'EXECUTE')";
    let row = tx.row(DOING, sql.into()).await?;
    let read = || Ok::<_, sqlx::Error>((row.try_get::<String, _>(0)?, row.try_get::<bool, _>(1)?));
    let (mut server, may_see) = read().map_err(|source| tx.error(DOING, source))?;
    if may_see {
        server.push('/');
        server.push_str(&system(&mut tx).await?);
    }
    tx.rollback().await?;
    Ok(server)
}

/// The cluster's `system_identifier`, which its physical copies share.
async fn system(tx: &mut Tx) -> Result<String, DbError> {
    const DOING: &str = "asking which server this is";
    let sql = "SELECT system_identifier::text FROM pg_control_system()";
    let row = tx.row(DOING, sql.into()).await?;
    row.try_get(0).map_err(|source| tx.error(DOING, source))
}
