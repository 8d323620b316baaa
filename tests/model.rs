//! A model of one slice's life, checked in every reachable state.
//!
//! The spine consists of single steps, between which any other event may happen: claim, resume,
//! read, stage, replace under the fence, reopen the coarse slice, complete. Further actors are a
//! tick that moves marks into checkpoints, a tick that advances the watermark, an operator who
//! replays, and a backfill's planner with its queue. The decisions are the product's own:
//! `checkpoint::state::next` for every transition of a checkpoint, `plan::View::judge` for due
//! slices, `fanout::disposition` for messages. The rest is modelled here: the conditions' owner
//! (`finish::MINE`, `ALL_OLD`), the fence (`fence.sql`), the stage (`Target::resume`),
//! `late::reopen_range`, `Work::complete`, and `fanout::want` and `fanout::planner`, which are
//! private to the crate (of a backfill without `force`, `want` computes exactly the due slices).
//!
//! Each test has its own bounds (the functions that make its model): 2 or 3 workers; 1 or 2 slices;
//! at most 2 late changes, 1 replay, 2 kills, 2 lost replies, 1 failure, 1 yield, 2 leases that run
//! out on a living worker, 1 doubled and 1 lost message (or a purge), 1 lost claim; a lease of 1 or
//! 2 ticks, every other clock 1 tick ahead; a read of 1 or 2 chunks. Time is unbounded, and so is
//! the time that a worker may pause. The model leaves out settling (every change is late, and
//! marked), two concurrent ticks that move marks, two planners, and lost checkpoints.
//!
//! Invariants: an older attempt's data never replaces a newer's. Marker and rows agree. For a
//! succeeded slice, every change missing from its data has a mark. A slice whose lease holds by
//! every clock is never taken. An unfinished slice is found by a message, a lease, a wait, a sweep
//! or a tick. Liveness: from every state, without further faults, a state is reachable in which
//! every slice has succeeded and equals the source.
//!
//! `cargo test --test model -- --nocapture` prints the number of states.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[path = "model/around.rs"]
mod around;
#[path = "model/calendar.rs"]
mod calendar;
#[path = "model/check.rs"]
mod check;
#[path = "model/coarse.rs"]
mod coarse;
#[path = "model/marks.rs"]
mod marks;
#[path = "model/reader.rs"]
mod reader;
#[path = "model/steps.rs"]
mod steps;
#[path = "model/worker.rs"]
mod worker;
#[path = "model/world.rs"]
mod world;

use tallymark::checkpoint::State;

use calendar::Calendar;
use check::{Findings, Model, Step, check};
use marks::Marks;
use reader::Reader;
use steps::{Action, Steps};
use world::{Backfill, Cell, Guard, Left, Mover, Person, Phase, Tallymark, World, fact, is_due};

impl Model for Tallymark {
    type State = World;
    type Action = Action;

    fn first(&self) -> World {
        self.world()
    }

    fn steps(&self, from: &World) -> Vec<Step<World, Action>> {
        Steps::of(self, from)
    }

    fn broken(&self, world: &World) -> Option<&'static str> {
        for (slice, cell) in world.cells[..self.slices].iter().enumerate() {
            let target = cell.target;
            if target.replaced_by != target.written_by || target.replaced_by > target.attempt {
                // Between its two transactions this is expected of a living worker.
                if !world.workers.iter().any(|it| it.phase == Phase::Written) {
                    return Some("marker and rows disagree");
                }
            }
            if self.is_one && self.contradicts(cell) {
                return Some("rows and checkpoint disagree");
            }
            if self.is_missed(world, slice) {
                return Some("a change is missed");
            }
            if !self.is_found(world, slice, cell) {
                return Some("a slice is lost");
            }
        }
        None
    }

    fn forbidden(&self, facts: u32) -> Option<&'static str> {
        [
            (fact::OLDER_OVER_NEWER, "an older attempt's data replaced a newer's"),
            (fact::HELD_TAKEN, "a slice was taken whose lease holds by every clock"),
        ]
        .into_iter()
        .find_map(|(fact, what)| (facts & fact != 0).then_some(what))
    }

    fn is_done(&self, world: &World) -> bool {
        world.marks == 0
            && world.mover == Mover::Idle
            && world.person == Person::Idle
            && world.cells[..self.slices].iter().all(|cell| {
                is_succeeded(cell) && (!self.reads_source() || cell.target.version == world.source)
            })
    }
}

fn is_succeeded(cell: &Cell) -> bool {
    cell.item.is_some_and(|item| item.state == State::Succeeded)
}

impl Tallymark {
    /// A coarse slice's version is that of the finer one's rows, and so in the end also the
    /// source's.
    const fn reads_source(&self) -> bool {
        self.slices == 1 || self.is_composed
    }

    /// Whether a slice has succeeded by another attempt than that of its rows, or is still running by
    /// that attempt.
    fn contradicts(&self, cell: &Cell) -> bool {
        // A lost claim repeats numbers.
        let Some(item) = cell.item.filter(|_| self.left.losses == 0) else { return false };
        let is_by_it = item.attempt == cell.target.replaced_by;
        match item.state {
            State::Succeeded => !is_by_it,
            State::Running => is_by_it,
            _ => false,
        }
    }

    /// Whether a succeeded slice lacks a change that nothing will report.
    fn is_missed(&self, world: &World, slice: usize) -> bool {
        let cell = world.cells[slice];
        if !is_succeeded(&cell) {
            return false;
        }
        if self.is_composed && slice == 1 {
            // The finer slice's completion comes after its reopening.
            let finer = world.cells[0];
            let is_told = self.without == Some(Guard::CoarseFirst)
                && world.workers.iter().any(|it| it.phase == Phase::Coarse);
            return cell.target.version != finer.target.version && is_succeeded(&finer) && !is_told;
        }
        let told = world.marks
            | match world.mover {
                Mover::Seen(marks) | Mover::Reopening(marks) => marks,
                Mover::Idle | Mover::Lowering(_) | Mover::Deleting(_) => 0,
            };
        (cell.target.version + 1..=world.source).any(|change| told & (1 << change) == 0)
    }

    /// Whether something will come back to a slice.
    fn is_found(&self, world: &World, slice: usize, cell: &Cell) -> bool {
        if is_succeeded(cell) {
            return true;
        }
        if !self.has_queue {
            let is_seen = !world.is_past || world.marks != 0 || world.person != Person::Idle;
            return is_seen && is_due(cell.item) != Some(false);
        }
        let is_swept = match world.backfill {
            Backfill::Running => self.without != Some(Guard::Sweep),
            Backfill::Done => false,
            _ => true,
        };
        let is_worked_on = |worker: &world::Worker| {
            worker.phase != Phase::Idle && usize::from(worker.slice) == slice
        };
        cell.queued > 0
            || is_swept
            || world.workers.iter().any(is_worked_on)
            || is_due(cell.item).is_none()
    }
}

/// One slice, two workers, and a few events of each kind.
fn one_slice() -> Tallymark {
    let left = Left { changes: 2, crashes: 1, replies: 1, slow: 1, ..Left::NONE };
    Tallymark {
        slices: 1,
        workers: 2,
        lease: 2,
        skew: 1,
        has_time: true,
        left,
        ..Tallymark::default()
    }
}

/// A slice that is read in two chunks.
fn two_chunks() -> Tallymark {
    let left = Left { changes: 1, crashes: 1, yields: 1, fails: 1, slow: 1, ..Left::NONE };
    Tallymark { has_chunks: true, left, ..one_slice() }
}

/// Three workers, two of them too slow for their leases.
fn three_workers() -> Tallymark {
    let left = Left { changes: 1, replays: 1, slow: 2, ..Left::NONE };
    Tallymark { workers: 3, left, ..one_slice() }
}

/// A slice that the watermark passes.
fn watermark() -> Tallymark {
    let left = Left { changes: 1, replays: 1, crashes: 2, ..Left::NONE };
    Tallymark { has_watermark: true, skew: 0, left, ..one_slice() }
}

/// A model in which leases never end.
fn without_time() -> Tallymark {
    let left = Left { replies: 2, ..Left::NONE };
    Tallymark { has_time: false, left, ..one_slice() }
}

/// A coarse slice that is computed from a finer one.
fn composed() -> Tallymark {
    let left = Left { changes: 1, crashes: 1, slow: 1, ..Left::NONE };
    Tallymark { slices: 2, is_composed: true, lease: 1, skew: 0, left, ..one_slice() }
}

/// The checkpoints are in the target.
fn in_target(model: Tallymark) -> Tallymark {
    Tallymark { is_one: true, left: Left { replies: 1, ..model.left }, ..model }
}

/// A slice whose claim may be lost, so that one number is assigned twice.
fn lost_claim() -> Tallymark {
    let left = Left { changes: 1, crashes: 1, replies: 1, losses: 1, ..Left::NONE };
    Tallymark { lease: 1, skew: 0, left, ..one_slice() }
}

/// A backfill of two slices over a queue.
fn backfill() -> Tallymark {
    let left = Left { crashes: 1, fails: 1, doubles: 1, drops: 1, ..Left::NONE };
    Tallymark { slices: 2, has_queue: true, lease: 1, skew: 0, left, ..one_slice() }
}

fn found(name: &str, model: &impl Model) -> Findings {
    let findings = check(model);
    eprintln!("{name}: {} states, {} steps", findings.states, findings.steps);
    findings
}

/// All invariants hold, success stays reachable, and all these facts were seen.
fn holds(name: &str, model: &impl Model, facts: u32) {
    let findings = found(name, model);
    if let Some(broken) = findings.broken {
        panic!("{}:\n{}", broken.what, broken.trace);
    }
    assert_eq!(findings.facts & facts, facts, "the model is vacuous");
}

/// Without the guard, the model shows how this violation happens.
fn breaks(guard: Guard, model: Tallymark, what: &str) {
    breaks_without(&guard, &Tallymark { without: Some(guard), ..model }, what);
}

/// `model` lacks the guard.
fn breaks_without(guard: &impl std::fmt::Debug, model: &impl Model, what: &str) {
    let name = format!("without {guard:?}");
    let findings = found(&name, model);
    let broken = findings.broken.unwrap_or_else(|| panic!("{name} nothing breaks"));
    eprintln!("{}:\n{}", broken.what, broken.trace);
    assert_eq!(broken.what, what, "{}", broken.trace);
}

#[test]
fn one_slice_is_exact_in_every_order_of_events() {
    let facts = fact::TAKEN_OVER | fact::FENCED | fact::STALE | fact::LEASE_LOST | fact::REFUSED;
    let known = fact::CLAIM_KNOWN | fact::ENDING_KNOWN;
    holds("one slice", &one_slice(), facts | known);
}

#[test]
fn three_workers_on_one_slice_are_exact_in_every_order_of_events() {
    holds("three workers", &three_workers(), fact::TAKEN_OVER | fact::FENCED | fact::STALE);
}

#[test]
fn a_slice_that_the_watermark_has_passed_is_found_again_in_every_order_of_events() {
    holds("watermark", &watermark(), fact::PASSED | fact::STALE);
}

#[test]
fn a_slice_in_chunks_is_exact_in_every_order_of_events() {
    holds("two chunks", &two_chunks(), fact::RESUMED | fact::FENCED | fact::TAKEN_OVER);
}

/// A staged chunk can only come from a yield.
#[test]
fn a_yielded_slice_goes_on_where_it_stopped() {
    let left = Left { changes: 1, yields: 1, ..Left::NONE };
    holds("one yield", &Tallymark { left, ..two_chunks() }, fact::RESUMED);
}

#[test]
fn a_coarse_slice_follows_its_finer_one_in_every_order_of_events() {
    holds("composed", &composed(), fact::TAKEN_OVER | fact::STALE);
}

#[test]
fn with_checkpoints_in_the_target_rows_and_checkpoint_agree_in_every_order_of_events() {
    let facts = fact::TAKEN_OVER | fact::FENCED | fact::STALE | fact::COMMIT_KNOWN;
    holds("one slice, one database", &in_target(one_slice()), facts);
    let left = Left { fails: 0, ..two_chunks().left };
    let chunks = in_target(Tallymark { left, ..two_chunks() });
    holds("two chunks, one database", &chunks, fact::RESUMED | fact::COMMIT_KNOWN);
    holds("watermark, one database", &in_target(watermark()), fact::PASSED | fact::STALE);
    holds("backfill, one database", &in_target(backfill()), fact::SWEPT | fact::TAKEN_OVER);
    let composed = in_target(composed());
    holds("composed, one database", &composed, fact::TAKEN_OVER | fact::COMMIT_KNOWN);
}

#[test]
fn with_rows_and_checkpoint_in_two_transactions_they_disagree() {
    breaks(Guard::CheckpointToo, in_target(one_slice()), "rows and checkpoint disagree");
}

#[test]
fn with_a_coarse_slice_that_the_transaction_leaves_done_a_change_is_missed() {
    breaks(Guard::CoarseToo, in_target(composed()), "a change is missed");
}

#[test]
fn with_a_first_claim_before_the_finer_rows_commit_a_change_is_missed() {
    breaks(Guard::FirstClaim, in_target(composed()), "a change is missed");
}

#[test]
fn a_backfill_ends_whatever_becomes_of_its_messages() {
    holds("backfill", &backfill(), fact::SWEPT | fact::TAKEN_OVER | fact::REFUSED);
}

#[test]
fn without_comparing_attempts_at_the_fence_older_data_replace_newer() {
    breaks(Guard::FenceAttempt, one_slice(), "an older attempt's data replaced a newer's");
}

#[test]
fn a_slice_whose_claim_was_lost_is_exact_in_every_order_of_events() {
    holds("lost claim", &lost_claim(), fact::FENCED_BY_EQUAL | fact::STALE);
}

#[test]
fn without_comparing_owners_at_the_fence_a_change_is_missed() {
    breaks(Guard::FenceOwner, lost_claim(), "a change is missed");
}

#[test]
fn with_rows_and_marker_in_two_transactions_they_disagree() {
    breaks(Guard::OneTransaction, one_slice(), "marker and rows disagree");
}

#[test]
fn without_asking_whose_completion_it_is_a_change_is_missed() {
    breaks(Guard::CompleteMine, one_slice(), "a change is missed");
}

#[test]
fn without_comparing_dirty_at_completion_a_change_is_missed() {
    breaks(Guard::CompleteDirty, one_slice(), "a change is missed");
}

#[test]
fn without_asking_for_the_lease_a_slice_is_taken_from_its_holder() {
    breaks(Guard::ClaimLease, one_slice(), "a slice was taken whose lease holds by every clock");
}

#[test]
fn with_a_stage_from_before_a_reopening_a_change_is_missed() {
    breaks(Guard::StageDirty, two_chunks(), "a change is missed");
}

#[test]
fn with_marks_deleted_before_the_reopening_a_change_is_missed() {
    breaks(Guard::MarksLast, one_slice(), "a change is missed");
}

#[test]
fn with_a_finer_slice_completed_before_the_coarse_is_reopened_a_change_is_missed() {
    breaks(Guard::CoarseFirst, composed(), "a change is missed");
}

/// Nothing breaks, but it takes as long as the lease. A model in which leases never end shows this.
#[test]
fn without_knowing_its_own_claim_a_worker_waits_for_its_own_lease() {
    holds("without time", &without_time(), fact::CLAIM_KNOWN | fact::ENDING_KNOWN);
    breaks(Guard::KnownOwner, without_time(), "success is out of reach");
    let without = Some(Guard::KnownOwner);
    let with_time = Tallymark { has_time: true, without, ..without_time() };
    holds("without KnownOwner, with time", &with_time, fact::REFUSED_BY_ITSELF);
}

#[test]
fn with_a_watermark_that_advances_past_a_reopening_a_slice_is_lost() {
    breaks(Guard::WatermarkVersion, watermark(), "a slice is lost");
}

#[test]
fn with_a_watermark_lowered_before_the_reopening_a_slice_is_lost() {
    breaks(Guard::WatermarkAfter, watermark(), "a slice is lost");
}

#[test]
fn with_a_reopening_in_two_writes_a_killed_replay_loses_the_slice() {
    breaks(Guard::ReopenWhole, watermark(), "a slice is lost");
}

#[test]
fn without_the_sweep_a_slice_is_lost() {
    breaks(Guard::Sweep, backfill(), "a slice is lost");
}

#[test]
fn every_consumer_of_a_mark_reopens_its_own_slices() {
    use marks::fact;
    holds("marks", &Marks::default(), fact::KEPT | fact::OUT_OF_ORDER | fact::BACK);
}

#[test]
fn without_what_keeps_marks_for_each_consumer_a_change_is_missed() {
    use marks::Guard::{AllAgain, Everybody, RegisteredFirst, VeryNumber};
    for guard in [Everybody, VeryNumber, AllAgain, RegisteredFirst] {
        breaks_without(&guard, &Marks { without: Some(guard) }, "a change is missed");
    }
}

#[test]
fn a_calendar_that_changes_and_changes_back_leaves_exact_rows_in_every_order_of_events() {
    use calendar::fact;
    holds("calendar", &Calendar::default(), fact::SUPERSEDED | fact::CLEARED | fact::AGAIN);
}

#[test]
fn without_generations_rows_of_another_calendar_stay() {
    use calendar::Guard::{Fence, Overlap, Success, TickLooks};
    let (foreign, missed) =
        ("a slice has succeeded, and the rows are not its own", "a change is missed");
    for (guard, what) in
        [(Fence, foreign), (Overlap, foreign), (Success, missed), (TickLooks, missed)]
    {
        breaks_without(&guard, &Calendar { without: Some(guard) }, what);
    }
}

#[test]
fn no_reader_misreads_a_number_in_any_order_of_events() {
    use reader::fact;
    let one = Reader { ticks: 1, changes: 1, kills: 1, slow: 1, ..Reader::default() };
    let facts = fact::LEFT_STALE | fact::CLEARED;
    let fenced = facts | fact::FENCED | fact::LOWERED;
    holds("reader", &one, fenced);
    holds("reader, two ticks", &Reader { ticks: 2, slow: 0, ..one }, facts);
    holds("reader, two changes", &Reader { changes: 2, kills: 0, ..one }, fenced);
    holds("reader, replays", &Reader { replays: 1, kills: 0, ..one }, fenced);
    holds("reader, one database", &Reader { ticks: 2, is_one: true, ..one }, fenced);
    holds("reader, chunks", &Reader { has_chunks: true, ..one }, facts | fact::CONTINUED);
    let composed = Reader { is_composed: true, kills: 0, ..one };
    holds("reader, composed", &composed, facts);
    holds("reader, composed, killed", &Reader { kills: 1, slow: 0, ..composed }, facts);
    let composed = Reader { is_one: true, kills: 1, ..composed };
    holds("reader, composed, one database", &composed, facts);
}

#[test]
fn without_any_part_of_the_order_a_reader_misreads_a_number() {
    use reader::Guard::{
        CheckedEarly, CheckedLast, ClearedByTheRows, CoarseRaised, DueToo, GenerationFirst, Mended,
        Parts, RaisedFirst, StageGeneration,
    };
    let one = Reader { ticks: 1, changes: 1, kills: 1, slow: 1, ..Reader::default() };
    let (chunks, composed) =
        (Reader { has_chunks: true, ..one }, Reader { is_composed: true, ..one });
    let (misread, coarse) = ("a reader misreads a number", "a reader misreads a coarse number");
    for (guard, model, what) in [
        (RaisedFirst, one, misread),
        (CheckedLast, one, misread),
        (CheckedEarly, Reader { changes: 2, ..one }, misread),
        (GenerationFirst, one, misread),
        (ClearedByTheRows, one, misread),
        (StageGeneration, chunks, misread),
        (DueToo, Reader { replays: 1, ..one }, misread),
        (CoarseRaised, composed, coarse),
        (Parts, composed, coarse),
        // A slice that is right stays stale.
        (Mended, Reader { ticks: 2, slow: 0, ..one }, "success is out of reach"),
    ] {
        breaks_without(&guard, &Reader { without: Some(guard), ..model }, what);
    }
}
