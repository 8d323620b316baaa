//! TLS to a server whose certificate was signed by an authority unknown to this machine.
//!
//! `0.0.0.0` reaches this machine too, but is no loopback address, so Tallymark treats it as
//! remote.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tallymark::clients::db::{Access, Db, DbError, DbErrorKind, Side};
use tallymark::embedded::postgres::{Binaries, EmbeddedPostgres};
use tallymark::model::hint::Hinted;

use crate::support::cli::{PASSWORD, Place, daily, execute, lines};
use crate::support::world::BUDGET;
use crate::support::{cache, options, server_directory};
use tallymark::clients::address::{Address, DatabaseUrl};

/// A server with TLS, and the certificate of the authority that signed the server's.
struct Secured {
    server: EmbeddedPostgres,
    directory: tempfile::TempDir,
}

impl Secured {
    /// The server's certificate is valid only for the name `0.0.0.0`.
    async fn start(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        certify(directory.path());
        let place = server_directory(name);
        let server = tokio::task::spawn_blocking(move || {
            EmbeddedPostgres::start(Binaries::find(&cache()).unwrap(), options(place)).unwrap()
        });
        let secured = Self { server: server.await.unwrap(), directory };
        secured.encrypt().await;
        secured
    }

    async fn encrypt(&self) {
        let data = self.server.log().parent().unwrap().join("data");
        let owner = fs::metadata(&data).unwrap();
        for name in ["server.crt", "server.key"] {
            let file = data.join(name);
            fs::copy(self.directory.path().join(name), &file).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let admin = self.server.url("postgres");
        execute(&admin, "ALTER SYSTEM SET ssl = on").await;
        execute(&admin, "SELECT pg_reload_conf()").await;
        // The server reads it later. Each of these is a new connection.
        for _ in 0..200 {
            if lines(&admin, "SELECT current_setting('ssl')").await == ["(on)"] {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{}", fs::read_to_string(self.server.log()).unwrap());
    }

    /// The address of a host with this name and these options.
    fn url(&self, user: &str, host: &str, options: &str) -> String {
        format!("postgres://{user}@{host}:{}/postgres{options}", self.server.port())
    }

    fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// Connects, and returns whether the connection is encrypted.
    async fn connect(&self, host: &str, options: &str) -> Result<bool, DbError> {
        let user = format!("tallymark:{PASSWORD}");
        connect(&self.url(&user, host, options)).await
    }
}

async fn connect(url: &str) -> Result<bool, DbError> {
    let address = Address::Url(DatabaseUrl::new(url).unwrap());
    let db = Db::new(&address, Side::Source, 1)?;
    let mut tx = db.begin(Access::ReadOnly, BUDGET, "test").await?;
    let asked = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row = tx.row("asking", asked.to_owned()).await?;
    tx.commit().await?;
    Ok(sqlx::Row::get(&row, 0))
}

/// Whether certificates can be made, with a message if not. `.ci/run` installs openssl where
/// possible.
pub(crate) fn has_openssl() -> bool {
    let found = Command::new("openssl").arg("version").output().is_ok();
    if !found {
        println!("there is no openssl: not tested");
    }
    found
}

/// An authority, and a server's certificate signed by it.
pub(crate) fn certify(directory: &Path) {
    fs::write(directory.join("server.ext"), "subjectAltName = IP:0.0.0.0").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for arguments in [
        format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.crt"),
        format!("req {key} -subj /CN=server -keyout server.key -out server.csr"),
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -set_serial 1 -days 2 \
         -extfile server.ext -out server.crt"
            .to_owned(),
    ] {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.split_whitespace()).current_dir(directory);
        let made = openssl.output().expect("the program openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

fn refused(answer: Result<bool, DbError>, words: &[&str]) {
    let error = answer.expect_err("a refusal");
    let said = error.in_one_line();
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert!(!said.contains(PASSWORD) && said.lines().count() == 1, "{said}");
    assert_eq!(error.kind(), DbErrorKind::Unreachable, "{said}");
}

/// Certificate and name are verified, unless the address explicitly sets otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_remote_server_is_verified_unless_its_address_says_otherwise() {
    if !has_openssl() {
        return;
    }
    let secured = Secured::start("tls").await;
    let authority = secured.authority().display().to_string();
    let remedies = ["certificate", "sslrootcert=", "sslmode=require"];

    refused(secured.connect("0.0.0.0", "").await, &remedies);
    refused(secured.connect("0.0.0.0", "?sslmode=verify-full").await, &remedies);
    refused(secured.connect("127.0.0.1", "?sslmode=verify-full").await, &remedies);
    // Words in other places have no effect.
    let odd =
        secured.url("tallymark:sslmode=prefer", "0.0.0.0", "?application_name=sslmode=disable");
    refused(connect(&odd).await, &remedies);

    let trusted = format!("?sslrootcert={authority}");
    assert!(secured.connect("0.0.0.0", &trusted).await.unwrap());
    // The authority is known, but the certificate belongs to another host.
    let other = format!("?sslrootcert={authority}&sslmode=verify-full");
    refused(secured.connect("127.0.0.1", &other).await, &remedies);
    assert!(secured.connect("127.0.0.1", &other.replace("full", "ca")).await.unwrap());

    assert!(secured.connect("0.0.0.0", "?sslmode=require").await.unwrap());
    assert!(!secured.connect("0.0.0.0", "?sslmode=disable").await.unwrap());
    assert!(
        secured.connect("127.0.0.1", "").await.unwrap(),
        "where the server has it, for nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_server_without_tls_is_refused_unless_its_address_says_otherwise() {
    let port = crate::support::postgres().port();
    let url = format!("postgres://tallymark:{PASSWORD}@0.0.0.0:{port}/postgres");
    refused(connect(&url).await, &["TLS", "sslmode=disable"]);
    assert!(!connect(&format!("{url}?sslmode=disable")).await.unwrap());
}

/// `check_tells_of_a_connection_that_is_not_encrypted` covers unencrypted connections.
#[tokio::test(flavor = "multi_thread")]
async fn check_tells_whether_a_server_can_be_verified() {
    if !has_openssl() {
        return;
    }
    let secured = Secured::start("tls-check").await;
    let admin = secured.server.url("postgres");
    let mut place = Place::new(&admin, &admin, &daily(1)).await;
    place.seed(1).await;
    place.run(&["init"]).good();
    let authority = format!("?sslrootcert={}", secured.authority().display());
    for (options, code, words) in [
        (&*authority, 0, "the connection is encrypted"),
        ("", 3, "sslrootcert=FILE"),
        ("?sslmode=disable", 0, "not encrypted, but on this machine"),
    ] {
        let url = secured.url(&format!("tallymark:{PASSWORD}"), "0.0.0.0", options);
        (place.source_url, place.target_url) = (url.clone(), url);
        let check = place.run(&["check"]);
        let said = format!("{}{}", check.out, check.err);
        assert!(said.contains(words), "{options}: {said}");
        assert_eq!(check.code, Some(code), "{options}: {said}");
    }
}
