//! The next steps of a worker: the spine, one call that leaves the process at a time.

use tallymark::checkpoint::state::{Event, Illegal, State};
use tallymark::fanout::disposition::{DELIVERIES_MAX, Disposition, of_slice, of_trouble};
use tallymark::work::report::Outcome;

use super::check::Step;
use super::steps::{Action, Steps, add, spend, who};
use super::world::{Guard, Item, NOBODY, Phase, Target, World, at, fact, next, report};

/// How an invocation ended: an outcome, or a failure beyond the slice.
#[derive(Clone, Copy)]
pub enum End {
    Told(Outcome, Option<i8>),
    Trouble,
}

fn fail_of(attempt: u64) -> Event {
    Event::Fail { attempt, retryable: true, jitter: 1.0 }
}

impl Steps<'_> {
    pub fn worker(&mut self, w: usize) {
        let worker = self.from.workers[w];
        match worker.phase {
            Phase::Idle => return self.begin(w),
            Phase::Claiming(age) => self.claim(w, *self.from, age),
            Phase::Seen => self.claim_window(w),
            Phase::Claimed => self.look_for_finer(w),
            Phase::Held => self.resume(w),
            Phase::Ready => self.read(w),
            Phase::Copied(version) => self.stage(w, version),
            Phase::Staged => match self.from.cells[usize::from(worker.slice)].target.staged {
                Some((_, version)) => self.replace(w, version),
                // It is gone, as another worker has merged it.
                None => self.moved(w, "finds the stage empty", Phase::GivingBack),
            },
            Phase::Read(version) => self.replace(w, version),
            Phase::Written => self.mark(w),
            Phase::Committed => self.look_for_coarse(w),
            Phase::Coarse => self.reopen_coarse(w),
            Phase::Completing => self.complete(w),
            Phase::GivingBack => self.give_back(w, false),
            Phase::Found(version) => {
                if let Some(to) = self.fenced(w, *self.from) {
                    self.commit_all(w, version, to);
                }
            }
        }
        if matches!(worker.phase, Phase::Ready | Phase::Staged | Phase::Read(_)) {
            self.fail(w);
            self.give_back(w, true);
        }
        self.kill(w);
    }

    pub fn moved(&mut self, w: usize, what: &'static str, phase: Phase) {
        let mut to = *self.from;
        to.workers[w].phase = phase;
        self.push(Some(w), what, 0, to);
    }

    /// Ends an invocation. Its message is deleted or comes back, as the product decides.
    pub fn ended(&mut self, w: usize, what: &'static str, facts: u32, mut to: World, end: End) {
        let worker = std::mem::take(&mut to.workers[w]);
        let slice = usize::from(worker.slice);
        // The token no longer belongs to any worker.
        if let Some(item) = to.cells[slice].item.as_mut().filter(|it| it.owner == Some(who(w))) {
            item.owner = None;
        }
        let marker = &mut to.cells[slice].target.owner;
        *marker = marker.map(|owner| if owner == who(w) { NOBODY } else { owner });
        if !worker.has_message {
            return self.push(Some(w), what, facts, to);
        }
        let disposition = |deliveries| match end {
            End::Told(outcome, wait) => of_slice(&report(outcome, wait), deliveries, at(0)),
            End::Trouble => of_trouble(deliveries),
        };
        if disposition(1) == Disposition::Over {
            return self.push(Some(w), what, facts, to);
        }
        if disposition(DELIVERIES_MAX) == Disposition::Over && to.left.drops > 0 {
            let mut counted_out = to;
            counted_out.left.drops -= 1;
            self.fault(Some(w), "lets a message go that came too often", facts, counted_out);
        }
        add(&mut to.cells[slice].queued);
        self.push(Some(w), what, facts, to);
    }

    fn begin(&mut self, w: usize) {
        if self.from.is_past {
            return;
        }
        for slice in 0..self.model.slices {
            let mut to = *self.from;
            if self.model.has_queue {
                match to.cells[slice].queued.checked_sub(1) {
                    Some(left) => to.cells[slice].queued = left,
                    None => continue,
                }
            }
            to.workers[w].slice = u8::try_from(slice).unwrap();
            to.workers[w].has_message = self.model.has_queue;
            if self.is_beside(&to, w) {
                self.see_finer(w, to);
            } else {
                self.claim(w, to, -1);
            }
        }
    }

    /// Claims for worker `w` of `to`. An `age` of -1 means for the first time.
    pub fn claim(&mut self, w: usize, mut to: World, age: i8) {
        let slice = usize::from(to.workers[w].slice);
        let found = to.cells[slice].item;
        let skew = if w % 2 == 1 { self.model.skew } else { 0 };
        let is_mine =
            found.is_some_and(|it| it.owner == Some(who(w)) && it.state == State::Running);
        // The SDK repeats the same request, with the clock of the first time.
        let asked = skew - age.max(0);
        let event = Event::Claim { lease_until: at(asked + self.model.lease) };
        let mut claimed = next(found, event, asked, Some(who(w)));
        if !self.has(Guard::ClaimLease) && matches!(claimed, Err(Illegal::Leased { .. })) {
            claimed = next(found, event, i8::MAX / 2, Some(who(w)));
        }
        let (what, mut facts) = match (&claimed, is_mine) {
            (Err(_), true) if self.has(Guard::KnownOwner) => {
                claimed = Ok(found.unwrap());
                ("claims again, and knows its own claim", fact::CLAIM_KNOWN)
            }
            (Err(_), true) => ("is refused by its own claim", fact::REFUSED_BY_ITSELF),
            (Err(_), false) => ("is refused", fact::REFUSED),
            (Ok(_), _) => ("claims", 0),
        };
        let mut item = match claimed {
            Ok(item) => item,
            Err(illegal) => {
                let end = match illegal {
                    Illegal::Leased { .. } => End::Told(Outcome::Leased, found.map(|it| it.lease)),
                    Illegal::Backoff { .. } => End::Told(Outcome::Waiting, found.map(|it| it.wait)),
                    Illegal::Exhausted { .. } => End::Told(Outcome::Exhausted, None),
                    _ => End::Told(Outcome::AlreadySucceeded, None),
                };
                // A refused worker without a message has done nothing.
                if to.workers[w].has_message || age >= 0 {
                    self.ended(w, what, facts, to, end);
                }
                return;
            }
        };
        item.lease = item.lease.max(0);
        let is_taken = found.is_some_and(|it| it.state == State::Running) && !is_mine;
        if let Some(found) = found.filter(|_| is_taken) {
            facts |= fact::TAKEN_OVER;
            if found.owner.is_some() {
                if found.lease > self.model.skew {
                    facts |= fact::HELD_TAKEN;
                }
                spend!(to, slow);
            }
        }
        to.cells[slice].item = Some(item);
        if to.left.replies > 0 && age < 0 {
            let mut lost = to;
            lost.left.replies -= 1;
            lost.workers[w].phase = Phase::Claiming(0);
            self.fault(Some(w), "claims, and the reply is lost", facts, lost);
        }
        let worker = &mut to.workers[w];
        worker.attempt = item.attempt;
        worker.dirty_seen = item.dirty_seen;
        let is_resumed = self.model.has_chunks && item.attempt > 1;
        worker.phase = if is_resumed { Phase::Held } else { Phase::Ready };
        if self.is_beside(&to, w) && self.has(Guard::LookAgain) {
            to.workers[w].phase = Phase::Claimed;
        }
        let is_fault = is_taken && found.is_some_and(|it| it.owner.is_some());
        self.steps.push(Step { action: Action(Some(w), what), is_fault, facts, to });
    }

    /// Takes the marker in `to`, or ends the attempt as fenced. `None`: it is fenced.
    fn fenced(&mut self, w: usize, mut to: World) -> Option<World> {
        let worker = to.workers[w];
        let target = &mut to.cells[usize::from(worker.slice)].target;
        let is_equal = target.attempt == worker.attempt
            && target.owner.is_some_and(|owner| owner != who(w))
            && self.has(Guard::FenceOwner);
        if target.attempt <= worker.attempt && !is_equal || !self.has(Guard::FenceAttempt) {
            target.attempt = worker.attempt;
            target.owner = (self.model.left.losses > 0).then(|| who(w));
            return Some(to);
        }
        let facts = fact::FENCED | if is_equal { fact::FENCED_BY_EQUAL } else { 0 };
        let slice = usize::from(worker.slice);
        if let Ok(item) = self.ending(w, &to, fail_of) {
            to.cells[slice].item = Some(item);
        }
        self.ended(w, "is fenced", facts, to, End::Told(Outcome::Fenced, None));
        None
    }

    fn resume(&mut self, w: usize) {
        let Some(mut to) = self.fenced(w, *self.from) else { return };
        let worker = &mut to.workers[w];
        let staged = &mut to.cells[usize::from(worker.slice)].target.staged;
        let is_any = !self.has(Guard::StageDirty);
        *staged = staged.filter(|(dirty, _)| *dirty == worker.dirty_seen || is_any);
        worker.phase = if staged.is_some() { Phase::Staged } else { Phase::Ready };
        let facts = if staged.is_some() { fact::RESUMED } else { 0 };
        self.push(Some(w), "looks for what was staged", facts, to);
    }

    fn read(&mut self, w: usize) {
        let is_coarse = self.model.is_composed && self.from.workers[w].slice == 1;
        let from = self.from;
        let version = if is_coarse { from.cells[0].target.version } else { from.source };
        if self.model.has_chunks {
            return self.moved(w, "reads a chunk", Phase::Copied(version));
        }
        self.moved(w, "reads the slice", Phase::Read(version));
    }

    fn stage(&mut self, w: usize, version: u8) {
        let Some(mut to) = self.fenced(w, *self.from) else { return };
        let worker = &mut to.workers[w];
        let target = &mut to.cells[usize::from(worker.slice)].target;
        // Chunks of another attempt cannot exist beside these, as the marker would be that
        // attempt's.
        target.staged = Some((worker.dirty_seen, version));
        worker.phase = Phase::Staged;
        self.push(Some(w), "stages the chunk", 0, to);
    }

    /// Replaces the slice and completes its checkpoint in one transaction, which also reopens the
    /// coarse slice.
    fn replace_all(&mut self, w: usize, version: u8) {
        let Some(mut to) = self.fenced(w, *self.from) else { return };
        if self.is_fine(&to, w) {
            if self.is_left_to_others(&to) {
                let what = "finds no coarse slice to reopen in its transaction";
                return self.moved(w, what, Phase::Found(version));
            }
            if to.cells[1].item.is_some() && self.has(Guard::CoarseToo) {
                to.cells[1].item = next(to.cells[1].item, Event::Reopen, 0, None).ok();
            }
        }
        self.commit_all(w, version, to);
    }

    /// The end of that transaction, for which `to` holds what it did before.
    fn commit_all(&mut self, w: usize, version: u8, mut to: World) {
        let worker = to.workers[w];
        let slice = usize::from(worker.slice);
        let Ok(item) = self.ending(w, &to, |attempt| Event::Complete { attempt }) else {
            // All of it is rolled back.
            let what = "completes too late, and rolls back";
            let lost = End::Told(Outcome::Fenced, None);
            return self.ended(w, what, fact::LEASE_LOST, *self.from, lost);
        };
        let target = &mut to.cells[slice].target;
        let older = if target.written_by > worker.attempt { fact::OLDER_OVER_NEWER } else { 0 };
        let attempt = worker.attempt;
        *target =
            Target { written_by: attempt, replaced_by: attempt, version, staged: None, ..*target };
        to.cells[slice].item = Some(item);
        let (outcome, stale) = match item.state {
            State::Stale => (Outcome::Stale, fact::STALE),
            _ => (Outcome::Succeeded, 0),
        };
        let what = "replaces and completes the slice";
        self.ended(w, what, older | stale, to, End::Told(outcome, None));
        spend!(to, replies);
        to.workers[w].phase = Phase::GivingBack;
        self.fault(Some(w), "replaces and completes it, and the reply is lost", older | stale, to);
    }

    fn replace(&mut self, w: usize, version: u8) {
        if self.model.is_one && self.has(Guard::CheckpointToo) {
            return self.replace_all(w, version);
        }
        let Some(mut to) = self.fenced(w, *self.from) else { return };
        let worker = &mut to.workers[w];
        let target = &mut to.cells[usize::from(worker.slice)].target;
        let facts = if target.written_by > worker.attempt { fact::OLDER_OVER_NEWER } else { 0 };
        let is_later = worker.attempt > 1 && self.has(Guard::LaterAttempts);
        let has_changed = target.version != version || is_later;
        target.written_by = worker.attempt;
        target.version = version;
        target.staged = None;
        let is_fine = self.model.is_composed && worker.slice == 0 && has_changed;
        let is_first = is_fine && self.has(Guard::CoarseFirst);
        worker.phase = if is_first { Phase::Committed } else { Phase::Completing };
        if !self.has(Guard::OneTransaction) {
            to.workers[w].phase = Phase::Written;
            return self.push(Some(w), "writes the rows", facts, to);
        }
        target.replaced_by = worker.attempt;
        self.push(Some(w), "replaces the slice", facts, to);
        spend!(to, replies);
        to.workers[w].phase = Phase::GivingBack;
        self.fault(Some(w), "replaces the slice, and the reply is lost", facts, to);
    }

    fn mark(&mut self, w: usize) {
        let mut to = *self.from;
        let worker = &mut to.workers[w];
        to.cells[usize::from(worker.slice)].target.replaced_by = worker.attempt;
        worker.phase = Phase::Completing;
        self.push(Some(w), "writes the marker", 0, to);
    }

    /// The checkpoint after worker `w` ends its attempt. The end is refused unless it is the newest
    /// attempt.
    pub fn ending(
        &self,
        w: usize,
        world: &World,
        event: fn(u64) -> Event,
    ) -> Result<Item, Illegal> {
        let worker = world.workers[w];
        let attempt = u64::from(worker.attempt);
        let found = world.cells[usize::from(worker.slice)].item;
        if found.is_none_or(|it| it.owner != Some(who(w))) {
            return Err(Illegal::NotHolder { attempt });
        }
        next(found, event(attempt), 0, None)
    }

    fn complete(&mut self, w: usize) {
        let mut to = *self.from;
        let worker = to.workers[w];
        let slice = usize::from(worker.slice);
        let found = to.cells[slice].item;
        let mut ended = self.ending(w, &to, |attempt| Event::Complete { attempt });
        if let Some(found) = found.filter(|_| !self.has(Guard::CompleteMine)) {
            // The rest of the condition: `dirty` is compared with what this worker's own claim saw.
            let is_clean = found.dirty == worker.dirty_seen;
            let state = if is_clean { State::Succeeded } else { State::Stale };
            ended = Ok(Item { state, lease: 0, wait: 0, failures: 0, ..found });
        }
        let Ok(mut item) = ended else {
            let is_known = found.is_some_and(|it| {
                let is_ended = matches!(it.state, State::Succeeded | State::Stale);
                it.owner == Some(who(w)) && it.attempt == worker.attempt && is_ended
            });
            if is_known {
                let known = End::Told(Outcome::Succeeded, None);
                let what = "completes again, and knows that it had";
                return self.ended(w, what, fact::ENDING_KNOWN, to, known);
            }
            let lost = End::Told(Outcome::Fenced, None);
            return self.ended(w, "completes too late", fact::LEASE_LOST, to, lost);
        };
        if !self.has(Guard::CompleteDirty) {
            item.state = State::Succeeded;
        }
        to.cells[slice].item = Some(item);
        let (outcome, facts) = match item.state {
            State::Stale => (Outcome::Stale, fact::STALE),
            _ => (Outcome::Succeeded, 0),
        };
        if self.model.is_composed && slice == 0 && !self.has(Guard::CoarseFirst) {
            to.workers[w].phase = Phase::Coarse;
            self.push(Some(w), "completes", facts, to);
            return;
        }
        self.ended(w, "completes", facts, to, End::Told(outcome, None));
        spend!(to, replies);
        self.fault(Some(w), "completes, and the reply is lost", facts, to);
    }

    fn fail(&mut self, w: usize) {
        let mut to = *self.from;
        spend!(to, fails);
        let slice = usize::from(to.workers[w].slice);
        let end = match self.ending(w, &to, fail_of) {
            Ok(item) => {
                to.cells[slice].item = Some(item);
                End::Told(Outcome::Failed, Some(item.wait))
            }
            Err(_) => End::Told(Outcome::Fenced, None),
        };
        self.ended(w, "fails", 0, to, end);
        self.last_is_fault();
    }

    fn give_back(&mut self, w: usize, is_yield: bool) {
        let mut to = *self.from;
        if is_yield {
            spend!(to, yields);
        }
        let slice = usize::from(to.workers[w].slice);
        let found = to.cells[slice].item;
        let (end, facts) = match self
            .ending(w, &to, |attempt| Event::Yield { attempt, retry_at: None })
        {
            Ok(item) => {
                to.cells[slice].item = Some(item);
                let end = if is_yield { End::Told(Outcome::Yielded, None) } else { End::Trouble };
                (end, 0)
            }
            // Its own COMMIT took place.
            Err(_) if self.model.is_one && found.is_some_and(|it| it.owner == Some(who(w))) => {
                (End::Told(Outcome::Succeeded, None), fact::COMMIT_KNOWN)
            }
            Err(_) => (End::Told(Outcome::Fenced, None), 0),
        };
        self.ended(w, "yields", facts, to, end);
        if is_yield {
            self.last_is_fault();
        }
    }

    fn last_is_fault(&mut self) {
        if let Some(step) = self.steps.last_mut() {
            step.is_fault = true;
        }
    }

    /// Kills a worker. Its message comes back.
    fn kill(&mut self, w: usize) {
        let mut to = *self.from;
        spend!(to, crashes);
        self.ended(w, "is killed", 0, to, End::Trouble);
        self.last_is_fault();
    }
}
