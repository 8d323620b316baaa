//! `tallymark.toml` is refused with file and key, or parsed into a usable configuration.

use std::path::Path;
use std::time::Duration;

use chrono::Weekday;
use sqlx::postgres::PgSslMode;

use crate::checkpoint;
use crate::clients::address::Address;
use crate::clients::db;
use crate::config::{Config, predicate};
use crate::model::rollup::Rollup;
use crate::model::slice::Width;
use crate::model::sql;
use crate::throttle::{Governor, Throttle};
use crate::work::due::read_from;

/// Part of an address in the environment, and absent from all output.
const PASSWORD: &str = "hunter2-8271";

/// The text of a file.
///
/// # Panics If a property is violated.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let env = |name: &str| match name {
        "SOURCE_DATABASE_URL" => Some(format!("postgres://app:{PASSWORD}@db.example.com/shop")),
        "TARGET_DATABASE_URL" => Some(format!("postgres://app:{PASSWORD}@localhost:5433/stats")),
        "WRONG" => Some(format!("mysql://app:{PASSWORD}@db/x")),
        _ => None,
    };
    let read = || Config::parse(Path::new("tallymark.toml"), &text, &env);
    match read() {
        Err(error) => {
            let said = error.to_string();
            assert!(!error.problems().is_empty());
            assert!(!format!("{said}{error:?}").contains(PASSWORD), "{said}");
            for line in said.split('\n') {
                assert!(line.starts_with("tallymark.toml:"), "{line:?} of {said:?}");
            }
        }
        Ok(config) => {
            let shown = format!("{config:?}");
            assert!(!shown.contains(PASSWORD), "{shown}");
            assert_eq!(Some(shown), read().ok().map(|again| format!("{again:?}")));
            stands(&config);
        }
    }
}

/// Steps that a definition goes through before any server is contacted.
fn stands(config: &Config) {
    assert!(!config.rollups.is_empty());
    for address in [Some(&config.source.url), config.target.url.as_ref()].into_iter().flatten() {
        encrypted(address);
    }
    let governor = Governor::new(config.source.governor.clone());
    let throttle = Throttle::new(Some(&governor), None);
    throttle.chunk_read(config.source.chunk_time, false);
    assert!(throttle.stretch() >= 1.0);
    assert!(governor.take_rest() <= Duration::from_secs(60 * 100));
    assert_eq!(sql::ident(&config.target.schema).matches('"').count() % 2, 0);
    for (place, rollup) in config.rollups.iter().enumerate() {
        assert!(config.rollups[..place].iter().all(|other| other.name != rollup.name));
        assert_eq!(config.rollup(&rollup.name).map(Rollup::definition), Ok(rollup.definition()));
        defined(rollup);
    }
}

/// A remote host is verified, unless the address sets otherwise.
fn encrypted(address: &Address) {
    let Some(url) = address.known() else { return };
    let Ok(options) = db::options(url, false) else { return };
    let query = url.expose().split_once('?').map_or("", |(_, query)| query);
    if !url.is_loopback() && !query.contains("ssl") {
        assert!(matches!(options.get_ssl_mode(), PgSslMode::VerifyFull), "{url}");
    }
}

fn defined(rollup: &Rollup) {
    let hash = rollup.definition();
    assert!(hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    for width in [rollup.calendar.width(), rollup.bucket] {
        let text = width.to_string();
        let read = text.split(" from ").next().unwrap_or_default().parse::<Width>();
        let first = width.week_start().unwrap_or(Weekday::Mon);
        assert_eq!(read.map(|read| read.with_weeks_from(first)), Ok(width));
    }
    assert!(rollup.bucket.divides(rollup.calendar.width()) || rollup.bucket == Width::DAY);
    assert_eq!(rollup.calendar.starting(rollup.start).map(|first| first.start()), Ok(rollup.start));
    let filters = rollup.measures.iter().map(|measure| &measure.filter).chain([&rollup.filter]);
    for filter in filters.flatten() {
        assert_eq!(predicate::check(filter), Ok(()), "{filter}");
    }
    // A slice in the year 2000, and one at the start of history.
    for now in [chrono::DateTime::from_timestamp(951_782_400, 0).unwrap_or_default(), rollup.start]
    {
        assert!(read_from(rollup, &checkpoint::Watermark::default(), &hash, now) >= rollup.start);
        if let Some(slice) = rollup.newest(now) {
            assert!(slice.start() >= rollup.start && slice.end() <= now);
        }
    }
}
