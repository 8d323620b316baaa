//! An in-process DynamoDB: the same API over HTTP, stored in SQLite by dynoxide.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use dynoxide::Database;
use tokio::sync::oneshot;

use crate::clients::aws::retries;

/// The server is in this process. A late answer means a slow machine, and a retry would not be
/// faster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why the embedded DynamoDB did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedDynamoError {
    /// The path is not valid text.
    #[error("embedded dynamodb: {} is not valid UTF-8", .path.display())]
    Path { path: PathBuf },
    /// The file cannot be opened.
    #[error("embedded dynamodb: {place} cannot be opened: {problem}")]
    Open {
        /// The file, or memory.
        place: String,
        /// SQLite's message.
        problem: String,
    },
    /// A port or a thread is missing.
    #[error("embedded dynamodb cannot listen on 127.0.0.1")]
    Listen(#[from] std::io::Error),
    /// The thread ended before it reported anything.
    #[error("embedded dynamodb ended while starting")]
    Ended,
}

/// A running in-process DynamoDB. Stops when dropped.
///
/// It has a thread and a runtime of its own. Each request runs SQLite to its end without yielding,
/// which would block other tasks on the caller's runtime.
#[derive(Debug)]
pub struct EmbeddedDynamo {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedDynamo {
    /// Starts it on a free port, with its tables in the file at `path`, or in memory.
    ///
    /// # Errors
    /// [`EmbeddedDynamoError`] if the file cannot be opened or there is no free port.
    pub async fn start(path: Option<&Path>) -> Result<Self, EmbeddedDynamoError> {
        let path = path.map(as_text).transpose()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("embedded-dynamodb".into())
            .spawn(move || serve(path.as_deref(), listener, ready, stopped))?;
        let server = Self { address, stop: Some(stop), thread: Some(thread) };
        started.await.map_err(|_| EmbeddedDynamoError::Ended)??;
        Ok(server)
    }

    /// The value for `AWS_ENDPOINT_URL_DYNAMODB`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client of this server. The credentials are invented, as the server accepts any.
    #[must_use]
    pub fn client(&self) -> Client {
        let patient = TimeoutConfig::builder().operation_timeout(ANSWER_TIMEOUT).build();
        Client::from_conf(settings(&self.endpoint()).timeout_config(patient).build())
    }
}

impl Drop for EmbeddedDynamo {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was already reported there.
            let _ = thread.join();
        }
    }
}

/// A client of a DynamoDB at this endpoint, with the time limits of the real one.
#[cfg(test)]
pub(crate) fn client_of(endpoint: &str) -> Client {
    Client::from_conf(settings(endpoint).timeout_config(crate::clients::aws::timeouts()).build())
}

fn settings(endpoint: &str) -> aws_sdk_dynamodb::config::Builder {
    aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("embedded", "embedded", None, None, "embedded"))
        .retry_config(retries())
}

fn as_text(path: &Path) -> Result<String, EmbeddedDynamoError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| EmbeddedDynamoError::Path { path: path.to_owned() })
}

/// The thread's function: opens the database, reports that it is ready, and serves until stopped.
fn serve(
    path: Option<&str>,
    listener: TcpListener,
    ready: oneshot::Sender<Result<(), EmbeddedDynamoError>>,
    stopped: oneshot::Receiver<()>,
) {
    let opened = open(path).and_then(|database| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        Ok((database, runtime, listener))
    });
    let (database, runtime, listener) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // The receiver is gone, as the caller gave up, so the thread ends.
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready.send(Ok(())).is_err() {
        return;
    }
    runtime.block_on(async {
        // Stop polling instead of shutting down gracefully, which would wait for clients that keep
        // a half-sent request. A request runs to its end within one poll, so it is never cut.
        tokio::select! {
            served = dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()) => {
                if let Err(problem) = served {
                    tracing::error!(error = %problem, "the embedded dynamodb ended");
                }
            }
            _ = stopped => {}
        }
    });
}

fn open(path: Option<&str>) -> Result<Database, EmbeddedDynamoError> {
    let opened = path.map_or_else(Database::memory, Database::new);
    opened.map_err(|error| EmbeddedDynamoError::Open {
        place: path.unwrap_or("memory").to_owned(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::checkpoint::store::dynamodb::DynamoDb;
    use crate::checkpoint::{Checkpoints, Created};

    fn checkpoints_of(server: &EmbeddedDynamo) -> Checkpoints {
        Checkpoints::new(Arc::new(DynamoDb::new(server.client(), "tallymark")), 5)
    }

    #[tokio::test]
    async fn a_file_keeps_its_tables_over_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoints.db");
        for expected in [Created::Created, Created::AlreadyThere] {
            let server = EmbeddedDynamo::start(Some(&path)).await.unwrap();
            let checkpoints = checkpoints_of(&server);
            assert_eq!(checkpoints.create_table().await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn nothing_answers_once_it_was_dropped() {
        let server = EmbeddedDynamo::start(None).await.unwrap();
        let checkpoints = checkpoints_of(&server);
        checkpoints.create_table().await.unwrap();
        drop(server);
        let error = checkpoints.describe().await.unwrap_err();
        assert!(error.is_unreachable(), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent").join("checkpoints.db");
        let error = EmbeddedDynamo::start(Some(&path)).await.unwrap_err().to_string();
        assert!(error.contains("absent"), "{error}");
    }
}
