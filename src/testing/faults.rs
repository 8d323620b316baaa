//! Guards that tests can remove, to see that something then breaks. Builds without the feature
//! `faults` contain none of it.

/// A part of the reasoning behind the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A slice is read after every transaction that had an ID at its end has ended.
    Horizon,
    /// The transactions that began before a slice's end are waited for (`late = "clock"`), or
    /// excluded from the changes known so far (`late = { column = … }`).
    Oldest,
    /// A mark is deleted only after its slices were reopened.
    MarksLast,
    /// A coarse slice is reopened before its finer slice is completed.
    CoarseFirst,
}

/// Whether a test removed this guard from the current work.
#[cfg(not(feature = "faults"))]
#[must_use]
pub const fn is_removed(_: Guard) -> bool {
    false
}

/// How far this process's clock is ahead, which is zero except in tests.
#[cfg(not(feature = "faults"))]
#[must_use]
pub const fn clock_jump() -> chrono::TimeDelta {
    chrono::TimeDelta::zero()
}

/// How far this process's clock is ahead: the seconds in the file that `TALLYMARK_FAULTS_CLOCK`
/// names, read on each call.
#[cfg(feature = "faults")]
#[must_use]
pub fn clock_jump() -> chrono::TimeDelta {
    static FILE: std::sync::OnceLock<Option<std::ffi::OsString>> = std::sync::OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os("TALLYMARK_FAULTS_CLOCK"));
    let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    let seconds = text.and_then(|text| text.trim().parse().ok());
    seconds.map_or_else(chrono::TimeDelta::zero, chrono::TimeDelta::seconds)
}

#[cfg(feature = "faults")]
pub use removal::{is_removed, without};

#[cfg(feature = "faults")]
mod removal {
    use super::Guard;

    tokio::task_local! {
        static REMOVED: Guard;
    }

    /// Whether a test removed this guard from the current work.
    #[must_use]
    pub fn is_removed(guard: Guard) -> bool {
        REMOVED.try_with(|removed| *removed == guard).unwrap_or(false)
    }

    /// Does `work` without a guard.
    pub async fn without<F: Future>(guard: Option<Guard>, work: F) -> F::Output {
        match guard {
            Some(guard) => REMOVED.scope(guard, work).await,
            None => work.await,
        }
    }
}
