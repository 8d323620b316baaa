//! Behind a transaction pooler every transaction may get another backend: a real PgBouncer with
//! fewer backends than slices at once, which takes away whatever a session would have kept.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::support::world::{EVENTS, Setup, Urls, World, random_events};
use super::support::{Database, postgres};

struct PgBouncer {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where Debian and others install it.
const PLACES: [&str; 3] =
    ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];

/// Starts one that pools transactions, or `None` where it is not installed.
async fn pgbouncer() -> Option<PgBouncer> {
    let program = PLACES.into_iter().find(|place| Path::new(place).exists())?;
    let directory = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (config, users) = (directory.path().join("ini"), directory.path().join("users"));
    std::fs::write(&users, "\"tallymark\" \"\"\n").unwrap();
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = any\nauth_file = {}\n\
         pool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 100\n",
        postgres().port(),
        users.display(),
    );
    // With auth_type = any the user of the server must be named.
    let text = text.replace("port=", "user=tallymark port=");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(program);
    command.arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0 {
        // It refuses to run as root. 65534 is nobody.
        for path in [directory.path(), &config, &users] {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        }
        command.uid(65534).gid(65534);
    }
    let child = command.spawn().unwrap();
    for _ in 0..100 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Some(PgBouncer { child, port, _directory: directory })
}

/// Backfills four slices at once through two backends, within one database and across two; the result is right, and so is a replay after a change.
#[tokio::test]
async fn a_transaction_pooler_is_no_hindrance() {
    let Some(pooler) = pgbouncer().await else {
        eprintln!("skipped: PgBouncer is not installed (apt-get install pgbouncer)");
        return;
    };
    let through = |database: &Database| {
        let direct = format!("127.0.0.1:{}/", postgres().port());
        database.url().replace(&direct, &format!("127.0.0.1:{}/", pooler.port))
    };
    for across in [false, true] {
        let (source_db, target_db) = (Database::create().await, Database::create().await);
        let target = across.then(|| through(&target_db));
        let urls = Urls { source: through(&source_db), target };
        let world = World::at(urls, Setup::default()).await;
        let direct = source_db.pool().await;
        let sql = format!("{EVENTS}; {}", random_events(12, 5_000));
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&direct).await.unwrap();
        world.init().await.unwrap();
        assert_eq!(world.backfill("2026-01-13", false).await.succeeded, 12);
        world.assert_verified("2026-01-13").await;
        let change = "UPDATE events SET amount = amount + 1 WHERE user_id = 7";
        sqlx::query(change).execute(&direct).await.unwrap();
        world.backfill("2026-01-13", true).await;
        world.assert_verified("2026-01-13").await;
    }
}
