//! `tallymark serve` as a child process, and the clients of it.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use tallymark::model::clock::Stopwatch;

use super::cli::{Ended, PASSWORD, Place, end_of, signal};

/// Longer than any machine stands still.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The variable and the token of the servers in tests.
pub const TOKEN: (&str, &str) = ("CRON_SECRET", "t0ken-0f-the-scheduler");

/// A running server.
pub struct Server {
    child: Option<Child>,
    pub address: String,
    err: Option<JoinHandle<String>>,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Its headers, with lower-case names.
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Reply {
    /// Reads the only answer of a connection. `None`: it was closed without one.
    pub fn read(mut stream: &TcpStream) -> Option<Self> {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut bytes = Vec::new();
        // A server that refuses a long request may reset the connection after its answer.
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains(PASSWORD), "{text}");
        Self::parse(&text)
    }

    /// An answer in the text of a connection, which may end within its body.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Some(Self { status, headers: headers.collect(), body: body.to_owned() })
    }

    /// Asserts this status.
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Server {
    /// Starts it on a free port, and waits until it listens.
    pub fn start(place: &Place, arguments: &[&str]) -> Self {
        let listening = ["serve", "--listen", "127.0.0.1:0"];
        Self::of(place.command(&[&listening, arguments].concat()))
    }

    /// As [`Server::start`], where `/tick` asks for [`TOKEN`].
    pub fn with_token(place: &Place, arguments: &[&str]) -> Self {
        let listening = ["serve", "--listen", "127.0.0.1:0", "--tick-token-env", TOKEN.0];
        let mut command = place.command(&[&listening, arguments].concat());
        command.env(TOKEN.0, TOKEN.1);
        Self::of(command)
    }

    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let err = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("listening on http://").nth(1).and_then(|it| it.split(';').next());
        let Some(address) = address.map(str::to_owned) else {
            child.kill().unwrap();
            panic!("{line}{}", err.join().unwrap());
        };
        Self { child: Some(child), address, err: Some(err) }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }

    /// Sends a whole request, and reads the answer.
    pub fn send(&self, request: &str) -> Option<Reply> {
        send(&self.address, request)
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).unwrap()
    }

    /// As a cron of Vercel calls it.
    pub fn tick(&self, query: &str) -> Reply {
        self.send(&tick(query)).unwrap()
    }

    pub fn health(&self) -> Value {
        self.get("/healthz").json()
    }

    /// The value of a metric, 0 where it is absent.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").is(200).body;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until its health meets a condition.
    pub async fn wait_for(&self, what: &str, is_met: impl Fn(&Value) -> bool) -> Value {
        let watch = Stopwatch::start();
        loop {
            let health = self.health();
            if is_met(&health) {
                return health;
            }
            assert!(watch.elapsed() < LIMIT, "{what}: {health}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for its end.
    pub async fn end(mut self) -> Ended {
        let mut child = self.child.take().unwrap();
        let status = end_of(&mut child).await;
        let err = self.err.take().unwrap().join().unwrap();
        assert!(!err.contains(PASSWORD) && !err.contains(TOKEN.1), "{err}");
        assert!(!err.contains("panicked"), "{err}");
        Ended { code: status.code(), out: String::new(), err }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The request of a scheduler.
pub fn tick(query: &str) -> String {
    let token = TOKEN.1;
    format!(
        "GET /tick{query} HTTP/1.1\r\nHost: tallymark\r\nUser-Agent: vercel-cron/1.0\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
}

/// Sends a whole request, and reads the answer. `None`: there was none.
pub fn send(address: &str, request: &str) -> Option<Reply> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    Reply::read(&stream)
}
