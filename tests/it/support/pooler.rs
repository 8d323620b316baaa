//! A real PgBouncer that pools transactions, for one test or, on request, between all workers and
//! the tests' server.

use std::env;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use tallymark::embedded::postgres::EmbeddedPostgres;

use super::started;

/// Where Debian and other systems install it.
const PLACES: [&str; 3] =
    ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];

/// Ends when its standard input is closed.
const WATCHED: &str = "\"$0\" \"$1\" & cat > /dev/null; kill $!";

/// With this variable, workers reach the tests' server through a pooler.
const ASKED: &str = "TALLYMARK_TEST_POOLER";

/// A running PgBouncer.
#[derive(Debug)]
pub struct PgBouncer {
    child: Child,
    pub port: u16,
    _directory: tempfile::TempDir,
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl PgBouncer {
    /// Starts one with this many backends for each database and role. `None`: it is not installed.
    pub fn start(upstream: u16, backends: u32) -> Option<Self> {
        let program = PLACES.into_iter().find(|place| Path::new(place).exists())?;
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (config, users) = (directory.path().join("ini"), directory.path().join("users"));
        std::fs::write(&users, "\"tallymark\" \"\"\n").unwrap();
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={upstream} auth_user=tallymark\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n\
             auth_file = {}\nauth_query = SELECT rolname, '' FROM pg_roles WHERE rolname = $1\n\
             pool_mode = transaction\ndefault_pool_size = {backends}\nmax_client_conn = 1000\n\
             server_idle_timeout = 1\n",
            users.display(),
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", WATCHED, program]).arg(&config);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
            // It refuses to run as root. 65534 is the user `nobody`.
            for path in [directory.path(), &config, &users] {
                chown(path, Some(65534), Some(65534)).unwrap();
            }
            command.uid(65534).gid(65534);
        }
        let child = command.spawn().unwrap();
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        Some(Self { child, port, _directory: directory })
    }
}

/// `url` for a worker: through a pooler, if requested, and with more patience than the default, if
/// it is on the tests' server. A machine that stood still for some seconds must not look like a
/// server out of reach.
pub fn pooled(url: &str) -> String {
    static SHARED: OnceLock<PgBouncer> = OnceLock::new();
    let Some(port) = started().map(EmbeddedPostgres::port) else { return url.to_owned() };
    let direct = format!("127.0.0.1:{port}/");
    if !url.contains(&direct) {
        return url.to_owned();
    }
    let start = || PgBouncer::start(port, 20).expect("PgBouncer");
    let url = match env::var_os(ASKED) {
        Some(_) => url.replace(&direct, &format!("127.0.0.1:{}/", SHARED.get_or_init(start).port)),
        None => url.to_owned(),
    };
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}connect_timeout=60")
}
