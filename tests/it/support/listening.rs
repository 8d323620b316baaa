//! A server on loopback with a thread for each connection. It uses threads, as the tests wait for
//! child processes meanwhile.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Wait before the next client, after accepting one failed.
const PAUSE: Duration = Duration::from_millis(10);

/// The server. When it is dropped it accepts no more connections, and the existing ones stay.
#[derive(Debug)]
pub struct Listening {
    pub address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Listening {
    /// Serves each connection by `serve`, whose result means that one side is gone.
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
