//! The load limits in `[source]`.

use std::ops::RangeInclusive;
use std::str::FromStr;

use chrono_tz::Tz;

use super::hours::DailyHours;
use super::predicate;
use super::raw::{Node, Section};
use super::rollup::zone;
use crate::model::hint::Fault;
use crate::model::text::shown;

/// The keys of the throttle.
pub(super) const KEYS: [&str; 11] = [
    "slots",
    "nice_ratio",
    "nice_min",
    "naps",
    "max_load",
    "critical_load",
    "throttle_query",
    "window",
    "quiet_hours",
    "timezone",
    "wake_per_hour",
];

/// More concurrent chunks than this are a load by themselves.
pub(super) const SLOTS: RangeInclusive<u32> = 1..=64;

/// A worker's rest as a multiple of its chunk's time. At a hundred, it works at a hundredth of the
/// speed.
pub(crate) const NICE_RATIO: RangeInclusive<f64> = 0.0..=100.0;

/// The word for a `nice_ratio` that workers find by themselves.
pub(crate) const AUTO: &str = "auto";

/// The fastest pace of `auto`. Its slowest is 30.
pub(super) const NICE_MIN: RangeInclusive<f64> = 0.0..=30.0;

/// More than one wake-up per minute is useless, as ticks are that far apart.
pub(super) const WAKE_PER_HOUR: RangeInclusive<u32> = 1..=60;

/// The limit of a signal.
pub(super) const LOAD: RangeInclusive<f64> = 0.0..=1e12;

/// Concurrent slices of one command at full speed. docs/BENCHMARKS.md has the effect on small slices.
const AT_FULL_SPEED: u32 = 4;

/// How long a worker rests, as a multiple of its chunk's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NiceRatio {
    /// As workers find right while they look at the source.
    Auto,
    /// This many times.
    Fixed(f64),
}

impl NiceRatio {
    /// The longest rests, as a multiple of the work. Of `auto` these are the rests at its start.
    #[must_use]
    pub const fn slowest(self) -> f64 {
        match self {
            Self::Auto => *NICE_MIN.end(),
            Self::Fixed(ratio) => ratio,
        }
    }

    /// Whether workers never rest.
    #[must_use]
    pub(crate) fn is_full_speed(self) -> bool {
        self == Self::Fixed(0.0)
    }
}

impl std::fmt::Display for NiceRatio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::Fixed(ratio) => ratio.fmt(f),
        }
    }
}

impl FromStr for NiceRatio {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            _ if text == AUTO => Ok(Self::Auto),
            Ok(ratio) if NICE_RATIO.contains(&ratio) => Ok(Self::Fixed(ratio)),
            _ => Err("write \"auto\" or a number from 0 to 100"),
        }
    }
}

/// The settings in `[source]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Maximum number of concurrent chunks, over all workers.
    pub slots: u32,
    /// How long a worker rests after its chunk, or within it.
    pub nice_ratio: NiceRatio,
    /// The fastest pace of [`NiceRatio::Auto`], for what no worker can see.
    pub nice_min: f64,
    /// Whether it also rests within the statement, a millisecond at a time.
    pub naps: bool,
    /// Limits above which no chunk starts.
    pub max_load: LoadLimits,
    /// Limits above which the slice is given up until a later turn.
    pub critical_load: LoadLimits,
    /// The operator's own question. Any answer except false, 0, NULL or an empty text means to
    /// wait.
    pub throttle_query: Option<String>,
    /// Backfills run only at these hours.
    pub window: Option<DailyHours>,
    /// Nothing is read at these hours.
    pub quiet_hours: Option<DailyHours>,
    /// How often per hour ticks may wake a sleeping source.
    pub wake_per_hour: Option<u32>,
}

impl Settings {
    /// The number of slices that one command works on concurrently, unless it is told. Each slot has
    /// one. At full speed there are more, so that some slices are claimed and completed while
    /// others are read.
    #[must_use]
    pub fn concurrency(&self) -> u32 {
        let at_least = if self.nice_ratio.is_full_speed() { AT_FULL_SPEED } else { 1 };
        self.slots.max(at_least)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Measured in docs/IMPACT.md.
            slots: 1,
            nice_ratio: NiceRatio::Auto,
            nice_min: 0.0,
            naps: true,
            max_load: LoadLimits::default(),
            critical_load: LoadLimits::default(),
            throttle_query: None,
            window: None,
            quiet_hours: None,
            wake_per_hour: None,
        }
    }
}

/// A signal of how busy the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Client connections that run a statement, without those of Tallymark itself.
    Active,
    /// The active ones that wait for a lock.
    Waiting,
    /// Transactions that ended per second, of all databases of the server.
    Transactions,
    /// Blocks per second that were missing from the server's cache, in all databases, including
    /// Tallymark's reads.
    Blocks,
    /// Milliseconds that the server took to answer the governor's own query.
    ProbeMs,
    /// Lag of the slowest replica in milliseconds.
    ReplicaLagMs,
}

impl Signal {
    pub(crate) const ALL: [Self; 6] = [
        Self::Active,
        Self::Waiting,
        Self::Transactions,
        Self::Blocks,
        Self::ProbeMs,
        Self::ReplicaLagMs,
    ];

    /// Its key in the configuration.
    #[must_use]
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Waiting => "waiting",
            Self::Transactions => "transactions",
            Self::Blocks => "blocks",
            Self::ProbeMs => "probe_ms",
            Self::ReplicaLagMs => "replica_lag_ms",
        }
    }
}

/// The limits of signals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadLimits(pub Vec<(Signal, f64)>);

impl LoadLimits {
    /// Whether `signal` has a limit.
    #[must_use]
    pub(crate) fn has(&self, signal: Signal) -> bool {
        self.0.iter().any(|(other, _)| *other == signal)
    }
}

/// Reads the settings.
pub(super) fn read(section: &Section<'_>) -> Option<Settings> {
    let default = Settings::default();
    let hours_zone = section.get("timezone").map_or(Some(Tz::UTC), |node| zone(&node));
    let slots = section.get("slots").map_or(Some(default.slots), |node| node.integer(SLOTS));
    let nice_ratio =
        section.get("nice_ratio").map_or(Some(default.nice_ratio), |node| nice_ratio(&node));
    let nice_min =
        section.get("nice_min").map_or(Some(default.nice_min), |node| node.number(NICE_MIN));
    let naps = section.get("naps").map_or(Some(default.naps), |node| node.boolean());
    let limits =
        |key: &str| section.get(key).map_or(Some(LoadLimits::default()), |node| limits(&node));
    let (max_load, critical_load) = (limits("max_load"), limits("critical_load"));
    let throttle_query = optional(section, "throttle_query", query);
    let hours = |key: &str| optional(section, key, |node| hours(node, hours_zone?));
    let (window, quiet_hours) = (hours("window"), hours("quiet_hours"));
    let wake_per_hour = optional(section, "wake_per_hour", |node| node.integer(WAKE_PER_HOUR));
    Some(Settings {
        slots: slots?,
        nice_ratio: nice_ratio?,
        nice_min: nice_min?,
        naps: naps?,
        max_load: max_load?,
        critical_load: critical_load?,
        throttle_query: throttle_query?,
        window: window?,
        quiet_hours: quiet_hours?,
        wake_per_hour: wake_per_hour?,
    })
}

/// An optional key.
fn optional<T>(
    section: &Section<'_>,
    key: &str,
    read: impl Fn(&Node<'_>) -> Option<T>,
) -> Option<Option<T>> {
    section.get(key).map_or(Some(None), |node| read(&node).map(Some))
}

fn nice_ratio(node: &Node<'_>) -> Option<NiceRatio> {
    match node.as_str() {
        Some(AUTO) => Some(NiceRatio::Auto),
        Some(text) => node.wrong(
            Fault::new(format!("{} is no nice_ratio", shown(text)))
                .remedy("write \"auto\" or a number from 0 to 100"),
        ),
        None => node.number(NICE_RATIO).map(NiceRatio::Fixed),
    }
}

fn limits(node: &Node<'_>) -> Option<LoadLimits> {
    let mut section = node.section("a table such as { active = 40, probe_ms = 50 }")?;
    section.only(&Signal::ALL.map(Signal::key));
    if section.entries().is_empty() {
        return node.wrong(
            Fault::new("is empty")
                .remedy("write such as { active = 40, probe_ms = 50 }, or remove the key"),
        );
    }
    let known =
        Signal::ALL.into_iter().filter_map(|signal| Some((signal, section.get(signal.key())?)));
    let read: Option<Vec<_>> =
        known.map(|(signal, node)| Some((signal, node.number(LOAD)?))).collect();
    read.map(LoadLimits)
}

fn query(node: &Node<'_>) -> Option<String> {
    let text = node.string("a question such as \"SELECT count(*) > 100 FROM queue\"")?;
    match predicate::check(text) {
        Ok(()) => Some(text.to_owned()),
        Err(fault) => node.refused(text, &fault, "write one SELECT without a semicolon"),
    }
}

fn hours(node: &Node<'_>, zone: Tz) -> Option<DailyHours> {
    const FORM: &str = "hours such as \"22:00-06:00\"";
    let text = node.string(FORM)?;
    match DailyHours::parse(text, zone) {
        Some(hours) => Some(hours),
        None => node.wrong(
            Fault::new(format!("{} are not hours of a day", shown(text)))
                .remedy(format!("write {FORM}")),
        ),
    }
}
