//! The server: an app on a loopback port, with a log, a bill and a script of faults.

mod answer;
mod app;
mod bill;
mod constraint;
pub mod datum;
mod fault;
mod meta;
mod problem;
mod schema;
mod search;
mod things;

use std::collections::HashMap;
use std::io::{BufReader, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use tallymark::model::clock::Clock;

use crate::support::http::Request;
use crate::support::listening::Listening;
use answer::{Asked, answer};
pub use app::{App, Author, Caller, Database, Door, New};
pub use bill::Bill;
pub use fault::Fault;
use fault::Sent;
pub use schema::{Findable, Kind, Rights};
pub use things::Thing;

/// A request as the log keeps it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its number, from 1.
    pub number: usize,
    pub method: String,
    /// The path without parameters, decoded.
    pub path: String,
    pub query: Vec<(String, String)>,
    /// With lower-case names.
    pub headers: HashMap<String, String>,
    /// Bytes of its body.
    pub body: usize,
    /// Of the answer. 0: it has none yet.
    pub status: u16,
    pub bill: Bill,
}

/// A moment at which a script acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The request has come, and the app has not looked at it.
    Before,
    /// The app has made its answer, which has not left.
    After,
}

/// Looks at a request, changes the app, and may break the answer. It is called within the app's
/// lock, so it uses the app that it is given.
type Script = Box<dyn FnMut(&Seen, Moment, &mut App) -> Option<Fault> + Send>;

/// A Bubble. It is served until it is dropped.
pub struct Fake {
    listening: Listening,
    shared: Arc<Shared>,
}

struct Shared {
    app: Mutex<App>,
    desk: Mutex<Desk>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Desk {
    log: Vec<Seen>,
    scripts: Vec<Script>,
    latency: Duration,
}

impl Fake {
    /// An app without types. The header `Date` is by `clock`. Chance, such as in ids and in the
    /// order of ties, is by `seed`.
    pub fn start(clock: Arc<dyn Clock>, seed: u64) -> Self {
        let app = Mutex::new(App::new(Rng::with_seed(seed)));
        let shared = Arc::new(Shared { app, desk: Mutex::default(), clock });
        let served = Arc::clone(&shared);
        let listening = Listening::start(move |stream| served.serve(&stream));
        Self { listening, shared }
    }

    /// Its URL, without a path.
    pub fn url(&self) -> String {
        self.listening.endpoint()
    }

    /// The app, to change it. Requests wait meanwhile.
    pub fn app(&self) -> MutexGuard<'_, App> {
        self.shared.app.lock().unwrap()
    }

    /// Calls a script at each request from now on.
    pub fn script(
        &self,
        script: impl FnMut(&Seen, Moment, &mut App) -> Option<Fault> + Send + 'static,
    ) {
        self.desk().scripts.push(Box::new(script));
    }

    /// Changes the app when the `nth` request from now has come (1: the next one).
    pub fn before(&self, nth: usize, change: impl FnOnce(&mut App) + Send + 'static) {
        self.at(nth, Moment::Before, |app| {
            change(app);
            None
        });
    }

    /// Changes the app after the `nth` request from now was looked at.
    pub fn after(&self, nth: usize, change: impl FnOnce(&mut App) + Send + 'static) {
        self.at(nth, Moment::After, |app| {
            change(app);
            None
        });
    }

    /// Breaks the answer to the `nth` request from now.
    pub fn fail(&self, nth: usize, fault: Fault) {
        self.at(nth, Moment::Before, |_| Some(fault));
    }

    fn at(
        &self,
        nth: usize,
        moment: Moment,
        act: impl FnOnce(&mut App) -> Option<Fault> + Send + 'static,
    ) {
        let (number, mut act) = (self.desk().log.len() + nth, Some(act));
        self.script(move |seen, now, app| {
            let is_it = seen.number == number && now == moment;
            is_it.then(|| act.take()).flatten().and_then(|act| act(app))
        });
    }

    /// Forgets all requests and scripts.
    pub fn start_over(&self) {
        let mut desk = self.desk();
        desk.log.clear();
        desk.scripts.clear();
    }

    /// Each answer takes this long from now on.
    pub fn take(&self, latency: Duration) {
        self.desk().latency = latency;
    }

    /// All requests so far.
    pub fn log(&self) -> Vec<Seen> {
        self.desk().log.clone()
    }

    /// The price of all requests so far.
    pub fn bill(&self) -> Bill {
        self.desk().log.iter().map(|seen| seen.bill).sum()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.shared.desk.lock().unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let is_whole = thread::panicking() || !self.shared.app.is_poisoned();
        assert!(is_whole, "a script has panicked, and no request was answered since");
    }
}

impl Shared {
    /// Answers the requests of one connection. `None`: it has ended.
    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let request = Request::read(&mut reader)?;
            let is_last = request.headers.get("connection").is_some_and(|it| it == "close");
            let sent = self.answer(request);
            thread::sleep(sent.wait);
            let is_cut = sent.cut.is_some();
            self.send(stream, sent)?;
            if is_cut || is_last {
                let _ = stream.shutdown(Shutdown::Both);
                return None;
            }
        }
    }

    /// The answer, after the scripts. One request at a time is looked at.
    fn answer(&self, request: Request) -> Sent {
        let mut desk = self.desk.lock().unwrap();
        let mut app = self.app.lock().unwrap();
        let asked = asked(&request);
        let mut seen = Seen {
            number: desk.log.len() + 1,
            method: request.method,
            path: asked.path.iter().map(|part| format!("/{part}")).collect(),
            query: asked.query.clone(),
            headers: request.headers,
            body: request.body.len(),
            status: 0,
            bill: Bill::default(),
        };
        let mut act = |moment, app: &mut App| -> Vec<Fault> {
            desk.scripts.iter_mut().filter_map(|script| script(&seen, moment, app)).collect()
        };
        let mut faults = act(Moment::Before, &mut app);
        let seed = app.rng.u64(..);
        let answer = answer(&app, &asked, seed);
        faults.extend(act(Moment::After, &mut app));
        let sent = Sent::new(&answer, desk.latency);
        let sent = faults.iter().fold(sent, |sent, it| sent.spoil(it, &answer, &request.path));
        (seen.status, seen.bill) = (sent.status, sent.bill);
        desk.log.push(seen);
        sent
    }

    fn send(&self, mut stream: &TcpStream, sent: Sent) -> Option<()> {
        let end = match sent.cut {
            Some(None) => return Some(()),
            Some(Some(end)) => end,
            None => sent.body.len(),
        };
        let date = self.clock.now().format("Date: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string();
        let date = if sent.has_date { date } else { String::new() };
        let head = format!(
            "HTTP/1.1 {} Said\r\n{date}{}Content-Type: {}\r\nContent-Length: {}\r\n\r\n",
            sent.status,
            sent.headers,
            sent.content_type,
            sent.body.len()
        );
        stream.write_all(&[head.as_bytes(), &sent.body.as_bytes()[..end]].concat()).ok()
    }
}

/// Takes a request apart.
fn asked(request: &Request) -> Asked {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    Asked {
        method: request.method.clone(),
        path: path.trim_start_matches('/').split('/').map(|part| decoded(part, false)).collect(),
        query: pairs.map(|(name, value)| (decoded(name, true), decoded(value, true))).collect(),
        length: request.path.len(),
        authorization: request.headers.get("authorization").cloned(),
    }
}

/// A part of an address without its `%XX` and, in parameters, with `+` as a space.
fn decoded(part: &str, is_parameter: bool) -> String {
    let (mut bytes, mut left) = (Vec::new(), part.as_bytes());
    while let [first, rest @ ..] = left {
        let code = (*first == b'%').then(|| rest.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(str::from_utf8(code).ok()?, 16).ok());
        bytes.push(match (first, code) {
            (_, Some(code)) => code,
            (b'+', None) if is_parameter => b' ',
            (byte, None) => *byte,
        });
        left = if code.is_some() { &rest[2..] } else { rest };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
