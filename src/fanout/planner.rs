//! Plans a backfill: examines its slices window by window, and sends those that need work.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::checkpoint::{Backfill, BackfillState};
use crate::clients::queue::{Queue, Queues};
use crate::model::clock::Deadline;
use crate::model::rollup::Rollup;
use crate::model::slice::{Calendar, Order, Slice};
use crate::work::backlog::BEGIN_MIN;
use crate::work::due::View;
use crate::work::want::{Want, want};
use crate::work::worker::{WorkError, Worker};
use crate::work::{compose, empty, standings};

/// Slices of one window: a megabyte of checkpoints, and the most that is sent twice if the planner
/// dies.
const WINDOW: usize = 1000;

/// Examines the slices of `backfill` from its cursor on and sends those that need work, until
/// all are examined or `deadline` is near. A planner that another one has overtaken stops.
///
/// # Errors
/// DynamoDB, the source or the queue cannot be reached. Progress is kept up to the last window.
pub(crate) async fn plan_on(
    worker: &Worker,
    queues: &Queues,
    rollup: &Rollup,
    backfill: &mut Backfill,
    deadline: Deadline,
) -> Result<(), WorkError> {
    let now = worker.clock.now();
    let seen = empty::probe(worker, rollup).await?;
    let finer = compose::finer_done(worker, rollup, now).await?;
    let view = View { finer_done: finer.as_ref(), ..standings::view(worker, rollup, &seen, now) };
    // Each window moves the cursor, so the loop ends.
    while let Some((from, to)) = window(&rollup.calendar, backfill) {
        if deadline.remaining(&*worker.clock) < BEGIN_MIN {
            return Ok(());
        }
        let mut wanted = slices_to_send(worker, &view, backfill, from, to).await?;
        if backfill.order == Order::NewestFirst {
            wanted.reverse();
        }
        let (name, id) = (&rollup.name, Some(&*backfill.id));
        queues.send(Queue::Backfill, name, &wanted, id).await?;
        let count = wanted.len() as u64;
        backfill.sent += count;
        backfill.sent_in_round += count;
        if count > 0 {
            backfill.sent_at = Some(worker.clock.now());
        }
        backfill.cursor = Some(match backfill.order {
            Order::OldestFirst => to,
            Order::NewestFirst => from,
        });
        if !worker.checkpoints.write_backfill(backfill).await? {
            return Ok(());
        }
    }
    let is_done = backfill.sent_in_round == 0 && backfill.pending_in_round == 0;
    backfill.state = if is_done { BackfillState::Done } else { BackfillState::Running };
    backfill.finished_at = is_done.then(|| worker.clock.now());
    worker.checkpoints.write_backfill(backfill).await?;
    tracing::info!(
        rollup = rollup.name,
        backfill = backfill.id,
        state = backfill.state.word(),
        round = backfill.round,
        sent = backfill.sent_in_round,
        pending = backfill.pending_in_round,
        exhausted = backfill.exhausted_in_round,
        "backfill planned"
    );
    Ok(())
}

/// The slices that start in `[from, to)` and need to be sent, oldest first.
async fn slices_to_send(
    worker: &Worker,
    view: &View<'_>,
    backfill: &mut Backfill,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<Slice>, WorkError> {
    // The calendar may have changed since the backfill began.
    let calendar = &view.rollup.calendar;
    let from = calendar.containing(from).start().max(view.rollup.start);
    let checkpoints = worker.checkpoints.range(&backfill.rollup, from, to.max(from)).await?;
    let plan = view.plan(&checkpoints, from, to);
    let known: HashMap<_, _> = checkpoints.iter().map(|it| (it.slice_start, it)).collect();
    let force_since = backfill.force.then_some(backfill.started_at);
    let mut wanted = Vec::new();
    for planned in plan.slices {
        let slice = planned.slice;
        let checkpoint = known.get(&slice.start()).copied();
        match want(planned.standing, checkpoint, &view.definition, force_since) {
            // A slice to be recomputed waits for its finer slices as well.
            Want::Again if view.is_blocked(checkpoint, slice) => backfill.pending_in_round += 1,
            Want::Again | Want::Compute => wanted.push(slice),
            Want::Pending => backfill.pending_in_round += 1,
            Want::Exhausted => backfill.exhausted_in_round += 1,
            Want::Done | Want::Never => {}
        }
    }
    Ok(wanted)
}

impl Backfill {
    /// Starts another round over all slices.
    pub(super) const fn begin_round(&mut self) {
        self.state = BackfillState::Planning;
        self.cursor = None;
        self.round += 1;
        self.sent_in_round = 0;
        self.pending_in_round = 0;
        self.exhausted_in_round = 0;
    }
}

/// The next window in the order of work, as the slices that start in `[from, to)`. `None`: all
/// slices were examined.
fn window(calendar: &Calendar, backfill: &Backfill) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let Backfill { from, to, cursor, .. } = *backfill;
    match backfill.order {
        Order::OldestFirst => {
            let from = cursor.unwrap_or(from);
            let mut end = from;
            for _ in 0..WINDOW {
                if end >= to {
                    break;
                }
                end = calendar.containing(end).end();
            }
            (from < to).then_some((from, end.min(to)))
        }
        Order::NewestFirst => {
            let to = cursor.unwrap_or(to);
            let mut start = to;
            for _ in 0..WINDOW {
                if start <= from {
                    break;
                }
                // The slice that ends here, or that the end of the range cuts.
                let around = calendar.containing(start);
                let within = around.start() < start;
                start = if within { around } else { calendar.previous(around) }.start();
            }
            (from < to).then_some((start.max(from), to))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn rollup() -> Rollup {
        let text = "[source]\nurl = \"postgres://app@localhost/shop\"\n[[rollup]]\nname = \"hourly\"\n\
            from = \"events\"\ntime = \"created_at\"\nstart = \"2025-01-01\"\nslice = \"1 hour\"\n\
            group_by = [\"kind\"]\nmeasures = { events = \"count\" }\n";
        let path = std::path::Path::new("tallymark.toml");
        Config::parse(path, text, &|_| None).unwrap().rollups.remove(0)
    }

    /// Every slice of the range is in exactly one window, in either order.
    #[test]
    fn windows_tile_the_range() {
        let rollup = rollup();
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        for (from, to) in [
            ("2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2025-01-01T00:00:00Z", "2025-06-01T12:34:56Z"),
            ("2025-01-01T05:00:00Z", "2025-01-01T05:30:00Z"),
        ] {
            for order in [Order::OldestFirst, Order::NewestFirst] {
                let range = (at(from), at(to));
                let mut backfill = Backfill::new(&rollup, range, order, false, "a test", range.1);
                let mut windows = Vec::new();
                while let Some((from, to)) = window(&rollup.calendar, &backfill) {
                    assert_eq!(rollup.calendar.containing(from).start(), from, "cut in a slice");
                    backfill.cursor = Some(if order == Order::OldestFirst { to } else { from });
                    windows.push((from, to));
                }
                windows.sort();
                assert_eq!((windows[0].0, windows.last().unwrap().1), range, "{order:?}");
                assert!(windows.windows(2).all(|pair| pair[0].1 == pair[1].0), "{order:?}");
            }
        }
    }
}
