//! Medians, spreads, and the peak memory of a child process.

use std::fmt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use crate::Result;

/// Interval of checks of a child: short enough to see its peak, and long enough not to disturb it.
const POLL: Duration = Duration::from_millis(5);

/// The times of one contestant.
#[derive(Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    pub fn add(&mut self, elapsed: Duration) {
        self.0.push(elapsed.as_secs_f64());
    }

    pub fn last(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }

    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(0.0, f64::max);
        write!(f, "median {:.2} s ({least:.2} to {most:.2})", self.median())
    }
}

/// Bytes, for people.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub fn mib(bytes: u64) -> String {
    match bytes {
        0 => "not known on this system".to_owned(),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// Waits for a child to end, and returns its peak memory, or 0 if there is no `/proc`.
pub fn wait(child: &mut Child) -> Result<(ExitStatus, u64)> {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    // Bounded, as the child's budget ends each of its slices.
    loop {
        if let Some(ended) = child.try_wait()? {
            return Ok((ended, peak));
        }
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        peak = peak.max(high_water(&text).unwrap_or_default());
        std::thread::sleep(POLL);
    }
}

/// `VmHWM: 12345 kB`, which only grows.
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
