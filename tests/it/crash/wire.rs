//! The wires of a process. Each call to a server passes here, and any call can meet a fault. They
//! use threads, as the tests wait for child processes meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufReader, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::Duration;

use super::scene::SLEEP_MAX;
use super::{names, postgres};
use crate::support::cli::execute;
use crate::support::listening::Listening;
use crate::support::proxy::message;

/// Longer than any wait here.
const PATIENCE: Duration = Duration::from_secs(60);

/// The names of all calls of all processes that play scenes.
pub static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A call that leaves the process, and its number among those of its kind, from 0.
pub type Point = (String, usize);

/// The moment of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The call has not reached its server.
    Before,
    /// The server has handled it, and the reply is still to come back.
    After,
}

/// The kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of the process.
    Kill,
    /// The process is stopped, and the call held, until [`Wires::wake`].
    Stop,
    /// The connection is closed. With [`Moment::After`] it is a lost reply.
    Cut,
    /// An administrator ends the server's backend.
    Terminate,
    /// The connection stays silent, in both directions.
    Silence,
    /// DynamoDB answers this call, and all that follow it, with a throttle.
    Throttle,
    /// DynamoDB answers this call with an internal error.
    Break,
    /// The process's clock jumps by this many seconds.
    Jump(i32),
}

/// A fault and where it is met.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Planned {
    pub point: Point,
    pub moment: Moment,
    pub fault: Fault,
}

/// A wire's state after a fault.
#[derive(PartialEq)]
enum Then {
    Go,
    Close,
    Answer(String),
}

#[derive(Default)]
struct State {
    calls: Vec<String>,
    counts: HashMap<String, usize>,
    plan: Vec<Planned>,
    met: usize,
    process: Option<u32>,
    is_stopped: bool,
    is_awake: bool,
    is_throttled: bool,
}

/// The wires of one process.
pub struct Wires {
    state: Mutex<State>,
    changed: Condvar,
    clock: PathBuf,
    /// Their near ends, kept while the wires are held.
    ends: Mutex<Vec<Listening>>,
    /// Whether they belong to a scene, whose calls must all meet faults.
    is_of_scene: bool,
}

impl Wires {
    /// Wires with these faults, each of which occurs once. The process reads its clock's offset
    /// from `clock`.
    pub fn new(plan: Vec<Planned>, clock: PathBuf) -> Arc<Self> {
        Self::made(plan, clock, true)
    }

    /// Wires with these faults, whose calls need not all meet one.
    pub fn unlisted(plan: Vec<Planned>, clock: PathBuf) -> Arc<Self> {
        Self::made(plan, clock, false)
    }

    /// Wires that count the calls of a process which plays no scene.
    pub fn counting(clock: PathBuf) -> Arc<Self> {
        Self::made(Vec::new(), clock, false)
    }

    fn made(plan: Vec<Planned>, clock: PathBuf, is_of_scene: bool) -> Arc<Self> {
        let state = State { plan, ..State::default() };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            clock,
            ends: Mutex::default(),
            is_of_scene,
        })
    }

    /// The process at the end of the wires.
    pub fn belong_to(&self, process: u32) {
        self.state().process = Some(process);
        self.changed.notify_all();
    }

    /// The calls so far, in their order.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// The number of planned faults that were met.
    pub fn met(&self) -> usize {
        self.state().met
    }

    /// Waits until the process is stopped. `false`: `is_over` came first.
    pub fn stopped(&self, is_over: &dyn Fn() -> bool) -> bool {
        loop {
            let state = self.state();
            if state.is_stopped || is_over() {
                return state.is_stopped;
            }
            drop(self.changed.wait_timeout(state, Duration::from_millis(20)).unwrap());
        }
    }

    /// Waits until a process that met its fault was stopped and woken. A process that has answered
    /// may be stopped only afterwards.
    pub fn outlast(&self) {
        let state = self.state();
        if state.met == 0 {
            return;
        }
        let until_stopped = |state: &mut State| !state.is_stopped;
        let waited = self.changed.wait_timeout_while(state, PATIENCE, until_stopped).unwrap();
        let until_awake = |state: &mut State| state.is_stopped && !state.is_awake;
        drop(self.changed.wait_timeout_while(waited.0, SLEEP_MAX, until_awake).unwrap());
    }

    /// Lets a stopped process go on.
    pub fn wake(&self) {
        let mut state = self.state();
        signal("-CONT", state.process.unwrap());
        state.is_awake = true;
        self.changed.notify_all();
    }

    /// A wire to PostgreSQL. Returns the URL that leads through it.
    pub fn postgres(self: &Arc<Self>, side: &'static str, url: &str) -> String {
        let (user, rest) = url.rsplit_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let (upstream, admin) = (server.to_owned(), url.to_owned());
        let address = self.listen(move |wires, client| {
            let server = TcpStream::connect(&upstream)?;
            postgres::serve(wires, side, &admin, client, &server)
        });
        format!("{user}@{address}/{database}")
    }

    /// A wire to an HTTP server, whose calls `name` names by their text. Returns the address that
    /// leads through it.
    pub fn http(self: &Arc<Self>, upstream: &str, name: fn(&str) -> String) -> SocketAddr {
        let upstream = upstream.replace("http://", "");
        self.listen(move |wires, client| {
            let server = TcpStream::connect(&upstream)?;
            let mut requests = BufReader::new(client.try_clone()?);
            let mut replies = BufReader::new(server.try_clone()?);
            let (mut client, mut server) = (client, &server);
            loop {
                let request = message(&mut requests)?;
                let name = name(&String::from_utf8_lossy(&request));
                let meeting = wires.meet(&name);
                let then = wires.act(&meeting, Moment::Before, None);
                let is_throttled = name.starts_with("dynamodb") && wires.state().is_throttled;
                match then {
                    Then::Go if is_throttled => {
                        let error = "ProvisionedThroughputExceededException";
                        client.write_all(answer(400, error).as_bytes())?;
                        continue;
                    }
                    Then::Go => {}
                    Then::Close => return Ok(()),
                    Then::Answer(text) => {
                        client.write_all(text.as_bytes())?;
                        continue;
                    }
                }
                server.write_all(&request)?;
                let reply = message(&mut replies)?;
                if wires.act(&meeting, Moment::After, None) != Then::Go {
                    return Ok(());
                }
                client.write_all(&reply)?;
            }
        })
    }

    /// Serves each connection of one wire.
    fn listen(
        self: &Arc<Self>,
        serve: impl Fn(&Self, &TcpStream) -> Result<()> + Send + Sync + 'static,
    ) -> SocketAddr {
        let wires: Weak<Self> = Arc::downgrade(self);
        let end =
            Listening::start(move |client| wires.upgrade().map(|wires| serve(&wires, &client)));
        let address = end.address;
        self.ends.lock().unwrap().push(end);
        address
    }

    /// Records a call, and returns its faults.
    pub(super) fn meet(&self, name: &str) -> Vec<Planned> {
        if name.contains(names::LOCKS) {
            return Vec::new();
        }
        if self.is_of_scene {
            SEEN.lock().unwrap().insert(name.to_owned());
        }
        let mut state = self.state();
        state.calls.push(name.to_owned());
        let count = state.counts.entry(name.to_owned()).or_default();
        let nth = *count;
        *count += 1;
        let (met, plan) = std::mem::take(&mut state.plan)
            .into_iter()
            .partition(|it: &Planned| it.point.0 == name && it.point.1 == nth);
        (state.plan, state.met) = (plan, state.met + Vec::len(&met));
        met
    }

    /// Whether the wire stays intact after the faults of this moment. `backend` identifies the
    /// server's side, which may be ended.
    pub(super) fn may_go_on(
        &self,
        met: &[Planned],
        moment: Moment,
        backend: Option<&dyn Fn()>,
    ) -> bool {
        self.act(met, moment, backend) == Then::Go
    }

    fn act(&self, met: &[Planned], moment: Moment, backend: Option<&dyn Fn()>) -> Then {
        for fault in met.iter().filter(|it| it.moment == moment).map(|it| it.fault) {
            let process = self.process();
            match fault {
                Fault::Kill => {
                    signal("-KILL", process);
                    return Then::Close;
                }
                Fault::Stop => self.stop(process),
                Fault::Cut => return Then::Close,
                Fault::Terminate => backend.expect("a backend of PostgreSQL")(),
                Fault::Silence => {
                    // Until the process gives up or is killed.
                    thread::sleep(PATIENCE);
                    return Then::Close;
                }
                Fault::Throttle => self.state().is_throttled = true,
                Fault::Break => return Then::Answer(answer(500, "InternalServerError")),
                Fault::Jump(seconds) => std::fs::write(&self.clock, seconds.to_string()).unwrap(),
            }
        }
        Then::Go
    }

    fn stop(&self, process: u32) {
        signal("-STOP", process);
        let mut state = self.state();
        state.is_stopped = true;
        self.changed.notify_all();
        while !state.is_awake {
            let (next, wait) = self.changed.wait_timeout(state, SLEEP_MAX).unwrap();
            assert!(!wait.timed_out(), "nobody woke the process");
            state = next;
        }
    }

    fn process(&self) -> u32 {
        let state = self.state();
        let known = self.changed.wait_timeout_while(state, PATIENCE, |it| it.process.is_none());
        known.unwrap().0.process.expect("a process")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The points in a record of calls. Of each kind they are the first two, as later ones are
/// equivalent.
pub fn points(calls: &[String]) -> Vec<Point> {
    let mut counts = BTreeMap::<&String, usize>::new();
    // While it polls it is idle.
    for call in calls.iter().filter(|call| *call != "runtime: next") {
        *counts.entry(call).or_default() += 1;
    }
    let each = |(name, count): (&String, usize)| {
        (0..count.min(2)).map(|nth| (name.clone(), nth)).collect::<Vec<_>>()
    };
    counts.into_iter().flat_map(each).collect()
}

/// Ends the backend of a connection, and waits until it has gone.
pub(super) fn terminate(admin: &str, backend: u32) {
    let sql = format!(
        "SELECT pg_terminate_backend({backend}); DO $$ BEGIN FOR i IN 1..500 LOOP \
         EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {backend}); \
         PERFORM pg_sleep(0.01); END LOOP; END $$"
    );
    apart(execute(admin, &sql));
}

/// Runs `work` on a thread of its own, so that any other thread can wait for the outcome.
pub fn apart<T: Send>(work: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(work)
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

/// Sends a signal. A process that has answered may be gone.
fn signal(name: &str, process: u32) {
    let mut kill = Command::new("kill");
    let kill = kill.args([name, &process.to_string()]).stderr(Stdio::null());
    kill.status().expect("the program `kill`");
}

fn answer(status: u16, error: &str) -> String {
    let body = format!(
        r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{error}","message":"as planned"}}"#
    );
    format!(
        "HTTP/1.1 {status} Fault\r\ncontent-type: application/x-amz-json-1.0\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}
