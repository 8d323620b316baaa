//! Proxies between a worker and its servers, which fail on demand: a TCP proxy that cuts a
//! connection, and an HTTP proxy that answers instead of DynamoDB or loses its reply. They use
//! threads, as the tests wait for child processes meanwhile.

use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::listening::Listening;
use super::{postgres, until};

/// The moment at which a connection to PostgreSQL is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// After the client has sent this, if anything, ...
    pub first: Option<&'static str>,
    /// ... and then this ...
    pub said: &'static str,
    /// ... and this many more bytes have come back (0: the reply is lost).
    pub bytes: usize,
}

/// A proxy in front of a PostgreSQL server. It cuts one connection, once.
#[derive(Debug)]
pub struct Cutter {
    pub port: u16,
    armed: Arc<AtomicBool>,
    _listening: Listening,
}

impl Cutter {
    pub fn start(upstream: String, cut: Cut) -> Self {
        Self::with(upstream, cut, true, Duration::ZERO)
    }

    /// One that cuts nothing, and delays each connection before it reaches the server.
    pub fn slow(upstream: String, delay: Duration) -> Self {
        Self::with(upstream, Cut { first: None, said: "BEGIN", bytes: 0 }, false, delay)
    }

    fn with(upstream: String, cut: Cut, is_armed: bool, delay: Duration) -> Self {
        let armed = Arc::new(AtomicBool::new(is_armed));
        let shared = Arc::clone(&armed);
        let listening = Listening::start(move |client| {
            thread::sleep(delay);
            let server = TcpStream::connect(&upstream).unwrap();
            relay(client, server, cut, &shared).unwrap();
        });
        Self { port: listening.address.port(), armed, _listening: listening }
    }

    /// Another address of the database of `url` on the shared server. It leads nowhere once the
    /// proxy is dropped.
    pub fn way(url: &str) -> (Self, String) {
        let direct = format!("127.0.0.1:{}", postgres().port());
        let way = Self::slow(direct.clone(), Duration::ZERO);
        let url = url.replace(&direct, &format!("127.0.0.1:{}", way.port));
        (way, url)
    }

    /// Whether it has cut its connection.
    pub fn has_cut(&self) -> bool {
        !self.armed.load(Ordering::SeqCst)
    }
}

/// One address that leads to one server or another.
pub struct Switch {
    pub port: u16,
    upstream: Arc<Mutex<u16>>,
    _listening: Listening,
}

impl Switch {
    pub fn to(port: u16) -> Self {
        let upstream = Arc::new(Mutex::new(port));
        let shared = Arc::clone(&upstream);
        let listening = Listening::start(move |client| {
            let port = *shared.lock().unwrap();
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
            let cut = Cut { first: None, said: "BEGIN", bytes: 0 };
            relay(client, server, cut, &Arc::new(AtomicBool::new(false))).unwrap();
        });
        Self { port: listening.address.port(), upstream, _listening: listening }
    }

    /// Further connections reach the server at `port`.
    pub fn turn(&self, port: u16) {
        *self.upstream.lock().unwrap() = port;
    }
}

fn relay(client: TcpStream, server: TcpStream, cut: Cut, armed: &Arc<AtomicBool>) -> Result<()> {
    let said = Arc::new(AtomicBool::new(false));
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let heard = Arc::clone(&said);
    thread::spawn(move || {
        let (mut buffer, mut first) = ([0; 8192], cut.first);
        // After an error, or with no more data, one side has gone.
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let has =
                |text: &str| buffer[..count].windows(text.len()).any(|it| it == text.as_bytes());
            first = first.filter(|text| !has(text));
            if first.is_none() && has(cut.said) {
                heard.store(true, Ordering::SeqCst);
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    let (mut from, mut to, armed) = (server, client, Arc::clone(armed));
    thread::spawn(move || {
        let (mut buffer, mut since) = ([0; 8192], 0);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if said.load(Ordering::SeqCst) {
                if since >= cut.bytes && armed.swap(false, Ordering::SeqCst) {
                    break;
                }
                since += count;
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// A proxy in front of a PostgreSQL server that can act as a server that refuses all connections.
#[derive(Debug)]
pub struct Gate {
    pub port: u16,
    refusal: Arc<Mutex<Option<Refusal>>>,
    asked: Arc<AtomicUsize>,
    _listening: Listening,
}

/// A server's answer to a new connection.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// An error of this SQLSTATE, with this text.
    Error(&'static str, &'static str),
    /// Silence, once the client has sent this.
    Silence(&'static str),
}

impl Gate {
    pub fn start(upstream: String) -> Self {
        let (refusal, asked) = (Arc::<Mutex<Option<Refusal>>>::default(), Arc::default());
        let (shared, count) = (Arc::clone(&refusal), Arc::<AtomicUsize>::clone(&asked));
        let listening = Listening::start(move |client| {
            count.fetch_add(1, Ordering::SeqCst);
            let server = || TcpStream::connect(&upstream).unwrap();
            let refusal = *shared.lock().unwrap();
            match refusal {
                None => {
                    let never = Cut { first: None, said: "BEGIN", bytes: 0 };
                    relay(client, server(), never, &Arc::default())
                }
                Some(Refusal::Error(code, text)) => deny(client, code, text),
                Some(Refusal::Silence(said)) => fall_silent(client, server(), said),
            }
        });
        Self { port: listening.address.port(), refusal, asked, _listening: listening }
    }

    /// Refuses all connections from now on, or accepts them.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        *self.refusal.lock().unwrap() = refusal;
    }

    /// The number of connections since the last call of this.
    pub fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

/// Answers the start of a session with an error, and declines encryption.
fn deny(mut client: TcpStream, code: &str, text: &str) -> Result<()> {
    const SSL: [u8; 4] = 80_877_103_u32.to_be_bytes();
    let mut packet = [0; 8192];
    while client.read(&mut packet)? > 0 {
        if packet[4..8] == SSL {
            client.write_all(b"N")?;
            continue;
        }
        let fields = format!("SFATAL\0VFATAL\0C{code}\0M{text}\0\0");
        client.write_all(b"E")?;
        client.write_all(&u32::try_from(fields.len() + 4).unwrap().to_be_bytes())?;
        client.write_all(fields.as_bytes())?;
        break;
    }
    client.shutdown(Shutdown::Both)
}

/// Relays until the client has sent this, and then keeps both connections open and silent.
fn fall_silent(client: TcpStream, server: TcpStream, said: &str) -> Result<()> {
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let (mut back, mut forth) = (server, client);
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = back.read(&mut buffer) {
            if forth.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
    });
    let mut buffer = [0; 8192];
    let mut is_silent = false;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        is_silent |= buffer[..count].windows(said.len()).any(|part| part == said.as_bytes());
        if !is_silent {
            to.write_all(&buffer[..count])?;
        }
    }
    to.shutdown(Shutdown::Both)
}

/// A proxy in front of a PostgreSQL server. It holds the first message that contains a text until
/// it is released. All others pass.
#[derive(Debug)]
pub struct Holder {
    pub port: u16,
    held: Arc<AtomicBool>,
    let_go: Arc<AtomicBool>,
    _listening: Listening,
}

impl Holder {
    pub fn start(upstream: String, said: &'static str) -> Self {
        let (held, let_go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let shared = (Arc::clone(&held), Arc::clone(&let_go));
        let listening = Listening::start(move |client| {
            let server = TcpStream::connect(&upstream).unwrap();
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let (held, let_go) = (Arc::clone(&shared.0), Arc::clone(&shared.1));
            thread::spawn(move || {
                pass(from, to, |bytes| {
                    let is_it = bytes.windows(said.len()).any(|part| part == said.as_bytes());
                    if is_it && !held.swap(true, Ordering::SeqCst) {
                        while !let_go.load(Ordering::SeqCst) {
                            thread::sleep(Duration::from_millis(5));
                        }
                    }
                });
            });
            thread::spawn(move || pass(server, client, |_| ()));
        });
        Self { port: listening.address.port(), held, let_go, _listening: listening }
    }

    /// A proxy to the database of `url` on the shared server that delays a message, and its URL.
    pub fn way(url: &str, said: &'static str) -> (Self, String) {
        let direct = format!("127.0.0.1:{}", postgres().port());
        let holder = Self::start(direct.clone(), said);
        let url = url.replace(&direct, &format!("127.0.0.1:{}", holder.port));
        (holder, url)
    }

    /// Waits until the message has come.
    pub async fn holds(&self) {
        let held = async || self.held.load(Ordering::SeqCst).then_some(());
        until("the message that is held", held).await;
    }

    pub fn let_go(&self) {
        self.let_go.store(true, Ordering::SeqCst);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Forwards the data, each time after `look`.
fn pass(mut from: TcpStream, mut to: TcpStream, look: impl Fn(&[u8])) {
    let mut buffer = [0; 8192];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        look(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// The fate of a request to DynamoDB.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is answered with this status and error type, and never forwarded.
    Answer(u16, &'static str),
    /// It is forwarded, and the connection is closed instead of the reply.
    LoseReply,
}

/// The requests that meet a fault: of those that contain `said`, `count` after the first `skip`.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub fault: Fault,
    pub said: &'static str,
    pub skip: usize,
    pub count: usize,
}

/// A proxy in front of a DynamoDB.
#[derive(Debug)]
pub struct Unreliable {
    pub endpoint: String,
    plan: Arc<Mutex<Option<Plan>>>,
    met: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<String>>>,
    delay: Arc<Mutex<Duration>>,
    _listening: Listening,
}

impl Unreliable {
    /// A proxy that only counts.
    pub fn counting(upstream: &str) -> Self {
        let plan = Plan { fault: Fault::LoseReply, said: "", skip: 0, count: 0 };
        let counting = Self::start(upstream, plan);
        counting.recover();
        counting
    }

    /// A proxy that only delays each request.
    pub fn slow(upstream: &str, delay: Duration) -> Self {
        let slow = Self::counting(upstream);
        *slow.delay.lock().unwrap() = delay;
        slow
    }

    /// The operations that were called since the last call of this, in their order.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    pub fn start(upstream: &str, plan: Plan) -> Self {
        let upstream = upstream.replace("http://", "");
        let (plan, met) = (Arc::new(Mutex::new(Some(plan))), Arc::new(AtomicUsize::new(0)));
        let (shared, count) = (Arc::clone(&plan), Arc::clone(&met));
        let (asked, delay) = (Arc::default(), Arc::<Mutex<Duration>>::default());
        let (all, wait) = (Arc::clone(&asked), Arc::clone(&delay));
        let listening = Listening::start(move |client| {
            let server = TcpStream::connect(&upstream).unwrap();
            serve(client, server, &shared, &count, &all, &wait)
        });
        Self { endpoint: listening.endpoint(), plan, met, asked, delay, _listening: listening }
    }

    /// Sets another fault from now on.
    pub fn meet(&self, plan: Plan) {
        *self.plan.lock().unwrap() = Some(plan);
    }

    /// Stops all faults.
    pub fn recover(&self) {
        *self.plan.lock().unwrap() = None;
    }

    /// The number of requests that met the fault.
    pub fn met(&self) -> usize {
        self.met.load(Ordering::SeqCst)
    }
}

/// The fault of this request, and the plan for the following ones.
fn next(plan: &Mutex<Option<Plan>>, request: &[u8]) -> Option<Fault> {
    let mut plan = plan.lock().unwrap();
    let plan = plan.as_mut()?;
    if !String::from_utf8_lossy(request).contains(plan.said) {
        return None;
    }
    if plan.skip > 0 {
        plan.skip -= 1;
        return None;
    }
    plan.count = plan.count.checked_sub(1)?;
    Some(plan.fault)
}

fn serve(
    mut client: TcpStream,
    mut server: TcpStream,
    plan: &Mutex<Option<Plan>>,
    met: &AtomicUsize,
    asked: &Mutex<Vec<String>>,
    delay: &Mutex<Duration>,
) -> Result<()> {
    let mut requests = BufReader::new(client.try_clone()?);
    let mut replies = BufReader::new(server.try_clone()?);
    loop {
        let request = message(&mut requests)?;
        thread::sleep(*delay.lock().unwrap());
        let head = String::from_utf8_lossy(&request);
        let name = head.split("DynamoDB_20120810.").nth(1).and_then(|it| it.lines().next());
        asked.lock().unwrap().extend(name.map(str::to_owned));
        let fault = next(plan, &request);
        if fault.is_some() {
            met.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(Fault::Answer(status, code)) = fault {
            let body = format!(
                r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"as planned"}}"#
            );
            write!(
                client,
                "HTTP/1.1 {status} Fault\r\ncontent-type: application/x-amz-json-1.0\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            )?;
            continue;
        }
        server.write_all(&request)?;
        let reply = message(&mut replies)?;
        if fault.is_some() {
            return Ok(());
        }
        client.write_all(&reply)?;
    }
}

/// One HTTP message: its head, and a body of the length that the head states.
pub fn message(from: &mut impl BufRead) -> Result<Vec<u8>> {
    let (mut bytes, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(line.as_bytes());
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    from.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}
