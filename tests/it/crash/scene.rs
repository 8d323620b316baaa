//! The stage of the matrix: servers, an event, and the real `bootstrap` behind wires.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::names;
use super::wire::{Planned, Wires};
use crate::support::cli::Place;
use crate::support::runtime_api::{Answer, Function};

/// Enough for all of the work on a busy machine.
const AMPLE: Duration = Duration::from_secs(30);

/// Longer than any sleep here.
pub const SLEEP_MAX: Duration = Duration::from_secs(900);

/// An event, and the servers that its invocation contacts.
pub trait Scene: Sync {
    /// Its name in the output.
    fn name(&self) -> &'static str;

    /// Concurrent invocations.
    fn lanes(&self) -> usize;

    /// Whether a transaction is held open in every case. Otherwise that depends on concurrent
    /// tests, and with it the query for the holder.
    fn is_waiting(&self) -> bool {
        false
    }

    /// Whether the checkpoints are in the target. Its calls meet their faults there too.
    fn has_store(&self) -> bool {
        false
    }

    /// Asserts that nothing contradicts anything, at an instant at which processes may have been
    /// killed.
    async fn agrees(&self) {}

    /// Makes work for an invocation.
    fn prepare(&self, case: usize);

    /// The event of this case.
    fn event(&self, case: usize) -> Value;

    /// The environment by which a function finds its servers, through these wires.
    fn environment(&self, wires: &Arc<Wires>) -> Vec<(&'static str, String)>;

    /// The wires of a process.
    fn wires(&self, faults: &[Planned], clock: PathBuf) -> Arc<Wires> {
        Wires::new(faults.to_vec(), clock)
    }

    /// Does the same once more, without faults, until all work is done.
    async fn rerun(&self);

    /// Every row and marker of the target with the transaction that wrote it.
    async fn versions(&self) -> Vec<String>;

    /// Asserts that the result is as without faults.
    async fn is_done(&self);

    /// The calls of an undisturbed run. It is the second run, as the first one has less cached.
    fn record(&self, cases: [usize; 2]) -> Vec<String> {
        let [_, Invoked { answer, calls, .. }] = cases.map(|case| self.invoke(AMPLE, case, &[]));
        assert!(answer.is_some(), "no answer, after {calls:#?}");
        calls
    }

    /// Invokes a new process with these faults on its wires.
    fn invoke(&self, budget: Duration, case: usize, faults: &[Planned]) -> Invoked {
        self.prepare(case);
        let directory = TempDir::new().unwrap();
        let (wires, mut function) = self.function(faults, &directory);
        let answer = function.invoke_or_kill(&self.event(case), budget, budget);
        Invoked { answer, met: wires.met(), calls: wires.calls() }
    }

    /// As [`Scene::invoke`], until the process stops.
    fn put_to_sleep(
        &self,
        budget: Duration,
        case: usize,
        faults: &[Planned],
    ) -> Result<Sleeper, Invoked> {
        self.prepare(case);
        let directory = TempDir::new().unwrap();
        let (wires, mut function) = self.function(faults, &directory);
        let (event, outlasted) = (self.event(case), Arc::clone(&wires));
        let invoked = thread::spawn(move || {
            let _directory = directory;
            let answer = function.invoke_or_kill(&event, budget, SLEEP_MAX);
            outlasted.outlast();
            answer
        });
        if wires.stopped(&|| invoked.is_finished()) {
            return Ok(Sleeper { wires, invoked });
        }
        let answer = invoked.join().unwrap();
        Err(Invoked { answer, met: 0, calls: wires.calls() })
    }

    /// Starts a process behind wires.
    fn function(&self, faults: &[Planned], directory: &TempDir) -> (Arc<Wires>, Function) {
        let clock = directory.path().join("clock");
        let wires = self.wires(faults, clock.clone());
        let mut environment = self.environment(&wires);
        environment.extend([
            ("TALLYMARK_FAULTS_CLOCK", clock.display().to_string()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
        ]);
        let pairs: Vec<_> = environment.iter().map(|(name, it)| (*name, it.as_str())).collect();
        let runtime = |api: SocketAddr| wires.http(&api.to_string(), names::of_runtime);
        let function = Function::start_through(&pairs, runtime);
        wires.belong_to(function.pid());
        (wires, function)
    }
}

/// The environment by which a function finds the configuration and the source of `place`, and DynamoDB at
/// the address `dynamo`, through these wires.
pub fn environment_of(
    place: &Place,
    dynamo: Option<&String>,
    wires: &Arc<Wires>,
) -> Vec<(&'static str, String)> {
    let mut environment = vec![
        ("TALLYMARK_CONFIG", place.config().display().to_string()),
        ("SOURCE_DATABASE_URL", wires.postgres("source", &place.source_url)),
    ];
    if let Some(dynamo) = dynamo {
        let dynamo = wires.http(dynamo, names::of_dynamo);
        environment.push(("AWS_ENDPOINT_URL_DYNAMODB", format!("http://{dynamo}")));
    }
    environment
}

/// The result of an invocation.
#[derive(Debug)]
pub struct Invoked {
    /// `None`: the process was killed.
    pub answer: Option<Answer>,
    /// Number of faults that it met.
    pub met: usize,
    /// All its calls.
    pub calls: Vec<String>,
}

/// A process that is stopped in the middle of its work.
pub struct Sleeper {
    wires: Arc<Wires>,
    invoked: JoinHandle<Option<Answer>>,
}

impl Sleeper {
    /// Wakes it, and waits for its end.
    pub fn wake(self) {
        self.wires.wake();
        self.invoked.join().unwrap();
    }
}
