//! The user that PostgreSQL runs as, because its programs refuse to run as root.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{self as unix_fs, DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::Error;
use super::process::{QUESTION, run};

/// Where root puts files for another user who cannot enter the wanted place.
const REACHABLE: &str = "/var/tmp";

/// The user that the server's programs run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// This process's own user.
    Own,
    /// This process is root and becomes this user and group.
    Other { uid: u32, gid: u32 },
}

impl User {
    /// This process's user. For root it is the user `postgres`, or else the user `nobody`.
    pub(super) fn find() -> Result<Self, Error> {
        if !is_root()? {
            return Ok(Self::Own);
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(Error::io("read", "/etc/passwd"))?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| numbers_of(&passwd, name))
            .map(|(uid, gid)| Self::Other { uid, gid })
            .ok_or(Error::NoUser)
    }

    /// As [`User::find`], but root runs an existing cluster as its owner.
    pub(super) fn of_cluster(data: &Path) -> Result<Self, Error> {
        match (Self::find()?, fs::metadata(data)) {
            (Self::Other { .. }, Ok(found)) if found.uid() != 0 => {
                Ok(Self::Other { uid: found.uid(), gid: found.gid() })
            }
            (user, _) => Ok(user),
        }
    }

    /// Makes this user the owner of `path`.
    pub(super) fn own(self, path: &Path) -> Result<(), Error> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => chown(path, uid, gid),
        }
    }

    /// A command that runs as this user, in a directory that every user can enter.
    pub(super) fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Whether this user can enter `directory`, found out by trying.
    pub(super) fn can_enter(self, directory: &Path) -> bool {
        let mut command = self.command("sh");
        command.args(["-c", r#"cd -- "$1""#, "sh"]).arg(directory);
        run(&mut command, QUESTION).is_ok()
    }

    /// A directory at `wanted` which this user owns and can enter. Where the user cannot reach
    /// `wanted` (a clone below `/root`), the directory lies elsewhere and `wanted` is a link to it.
    pub(super) fn own_directory(self, wanted: &Path) -> Result<PathBuf, Error> {
        if wanted.is_symlink() && !wanted.exists() {
            // The link's target was cleaned up, as is usual in /var/tmp.
            fs::remove_file(wanted).map_err(Error::io("remove the dangling link", wanted))?;
        }
        create_private(wanted)?;
        let real = fs::canonicalize(wanted).map_err(Error::io("find", wanted))?;
        let Self::Other { uid, gid } = self else { return Ok(real) };
        chown(&real, uid, gid)?;
        if self.can_enter(&real) {
            return Ok(real);
        }
        fs::remove_dir(&real).map_err(Error::io("move the unreachable directory", &real))?;
        let reachable = elsewhere(&real);
        create_private(&reachable)?;
        refuse_foreign(&reachable, &[0, uid])?;
        chown(&reachable, uid, gid)?;
        unix_fs::symlink(&reachable, wanted).map_err(Error::io("link", wanted))?;
        Ok(reachable)
    }

    /// A directory which this process owns and this user can read. It is `wanted` if possible.
    pub(super) fn readable_directory(self, wanted: &Path) -> Result<PathBuf, Error> {
        fs::create_dir_all(wanted).map_err(Error::io("create", wanted))?;
        let real = fs::canonicalize(wanted).map_err(Error::io("find", wanted))?;
        if self == Self::Own || self.can_enter(&real) {
            return Ok(real);
        }
        let reachable = elsewhere(&real);
        create_private(&reachable)?;
        refuse_foreign(&reachable, &[0])?;
        fs::set_permissions(&reachable, fs::Permissions::from_mode(0o755))
            .map_err(Error::io("open", &reachable))?;
        Ok(reachable)
    }
}

/// Whether this process runs as root.
fn is_root() -> Result<bool, Error> {
    let uid = run(Command::new("id").arg("-u"), QUESTION).map_err(Error::Program)?;
    Ok(uid.trim() == "0")
}

/// The user and group number of `name` in the text of /etc/passwd.
fn numbers_of(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields = passwd
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    (uid != 0).then_some((uid, gid))
}

/// The directory that replaces `path`, the same on every run.
fn elsewhere(path: &Path) -> PathBuf {
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let name: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Path::new(REACHABLE).join(format!("tallymark-{name}"))
}

/// Creates `directory`, closed to all other users, unless it exists.
fn create_private(directory: &Path) -> Result<(), Error> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::io("create", directory)(error))
        }
        _ => Ok(()),
    }
}

/// Every user may create directories in /var/tmp, so one with a foreign owner is refused.
fn refuse_foreign(directory: &Path, owners: &[u32]) -> Result<(), Error> {
    let found = fs::symlink_metadata(directory).map_err(Error::io("look at", directory))?;
    if found.is_dir() && owners.contains(&found.uid()) {
        Ok(())
    } else {
        Err(Error::Foreign { directory: directory.to_owned(), uid: found.uid() })
    }
}

fn chown(path: &Path, uid: u32, gid: u32) -> Result<(), Error> {
    unix_fs::chown(path, Some(uid), Some(gid)).map_err(Error::io("change the owner of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        postgres-old:x:7:7::/:/bin/false\n\
        postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        assert_eq!(numbers_of(PASSWD, "postgres"), Some((101, 104)));
        assert_eq!(numbers_of(PASSWD, "nobody"), None);
    }

    #[test]
    fn root_under_another_name_is_no_help() {
        assert_eq!(numbers_of("postgres:x:0:0::/:/bin/sh", "postgres"), None);
    }

    /// As root, who may give directories away, the cluster moves. Otherwise it stays.
    #[test]
    fn a_directory_that_the_user_cannot_reach_is_replaced_by_a_link() {
        let closed = tempfile::tempdir().unwrap();
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let wanted = closed.path().join("cluster");
        let user = User::find().unwrap();
        let real = user.own_directory(&wanted).unwrap();
        assert!(user.can_enter(&real));
        assert_eq!(fs::canonicalize(&wanted).unwrap(), real);
        assert_eq!(wanted.is_symlink(), user != User::Own);
        assert_eq!(user.own_directory(&wanted).unwrap(), real, "the second run finds the first's");
        fs::remove_dir(&real).unwrap();
        assert!(user.can_enter(&user.own_directory(&wanted).unwrap()), "also after a clean-up");
        fs::remove_dir_all(&real).unwrap();
    }
}
