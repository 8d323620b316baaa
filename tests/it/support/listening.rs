//! A server on loopback, a thread for each connection. Threads, because the tests wait for child processes meanwhile.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Before the next client, when one could not be let in.
const PAUSE: Duration = Duration::from_millis(10);

/// The server. It lets nobody in any more when this is dropped; who is in may stay.
#[derive(Debug)]
pub struct Listening {
    /// Where it is.
    pub address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Listening {
    /// Serves each connection by `serve`; what comes of it says that one side is gone.
    pub fn start<T>(serve: impl Fn(TcpStream) -> T + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::<AtomicBool>::default();
        let (over, serve) = (Arc::clone(&is_over), Arc::new(serve));
        thread::spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else {
                    thread::sleep(PAUSE);
                    continue;
                };
                let serve = Arc::clone(&serve);
                thread::spawn(move || drop(serve(client)));
            }
        });
        Self { address, is_over }
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes it.
        drop(TcpStream::connect(self.address));
    }
}
