//! The complete fan-out: real functions behind the runtime API, fed from queues that deliver twice,
//! late and in any order, on servers that throttle, with random kills.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, DurationRound as _, TimeDelta, Timelike as _, Utc};
use serde_json::{Value, json};
use tallymark::model::clock::{Clock, Stopwatch, SystemClock};
use tempfile::TempDir;

use crate::support::Database;
use crate::support::cli::{Place, ended, execute, lines};
use crate::support::invoke;
use crate::support::kept::Kept;
use crate::support::proxy::Unreliable;
use crate::support::runtime_api::{Answer, Function};
use crate::support::share;
use crate::support::sqs::{Faults, Sqs};

/// Lambda's limit of an invocation here.
const BUDGET: Duration = Duration::from_secs(8);

/// An emulated account: the databases, the services, and the environment of its function.
pub(crate) struct Account {
    pub(crate) place: Place,
    pub(crate) sqs: Sqs,
    pub(crate) environment: Vec<(&'static str, String)>,
    _config: TempDir,
    _database: Database,
}

impl Account {
    /// A rollup of `hours` hours until now, with `rows` rows each.
    pub(crate) async fn new(hours: u32, rows: u32, late: &str, faults: Faults) -> Self {
        Self::keeping(hours, rows, late, faults, "").await
    }

    /// As [`Account::new`], with a section about the store of checkpoints.
    pub(crate) async fn keeping(
        hours: u32,
        rows: u32,
        late: &str,
        faults: Faults,
        store: &str,
    ) -> Self {
        let database = Database::create().await;
        let start = this_hour() - TimeDelta::hours(hours.into());
        let rollups = format!(
            "[[rollup]]\nname = \"hourly\"\nfrom = \"public.events\"\ntime = \"at\"\nstart = \"{}\"\n\
             timezone = \"{}\"\nslice = \"1 hour\"\ngrace = \"1 second\"\nlate = \"{late}\"\ngroup_by = [\"kind\"]\n\
             measures = {{ events = \"count\", amount = {{ sum = \"amount\" }} }}\n",
            start.to_rfc3339(),
            zone().0
        );
        let mut place = Place::new(&database.url(), &database.url(), &rollups).await;
        // One database: no [target].
        let config = TempDir::new().unwrap();
        let text = format!(
            "[source]\nurl = {{ env = \"SOURCE_DATABASE_URL\" }}\nnice_ratio = 0\nslots = 4\n{store}{rollups}"
        );
        std::fs::write(place.config(), &text).unwrap();
        std::fs::write(config.path().join("tallymark.toml"), &text).unwrap();
        place
            .sql(&format!(
                "CREATE TABLE events (at timestamptz NOT NULL, kind text, amount numeric); \
                 INSERT INTO events SELECT h + n * interval '1 minute', \
                 (ARRAY['view', 'buy', NULL])[1 + n % 3], n FROM generate_series('{start}'::timestamptz, \
                 '{start}'::timestamptz + interval '{hours} hours' - interval '1 second', '1 hour') h, \
                 generate_series(1, {rows}) n; CREATE INDEX ON events (at); ANALYZE events"
            ))
            .await;
        place.run(&["init"]).good();
        if late == "capture" {
            place.run(&["capture", "install"]).good();
        }
        let sqs = Sqs::start(fastrand::u64(..), faults, Duration::from_secs(20), 20);
        let environment = vec![
            ("TALLYMARK_CONFIG", config.path().join("tallymark.toml").display().to_string()),
            ("SOURCE_DATABASE_URL", crate::support::pooler::pooled(&place.source_url)),
            ("AWS_ENDPOINT_URL_DYNAMODB", place.endpoint().clone()),
            ("AWS_ENDPOINT_URL_SQS", sqs.endpoint()),
            ("TALLYMARK_QUEUE_URL", sqs.url("fresh")),
            ("TALLYMARK_BACKFILL_QUEUE_URL", sqs.url("backfill")),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
        ];
        Self { place, sqs, environment, _config: config, _database: database }
    }

    pub(crate) fn function(&self) -> Function {
        let pairs: Vec<_> =
            self.environment.iter().map(|(name, it)| (*name, it.as_str())).collect();
        Function::start(&pairs)
    }

    /// Groups in which the rollup and one `GROUP BY` of its source differ.
    pub(crate) async fn differences(&self) -> String {
        let now = this_hour().to_rfc3339();
        let sql = format!(
            "WITH wanted AS (SELECT date_bin('1 hour', at, '{now}') AS bucket, kind, \
             count(*) AS events, sum(amount) AS amount FROM events WHERE at < '{now}' \
             GROUP BY 1, 2), found AS (SELECT bucket, kind, events, amount FROM stats.hourly) \
             SELECT (SELECT count(*) FROM (TABLE wanted EXCEPT ALL TABLE found) AS lacking) + \
             (SELECT count(*) FROM (TABLE found EXCEPT ALL TABLE wanted) AS surplus)"
        );
        lines(&self.place.target_url, &sql).await.join("")
    }
}

/// The zone whose hours the tests of this process count: one whose present hour goes on for half an
/// hour at least, as a new one in the middle of a test would be due too.
fn zone() -> (&'static str, TimeDelta) {
    static ZONE: OnceLock<(&str, TimeDelta)> = OnceLock::new();
    *ZONE.get_or_init(|| match SystemClock.now().minute() {
        ..30 => ("Asia/Karachi", TimeDelta::zero()),
        30.. => ("Asia/Kolkata", TimeDelta::minutes(30)),
    })
}

/// The start of the present hour in the zone of the tests.
pub(crate) fn this_hour() -> DateTime<Utc> {
    let (_, past) = zone();
    (SystemClock.now() - past).duration_trunc(TimeDelta::hours(1)).unwrap() + past
}

pub(crate) fn scheduled() -> Value {
    json!({
        "id": "cdc73f9d-aea9-11e3-9d5a-835b769c0d9c", "detail-type": "Scheduled Event",
        "source": "aws.events", "account": "123456789012", "region": "eu-central-1",
        "time": SystemClock.now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        "resources": ["arn:aws:events:eu-central-1:123456789012:rule/tick"], "detail": {},
    })
}

pub(crate) fn backfill(hours: u32, force: bool) -> Value {
    let from = this_hour() - TimeDelta::hours(hours.into());
    json!({
        "trigger": "backfill", "rollup": "hourly", "from": from.to_rfc3339(),
        "to": this_hour().to_rfc3339(), "order": "newest_first", "force": force,
    })
}

/// Functions that take messages from the queues, as event source mappings feed them, and one that
/// ticks.
pub(crate) struct Fleet {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
    killed: Arc<AtomicUsize>,
}

impl Fleet {
    /// `each` functions for each queue. The share `kills` of invocations is killed, if they last
    /// long enough.
    pub(crate) fn start(account: &Account, each: usize, kills: f64, tick: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let killed = Arc::new(AtomicUsize::new(0));
        let environment = Arc::new(account.environment.clone());
        let mut threads = Vec::new();
        for queue in ["fresh", "backfill"] {
            for _ in 0..each {
                let (stop, killed) = (Arc::clone(&stop), Arc::clone(&killed));
                let (sqs, environment) = (account.sqs.clone(), Arc::clone(&environment));
                threads.push(thread::spawn(move || {
                    let mut worker = Mortal { environment, kills, killed, function: None };
                    while !stop.load(Ordering::SeqCst) {
                        let Some((event, handle)) = sqs.receive(queue) else {
                            thread::sleep(Duration::from_millis(20));
                            continue;
                        };
                        let answer = worker.invoke(&event);
                        let is_over = |answer: &Answer| {
                            answer.response()["batchItemFailures"].as_array().unwrap().is_empty()
                        };
                        if answer.as_ref().is_some_and(is_over) {
                            sqs.delete(queue, &handle);
                        }
                    }
                }));
            }
        }
        let ended = Arc::clone(&stop);
        let killed_too = Arc::clone(&killed);
        threads.push(thread::spawn(move || {
            let mut worker = Mortal { environment, kills, killed: killed_too, function: None };
            while !ended.load(Ordering::SeqCst) {
                // At least once.
                for _ in 0..if fastrand::u8(..10) == 0 { 2 } else { 1 } {
                    worker.invoke(&scheduled());
                }
                thread::sleep(tick);
            }
        }));
        Self { stop, threads, killed }
    }

    /// Lets the present work end, and returns how many functions were killed.
    pub(crate) fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.killed.load(Ordering::SeqCst)
    }
}

/// A function that is killed now and then, and started again.
struct Mortal {
    environment: Arc<Vec<(&'static str, String)>>,
    kills: f64,
    killed: Arc<AtomicUsize>,
    function: Option<Function>,
}

impl Mortal {
    fn invoke(&mut self, event: &Value) -> Option<Answer> {
        let pairs: Vec<_> =
            self.environment.iter().map(|(name, it)| (*name, it.as_str())).collect();
        let mut function = self.function.take().unwrap_or_else(|| Function::start(&pairs));
        let patience = match fastrand::f64() < self.kills {
            true => Duration::from_millis(fastrand::u64(1..200)),
            false => Duration::from_secs(60),
        };
        let answer = function.invoke_or_kill(event, BUDGET, patience);
        match &answer {
            Some(_) => self.function = Some(function),
            None => {
                self.killed.fetch_add(1, Ordering::SeqCst);
            }
        }
        answer
    }
}

/// Waits until no slice is due and no message is left.
pub(crate) async fn quiesce(account: &Account, limit: Duration) {
    let watch = Stopwatch::start();
    loop {
        let checkpoints = account.place.checkpoints();
        let unfinished = checkpoints.unfinished("hourly").await.unwrap();
        let seen = checkpoints.watermark("hourly").await.unwrap();
        let left = ["fresh", "backfill"].map(|queue| account.sqs.account(queue).left);
        let marks = "SELECT count(*) FROM tallymark.mark";
        let is_captured =
            lines(&account.place.source_url, "SELECT to_regclass('tallymark.mark')").await;
        let marks = match is_captured[0].as_str() {
            "()" => "(0)".to_owned(),
            _ => lines(&account.place.source_url, marks).await.join(""),
        };
        // The watermark may be some slices behind the finished ones.
        let until = seen.until().unwrap_or_else(|| this_hour() - TimeDelta::days(36_500));
        let done = checkpoints.range("hourly", until, this_hour()).await.unwrap().len();
        let is_through = until + TimeDelta::hours(done.try_into().unwrap()) >= this_hour();
        let is_idle = seen.backfill().is_none() && unfinished.is_empty() && left == [0, 0];
        if is_through && is_idle && marks == "(0)" {
            return;
        }
        assert!(
            watch.elapsed() < limit,
            "not quiet after {limit:?}: watermark {:?}, backfill {:?}, {} unfinished, messages {left:?}, marks {marks}",
            seen.until(),
            seen.backfill(),
            unfinished.len(),
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Hours of the long test: four days, a month with `TALLYMARK_TESTS=all`, or the number in the
/// environment (a year has 8,760).
fn hours() -> u32 {
    let usual = if share::is_whole() { 720 } else { 96 };
    std::env::var("TALLYMARK_TEST_HOURS").map_or(usual, |hours| hours.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_is_exact_whatever_happens_to_messages_and_functions() {
    let hours = hours();
    let faults = Faults { duplicates: 0.05, throttled: 0.02, delay: Duration::ZERO };
    let account = Account::new(hours, 6, "capture", faults).await;
    for dead in ["not json", r#"{"trigger":"slice","rollup":"nobody","start":"2026-01-01"}"#] {
        account.sqs.send("backfill", dead);
    }
    let mut planner = account.function();
    let answer = planner.invoke(&backfill(hours, false));
    assert_eq!(answer.response()["backfill"]["state"], "running", "{answer:?}");
    assert_eq!(answer.response()["backfill"]["sent"], hours, "{answer:?}");
    let fleet = Fleet::start(&account, 2, 0.05, Duration::from_secs(2));
    // Late rows during all of it, in finished slices and others.
    for n in 0..20 {
        let late = this_hour() - TimeDelta::hours(fastrand::i64(1..i64::from(hours)));
        let sql = format!("INSERT INTO events VALUES ('{}', 'late', {n})", late.to_rfc3339());
        execute(&account.place.source_url, &sql).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let watch = Stopwatch::start();
    while account.sqs.account("backfill").left > hours as usize / 2 {
        assert!(watch.elapsed() < Duration::from_secs(1200), "too slow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let purged = account.sqs.purge("backfill") + account.sqs.purge("fresh");
    assert!(purged > 0, "nothing was left to purge");
    quiesce(&account, Duration::from_secs(1200)).await;
    let killed = fleet.end();
    println!("{hours} slices, {purged} messages purged, {killed} functions killed");
    assert_eq!(account.differences().await, "(0)");
    for queue in ["fresh", "backfill"] {
        let it = account.sqs.account(queue);
        assert_eq!(it.sent, it.deleted + it.purged + it.dead + it.left, "{queue}: {it:?}");
    }
    assert_eq!(account.sqs.dead("fresh"), Vec::<String>::new());
    let known: BTreeSet<_> = account.sqs.dead("backfill").into_iter().collect();
    for dead in known {
        assert!(dead == "not json" || dead.contains("nobody"), "{dead} does not belong there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_understood_is_tried_once_and_logged_once() {
    let account = Account::new(2, 1, "grace", Faults::default()).await;
    let mut function = account.function();
    // A message and an invocation that no function will understand.
    account.sqs.send("fresh", "no slice");
    let (event, handle) = account.sqs.receive("fresh").unwrap();
    let answer = function.invoke(&event);
    assert_eq!(answer.response()["batchItemFailures"], json!([]), "acknowledged");
    account.sqs.delete("fresh", &handle);
    let (buried, _) = account.sqs.receive("fresh-dead").unwrap();
    assert_eq!(buried["Records"][0]["body"], "no slice");
    let answer = function.invoke(&json!({ "trigger": "breakfast" }));
    assert_eq!(answer.error().0, "EventNotUnderstood");
    let lines = function.stop().stdout;
    let errors = |word: &str| {
        lines.iter().filter(|line| line.contains("\"ERROR\"") && line.contains(word)).count()
    };
    assert_eq!(
        (errors("message could not be worked on"), errors("breakfast")),
        (1, 1),
        "{lines:?}"
    );
    assert_eq!(errors(""), 2, "{lines:?}");
}

/// Ten years of hours are planned by functions that are killed meanwhile. Every slice is sent, in
/// little memory.
#[tokio::test(flavor = "multi_thread")]
async fn planning_ten_years_of_hours_survives_being_killed() {
    const HOURS: u32 = 87_660;
    const MEMORY_MAX_KB: u64 = 128 * 1024;
    let delay = Duration::from_millis(10);
    let mut account = Account::new(HOURS, 1, "grace", Faults { delay, ..Faults::default() }).await;
    let slow = Unreliable::slow(account.place.endpoint(), delay);
    for (name, value) in &mut account.environment {
        if *name == "AWS_ENDPOINT_URL_DYNAMODB" {
            value.clone_from(&slow.endpoint);
        }
    }
    let quarter = Duration::from_secs(900);
    let mut first = account.function();
    let began = first.invoke_or_kill(&backfill(HOURS, false), quarter, Duration::from_secs(3));
    assert_eq!(began, None, "it was done before it could be killed");
    let before = account.sqs.account("backfill").sent;
    assert!(before > 0 && before < HOURS as usize, "{before} were sent");
    let mut second = account.function();
    // The tick finds the backfill by itself, and continues where the first one stopped.
    let answer = second.invoke_or_kill(&scheduled(), quarter, Duration::from_secs(600)).unwrap();
    let sent = answer.response()["sent"].as_u64().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", second.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < MEMORY_MAX_KB, "{peak} kB");
    let bodies = account.sqs.bodies("backfill");
    let starts: BTreeSet<_> = bodies.iter().map(|it| it["start"].as_str().unwrap()).collect();
    println!("{before} messages before the kill, {sent} after, peak {peak} kB");
    assert_eq!(starts.len(), HOURS as usize);
    assert!(bodies.len() < HOURS as usize + 1200, "{} were sent in all", bodies.len());
}

/// The figures that docs/COST.md uses.
#[tokio::test(flavor = "multi_thread")]
async fn a_slice_costs_two_writes_one_read_and_a_tenth_of_a_send() {
    const HOURS: u32 = 100;
    let mut account = Account::new(HOURS, 2, "grace", Faults::default()).await;
    let counting = Unreliable::counting(account.place.endpoint());
    for (name, value) in &mut account.environment {
        if *name == "AWS_ENDPOINT_URL_DYNAMODB" {
            value.clone_from(&counting.endpoint);
        }
    }
    let mut function = account.function();
    let answer = function.invoke(&backfill(HOURS, false));
    assert_eq!(answer.response()["backfill"]["sent"], HOURS);
    assert_eq!(account.sqs.calls()["SendMessageBatch"], HOURS as usize / 10);
    let planning = counting.asked().len();
    assert!(planning < 15, "{planning} calls to plan");
    let traces: BTreeSet<_> = account.sqs.traces("backfill").into_iter().collect();
    assert_eq!(traces.len(), 1, "{traces:?}");
    assert!(traces.first().unwrap().as_ref().unwrap().starts_with("Root="), "{traces:?}");
    while let Some((event, handle)) = account.sqs.receive("backfill") {
        let answer = function.invoke(&event);
        assert_eq!(answer.response()["batchItemFailures"], json!([]));
        account.sqs.delete("backfill", &handle);
    }
    let asked = counting.asked();
    let count = |name: &str| asked.iter().filter(|it| *it == name).count();
    assert_eq!(count("UpdateItem"), 2 * HOURS as usize);
    // One more is the backfill's request, read once by each process.
    assert_eq!(count("GetItem"), HOURS as usize + 1);
    // And the measured pace of the rollup, for a process that does not know it yet.
    assert_eq!((count("Query"), asked.len()), (1, 3 * HOURS as usize + 2));
    assert_eq!(account.differences().await, "(0)");
    let output = function.stop();
    // Lambda adds three lines of its own: START, END, REPORT.
    let written = 300 * HOURS as usize + output.stdout.iter().map(String::len).sum::<usize>();
    let each = written as f64 / f64::from(HOURS);
    assert!(each <= tallymark::work::price::LOG_BYTES_PER_SLICE, "{each} bytes of log a slice");
    let log = output.log();
    let metrics: Vec<_> = log.iter().filter(|line| line["message"] == "metrics").collect();
    assert_eq!(
        metrics.iter().filter(|line| line["SlicesSucceeded"] == 1.0).count(),
        HOURS as usize
    );
}

/// The actions that the statements of `template.yaml` allow the function itself, each with its
/// service.
fn allowed() -> BTreeSet<String> {
    /// The statements for actions in the function's name: Lambda writes its log, receives its
    /// messages and stores failed events; Systems Manager, SQS and DynamoDB use keys; a database
    /// accepts a login. And the refusals.
    const OTHERS: [&str; 12] = [
        "WriteLogs",
        "ReceiveSlices",
        "KeepFailedInvocations",
        "DecryptSecrets",
        "EncryptMessages",
        "EncryptCheckpoints",
        "ConnectToSource",
        "ConnectToTarget",
        "RefuseWithoutTls",
        "BeTheFunction",
        "KeepUndeliveredTicks",
        "TellOfAlarms",
    ];
    let template = include_str!("../../template.yaml");
    let statements = template.split("- Sid: ").skip(1);
    let ours = statements.filter(|text| OTHERS.iter().all(|sid| !text.starts_with(sid)));
    let actions = ours.map(|text| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Action:"));
        line.unwrap().trim().trim_matches(['[', ']']).to_owned()
    });
    actions.flat_map(|line| line.split(", ").map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Runs each command that the function knows, and a scrub.
fn run_each_command(function: &mut Function) {
    for command in ["init", "check", "verify", "capture_status", "plan", "status", "repair"] {
        let event = json!({ "trigger": "command", "command": command });
        assert!(function.invoke(&event).response()["document"].is_object(), "{command}");
    }
    function.invoke(&json!({ "trigger": "scrub" }));
}

/// The template allows exactly the calls of all possible requests.
#[tokio::test(flavor = "multi_thread")]
async fn the_template_allows_what_the_function_calls_and_nothing_else() {
    const HOURS: u32 = 30;
    let mut account = Account::new(HOURS, 2, "capture", Faults::default()).await;
    let counting = Unreliable::counting(account.place.endpoint());
    let kept = Kept::start();
    let text = std::fs::read_to_string(account.place.config()).unwrap();
    let text =
        text.replace("url = { env = \"SOURCE_DATABASE_URL\" }", "url = { secret = \"app/db\" }");
    let text = format!("{text}\n[scrub]\nslices_per_day = 1000\n");
    kept.keep("config", &text);
    kept.keep("app/db", &crate::support::pooler::pooled(&account.place.source_url));
    account
        .environment
        .retain(|(name, _)| !["TALLYMARK_CONFIG", "AWS_ENDPOINT_URL_DYNAMODB"].contains(name));
    account.environment.extend([
        ("TALLYMARK_CONFIG_PARAMETER", "config".to_owned()),
        ("AWS_ENDPOINT_URL_SSM", kept.endpoint.clone()),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", kept.endpoint.clone()),
        ("AWS_ENDPOINT_URL_DYNAMODB", counting.endpoint.clone()),
    ]);
    let mut function = account.function();
    function.invoke(&scheduled());
    // The sent messages are gone, and the tick below notices it.
    let gone = account.sqs.purge("fresh");
    let start = |hours: i64| (this_hour() - TimeDelta::hours(hours)).to_rfc3339();
    for event in [
        scheduled(),
        backfill(HOURS, false),
        backfill(HOURS, false),
        json!({ "trigger": "slice", "rollup": "hourly", "start": start(3) }),
        json!({ "trigger": "replay", "rollup": "hourly", "start": start(3), "reason": "a test" }),
        json!({ "trigger": "replay", "rollup": "hourly", "failed": true, "reason": "a test" }),
    ] {
        function.invoke(&event);
    }
    assert!(gone > 0 && account.sqs.account("fresh").left == gone, "sent again");
    // Held by another worker, so it comes back when the lease ends.
    let claim = tallymark::checkpoint::Claim {
        rollup: "hourly",
        slice_start: this_hour() - TimeDelta::hours(5),
        definition: "another",
        now: SystemClock.now(),
        deadline: SystemClock.now() + TimeDelta::minutes(5),
    };
    account.place.checkpoints().claim(&claim).await.unwrap();
    for queue in ["fresh", "backfill"] {
        while let Some((event, handle)) = account.sqs.receive(queue) {
            let back = function.invoke(&event);
            if back.response()["batchItemFailures"] == json!([]) {
                account.sqs.delete(queue, &handle);
            }
        }
    }
    account.place.sql(&format!("INSERT INTO events VALUES ('{}', 'late', 1)", start(4))).await;
    for _ in 0..3 {
        function.invoke(&scheduled());
    }
    run_each_command(&mut function);
    let service = |name: &str, action: &str| match action {
        // The action of a batch is that of its messages.
        "SendMessageBatch" => "sqs:SendMessage".to_owned(),
        // ... and that of a transaction those of its parts, which here are updates.
        "TransactWriteItems" => "dynamodb:UpdateItem".to_owned(),
        action => format!("{name}:{action}"),
    };
    let mut called: BTreeSet<_> =
        counting.asked().iter().map(|action| service("dynamodb", action)).collect();
    called.extend(account.sqs.calls().keys().map(|action| service("sqs", action)));
    called.extend(kept.asked().iter().map(|action| {
        let (name, action) = action.split_once('.').unwrap();
        service(&name.to_lowercase().replace("amazonssm", "ssm"), action)
    }));
    assert_eq!(called, allowed());
}

/// A message comes back when that makes sense, and never if it cannot succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_backfill_takes_its_messages_from_the_queue_and_goes_on_after() {
    const HOURS: u32 = 60;
    let account = Account::new(HOURS, 2, "grace", Faults::default()).await;
    let mut function = account.function();
    let answer = function.invoke(&backfill(HOURS, false));
    let id = answer.response()["backfill"]["id"].as_str().unwrap().to_owned();
    // The same event again means the same backfill.
    let again = function.invoke(&backfill(HOURS, false));
    assert_eq!(again.response()["backfill"]["id"], id);
    let mut open = backfill(HOURS, false);
    open["to"] = Value::Null;
    assert_eq!(function.invoke(&open).response()["backfill"]["id"], id);
    // Another one has to wait.
    let other = function.invoke(&backfill(HOURS, true));
    assert_eq!(other.error().0, "WrongUsage");
    account.place.run(&["backfill", "pause", "hourly", "--reason", "a sale"]).good();
    let mut back = 0;
    while let Some((event, handle)) = account.sqs.receive("backfill") {
        back += function.invoke(&event).response()["batchItemFailures"].as_array().unwrap().len();
        account.sqs.delete("backfill", &handle);
    }
    assert_eq!(back, 0, "a paused message spins in the queue");
    let status = account.place.json(&["backfill", "status", "hourly"]);
    assert_eq!(status["progress"]["done"], 0, "{status:#}");
    account.place.run(&["backfill", "resume", "hourly"]).good();
    account.place.run(&["backfill", "cancel", "hourly"]).good();
    // Its messages are obsolete now, and a tick starts no other backfill.
    account.sqs.send(
        "backfill",
        &json!({"trigger":"slice","rollup":"hourly",
        "start": (this_hour() - TimeDelta::hours(50)).to_rfc3339(), "backfill": id})
        .to_string(),
    );
    let (event, _) = account.sqs.receive("backfill").unwrap();
    assert_eq!(function.invoke(&event).response()["batchItemFailures"], json!([]));
    let tick = function.invoke(&scheduled());
    let held = tick.response()["held"].to_string();
    assert!(held.contains("tallymark backfill start hourly"), "{held}");
    let list = account.place.json(&["backfill", "list"]);
    assert_eq!(list["backfills"][0]["state"], "cancelled", "{list:#}");
    // The newest slices are fresh, independent of the history.
    assert_eq!(tick.response()["sent"], 24);
    assert_eq!(account.sqs.account("backfill").left, 1);
}

/// With `force`, slices that had succeeded before run again, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_forced_backfill_recomputes_each_slice_once() {
    const HOURS: u32 = 30;
    let account = Account::new(HOURS, 2, "grace", Faults::default()).await;
    account.place.run(&["backfill", "hourly", "--yes"]).good();
    account.place.sql("UPDATE events SET amount = amount + 1").await;
    let mut function = account.function();
    let answer = function.invoke(&backfill(HOURS, true));
    assert_eq!(answer.response()["backfill"]["sent"], HOURS);
    let mut ran = 0;
    for round in 0..2 {
        let bodies: Vec<_> = account.sqs.bodies("backfill");
        while let Some((event, handle)) = account.sqs.receive("backfill") {
            assert_eq!(function.invoke(&event).response()["batchItemFailures"], json!([]));
            account.sqs.delete("backfill", &handle);
            ran += 1;
        }
        assert_eq!(account.differences().await, "(0)");
        if round == 0 {
            // Each message comes a second time.
            bodies.iter().for_each(|body| account.sqs.send("backfill", &body.to_string()));
        }
    }
    assert_eq!(ran, 2 * HOURS);
    let attempts = Mutex::new(BTreeSet::new());
    for hour in 1..=HOURS {
        let start = this_hour() - TimeDelta::hours(hour.into());
        let found = account.place.checkpoints().get("hourly", start).await.unwrap().unwrap();
        attempts.lock().unwrap().insert(found.attempt);
    }
    assert_eq!(attempts.into_inner().unwrap(), BTreeSet::from([2]));
    let status = account.place.json(&["backfill", "status", "hourly"]);
    assert_eq!(status["progress"]["computed"], HOURS, "{status:#}");
}

/// An operator at a command line, with a deployed function.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lets_the_function_work_and_shows_what_it_did() {
    const HOURS: u32 = 40;
    let account = Account::new(HOURS, 2, "grace", Faults::default()).await;
    // Longer than any other call to AWS may take.
    let lambda = invoke::serve(account.function(), Duration::from_secs(3));
    let run = |arguments: &[&str]| {
        let mut command = account.place.command(arguments);
        ended(command.env("AWS_ENDPOINT_URL_LAMBDA", lambda.endpoint()))
    };
    let hour = |hours: i64| (this_hour() - TimeDelta::hours(hours)).to_rfc3339();
    let one = run(&["run", "hourly", "--slice", &hour(2), "--via", "tallymark"]).good();
    assert!(one.out.contains("  succeeded") && !one.out.contains('{'), "{}", one.out);
    assert!(one.err.contains("succeeded: 2 rows, 2 groups"), "{}", one.err);
    let again = ["replay", "hourly", "--slice", &hour(2), "--yes", "--via", "tallymark"];
    let again = run(&again).good();
    assert!(again.out.contains("  succeeded") && !again.out.contains('{'), "{}", again.out);
    let again = ["replay", "hourly", "--slice", &hour(2), "--yes", "--via", "tallymark", "--json"];
    assert_eq!(run(&again).good().json()[0]["slice"]["attempt"], 3);
    let tick = run(&["run", "--via", "tallymark", "--json"]).good();
    assert_eq!(tick.json()["sent"], 39, "24 fresh ones and a backfill of the rest");
    assert!(tick.json()["next_due"]["at"].is_string(), "{}", tick.out);
    let wrong = run(&["run", "hourly", "--via", "tallymark"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
    // The messages are worked on while the command watches.
    account.place.run(&["cancel", "hourly"]).good();
    let fleet = Fleet::start(&account, 1, 0.0, Duration::from_secs(2));
    let done = run(&["backfill", "--all", "--yes", "--via", "tallymark", "--json"]).good();
    let done = done.json()["rollups"].clone();
    assert_eq!(done[0]["progress"]["done"], HOURS, "{done}");
    assert_eq!(done.as_array().unwrap().len(), 1);
    fleet.end();
    assert_eq!(account.differences().await, "(0)");
    execute(&account.place.source_url, "DELETE FROM events").await;
    // The second slice is tried although the first has failed.
    let range = ["replay", "hourly", "--from", &hour(4), "--to", &hour(2)];
    let failed = run(&[&range[..], &["--yes", "--via", "tallymark"]].concat());
    assert_eq!(failed.code, Some(1), "{}", failed.err);
    assert_eq!(failed.err.matches("slice hourly@").count(), 2, "{}", failed.err);
    // The function's message is printed.
    execute(&account.place.source_url, "DROP TABLE events").await;
    let failed = run(&["replay", "hourly", "--slice", &hour(3), "--yes", "--via", "tallymark"]);
    assert_eq!(failed.code, Some(2), "{}", failed.err);
    assert!(failed.err.contains("function `tallymark`: rollup `hourly`: from"), "{}", failed.err);
}
