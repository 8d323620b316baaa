//! A database's position in its history: numbers that only move forward, and that a restore moves
//! back or replaces.
//!
//! - The cluster's `system_identifier`. A different one means another server behind the same
//!   address.
//! - The database's number in the cluster. A different one means that the database was dropped and
//!   created again.
//! - The timeline. A promoted replica or a point-in-time recovery begins a new one.
//! - The position of the last checkpoint in the write-ahead log. A snapshot goes back to an earlier
//!   one. A crash never moves it back, while transaction numbers may go back.

use std::fmt;

use sqlx::Row as _;

use super::{DbError, Tx};

const DOING: &str = "asking how far the server's history is";

/// Stands for a number that the role may not read.
const UNSEEN: &str = "-";

/// A database's position in its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    database: String,
    /// `None`: the role may not read it.
    cluster: Option<ControlData>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ControlData {
    system: String,
    timeline: String,
    checkpoint: u64,
}

/// How a database's position relates to the stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// The same history, further on or unchanged.
    Onward,
    /// A new timeline: a failover, or a recovery to an earlier moment.
    Forked,
    /// The database was created again, or its server's files are those of an earlier moment.
    Back,
    /// Another cluster.
    Other,
}

impl History {
    /// Parses the output of `Display`. `None`: another version wrote it.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [database, system, timeline, checkpoint] = parts[..] else { return None };
        let cluster = match system {
            UNSEEN => None,
            _ => Some(ControlData {
                system: system.to_owned(),
                timeline: timeline.to_owned(),
                checkpoint: checkpoint.parse().ok()?,
            }),
        };
        Some(Self { database: database.to_owned(), cluster })
    }

    /// Compares this position with an earlier `known` one.
    #[must_use]
    pub(crate) fn since(&self, known: &Self) -> Course {
        if let (Some(now), Some(before)) = (&self.cluster, &known.cluster) {
            if now.system != before.system {
                return Course::Other;
            }
            if now.timeline != before.timeline {
                return Course::Forked;
            }
            if now.checkpoint < before.checkpoint {
                return Course::Back;
            }
        }
        if self.database == known.database { Course::Onward } else { Course::Back }
    }
}

impl History {
    /// Whether this should replace the stored `known` position, as another role may see less.
    #[must_use]
    pub(crate) fn tells_more(&self, known: &Self) -> bool {
        self != known && (self.cluster.is_some() || self.database != known.database)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = &self.database;
        match &self.cluster {
            None => write!(f, "{database}/{UNSEEN}/{UNSEEN}/{UNSEEN}"),
            Some(ControlData { system, timeline, checkpoint }) => {
                write!(f, "{database}/{system}/{timeline}/{checkpoint}")
            }
        }
    }
}

/// Reads the database's position. `None`: a replica, which may be behind by any amount.
pub(crate) async fn read(tx: &mut Tx) -> Result<Option<History>, DbError> {
    let sql = "SELECT (SELECT oid FROM pg_database WHERE datname = current_database())::text \
               AS database, pg_is_in_recovery() AS is_replica, \
               has_function_privilege('pg_control_system()', 'EXECUTE') AND \
               has_function_privilege('pg_control_checkpoint()', 'EXECUTE') AS may_see";
    let row = tx.row(DOING, sql.to_owned()).await?;
    let read =
        || Ok((row.try_get("database")?, row.try_get("is_replica")?, row.try_get("may_see")?));
    let (database, is_replica, may_see): (String, bool, bool) =
        read().map_err(|source| tx.error(DOING, source))?;
    if is_replica {
        return Ok(None);
    }
    let cluster = if may_see { Some(ask_cluster(tx).await?) } else { None };
    Ok(Some(History { database, cluster }))
}

async fn ask_cluster(tx: &mut Tx) -> Result<ControlData, DbError> {
    let sql = "SELECT system_identifier::text AS system, timeline_id::text AS timeline, \
               (checkpoint_lsn - '0/0')::bigint AS checkpoint \
               FROM pg_control_system(), pg_control_checkpoint()";
    let row = tx.row(DOING, sql.to_owned()).await?;
    let read = || {
        let checkpoint: i64 = row.try_get("checkpoint")?;
        Ok(ControlData {
            system: row.try_get("system")?,
            timeline: row.try_get("timeline")?,
            checkpoint: checkpoint.unsigned_abs(),
        })
    };
    read().map_err(|source| tx.error(DOING, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(text: &str) -> History {
        let history = History::parse(text).unwrap();
        assert_eq!(history.to_string(), text);
        history
    }

    #[test]
    fn a_history_goes_on_until_a_restore_moves_it_back_or_replaces_it() {
        let known = history("16384/7001/1/5000");
        for (now, course) in [
            ("16384/7001/1/5000", Course::Onward),
            ("16384/7001/1/9000", Course::Onward),
            ("16384/7001/1/4999", Course::Back),
            ("16399/7001/1/9000", Course::Back),
            ("16384/7001/2/9000", Course::Forked),
            ("16384/7001/2/10", Course::Forked),
            ("16384/7002/1/9000", Course::Other),
            // Values that the role may not read are ignored.
            ("16384/-/-/-", Course::Onward),
            ("16399/-/-/-", Course::Back),
        ] {
            assert_eq!(history(now).since(&known), course, "{now}");
        }
        assert_eq!(known.since(&history("16384/-/-/-")), Course::Onward);
        assert_eq!(History::parse("16384/7001"), None);
    }
}
