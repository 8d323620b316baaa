//! All possible next steps.

use std::fmt;

use super::check::Step;
use super::world::{Guard, Left, Tallymark, WORKERS, World};

/// Further copies of a message than this change nothing.
pub const COPIES_MAX: u8 = 2;

/// A worker and its action.
#[derive(Clone, Copy, Debug)]
pub struct Action(pub Option<usize>, pub &'static str);

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(worker) => write!(f, "worker {worker}: {}", self.1),
            None => f.write_str(self.1),
        }
    }
}

/// The steps from one world.
pub struct Steps<'m> {
    pub model: &'m Tallymark,
    pub from: &'m World,
    pub steps: Vec<Step<World, Action>>,
}

/// Takes one from the remaining number, or ends the step if there is none left.
macro_rules! spend {
    ($world:expr, $what:ident) => {
        match $world.left.$what.checked_sub(1) {
            Some(left) => $world.left.$what = left,
            None => return,
        }
    };
}
pub(crate) use spend;

impl<'m> Steps<'m> {
    pub fn of(model: &'m Tallymark, from: &'m World) -> Vec<Step<World, Action>> {
        let mut steps = Self { model, from, steps: Vec::new() };
        for worker in 0..model.workers {
            steps.worker(worker);
        }
        steps.source();
        steps.person();
        steps.failover();
        if model.has_watermark {
            steps.advance();
        }
        if model.has_queue {
            steps.queue();
            steps.planner();
        }
        if model.has_time {
            steps.time();
        }
        steps.steps
    }

    pub fn has(&self, guard: Guard) -> bool {
        self.model.without != Some(guard)
    }

    pub fn push(&mut self, who: Option<usize>, what: &'static str, facts: u32, to: World) {
        self.steps.push(Step { action: Action(who, what), is_fault: false, facts, to });
    }

    pub fn fault(&mut self, who: Option<usize>, what: &'static str, facts: u32, to: World) {
        self.steps.push(Step { action: Action(who, what), is_fault: true, facts, to });
    }
}

impl Tallymark {
    /// The initial world.
    pub fn world(&self) -> World {
        assert!(self.workers <= WORKERS, "more workers than there is room for");
        World { source: 1, left: self.left, ..World::default() }
    }
}

impl Left {
    /// None of them.
    pub const NONE: Self = Self {
        changes: 0,
        replays: 0,
        crashes: 0,
        replies: 0,
        fails: 0,
        yields: 0,
        slow: 0,
        losses: 0,
        doubles: 0,
        drops: 0,
    };
}

pub fn who(worker: usize) -> u8 {
    u8::try_from(worker).unwrap()
}

/// Adds a message to those of a slice.
pub fn add(copies: &mut u8) {
    *copies = (*copies + 1).min(COPIES_MAX);
}
