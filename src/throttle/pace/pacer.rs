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
}

impl Pacer {
    #[must_use]
    pub(crate) fn new(nice_min: f64) -> Self {
        let state = PacerState {
            course: Course::default(),
            looked: None,
            blind: None,
            looks: Looks::default(),
            recent: Recent::default(),
            stored: Quiet::default(),
            own: Vec::new(),
            reads: 0,
            napped: Duration::ZERO,
            published: Stopwatch::start(),
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
        let is_stale = state.is_stale();
        let ratio = if is_stale { SLOW } else { state.course.ratio };
        let is_long = work.mul_f64(ratio) + state.napped >= NAPS_MIN;
        let is_fast = !is_stale && state.course.is_fast();
        if state.looked.is_none_or(|looked| looked.elapsed() >= FRESH) {
            return is_long || is_fast;
        }
        // There was a look just now. Further ones are for a faster pace.
        match state.course.hold {
            Hold::Strain(_) if !state.course.is_rising() => false,
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
            sql: Look::SQL.to_owned(),
        };
        let watch = Stopwatch::start();
        let answer = source.run_whole(&whole).await;
        let waited = watch.elapsed();
        let (begun, reads) = {
            let state = self.state();
            (state.own.iter().map(Begun::so_far).sum(), state.reads)
        };
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
        let Course { ratio, hold, .. } = state.course;
        drop(state);
        tracing::debug!(ratio, %hold, ?seen, "pace");
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

impl PacerState {
    fn is_stale(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= STALE)
    }
}
