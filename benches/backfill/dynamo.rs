//! Counts requests to DynamoDB, with a relay that reads the names of the operations.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::Result;

/// The prefix of an operation's name in its request.
const TARGET: &[u8] = b"DynamoDB_20120810.";

/// The number of requests of each operation.
#[derive(Clone, Debug, Default)]
pub struct Requests(BTreeMap<String, u64>);

impl Requests {
    /// The operations that write an item.
    pub fn writes(&self) -> u64 {
        ["UpdateItem", "PutItem", "DeleteItem"].iter().filter_map(|name| self.0.get(*name)).sum()
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> =
            self.0.iter().map(|(name, count)| format!("{count} {name}")).collect();
        f.write_str(&each.join(", "))
    }
}

/// A relay in front of a DynamoDB.
pub struct Relay {
    address: SocketAddr,
    requests: Arc<Mutex<Requests>>,
}

impl Relay {
    /// Starts a relay to `upstream` (`http://host:port`).
    pub async fn start(upstream: &str) -> Result<Self> {
        let upstream: SocketAddr =
            upstream.strip_prefix("http://").ok_or("not a plain endpoint")?.parse()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let requests = Arc::new(Mutex::new(Requests::default()));
        let counted = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(upstream).await else { return };
                let (from_client, mut to_client) = client.into_split();
                let (mut from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, Arc::clone(&counted)));
                tokio::spawn(
                    async move { tokio::io::copy(&mut from_server, &mut to_client).await },
                );
            }
        });
        Ok(Self { address, requests })
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> Requests {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Forwards requests, and counts the operations that they name.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    requests: Arc<Mutex<Requests>>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    // The network may split an operation's name.
    let mut unread = Vec::new();
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        unread.extend_from_slice(&buffer[..read]);
        count(&mut unread, &requests);
        to.write_all(&buffer[..read]).await?;
    }
}

/// Counts the complete names, and leaves a possible beginning of the next.
fn count(unread: &mut Vec<u8>, requests: &Mutex<Requests>) {
    while let Some(at) = unread.windows(TARGET.len()).position(|window| window == TARGET) {
        unread.drain(..at);
        let name = &unread[TARGET.len()..];
        let Some(length) = name.iter().position(|byte| !byte.is_ascii_alphabetic()) else { return };
        let name = String::from_utf8_lossy(&name[..length]).into_owned();
        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.0.entry(name).or_default() += 1;
        unread.drain(..TARGET.len());
    }
    let keep = unread.len().min(TARGET.len() - 1);
    unread.drain(..unread.len() - keep);
}
