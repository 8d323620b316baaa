//! The contents of the world of readers: the model with its guards, the slices, workers and ticks.

use std::fmt;

/// A part of the reasoning that can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A tick raises the generation before it acknowledges the mark.
    RaisedFirst,
    /// A tick reopens a slice whose generation was raised, and which no tick has reopened.
    Mended,
    /// `checked_at` is written after the generations.
    CheckedLast,
    /// `checked_at` is the instant before the marks were read.
    CheckedEarly,
    /// An attempt reads the generation before its first read.
    GenerationFirst,
    /// A replacement sets the cleared generation to the one that it read, which may be lower than
    /// that of the attempt before.
    ClearedByTheRows,
    /// Staged chunks serve only attempts that read the same generation.
    StageGeneration,
    /// The transaction that replaces a finer slice raises the coarse one.
    CoarseRaised,
    /// A coarse slice is complete only if its finer ones are.
    Parts,
    /// A tick raises the generation of a slice that is due already, too. An attempt whose lease has
    /// ended may still replace it.
    DueToo,
}

/// The model, and the guard that is removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader {
    /// The second slice is computed from the first.
    pub is_composed: bool,
    /// A slice is read in chunks, which a later attempt may continue.
    pub has_chunks: bool,
    /// Store, source and target are one database. Marks become reopenings in one transaction, and
    /// rows and checkpoint are one.
    pub is_one: bool,
    pub ticks: usize,
    pub changes: u8,
    /// Processes that are killed.
    pub kills: u8,
    /// Leases that end while their worker lives.
    pub slow: u8,
    /// Slices that run again though no change was found.
    pub replays: u8,
    pub without: Option<Guard>,
}

/// The store's state of a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stored {
    #[default]
    Absent,
    /// A worker has it. `None`: its lease has ended, though it may live.
    Running(Option<u8>),
    Stale,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cell {
    pub stored: Stored,
    pub attempt: u8,
    pub dirty: u8,
    /// The attempt that took the marker.
    pub fence: u8,
    /// The source's version in the rows. 0: there are none.
    pub version: u8,
    pub generation: u8,
    pub cleared: u8,
    /// The stage: `dirty` and generation of its attempt, and the version that was read.
    pub staged: Option<(u8, u8, u8)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Idle,
    Claimed,
    /// Has read the generation.
    Known(u8),
    /// Has read this version, at that generation.
    Read(u8, u8),
    /// Has replaced the rows. The flag tells whether a coarse slice must run again.
    Replaced(bool),
    Completing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    pub phase: Phase,
    pub slice: usize,
    pub attempt: u8,
    pub dirty_seen: u8,
}

/// A tick: the version at its first instant, and the marks that it has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tick {
    #[default]
    Idle,
    Began(u8),
    /// Makes these writes, one after another.
    Writing(Write, u8, u8),
}

/// The next write of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Look,
    Raise,
    Reopen,
    Acknowledge,
    RaiseLate,
    Check,
    Mend,
}

/// The state of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct World {
    pub source: u8,
    pub marks: u8,
    pub cells: [Cell; 2],
    pub workers: [Worker; 2],
    pub ticks: [Tick; 2],
    /// The source's version at `checked_at`.
    pub checked: u8,
    pub changes: u8,
    pub kills: u8,
    pub slow: u8,
    pub replays: u8,
}

/// A process and its action.
#[derive(Clone, Copy, Debug)]
pub struct Action(pub &'static str, pub usize, pub &'static str);

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => f.write_str(self.2),
            who => write!(f, "{who} {}: {}", self.1, self.2),
        }
    }
}

/// Facts that a step can show.
pub mod fact {
    /// A replacement left a generation that was raised while it read.
    pub const LEFT_STALE: u32 = 1;
    /// A generation was cleared.
    pub const CLEARED: u32 = 1 << 1;
    /// Chunks of an earlier attempt were continued.
    pub const CONTINUED: u32 = 1 << 2;
    /// An attempt was fenced.
    pub const FENCED: u32 = 1 << 3;
    /// A newer attempt replaced rows of an older one that had read the source later.
    pub const LOWERED: u32 = 1 << 4;
}

impl Cell {
    /// Whether readers see it as stale while no worker would run it.
    pub fn is_forgotten(&self) -> bool {
        self.stored == Stored::Done && self.cleared != self.generation
    }

    pub const fn is_settled(&self) -> bool {
        self.version > 0 && self.cleared == self.generation
    }

    pub fn reopen(&mut self) {
        self.dirty += 1;
        if !matches!(self.stored, Stored::Running(_)) {
            self.stored = Stored::Stale;
        }
    }
}
