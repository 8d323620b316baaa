//! The contents of the model's world. Instants are stored as ticks from now, so that time can pass
//! for ever in finitely many states.

use std::path::Path;
use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use tallymark::checkpoint::Checkpoint;
use tallymark::checkpoint::state::{self, Event, FAILURES_MAX_DEFAULT, Illegal, Lifecycle, State};
use tallymark::config::Config;
use tallymark::model::slice::Slice;
use tallymark::work::due::{self, View};
use tallymark::work::report::{Outcome, SliceReport};

/// Maximum number of slices in a model.
pub const SLICES: usize = 2;
/// Maximum number of workers in a model.
pub const WORKERS: usize = 3;
/// The owner of a token that no live worker has.
pub const NOBODY: u8 = u8::MAX;
/// Seconds of a tick. It is longer than the first backoff with its jitter, so that a wait is one
/// tick.
const TICK: i64 = 60;

/// The instant this many ticks from now.
pub fn at(ticks: i8) -> DateTime<Utc> {
    DateTime::from_timestamp(1_770_000_000 + i64::from(ticks) * TICK, 0).unwrap()
}

/// Ticks until an instant, rounded up.
fn ticks(until: DateTime<Utc>) -> i8 {
    i8::try_from((until - at(0)).num_seconds().max(0).div_euclid(TICK)).unwrap()
        + i8::from((until - at(0)).num_seconds() % TICK > 0)
}

/// A slice's checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    pub state: State,
    pub attempt: u8,
    /// The worker whose token it carries. `None`: the token belongs to no live worker.
    pub owner: Option<u8>,
    /// Ticks until the lease ends. 0: it has ended, or there is none.
    pub lease: i8,
    /// Ticks until the next try.
    pub wait: i8,
    pub failures: u8,
    pub dirty: u8,
    pub dirty_seen: u8,
}

impl Item {
    pub fn standing(&self) -> Lifecycle {
        let waits = self.state == State::Failed && u32::from(self.failures) < FAILURES_MAX_DEFAULT;
        Lifecycle {
            state: self.state,
            attempt: self.attempt.into(),
            lease_until: (self.state == State::Running).then(|| at(self.lease)),
            failures: self.failures.into(),
            retry_at: waits.then(|| at(self.wait)),
            dirty: self.dirty.into(),
            dirty_seen: self.dirty_seen.into(),
        }
    }

    fn new(standing: &Lifecycle, owner: Option<u8>) -> Self {
        Self {
            state: standing.state,
            attempt: u8::try_from(standing.attempt).unwrap(),
            owner,
            lease: standing.lease_until.map_or(0, ticks),
            wait: standing.retry_at.map_or(0, ticks),
            failures: u8::try_from(standing.failures).unwrap(),
            dirty: u8::try_from(standing.dirty).unwrap(),
            dirty_seen: u8::try_from(standing.dirty_seen).unwrap(),
        }
    }
}

/// The product's own decision about a checkpoint, by a clock that is `skew` ticks ahead.
pub fn next(
    item: Option<Item>,
    event: Event,
    skew: i8,
    owner: Option<u8>,
) -> Result<Item, Illegal> {
    let standing = item.map(|item| item.standing());
    let after = state::next(standing.as_ref(), event, at(skew), FAILURES_MAX_DEFAULT)?;
    Ok(Item::new(&after, owner.or(item.and_then(|item| item.owner))))
}

/// The input for the product's planner.
struct Planned {
    config: Config,
    definition: String,
    slice: Slice,
}

static PLANNED: LazyLock<Planned> = LazyLock::new(|| {
    let text = "[source]\nurl = \"postgres://app@localhost/shop\"\n[[rollup]]\nname = \"daily\"\n\
        from = \"events\"\ntime = \"created_at\"\nstart = \"2025-01-01\"\nslice = \"1 day\"\n\
        group_by = [\"kind\"]\nmeasures = { events = \"count\" }\n";
    let config = Config::parse(Path::new("tallymark.toml"), text, &|_| None).unwrap();
    let definition = config.rollups[0].definition();
    let slice = config.rollups[0].calendar.containing(at(0) - TimeDelta::days(10));
    Planned { config, definition, slice }
});

/// Whether the product's planner finds a slice due. `None`: not yet, but it must be asked again.
pub fn is_due(item: Option<Item>) -> Option<bool> {
    let Planned { config, definition, slice } = &*PLANNED;
    let checkpoint = item.map(|item| checkpoint(&item, slice.start(), definition));
    let view = View {
        adopted: None,
        rollup: &config.rollups[0],
        now: at(0),
        failures_max: FAILURES_MAX_DEFAULT,
        source_start: None,
        finer_done: None,
        definition: definition.clone(),
        moved_from: None,
        seal: None,
    };
    match view.judge(checkpoint.as_ref(), *slice) {
        due::Standing::Running | due::Standing::Waiting => None,
        standing => Some(standing.is_due()),
    }
}

fn checkpoint(item: &Item, slice_start: DateTime<Utc>, definition: &str) -> Checkpoint {
    let Lifecycle { state, attempt, lease_until, failures, retry_at, dirty, dirty_seen } =
        item.standing();
    Checkpoint {
        rollup: "daily".into(),
        slice_start,
        state,
        attempt,
        owner: None,
        lease_until,
        claimed_from: None,
        failures,
        retry_at,
        dirty,
        dirty_seen,
        definition: Some(definition.into()),
        horizon: None,
        reason: None,
        error: None,
        outcome: None,
        reopened_at: None,
        started_at: None,
        finished_at: None,
    }
}

/// A worker's report about a slice.
pub fn report(outcome: Outcome, wait: Option<i8>) -> SliceReport {
    SliceReport {
        rollup: "daily".into(),
        start: at(-1),
        end: at(0),
        outcome,
        attempt: None,
        reason: None,
        hint: None,
        retry_at: wait.map(at),
        completion: None,
        not_now: None,
        elapsed_ms: None,
        workload_units: None,
    }
}

/// The target's content for a slice. A version is the number of the source's changes it includes,
/// and 0 means no data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// The marker: the newest attempt that took it, and the attempt that replaced the data.
    pub attempt: u8,
    pub replaced_by: u8,
    /// The owner whose token the marker carries. `None`: any, or none yet. It is kept where claims
    /// can be lost.
    pub owner: Option<u8>,
    /// The rows: their writer, and the version they were read from.
    pub written_by: u8,
    pub version: u8,
    /// The stage: `dirty` of the claim that staged its chunk, and the version that was read.
    pub staged: Option<(u8, u8)>,
}

/// A slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cell {
    pub item: Option<Item>,
    pub target: Target,
    /// Messages waiting in the queue.
    pub queued: u8,
}

/// A worker's progress with its slice. It may stay there for any time, as a paused worker takes no
/// step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Idle,
    /// Its claim was sent this many ticks ago and applied, and the reply was lost. The SDK sends it
    /// again.
    Claiming(i8),
    /// Has seen that the finer slice of a window is done, and will claim the window.
    Seen,
    /// Has the lease of a window, and will look for unfinished finer slices.
    Claimed,
    /// Has the lease, and will look for an earlier attempt's stage.
    Held,
    /// Reads from the start of the slice.
    Ready,
    /// Has read the first chunk.
    Copied(u8),
    /// The first chunk is staged.
    Staged,
    /// Has read the whole slice.
    Read(u8),
    /// Has written rows without a marker, which happens only without the guard
    /// [`Guard::OneTransaction`].
    Written,
    /// Has committed, and will look for the coarse slice.
    Committed,
    /// Will reopen the coarse slice.
    Coarse,
    /// Will complete the checkpoint.
    Completing,
    /// Gives the slice back.
    GivingBack,
    /// Has found no coarse slice to reopen in its transaction, whose commit is still to come: no
    /// window, or without the guard [`Guard::FirstClaim`] no coarse slice. The version of the rows.
    Found(u8),
}

/// A worker: one invocation after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    pub phase: Phase,
    pub slice: u8,
    pub attempt: u8,
    pub dirty_seen: u8,
    /// Whether the slice came by a message.
    pub has_message: bool,
}

/// The tick that moves marks into checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mover {
    #[default]
    Idle,
    /// Has read these marks.
    Seen(u8),
    /// Has seen that the slice must be reopened.
    Reopening(u8),
    /// Will lower the watermark.
    Lowering(u8),
    /// The marks can be deleted.
    Deleting(u8),
}

/// An operator who replays the slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Person {
    #[default]
    Idle,
    /// Without a guard, one of two writes is made.
    HalfDone,
}

/// A tick that advances the watermark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Advance {
    #[default]
    Idle,
    /// Has read the watermark's version.
    Read(u8),
    /// Has then seen that the slice succeeded.
    Seen(u8),
}

/// A fanned-out backfill. Slices are bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backfill {
    #[default]
    Planning,
    /// As `Planning`, once its queue was found empty.
    Sweeping,
    /// Has looked: the slices to send now, those that come later, and whether it sweeps.
    Looked(u8, u8, bool),
    /// Has sent: whether the round found anything left to do.
    Sent(bool),
    Running,
    Done,
}

/// A part of the reasoning that can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    FenceAttempt,
    FenceOwner,
    OneTransaction,
    CompleteMine,
    CompleteDirty,
    ClaimLease,
    KnownOwner,
    StageDirty,
    MarksLast,
    CoarseFirst,
    LaterAttempts,
    WatermarkVersion,
    WatermarkAfter,
    ReopenWhole,
    Sweep,
    /// With the checkpoints in the target: rows and checkpoint are one transaction ...
    CheckpointToo,
    /// ... the coarse slice is reopened in it ...
    CoarseToo,
    /// ... and the first claim of a coarse slice waits for it.
    FirstClaim,
    /// A worker that has claimed a window looks for unfinished finer slices, instead.
    LookAgain,
}

/// The remaining number of each kind of event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Left {
    /// Late changes of the source.
    pub changes: u8,
    /// Replays by an operator.
    pub replays: u8,
    /// Processes that are killed.
    pub crashes: u8,
    /// Replies that are lost.
    pub replies: u8,
    pub fails: u8,
    pub yields: u8,
    /// Leases that end while their holder is alive, because it is slow or paused.
    pub slow: u8,
    /// Claims that are lost, as a failover loses the last writes.
    pub losses: u8,
    /// Messages that are delivered twice.
    pub doubles: u8,
    /// Messages that are lost or exceed their deliveries. A purge counts as one.
    pub drops: u8,
}

/// The state of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct World {
    pub cells: [Cell; SLICES],
    pub workers: [Worker; WORKERS],
    /// The source's version: every change raises it, and leaves a mark (a bit).
    pub source: u8,
    pub marks: u8,
    pub mover: Mover,
    pub person: Person,
    /// Whether the watermark is past the slice, so that no tick looks at it, and its version.
    pub is_past: bool,
    pub version: u8,
    pub advance: Advance,
    pub backfill: Backfill,
    pub left: Left,
}

/// A model: its size, and the guards removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tallymark {
    pub slices: usize,
    pub workers: usize,
    /// The second slice is computed from the first.
    pub is_composed: bool,
    /// The second slice is a trailing window, one of many over the first.
    pub is_window: bool,
    /// Ticks ignore everything before the watermark.
    pub has_watermark: bool,
    /// The checkpoints are in the target, so that a slice's rows, marker and checkpoint are one
    /// transaction.
    pub is_one: bool,
    /// Slices come by messages.
    pub has_queue: bool,
    /// A slice is read in two chunks.
    pub has_chunks: bool,
    /// Ticks that a lease holds.
    pub lease: i8,
    /// Ticks by which the clock of every other worker is ahead.
    pub skew: i8,
    /// Whether time passes. If not, no lease ever ends.
    pub has_time: bool,
    pub left: Left,
    pub without: Option<Guard>,
}

/// Facts that a step can show.
pub mod fact {
    pub const TAKEN_OVER: u32 = 1;
    pub const FENCED: u32 = 1 << 1;
    pub const RESUMED: u32 = 1 << 2;
    pub const CLAIM_KNOWN: u32 = 1 << 3;
    pub const ENDING_KNOWN: u32 = 1 << 4;
    pub const STALE: u32 = 1 << 5;
    pub const SWEPT: u32 = 1 << 6;
    pub const LEASE_LOST: u32 = 1 << 7;
    pub const REFUSED: u32 = 1 << 8;
    pub const PASSED: u32 = 1 << 12;
    /// An attempt fenced by another of the same number.
    pub const FENCED_BY_EQUAL: u32 = 1 << 13;
    /// A worker that learns from the store that its COMMIT without an answer took place.
    pub const COMMIT_KNOWN: u32 = 1 << 14;
    /// A worker that gives a window back, as a finer slice is unfinished.
    pub const LOOKED_AGAIN: u32 = 1 << 15;
    /// Forbidden: an older attempt's data replaces a newer one's.
    pub const OLDER_OVER_NEWER: u32 = 1 << 9;
    /// Forbidden: a slice is taken from a living worker whose lease holds by every clock.
    pub const HELD_TAKEN: u32 = 1 << 10;
    /// A worker refused because of its own claim, which happens only without the guard
    /// [`Guard::KnownOwner`].
    pub const REFUSED_BY_ITSELF: u32 = 1 << 11;
}
