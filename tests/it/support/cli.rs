//! The real binary as a child process, with a configuration file and servers of its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tallymark::checkpoint::Checkpoints;
use tallymark::checkpoint::store::postgres::Postgres;
use tallymark::clients::address::{Address, DatabaseUrl};
use tallymark::clients::db::{Db, Side};
use tallymark::embedded::dynamodb::EmbeddedDynamo;
use tallymark::model::clock::Stopwatch;
use tallymark::model::visible::is_plain;
use tempfile::TempDir;

use super::Database;
use super::pooler::pooled;

/// Part of every URL, and absent from all output. The shared server does not ask for it.
pub const PASSWORD: &str = "pl4nted-s3cret";

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// The only line on stderr that reports an error.
    pub fn error(&self) -> &str {
        let lines: Vec<&str> =
            self.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(lines.len(), 1, "one error line: {self:?}");
        lines[0]
    }

    /// Asserts this exit code and, in the error line, these words. Words that begin with `hint: `
    /// must be in the hint and not in the error line. Every error has a hint.
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let (error, hint) = (self.error(), self.hint());
        // A wrong command line is answered by the parser, which says what is right in its own form.
        let has_remedy = !hint.is_empty() || self.err.contains("try '--help'");
        assert!(has_remedy, "no hint: {self:?}");
        for word in words {
            let is_there = match word.strip_prefix("hint: ") {
                Some(word) => hint.contains(word) && !error.contains(word),
                None => error.contains(word),
            };
            assert!(is_there, "`{word}` is not in {self:?}");
        }
    }

    /// The lines on stderr that say what puts an error right.
    pub fn hint(&self) -> String {
        let lines = self.err.lines().filter(|line| line.starts_with("hint: "));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// All that it printed, without the folding of lines.
    pub fn words(&self) -> String {
        let said = format!("{} {}", self.out, self.err);
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Asserts success.
    pub fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The JSON document on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The longest wait for a process that was told to end.
const END_MAX: Duration = Duration::from_secs(60);

/// Sends the process a signal by its name.
pub fn signal(process: u32, name: &str) {
    let process = process.to_string();
    assert!(Command::new("kill").args(["-s", name, &process]).status().unwrap().success());
}

/// Waits for the end of a process that was told to end.
pub async fn end_of(child: &mut Child) -> ExitStatus {
    let watch = Stopwatch::start();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(watch.elapsed() < END_MAX, "it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A place to run commands in: databases, checkpoints and a configuration file.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
    dynamo: Option<EmbeddedDynamo>,
    endpoint: String,
    pub source_url: String,
    pub target_url: String,
}

impl Place {
    /// A place whose source and target are these databases, with `rollups` as configured.
    pub async fn new(source_url: &str, target_url: &str, rollups: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let mut place = Self {
            directory,
            dynamo: None,
            endpoint: String::new(),
            source_url: with_password(source_url),
            target_url: with_password(target_url),
        };
        place.start_dynamo().await;
        place.configure(rollups);
        place
    }

    /// A place with one database and a table of events: `days` days until today, each with 240
    /// events of three kinds.
    pub async fn with_events(days: u32) -> (Self, Database) {
        let database = Database::create().await;
        let place = Self::new(&database.url(), &database.url(), &daily(days)).await;
        place.seed(days).await;
        (place, database)
    }

    pub async fn seed(&self, days: u32) {
        let today = today();
        self.sql(&format!(
            "CREATE TABLE events AS \
             SELECT at, (ARRAY['view', 'click', NULL])[1 + n % 3] AS kind, \
                    (n % 7)::numeric(10, 2) AS amount \
             FROM generate_series('{today}'::timestamptz - interval '{days} days', \
                    '{today}'::timestamptz - interval '1 second', '6 minutes') \
                    WITH ORDINALITY AS series (at, n); \
             CREATE INDEX ON events (at); ANALYZE events"
        ))
        .await;
    }

    /// Writes the configuration file.
    pub fn configure(&self, rollups: &str) {
        self.configure_source("nice_ratio = 0\nslots = 2", rollups);
    }

    /// As [`Place::configure`], with more of `[source]`.
    pub fn configure_source(&self, source: &str, rollups: &str) {
        let text = format!(
            "[source]\nurl = {{ env = \"SOURCE_DATABASE_URL\" }}\nchunk_time = \"200ms\"\n{source}\n\
             [target]\nurl = {{ env = \"TARGET_DATABASE_URL\" }}\n{rollups}"
        );
        fs::write(self.config(), text).unwrap();
    }

    /// The configuration with only the required settings.
    pub fn configure_plain(&self, rollups: &str) {
        let text = format!(
            "[source]\nurl = {{ env = \"SOURCE_DATABASE_URL\" }}\n\
             [target]\nurl = {{ env = \"TARGET_DATABASE_URL\" }}\n{rollups}"
        );
        fs::write(self.config(), text).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("tallymark.toml")
    }

    /// Starts DynamoDB, or restarts it on the same file.
    pub async fn start_dynamo(&mut self) {
        let file = self.directory.path().join("checkpoints.db");
        let dynamo = EmbeddedDynamo::start(Some(&file)).await.unwrap();
        self.endpoint = dynamo.endpoint();
        self.dynamo = Some(dynamo);
    }

    /// The address at which the commands find DynamoDB. A test may put a proxy in front of it.
    pub fn endpoint(&mut self) -> &mut String {
        &mut self.endpoint
    }

    pub fn stop_dynamo(&mut self) {
        self.dynamo = None;
    }

    /// DynamoDB's own API.
    pub fn dynamo(&self) -> aws_sdk_dynamodb::Client {
        self.dynamo.as_ref().unwrap().client()
    }

    pub fn checkpoints(&self) -> Checkpoints {
        if !fs::read_to_string(self.config()).unwrap().contains("store = \"postgres\"") {
            return super::world::checkpoints_in(self.dynamo(), "tallymark");
        }
        let url = DatabaseUrl::new(&*self.target_url).unwrap();
        let db = Db::new(&Address::Url(url), Side::Target, 2).unwrap();
        Checkpoints::new(Arc::new(Postgres::new(db, "checkpoint")), 5)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallymark"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_remove("TALLYMARK_CONFIG")
            .env_remove("AWS_PROFILE")
            .env("AWS_ENDPOINT_URL_DYNAMODB", &self.endpoint)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("SOURCE_DATABASE_URL", pooled(&self.source_url))
            .env("TARGET_DATABASE_URL", pooled(&self.target_url))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        ended(&mut self.command(arguments))
    }

    /// Runs a command that must succeed, with `--json`, and returns its document.
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["--json"]].concat()).good().json()
    }

    /// Starts a batch and waits until it has begun.
    pub fn begin(&self, arguments: &[&str]) -> Child {
        let mut child =
            self.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
        let begun = lines.by_ref().map_while(Result::ok).any(|line| line.contains("to do"));
        assert!(begun, "{:?}", child.wait());
        child
    }

    /// Runs statements in the source as the superuser.
    pub async fn sql(&self, sql: &str) {
        execute(&self.source_url, sql).await;
    }
}

/// Runs statements as the superuser of `url`.
pub async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The rows that a query yields, each as one text.
pub async fn lines(url: &str, sql: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let sql = format!("SELECT x::text FROM ({sql}) x ORDER BY x::text COLLATE \"C\"");
    let rows = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows
}

/// Runs a command to its end, and searches its output for the password.
pub fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let ended =
        Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!ended.out.contains(PASSWORD) && !ended.err.contains(PASSWORD), "{ended:?}");
    assert!(!ended.err.contains("panicked"), "{ended:?}");
    // For any arguments, no output controls the terminal.
    assert!(is_plain(&ended.out) && is_plain(&ended.err), "{ended:?}");
    ended
}

/// The URL with the planted password, unless its server requires another.
pub fn with_password(url: &str) -> String {
    let has_password = url.split_once('@').is_some_and(|(user, _)| user.matches(':').count() > 1);
    if has_password { url.to_owned() } else { url.replacen('@', &format!(":{PASSWORD}@"), 1) }
}

/// The rollup `daily` over the last `days` days.
pub fn daily(days: u32) -> String {
    let start = today() - chrono::Days::new(days.into());
    format!(
        "[[rollup]]\nname = \"daily\"\nfrom = \"public.events\"\ntime = \"at\"\n\
         start = \"{start}\"\nslice = \"1 day\"\ngroup_by = [\"kind\"]\n\
         [rollup.measures]\nevents = \"count\"\nrevenue = {{ sum = \"amount\" }}\n"
    )
}

/// The day of the first slice that is still open. In the first minutes of a day it waits until yesterday's slice is
/// due in every place here, so that no test sees it become due.
pub fn today() -> chrono::NaiveDate {
    use tallymark::model::clock::{Clock as _, SystemClock};
    /// The longest grace of a test's configuration with the system's clock, and what the clocks of two servers differ.
    const GRACE_MAX: chrono::TimeDelta = chrono::TimeDelta::seconds(125);
    let now = SystemClock.now();
    if let Ok(left) =
        (GRACE_MAX - (now - now.date_naive().and_time(chrono::NaiveTime::MIN).and_utc())).to_std()
    {
        std::thread::sleep(left);
    }
    now.date_naive()
}

/// The day `days` before today.
pub fn day(days: u64) -> chrono::NaiveDate {
    today() - chrono::Days::new(days)
}

/// The documentation's JSON examples below the heading of a command.
pub fn documented(heading: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CLI.md");
    let text = fs::read_to_string(path).unwrap();
    let begin = format!("\n## {heading}\n");
    let section = text.split(&begin).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```json\n").skip(1);
    blocks.map(|block| serde_json::from_str(block.split("```").next().unwrap()).unwrap()).collect()
}
