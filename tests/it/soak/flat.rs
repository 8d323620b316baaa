//! Whether memory, connections and all stored data stay constant over the years.

use std::fmt;
use std::fs;
use std::time::Duration;

use super::life::Life;
use super::scene::{SKEWS_S, Scene};

/// Sessions of killed workers end soon. This is the number of checks ...
const LOOKS_MAX: usize = 250;

/// ... and the time between them.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Number of items and rows besides those of slices: watermarks, scrubs, the control item.
const BESIDES: usize = 32;

/// The maximum of the last third may exceed that of the second by this, plus a twentieth. Heaps
/// fragment, and buffers grow to the largest answer.
const RSS_SLACK_KB: u64 = 8 * 1024;

/// Allowance for connections that happen to be open: between 61 and 121 descriptors in a life of a
/// year, with no increase at its end.
const FDS_SLACK: u64 = 64;

/// The measurements at the end of a month.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Resident memory of this process: all workers, and with DynamoDB it and its proxy.
    pub rss_kb: u64,
    /// The maximum number of file descriptors in this month.
    pub fds: u64,
    /// The maximum number of Tallymark's sessions in this month.
    pub sessions: i64,
    /// Items of the checkpoints.
    pub items: usize,
    /// Rows of the tables in the schema `tallymark`.
    pub rows: i64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} MB, {} descriptors, {} sessions, {} items, {} rows",
            self.rss_kb as f64 / 1024.0,
            self.fds,
            self.sessions,
            self.items,
            self.rows
        )
    }
}

/// The observations of a life.
#[derive(Debug, Default)]
pub struct Watch {
    pub samples: Vec<Sample>,
    fds: u64,
    sessions: i64,
}

/// Tallymark's sessions of this database.
const SESSIONS: &str = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE \
    datname = current_database() AND application_name LIKE 'tallymark%'";

/// Locks that they hold, where only this query's own are allowed.
const HELD: &str = "SELECT count(*) FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a \
    USING (pid) WHERE a.datname = current_database() AND a.application_name LIKE 'tallymark%'";

impl Watch {
    /// Samples the values that vary.
    pub async fn look(&mut self, scene: &Scene) {
        self.sessions = self.sessions.max(scene.number(SESSIONS).await);
        let fds = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        self.fds = self.fds.max(fds as u64);
        // The proxy's record would look like a leak.
        drop(scene.dynamo.as_ref().map(|dynamo| dynamo.proxy.asked()));
    }
}

/// Resident memory, if the system reports it.
fn rss_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

impl Life {
    /// Takes the sample of a month, when no work is under way.
    pub async fn sample(&mut self, number: u32) {
        for look in 0.. {
            if self.scene.number(HELD).await == 0 {
                break;
            }
            assert!(look < LOOKS_MAX, "locks are held while nothing is done");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let (items, slices) = (self.scene.items().await, self.slices());
        assert!(items <= slices + BESIDES, "{items} items for {slices} slices in month {number}");
        let rows =
            "(SELECT count(*) FROM tallymark.slice) + (SELECT count(*) FROM tallymark.rollup)";
        let rows = self.scene.number(&format!("SELECT {rows}")).await;
        assert!(rows <= (slices + BESIDES) as i64, "{rows} rows for {slices} slices");
        self.watch.look(&self.scene).await;
        let (fds, sessions) = (self.watch.fds, self.watch.sessions);
        let most = self.scene.connections_max() * (SKEWS_S.len() as i64 + 1);
        assert!(sessions <= most, "{sessions} sessions");
        (self.watch.fds, self.watch.sessions) = (0, 0);
        self.watch.samples.push(Sample { rss_kb: rss_kb(), fds, sessions, items, rows });
    }

    /// The slices that have ended since the rollups began.
    fn slices(&self) -> usize {
        let rollups = self.workers[0].config.rollups.iter();
        rollups.map(|rollup| rollup.calendar.count(rollup.start, self.scene.now())).sum()
    }
}

/// Whether the samples stay flat after the first third, in which everything happens once.
///
/// # Errors
/// The value that grows.
pub fn flat(samples: &[Sample]) -> Result<(), String> {
    let third = samples.len() / 3;
    let (second, last) =
        (&samples[third..samples.len() - third], &samples[samples.len() - third..]);
    let most =
        |samples: &[Sample], of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or(0);
    let rss = |samples| most(samples, |sample| sample.rss_kb);
    let fds = |samples| most(samples, |sample| sample.fds);
    if rss(last) > rss(second) + rss(second) / 20 + RSS_SLACK_KB {
        return Err(format!("memory grows from {} to {} kB", rss(second), rss(last)));
    }
    if fds(last) > fds(second) + FDS_SLACK {
        return Err(format!("descriptors grow from {} to {}", fds(second), fds(last)));
    }
    Ok(())
}
