//! The pace of `nice_ratio = "auto"`: how long a worker rests, by what it sees of the server.
//!
//! [`Course::next`] is the whole law, a pure function. docs/IMPACT.md explains it. There are three
//! paces. Each process starts at the slow one, whose effect was measured beside a busy application.
//! A few calm looks lead to the second one. Only a server on which nothing else works is read
//! without rests. Strain leads back to the first, as does a look that shows nothing.
//!
//! A signal may lie. Naps and the probe are measured by the server's clock, and the answer to the
//! same look by this process's own, so that a faster pace needs two clocks that agree.

mod look;
pub(crate) mod pacer;
pub(super) mod quiet;
#[cfg(test)]
mod traces;

use std::fmt;

use serde::{Serialize, Serializer};

pub(super) use look::OTHERS;
use quiet::Quiet;

/// The slowest pace, at which each process starts.
pub(crate) const SLOW: f64 = 30.0;

/// The fastest pace beside the work of others. docs/IMPACT.md has its effect on them.
pub(crate) const BESIDE_OTHERS: f64 = 12.0;

/// Calm looks in a row before the pace is that of [`BESIDE_OTHERS`].
const CALM_LOOKS: u32 = 3;

/// Of the last three looks, this many show strain on a server that has it. A single look may meet a
/// moment.
const STRAINED_LOOKS: u32 = 2;

/// The last three looks, as bits.
const LAST_LOOKS: u8 = 0b111;

/// Calm looks in a row at a server without other work before the rests end.
const ALONE_LOOKS: u32 = 8;

/// Fewer transactions a second than this are those of monitoring and of idle connection pools.
const TRANSACTIONS_ALONE: f64 = 25.0;

/// Blocks a second that others miss in the server's cache. More of them show work on its disks.
const BLOCKS_CALM: f64 = 1000.0;

/// What a look can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    /// How long naps of a millisecond last.
    Naps,
    /// How long a fixed count takes.
    Probe,
    /// How long this process waits for the answer, by its own clock.
    Answer,
    /// Transactions of others.
    Transactions,
    /// Sessions of others in a transaction at this moment.
    Sessions,
    /// Blocks that others miss in the cache.
    Blocks,
}

/// One look at the server. `None`: unseen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// The median length of some naps of a millisecond, in milliseconds.
    pub(crate) nap_ms: Option<f64>,
    /// Milliseconds that a fixed count took.
    pub(crate) probe_ms: Option<f64>,
    /// Milliseconds that this process waited for the look's answer.
    pub(crate) answer_ms: Option<f64>,
    /// Transactions of others per second.
    pub(crate) transactions: Option<f64>,
    /// Sessions of others that are in a transaction.
    pub(crate) sessions: Option<f64>,
    /// Blocks per second that others read and missed in the cache.
    pub(crate) blocks: Option<f64>,
}

impl Seen {
    /// Whether others are seen at work.
    #[must_use]
    pub(crate) fn shows_others(&self) -> bool {
        others(self).is_some()
    }
}

/// What keeps the pace from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Too few looks so far.
    Start,
    /// A signal that the role, the server or the time so far does not show.
    Unseen(Sense),
    /// A signal that shows strain.
    Strain(Sense),
    /// A signal that shows other work.
    Others(Sense),
    /// Nothing. The pace is the fastest that the configuration allows.
    Nothing,
}

/// The pace, and the evidence for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Course {
    /// Rests, as a multiple of the work.
    pub(crate) ratio: f64,
    pub(crate) hold: Hold,
    /// Looks in a row without strain.
    calm: u32,
    /// Looks in a row without strain and without other work.
    alone: u32,
    /// Which of the last looks showed strain, the newest in the lowest bit.
    strained: u8,
}

impl Default for Course {
    fn default() -> Self {
        Self { ratio: SLOW, hold: Hold::Start, calm: 0, alone: 0, strained: 0 }
    }
}

impl Course {
    /// The course once others began to work during a statement.
    #[must_use]
    pub(crate) fn beside_others() -> Self {
        Self { hold: Hold::Others(Sense::Sessions), ..Self::default() }
    }

    /// The course after the look `seen`, where `quiet` is how the server looks without load. No
    /// pace is faster than the ratio `nice_min`.
    #[must_use]
    pub(crate) fn next(self, seen: &Seen, quiet: &Quiet, nice_min: f64) -> Self {
        let course = self.judge(seen, quiet);
        let ratio = match course {
            Self { hold: Hold::Unseen(_), .. } => SLOW,
            Self { alone: ALONE_LOOKS.., .. } => 0.0,
            Self { calm: CALM_LOOKS.., ratio, .. } => ratio.min(BESIDE_OTHERS),
            Self { ratio, .. } => ratio,
        };
        let ratio = ratio.max(nice_min);
        let hold = match course.hold {
            Hold::Start if ratio <= nice_min => Hold::Nothing,
            hold => hold,
        };
        Self { ratio, hold, ..course }
    }

    /// The evidence after a look, and a slower pace where it asks for one.
    fn judge(self, seen: &Seen, quiet: &Quiet) -> Self {
        let strain = strain(seen, quiet);
        let strained = ((self.strained << 1) | u8::from(strain.is_some())) & LAST_LOOKS;
        let calm = self.calm.saturating_add(1);
        let course = match (strain, others(seen)) {
            (Some(sense), _) => {
                let is_strained = strained.count_ones() >= STRAINED_LOOKS;
                let ratio = if is_strained { SLOW } else { self.ratio };
                Self { ratio, hold: Hold::Strain(sense), calm: 0, alone: 0, strained }
            }
            // The arrival of others is a change, to be looked at from the start.
            (None, Some(sense)) if self.is_fast() => {
                Self { hold: Hold::Others(sense), strained, ..Self::default() }
            }
            (None, Some(sense)) => {
                Self { hold: Hold::Others(sense), calm, alone: 0, strained, ..self }
            }
            (None, None) => {
                let alone = self.alone.saturating_add(1);
                Self { hold: Hold::Start, calm, alone, strained, ..self }
            }
        };
        match unseen(seen, quiet) {
            None => course,
            Some(_) if strain.is_some() => Self { ratio: SLOW, ..course },
            // Rates and a baseline of answers take a second. What was seen meanwhile counts.
            Some(sense @ (Sense::Transactions | Sense::Blocks | Sense::Answer)) => {
                Self { ratio: SLOW, hold: Hold::Unseen(sense), ..course }
            }
            Some(sense) => Self { hold: Hold::Unseen(sense), ..Self::default() },
        }
    }

    /// Whether further looks like the last one lead to a faster pace.
    #[must_use]
    pub(crate) const fn is_rising(&self) -> bool {
        match self.hold {
            // Rates and baselines take several looks.
            Hold::Start | Hold::Unseen(_) => true,
            Hold::Others(_) => self.calm < CALM_LOOKS,
            // Three looks in a row tell strain from a moment. The statement that would follow takes seconds.
            Hold::Strain(_) => self.strained != LAST_LOOKS,
            Hold::Nothing => false,
        }
    }

    /// Whether the pace is one for a server without other work.
    #[must_use]
    pub(crate) const fn is_fast(&self) -> bool {
        self.ratio < BESIDE_OTHERS
    }
}

/// The first signal that is unseen, rates last, or has no baseline to be compared with.
fn unseen(seen: &Seen, quiet: &Quiet) -> Option<Sense> {
    let is_seen = |value: Option<f64>| value.is_some_and(f64::is_finite);
    let all = [
        (Sense::Sessions, is_seen(seen.sessions)),
        (Sense::Naps, is_seen(seen.nap_ms) && quiet.nap_limit().is_some()),
        (Sense::Probe, is_seen(seen.probe_ms) && quiet.probe_limit().is_some()),
        (Sense::Transactions, is_seen(seen.transactions)),
        (Sense::Blocks, is_seen(seen.blocks)),
        (Sense::Answer, is_seen(seen.answer_ms) && quiet.answer_limit().is_some()),
    ];
    all.into_iter().find(|(_, is_seen)| !is_seen).map(|(sense, _)| sense)
}

/// The first signal that is seen and shows strain.
fn strain(seen: &Seen, quiet: &Quiet) -> Option<Sense> {
    let compared = [
        (Sense::Blocks, seen.blocks, Some(BLOCKS_CALM)),
        (Sense::Naps, seen.nap_ms, quiet.nap_limit()),
        (Sense::Probe, seen.probe_ms, quiet.probe_limit()),
        (Sense::Answer, seen.answer_ms, quiet.answer_limit()),
    ];
    let is_strained = |(value, limit): (f64, f64)| value > limit || value.is_nan();
    let strained =
        compared.into_iter().find(|(_, value, limit)| value.zip(*limit).is_some_and(is_strained));
    strained.map(|(sense, ..)| sense)
}

/// The first signal that is seen and shows other work.
fn others(seen: &Seen) -> Option<Sense> {
    let is_busy = |value: Option<f64>, limit: f64| value.is_some_and(|value| value >= limit);
    if is_busy(seen.transactions, TRANSACTIONS_ALONE) {
        return Some(Sense::Transactions);
    }
    is_busy(seen.sessions, 1.0).then_some(Sense::Sessions)
}

impl Serialize for Hold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Naps => "naps",
            Self::Probe => "probe",
            Self::Answer => "answer",
            Self::Transactions => "transactions",
            Self::Sessions => "sessions",
            Self::Blocks => "blocks",
        })
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::Nothing => f.write_str("nothing"),
            Self::Unseen(sense) => write!(f, "{sense} unseen"),
            Self::Strain(sense) => write!(f, "{sense} strained"),
            Self::Others(sense) => write!(f, "{sense} of others"),
        }
    }
}
