//! Classifies a database's errors: the responsible side, and whether another try may help.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::postgres::PgDatabaseError;

use super::Side;
use super::locks::Waited;
use crate::clients::secret::SecretError;
use crate::model::hint::{Fault, Hinted};
use crate::model::text::cut;

/// The kind of a database error, as far as callers treat kinds differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DbErrorKind {
    /// The connection is missing or broke, or the server is starting, stopping, full or read-only.
    /// No slice could be worked on there now.
    Unreachable,
    /// The server refused the login, or the database does not exist.
    Login,
    /// The statement ran into its time limit or was cancelled.
    Cancelled,
    /// A lock was not free in time, a deadlock or a serialisation failure. A retry may succeed.
    Contended,
    /// The role lacks a privilege.
    Denied,
    /// Row-level security would hide rows from this role.
    RowSecurity,
    /// A table, column, function or type is missing.
    Missing,
    /// Any other refusal that data or a definition can cause.
    Refused,
    /// The cause is unclear, so it does not count as a failure of the slice and is tried again.
    Unclear,
}

/// An error of a PostgreSQL server, in one line. The server's text is cut to a bounded length.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{side} database: {doing}: {text}")]
pub struct DbError {
    side: Side,
    doing: String,
    text: String,
    hint: Option<String>,
    kind: DbErrorKind,
    lock: Lock,
}

/// The kind of lock that a statement failed to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    None,
    /// A lock below a table's, such as a row's.
    Some,
    /// A lock of a whole table.
    Table,
}

impl Hinted for DbError {
    /// The server's hint, or the remedy of a connection that failed.
    fn hint(&self) -> Option<Cow<'_, str>> {
        self.hint.as_deref().map(Cow::from)
    }
}

/// Why statements that depend on the catalogue were not made.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The catalogue shows something in the way.
    #[error("{0}")]
    Unfit(Fault),
    /// The server refuses or cannot be reached.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Hinted for CatalogueError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Unfit(fault) => fault.hint(),
            Self::Db(error) => error.hint(),
        }
    }
}

impl From<Fault> for CatalogueError {
    fn from(fault: Fault) -> Self {
        Self::Unfit(fault)
    }
}

impl DbError {
    #[expect(clippy::needless_pass_by_value, reason = "called as map_err(|source| …)")]
    pub(crate) fn new(side: Side, doing: impl Into<String>, source: sqlx::Error) -> Self {
        // The server's DETAIL is left out, as it may quote rows.
        let server = refusal(&source).and_then(|error| Some(one_line(error.hint()?)));
        let kind = kind(&source);
        let hint = server.or_else(|| of_place(&source));
        let hint = hint.or_else(|| remedy(&source, kind).map(str::to_owned));
        let lock = match refusal(&source).is_some_and(|error| error.code() == "55P03") {
            true => Lock::Some,
            false => Lock::None,
        };
        Self { side, doing: doing.into(), text: text(&source), hint, kind, lock }
    }

    /// The server was silent for `limit`, which is longer than it lets a statement run.
    pub(crate) fn silent(side: Side, doing: &str, limit: Duration) -> Self {
        let text = format!("no answer within {:.1} s", limit.as_secs_f64());
        let (doing, kind) = (doing.to_owned(), DbErrorKind::Unreachable);
        Self { side, doing, text, hint: Some(AGAIN.to_owned()), kind, lock: Lock::None }
    }

    /// The same error of a server that refused a token.
    pub(super) fn of_token(self) -> Self {
        const REMEDY: &str = "let the AWS identity of this process do rds-db:connect for this user, and \
            GRANT rds_iam to it";
        match self.kind {
            DbErrorKind::Login => Self { hint: Some(REMEDY.to_owned()), ..self },
            _ => self,
        }
    }

    /// The same error with the holder of the lock.
    pub(super) fn held_by(self, waited: &Waited) -> Self {
        let text = format!("{}; {}", self.text, one_line(&waited.words));
        let lock = if waited.is_table { Lock::Table } else { self.lock };
        Self { text, lock, ..self }
    }

    /// The same error for a statement whose limit had not passed. An operator cancelled it, which
    /// says nothing about the data.
    pub(super) fn cancelled_by_another(self) -> Self {
        match self.kind {
            DbErrorKind::Cancelled => Self { kind: DbErrorKind::Unclear, ..self },
            _ => self,
        }
    }

    /// Whether a lock was not free in time.
    #[must_use]
    pub(crate) fn is_locked(&self) -> bool {
        self.lock != Lock::None
    }

    /// Whether the lock is on a whole table, which blocks every other slice too.
    #[must_use]
    pub(crate) fn is_table_locked(&self) -> bool {
        self.lock == Lock::Table
    }

    /// The same error for a transaction that could not begin, before any data was read. Limits of
    /// the session, such as a role's `statement_timeout`, apply until the transaction has set its
    /// own.
    pub(super) fn before_any_work(self) -> Self {
        let kind = match self.kind {
            DbErrorKind::Cancelled | DbErrorKind::Refused => DbErrorKind::Unclear,
            kind => kind,
        };
        Self { kind, ..self }
    }

    #[must_use]
    pub const fn kind(&self) -> DbErrorKind {
        self.kind
    }
}

/// Classifies an error by the driver's type or by SQLSTATE.
fn kind(error: &sqlx::Error) -> DbErrorKind {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            // The text is in the server's language. The name of the function that raised it is
            // language-independent.
            Some("42501") if routine(error.as_ref()) == Some("check_enable_rls") => {
                DbErrorKind::RowSecurity
            }
            Some(code) => of_state(code),
            None => DbErrorKind::Unclear,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => DbErrorKind::Unreachable,
        // An address stored elsewhere could not be read.
        sqlx::Error::Configuration(_) => DbErrorKind::Login,
        // A value or a type that the driver does not support.
        sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_) => DbErrorKind::Refused,
        _ => DbErrorKind::Unclear,
    }
}

fn refusal(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()
}

fn routine(error: &dyn sqlx::error::DatabaseError) -> Option<&str> {
    error.try_downcast_ref::<PgDatabaseError>()?.routine()
}

/// PostgreSQL's appendix A as a table. Only codes that data or a definition can cause are
/// [`DbErrorKind::Refused`] and count as a slice's failure. Unlisted codes never count.
fn of_state(code: &str) -> DbErrorKind {
    use DbErrorKind::{
        Cancelled, Contended, Denied, Login, Missing, Refused, Unclear, Unreachable,
    };
    match code {
        // Single codes that differ from their class.
        "25P03" => Contended, // this client was too slow, which says nothing about the server
        "25006" | "25P04" => Unreachable, // read-only, or it limits whole transactions
        "40002" => Refused,   // an integrity constraint, found at COMMIT
        "40003" => Unreachable, // it is unknown whether the statement was done
        "42501" => Denied,
        "42P01" | "42703" | "42883" | "42704" | "3F000" => Missing,
        "53400" => Refused, // a configured limit, as of its temporary files: other slices stay below it
        "55006" | "55P03" => Contended, // in use, or locked
        "57014" => Cancelled,
        "XX001" | "XX002" => Refused, // the rows or the index that this slice reads are corrupted
        _ => match code.get(..2).unwrap_or_default() {
            "08" => Unreachable, // the connection, or that of a foreign server
            "28" | "3D" => Login,
            "40" | "72" => Contended, // deadlock, serialisation failure; snapshot too old
            "53" => Unreachable,      // out of disk, memory or connections
            "57" => Unreachable,      // starting, stopping, ended by an operator
            "58" => Unreachable,      // an error of its disk or its files
            "F0" => Unreachable,      // its configuration file
            // A view's or a trigger's function, or the definition's own text.
            "09" | "0A" | "0Z" | "20" | "21" | "22" | "23" | "27" | "2D" | "2F" | "38" | "39"
            | "42" | "44" | "54" | "P0" => Refused,
            // The rest is 0F (locators) and 0L, 0P, 24, 25, 26, 2B, 34, 3B (session states that
            // Tallymark does not use), 55 (the state of an object), HV (a foreign server), XX (an
            // internal error), and codes of later versions.
            _ => Unclear,
        },
    }
}

/// The remedy of a server whose certificate does not prove who it is.
const UNVERIFIED: &str = "add ?sslrootcert=FILE to the address for a certificate authority of its \
    own, or ?sslmode=require for encryption without verification";

/// Whether the server's certificate does not prove who it is. The driver wraps TLS's own error.
fn is_unverified(error: &std::io::Error) -> bool {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// The remedy of a connection that was lost.
const AGAIN: &str = "run the command again once the server answers";

/// The remedy of an address that is stored elsewhere and cannot be used.
fn of_place(error: &sqlx::Error) -> Option<String> {
    let sqlx::Error::Configuration(error) = error else { return None };
    error.downcast_ref::<SecretError>()?.hint().map(Cow::into_owned)
}

/// The remedy of an error of this `kind`.
fn remedy(error: &sqlx::Error, kind: DbErrorKind) -> Option<&'static str> {
    match error {
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Some("start the server, or correct host and port of the address")
        }
        sqlx::Error::Io(error) if is_unverified(error) => Some(UNVERIFIED),
        sqlx::Error::Tls(error) if error.is::<rustls::Error>() => Some(UNVERIFIED),
        // The driver has no type for a server that refuses TLS, and no other error of this kind
        // that is not rustls's.
        sqlx::Error::Tls(_) => Some(
            "turn TLS on there, or add ?sslmode=disable to the address to send everything in the open",
        ),
        sqlx::Error::PoolTimedOut => {
            Some("if the server sleeps when idle, add ?connect_timeout=SECONDS to its address")
        }
        sqlx::Error::Configuration(_) => {
            Some("check its name in the configuration, and that this process may read it")
        }
        _ => match kind {
            DbErrorKind::Login => Some("correct user, password and database of the address"),
            DbErrorKind::Unreachable => Some(AGAIN),
            DbErrorKind::Contended => Some("run the command again"),
            DbErrorKind::Denied => Some("grant this role the right that it lacks"),
            _ => None,
        },
    }
}

/// The server's message, or the driver's.
fn text(error: &sqlx::Error) -> String {
    let said = match error.as_database_error() {
        Some(error) => cut(error.message()).into_owned(),
        None => match error {
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                format!("{error}; no server listens there")
            }
            sqlx::Error::Io(error) => error.to_string(),
            sqlx::Error::Tls(error) => error.to_string(),
            sqlx::Error::PoolTimedOut => "no answer in time".to_owned(),
            sqlx::Error::Configuration(error) => error.to_string(),
            error => error.to_string(),
        },
    };
    one_line(&said)
}

/// Cut first, as a message can quote a value of a gigabyte.
fn one_line(said: &str) -> String {
    cut(said).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_and_definitions_make_a_slice_fail() {
        use DbErrorKind::{Cancelled, Contended, Denied, Login, Missing, Refused, Unclear};
        for (kind, codes) in [
            (Refused, "0A000 20000 21000 22003 22P02 23502 23505 2F005 38000 42601 42P17 44000"),
            (Refused, "53400 54000 54001 P0001 P0003 P0004 XX001 XX002 40002 27000 09000"),
            (DbErrorKind::Unreachable, "08000 08006 08P01 25006 25P04 53000 53100 53200 53300"),
            (DbErrorKind::Unreachable, "57000 57P01 57P02 57P03 57P05 58000 58030 58P01 F0000"),
            (Login, "28000 28P01 3D000"),
            (Contended, "40000 40001 40P01 55006 55P03 25P03 72000"),
            (Cancelled, "57014"),
            (Denied, "42501"),
            (Missing, "42P01 42703 42883 42704 3F000"),
            (Unclear, "55000 55P02 25001 25P02 26000 HV000 HV00N XX000 99999 U0001 0 é"),
        ] {
            for code in codes.split(' ') {
                assert_eq!(of_state(code), kind, "{code}");
            }
        }
    }
}
