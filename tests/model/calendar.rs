//! A model of a rollup whose calendar changes and changes back while workers continue. It covers
//! generations, and the effect of overlapping slices of two calendars on each other's rows.
//!
//! Calendar A has a slice of hours 1 and 2, calendar B one of hours 0 and 1. Times outside of them
//! are still open. A worker adopts its calendar, claims, reads, replaces under the fence,
//! completes. A tick turns a mark into a reopening. `generation.rs`, `fence.sql` and `marker.sql`
//! are modelled here, one call at a time.
//!
//! Bounds: two workers, each with the calendar that was deployed when it began, two deploys, one
//! late change, and one killed process. Leases and attempts belong to the other model, so a slice
//! has one worker here.

use std::fmt;

use super::check::{Model, Step};

/// A part of the reasoning that can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The fence refuses attempts of a generation that is older than the registry's.
    Fence,
    /// A success counts in its own generation only.
    Success,
    /// A replacement deletes the markers of the other calendar that it overlaps, and their rows.
    Overlap,
    /// A tick checks whether the item still names its calendar before it reopens.
    TickLooks,
}

/// The model, and the guard that is removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calendar {
    pub without: Option<Guard>,
}

/// The store's state of the only slice of a calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Slice {
    #[default]
    Due,
    /// Whether it was reopened since the claim.
    Claimed(bool),
    /// Has succeeded in a generation, with this many of the source's changes.
    Done(u8, u8),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Idle,
    Adopted,
    Claimed,
    Read(u8),
    Replaced(u8),
}

/// A worker: one process after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Worker {
    phase: Phase,
    calendar: usize,
    generation: u8,
}

/// A tick of a process with one of the calendars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Tick {
    #[default]
    Idle,
    /// Has read the mark.
    Seen(usize),
    /// Has seen that the item names its calendar.
    Looked(usize),
    Reopened,
}

/// The state of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The calendar of processes that begin now.
    deployed: usize,
    /// The rollup's item: the calendar that it names, and the generation.
    calendar: usize,
    generation: u8,
    /// The registry of the target.
    registered: u8,
    slices: [Slice; 2],
    /// The calendars whose slice has a marker.
    markers: [bool; 2],
    /// By hour: the calendar that wrote its rows, and the version that they were read from.
    rows: [Option<(usize, u8)>; 3],
    source: u8,
    is_marked: bool,
    workers: [Worker; 2],
    tick: Tick,
    deploys: u8,
    changes: u8,
    kills: u8,
}

/// The first hour of each calendar's slice of two.
const FIRST: [usize; 2] = [1, 0];

/// A worker and its action.
#[derive(Clone, Copy, Debug)]
pub struct Action(Option<usize>, &'static str);

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(worker) => write!(f, "worker {worker}: {}", self.1),
            None => f.write_str(self.1),
        }
    }
}

/// Facts that a step can show.
pub mod fact {
    /// An attempt of an older generation was refused.
    pub const SUPERSEDED: u32 = 1;
    /// The remains of the other calendar were deleted.
    pub const CLEARED: u32 = 1 << 1;
    /// A calendar came back, and its old success did not count.
    pub const AGAIN: u32 = 1 << 2;
}

type Steps = Vec<Step<World, Action>>;

impl World {
    /// Makes the item name a calendar. If it named the other, all slices start a new generation.
    fn adopt(&mut self, calendar: usize) {
        if self.calendar != calendar {
            self.generation = self.generation.max(self.registered) + 1;
            self.calendar = calendar;
        }
    }

    fn reopen(&mut self, calendar: usize) {
        let slice = &mut self.slices[calendar];
        *slice = match slice {
            Slice::Claimed(_) => Slice::Claimed(true),
            Slice::Due | Slice::Done(..) => Slice::Due,
        };
    }
}

impl Calendar {
    fn has(self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    fn counts(self, slice: Slice, generation: u8) -> Option<u8> {
        match slice {
            Slice::Done(of, seen) if of == generation || !self.has(Guard::Success) => Some(seen),
            Slice::Due | Slice::Claimed(_) | Slice::Done(..) => None,
        }
    }

    fn outside(from: &World, steps: &mut Steps) {
        if from.deploys > 0 {
            let mut to = *from;
            to.deploys -= 1;
            to.deployed = 1 - to.deployed;
            push(steps, true, None, "the other calendar is deployed", 0, to);
        }
        if from.changes > 0 {
            let mut to = *from;
            to.changes -= 1;
            to.source += 1;
            to.is_marked = true;
            push(steps, true, None, "a late change commits, with its mark", 0, to);
        }
    }

    fn tick(self, from: &World, steps: &mut Steps) {
        let mut to = *from;
        let what = match from.tick {
            Tick::Idle if !from.is_marked => return,
            Tick::Idle => {
                // A slice of a process that began before the last deploy.
                let mut older = *from;
                older.tick = Tick::Seen(1 - from.deployed);
                push(steps, true, None, "a tick of the other calendar reads the mark", 0, older);
                to.tick = Tick::Seen(from.deployed);
                "a tick reads the mark"
            }
            Tick::Seen(calendar) => {
                if self.has(Guard::TickLooks) {
                    to.adopt(calendar);
                }
                to.tick = Tick::Looked(calendar);
                "the tick sees to it that its calendar is adopted"
            }
            Tick::Looked(calendar) => {
                to.reopen(calendar);
                to.tick = Tick::Reopened;
                "the tick reopens the slice"
            }
            Tick::Reopened => {
                (to.tick, to.is_marked) = (Tick::Idle, false);
                "the tick deletes the mark"
            }
        };
        push(steps, false, None, what, 0, to);
    }

    fn worker(self, w: usize, from: &World, steps: &mut Steps) {
        let mut to = *from;
        let worker = from.workers[w];
        let Worker { calendar, generation, .. } = worker;
        let next = &mut to.workers[w];
        let mut facts = 0;
        let what = match worker.phase {
            Phase::Idle => {
                next.calendar = from.deployed;
                to.adopt(from.deployed);
                let next = &mut to.workers[w];
                (next.generation, next.phase) = (to.generation, Phase::Adopted);
                if self.counts(from.slices[next.calendar], to.generation).is_some() {
                    // No slice is due, but the item now names its calendar.
                    to.workers[w] = Worker::default();
                }
                if to == *from {
                    return;
                }
                "adopts its calendar"
            }
            Phase::Adopted => match from.slices[calendar] {
                Slice::Claimed(_) => {
                    *next = Worker::default();
                    "is refused"
                }
                slice if self.counts(slice, generation).is_some() => {
                    *next = Worker::default();
                    "finds the slice done"
                }
                slice => {
                    facts = if matches!(slice, Slice::Done(..)) { fact::AGAIN } else { 0 };
                    next.phase = Phase::Claimed;
                    to.slices[calendar] = Slice::Claimed(false);
                    "claims"
                }
            },
            Phase::Claimed => {
                next.phase = Phase::Read(from.source);
                "reads the slice"
            }
            Phase::Read(seen) => return self.replace(w, seen, from, steps),
            Phase::Replaced(seen) => {
                let is_reopened = from.slices[calendar] == Slice::Claimed(true);
                to.slices[calendar] =
                    if is_reopened { Slice::Due } else { Slice::Done(generation, seen) };
                to.workers[w] = Worker::default();
                "completes"
            }
        };
        push(steps, false, Some(w), what, facts, to);
    }

    fn replace(self, w: usize, seen: u8, from: &World, steps: &mut Steps) {
        let mut to = *from;
        let Worker { calendar, generation, .. } = from.workers[w];
        if from.registered > generation && self.has(Guard::Fence) {
            to.slices[calendar] = Slice::Due;
            to.workers[w] = Worker::default();
            return push(steps, false, Some(w), "is superseded", fact::SUPERSEDED, to);
        }
        to.registered = to.registered.max(generation);
        to.workers[w].phase = Phase::Replaced(seen);
        to.markers[calendar] = true;
        let other = 1 - calendar;
        let mut facts = 0;
        if from.markers[other] && self.has(Guard::Overlap) {
            to.markers[other] = false;
            for row in &mut to.rows[FIRST[other]..FIRST[other] + 2] {
                *row = row.filter(|(of, _)| *of == calendar);
            }
            facts = fact::CLEARED;
        }
        to.rows[FIRST[calendar]..FIRST[calendar] + 2].fill(Some((calendar, seen)));
        push(steps, false, Some(w), "replaces the slice", facts, to);
    }

    fn kill(w: usize, from: &World, steps: &mut Steps) {
        let worker = from.workers[w];
        if from.kills == 0 || worker.phase == Phase::Idle {
            return;
        }
        let mut to = *from;
        to.kills -= 1;
        if worker.phase != Phase::Adopted {
            // Its lease runs out.
            to.slices[worker.calendar] = Slice::Due;
        }
        to.workers[w] = Worker::default();
        push(steps, true, Some(w), "is killed", 0, to);
    }
}

fn push(
    steps: &mut Steps,
    is_fault: bool,
    who: Option<usize>,
    what: &'static str,
    facts: u32,
    to: World,
) {
    steps.push(Step { action: Action(who, what), is_fault, facts, to });
}

impl Model for Calendar {
    type State = World;
    type Action = Action;

    fn first(&self) -> World {
        World {
            deployed: 0,
            calendar: 0,
            generation: 0,
            registered: 0,
            slices: [Slice::Due; 2],
            markers: [false; 2],
            rows: [None; 3],
            source: 1,
            is_marked: false,
            workers: [Worker::default(); 2],
            tick: Tick::Idle,
            deploys: 2,
            changes: 1,
            kills: 1,
        }
    }

    fn steps(&self, from: &World) -> Steps {
        let mut steps = Vec::new();
        Self::outside(from, &mut steps);
        self.tick(from, &mut steps);
        for w in 0..from.workers.len() {
            self.worker(w, from, &mut steps);
            Self::kill(w, from, &mut steps);
        }
        steps
    }

    fn broken(&self, world: &World) -> Option<&'static str> {
        let calendar = world.calendar;
        let seen = self.counts(world.slices[calendar], world.generation)?;
        let is_told = world.is_marked && !matches!(world.tick, Tick::Reopened);
        if seen < world.source && !is_told {
            return Some("a change is missed");
        }
        let hours = FIRST[calendar]..FIRST[calendar] + 2;
        let is_right = |(hour, row): (usize, &Option<(usize, u8)>)| match row {
            Some(row) => hours.contains(&hour) && *row == (calendar, seen),
            None => !hours.contains(&hour),
        };
        let is_right = world.rows.iter().enumerate().all(is_right);
        (!is_right).then_some("a slice has succeeded, and the rows are not its own")
    }

    fn forbidden(&self, _: u32) -> Option<&'static str> {
        None
    }

    fn is_done(&self, world: &World) -> bool {
        let slice = world.slices[world.deployed];
        world.calendar == world.deployed
            && world.tick == Tick::Idle
            && !world.is_marked
            && self.counts(slice, world.generation) == Some(world.source)
    }
}
