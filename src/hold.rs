//! What holds work back before it begins: a signal, the hours, or a person's word.

use chrono::{DateTime, TimeDelta, Utc};

use crate::not_now::{NotNow, Permit, Why};
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
    ) -> Result<Permit<Option<f64>>, WorkError> {
        let now = self.clock.now();
        if self.interrupt.is_raised() {
            return Ok(Permit::NotNow(NotNow::until(Why::Interrupted, now)));
        }
        let governor = self.governor_of(rollup);
        let closed = |now| governor.as_ref().and_then(|it| it.closed(now, backfill.is_some()));
        if let Some(hold) = closed(now) {
            return Ok(Permit::NotNow(hold));
        }
        let control = self.checkpoints.control().await?;
        // The answer may have taken long, and the quiet hours may have begun meanwhile.
        let now = self.clock.now();
        if let Some(hold) = closed(now) {
            return Ok(Permit::NotNow(hold));
        }
        let name = &rollup.name;
        if let Some((at, begun)) = control.cancelled(name).zip(backfill)
            && begun <= at
        {
            return Ok(Permit::NotNow(NotNow::until(Why::Cancelled { at }, now)));
        }
        if let Some(pause) = control.paused(name, backfill.is_some(), now) {
            let why = Why::Paused { since: pause.at, reason: cut(&pause.reason).into_owned() };
            let until = pause.until.map_or(now + POLL, |until| until.min(now + POLL));
            return Ok(Permit::NotNow(NotNow::until(why, until)));
        }
        Ok(Permit::Given(control.nice_ratio(name, backfill.is_some())))
    }
}
