//! Commands that the real function runs for the command line, for databases that only it reaches.

use std::io::BufReader;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::support::Database;
use crate::support::cli::{Ended, Place, daily, day, ended};
use crate::support::http::{Request, respond};
use crate::support::invoke;
use crate::support::listening::Listening;
use crate::support::pooler::pooled;
use crate::support::runtime_api::Function;

const DAYS: u32 = 6;

/// The table's name in the environment of the function and of the commands run here.
const TABLE: (&str, &str) = ("TALLYMARK_TABLE", "tallymark-staging");

/// A database with a captured rollup, and the function's environment.
struct Scene {
    place: Place,
    environment: Vec<(&'static str, String)>,
    _database: Database,
}

impl Scene {
    async fn new(more: &str) -> Self {
        let (mut place, database) = Place::with_events(DAYS).await;
        let rollups = daily(DAYS).replace("slice = ", "late = \"capture\"\nslice = ");
        place.configure(&format!("{rollups}{more}"));
        let environment = vec![
            ("TALLYMARK_CONFIG", place.config().display().to_string()),
            ("SOURCE_DATABASE_URL", pooled(&place.source_url)),
            ("TARGET_DATABASE_URL", pooled(&place.target_url)),
            ("AWS_ENDPOINT_URL_DYNAMODB", place.endpoint().clone()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            (TABLE.0, TABLE.1.to_owned()),
        ];
        Self { place, environment, _database: database }
    }

    fn function(&self) -> Function {
        let pairs: Vec<_> =
            self.environment.iter().map(|(name, it)| (*name, it.as_str())).collect();
        Function::start(&pairs)
    }

    /// Runs a command here.
    fn here(&self, arguments: &[&str]) -> Ended {
        ended(self.place.command(arguments).env(TABLE.0, TABLE.1))
    }
}

/// Runs a command at a desk that reaches the function alone: it has no configuration, and knows no
/// database.
fn at_a_desk(scene: &Scene, desk: &TempDir, lambda: &str, arguments: &[&str]) -> Ended {
    let arguments = [arguments, &["--via", "tallymark"]].concat();
    let mut command = scene.place.command(&arguments);
    ended(
        command
            .current_dir(desk.path())
            .env("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9")
            .env("AWS_ENDPOINT_URL_LAMBDA", lambda)
            .env_remove("SOURCE_DATABASE_URL")
            .env_remove("TARGET_DATABASE_URL"),
    )
}

/// Text with each number as `#`, as times and estimates differ between two runs.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter.is_ascii_digit() {
            true if out.ends_with('#') => {}
            true => out.push('#'),
            false => out.push(letter),
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_the_function_prints_and_ends_as_it_does_here() {
    let scene = Scene::new("").await;
    let lambda = invoke::serve(scene.function(), Duration::ZERO);
    let (desk, lambda) = (TempDir::new().unwrap(), lambda.endpoint());
    let there = |arguments: &[&str]| at_a_desk(&scene, &desk, &lambda, arguments);
    let same = |arguments: &[&str], code: i32| {
        for arguments in [arguments.to_vec(), [arguments, &["--json"]].concat()] {
            let [one, other] = [scene.here(&arguments), there(&arguments)];
            assert_eq!((one.code, other.code), (Some(code), Some(code)), "{one:?} {other:?}");
            let [one, other] =
                [one, other].map(|it| [it.out, it.err].map(|it| without_numbers(&it)));
            assert_eq!(one, other, "{arguments:?}");
        }
    };
    same(&["check"], 0);
    same(&["init", "--dry-run"], 0);
    let init = there(&["init", "--json"]).good().json();
    assert_eq!(init["checkpoint_table"], json!({ "name": TABLE.1, "state": "created" }));
    same(&["init"], 0);
    same(&["capture", "status"], 1);
    let installed = scene.here(&["capture", "install"]).good().out;
    assert!(!installed.contains("hint"), "nothing was computed before: {installed}");
    scene.here(&["backfill", "daily", "--yes"]).good();
    for arguments in [
        &["check"] as &[&str],
        &["capture", "status"],
        &["plan"],
        &["plan", "daily", "--from", &day(4).to_string(), "--force"],
        &["preview", "daily"],
        &["preview", "daily", "--slice", &day(2).to_string(), "--sql"],
        &["status", "--lines", "1"],
        &["repair", "--dry-run"],
        &["purgeable"],
        &["verify"],
        &["verify", "--sample", "2", "--seed", "7"],
        &["verify", "daily", "--slice", &day(2).to_string()],
        &["adopt", "stats.daily", "--rollup", "daily"],
    ] {
        same(arguments, 0);
    }
    let file = scene.place.config().with_file_name("page.html");
    there(&["status", "--html", file.to_str().unwrap()]).good();
    let page = std::fs::read_to_string(file).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("All rollups"), "{page}");
    let check = there(&["check"]).good().out;
    assert!(
        check.contains("table tallymark-staging is ACTIVE, named by TALLYMARK_TABLE"),
        "{check}"
    );
    // A difference, and what is refused.
    crate::support::cli::execute(
        &scene.place.target_url,
        "UPDATE stats.daily SET events = events + 1",
    )
    .await;
    same(&["verify"], 1);
    same(&["verify", "nightly"], 2);
    same(&["purgeable", "nothing"], 2);
    same(&["adopt", "stats.nothing", "--rollup", "daily"], 2);
    let late = ["purgeable", "events", "--seal", "--before", "2999-01-01"];
    same(&late, 2);
    same(&["verify", "daily", "--slice", "2020-02-30"], 2);
    scene.place.sql("DROP TABLE events").await;
    same(&["check"], 2);
    same(&["verify"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_whose_time_is_up_continues_where_it_ended() {
    let scene = Scene::new("").await;
    scene.here(&["init"]).good();
    scene.here(&["capture", "install"]).good();
    scene.here(&["backfill", "daily", "--yes"]).good();
    let mut function = scene.function();
    let start = day(2).to_string();
    let verify = |more: Value| {
        let mut arguments = json!({ "rollup": "daily" });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "trigger": "command", "command": "verify", "arguments": arguments })
    };
    // The comparison waits for this lock until its time is up.
    let mut owner = PgConnection::connect(&scene.place.target_url).await.unwrap();
    let lock = "BEGIN; LOCK TABLE stats.daily IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut owner).await.unwrap();
    let body = verify(json!({ "slice": start })).to_string().into_bytes();
    let cut = function.invoke_with(body, Duration::from_secs(8));
    sqlx::raw_sql("ROLLBACK").execute(&mut owner).await.unwrap();
    let cut = cut.response();
    let next = json!({ "rollup": "daily", "start": format!("{start}T00:00:00Z"), "doubtful": [] });
    assert_eq!(
        (&cut["exit"], &cut["document"]["left"], &cut["next"]),
        (&json!(0), &json!(1), &next)
    );
    let text = cut["output"][0]["text"].as_str().unwrap();
    assert!(text.contains("1 slice not compared yet, as the time was up"), "{text}");
    // From there, the two newest days are compared.
    let rest = function.invoke(&verify(json!({ "after": next })));
    let rest = rest.response();
    assert_eq!((&rest["document"]["slices"], &rest["next"]), (&json!(2), &Value::Null), "{rest:#}");
    // Any other command ends with an error.
    sqlx::raw_sql("BEGIN; LOCK TABLE stats.daily IN ACCESS EXCLUSIVE MODE")
        .execute(&mut owner)
        .await
        .unwrap();
    let init = json!({ "trigger": "command", "command": "init" }).to_string().into_bytes();
    let cut = function.invoke_with(init, Duration::from_secs(8));
    let (kind, message) = cut.error();
    assert_eq!(kind, "OutOfTime");
    assert!(message.contains("before the command `init` had ended; hint: raise"), "{message}");
    owner.close().await.unwrap();
}

/// Answers of a function, and the events that it received.
struct Script {
    answers: Mutex<std::vec::IntoIter<Value>>,
    events: Mutex<Sender<Value>>,
}

impl Script {
    /// Serves `Invoke` with these answers, one after another.
    fn start(answers: Vec<Value>) -> (Listening, Receiver<Value>) {
        let (events, received) = channel();
        let script = Self { answers: Mutex::new(answers.into_iter()), events: Mutex::new(events) };
        (Listening::start(move |stream| script.serve(&stream)), received)
    }

    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let request = Request::read(&mut reader)?;
            let event = serde_json::from_slice(&request.body).unwrap();
            self.events.lock().unwrap().send(event).ok()?;
            let answer = self.answers.lock().unwrap().next().unwrap().to_string();
            let headers = "Content-Type: application/json\r\n";
            respond(stream, "200 OK", headers, answer.as_bytes())?;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_follows_a_comparison_in_parts_and_adds_them_up() {
    let scene = Scene::new("").await;
    let desk = TempDir::new().unwrap();
    let next = json!({ "rollup": "daily", "start": "2026-01-03T00:00:00Z", "doubtful": ["daily"] });
    let part = |slices: u32, left: u32, pending: Value, next: Value| {
        json!({
            "trigger": "command", "command": "verify", "exit": 0, "next": next,
            "document": { "slices": slices, "unfinished": 1, "left": left, "pending": pending,
                "differences": 2, "drifted": [{ "start": slices }], "outside": [], "broken": [] },
            "output": [{ "kind": "note", "text": "a note" }, { "kind": "result", "text": format!("{slices} compared") }],
        })
    };
    let parts = vec![part(5, 4, json!(["a"]), next.clone()), part(4, 0, json!(["b"]), Value::Null)];
    let (lambda, events) = Script::start(parts.clone());
    let verify = ["verify", "--sample", "9", "--json"];
    let whole = at_a_desk(&scene, &desk, &lambda.endpoint(), &verify).good();
    assert_eq!(whole.err, "a note\na note\n");
    assert_eq!(
        whole.json(),
        json!({ "slices": 9, "unfinished": 1, "left": 0, "pending": ["a", "b"], "differences": 4,
            "drifted": [{ "start": 5 }, { "start": 4 }], "outside": [], "broken": [] })
    );
    let [first, second] = [events.recv().unwrap(), events.recv().unwrap()];
    assert_eq!(
        (&first["arguments"]["after"], &second["arguments"]["after"]),
        (&Value::Null, &next)
    );
    assert!(first["arguments"]["seed"].is_u64(), "{first}");
    assert_eq!(first["arguments"]["seed"], second["arguments"]["seed"], "one choice");
    let (lambda, _events) = Script::start(parts);
    let text = at_a_desk(&scene, &desk, &lambda.endpoint(), &["verify"]).good();
    assert_eq!(text.out, "5 compared\n4 compared\n");
    // A function that comes no further is an error.
    let stuck = part(0, 4, json!([]), next);
    let (lambda, _events) = Script::start(vec![stuck.clone(), stuck]);
    let stuck = at_a_desk(&scene, &desk, &lambda.endpoint(), &["verify"]);
    stuck.refused(1, &["compared no slice in its time", "hint: raise the function's timeout"]);
    // So is a function that is another program's.
    let (lambda, _events) = Script::start(vec![json!("hello")]);
    let other = at_a_desk(&scene, &desk, &lambda.endpoint(), &["check"]);
    other.refused(2, &["did not answer as Tallymark does", "hint: name Tallymark's function"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_scrub_compares_an_old_slice_by_the_days_budget() {
    let scene = Scene::new("").await;
    scene.here(&["init"]).good();
    scene.here(&["capture", "install"]).good();
    scene.here(&["backfill", "daily", "--yes"]).good();
    let scrub = json!({ "trigger": "scrub", "rollup": "daily" });
    let answer = scene.function().invoke(&scrub);
    let (kind, message) = answer.error();
    assert_eq!(kind, "WrongUsage");
    assert!(message.contains("no [scrub]; hint: add [scrub]"), "{message}");
    let rollups = daily(DAYS).replace("slice = ", "late = \"capture\"\nslice = ");
    scene.place.configure(&format!("{rollups}[scrub]\nslices_per_day = 20\n"));
    let drift = "UPDATE stats.daily SET events = events + 1";
    crate::support::cli::execute(&scene.place.target_url, drift).await;
    let mut function = scene.function();
    let answer = function.invoke(&scrub);
    let found = &answer.response()["scrub"];
    assert_eq!((&found["verified"], &found["differing"]), (&json!(1), &json!(1)), "{found:#}");
    assert_eq!(found["drifted"][0]["rollup"], "daily");
    // The next slice is due later.
    let answer = function.invoke(&json!({ "trigger": "scrub" }));
    assert_eq!(answer.response()["scrub"]["verified"], 0);
    let answer = function.invoke(&json!({ "trigger": "scrub", "rollup": "nightly" }));
    assert_eq!(answer.error().0, "EventNotUnderstood");
}
