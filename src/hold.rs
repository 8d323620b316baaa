//! What holds work back before it begins: a signal, the hours, or a person's word.

use chrono::{DateTime, TimeDelta, Utc};

use crate::governor::Hold;
use crate::interrupt::REASON;
use crate::rollup::Rollup;
use crate::text::cut;
use crate::worker::{WorkError, Worker};

/// A pause is looked at again this much later.
pub const POLL: TimeDelta = TimeDelta::seconds(5);

impl Worker {
    /// Whether work on `rollup` may go on, and then by which `nice_ratio`, where a person set one;
    /// or why not. `backfill` says when the backfill began that the work is part of.
    ///
    /// # Errors
    /// The checkpoints cannot be read: nothing goes on then.
    pub async fn may_work(
        &self,
        rollup: &Rollup,
        backfill: Option<DateTime<Utc>>,
    ) -> Result<Result<Option<f64>, Hold>, WorkError> {
        let now = self.clock.now();
        if self.interrupt.is_raised() {
            return Ok(Err(Hold {
                reason: REASON.to_owned(),
                until: now,
                is_over: true,
                is_taken: false,
            }));
        }
        let governor = self.governor_of(rollup);
        if let Some(hold) = governor.and_then(|it| it.closed(now, backfill.is_some())) {
            return Ok(Err(hold));
        }
        let control = self.checkpoints.control().await?;
        let name = &rollup.name;
        if let Some((at, begun)) = control.cancelled(name).zip(backfill)
            && begun <= at
        {
            let reason = format!("cancelled at {}", rfc3339(at));
            return Ok(Err(Hold { reason, until: now, is_over: true, is_taken: false }));
        }
        if let Some(pause) = control.paused(name, backfill.is_some(), now) {
            let why = match &*pause.reason {
                "" => String::new(),
                reason => format!(": {}", cut(reason)),
            };
            let reason = format!("paused since {}{why}", rfc3339(pause.at));
            let until = pause.until.map_or(now + POLL, |until| until.min(now + POLL));
            return Ok(Err(Hold { reason, until, is_over: false, is_taken: false }));
        }
        Ok(Ok(control.nice_ratio(name, backfill.is_some())))
    }
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
