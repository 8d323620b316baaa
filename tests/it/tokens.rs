//! Logins by tokens in place of a password, to a server that checks them as RDS does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use chrono::{NaiveDateTime, TimeDelta};
use sha2::{Digest as _, Sha256};
use tallymark::model::clock::{Clock as _, SystemClock};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::cli::{Ended, Place, daily, ended};
use crate::tls::{certify, has_openssl};

const KEY_ID: &str = "AKIDEXAMPLE";
const KEY: &str = "pl4nted-s3cret-key";
const REGION: &str = "eu-central-1";

/// A server with TLS in front of PostgreSQL, which takes only tokens as passwords.
struct TokenServer {
    address: SocketAddr,
    /// Whether each login's token was right.
    logins: Arc<Mutex<Vec<bool>>>,
    directory: tempfile::TempDir,
}

impl TokenServer {
    async fn start(behind: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        certify(directory.path());
        let acceptor = acceptor(directory.path());
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let logins = Arc::<Mutex<Vec<bool>>>::default();
        let seen = Arc::clone(&logins);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(session(client, acceptor, address, behind, seen));
            }
        });
        Self { address, logins, directory }
    }

    /// The number of logins since the last call, which all had tokens that were `right`.
    fn logins(&self, right: bool) -> usize {
        let logins = std::mem::take(&mut *self.logins.lock().unwrap());
        assert!(logins.iter().all(|it| *it == right), "{logins:?}");
        logins.len()
    }

    /// The same database by this server, without a password.
    fn url(&self, url: &str) -> String {
        let (before, rest) = url.split_once("://").unwrap();
        let (user, rest) = rest.split_once('@').unwrap();
        let (user, database) = (user.split(':').next().unwrap(), rest.split_once('/').unwrap().1);
        let authority = self.directory.path().join("ca.crt");
        format!("{before}://{user}@{}/{database}?sslrootcert={}", self.address, authority.display())
    }
}

fn acceptor(directory: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(directory.join("server.crt")).unwrap();
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

/// One connection: TLS, the token in clear text, and then PostgreSQL, which trusts this machine.
async fn session(
    mut client: TcpStream,
    acceptor: TlsAcceptor,
    own: SocketAddr,
    behind: u16,
    logins: Arc<Mutex<Vec<bool>>>,
) -> Option<()> {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let mut request = [0; 8];
    client.read_exact(&mut request).await.ok()?;
    assert_eq!(request, SSL_REQUEST, "no password without TLS");
    client.write_all(b"S").await.ok()?;
    let mut client = acceptor.accept(client).await.ok()?;
    let startup = message(&mut client).await?;
    let texts = startup[8..].split(|byte| *byte == 0).map(|it| std::str::from_utf8(it).unwrap());
    let texts: Vec<&str> = texts.collect();
    let user = texts.iter().position(|it| *it == "user").map(|place| texts[place + 1])?;
    // AuthenticationCleartextPassword.
    client.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await.ok()?;
    assert_eq!(client.read_u8().await.ok()?, b'p');
    let password = message(&mut client).await?;
    let token = std::str::from_utf8(&password[4..password.len() - 1]).unwrap();
    let is_right = is_right(token, &own.to_string(), user);
    logins.lock().unwrap().push(is_right);
    if !is_right {
        let fields = b"SFATAL\0VFATAL\0C28000\0MPAM authentication failed\0\0";
        let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        client.write_all(&[&b"E"[..], &length[..], &fields[..]].concat()).await.ok()?;
        client.shutdown().await.ok()?;
        return None;
    }
    let mut server = TcpStream::connect(("127.0.0.1", behind)).await.ok()?;
    server.write_all(&startup).await.ok()?;
    copy_bidirectional(&mut client, &mut server).await.ok().map(drop)
}

/// The length of a message and its body.
async fn message(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = stream.read_u32().await.ok()?;
    let mut message = length.to_be_bytes().to_vec();
    message.resize(length.try_into().unwrap(), 0);
    stream.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}

/// Whether a token is signed for this server and user, by the key, within the last 15 minutes:
/// computed anew from Amazon's description of the signature.
fn is_right(token: &str, server: &str, user: &str) -> bool {
    let Some((host, query)) = token.split_once("/?") else { return false };
    let mut fields: BTreeMap<&str, &str> =
        query.split('&').map(|field| field.split_once('=').unwrap()).collect();
    let Some(signature) = fields.remove("X-Amz-Signature") else { return false };
    let time = fields["X-Amz-Date"];
    let signed_at = NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%SZ").unwrap().and_utc();
    let age = SystemClock.now() - signed_at;
    let scope = format!("{}/{REGION}/rds-db/aws4_request", &time[..8]);
    let credential = format!("{KEY_ID}/{scope}").replace('/', "%2F");
    let canonical: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let empty = hex(&Sha256::digest(b""));
    let request = format!("GET\n/\n{}\nhost:{server}\n\nhost\n{empty}", canonical.join("&"));
    let request = hex(&Sha256::digest(request.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{request}");
    let mut key = format!("AWS4{KEY}").into_bytes();
    for part in [&time[..8], REGION, "rds-db", "aws4_request", text.as_str()] {
        key = hmac(&key, part.as_bytes());
    }
    host == server
        && fields["Action"] == "connect"
        && fields["DBUser"] == user
        && fields["X-Amz-Expires"] == "900"
        && fields["X-Amz-Credential"] == credential
        && (TimeDelta::minutes(-5)..TimeDelta::minutes(15)).contains(&age)
        && signature == hex(&key)
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    // Every key here is shorter than a block.
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::digest([&padded(0x36)[..], data].concat());
    Sha256::digest([&padded(0x5c)[..], inner.as_slice()].concat()).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(place: &Place, server: &TokenServer, key: Option<&str>, arguments: &[&str]) -> Ended {
    let mut command = place.command(arguments);
    command
        .env("SOURCE_DATABASE_URL", server.url(&place.source_url))
        .env("AWS_REGION", REGION)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", server.directory.path())
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY");
    if let Some(key) = key {
        command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", key);
    }
    let ended = ended(&mut command);
    assert!(!ended.words().contains(KEY) && !ended.words().contains("X-Amz"), "{ended:?}");
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_tokens_needs_no_password() {
    if !has_openssl() {
        return;
    }
    let (place, database) = Place::with_events(3).await;
    let url = database.url();
    let port = url.rsplit_once(':').unwrap().1.split('/').next().unwrap();
    let server = TokenServer::start(port.parse().unwrap()).await;
    let text = format!(
        "[source]\nurl = {{ env = \"SOURCE_DATABASE_URL\" }}\nauth = \"rds-iam\"\nnice_ratio = 0\n\
         [checkpoint]\nstore = \"postgres\"\n{}",
        daily(3)
    );
    std::fs::write(place.config(), text).unwrap();
    for arguments in [
        &["init"] as &[&str],
        &["check"],
        &["backfill", "daily", "--yes", "--concurrency", "2"],
        &["verify"],
    ] {
        run(&place, &server, Some(KEY), arguments).good();
        assert!(server.logins(true) >= 2, "a token for each connection: {arguments:?}");
    }
    // Signed by another key.
    let wrong = run(&place, &server, Some("another"), &["check"]);
    let said = wrong.words();
    assert_eq!(wrong.code, Some(3), "{said}");
    assert!(
        said.contains("authentication failed hint: let the AWS identity of this process"),
        "{said}"
    );
    assert!(server.logins(false) > 0);
    // Without a key there is no token.
    let none = run(&place, &server, None, &["check"]);
    let said = none.words();
    assert_eq!(none.code, Some(3), "{said}");
    assert!(
        said.contains("there are no AWS credentials for a token")
            && said.contains("hint: set AWS_PROFILE"),
        "{said}"
    );
    assert_eq!(server.logins(true), 0);
}
