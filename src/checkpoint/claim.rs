//! Taking the lease on a slice.

use std::sync::OnceLock;

use chrono::{DateTime, TimeDelta, Utc};

use super::checkpoints::Checkpoints;
use super::error::{CheckpointError, ClaimError, ClaimRefused};
use super::item::{Checkpoint, instant, key, label, number, text, whole_ms};
use super::state::{self, Event, Illegal, State};
use super::store::{Cond, Item, StoreError, UNFINISHED, Update, Written};
use crate::model::text::random_token;

/// How long a lease outlives the deadline of its invocation. Lambda kills at the deadline. The
/// margin is for clocks that disagree.
pub(crate) const LEASE_MARGIN: TimeDelta = TimeDelta::seconds(5);

/// Mirrors `claimable` in [`state`].
fn claimable(now: DateTime<Utc>, failures_max: u32) -> Cond {
    let is = |state: State| Cond::is("state", text(state.word()));
    let lease_is_over = Cond::passed("lease_until", now);
    let has_tries_left = Cond::below("failures", number(failures_max.into()));
    let has_waited = Cond::lacks("retry_at").or(Cond::passed("retry_at", now));
    Cond::Absent
        .or(is(State::Yielded))
        .or(is(State::Stale))
        .or(is(State::Running).and(lease_is_over))
        .or(is(State::Failed).and(has_tries_left).and(has_waited))
}

/// A worker's request for a slice.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub rollup: &'a str,
    pub slice_start: DateTime<Utc>,
    /// The fingerprint of the rollup's definition that the worker will compute.
    pub definition: &'a str,
    pub now: DateTime<Utc>,
    /// When the worker's invocation ends.
    pub deadline: DateTime<Utc>,
}

/// The right to work on a slice until an instant. Only [`Checkpoints::claim`] makes one, and it
/// cannot be copied.
#[derive(Debug)]
pub struct Lease {
    /// The slice's checkpoint as the claim left it.
    checkpoint: Checkpoint,
    owner: String,
}

impl Lease {
    fn new(item: &Item) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::from_item(item)?;
        let owner = checkpoint.owner.clone().unwrap_or_default();
        Ok(Self { checkpoint, owner })
    }

    #[must_use]
    pub(crate) fn rollup(&self) -> &str {
        &self.checkpoint.rollup
    }

    #[must_use]
    pub(crate) const fn slice_start(&self) -> DateTime<Utc> {
        self.checkpoint.slice_start
    }

    /// The fencing token.
    #[must_use]
    pub const fn attempt(&self) -> u64 {
        self.checkpoint.attempt
    }

    /// The random token of the claim.
    #[must_use]
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// The fingerprint of the definition that was claimed.
    #[must_use]
    pub(crate) fn definition(&self) -> &str {
        self.checkpoint.definition.as_deref().unwrap_or_default()
    }

    /// How often the slice had been reopened when it was claimed.
    #[must_use]
    pub(crate) const fn dirty_seen(&self) -> u64 {
        self.checkpoint.dirty_seen
    }

    /// The slice's checkpoint after the claim. It still holds the data of earlier attempts.
    #[must_use]
    pub(crate) const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

#[cfg(test)]
impl Lease {
    /// The end of the lease.
    pub(crate) fn until(&self) -> DateTime<Utc> {
        // A running checkpoint always has it, or reading it would have failed.
        self.checkpoint.lease_until.unwrap_or_default()
    }

    /// Failures since the last success or reopening.
    pub(crate) const fn failures(&self) -> u32 {
        self.checkpoint.failures
    }

    /// The state in which the claim found the slice. `None`: it had no checkpoint.
    pub(crate) const fn claimed_from(&self) -> Option<State> {
        self.checkpoint.claimed_from
    }

    /// Whether the previous worker never reported its end. It was killed, or it is a zombie.
    pub(crate) fn is_takeover(&self) -> bool {
        self.claimed_from() == Some(State::Running)
    }
}

impl Checkpoints {
    /// Takes the lease on a slice.
    ///
    /// # Errors
    /// [`ClaimError::Refused`] if the slice cannot be claimed now. [`ClaimError::Checkpoint`] if
    /// the call failed.
    pub async fn claim(&self, request: &Claim<'_>) -> Result<Lease, ClaimError> {
        if request.deadline <= request.now {
            return Err(ClaimRefused::NoTimeLeft.into());
        }
        // A new token for each call, as a retried Lambda invocation keeps its request's ID.
        let owner = format!("{}@{}", random_token(), process());
        self.claim_as(&owner, request).await
    }

    /// A claim with a given owner. The SDK repeats this part when a reply is lost.
    pub(super) async fn claim_as(
        &self,
        owner: &str,
        request: &Claim<'_>,
    ) -> Result<Lease, ClaimError> {
        let lease_until = whole_ms(request.deadline + LEASE_MARGIN);
        let update = self.claim_update(owner, request, lease_until);
        let written = match self.send(update, "claim").await {
            // Wrong types in an item make the write itself invalid. Extent the item tells which
            // attribute it is.
            Err(error @ CheckpointError::Store(StoreError::Invalid { .. })) => {
                self.get(request.rollup, request.slice_start).await?;
                return Err(error.into());
            }
            written => written?,
        };
        let (found, at) = match written {
            Written::Done(item) => return Ok(Lease::new(&item)?),
            Written::Refused { found: Some(item), at } => (item, at),
            // The item vanished between the condition and its copy, so no worker holds the slice.
            Written::Refused { found: None, .. } => return Err(contended(request)),
        };
        let found = Checkpoint::from_item(&found)?;
        let mine = found.owner.as_deref() == Some(owner) && found.state == State::Running;
        if mine {
            return Ok(Lease::new(&found.to_item())?);
        }
        let (event, now) = (Event::Claim { lease_until }, whole_ms(at.unwrap_or(request.now)));
        match state::next(Some(&found.standing()), event, now, self.failures_max) {
            Err(illegal) => Err(refusal(illegal, found).into()),
            Ok(_) => Err(contended(request)),
        }
    }

    /// Takes the leases on several slices of one rollup, with the writes of [`Checkpoints::claim`],
    /// which the store may send together. Returns those that it took, in ascending order. For every
    /// other slice [`Checkpoints::claim`] tells why it cannot be claimed.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call failed.
    pub(crate) async fn claim_several(
        &self,
        requests: &[Claim<'_>],
    ) -> Result<Vec<Lease>, CheckpointError> {
        let has_time = |request: &&Claim<'_>| request.deadline > request.now;
        let requests: Vec<_> = requests.iter().filter(has_time).collect();
        // The claims of one call may share a token, as a lease is known by its slice and its owner.
        let owner = format!("{}@{}", random_token(), process());
        let update = |request: &&Claim<'_>| {
            self.claim_update(&owner, request, whole_ms(request.deadline + LEASE_MARGIN))
        };
        let items =
            match self.store.update_apart(requests.iter().map(update).collect(), "claim").await {
                // One item is malformed.
                Err(StoreError::Invalid { .. }) => return Ok(Vec::new()),
                items => items?,
            };
        let mut leases = items.iter().map(Lease::new).collect::<Result<Vec<_>, _>>()?;
        if leases.len() < requests.len() {
            leases.extend(self.claimed_unheard(&owner, &requests, &leases).await);
        }
        leases.sort_by_key(Lease::slice_start);
        Ok(leases)
    }

    /// The leases of these claims beside `known`: their writes were made, and the answer was lost.
    async fn claimed_unheard(
        &self,
        owner: &str,
        requests: &[&Claim<'_>],
        known: &[Lease],
    ) -> Vec<Lease> {
        let starts = || requests.iter().map(|request| request.slice_start);
        let (Some(first), Some(last)) = (starts().min(), starts().max()) else { return Vec::new() };
        let Some(rollup) = requests.first().map(|request| request.rollup) else {
            return Vec::new();
        };
        let found = self.range(rollup, first, last + TimeDelta::seconds(1)).await;
        let is_known =
            |found: &Checkpoint| known.iter().any(|lease| lease.slice_start() == found.slice_start);
        let is_mine = |found: &Checkpoint| {
            found.owner.as_deref() == Some(owner) && found.state == State::Running
        };
        // Without an answer their leases run out.
        let found = found.unwrap_or_default().into_iter();
        let mine = found.filter(|found| is_mine(found) && !is_known(found));
        mine.filter_map(|found| Lease::new(&found.to_item()).ok()).collect()
    }

    fn claim_update(&self, owner: &str, request: &Claim<'_>, lease_until: DateTime<Utc>) -> Update {
        let now = request.now;
        let condition = claimable(whole_ms(now), self.failures_max);
        Update::new(key(request.rollup, request.slice_start), condition)
            .copy("claimed_from", "state", text("absent"))
            .increment("attempt")
            .fill("failures", number(0))
            .fill("dirty", number(0))
            .copy("dirty_seen", "dirty", number(0))
            .set("state", text(State::Running.word()))
            .set("owner", text(owner))
            .set_from_now("lease_until", now, lease_until - now)
            .set("definition", text(request.definition))
            .set("started_at", instant(now))
            .set(UNFINISHED, text(request.rollup))
            .remove(&["retry_at", "finished_at"])
    }
}

/// A name of this process, for workers that wait for its lease: `pid 4711 on worker-1`, or the log
/// stream of a function's instance.
fn process() -> &'static str {
    /// The token is part of every write of a slice.
    const CHARACTERS_MAX: usize = 80;
    static PROCESS: OnceLock<String> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let words = match std::env::var("AWS_LAMBDA_LOG_STREAM_NAME") {
            Ok(stream) => format!("log stream {stream}"),
            Err(_) => match std::fs::read_to_string("/proc/sys/kernel/hostname") {
                Ok(host) => format!("pid {} on {}", std::process::id(), host.trim()),
                Err(_) => format!("pid {}", std::process::id()),
            },
        };
        words.chars().take(CHARACTERS_MAX).collect()
    })
}

fn contended(request: &Claim<'_>) -> ClaimError {
    let slice = label(request.rollup, request.slice_start);
    CheckpointError::Contended { operation: "claim", slice }.into()
}

fn refusal(illegal: Illegal, found: Checkpoint) -> ClaimRefused {
    match illegal {
        Illegal::Leased { until } => {
            ClaimRefused::Leased { owner: found.owner.unwrap_or_default(), until }
        }
        Illegal::Backoff { retry_at, failures } => ClaimRefused::Backoff { retry_at, failures },
        Illegal::Exhausted { failures } => {
            ClaimRefused::Exhausted { failures, error: found.error.unwrap_or_default() }
        }
        // A claim carries no result, so this refusal is impossible here.
        Illegal::Succeeded | Illegal::NotHolder { .. } => ClaimRefused::Succeeded,
    }
}
