//! Looks at the source before a statement whose naps would take long, while `nice_ratio = "auto"`.
//!
//! A statement keeps its pace until it ends. So the pace is found before the statement begins, by
//! looks that are a tenth of a second apart. They take a second or two, where the naps of a single
//! statement would take longer than that.

use std::time::Duration;

use super::pace::pacer::Pacer;
use super::permit::{Gate, Patience, Throttle};
use crate::checkpoint::KeptPace;
use crate::model::hint::Hinted as _;

/// Time between two looks.
const BETWEEN: Duration = Duration::from_millis(100);

/// A row of looks ends after this many.
const LOOKS_MAX: u32 = 30;

/// A row of looks takes about this long at most.
const TIME_MAX: Duration = Duration::from_secs(4);

impl<'w> Gate<'w> {
    /// The throttle at the pace of this moment, for a statement that is expected to work for `work`.
    /// Looks at the source first, if `patience` allows the time.
    pub(crate) async fn listen(
        &self,
        throttle: Throttle<'w>,
        work: Duration,
        patience: Patience,
    ) -> Throttle<'w> {
        let Some(pacer) = throttle.pacer() else { return throttle };
        let looking = pacer.looking.lock().await;
        let mut has_looked = false;
        for _ in 0..LOOKS_MAX {
            let has_time = patience.has_time_for(TIME_MAX, self.clock);
            if !pacer.wants_look(work) || !has_time || self.interrupt.is_raised() {
                break;
            }
            if has_looked {
                self.interrupt.sleep(self.clock, BETWEEN).await;
            }
            has_looked = true;
            if let Err(error) = pacer.look(self.source).await {
                tracing::info!(error = %error.in_one_line(), "the load is not seen");
                break;
            }
        }
        drop(looking);
        if has_looked {
            self.tell(pacer).await;
        }
        throttle.at_present_pace()
    }

    /// Tells other processes the pace now and then. Work goes on without it.
    async fn tell(&self, pacer: &Pacer) {
        let Some((course, quiet)) = pacer.end_of_looks() else { return };
        let pace = KeptPace {
            at: self.clock.now(),
            nice_ratio: course.ratio,
            held_by: course.hold.to_string(),
            nap_ms: quiet.nap_ms,
            probe_ms: quiet.probe_ms,
        };
        if let Err(error) = self.checkpoints.keep_pace(&pace).await {
            tracing::info!(error = %error.in_one_line(), "the pace is not told");
        }
    }
}
