//! A real PostgreSQL server for `tallymark demo` and the tests.
//!
//! [`Binaries`] finds or fetches the programs. [`EmbeddedPostgres`] runs them on a free port of
//! 127.0.0.1, as another user if this process is root, and no longer than its owner lives
//! (`watchdog.sh`). For Unix systems only.

mod binaries;
mod cluster;
mod error;
mod fetch;
mod process;
mod user;

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

pub use self::binaries::Binaries;
use self::cluster::Cluster;
pub use self::error::Error;
pub use self::fetch::Package;
use self::process::{POLL, last_lines, wait};
use crate::model::clock::Stopwatch;

/// The superuser of every embedded cluster.
const SUPERUSER: &str = "tallymark";

/// Time limit for a server to accept connections.
const START: Duration = Duration::from_secs(30);

/// Time limit for a server to stop. The watchdog kills it after 10 s.
const STOP: Duration = Duration::from_secs(15);

/// Number of ports tried, as another process may take a free port first.
const PORTS: usize = 5;

const WATCHDOG: &str = include_str!("watchdog.sh");

/// Options of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the cluster, its log and its lock. Created if absent, reused if present.
    pub directory: PathBuf,
    /// The maximum number of connections.
    pub max_connections: u16,
    /// The server's cache, in MB.
    pub shared_buffers_mb: u32,
    /// Whether a commit survives a crash of the machine.
    pub durable: bool,
    /// Whether the directory is deleted when the server stops. It must be empty or absent at the
    /// start.
    pub throwaway: bool,
}

/// A running server. It stops when this is dropped, and also when this process dies.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    watchdog: Child,
    cluster: Cluster,
    options: Options,
    binaries: Binaries,
    port: u16,
}

impl EmbeddedPostgres {
    /// Starts a server and waits until it accepts connections. Blocks for about a second, and at
    /// most as long as the constants in this module allow.
    ///
    /// # Errors
    /// Another server uses the directory, it belongs to another version of PostgreSQL, it is
    /// unusable, or the server does not start. The error shows the end of its log.
    pub fn start(binaries: Binaries, options: Options) -> Result<Self, Error> {
        let cluster = Cluster::open(&options)?;
        // The server and its watchdog hold the lock from here on, so that it is free when both have
        // ended.
        let lock = cluster.lock()?;
        cluster.create(&binaries, &lock, options.throwaway)?;
        for _ in 1..PORTS {
            match Self::start_on(free_port()?, &binaries, &options, &cluster, &lock) {
                Err(Error::PortTaken) => {}
                other => return other,
            }
        }
        Self::start_on(free_port()?, &binaries, &options, &cluster, &lock)
    }

    fn start_on(
        port: u16,
        binaries: &Binaries,
        options: &Options,
        cluster: &Cluster,
        lock: &File,
    ) -> Result<Self, Error> {
        cluster.forget_dead_server()?;
        let lock = lock.try_clone().map_err(Error::io("share", cluster.directory()))?;
        let mut command = cluster.user().command("sh");
        command.args(["-c", WATCHDOG, "tallymark-postgres"]).arg(cluster.log());
        // A fast shutdown first writes everything to disk, which a throwaway does not need.
        command.arg(if options.throwaway { "QUIT" } else { "INT" });
        command.arg(if options.throwaway { cluster.directory() } else { Path::new("") });
        command.arg(binaries.bin().join("postgres")).arg("-D").arg(cluster.data());
        for (name, value) in settings(port, options) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        cluster::clean_environment(&mut command);
        // Its own process group, because Ctrl-C in the terminal must not stop the server before
        // this process.
        command.stdin(Stdio::piped()).stdout(lock).stderr(Stdio::null()).process_group(0);
        let watchdog = command.spawn().map_err(Error::io("run", "sh"))?;
        let mut server = Self {
            watchdog,
            cluster: cluster.clone(),
            options: options.clone(),
            binaries: binaries.clone(),
            port,
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<(), Error> {
        let waiting = Stopwatch::start();
        while !self.cluster.is_ready() {
            let ended = self.watchdog.try_wait().map_err(Error::io("wait for", "sh"))?;
            if ended.is_none() && waiting.elapsed() < START {
                thread::sleep(POLL);
                continue;
            }
            let log = fs::read_to_string(self.cluster.log()).unwrap_or_default();
            if log.contains("could not create any TCP/IP sockets") {
                // The next attempt needs the directory.
                self.options.throwaway = false;
                return Err(Error::PortTaken);
            }
            let what = match ended {
                Some(_) => "the server ended".to_owned(),
                None => format!("the server was not ready within {} s", START.as_secs()),
            };
            return Err(Error::Start { what, log: last_lines(&log) });
        }
        Ok(())
    }

    /// The URL of `database` for the superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let password = self.cluster.password().map_or_else(String::new, |text| format!(":{text}"));
        format!("postgres://{SUPERUSER}{password}@127.0.0.1:{}/{database}", self.port)
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn bin(&self) -> &Path {
        self.binaries.bin()
    }

    #[must_use]
    pub const fn major(&self) -> u16 {
        self.binaries.major()
    }

    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.cluster.log()
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        // The end of its standard input tells the watchdog to stop the server.
        drop(self.watchdog.stdin.take());
        if !matches!(wait(&mut self.watchdog, STOP), Ok(Some(_))) {
            let _ = self.watchdog.kill();
            let _ = self.watchdog.wait();
        }
        if self.options.throwaway {
            // The watchdog runs as another user than root and can only empty it.
            let _ = fs::remove_dir_all(self.cluster.directory());
            if self.options.directory.is_symlink() {
                let _ = fs::remove_file(&self.options.directory);
            }
        }
    }
}

/// The settings of a server on `port`.
fn settings(port: u16, options: &Options) -> Vec<(&'static str, String)> {
    let durable = if options.durable { "on" } else { "off" };
    // Each database gets a worker once in this time, and a server for tests has hundreds that nobody uses any more.
    let naptime = if options.throwaway { "1h" } else { "1min" };
    vec![
        ("port", port.to_string()),
        ("listen_addresses", "127.0.0.1".to_owned()),
        // The path of a socket has a length limit, and TCP is enough here.
        ("unix_socket_directories", String::new()),
        ("max_connections", options.max_connections.to_string()),
        // Sources of applications with two-phase commits have this set.
        ("max_prepared_transactions", "8".to_owned()),
        ("shared_buffers", format!("{}MB", options.shared_buffers_mb)),
        ("fsync", durable.to_owned()),
        ("synchronous_commit", durable.to_owned()),
        ("full_page_writes", durable.to_owned()),
        ("autovacuum_naptime", naptime.to_owned()),
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
    ]
}

/// A port that is free at the moment.
fn free_port() -> Result<u16, Error> {
    let listener =
        TcpListener::bind(("127.0.0.1", 0)).map_err(Error::io("listen on", "127.0.0.1"))?;
    Ok(listener.local_addr().map_err(Error::io("listen on", "127.0.0.1"))?.port())
}
