//! Events around the workers: late changes and their marks, the queue, the planner, time.

use tallymark::checkpoint::state::{Event, State};

use super::steps::{COPIES_MAX, Steps, add, spend};
use super::world::{
    Advance, Backfill, Guard, Mover, Person, Phase, Target, World, fact, is_due, next,
};

impl Steps<'_> {
    /// The source changes, and a tick moves its marks into the checkpoint.
    pub fn source(&mut self) {
        let from = self.from;
        if from.left.changes > 0 {
            let mut to = *from;
            to.left.changes -= 1;
            to.source += 1;
            to.marks |= 1 << to.source;
            self.fault(None, "a late change commits, with its mark", 0, to);
        }
        let mut to = *from;
        let what = match from.mover {
            Mover::Idle if from.marks == 0 => return,
            Mover::Idle => {
                to.mover = Mover::Seen(from.marks);
                if !self.has(Guard::MarksLast) {
                    to.marks = 0;
                }
                "the tick reads the marks"
            }
            Mover::Seen(marks) => {
                // A slice that has no checkpoint, or is stale, runs anyway, and reads after this.
                let is_due = from.cells[0].item.is_none_or(|it| it.state == State::Stale);
                // It is already due, but the tick that reopened it may have died before lowering
                // the watermark.
                to.mover = if is_due { self.reopened(marks) } else { Mover::Reopening(marks) };
                "the tick looks at the checkpoint"
            }
            Mover::Reopening(marks) => {
                to.cells[0].item = next(to.cells[0].item, Event::Reopen, 0, None).ok();
                to.mover = self.reopened(marks);
                "the tick reopens the slice"
            }
            Mover::Lowering(marks) => {
                lower(&mut to);
                to.mover = Mover::Deleting(marks);
                "the tick lowers the watermark"
            }
            Mover::Deleting(marks) => {
                to.marks &= !marks;
                to.mover = Mover::Idle;
                "the tick deletes the marks"
            }
        };
        self.push(None, what, 0, to);
        if from.mover != Mover::Idle && from.left.crashes > 0 {
            let mut to = *from;
            to.left.crashes -= 1;
            to.mover = Mover::Idle;
            self.fault(None, "the tick is killed", 0, to);
        }
    }

    const fn reopened(&self, marks: u8) -> Mover {
        if self.model.has_watermark { Mover::Lowering(marks) } else { Mover::Deleting(marks) }
    }

    /// An operator replays the slice: reopens it and lowers the watermark, in one transaction.
    /// Without a guard these are two writes, in either order.
    pub fn person(&mut self) {
        let mut to = *self.from;
        let is_second = to.person == Person::HalfDone;
        let is_whole = self.has(Guard::ReopenWhole) && self.has(Guard::WatermarkAfter);
        let is_lowering = is_second == self.has(Guard::WatermarkAfter);
        if is_whole || !is_lowering {
            to.cells[0].item = next(to.cells[0].item, Event::Reopen, 0, None).ok();
        }
        if self.model.has_watermark && (is_whole || is_lowering) {
            lower(&mut to);
        }
        let is_over = is_whole || is_second || !self.model.has_watermark;
        to.person = if is_over { Person::Idle } else { Person::HalfDone };
        match self.from.person {
            Person::Idle => {
                spend!(to, replays);
                self.fault(None, "a person replays the slice", 0, to);
            }
            Person::HalfDone => {
                self.push(None, "the person's other write is made", 0, to);
                let mut to = *self.from;
                spend!(to, crashes);
                to.person = Person::Idle;
                self.fault(None, "the person's command is killed", 0, to);
            }
        }
    }

    /// The first claim of a slice is lost while its worker continues. Either only the store loses
    /// it, or also the target, if both are one server that fails over. The next claim gets the same
    /// number.
    pub fn failover(&mut self) {
        let mut to = *self.from;
        if to.cells[0].item.is_none_or(|item| item.attempt != 1) {
            return;
        }
        spend!(to, losses);
        to.cells[0].item = None;
        self.fault(None, "the store loses the claim", 0, to);
        to.cells[0].target = Target::default();
        self.fault(None, "store and target lose the claim and the rows", 0, to);
    }

    /// A tick moves the watermark past a succeeded slice, unless a slice was reopened meanwhile.
    pub fn advance(&mut self) {
        let mut to = *self.from;
        let is_succeeded = to.cells[0].item.is_some_and(|it| it.state == State::Succeeded);
        let what = match to.advance {
            Advance::Idle if to.is_past || !is_succeeded => return,
            Advance::Idle => {
                to.advance = Advance::Read(to.version);
                "the tick reads the watermark"
            }
            Advance::Read(version) => {
                to.advance = if is_succeeded { Advance::Seen(version) } else { Advance::Idle };
                "the tick sees whether the slice has succeeded"
            }
            Advance::Seen(version) => {
                to.is_past |= version == to.version || !self.has(Guard::WatermarkVersion);
                to.advance = Advance::Idle;
                "the tick advances the watermark, if nothing was reopened"
            }
        };
        let facts = if to.is_past { fact::PASSED } else { 0 };
        self.push(None, what, facts, to);
    }

    pub fn queue(&mut self) {
        for slice in 0..self.model.slices {
            let queued = self.from.cells[slice].queued;
            let mut to = *self.from;
            if queued > 0 && queued < COPIES_MAX && to.left.doubles > 0 {
                to.left.doubles -= 1;
                to.cells[slice].queued += 1;
                self.fault(None, "a message is doubled", 0, to);
            }
            let mut to = *self.from;
            if queued > 0 && to.left.drops > 0 {
                to.left.drops -= 1;
                to.cells[slice].queued -= 1;
                self.fault(None, "a message is dropped", 0, to);
            }
        }
        let mut to = *self.from;
        if self.depth() > 0 {
            spend!(to, drops);
            to.cells.iter_mut().for_each(|cell| cell.queued = 0);
            to.workers.iter_mut().for_each(|worker| worker.has_message = false);
            self.fault(None, "the queue is purged", 0, to);
        }
    }

    /// Messages, including those in flight, as SQS counts them.
    fn depth(&self) -> usize {
        let queued: u8 = self.from.cells.iter().map(|cell| cell.queued).sum();
        usize::from(queued) + self.from.workers.iter().filter(|worker| worker.has_message).count()
    }

    pub fn planner(&mut self) {
        let mut to = *self.from;
        let mut facts = 0;
        let what = match to.backfill {
            Backfill::Planning | Backfill::Sweeping => {
                let (mut wanted, mut pending) = (0, 0);
                for slice in 0..self.model.slices {
                    match is_due(to.cells[slice].item) {
                        Some(true) => wanted |= 1 << slice,
                        Some(false) => {}
                        None => pending |= 1 << slice,
                    }
                }
                let is_sweep = to.backfill == Backfill::Sweeping;
                to.backfill = Backfill::Looked(wanted, pending, is_sweep);
                "the planner looks"
            }
            Backfill::Looked(wanted, pending, is_sweep) => {
                for slice in (0..self.model.slices).filter(|slice| wanted & (1 << slice) != 0) {
                    add(&mut to.cells[slice].queued);
                    facts |= if is_sweep { fact::SWEPT } else { 0 };
                }
                to.backfill = Backfill::Sent(wanted | pending != 0);
                "the planner sends"
            }
            Backfill::Sent(true) => {
                to.backfill = Backfill::Running;
                "the planner writes how far it is"
            }
            Backfill::Sent(false) => {
                to.backfill = Backfill::Done;
                "the backfill is done"
            }
            Backfill::Running if self.depth() == 0 && self.has(Guard::Sweep) => {
                to.backfill = Backfill::Sweeping;
                "the tick finds the queue empty"
            }
            Backfill::Running | Backfill::Done => return,
        };
        self.push(None, what, facts, to);
        let mut to = *self.from;
        if matches!(to.backfill, Backfill::Looked(..) | Backfill::Sent(_)) {
            spend!(to, crashes);
            to.backfill = Backfill::Planning;
            self.fault(None, "the planner is killed", 0, to);
        }
    }

    pub fn time(&mut self) {
        let mut to = *self.from;
        for item in to.cells.iter_mut().filter_map(|cell| cell.item.as_mut()) {
            item.lease = (item.lease - 1).max(0);
            item.wait = (item.wait - 1).max(0);
        }
        for worker in &mut to.workers {
            if let Phase::Claiming(age) = &mut worker.phase {
                // A greater age makes no difference, as the requested lease has ended.
                *age = (*age + 1).min(self.model.lease + self.model.skew);
            }
        }
        if to != *self.from {
            self.push(None, "time passes", 0, to);
        }
    }
}

fn lower(world: &mut World) {
    world.is_past = false;
    world.version += 1;
}
