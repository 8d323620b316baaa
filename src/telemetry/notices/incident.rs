//! Which trouble is told when: a pure function of what a tick knows and of what was told before.
//!
//! Each incident is told once, and its end once. The notices that are still to be sent are part of
//! the state, so that they outlive a receiver that is down and a worker that is killed.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::words;

/// Slices that an incident names. Its count has all of them.
const NAMED_MAX: usize = 20;

/// Notices that wait for their receiver. The oldest one beyond is dropped, and that is told.
const OUTBOX_MAX: usize = 100;

/// A worker that sends has ended within this time, or was killed.
const SENDING_MAX: TimeDelta = TimeDelta::seconds(60);

/// The kinds of incidents, the causes before what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A rollup cannot be worked on.
    Stopped,
    /// Late changes may be missed.
    Capture,
    /// Slices failed too often.
    Exhausted,
    /// Slices fail, and are tried again.
    Failing,
    /// A slice is due for long and is not computed.
    Behind,
    /// A fanned-out backfill completes no slice.
    Stuck,
    /// A fanned-out backfill is under way. Only its end is told.
    Backfill,
    /// Old slices differ from the source.
    Drift,
    /// A slice has far more or fewer source rows than is usual.
    Numbers,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Stopped,
        Self::Capture,
        Self::Exhausted,
        Self::Failing,
        Self::Behind,
        Self::Stuck,
        Self::Backfill,
        Self::Drift,
        Self::Numbers,
    ];

    /// Its word in keys and documents.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Capture => "capture",
            Self::Exhausted => "exhausted",
            Self::Failing => "failing",
            Self::Behind => "behind",
            Self::Stuck => "stuck",
            Self::Backfill => "backfill",
            Self::Drift => "drift",
            Self::Numbers => "numbers",
        }
    }

    /// How long trouble lasts before it is told. Shorter trouble passes by itself. `None`: only the
    /// end is told.
    const fn patience(self) -> Option<TimeDelta> {
        match self {
            Self::Capture | Self::Exhausted | Self::Drift | Self::Numbers => {
                Some(TimeDelta::zero())
            }
            // A failover of the server is over by then.
            Self::Stopped => Some(TimeDelta::minutes(10)),
            Self::Failing => Some(TimeDelta::hours(1)),
            Self::Behind | Self::Stuck => Some(TimeDelta::hours(2)),
            Self::Backfill => None,
        }
    }

    /// The kind whose incident explains one of this kind, so that the end of this one is not told.
    const fn is_followed_by(self) -> Option<Self> {
        match self {
            Self::Failing => Some(Self::Exhausted),
            _ => None,
        }
    }
}

/// Trouble that a tick sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    /// The slices that it is about.
    pub(super) slices: BTreeSet<DateTime<Utc>>,
    /// What changes as soon as there is progress, so that the patience begins again.
    pub(super) mark: String,
    /// The cause in words of Tallymark's own. Texts of servers may hold values of rows.
    pub(super) cause: Option<String>,
}

impl Trouble {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, slices: BTreeSet::new(), mark: String::new(), cause: None }
    }
}

/// What a tick knows of one rollup.
#[derive(Clone, Debug, Default)]
pub(super) struct Sighting {
    pub(super) rollup: String,
    /// The kinds of trouble that it has looked for. The incidents of others stay as they are.
    pub(super) looked_for: BTreeSet<Kind>,
    pub(super) troubles: Vec<Trouble>,
    /// The slices that have yet to succeed.
    pub(super) undone: BTreeSet<DateTime<Utc>>,
    /// How the fanned-out backfill ended that was under way before.
    pub(super) ended_backfill: Option<String>,
    /// The newest slice, if its numbers were judged.
    pub(super) judged: Option<Judged>,
}

/// The newest slice of a rollup whose numbers were judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Judged {
    pub(super) start: DateTime<Utc>,
    /// Slices up to it, without a gap, whose numbers are odd.
    pub(super) odd: u32,
    /// The first of the judged slices up to it whose numbers are right. `None`: its own are not.
    #[serde(default)]
    pub(super) right_since: Option<DateTime<Utc>>,
}

/// Trouble that was seen and lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Incident {
    pub(super) kind: Kind,
    pub(super) rollup: String,
    /// When it was first seen, or when there was last progress before it was told.
    pub(super) since: DateTime<Utc>,
    is_told: bool,
    pub(super) mark: String,
    /// The slices that it is about and that have yet to succeed.
    pub(super) slices: BTreeSet<DateTime<Utc>>,
}

/// The phase of an incident that a notice tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Begin,
    End,
}

/// A message about one incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// The same for every copy of this notice, so that a receiver can tell them.
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) phase: Phase,
    pub(crate) rollup: String,
    /// When the trouble was first seen.
    pub(crate) since: DateTime<Utc>,
    /// When this was noticed.
    pub(crate) at: DateTime<Utc>,
    /// The first slices that it is about.
    pub(crate) slices: Vec<DateTime<Utc>>,
    /// One sentence with the numbers.
    pub(crate) text: String,
    /// The command that helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<String>,
}

/// The worker that sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sender {
    by: String,
    until: DateTime<Utc>,
}

/// What was told, and what is still to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    /// The incidents that last, by kind and rollup.
    open: BTreeMap<String, Incident>,
    /// The notices to send, oldest first.
    pub(super) outbox: Vec<Notice>,
    /// Notices that were dropped since the last one was sent.
    pub(super) dropped: u64,
    sender: Option<Sender>,
    /// By rollup.
    judged: BTreeMap<String, Judged>,
}

impl Told {
    /// Whether an incident of this kind lasts, and its mark.
    pub(super) fn mark(&self, kind: Kind, rollup: &str) -> Option<&str> {
        self.open.get(&key(kind, rollup)).map(|incident| incident.mark.as_str())
    }

    /// The newest slice of a rollup whose numbers were judged.
    pub(super) fn judged(&self, rollup: &str) -> Option<Judged> {
        self.judged.get(rollup).copied()
    }

    /// Forgets the incidents of rollups that the configuration no longer has.
    pub(super) fn keep(&mut self, is_known: impl Fn(&str) -> bool) {
        self.open.retain(|_, incident| is_known(&incident.rollup));
        self.judged.retain(|rollup, _| is_known(rollup));
    }

    /// Brings the incidents of a rollup up to what a tick saw at `now`.
    pub(super) fn judge(&mut self, seen: &Sighting, now: DateTime<Utc>) {
        self.judged.extend(seen.judged.map(|judged| (seen.rollup.clone(), judged)));
        for kind in Kind::ALL.into_iter().filter(|kind| seen.looked_for.contains(kind)) {
            let trouble = seen.troubles.iter().find(|trouble| trouble.kind == kind);
            let known = self.open.remove(&key(kind, &seen.rollup));
            let lasting = match (known, trouble) {
                (None, None) => continue,
                (None, Some(trouble)) => begun(&seen.rollup, trouble, now),
                (Some(known), _) => {
                    let Some(lasting) = known.after(trouble, seen, now) else {
                        self.end(&known, seen, now);
                        continue;
                    };
                    lasting
                }
            };
            let lasting = self.tell(lasting, trouble, now);
            self.open.insert(key(kind, &seen.rollup), lasting);
        }
    }

    /// Tells an incident whose patience is over.
    fn tell(
        &mut self,
        incident: Incident,
        trouble: Option<&Trouble>,
        now: DateTime<Utc>,
    ) -> Incident {
        let patience = incident.kind.patience();
        let is_over = patience.is_some_and(|patience| now - incident.since >= patience);
        if incident.is_told || !is_over {
            return incident;
        }
        let count = trouble.map_or(incident.slices.len(), |trouble| trouble.slices.len());
        let cause = trouble.and_then(|trouble| trouble.cause.as_deref());
        let text = words::begun(&incident, count, cause, now);
        self.post(notice(&incident, Phase::Begin, text, now));
        Incident { is_told: true, ..incident }
    }

    fn end(&mut self, incident: &Incident, seen: &Sighting, now: DateTime<Utc>) {
        let text = match (incident.kind, &seen.ended_backfill) {
            (Kind::Backfill, Some(ended)) => ended.clone(),
            _ => words::ended(incident, now),
        };
        let cause = incident.kind.is_followed_by();
        let is_explained = cause.is_some_and(|cause| self.mark(cause, &seen.rollup).is_some());
        let is_awaited = incident.is_told || incident.kind.patience().is_none();
        if is_awaited && !is_explained {
            self.post(notice(incident, Phase::End, text, now));
        }
    }

    /// Adds a notice. The end of an incident takes the place of its begin, if that was never sent.
    fn post(&mut self, notice: Notice) {
        if self.sender.is_none() {
            let is_begin = |it: &Notice| {
                (it.kind, &it.rollup, it.since) == (notice.kind, &notice.rollup, notice.since)
            };
            self.outbox.retain(|it| !is_begin(it));
        }
        self.outbox.push(notice);
        let beyond = self.outbox.len().saturating_sub(OUTBOX_MAX);
        self.outbox.drain(..beyond);
        self.dropped += beyond as u64;
    }

    /// Takes the notices to send, unless another worker is sending them at `now`.
    pub(super) fn take(&mut self, by: &str, now: DateTime<Utc>) -> Vec<Notice> {
        let is_free = self.sender.as_ref().is_none_or(|it| it.by == by || it.until <= now);
        if self.outbox.is_empty() || !is_free {
            return Vec::new();
        }
        self.sender = Some(Sender { by: by.to_owned(), until: now + SENDING_MAX });
        self.outbox.clone()
    }

    /// Records the end of sending. `sent`: the receiver has these notices.
    pub(super) fn release(&mut self, by: &str, sent: &[Notice], dropped: u64) {
        self.outbox.retain(|notice| !sent.iter().any(|it| it.id == notice.id));
        if !sent.is_empty() {
            self.dropped = self.dropped.saturating_sub(dropped);
        }
        if self.sender.as_ref().is_some_and(|it| it.by == by) {
            self.sender = None;
        }
    }
}

impl Incident {
    /// The incident after a tick that saw `trouble`, or none. `None`: it is over.
    fn after(
        &self,
        trouble: Option<&Trouble>,
        seen: &Sighting,
        now: DateTime<Utc>,
    ) -> Option<Self> {
        // A slice that runs, or was reopened, has yet to show that it is right.
        let mut slices = match self.kind {
            Kind::Exhausted | Kind::Failing => &self.slices & &seen.undone,
            _ => BTreeSet::new(),
        };
        if trouble.is_none() && slices.is_empty() {
            return None;
        }
        let is_same = trouble.is_none_or(|it| it.mark == self.mark)
            && (self.kind != Kind::Failing || !slices.is_empty());
        let mark = trouble.map_or(&self.mark, |trouble| &trouble.mark).clone();
        slices.extend(trouble.iter().flat_map(|trouble| &trouble.slices));
        // Progress ends what was told, and lets the patience of all else begin again.
        let is_awaited = self.is_told || self.kind.patience().is_none();
        if !is_same && is_awaited && self.kind != Kind::Failing {
            return None;
        }
        let restarts = !is_same && !self.is_told;
        let since = if restarts { now } else { self.since };
        let slices = slices.into_iter().take(NAMED_MAX).collect();
        Some(Self { since, mark, slices, ..self.clone() })
    }
}

fn begun(rollup: &str, trouble: &Trouble, now: DateTime<Utc>) -> Incident {
    Incident {
        kind: trouble.kind,
        rollup: rollup.to_owned(),
        since: now,
        is_told: false,
        mark: trouble.mark.clone(),
        slices: trouble.slices.iter().take(NAMED_MAX).copied().collect(),
    }
}

fn notice(incident: &Incident, phase: Phase, text: String, now: DateTime<Utc>) -> Notice {
    let Incident { kind, rollup, since, slices, .. } = incident;
    let of_phase = match phase {
        Phase::Begin => "begin",
        Phase::End => "end",
    };
    Notice {
        id: format!("{}-{rollup}-{}-{of_phase}", kind.word(), since.timestamp_millis()),
        kind: *kind,
        phase,
        rollup: rollup.clone(),
        since: *since,
        at: now,
        slices: slices.iter().copied().collect(),
        text,
        command: words::command(*kind, phase, rollup),
    }
}

fn key(kind: Kind, rollup: &str) -> String {
    format!("{} {rollup}", kind.word())
}

#[cfg(test)]
mod tests;
