//! Reads `tallymark.toml`, the file that defines the rollups.
//!
//! Every key must be known: an unknown key is an error, and all errors are reported together.
//!
//! | module | part |
//! |---|---|
//! | `raw` | TOML values with their lines; collects problems and continues |
//! | `rollup` | `[[rollup]]` → [`Rollup`] |
//! | `cut` | its keys that cut time: `slice`, `bucket`, `bucket_as`, `timezone`, `week_start`, `partition_by` |
//! | `app`, `mirror` | `[source] bubble` and `[[mirror]]`: an app without a database |
//! | `compose` | `from = { rollup = … }`: a rollup that is computed from a finer one |
//! | `lookup` | `lookup`: tables whose columns stand beside a row |
//! | `measures` | `[rollup.measures]` → [`Measure`](crate::model::measure::Measure) |
//! | `expect` | `expect`: limits of the newest slice's numbers, for notices |
//! | `checkpoint` | `[checkpoint]` |
//! | `notify` | `[notify]`: who hears of trouble |
//! | `throttle`, `hours` | the load limits and hours of `[source]` |
//! | `url`, `duration`, `predicate` | texts with a form of their own |
//! | `error` | problems, with line, key and remedy |
//! | `schema` | the JSON Schema of the file, for editors |

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use crate::clients::address::Address;
use crate::clients::bubble::AppToken;
use crate::clients::webhook::HookAddress;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::text::shown;

mod address;
mod app;
mod checkpoint;
mod compose;
mod cut;
mod duration;
mod error;
mod expect;
mod hours;
mod lookup;
mod measures;
mod mirror;
mod notify;
mod operand;
pub(crate) mod predicate;
mod raw;
mod rollup;
mod schema;
#[cfg(test)]
mod tests;
mod throttle;

pub(crate) use duration::parse as parse_duration;
#[cfg(test)]
use error::Problem;
pub(crate) use error::{ConfigError, UnknownRollup};
#[cfg(test)]
pub(crate) use hours::DailyHours;
pub(crate) use measures::RESERVED;
pub use rollup::parse_table;
pub use schema::json_schema;
pub(crate) use throttle::{AUTO, LoadLimits, NICE_RATIO, Signal};
pub use throttle::{NiceRatio, Settings};

use compose::Origins;
use raw::{Document, Node, Section, line_at};

/// A complete definition file.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file's path.
    pub path: PathBuf,
    /// The database that is counted.
    pub source: SourceConfig,
    /// The place of the rollup tables.
    pub target: TargetConfig,
    /// The place of the checkpoints, and the limit of failures.
    pub checkpoint: CheckpointConfig,
    /// How old slices are verified. `None`: they are not.
    pub scrub: Option<ScrubSettings>,
    /// Who hears of trouble. `None`: nobody.
    pub notify: Option<NotifyConfig>,
    /// The mirrors, then the rollups, in the order of the file; at least one.
    pub rollups: Vec<Rollup>,
}

/// The database that is counted: `[source]`.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Its address. Where an app is counted, it is the target's, as the mirrors are there.
    pub url: Address,
    /// The approximate time limit of one reading statement.
    pub chunk_time: Duration,
    /// The limits of the load on it.
    pub governor: Settings,
    /// The Bubble app that is counted instead of a database.
    pub app: Option<AppConfig>,
}

/// The Bubble app that is counted: `[source] bubble`.
#[derive(Clone, Debug)]
pub struct AppConfig {
    /// Scheme and host.
    pub(crate) address: String,
    pub(crate) branch: String,
    pub(crate) token: AppToken,
    /// Workload units that all mirrors may take in a month.
    pub(crate) units_per_month: u32,
}

/// The database that holds the rollup tables: `[target]`.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// Its address. `None`: the source's database.
    pub url: Option<Address>,
    /// The schema of the rollup tables.
    pub schema: String,
    /// Roles that may read the rollup tables.
    pub readers: Vec<String>,
}

/// The place of the checkpoints: `[checkpoint]`.
#[derive(Clone, Debug)]
pub struct CheckpointConfig {
    pub store: StoreKind,
    /// The table's name in that store.
    pub table: String,
    pub(crate) origin: TableOrigin,
    /// The environment's name of the table in DynamoDB.
    pub(crate) environment: Option<String>,
    /// The number of consecutive failures that exhausts a slice.
    pub failures_max: u32,
}

/// Where the name of the checkpoints' table comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TableOrigin {
    Default,
    /// The key `table`.
    File,
    /// The environment, and the file's name that it overrides.
    Environment {
        over: Option<String>,
    },
}

/// Where checkpoints are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    DynamoDb,
    /// The target's database.
    Postgres,
}

/// The verification of old slices: `[scrub]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubSettings {
    /// Slices per day, over all rollups.
    pub(crate) slices_per_day: u32,
    /// Whether a slice that differs is reopened.
    pub(crate) repair: bool,
}

/// Who hears of trouble: `[notify]`.
#[derive(Clone, Debug)]
pub struct NotifyConfig {
    /// The webhook that notices are posted to.
    pub(crate) url: Option<HookAddress>,
    pub(crate) format: NoticeFormat,
    /// The address of a dead-man's service, which hears of every good tick.
    pub(crate) ping: Option<HookAddress>,
    /// Scheme and host of the console that notices lead to.
    pub(crate) console: Option<String>,
}

/// The form of notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoticeFormat {
    /// A text, as Slack, Mattermost and others take it.
    #[default]
    Slack,
    /// The parts of each notice.
    Json,
}

/// Looks up an environment variable.
type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads the file at `path`. Addresses given as `{ env = … }` are looked up in `env`.
    ///
    /// # Errors
    /// All problems of the file, one per line.
    pub fn load(path: &Path, env: Env<'_>) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(path).map_err(|error| {
            ConfigError::file(
                path,
                None,
                match error.kind() {
                    std::io::ErrorKind::NotFound => Fault::new("there is no such file").remedy(
                        "give its place with --config PATH, let `tallymark new` write one, or try \
                         `tallymark demo`, which needs none",
                    ),
                    _ => Fault::new(format!("cannot be read: {error}"))
                        .remedy("give a readable file with --config PATH"),
                },
            )
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let line = line_at(&bytes, error.valid_up_to());
            ConfigError::file(
                path,
                Some(line),
                Fault::new("is not UTF-8 text").remedy("save it as UTF-8"),
            )
        })?;
        Self::parse(path, text, env)
    }

    /// Reads `text`, the content of the file at `path`.
    ///
    /// # Errors
    /// All problems of the file, one per line.
    pub fn parse(path: &Path, text: &str, env: Env<'_>) -> Result<Self, ConfigError> {
        let document = Document::new(text);
        let (table, faults) = DeTable::parse_recoverable(text);
        for fault in &faults {
            // Only the message, as the full error quotes the line, which may hold a password.
            let at = fault.span().map(|span| span.start);
            document.note(at, "", in_words(fault.message()).at("not TOML"));
        }
        let config = if faults.is_empty() {
            read(path, Section::root(&document, table.get_ref()), env)
        } else {
            None
        };
        match config {
            Some(config) if document.is_sound() => Ok(config),
            _ => Err(ConfigError::new(path, document.into_problems())),
        }
    }

    /// The rollup called `name`.
    ///
    /// # Errors
    /// The defined names.
    pub fn rollup(&self, name: &str) -> Result<&Rollup, UnknownRollup> {
        self.rollups.iter().find(|rollup| rollup.name == name).ok_or_else(|| UnknownRollup {
            name: name.to_owned(),
            known: self.rollups.iter().map(|rollup| rollup.name.clone()).collect(),
        })
    }
}

/// The parser's message, or another with a remedy where that message misleads.
fn in_words(message: &str) -> Fault {
    match message {
        // The parser reads a bare word as the number `nan`, or misses the string.
        "invalid float, expected `nan`"
        | "invalid float, expected `inf`"
        | "string values must be quoted, expected literal string" => {
            Fault::new("not a value").remedy("put text in double quotes")
        }
        "duplicate key" => Fault::new("a key or table is there twice").remedy("remove one"),
        message => message.into(),
    }
}

fn read(path: &Path, mut root: Section<'_>, env: Env<'_>) -> Option<Config> {
    root.only(&["source", "target", "checkpoint", "scrub", "notify", "mirror", "rollup"]);
    let target = match root.get("target") {
        Some(node) => target(&node, env),
        None => {
            Some(TargetConfig { url: None, schema: SCHEMA_DEFAULT.to_owned(), readers: Vec::new() })
        }
    };
    let source = root
        .need("source", r#"add [source] with url = { env = "SOURCE_DATABASE_URL" }"#)
        .and_then(|node| source(&node, env, target.as_ref()));
    let checkpoint = match root.get("checkpoint") {
        Some(node) => checkpoint::read(&node),
        None => Some(checkpoint::default()),
    };
    let checkpoint = checkpoint.and_then(|config| checkpoint::renamed(config, &root, env));
    let scrub = match root.get("scrub") {
        Some(node) => scrub(&node).map(Some),
        None => Some(None),
    };
    let notify = match root.get("notify") {
        Some(node) => notify::read(&node, env).map(Some),
        None => Some(None),
    };
    let rollups = tables(&root, source.as_ref(), target.as_ref());
    Some(Config {
        path: path.to_owned(),
        source: source?,
        target: target?,
        checkpoint: checkpoint?,
        scrub: scrub?,
        notify: notify?,
        rollups: rollups?,
    })
}

/// The mirrors, then the rollups.
fn tables(
    root: &Section<'_>,
    source: Option<&SourceConfig>,
    target: Option<&TargetConfig>,
) -> Option<Vec<Rollup>> {
    let schema = target.map_or(SCHEMA_DEFAULT, |target| &target.schema);
    let mut names = HashSet::new();
    let mirrors = root.get("mirror").map(|node| mirror::read_all(&node, source, &mut names));
    let rollups = match root.get("rollup") {
        Some(node) => {
            let mirrors = mirrors.as_ref().map(Option::as_deref);
            let url = target.and_then(|target| target.url.as_ref());
            let has_own_target =
                url.is_some_and(|url| source.is_none_or(|source| source.url != *url));
            let origins = Origins { schema, mirrors, has_own_target, source };
            compose::read_all(&node, origins, names)
        }
        None if mirrors.is_some() => Some(Vec::new()),
        None => root
            .need("rollup", "add at least one [[rollup]], as the README shows")
            .map(|_| Vec::new()),
    };
    let mut tables = mirrors.unwrap_or_else(|| Some(Vec::new()))?;
    tables.extend(rollups?);
    Some(tables)
}

fn source(node: &Node<'_>, env: Env<'_>, target: Option<&TargetConfig>) -> Option<SourceConfig> {
    /// Half a second is long enough to be worth a statement, and short enough to be harmless.
    const CHUNK_TIME_DEFAULT: Duration = Duration::from_millis(500);
    /// Below this the round trips cost more than the work. Above, a budget of minutes cannot be
    /// kept.
    const CHUNK_TIME_RANGE: std::ops::RangeInclusive<Duration> =
        Duration::from_millis(10)..=Duration::from_secs(60);
    let mut section = node.section("a table: [source]")?;
    let known = ["url", "auth", "chunk_time"].into_iter().chain(app::KEYS).chain(throttle::KEYS);
    section.only(&known.collect::<Vec<_>>());
    if section.get(app::KEYS[0]).is_some() {
        return app::read(&section, env, target);
    }
    app::refuse(&section);
    let url = section
        .need("url", r#"write url = { env = "SOURCE_DATABASE_URL" }"#)
        .and_then(|node| address::read(&node, env))
        .and_then(|url| address::read_with_auth(&section, Some(url)).flatten());
    let chunk_time = match section.get("chunk_time") {
        Some(node) => duration::read(&node, CHUNK_TIME_RANGE),
        None => Some(CHUNK_TIME_DEFAULT),
    };
    let governor = throttle::read(&section);
    Some(SourceConfig { url: url?, chunk_time: chunk_time?, governor: governor?, app: None })
}

/// The schema of the rollup tables.
pub(crate) const SCHEMA_DEFAULT: &str = "stats";

fn target(node: &Node<'_>, env: Env<'_>) -> Option<TargetConfig> {
    let mut section = node.section("a table: [target]")?;
    section.only(&["url", "auth", "schema", "readers"]);
    let url = match section.get("url") {
        Some(node) => address::read(&node, env).map(Some),
        None => Some(None),
    };
    let url = url.and_then(|url| address::read_with_auth(&section, url));
    let schema = match section.get("schema") {
        Some(node) => schema(&node),
        None => Some(SCHEMA_DEFAULT.to_owned()),
    };
    let readers = match section.get("readers") {
        Some(node) => readers(&node),
        None => Some(Vec::new()),
    };
    Some(TargetConfig { url: url?, schema: schema?, readers: readers? })
}

fn readers(node: &Node<'_>) -> Option<Vec<String>> {
    const EXPECTED: &str = r#"an array of roles such as ["app_reader"]"#;
    const NAME: &str = r#"the name of a role such as "app_reader""#;
    let roles = node.array(EXPECTED)?;
    roles.iter().map(|role| role.identifier(NAME).map(str::to_owned)).collect()
}

fn schema(node: &Node<'_>) -> Option<String> {
    let name = node.identifier(r#"the name of a schema such as "stats""#)?;
    if name == "tallymark" {
        return node.wrong(
            Fault::new(r#""tallymark" is where the markers are"#)
                .remedy(r#"use another such as "stats""#),
        );
    }
    if name.starts_with("pg_") || name == "information_schema" {
        return node.wrong(
            Fault::new(format!("{} is reserved by PostgreSQL", shown(name)))
                .remedy("use another such as \"stats\""),
        );
    }
    Some(name.to_owned())
}

/// A higher number amounts to a `tallymark verify` every night.
const SLICES_PER_DAY: std::ops::RangeInclusive<u32> = 1..=10_000;

fn scrub(node: &Node<'_>) -> Option<ScrubSettings> {
    let mut section = node.section("a table: [scrub]")?;
    section.only(&["slices_per_day", "repair"]);
    let slices_per_day = section
        .need("slices_per_day", "write slices_per_day = 20")
        .and_then(|node| node.integer(SLICES_PER_DAY));
    let repair = match section.get("repair") {
        Some(node) => node.boolean(),
        None => Some(false),
    };
    Some(ScrubSettings { slices_per_day: slices_per_day?, repair: repair? })
}
