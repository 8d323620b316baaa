//! Shared by the integration tests: one PostgreSQL server, and a fresh database for each test.

pub mod cli;
#[cfg(feature = "lambda")]
pub mod fixture;
pub mod http;
#[cfg(feature = "lambda")]
pub mod invoke;
#[cfg(feature = "lambda")]
pub mod kept;
pub mod kinds;
pub mod listening;
pub mod polls;
pub mod pooler;
pub mod proxy;
#[cfg(feature = "lambda")]
pub mod runtime_api;
pub mod serving;
pub mod share;
#[cfg(feature = "lambda")]
pub mod sqs;
pub mod told;
pub mod world;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::sync::OnceLock;
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tallymark::embedded::postgres::{Binaries, EmbeddedPostgres, Options};
use tallymark::model::clock::Stopwatch;

/// The longest wait for what another task or process brings about. No machine stands still for so long.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Looks again and again, until there is what `look` looks for.
///
/// # Panics
///
/// After [`WAIT_MAX`]. The message says `what` it waited for.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(watch.elapsed() < WAIT_MAX, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Programs that were fetched stay here for the next run.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")
}

/// A new directory for a server that this process starts.
pub fn server_directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("server-{}-{name}", id()))
}

/// The options of the tests' servers: many connections, and nothing that outlasts them.
pub fn options(directory: PathBuf) -> Options {
    Options {
        directory,
        max_connections: 400,
        shared_buffers_mb: 128,
        durable: false,
        throwaway: true,
    }
}

static SERVER: OnceLock<EmbeddedPostgres> = OnceLock::new();

/// The server that all tests of this process share, if a test has requested it.
pub fn started() -> Option<&'static EmbeddedPostgres> {
    SERVER.get()
}

/// The server that all tests of this process share. It stops when the process ends.
pub fn postgres() -> &'static EmbeddedPostgres {
    SERVER.get_or_init(|| {
        remove_leftovers(Path::new(env!("CARGO_TARGET_TMPDIR")));
        let binaries = Binaries::find(&cache()).expect("PostgreSQL's programs");
        EmbeddedPostgres::start(binaries, options(server_directory("shared")))
            .expect("the shared server")
    })
}

/// Removes the directories of servers whose process is gone. Their watchdogs did so already, but as
/// another user than root they cannot remove the directory itself.
fn remove_leftovers(parent: &Path) {
    let alive = |process: &str| {
        let status = Command::new("sh").args(["-c", "kill -0 \"$1\" 2>&-", "sh", process]).status();
        status.is_ok_and(|status| status.success())
    };
    for entry in fs::read_dir(parent).expect("the tests' directory").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("server-").and_then(|rest| rest.split('-').next());
        let stopping =
            File::open(entry.path().join("lock")).is_ok_and(|lock| lock.try_lock().is_err());
        if process.is_some_and(|process| !alive(process)) && !stopping {
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }
}

/// A separate database for one test, on the shared server.
#[derive(Debug)]
pub struct Database {
    name: String,
}

impl Database {
    /// Creates an empty database with a random name.
    pub async fn create() -> Self {
        // The first caller starts the server, which blocks.
        let server = tokio::task::spawn_blocking(postgres).await.expect("the shared server");
        let name = format!("test_{:016x}", fastrand::u64(..));
        let mut admin = PgConnection::connect(&server.url("postgres")).await.expect("a connection");
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut admin)
            .await
            .expect("a database");
        admin.close().await.expect("a clean end");
        Self { name }
    }

    /// The database's URL for the superuser.
    pub fn url(&self) -> String {
        postgres().url(&self.name)
    }

    /// The database's URL for another role.
    pub fn url_of(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{}", postgres().port(), self.name)
    }

    /// A connection as the superuser.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.expect("a connection")
    }

    /// A small pool of connections as the superuser.
    pub async fn pool(&self) -> PgPool {
        let options = PgPoolOptions::new().max_connections(8);
        options.connect(&self.url()).await.expect("a connection")
    }
}
