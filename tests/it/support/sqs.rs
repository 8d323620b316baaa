//! The SQS API on loopback: standard queues with all their difficulties. Messages come twice, in
//! any order, and again after their visibility timeout. There are redrive to a dead-letter queue,
//! throttling and purging.

use std::collections::{BTreeMap, HashMap};
use std::io::BufReader;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tallymark::model::clock::Stopwatch;

use super::http::{Request, respond};
use super::listening::Listening;

/// The faults of the service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Share of the messages that are delivered once more after they were deleted.
    pub duplicates: f64,
    /// Share of the requests that are answered with a throttling error.
    pub throttled: f64,
    /// Delay before each answer.
    pub delay: Duration,
}

#[derive(Clone, Debug)]
struct Message {
    id: String,
    body: String,
    trace: Option<String>,
    /// When it can be received.
    visible_at: Duration,
    deliveries: u32,
    handle: String,
    /// Whether it is delivered once more after it is deleted.
    twice: bool,
}

#[derive(Debug, Default)]
struct Queue {
    messages: Vec<Message>,
    dead: Vec<String>,
    sent: usize,
    deleted: usize,
    purged: usize,
}

/// The counts of one queue's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Messages that were sent, including duplicates.
    pub sent: usize,
    /// Messages that were deleted.
    pub deleted: usize,
    /// Messages that were purged.
    pub purged: usize,
    /// Messages that became dead letters.
    pub dead: usize,
    /// Messages that are still there.
    pub left: usize,
}

struct Shared {
    queues: Mutex<HashMap<String, Queue>>,
    calls: Mutex<BTreeMap<String, usize>>,
    random: Mutex<fastrand::Rng>,
    faults: Faults,
    visibility: Duration,
    deliveries_max: u32,
    clock: Stopwatch,
}

/// The service.
#[derive(Clone)]
pub struct Sqs {
    shared: Arc<Shared>,
    listening: Arc<Listening>,
}

impl Sqs {
    /// Starts the service. A received message is hidden for `visibility`, and dead after
    /// `deliveries_max`.
    pub fn start(seed: u64, faults: Faults, visibility: Duration, deliveries_max: u32) -> Self {
        let shared = Arc::new(Shared {
            queues: Mutex::default(),
            calls: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            faults,
            visibility,
            deliveries_max,
            clock: Stopwatch::start(),
        });
        let served = Arc::clone(&shared);
        let listening = Listening::start(move |stream| served.serve(&stream));
        Self { shared, listening: Arc::new(listening) }
    }

    pub fn endpoint(&self) -> String {
        self.listening.endpoint()
    }

    /// The URL of a queue, which exists once it is named.
    pub fn url(&self, queue: &str) -> String {
        format!("{}/123456789012/{queue}", self.endpoint())
    }

    /// Sends one message, as a foreign sender.
    pub fn send(&self, queue: &str, body: &str) {
        self.shared.put(queue, body.to_owned(), None);
    }

    /// Receives a message in the form of an event for a function, with its handle.
    pub fn receive(&self, queue: &str) -> Option<(Value, String)> {
        let shared = &self.shared;
        let now = shared.clock.elapsed();
        let mut queues = shared.queues();
        let found = queues.entry(queue.to_owned()).or_default();
        let is_dead = |it: &Message| it.visible_at <= now && it.deliveries >= shared.deliveries_max;
        let (dead, alive) = found.messages.drain(..).partition(is_dead);
        found.messages = alive;
        found.dead.extend(dead.into_iter().map(|it: Message| it.body));
        let visible: Vec<usize> =
            (0..found.messages.len()).filter(|n| found.messages[*n].visible_at <= now).collect();
        let mut random = shared.random();
        // A standard queue roughly keeps the order, without a guarantee.
        let place = *visible.get(random.usize(..visible.len().clamp(1, 20)))?;
        let message = &mut found.messages[place];
        message.deliveries += 1;
        message.visible_at = now + shared.visibility;
        message.handle = format!("{}-{}", message.id, message.deliveries);
        let mut attributes = json!({ "ApproximateReceiveCount": message.deliveries.to_string() });
        if let Some(trace) = &message.trace {
            attributes["AWSTraceHeader"] = json!(trace);
        }
        let record = json!({
            "messageId": message.id,
            "receiptHandle": message.handle,
            "body": message.body,
            "attributes": attributes,
            "messageAttributes": {},
            "eventSource": "aws:sqs",
            "eventSourceARN": format!("arn:aws:sqs:eu-central-1:123456789012:{queue}"),
            "awsRegion": "eu-central-1",
        });
        Some((json!({ "Records": [record] }), message.handle.clone()))
    }

    /// Acknowledges a message.
    pub fn delete(&self, queue: &str, handle: &str) {
        let mut queues = self.shared.queues();
        let found = queues.get_mut(queue).unwrap();
        let Some(place) = found.messages.iter().position(|it| it.handle == handle) else { return };
        if std::mem::take(&mut found.messages[place].twice) {
            // The other copy is delivered later, independent of the first.
            found.messages[place].visible_at = self.shared.clock.elapsed();
            return;
        }
        found.messages.swap_remove(place);
        found.deleted += 1;
    }

    /// Removes all messages.
    pub fn purge(&self, queue: &str) -> usize {
        let mut queues = self.shared.queues();
        let found = queues.entry(queue.to_owned()).or_default();
        let count = found.messages.len();
        found.messages.clear();
        found.purged += count;
        count
    }

    /// The counts of a queue's messages.
    pub fn account(&self, queue: &str) -> Account {
        let mut queues = self.shared.queues();
        let Queue { messages, dead, sent, deleted, purged } =
            queues.entry(queue.to_owned()).or_default();
        let (dead, left) = (dead.len(), messages.len());
        Account { sent: *sent, deleted: *deleted, purged: *purged, dead, left }
    }

    /// The bodies of the dead letters of a queue.
    pub fn dead(&self, queue: &str) -> Vec<String> {
        self.shared.queues().entry(queue.to_owned()).or_default().dead.clone()
    }

    /// The bodies of all messages of a queue.
    pub fn bodies(&self, queue: &str) -> Vec<Value> {
        let mut queues = self.shared.queues();
        let messages = &queues.entry(queue.to_owned()).or_default().messages;
        messages.iter().map(|it| serde_json::from_str(&it.body).unwrap()).collect()
    }

    /// The trace headers of all messages of a queue.
    pub fn traces(&self, queue: &str) -> Vec<Option<String>> {
        let mut queues = self.shared.queues();
        let messages = &queues.entry(queue.to_owned()).or_default().messages;
        messages.iter().map(|it| it.trace.clone()).collect()
    }

    /// The number of calls of each action since the last call of this.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.shared.calls.lock().unwrap())
    }
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, HashMap<String, Queue>> {
        self.queues.lock().unwrap()
    }

    fn random(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.random.lock().unwrap()
    }

    /// Serves one connection until the other side is gone.
    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let request = Request::read(&mut reader)?;
            let action = request.headers["x-amz-target"].trim_start_matches("AmazonSQS.");
            *self.calls.lock().unwrap().entry(action.to_owned()).or_default() += 1;
            thread::sleep(self.faults.delay);
            let is_throttled = self.random().f64() < self.faults.throttled;
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let (status, answer) = match is_throttled {
                true => (
                    "400 Bad Request",
                    json!({ "__type": "com.amazonaws.sqs#ThrottlingException" }),
                ),
                false => ("200 OK", self.answer(action, &body)),
            };
            let headers = "Content-Type: application/x-amz-json-1.0\r\n";
            respond(stream, status, headers, answer.to_string().as_bytes())?;
        }
    }

    fn answer(&self, action: &str, body: &Value) -> Value {
        let queue = body["QueueUrl"].as_str().unwrap().rsplit('/').next().unwrap();
        match action {
            "SendMessageBatch" => {
                let entries = body["Entries"].as_array().unwrap();
                assert!(entries.len() <= 10, "SQS takes ten at most");
                let sent = entries.iter().map(|entry| {
                    let text = entry["MessageBody"].as_str().unwrap().to_owned();
                    assert!(text.len() < 1024, "{text}");
                    let trace = &entry["MessageSystemAttributes"]["AWSTraceHeader"]["StringValue"];
                    let id = self.put(queue, text, trace.as_str().map(str::to_owned));
                    json!({ "Id": entry["Id"], "MessageId": id, "MD5OfMessageBody": "0" })
                });
                json!({ "Successful": sent.collect::<Vec<_>>(), "Failed": [] })
            }
            "ChangeMessageVisibility" => {
                let seconds = body["VisibilityTimeout"].as_u64().unwrap();
                assert!(seconds <= 43_200, "SQS hides a message for twelve hours at most");
                let handle = body["ReceiptHandle"].as_str().unwrap();
                let mut queues = self.queues();
                let messages = &mut queues.get_mut(queue).unwrap().messages;
                if let Some(message) = messages.iter_mut().find(|it| it.handle == handle) {
                    message.visible_at = self.clock.elapsed() + Duration::from_secs(seconds);
                }
                json!({})
            }
            "GetQueueAttributes" => {
                let now = self.clock.elapsed();
                let mut queues = self.queues();
                let messages = &queues.entry(queue.to_owned()).or_default().messages;
                let visible = messages.iter().filter(|it| it.visible_at <= now).count();
                json!({ "Attributes": {
                    "ApproximateNumberOfMessages": visible.to_string(),
                    "ApproximateNumberOfMessagesNotVisible": (messages.len() - visible).to_string(),
                    "ApproximateNumberOfMessagesDelayed": "0",
                    "RedrivePolicy": json!({
                        "deadLetterTargetArn":
                            format!("arn:aws:sqs:eu-central-1:123456789012:{queue}-dead"),
                        "maxReceiveCount": self.deliveries_max,
                    }).to_string(),
                }})
            }
            _ => panic!("unexpected action {action}"),
        }
    }

    fn put(&self, queue: &str, body: String, trace: Option<String>) -> String {
        let (id, twice) = {
            let mut random = self.random();
            (format!("{:016x}", random.u64(..)), random.f64() < self.faults.duplicates)
        };
        let visible_at = self.clock.elapsed();
        let handle = String::new();
        let message =
            Message { id: id.clone(), body, trace, visible_at, deliveries: 0, handle, twice };
        let mut queues = self.queues();
        let found = queues.entry(queue.to_owned()).or_default();
        found.messages.push(message);
        found.sent += 1;
        id
    }
}
