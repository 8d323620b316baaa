//! Connections: limited in number, in time and in what they may send.
//!
//! A connection carries one request. A client that is slow to send it waits in a task, which holds
//! no thread, and gives way to a newer client when there are too many.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::answers::{self, Site};
use crate::work::slice_run::OVERTIME;

/// Connections at once. A process commonly may open 1,024 files, and the databases need theirs.
const CONNECTIONS_MAX: usize = 128;

/// A request's line and headers have arrived within this time.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Bytes of a request's line and headers, and their number.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// A request's body has arrived and its answer is sent within this time, besides the tick's.
const TRANSFER_TIME: Duration = Duration::from_secs(30);

/// A client that is still sending when it is answered may do so for this time and length: a
/// connection that is closed before would take the answer back.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_READS_MAX: usize = 256;

/// The pause after a connection could not be accepted, as the process may have too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The open connections, oldest first.
#[derive(Default)]
struct Open {
    connections: Mutex<BTreeMap<u64, Connection>>,
}

struct Connection {
    task: JoinHandle<()>,
    /// Whether its request is being answered.
    is_answering: Arc<AtomicBool>,
}

/// The place of a connection, until it ends in any way.
struct ConnectionGuard {
    open: Arc<Open>,
    id: u64,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.open.lock().remove(&self.id);
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for one more. Of the connections that are not being answered, the oldest ends.
    /// `false`: all are being answered.
    async fn make_room(&self) -> bool {
        if self.lock().len() < CONNECTIONS_MAX {
            return true;
        }
        let Some(oldest) = self.take_oldest_idle() else { return false };
        oldest.task.abort();
        // Its socket stays open until the task has ended.
        let _ = oldest.task.await;
        true
    }

    fn take_oldest_idle(&self) -> Option<Connection> {
        let mut connections = self.lock();
        let is_idle = |it: &Connection| !it.is_answering.load(Ordering::SeqCst);
        let id = connections.iter().find(|(_, it)| is_idle(it)).map(|(id, _)| *id)?;
        connections.remove(&id)
    }
}

/// Answers requests for ever.
pub(super) async fn serve(listener: TcpListener, site: Arc<Site>) {
    let open = Arc::<Open>::default();
    for id in 0_u64.. {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                refused(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !open.make_room().await {
            tracing::debug!(%client, "too many connections");
            continue;
        }
        let is_answering = Arc::<AtomicBool>::default();
        let answering = Arc::clone(&is_answering);
        let (site, place) = (Arc::clone(&site), ConnectionGuard { open: Arc::clone(&open), id });
        // Locked until it is entered, so that it cannot leave before.
        let mut connections = open.lock();
        let task = tokio::spawn(async move {
            let _place = place;
            answer(stream, client, &site, &answering).await;
        });
        connections.insert(id, Connection { task, is_answering });
    }
}

fn refused(error: &io::Error) {
    // The client has already closed it.
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::warn!(error = %error, "could not accept a connection");
    }
}

/// Answers the request of one connection, and ends it.
async fn answer(stream: TcpStream, client: SocketAddr, site: &Site, is_answering: &AtomicBool) {
    let service = service_fn(|mut request: Request<Incoming>| {
        is_answering.store(true, Ordering::SeqCst);
        request.extensions_mut().insert(client);
        // Boxed, as only what can be moved is polled by reference.
        Box::pin(async { Ok::<_, Infallible>(answers::answer(site, request).await) })
    });
    let mut connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let limit = HEAD_TIME + site.ticker.budget + OVERTIME + TRANSFER_TIME;
    let served = poll_fn(|context| connection.poll_without_shutdown(context));
    match tokio::time::timeout(limit, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%client, error = %error, "a connection failed"),
        Err(_) => tracing::debug!(%client, "a connection took too long"),
    }
    is_answering.store(false, Ordering::SeqCst);
    linger(connection.into_parts().io.into_inner()).await;
}

/// Closes the connection once the client has read the answer, or does not.
async fn linger(mut stream: TcpStream) {
    let close = async {
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        for _ in 0..LINGER_READS_MAX {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // The client may be gone.
    let _ = tokio::time::timeout(LINGER_TIME, close).await;
}
