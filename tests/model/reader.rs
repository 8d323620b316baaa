//! A model of readers of the target: what `tallymark.coverage` calls complete while ticks move marks
//! and workers replace slices. A reader takes one snapshot of the target, so that every state of the
//! model is one that a reader may see.
//!
//! The target keeps a generation for each slice. A tick raises it before it reopens the slice in the
//! store, and acknowledges the mark after that. An attempt reads the generation before its first
//! read of the source, and its replacement writes down that one, which says how old its rows are. A
//! slice is complete where that is the newest generation, and the same holds for the slices that it
//! is computed from. `checked_at` is the instant at which a tick began, before it read the marks.
//!
//! Bounds: one slice, or a finer and a coarse one; two workers; one or two ticks; one or two late
//! changes; a killed process; a lease that ends while its worker lives; a slice that runs again for
//! another reason.

use super::check::{Model, Step};

#[path = "reader_world.rs"]
mod world;

use world::{Action, Phase, Stored, Tick, Worker, Write};
pub use world::{Guard, Reader, World, fact};

type Steps = Vec<Step<World, Action>>;

fn push(steps: &mut Steps, is_fault: bool, action: Action, facts: u32, to: World) {
    steps.push(Step { action, is_fault, facts, to });
}

fn who(process: usize) -> u8 {
    u8::try_from(process).unwrap()
}

impl Reader {
    fn has(self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    /// Whether a reader is told that this slice is complete.
    fn is_complete(self, world: &World, slice: usize) -> bool {
        let is_whole = slice == 0 || !self.has(Guard::Parts) || world.cells[0].is_settled();
        world.cells[slice].is_settled() && is_whole
    }

    fn outside(from: &World, steps: &mut Steps) {
        if from.changes > 0 {
            let mut to = *from;
            to.changes -= 1;
            to.source += 1;
            to.marks |= 1 << to.source;
            push(steps, true, Action("", 0, "a late change commits, with its mark"), 0, to);
        }
        for slice in 0..2 {
            let stored = from.cells[slice].stored;
            if from.slow > 0 && matches!(stored, Stored::Running(Some(_))) {
                let mut to = *from;
                to.slow -= 1;
                to.cells[slice].stored = Stored::Running(None);
                push(steps, true, Action("", 0, "a lease ends"), 0, to);
            }
            if from.replays > 0 && stored != Stored::Absent {
                let mut to = *from;
                to.replays -= 1;
                to.cells[slice].reopen();
                push(steps, true, Action("", 0, "the slice is asked for again"), 0, to);
            }
        }
    }

    fn tick(self, t: usize, from: &World, steps: &mut Steps) {
        let mut to = *from;
        let what = match from.ticks[t] {
            Tick::Idle
                if from.marks == 0
                    && from.checked == from.source
                    && !from.cells[0].is_forgotten() =>
            {
                return;
            }
            Tick::Idle => {
                to.ticks[t] = Tick::Began(from.source);
                "takes its first instant"
            }
            Tick::Began(version) => {
                let first = if self.has(Guard::CheckedLast) { Write::Look } else { Write::Check };
                to.ticks[t] = Tick::Writing(first, version, from.marks);
                "reads the marks"
            }
            Tick::Writing(write, version, marks) => self.write(t, write, (version, marks), &mut to),
        };
        push(steps, false, Action("tick", t, what), 0, to);
        if from.ticks[t] != Tick::Idle && from.kills > 0 {
            let mut to = *from;
            to.kills -= 1;
            to.ticks[t] = Tick::Idle;
            push(steps, true, Action("tick", t, "is killed"), 0, to);
        }
    }

    /// One write of a tick, and the choice of the next one.
    fn write(
        self,
        t: usize,
        write: Write,
        (mut version, marks): (u8, u8),
        to: &mut World,
    ) -> &'static str {
        let is_late = !self.has(Guard::RaisedFirst);
        let (next, what) = match write {
            Write::Look => match self.look(to, &mut version, marks) {
                Some(next) => next,
                None => {
                    to.ticks[t] = Tick::Idle;
                    return "finds its marks taken";
                }
            },
            Write::Raise => {
                to.cells[0].generation += 1;
                (Write::Reopen, "raises the generation")
            }
            Write::Reopen => {
                if to.cells[0].stored != Stored::Stale {
                    to.cells[0].reopen();
                }
                (Write::Acknowledge, "reopens the slice")
            }
            Write::Acknowledge => {
                to.marks &= !marks;
                let next = if is_late && marks != 0 { Write::RaiseLate } else { Write::Check };
                (next, "acknowledges the marks")
            }
            Write::RaiseLate => {
                to.cells[0].generation += 1;
                (Write::Check, "raises the generation")
            }
            Write::Check => {
                to.checked = to.checked.max(version);
                let next = match self.has(Guard::CheckedLast) {
                    true => Write::Mend,
                    false => Write::Look,
                };
                to.ticks[t] = Tick::Writing(next, 0, marks);
                return "writes checked_at";
            }
            Write::Mend => {
                if to.cells[0].is_forgotten() && self.has(Guard::Mended) {
                    to.cells[0].reopen();
                }
                to.ticks[t] = Tick::Idle;
                return "reopens what is stale and was not reopened";
            }
        };
        to.ticks[t] = match next {
            Write::Check if !self.has(Guard::CheckedLast) => Tick::Writing(Write::Mend, 0, 0),
            next => Tick::Writing(next, version, marks),
        };
        what
    }

    /// Looks at the slice, and takes its marks where all is one transaction. `None`: another tick
    /// has taken them.
    fn look(self, to: &mut World, version: &mut u8, marks: u8) -> Option<(Write, &'static str)> {
        if !self.has(Guard::CheckedEarly) {
            *version = to.source;
        }
        let cell = &mut to.cells[0];
        let is_known = match cell.stored {
            Stored::Absent => false,
            Stored::Stale => self.has(Guard::DueToo),
            Stored::Running(_) | Stored::Done => true,
        };
        Some(match marks != 0 && is_known {
            true if self.is_one => {
                if marks & !to.marks != 0 {
                    return None;
                }
                cell.generation += 1;
                if cell.stored != Stored::Stale {
                    cell.reopen();
                }
                to.marks &= !marks;
                (Write::Check, "raises, reopens and acknowledges")
            }
            true if !self.has(Guard::RaisedFirst) => (Write::Reopen, "looks at the slice"),
            true => (Write::Raise, "looks at the slice"),
            false => (Write::Acknowledge, "finds the slice due"),
        })
    }

    fn worker(self, w: usize, from: &World, steps: &mut Steps) {
        let Worker { phase, slice, attempt, dirty_seen } = from.workers[w];
        let (mut to, cell) = (*from, from.cells[slice]);
        let mut facts = 0;
        let what = match phase {
            Phase::Idle => return self.claim(w, from, steps),
            Phase::Claimed => {
                to.workers[w].phase = Phase::Known(cell.generation);
                "reads the generation"
            }
            Phase::Known(known) => {
                let version = if slice == 1 { from.cells[0].version } else { from.source };
                let is_same = |(dirty, of, _): &(u8, u8, u8)| {
                    *dirty == dirty_seen && (*of == known || !self.has(Guard::StageGeneration))
                };
                let earlier = cell.staged.filter(is_same).map(|(_, _, version)| version);
                if cell.fence > attempt {
                    return self.lose(w, from, steps);
                }
                if self.has_chunks && earlier.is_none() {
                    to.cells[slice].fence = attempt;
                    to.cells[slice].staged = Some((dirty_seen, known, version));
                }
                facts = if earlier.is_some() { fact::CONTINUED } else { 0 };
                to.workers[w].phase = Phase::Read(known, earlier.unwrap_or(version));
                "reads the slice"
            }
            Phase::Read(known, version) if cell.fence <= attempt => {
                facts = self.replace(w, (known, version), &mut to);
                "replaces the slice"
            }
            Phase::Read(..) => return self.lose(w, from, steps),
            Phase::Replaced(is_coarse_due) => {
                if is_coarse_due && from.cells[1].stored != Stored::Absent {
                    to.cells[1].reopen();
                }
                if is_coarse_due && !self.has(Guard::CoarseRaised) {
                    to.cells[1].generation += 1;
                }
                to.workers[w].phase = Phase::Completing;
                "reopens the coarse slice"
            }
            Phase::Completing => {
                complete(w, &mut to);
                "completes"
            }
        };
        push(steps, false, Action("worker", w, what), facts, to);
    }

    fn claim(self, w: usize, from: &World, steps: &mut Steps) {
        for slice in 0..if self.is_composed { 2 } else { 1 } {
            let cell = from.cells[slice];
            let is_held = matches!(cell.stored, Stored::Done | Stored::Running(Some(_)));
            if is_held || slice == 1 && from.cells[0].stored != Stored::Done {
                continue;
            }
            let mut to = *from;
            let it = &mut to.cells[slice];
            (it.attempt, it.stored) = (cell.attempt + 1, Stored::Running(Some(who(w))));
            // Without the guard it reads the generation when it replaces the rows.
            let phase = match self.has(Guard::GenerationFirst) {
                true => Phase::Claimed,
                false => Phase::Known(0),
            };
            to.workers[w] = Worker { phase, slice, attempt: it.attempt, dirty_seen: it.dirty };
            push(steps, false, Action("worker", w, "claims"), 0, to);
        }
    }

    /// Replaces the rows in one transaction of the target.
    fn replace(self, w: usize, (known, version): (u8, u8), to: &mut World) -> u32 {
        let Worker { slice, attempt, .. } = to.workers[w];
        let cell = &mut to.cells[slice];
        let known = if self.has(Guard::GenerationFirst) { known } else { cell.generation };
        let has_changed = cell.version != version || attempt > 1;
        let facts = match () {
            () if known < cell.cleared => fact::LOWERED,
            () if known < cell.generation => fact::LEFT_STALE,
            () if cell.cleared < known => fact::CLEARED,
            () => 0,
        };
        cell.cleared = match self.has(Guard::ClearedByTheRows) {
            true => known,
            false => cell.cleared.max(known),
        };
        (cell.fence, cell.version, cell.staged) = (attempt, version, None);
        let is_coarse_due = self.is_composed && slice == 0 && has_changed;
        if is_coarse_due && self.has(Guard::CoarseRaised) {
            to.cells[1].generation += 1;
        }
        to.workers[w].phase = Phase::Replaced(is_coarse_due);
        if self.is_one {
            if is_coarse_due && to.cells[1].stored != Stored::Absent {
                to.cells[1].reopen();
            }
            complete(w, to);
        }
        facts
    }

    /// Ends an attempt that a newer one has overtaken.
    fn lose(self, w: usize, from: &World, steps: &mut Steps) {
        let mut to = *from;
        to.workers[w] = Worker::default();
        push(steps, false, Action("worker", w, "is fenced"), fact::FENCED, to);
    }

    fn kill(w: usize, from: &World, steps: &mut Steps) {
        let worker = from.workers[w];
        if from.kills == 0 || worker.phase == Phase::Idle {
            return;
        }
        let mut to = *from;
        to.kills -= 1;
        let stored = &mut to.cells[worker.slice].stored;
        if *stored == Stored::Running(Some(who(w))) {
            // Its lease runs out.
            *stored = Stored::Running(None);
        }
        to.workers[w] = Worker::default();
        push(steps, true, Action("worker", w, "is killed"), 0, to);
    }
}

/// Completes the checkpoint, if it still is this attempt's.
fn complete(w: usize, to: &mut World) {
    let Worker { slice, attempt, dirty_seen, .. } = std::mem::take(&mut to.workers[w]);
    let cell = &mut to.cells[slice];
    if cell.stored == Stored::Running(Some(who(w))) && cell.attempt == attempt {
        cell.stored = if cell.dirty == dirty_seen { Stored::Done } else { Stored::Stale };
    }
}

impl Model for Reader {
    type State = World;
    type Action = Action;

    fn first(&self) -> World {
        let (source, checked, changes) = (1, 1, self.changes);
        let Self { kills, slow, replays, .. } = *self;
        World { source, checked, changes, kills, slow, replays, ..World::default() }
    }

    fn steps(&self, from: &World) -> Steps {
        let mut steps = Vec::new();
        Self::outside(from, &mut steps);
        for t in 0..self.ticks {
            self.tick(t, from, &mut steps);
        }
        for w in 0..from.workers.len() {
            self.worker(w, from, &mut steps);
            Self::kill(w, from, &mut steps);
        }
        steps
    }

    fn broken(&self, world: &World) -> Option<&'static str> {
        let is_misread = |slice: &usize| {
            self.is_complete(world, *slice) && world.cells[*slice].version < world.checked
        };
        (0..2).find(is_misread).map(|slice| match slice {
            0 => "a reader misreads a number",
            _ => "a reader misreads a coarse number",
        })
    }

    fn forbidden(&self, _: u32) -> Option<&'static str> {
        None
    }

    fn is_done(&self, world: &World) -> bool {
        let slices = if self.is_composed { 2 } else { 1 };
        world.marks == 0
            && world.checked == world.source
            && world.ticks == [Tick::Idle; 2]
            && (0..slices).all(|slice| {
                let cell = world.cells[slice];
                cell.stored == Stored::Done
                    && cell.version == world.source
                    && self.is_complete(world, slice)
            })
    }
}
