//! The signals of the source's load, how each is read, and how it compares with its limit.

use std::borrow::Cow;
use std::fmt;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::config::{LoadLimits, Signal};
use crate::model::hint::Hinted;

impl Signal {
    /// The unit of its number.
    const fn unit(self) -> &'static str {
        match self {
            Self::Active => "active backends",
            Self::Waiting => "backends waiting for a lock",
            Self::Transactions => "transactions/s",
            Self::Blocks => "blocks read/s",
            Self::ProbeMs => "ms to answer",
            Self::ReplicaLagMs => "ms of replica lag",
        }
    }

    /// The expression that reads it. `NULL` if it is not read, or not by a statement.
    pub(super) const fn sql(self) -> &'static str {
        const OTHERS: &str = "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
             AND state = 'active' AND pid <> pg_backend_pid() \
             AND NOT (usename = current_user AND application_name LIKE 'tallymark%'))";
        const WAITING: &str = "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
             AND state = 'active' AND wait_event_type = 'Lock' \
             AND NOT (usename = current_user AND application_name LIKE 'tallymark%'))";
        match self {
            Self::Active => OTHERS,
            Self::Waiting => WAITING,
            Self::Transactions => "(SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database)",
            Self::Blocks => "(SELECT sum(blks_read) FROM pg_stat_database)",
            Self::ProbeMs => "NULL",
            Self::ReplicaLagMs => {
                "(SELECT coalesce(max(extract(epoch FROM replay_lag)), 0) * 1000 FROM pg_stat_replication)"
            }
        }
    }

    /// Whether other roles' sessions show it only to a member of `pg_read_all_stats`.
    const fn is_privileged(self) -> bool {
        matches!(self, Self::Active | Self::Waiting | Self::ReplicaLagMs)
    }

    /// Whether it is the growth of a counter.
    const fn is_rate(self) -> bool {
        matches!(self, Self::Transactions | Self::Blocks)
    }
}

/// The source's answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// The slot that the transaction has now.
    pub(crate) slot: Option<i32>,
    /// The server's clock, in seconds.
    at: f64,
    role: String,
    sees_all: bool,
    values: Vec<(Signal, Option<f64>)>,
}

impl Sample {
    pub(super) fn read(row: &PgRow, probe_ms: f64) -> Result<Self, sqlx::Error> {
        let mut values = Vec::new();
        for signal in Signal::ALL {
            let value = match signal {
                Signal::ProbeMs => Some(probe_ms),
                _ => row.try_get(signal.key())?,
            };
            values.push((signal, value));
        }
        Ok(Self {
            slot: row.try_get("slot")?,
            at: row.try_get("now")?,
            role: row.try_get("role")?,
            sees_all: row.try_get("sees_all")?,
            values,
        })
    }

    fn value(&self, signal: Signal) -> Option<f64> {
        self.values.iter().find(|(other, _)| *other == signal).and_then(|(_, value)| *value)
    }

    /// The present signal, given an older sample `before`.
    fn signal(&self, signal: Signal, before: Option<&Self>) -> Result<f64, Unreadable> {
        if signal.is_privileged() && !self.sees_all {
            return Err(Unreadable::Denied { signal, role: self.role.clone() });
        }
        let value = self.value(signal).ok_or(Unreadable::Empty { signal })?;
        if !signal.is_rate() {
            return Ok(value);
        }
        let before = before.ok_or(Unreadable::NotYet)?;
        let old = before.value(signal).ok_or(Unreadable::NotYet)?;
        // After a reset of the statistics the counter starts again at zero.
        Ok(((value - old) / (self.at - before.at).max(1e-3)).max(0.0))
    }

    /// Seconds since `before`.
    pub(super) fn since(&self, before: &Self) -> f64 {
        self.at - before.at
    }

    /// The first limit that is exceeded, in words.
    pub(super) fn passed(
        &self,
        before: Option<&Self>,
        limits: &LoadLimits,
    ) -> Result<Option<String>, Unreadable> {
        for (signal, limit) in &limits.0 {
            let value = self.signal(*signal, before)?;
            if value > *limit {
                return Ok(Some(format!("{value:.0} {} > {limit}", signal.unit())));
            }
        }
        Ok(None)
    }

    /// Every signal with one of the `limits`, in words.
    pub(super) fn described(&self, before: Option<&Self>, limits: &[&LoadLimits]) -> Vec<String> {
        let wanted = |signal: &Signal| limits.iter().any(|limits| limits.has(*signal));
        let describe = |signal: Signal| match self.signal(signal, before) {
            Ok(value) => format!("{value:.0} {}", signal.unit()),
            Err(error) => error.to_string(),
        };
        Signal::ALL.into_iter().filter(wanted).map(describe).collect()
    }
}

/// Why a signal is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// A rate needs two samples.
    NotYet,
    /// The role may not see it.
    Denied { signal: Signal, role: String },
    /// The server has no answer.
    Empty { signal: Signal },
}

impl Hinted for Unreadable {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let Self::Denied { role, .. } = self else { return None };
        let role = crate::model::sql::shown(role);
        Some(
            format!("as a superuser: GRANT pg_read_all_stats TO {role}; or remove the limit")
                .into(),
        )
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet => f.write_str("a rate needs a second look"),
            Self::Denied { signal, role } => write!(
                f,
                "`{}` cannot be read: role {role} does not see other roles' sessions",
                signal.key(),
            ),
            Self::Empty { signal } => {
                write!(f, "`{}` cannot be read: the server has no answer", signal.key())
            }
        }
    }
}
