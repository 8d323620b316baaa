//! A small Lambda Runtime API on loopback, and the real `bootstrap` behind it.

use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::Value;
use tallymark::model::clock::{Clock, Stopwatch, SystemClock};
use tempfile::NamedTempFile;

use super::http::{Request, respond};
use super::listening::Listening;

/// Longer than any invocation of these tests takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The headers that Lambda sends with the event.
const USUAL: &str = "Lambda-Runtime-Invoked-Function-Arn: \
    arn:aws:lambda:eu-central-1:123456789012:function:tallymark\r\n\
    Lambda-Runtime-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0\r\n";

/// The function's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// `POST …/response`.
    Response(Value),
    /// `POST …/error`.
    Error(Value),
}

impl Answer {
    /// The response of an invocation that succeeded.
    pub fn response(&self) -> &Value {
        match self {
            Self::Response(value) => value,
            Self::Error(error) => panic!("an error instead of a response: {error}"),
        }
    }

    /// Type and message of an invocation that failed.
    pub fn error(&self) -> (&str, &str) {
        match self {
            Self::Error(error) => {
                (error["errorType"].as_str().unwrap(), error["errorMessage"].as_str().unwrap())
            }
            Self::Response(value) => panic!("a response instead of an error: {value}"),
        }
    }
}

struct Invocation {
    id: String,
    body: Vec<u8>,
    deadline: String,
    /// Header lines.
    more: String,
}

/// The running function.
pub struct Function {
    child: Child,
    invocations: Sender<Invocation>,
    answers: Receiver<(String, Answer)>,
    /// Files instead of pipes, so that all output before the answer is available with the answer.
    output: [NamedTempFile; 2],
    invoked: usize,
    _listening: Listening,
    /// The time from spawning the process to its first poll.
    pub startup: Duration,
}

/// The output of a stopped function.
pub struct Output {
    /// The lines of stdout.
    pub stdout: Vec<String>,
    /// The lines of stderr.
    pub stderr: Vec<String>,
}

impl Function {
    /// Starts `bootstrap` with only this environment, and waits for its first poll.
    pub fn start(environment: &[(&str, &str)]) -> Self {
        Self::start_through(environment, |address| address)
    }

    /// As [`Function::start`], with a proxy between the function and the API. `through` gets the
    /// API's address and returns the proxy's.
    pub fn start_through(
        environment: &[(&str, &str)],
        between: impl FnOnce(SocketAddr) -> SocketAddr,
    ) -> Self {
        let (invocations, queue) = channel();
        let (polled, polls) = channel();
        let (answered, answers) = channel();
        let api = Api { queue: Mutex::new(queue), polled, answered };
        let listening = Listening::start(move |stream| api.serve(&stream));
        let address = between(listening.address).to_string();
        let output = [(); 2].map(|()| NamedTempFile::new().unwrap());
        let spawned = Stopwatch::start();
        let child = Command::new(env!("CARGO_BIN_EXE_bootstrap"))
            .env_clear()
            .envs(environment.iter().copied())
            .env("AWS_LAMBDA_RUNTIME_API", address)
            .env("AWS_LAMBDA_FUNCTION_NAME", "tallymark")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .stdout(output[0].reopen().unwrap())
            .stderr(output[1].reopen().unwrap())
            .spawn()
            .unwrap();
        polls.recv_timeout(PATIENCE).expect("a first poll");
        let startup = spawned.elapsed();
        Self { child, invocations, answers, output, invoked: 0, _listening: listening, startup }
    }

    /// Invokes the function with a budget of 30 s.
    pub fn invoke(&mut self, event: &Value) -> Answer {
        self.invoke_with(event.to_string().into_bytes(), Duration::from_secs(30))
    }

    /// Invokes the function with any body, and this budget.
    pub fn invoke_with(&mut self, body: Vec<u8>, budget: Duration) -> Answer {
        self.begin(body, &deadline(budget), USUAL);
        self.answered(PATIENCE).expect("an answer")
    }

    /// Invokes the function with any body, deadline and header lines.
    pub fn invoke_oddly(&mut self, body: Vec<u8>, deadline: &str, more: &str) -> Answer {
        self.begin(body, deadline, more);
        self.answered(PATIENCE).expect("an answer")
    }

    /// Invokes the function and waits this long for its answer, as Lambda does. `None`: it was
    /// killed, or had died.
    pub fn invoke_or_kill(
        &mut self,
        event: &Value,
        budget: Duration,
        patience: Duration,
    ) -> Option<Answer> {
        self.begin(event.to_string().into_bytes(), &deadline(budget), USUAL);
        let watch = Stopwatch::start();
        while watch.elapsed() < patience && self.child.try_wait().unwrap().is_none() {
            let left = patience.saturating_sub(watch.elapsed());
            if let Some(answer) = self.answered(left.min(Duration::from_millis(10))) {
                return Some(answer);
            }
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        None
    }

    fn begin(&mut self, body: Vec<u8>, deadline: &str, more: &str) {
        self.invoked += 1;
        let (deadline, more) = (deadline.to_owned(), more.to_owned());
        let invocation = Invocation { id: self.id(), body, deadline, more };
        self.invocations.send(invocation).expect("a function that polls");
    }

    fn answered(&self, patience: Duration) -> Option<Answer> {
        let (answered, answer) = self.answers.recv_timeout(patience).ok()?;
        assert_eq!(answered, self.id(), "one answer an invocation");
        Some(answer)
    }

    fn id(&self) -> String {
        format!("invocation-{}", self.invoked)
    }

    /// The lines of its log so far.
    pub fn log_lines(&self) -> Vec<String> {
        lines(&self.output[0])
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the process, which must still be alive, and returns what it wrote.
    pub fn stop(mut self) -> Output {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the process ended by itself: {ended:?}");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        assert!(self.answers.try_recv().is_err(), "an answer too many");
        let [stdout, stderr] = self.output.each_ref().map(lines);
        Output { stdout, stderr }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    /// The lines of stdout, each of them JSON.
    pub fn log(&self) -> Vec<Value> {
        let parse = |line: &String| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
        };
        self.stdout.iter().map(parse).collect()
    }
}

/// A deadline this far away, in the API's form.
fn deadline(budget: Duration) -> String {
    let budget_ms = i64::try_from(budget.as_millis()).unwrap();
    (SystemClock.now().timestamp_millis() + budget_ms).to_string()
}

fn lines(file: &NamedTempFile) -> Vec<String> {
    let text = std::fs::read_to_string(file.path()).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The server's side.
struct Api {
    queue: Mutex<Receiver<Invocation>>,
    polled: Sender<()>,
    answered: Sender<(String, Answer)>,
}

impl Api {
    /// Serves one connection until either side is gone.
    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let Request { path, body, .. } = Request::read(&mut reader)?;
            let path = path.strip_prefix("/2018-06-01/runtime/").expect("a known version");
            if path == "invocation/next" {
                let _ = self.polled.send(());
                let next = self.queue.lock().unwrap().recv().ok()?;
                respond(stream, "200 OK", &next.headers(), &next.body)?;
                continue;
            }
            let body = serde_json::from_slice(&body).expect("an answer in JSON");
            let (id, answer) = match path.split('/').collect::<Vec<_>>()[..] {
                ["invocation", id, "response"] => (id, Answer::Response(body)),
                ["invocation", id, "error"] => (id, Answer::Error(body)),
                _ => panic!("unexpected request to {path}: {body}"),
            };
            // Before the answer is published, as the process must not be killed while it waits for
            // this.
            respond(stream, "202 Accepted", "", b"{}")?;
            self.answered.send((id.to_owned(), answer)).ok()?;
        }
    }
}

impl Invocation {
    fn headers(&self) -> String {
        format!(
            "Lambda-Runtime-Aws-Request-Id: {}\r\nLambda-Runtime-Deadline-Ms: {}\r\n\
             Content-Type: application/json\r\n{}",
            self.id, self.deadline, self.more
        )
    }
}
