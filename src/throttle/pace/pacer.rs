//! The pace of one source in one process, and the looks that it follows from.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::look::{Look, Looks};
use super::quiet::{Quiet, Recent};
use super::{Course, Hold, SLOW};
use crate::clients::db::{Access, Begun, Db, DbError, Whole};
use crate::model::clock::Stopwatch;

/// A look is recent for this long.
const FRESH: Duration = Duration::from_millis(400);

/// After this time without a look nothing is known of the load.
const STALE: Duration = Duration::from_secs(2);

/// Naps shorter than this are taken without looks, which would take as long.
const NAPS_MIN: Duration = Duration::from_secs(1);

/// Looks go on for this long while there is strain on a server where nobody else is seen, or for as
/// long as the naps of the statement that would follow. A virtual machine's neighbour strains it for
/// some tenths of a second, and that statement keeps the slow pace for many seconds.
const MOMENT: Duration = Duration::from_secs(2);

/// After a look that failed, or that shows nothing, the next one is this much later.
const BLIND: Duration = Duration::from_secs(60);

/// The pace is told to other processes this often.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Time limit of a look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// The pace of one source in one process.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// The fastest pace.
    nice_min: f64,
    state: Mutex<PacerState>,
    /// Held while this process looks at the source.
    pub(crate) looking: tokio::sync::Mutex<()>,
    /// The pace in words, whenever it changes.
    told: tokio::sync::watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct PacerState {
    course: Course,
    looked: Option<Stopwatch>,
    /// Since when looks show nothing.
    blind: Option<Stopwatch>,
    /// Since when all of a row of looks show strain and nobody else.
    strained: Option<Stopwatch>,
    looks: Looks,
    recent: Recent,
    /// The baseline in the store.
    stored: Quiet,
    /// Counts of this process's own transactions on the server.
    own: Vec<Begun>,
    /// Chunks that this process has read.
    reads: u64,
    /// Naps since the last look.
    napped: Duration,
    /// When the pace was last told to other processes.
    published: Stopwatch,
    /// How often others began to work while a statement read without rests.
    meetings: u64,
    /// When others were last seen to stay.
    stay: Option<Stopwatch>,
}

impl Pacer {
    #[must_use]
    pub(crate) fn new(nice_min: f64) -> Self {
        let state = PacerState {
            course: Course::default(),
            looked: None,
            blind: None,
            strained: None,
            looks: Looks::default(),
            recent: Recent::default(),
            stored: Quiet::default(),
            own: Vec::new(),
            reads: 0,
            napped: Duration::ZERO,
            published: Stopwatch::start(),
            meetings: 0,
            stay: None,
        };
        let looking = tokio::sync::Mutex::new(());
        let (told, _) = tokio::sync::watch::channel(None);
        Self { nice_min, state: Mutex::new(state), looking, told }
    }

    /// Leaves the transactions that `begun` counts out of those of others.
    pub(crate) fn own(&self, begun: Begun) {
        self.state().own.push(begun);
    }

    /// Takes over the baseline that is in the store.
    pub(crate) fn believe(&self, stored: Quiet) {
        self.state().stored = stored;
    }

    /// Rests of the next statement, as a multiple of its work.
    #[must_use]
    pub(crate) fn ratio(&self) -> f64 {
        let state = self.state();
        if state.is_stale() { SLOW.max(self.nice_min) } else { state.course.ratio }
    }

    /// The last pace, and what held it. `None`: this process has not looked at the source.
    #[must_use]
    pub(crate) fn last(&self) -> Option<(f64, Hold)> {
        let state = self.state();
        state.looked.map(|_| (state.course.ratio, state.course.hold))
    }

    /// The pace in words, whenever it changes.
    #[must_use]
    pub(crate) fn told(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        self.told.subscribe()
    }

    /// Records a chunk of this process, which has worked for `work`.
    pub(crate) fn has_read(&self, work: Duration, ratio: f64) {
        let mut state = self.state();
        state.reads += 1;
        state.napped += work.mul_f64(ratio);
    }

    /// Whether to look at the source before a statement that will work for `work`.
    #[must_use]
    pub(crate) fn wants_look(&self, work: Duration) -> bool {
        let state = self.state();
        if state.blind.is_some_and(|since| since.elapsed() < BLIND) {
            return false;
        }
        if state.stay.is_some_and(|since| since.elapsed() < FRESH) {
            return false;
        }
        let is_stale = state.is_stale();
        let ratio = if is_stale { SLOW } else { state.course.ratio };
        let is_long = work.mul_f64(ratio) + state.napped >= NAPS_MIN;
        let is_fast = !is_stale && state.course.is_fast();
        if state.looked.is_none_or(|looked| looked.elapsed() >= FRESH) {
            return is_long || is_fast;
        }
        // There was a look just now. Further ones are for a faster pace.
        match state.course.hold {
            Hold::Strain(_) if !state.course.is_rising() => {
                state.strained.is_some_and(|since| may_be_a_moment(since.elapsed(), work))
            }
            _ if state.looks.is_unsure_of_blocks() => is_long || is_fast,
            _ => (is_long || is_fast) && state.course.is_rising(),
        }
    }

    /// Looks at the source, and finds the pace that follows.
    ///
    /// # Errors
    /// The server failed. The pace is the slow one.
    pub(crate) async fn look(&self, source: &Db) -> Result<(), DbError> {
        const DOING: &str = "looking at the load";
        let whole = Whole {
            access: Access::ReadOnly,
            statement_timeout: LOOK_TIMEOUT,
            label: "pace",
            doing: DOING,
            sql: Look::sql(),
        };
        let watch = Stopwatch::start();
        let answer = source.run_whole(&whole).await;
        let waited = watch.elapsed();
        let (begun, reads) = (self.begun(), self.state().reads);
        let look = answer.map(|rows| rows.first().map(|row| Look::read(row, waited, begun, reads)));
        let look = match look {
            Ok(Some(Ok(look))) => Ok(look),
            Ok(Some(Err(source_error))) => Err(DbError::new(source.side(), DOING, source_error)),
            Ok(None) => Err(DbError::new(source.side(), DOING, sqlx::Error::RowNotFound)),
            Err(error) => Err(error),
        };
        self.found(look.as_ref().ok());
        look.map(drop)
    }

    /// Takes in a look. `None`: it failed.
    fn found(&self, look: Option<&Look>) {
        let mut state = self.state();
        state.looked = Some(Stopwatch::start());
        let is_blind = look.is_none_or(|look| look.is_replica);
        state.blind = is_blind.then(Stopwatch::start);
        let seen = look.map(|look| state.looks.add(*look)).unwrap_or_default();
        state.recent.add(&seen);
        let quiet = state.stored.or_lower(state.recent.quiet());
        state.course = state.course.next(&seen, &quiet, self.nice_min);
        let course = state.course;
        let is_moment = matches!(course.hold, Hold::Strain(_)) && !seen.shows_others();
        state.strained = is_moment.then(|| state.strained.take().unwrap_or_else(Stopwatch::start));
        drop(state);
        tracing::debug!(ratio = course.ratio, hold = %course.hold, ?seen, "pace");
        self.tell(course);
    }

    /// Others began to work while a statement read without rests. The pace is the slow one, as after
    /// a look that shows them.
    pub(crate) fn meet_others(&self) {
        let course = Course::beside_others();
        let course = Course { ratio: course.ratio.max(self.nice_min), ..course };
        let mut state = self.state();
        state.meetings += 1;
        state.looked = Some(Stopwatch::start());
        state.course = course;
        drop(state);
        tracing::debug!(ratio = course.ratio, hold = %course.hold, "pace");
        self.tell(course);
    }

    /// Others whom this process has met stay at work. The next statement begins without looks, which
    /// would be felt as well.
    pub(crate) fn stay_slow(&self) {
        let mut state = self.state();
        state.looked = Some(Stopwatch::start());
        state.stay = Some(Stopwatch::start());
    }

    /// Transactions that this process has begun on the server.
    #[must_use]
    pub(crate) fn begun(&self) -> f64 {
        self.state().own.iter().map(Begun::so_far).sum()
    }

    /// How often [`Pacer::meet_others`] was called.
    #[must_use]
    pub(crate) fn meetings(&self) -> u64 {
        self.state().meetings
    }

    /// Reports the pace in words, if it is another one.
    fn tell(&self, Course { ratio, hold, .. }: Course) {
        self.told.send_if_modified(|told| {
            let text = Some(format!("nice_ratio {ratio} ({hold})"));
            let is_new = *told != text;
            *told = text;
            is_new
        });
    }

    /// Ends a row of looks. Returns what to tell other processes, if it is time to.
    pub(crate) fn end_of_looks(&self) -> Option<(Course, Quiet)> {
        let mut state = self.state();
        state.napped = Duration::ZERO;
        state.strained = None;
        if state.published.elapsed() < TOLD_EVERY || state.looked.is_none() {
            return None;
        }
        state.published = Stopwatch::start();
        Some((state.course, state.stored.renewed(state.recent.quiet())))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, PacerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether strain for so long may still be a moment, before a statement that will work for `work`.
fn may_be_a_moment(strained: Duration, work: Duration) -> bool {
    strained < MOMENT.min(work.mul_f64(SLOW))
}

impl PacerState {
    fn is_stale(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= STALE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::pace::Sense;

    /// A look at a quiet server, a tenth of a second after the one before it.
    fn quiet(place: u32) -> Look {
        let place = f64::from(place);
        // No length of a measurement is the same twice.
        let about = |ms: f64| Some(ms + place / 1e6);
        Look {
            at: 1000.0 + place / 10.0,
            nap_ms: about(1.1),
            probe_ms: about(5.0),
            answer_ms: about(10.0),
            transactions: Some(100.0 + place),
            blocks: Some(0.0),
            sessions: Some(0.0),
            begun: place,
            ..Look::default()
        }
    }

    fn strained(place: u32) -> Look {
        Look { probe_ms: Some(9.0), ..quiet(place) }
    }

    /// After looks at a server on which nobody else works.
    fn fast() -> Pacer {
        let pacer = Pacer::new(0.0);
        (0..30).for_each(|place| pacer.found(Some(&quiet(place))));
        assert_eq!(pacer.last(), Some((0.0, Hold::Nothing)));
        pacer
    }

    /// Whether all of this row of looks show strain and nobody else.
    fn is_strained_alone(pacer: &Pacer) -> bool {
        pacer.state().strained.is_some()
    }

    #[test]
    fn looks_outlast_a_moment_of_strain_and_the_fast_pace_returns() {
        let pacer = fast();
        for place in 30..36 {
            pacer.found(Some(&strained(place)));
            assert!(is_strained_alone(&pacer), "{place}");
        }
        assert_eq!(pacer.last().map(|(ratio, _)| ratio), Some(SLOW));
        for place in 36..44 {
            pacer.found(Some(&quiet(place)));
            assert!(!is_strained_alone(&pacer), "{place}");
        }
        assert_eq!(pacer.last(), Some((0.0, Hold::Nothing)));
        let ms = Duration::from_millis;
        assert!(may_be_a_moment(ms(1900), ms(100)) && may_be_a_moment(ms(290), ms(10)));
        assert!(!may_be_a_moment(ms(2000), ms(100)) && !may_be_a_moment(ms(300), ms(10)));
    }

    #[test]
    fn strain_beside_others_or_through_a_whole_row_of_looks_is_no_moment() {
        let pacer = fast();
        let busy = |place| Look { sessions: Some(1.0), ..strained(place) };
        (30..33).for_each(|place| pacer.found(Some(&strained(place))));
        pacer.found(Some(&busy(33)));
        assert!(!is_strained_alone(&pacer));
        pacer.found(Some(&strained(34)));
        pacer.end_of_looks();
        assert!(!is_strained_alone(&pacer));
    }

    #[test]
    fn who_meets_others_rests_as_from_the_start() {
        let pacer = fast();
        pacer.meet_others();
        assert_eq!(pacer.last(), Some((SLOW, Hold::Others(Sense::Sessions))));
        // The transaction that others had just begun has ended, and they go on.
        pacer.found(Some(&quiet(30)));
        assert_eq!(pacer.last().map(|(ratio, _)| ratio), Some(SLOW));
    }
}
