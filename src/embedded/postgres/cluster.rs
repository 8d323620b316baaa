//! The directory of a server: its cluster, log and lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::fetch::wait_for_lock;
use super::process::run;
use super::user::User;
use super::{Binaries, Error, Options, SUPERUSER};

/// Time limit of `initdb`.
const CREATE: Duration = Duration::from_secs(120);

/// How long to wait for a previous server to end, as its owner may just have been killed.
const PREDECESSOR: Duration = Duration::from_secs(15);

/// The directory of one server, and its owner.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    directory: PathBuf,
    user: User,
}

impl Cluster {
    /// Creates or finds the directory, at a place that the server's user can reach.
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        let wanted = std::path::absolute(&options.directory)
            .map_err(Error::io("find", &options.directory))?;
        let user = User::of_cluster(&wanted.join("data"))?;
        let directory = user.own_directory(&wanted)?;
        let mut entries = fs::read_dir(&directory).map_err(Error::io("read", &directory))?;
        if options.throwaway && entries.next().is_some() {
            return Err(Error::NotEmpty { directory });
        }
        Ok(Self { directory, user })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) const fn user(&self) -> User {
        self.user
    }

    /// PostgreSQL's data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// Locks the directory for as long as the file, or a copy of it, is open in any process.
    pub(super) fn lock(&self) -> Result<File, Error> {
        let path = self.directory.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        if wait_for_lock(&file, PREDECESSOR).map_err(Error::io("lock", &path))? {
            Ok(file)
        } else {
            Err(Error::InUse { directory: self.directory.clone() })
        }
    }

    /// Creates the cluster unless it exists. `initdb` inherits the lock, as it may outlive this
    /// process.
    ///
    /// A lasting cluster requires a password, or every user of this machine would be its superuser.
    /// A throwaway cluster holds only tests.
    pub(super) fn create(
        &self,
        binaries: &Binaries,
        lock: &File,
        throwaway: bool,
    ) -> Result<(), Error> {
        let version = self.data().join("PG_VERSION");
        match fs::read_to_string(&version) {
            Ok(theirs) if theirs.trim() == binaries.major().to_string() => return Ok(()),
            Ok(theirs) => {
                return Err(Error::OtherVersion {
                    directory: self.directory.clone(),
                    theirs: theirs.trim().to_owned(),
                    ours: binaries.major(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", version)(error)),
        }
        // Renamed once complete, as an interrupted cluster would never start.
        let unfinished = self.directory.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(Error::io("remove", &unfinished))?;
        }
        let lock = lock.try_clone().map_err(Error::io("share", &self.directory))?;
        let mut initdb = self.user.command(binaries.bin().join("initdb"));
        initdb.arg("-D").arg(&unfinished).arg("-U").arg(SUPERUSER);
        initdb.args(["--encoding=UTF8", "--locale=C", "--no-sync"]);
        if throwaway {
            initdb.arg("--auth=trust");
        } else {
            initdb.arg("--auth=scram-sha-256").arg("--pwfile").arg(self.write_password()?);
        }
        clean_environment(&mut initdb);
        run(initdb.stdin(lock), CREATE).map_err(Error::Program)?;
        fs::rename(&unfinished, self.data()).map_err(Error::io("create", self.data()))
    }

    /// The file with the superuser's password.
    fn password_file(&self) -> PathBuf {
        self.directory.join("password")
    }

    /// The superuser's password. `None`: the cluster has none.
    pub(super) fn password(&self) -> Option<String> {
        let text = fs::read_to_string(self.password_file()).ok()?;
        Some(text.trim().to_owned())
    }

    /// Generates a password, in a file that only the server's user can read.
    fn write_password(&self) -> Result<PathBuf, Error> {
        let path = self.password_file();
        let mut bytes = [0_u8; 16];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut bytes))
            .map_err(Error::io("read", "/dev/urandom"))?;
        let password: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = fs::remove_file(&path);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{password}"))
            .map_err(Error::io("write", &path))?;
        self.user.own(&path)?;
        Ok(path)
    }

    /// Removes the remains of a killed server. This process holds the lock, so it is the only
    /// owner. PostgreSQL itself could only guess from a process number that another process may use
    /// by now.
    pub(super) fn forget_dead_server(&self) -> Result<(), Error> {
        let path = self.data().join("postmaster.pid");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Whether the server accepts connections, as the eighth line of this file says.
    pub(super) fn is_ready(&self) -> bool {
        let state = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        state.lines().nth(7).is_some_and(|line| line.trim() == "ready")
    }
}

/// Removes variables that would make the server differ from machine to machine.
pub(super) fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    // PostgreSQL takes the time zone and the language of its messages from these.
    command.env("LC_ALL", "C").env("TZ", "UTC");
}
