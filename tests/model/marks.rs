//! A model of the marks of one captured table. Two consumers each turn them into reopenings: two
//! rollups, in one installation or in two. The model covers the source's statements in
//! `acknowledge.sql` and the order of writes in `consumer.rs`, one call at a time.
//!
//! Bounds: two consumers with a slice each, two late changes, one killed tick, and one consumer
//! that an operator ends and that comes back. A change draws the ID of its mark when it is made,
//! and shows both at its commit.

use std::fmt;

use super::check::{Model, Step};

/// A part of the reasoning that can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A mark is deleted when every consumer has acknowledged it.
    Everybody,
    /// A consumer acknowledges only the marks that it has seen, and leaves others with lower IDs.
    VeryNumber,
    /// A consumer that comes back runs all of its slices again.
    AllAgain,
    /// ... after it is registered.
    RegisteredFirst,
}

/// The model, and the guard that is removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    pub without: Option<Guard>,
}

/// The store's state of a consumer's slice. Changes are bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Slice {
    #[default]
    Due,
    /// A worker has read these changes. The flag tells whether the slice was reopened since.
    Read(u8, bool),
    /// It has succeeded with these.
    Done(u8),
}

/// The progress of a consumer's tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Tick {
    #[default]
    Idle,
    /// Has read these marks.
    Seen(u8),
    /// Has reopened the slices of these marks.
    Reopened(u8),
    /// Without a guard: has reopened everything, and will register.
    Unregistered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Consumer {
    /// Whether the source knows its ID.
    is_registered: bool,
    /// Whether its store knows that no mark was missed.
    is_whole: bool,
    /// The marks that it has acknowledged.
    taken: u8,
    slice: Slice,
    tick: Tick,
}

/// The state of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Changes that have drawn an ID, that are under way, and that have committed, with their
    /// marks.
    drawn: u8,
    open: u8,
    source: u8,
    marks: u8,
    consumers: [Consumer; 2],
    kills: u8,
    forgets: u8,
}

/// A worker and its action.
#[derive(Clone, Copy, Debug)]
pub struct Action(Option<usize>, &'static str);

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(consumer) => write!(f, "consumer {consumer}: {}", self.1),
            None => f.write_str(self.1),
        }
    }
}

/// Facts that a step can show.
pub mod fact {
    /// A mark was kept for another consumer.
    pub const KEPT: u32 = 1;
    /// A change committed after one with a higher ID.
    pub const OUT_OF_ORDER: u32 = 1 << 1;
    /// A consumer came back.
    pub const BACK: u32 = 1 << 2;
}

const CHANGES: u8 = 2;

impl Slice {
    const fn reopened(self) -> Self {
        match self {
            Self::Read(seen, _) => Self::Read(seen, true),
            Self::Due | Self::Done(_) => Self::Due,
        }
    }
}

impl World {
    /// Deletes the marks that every registered consumer has acknowledged.
    fn sweep(&mut self) {
        let known = self.consumers.iter().filter(|it| it.is_registered);
        self.marks &= !known.fold(u8::MAX, |all, it| all & it.taken);
    }
}

type Steps = Vec<Step<World, Action>>;

impl Marks {
    fn has(self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    fn changes(from: &World, steps: &mut Steps) {
        if from.drawn < CHANGES {
            let mut to = *from;
            to.open |= 1 << to.drawn;
            to.drawn += 1;
            push(steps, true, None, "a late change draws a number", 0, to);
        }
        for bit in (0..from.drawn).map(|number| 1 << number).filter(|bit| from.open & bit != 0) {
            let mut to = *from;
            to.open &= !bit;
            to.source |= bit;
            to.marks |= bit;
            let facts = if from.source > bit { fact::OUT_OF_ORDER } else { 0 };
            push(steps, false, None, "a late change commits, with its mark", facts, to);
        }
    }

    /// A worker reads the slice, and completes it.
    fn work(c: usize, from: &World, steps: &mut Steps) {
        let mut to = *from;
        let what = match from.consumers[c].slice {
            Slice::Due => {
                to.consumers[c].slice = Slice::Read(from.source, false);
                "reads the slice"
            }
            Slice::Read(seen, is_reopened) => {
                to.consumers[c].slice = if is_reopened { Slice::Due } else { Slice::Done(seen) };
                "completes"
            }
            Slice::Done(_) => return,
        };
        push(steps, false, Some(c), what, 0, to);
    }

    /// A tick reads the marks, reopens, and acknowledges.
    fn tick(self, c: usize, from: &World, steps: &mut Steps) {
        let mut to = *from;
        let (all, mut facts) = (from.consumers, 0);
        let it = &mut to.consumers[c];
        let what = match it.tick {
            Tick::Idle if !it.is_registered || !it.is_whole => return self.back(c, from, steps),
            Tick::Idle => {
                let marks = from.marks & !it.taken;
                if marks == 0 {
                    return;
                }
                it.tick = Tick::Seen(marks);
                "reads the marks"
            }
            Tick::Seen(marks) => {
                it.slice = it.slice.reopened();
                it.tick = Tick::Reopened(marks);
                "reopens the slice"
            }
            Tick::Reopened(marks) => {
                it.tick = Tick::Idle;
                let up_to = marks | marks.next_power_of_two().wrapping_sub(1);
                it.taken |= if self.has(Guard::VeryNumber) { marks } else { up_to };
                to.sweep();
                if !self.has(Guard::Everybody) {
                    to.marks &= !marks;
                }
                facts = if to.marks & marks != 0 { fact::KEPT } else { 0 };
                "acknowledges the marks"
            }
            Tick::Unregistered => {
                (it.is_registered, it.is_whole, it.taken) = (true, true, 0);
                it.tick = Tick::Idle;
                "registers after that"
            }
        };
        push(steps, false, Some(c), what, facts, to);
        if all[c].tick != Tick::Idle && from.kills > 0 {
            let mut to = *from;
            to.kills -= 1;
            to.consumers[c].tick = Tick::Idle;
            push(steps, true, Some(c), "its tick is killed", 0, to);
        }
    }

    /// The source does not know the consumer: it registers, and then runs all of its slices again.
    fn back(self, c: usize, from: &World, steps: &mut Steps) {
        let mut to = *from;
        let it = &mut to.consumers[c];
        let what = if !it.is_registered && self.has(Guard::RegisteredFirst) {
            (it.is_registered, it.taken) = (true, 0);
            it.is_whole = !self.has(Guard::AllAgain);
            "registers"
        } else {
            it.slice = it.slice.reopened();
            it.is_whole = it.is_registered;
            it.tick = if it.is_registered { Tick::Idle } else { Tick::Unregistered };
            "reopens everything"
        };
        push(steps, false, Some(c), what, fact::BACK, to);
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

impl Model for Marks {
    type State = World;
    type Action = Action;

    fn first(&self) -> World {
        let slice = Slice::Due;
        let consumer =
            Consumer { is_registered: true, is_whole: true, taken: 0, slice, tick: Tick::Idle };
        let consumers = [consumer; 2];
        World { drawn: 0, open: 0, source: 0, marks: 0, consumers, kills: 1, forgets: 1 }
    }

    fn steps(&self, from: &World) -> Steps {
        let mut steps = Vec::new();
        Self::changes(from, &mut steps);
        for c in 0..from.consumers.len() {
            Self::work(c, from, &mut steps);
            self.tick(c, from, &mut steps);
        }
        if from.forgets > 0 {
            let mut to = *from;
            to.forgets -= 1;
            to.consumers[1].is_registered = false;
            to.sweep();
            push(&mut steps, true, None, "an operator ends consumer 1", 0, to);
        }
        steps
    }

    fn broken(&self, world: &World) -> Option<&'static str> {
        let is_missed = |it: &Consumer| {
            let Slice::Done(seen) = it.slice else { return false };
            let held = if let Tick::Seen(marks) = it.tick { marks } else { 0 };
            let told = seen | world.marks & !it.taken | held;
            // A consumer that is not registered, or may have missed marks, runs all of its slices
            // again.
            it.is_registered && it.is_whole && world.source & !told != 0
        };
        world.consumers.iter().any(is_missed).then_some("a change is missed")
    }

    fn forbidden(&self, _: u32) -> Option<&'static str> {
        None
    }

    fn is_done(&self, world: &World) -> bool {
        let is_done = |it: &Consumer| {
            it.slice == Slice::Done(world.source) && it.tick == Tick::Idle && it.is_registered
        };
        world.open == 0 && world.marks == 0 && world.consumers.iter().all(is_done)
    }
}
