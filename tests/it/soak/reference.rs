//! The faults stop, all work ends, and then every rollup equals one `GROUP BY`.

use std::time::Duration;

use tallymark::check::verify;
use tallymark::checkpoint::State;
use tallymark::work::standings;

use super::application::AHEAD_MAX_MS;
use super::life::Life;
use super::work::{BUDGET, ending, tick};

/// Maximum number of ticks until all work is done. Retries after failures are minutes apart.
const QUIET_MAX: usize = 100;

/// ... and the time between them.
const PAUSE: Duration = Duration::from_secs(10 * 60);

/// Exhausted slices are replayed after this many ticks, as an operator would do.
const EXHAUSTED_AFTER: usize = 10;

/// Number of slices of each rollup that `verify` also compares every month.
const VERIFIED: usize = 3;

impl Life {
    /// Ends all transactions, pauses and faults, and ticks until all work is done.
    pub async fn settle_down(&mut self) {
        self.end_transactions().await;
        self.scene.recover();
        self.go_on().await;
        // By then, rows stamped ahead of time are in the past.
        self.scene.advance(Duration::from_millis(2 * AHEAD_MAX_MS.unsigned_abs())).await;
        let mut last = String::new();
        for round in 0..QUIET_MAX {
            self.scene.advance(PAUSE).await;
            let worker = &self.workers[round % self.workers.len()];
            let report = ending(tick(worker)).await.unwrap();
            assert!(report.problems.is_empty(), "{:?}", report.problems);
            let is_quiet = report.slices.is_empty() && report.left == 0 && report.held.is_empty();
            last = format!("{report:?}");
            self.take(Ok(report));
            if is_quiet && self.is_complete().await {
                return;
            }
            if round % EXHAUSTED_AFTER == EXHAUSTED_AFTER - 1 {
                self.replay_failed().await;
            }
        }
        panic!("never quiet: {last}");
    }

    async fn is_complete(&self) -> bool {
        let worker = &self.workers[0];
        for rollup in &worker.config.rollups {
            let now = worker.clock.now();
            let until = rollup.newest(now).map_or(rollup.start, |newest| newest.end());
            if standings::of(worker, rollup, now).await.unwrap().plan.watermark < until {
                return false;
            }
        }
        true
    }

    /// `tallymark replay --failed`.
    async fn replay_failed(&mut self) {
        for name in self.definition.names() {
            let checkpoints = &self.workers[0].checkpoints;
            let now = self.workers[0].clock.now();
            let mut count = 0;
            for failed in checkpoints.unfinished(name).await.unwrap() {
                if failed.state == State::Failed {
                    checkpoints.reopen(name, failed.slice_start, "failed", now).await.unwrap();
                    count += 1;
                }
            }
            self.count("exhausted slices replayed", count);
        }
    }

    /// Asserts that every rollup is exact, and that nothing is left behind.
    pub async fn is_exact(&mut self) {
        let now = self.scene.now();
        let differing = self.differing().await;
        assert!(differing.is_empty(), "{now}: {}:\n  {}", differing.len(), differing.join("\n  "));
        for name in self.definition.names() {
            let mut unfinished = self.workers[0].checkpoints.unfinished(name).await.unwrap();
            // A slice reopened by a worker that did not know of the seal yet stays as it is.
            unfinished.retain(|it| it.slice_start >= self.scene.floor());
            assert!(unfinished.is_empty(), "{now}: {}: {:?}", unfinished.len(), unfinished[0]);
            let staged = format!("SELECT count(*) FROM tallymark.stage_{name}");
            assert_eq!(self.scene.number(&staged).await, 0, "{now}: {staged}");
        }
        for table in ["tallymark.progress", "tallymark.mark"] {
            let rows = format!("SELECT count(*) FROM {table}");
            assert_eq!(self.scene.number(&rows).await, 0, "{now}: {rows}");
        }
        for rollup in self.workers[0].config.rollups.clone() {
            let from = rollup.start.max(self.scene.floor());
            let slices = rollup.calendar.slices_ended_by(from, now - Duration::from_secs(600));
            let slices: Vec<_> = slices.collect();
            for _ in 0..VERIFIED.min(slices.len()) {
                let slice = slices[self.random.usize(..slices.len())];
                let found = verify::verify_slice(&self.workers[0], &rollup, slice, BUDGET, 3)
                    .await
                    .unwrap();
                assert_eq!(found.differences, 0, "{now}: {slice}: {:?}", found.examples);
            }
            self.count("slices verified", VERIFIED as u64);
        }
        self.count("months found exact", 1);
    }

    /// The rows that a rollup lacks or has too many, by independent SQL.
    async fn differing(&self) -> Vec<String> {
        let (worker, definition) = (&self.workers[0], &self.definition);
        let mut differing = Vec::new();
        for name in definition.names() {
            let rollup = worker.rollup(name).unwrap();
            let until = rollup.newest(worker.clock.now()).map_or(rollup.start, |it| it.end());
            let columns = definition.columns(name);
            let is_sealed = definition.seal.is_some() && name != "weekly";
            let from = match definition.seal {
                Some(seal) if is_sealed => format!("'{seal}'"),
                _ => definition.start(name),
            };
            let mut wanted = definition.truth(name, &from, &format!("'{until}'"));
            if is_sealed {
                wanted = format!("{wanted} UNION ALL SELECT {columns} FROM soak.{name}");
            }
            let sql = format!(
                "WITH wanted AS ({wanted}), found AS (SELECT {columns} FROM stats.{name}) \
                 SELECT '{name} misses ' || x::text FROM (TABLE wanted EXCEPT ALL TABLE found) x \
                 UNION ALL \
                 SELECT '{name} has ' || x::text FROM (TABLE found EXCEPT ALL TABLE wanted) x \
                 LIMIT 20"
            );
            differing.extend(self.scene.texts(&sql).await);
        }
        differing
    }
}
