//! Identity: source, target, rollup and checkpoints know that they belong together.
//!
//! A random id names an installation. The target holds it (`tallymark.installation`, and for each
//! rollup the id of its keeper in `tallymark.rollup`), and so does each rollup's `watermark` item.
//! Beside the id both hold the installation's *places*: hashes of the addresses of source and
//! target as configured. A process looks once per rollup, where it connects to the target anyway;
//! a tick with nothing due compares its place with the item that it reads, and connects nowhere.
//!
//! An address that is new is the same installation if both servers are the same running ones (the
//! start of the server and the database's number are equal): a pooler beside the direct address is
//! taken up silently. Anything else is refused until `tallymark moved`.

use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use crate::checkpoint::Bond;
use crate::db::{Access, Db, DbError, Tx};
use crate::rollup::Rollup;
use crate::sql::literal;
use crate::worker::{CATALOGUE_TIMEOUT, WorkError, Worker};

/// What a process is about to do with the rollup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Work, which relies on the checkpoints.
    Work,
    /// Repair, after which the checkpoints fit the tables again.
    Repair,
}

/// What the target says about a rollup's keeper.
#[derive(Debug, Default)]
struct Found {
    keeper: Option<String>,
    mine: Option<String>,
    tables: String,
    servers: String,
    places: Vec<String>,
}

/// How `tallymark moved` changes which addresses an installation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The present addresses replace the known ones.
    Replace,
    /// The present addresses are further ones of the same databases.
    Also,
    /// The target is a copy, which becomes an installation of its own.
    Copy,
}

/// What [`Worker::moved`] did with one rollup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    /// The rollup.
    pub rollup: String,
    /// The installation that keeps it now.
    pub installation: String,
    /// Whether `tallymark repair` must run before any work.
    pub needs_repair: bool,
}

impl Worker {
    /// The id of the installation that keeps `rollup`; asked once per process.
    ///
    /// # Errors
    /// The rollup is not ready, or it belongs to another installation.
    pub async fn installation(&self, rollup: &Rollup) -> Result<String, WorkError> {
        self.ready(rollup).await?;
        Ok(self.target.keeper(&rollup.name).unwrap_or_default())
    }

    /// The hash of both addresses as configured.
    ///
    /// # Errors
    /// An address is kept elsewhere and cannot be read.
    pub async fn place(&self) -> Result<String, WorkError> {
        let (source, target) = (self.source.location().await?, self.target.db.location().await?);
        let digest = Sha256::digest(format!("{source}\n{target}"));
        Ok(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Makes sure that the checkpoints of `rollup` are those of this installation; `bond` is what
    /// its `watermark` item said. Where this process's addresses are known there, no database is
    /// asked.
    pub(crate) async fn recognise(
        &self,
        rollup: &Rollup,
        bond: Option<&Bond>,
    ) -> Result<(), WorkError> {
        if let Some(bond) = bond {
            if let Some(reason) = &bond.repair {
                self.forget(rollup);
                return Err(must_repair(rollup, reason));
            }
            if bond.places.contains(&self.place().await?) {
                return Ok(());
            }
        }
        // Another process may have moved it while this one lived, or the item is gone.
        self.forget(rollup);
        Box::pin(self.ready(rollup)).await.map(drop)
    }

    /// As `Worker::recognise`, for commands that have not read the `watermark` item.
    ///
    /// # Errors
    /// The checkpoints are not this installation's, or a repair must come first.
    pub async fn recognised(&self, rollup: &Rollup) -> Result<(), WorkError> {
        let seen = self.checkpoints.watermark(&rollup.name).await?;
        self.recognise(rollup, seen.bond()).await
    }

    /// Ties source, target, `rollup` and its checkpoints together, or says that they do not belong
    /// together. The tables are there.
    pub(crate) async fn identify(&self, rollup: &Rollup) -> Result<(), WorkError> {
        self.identify_for(rollup, Purpose::Work).await
    }

    /// As [`Worker::identify`], before a repair, for which tables that were restored are no obstacle.
    pub(crate) async fn identify_for_repair(&self, rollup: &Rollup) -> Result<(), WorkError> {
        self.identify_for(rollup, Purpose::Repair).await
    }

    /// Refuses, before `init` makes any table, checkpoints that belong to another installation.
    ///
    /// # Errors
    /// They do, or a server refuses.
    pub async fn refuse_stranger(&self, rollup: &Rollup) -> Result<(), WorkError> {
        let seen = self.checkpoints.watermark(&rollup.name).await?;
        let place = self.place().await?;
        if seen.bond().is_none_or(|bond| bond.places.contains(&place)) {
            return Ok(());
        }
        let keeper = match self.has_registry().await? {
            true => self.look_up(rollup, &place).await?.keeper,
            false => None,
        };
        self.is_not_anothers(rollup, seen.bond(), keeper.as_deref(), &place)
    }

    /// As `Worker::identify`, at the end of `init`; says why a repair must come before any work.
    ///
    /// # Errors
    /// The checkpoints or the table belong to another installation, or a server refuses.
    pub async fn identify_at_init(&self, rollup: &Rollup) -> Result<Option<String>, WorkError> {
        self.identify_for_repair(rollup).await?;
        let seen = self.checkpoints.watermark(&rollup.name).await?;
        Ok(seen.bond().and_then(|bond| bond.repair.clone()))
    }

    /// Whether the target has slices of `rollup`, and the checkpoint table has none.
    async fn are_checkpoints_lost(&self, rollup: &Rollup) -> Result<bool, WorkError> {
        if !self.checkpoints.recent(&rollup.name).await?.is_empty() {
            return Ok(false);
        }
        let sql = format!(
            "SELECT EXISTS (SELECT FROM tallymark.slice WHERE rollup = {})",
            literal(&rollup.name)
        );
        Ok(self.ask(sql).await?)
    }

    async fn has_registry(&self) -> Result<bool, WorkError> {
        let sql = "SELECT to_regclass('tallymark.rollup') IS NOT NULL \
                   AND to_regclass('tallymark.installation') IS NOT NULL";
        Ok(self.ask(sql.to_owned()).await?)
    }

    /// The target's answer to a question of yes or no.
    async fn ask(&self, sql: String) -> Result<bool, DbError> {
        const DOING: &str = "looking up the installation";
        let db = &self.target.db;
        let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "identity").await?;
        let row = tx.row(DOING, sql).await?;
        let answer = row.try_get(0).map_err(|source| tx.error(DOING, source))?;
        tx.rollback().await?;
        Ok(answer)
    }

    async fn identify_for(&self, rollup: &Rollup, purpose: Purpose) -> Result<(), WorkError> {
        let place = self.place().await?;
        let seen = self.checkpoints.watermark(&rollup.name).await?;
        let bond = seen.bond();
        let found = self.look_up(rollup, &place).await?;
        let is_known = match bond {
            Some(bond) => bond.places.contains(&place),
            None => found.keeper.is_some() && found.keeper == found.mine,
        };
        let id = match &found.keeper {
            Some(keeper) => {
                self.is_not_anothers(rollup, bond, Some(keeper), &place)?;
                // By another way to the same running servers, as through a pooler.
                let recorded = bond.map_or(&found.servers, |bond| &bond.servers);
                if !is_known && *recorded != self.servers().await? {
                    return Err(self.kept_elsewhere(rollup, keeper));
                }
                keeper.clone()
            }
            None => {
                let mine = found.mine.as_deref();
                self.is_not_anothers(rollup, bond, mine, &place)?;
                let known = mine.or_else(|| bond.map(|bond| bond.installation.as_str()));
                let id = known.map_or_else(random_id, str::to_owned);
                self.keep_at(rollup, &id, std::slice::from_ref(&place)).await?;
                id
            }
        };
        self.bind(rollup, bond, (&id, &place, &found.tables), purpose).await?;
        self.target.set_keeper(&rollup.name, &id);
        Ok(())
    }

    /// Writes the bond where it is new, and compares the tables that it speaks of.
    async fn bind(
        &self,
        rollup: &Rollup,
        before: Option<&Bond>,
        (id, place, tables): (&str, &str, &str),
        purpose: Purpose,
    ) -> Result<(), WorkError> {
        let mut bond = match before {
            Some(before) => before.clone(),
            None => Bond {
                installation: id.to_owned(),
                tables: tables.to_owned(),
                servers: self.servers().await?,
                repair: (self.are_checkpoints_lost(rollup).await?)
                    .then(|| CHECKPOINTS_LOST.to_owned()),
                ..Bond::default()
            },
        };
        if !bond.places.iter().any(|known| known == place) {
            bond.places.push(place.to_owned());
        }
        if bond.tables != tables && bond.repair.is_none() {
            bond.repair = Some(TABLES_CHANGED.to_owned());
        }
        if before != Some(&bond) {
            self.checkpoints.bind(&rollup.name, before, &bond).await?;
        }
        match &bond.repair {
            Some(reason) if purpose == Purpose::Work => Err(must_repair(rollup, reason)),
            _ => Ok(()),
        }
    }

    /// Records that the checkpoints of `rollup` follow the tables that are there now.
    pub(crate) async fn repaired(&self, rollup: &Rollup) -> Result<(), WorkError> {
        let seen = self.checkpoints.watermark(&rollup.name).await?;
        let Some(before) = seen.bond() else { return Ok(()) };
        let found = self.look_up(rollup, &self.place().await?).await?;
        let bond = Bond { tables: found.tables, repair: None, ..before.clone() };
        if *before != bond {
            self.checkpoints.bind(&rollup.name, Some(before), &bond).await?;
        }
        Ok(())
    }

    /// Records the present addresses of `rollup`'s installation.
    ///
    /// # Errors
    /// Its tables are not there, or a server refuses.
    pub async fn moved(&self, rollup: &Rollup, how: Move) -> Result<Moved, WorkError> {
        let place = self.place().await?;
        let seen = self.checkpoints.watermark(&rollup.name).await?;
        let found = self.look_up(rollup, &place).await?;
        let stored = seen.bond().map(|bond| bond.installation.clone());
        let id = match how {
            Move::Copy if stored.is_some() && stored != found.mine => {
                return Err(WorkError::Usage(format!(
                    "rollup `{}`: the checkpoint table {} belongs to the original; give the copy \
                     another [checkpoint] table first",
                    rollup.name,
                    self.checkpoints.table()
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
        self.keep_at(rollup, &id, &places).await?;
        let before = seen.bond();
        let is_same = before.is_none_or(|bond| bond.tables == found.tables);
        let bond = Bond {
            installation: id.clone(),
            places,
            servers: self.servers().await?,
            tables: found.tables,
            repair: match is_same {
                true => before.and_then(|bond| bond.repair.clone()),
                false => Some(TABLES_CHANGED.to_owned()),
            },
        };
        self.checkpoints.bind(&rollup.name, before, &bond).await?;
        self.forget(rollup);
        let needs_repair = bond.repair.is_some();
        Ok(Moved { rollup: rollup.name.clone(), installation: id, needs_repair })
    }

    async fn look_up(&self, rollup: &Rollup, place: &str) -> Result<Found, WorkError> {
        const DOING: &str = "looking up the installation";
        let db = &self.target.db;
        let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let sql = format!(
            include_str!("target/identity.sql"),
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
                })
            },
        );
        let found = found.map_err(|source| tx.error(DOING, source))?;
        tx.rollback().await?;
        Ok(found)
    }

    /// The running servers and the databases that this process reaches: source, then target.
    async fn servers(&self) -> Result<String, DbError> {
        Ok(format!("{} {}", server(&self.source).await?, server(&self.target.db).await?))
    }

    /// Makes this installation the keeper of a rollup, reached by `places`.
    async fn keep_at(&self, rollup: &Rollup, id: &str, places: &[String]) -> Result<(), WorkError> {
        let servers = self.servers().await?;
        let places: Vec<_> = places.iter().map(|place| literal(place)).collect();
        self.write_identity(vec![
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
        ])
        .await
    }

    async fn write_identity(&self, statements: Vec<String>) -> Result<(), WorkError> {
        let db = &self.target.db;
        let mut tx = db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, "identity").await?;
        for statement in statements {
            tx.execute("writing the installation", statement).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Refuses checkpoints that are bound to another installation, or to this one elsewhere.
    fn is_not_anothers(
        &self,
        rollup: &Rollup,
        bond: Option<&Bond>,
        id: Option<&str>,
        place: &str,
    ) -> Result<(), WorkError> {
        let Some(bond) = bond else { return Ok(()) };
        let is_known_here = bond.places.iter().any(|known| known == place);
        let is_same = match id {
            Some(id) => bond.installation == id,
            // The target knows nothing: it was made anew, if the address is the known one.
            None => is_known_here,
        };
        if is_same {
            return Ok(());
        }
        Err(WorkError::Stranger(format!(
            "rollup `{}`: its checkpoints in DynamoDB table {} belong to another installation \
             ({}), with another source or target. If this is a second installation, give it a \
             [checkpoint] table of its own; if it is the same one at a new address, run \
             `tallymark moved`",
            rollup.name,
            self.checkpoints.table(),
            short(&bond.installation),
        )))
    }

    fn kept_elsewhere(&self, rollup: &Rollup, keeper: &str) -> WorkError {
        WorkError::Stranger(format!(
            "rollup `{}`: {} is kept by installation {}, which has another source or target \
             address than this configuration. If another installation writes this table, choose \
             another rollup name or [target] schema; if it is the same one at a new address, run \
             `tallymark moved` (`--also` if the old address stays in use, `--copy` if this target \
             is a copy)",
            rollup.name,
            self.target.table(rollup),
            short(keeper),
        ))
    }
}

/// Why checkpoints of other tables than those that are there cannot be trusted.
const TABLES_CHANGED: &str =
    "its tables in the target were made anew or restored since its checkpoints were written";

/// Why a new checkpoint table cannot be trusted.
const CHECKPOINTS_LOST: &str = "its checkpoint table is empty while the target holds slices of it";

fn must_repair(rollup: &Rollup, reason: &str) -> WorkError {
    WorkError::Stranger(format!(
        "rollup `{}`: {reason}; what its checkpoints say does not hold until `tallymark repair` has run",
        rollup.name
    ))
}

fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// The first digits of an id, which tell installations apart in messages.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Which running server and which database `db` reaches, by whatever way: two copies of one database
/// differ at least in when their servers started.
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
