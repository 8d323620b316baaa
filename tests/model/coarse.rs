//! The steps of a worker that concern a coarse slice over a finer one. A trailing window is a coarse
//! slice that overlaps others: a finer slice is part of many, so its worker holds none of them, and
//! passes over those that are stale.

use tallymark::checkpoint::state::{Event, State};
use tallymark::work::report::Outcome;

use super::steps::Steps;
use super::worker::End;
use super::world::{Guard, Item, Phase, Tallymark, Worker, World, fact, next};
use super::{breaks, composed, holds, in_target};

impl Steps<'_> {
    /// Whether worker `w` computes the finer slice, and changes its rows.
    pub const fn is_fine(&self, world: &World, w: usize) -> bool {
        self.model.is_composed && world.workers[w].slice == 0
    }

    /// Whether worker `w` computes a window that no transaction of a finer slice holds.
    pub const fn is_beside(&self, world: &World, w: usize) -> bool {
        self.model.is_window && self.model.is_one && world.workers[w].slice == 1
    }

    /// Looks for an unfinished finer slice before the claim of a window.
    pub fn see_finer(&mut self, w: usize, mut to: World) {
        if is_done(&to) {
            to.workers[w].phase = Phase::Seen;
            self.push(Some(w), "finds the finer slice done, and will claim", 0, to);
        }
    }

    /// Claims the window, or is refused.
    pub fn claim_window(&mut self, w: usize) {
        self.claim(w, *self.from, -1);
        let mut to = *self.from;
        to.workers[w] = Worker::default();
        self.push(Some(w), "leaves the window", 0, to);
    }

    /// Whether the reopening passes over it: a window that is stale runs again in any case.
    fn is_skipped(&self, item: Item) -> bool {
        self.model.is_window && item.state == State::Stale
    }

    /// Whether the transaction that replaces the finer slice leaves the coarse one to those who
    /// claim it: one without a checkpoint that it does not hold, or a stale window.
    pub fn is_left_to_others(&self, world: &World) -> bool {
        match world.cells[1].item {
            None => self.model.is_window || !self.has(Guard::FirstClaim),
            Some(item) => self.is_skipped(item),
        }
    }

    /// Looks for an unfinished finer slice after the claim of a window.
    pub fn look_for_finer(&mut self, w: usize) {
        if is_done(self.from) {
            return self.moved(w, "finds the finer slice done", Phase::Ready);
        }
        let mut to = *self.from;
        to.workers[w].phase = Phase::GivingBack;
        self.push(Some(w), "finds the finer slice unfinished", fact::LOOKED_AGAIN, to);
    }

    pub fn look_for_coarse(&mut self, w: usize) {
        if self.from.cells[1].item.is_some_and(|item| !self.is_skipped(item)) {
            return self.moved(w, "finds the coarse slice's checkpoint", Phase::Coarse);
        }
        self.moved(w, "finds no coarse slice", Phase::Completing);
    }

    pub fn reopen_coarse(&mut self, w: usize) {
        let mut to = *self.from;
        to.cells[1].item = next(to.cells[1].item, Event::Reopen, 0, None).ok();
        if !self.has(Guard::CoarseFirst) {
            return self.ended(
                w,
                "reopens the coarse slice",
                0,
                to,
                End::Told(Outcome::Succeeded, None),
            );
        }
        to.workers[w].phase = Phase::Completing;
        self.push(Some(w), "reopens the coarse slice", 0, to);
    }
}

/// Whether the finer slice is done.
fn is_done(world: &World) -> bool {
    world.cells[0].item.is_some_and(|item| item.state == State::Succeeded)
}

#[test]
fn without_reopening_after_a_killed_attempt_a_change_is_missed() {
    breaks(Guard::LaterAttempts, composed(), "a change is missed");
}

/// One trailing window over a finer slice.
fn window() -> Tallymark {
    Tallymark { is_window: true, ..composed() }
}

#[test]
fn a_window_follows_its_finer_slice_in_every_order_of_events() {
    holds("window", &window(), fact::TAKEN_OVER | fact::STALE);
    holds("window, one database", &in_target(window()), fact::TAKEN_OVER | fact::LOOKED_AGAIN);
}

#[test]
fn with_a_window_that_is_read_without_another_look_a_change_is_missed() {
    breaks(Guard::LookAgain, in_target(window()), "a change is missed");
}
