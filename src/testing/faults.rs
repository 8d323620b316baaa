//! A clock that tests can make jump, as a machine's may. Builds without the feature `faults` contain
//! none of it.

/// How far this process's clock is ahead, which is zero except in tests.
#[cfg(not(feature = "faults"))]
#[must_use]
pub(crate) const fn clock_jump() -> chrono::TimeDelta {
    chrono::TimeDelta::zero()
}

/// How far this process's clock is ahead: the seconds in the file that `TALLYMARK_FAULTS_CLOCK`
/// names, read on each call.
#[cfg(feature = "faults")]
#[must_use]
pub(crate) fn clock_jump() -> chrono::TimeDelta {
    static FILE: std::sync::OnceLock<Option<std::ffi::OsString>> = std::sync::OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os("TALLYMARK_FAULTS_CLOCK"));
    let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    let seconds = text.and_then(|text| text.trim().parse().ok());
    seconds.map_or_else(chrono::TimeDelta::zero, chrono::TimeDelta::seconds)
}
