//! Metrics by the OpenTelemetry protocol (OTLP over HTTP, protocol buffers), to the receiver that the
//! environment names.
//!
//! | module | part |
//! |---|---|
//! | `settings` | the variables of the environment |
//! | `message` | samples as a message |
//!
//! A message that is not taken is left out: sums and newest values are in the next one. A receiver
//! delays no tick: [`Exporter::reserve`] keeps a part of a tick's time for it, and
//! [`Exporter::send`] ends by a limit.

mod message;
mod settings;

use std::env;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use hyper::body::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message as _;

use super::registry::Sample;
use crate::clients::collector::Collector;
use crate::model::clock::{Clock, Deadline};
use crate::model::hint::Fault;
use crate::model::text::{cut_to, random_token, shown};
use message::{Sums, Told, message, sums};
use settings::Settings;

/// The time of a tick that is kept for the message about it.
const RESERVE_MAX: Duration = Duration::from_secs(5);

/// A short tick keeps this part of its time.
const RESERVE_PART: u32 = 10;

/// Requests for one message.
const TRIES_MAX: u32 = 3;

/// The pause before the second request. It doubles.
const PAUSE: Duration = Duration::from_millis(250);

/// Sends the metrics of one process.
#[derive(Debug)]
pub(crate) struct Exporter {
    collector: Collector,
    attributes: Vec<(String, String)>,
    timeout: Duration,
    interval: Duration,
    is_delta: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The instant since which counters tell what was added: the begin of the process or, for
    /// deltas, the newest message that was taken.
    since: DateTime<Utc>,
    /// The sums at that instant.
    sent: Sums,
    /// Whether the newest message was not taken.
    is_failing: bool,
}

impl State {
    /// Learns whether the message of these samples was taken. Returns whether the one before was not.
    fn learn(
        &mut self,
        is_delta: bool,
        is_taken: bool,
        now: DateTime<Utc>,
        samples: &[Sample],
    ) -> bool {
        if is_delta && is_taken {
            (self.since, self.sent) = (now, sums(samples));
        }
        std::mem::replace(&mut self.is_failing, !is_taken)
    }
}

impl Exporter {
    /// For a process that ends with its tick. Its counters tell what the tick added, as sums of one
    /// tick would look like a process that begins again and again. `None`: the environment names no
    /// receiver, or none that can be used, which is logged.
    pub(crate) fn of_one_tick(now: DateTime<Utc>) -> Option<Self> {
        let settings = read()?;
        Some(Self::new(Settings { is_delta: true, ..settings }, now))
    }

    /// For a process that stays. Its attributes tell it from others of its kind.
    pub(crate) fn of_process(now: DateTime<Utc>) -> Option<Self> {
        const INSTANCE: &str = "service.instance.id";
        let mut settings = read()?;
        if !settings.attributes.iter().any(|(name, _)| name == INSTANCE) {
            settings.attributes.push((INSTANCE.to_owned(), random_token()));
        }
        Some(Self::new(settings, now))
    }

    fn new(settings: Settings, now: DateTime<Utc>) -> Self {
        let Settings { url, headers, timeout, interval, is_delta, attributes } = settings;
        let state = State { since: now, sent: Sums::new(), is_failing: false };
        let (collector, state) = (Collector::new(url, headers), Mutex::new(state));
        Self { collector, attributes, timeout, interval, is_delta, state }
    }

    /// The time between two messages of a process that stays.
    pub(crate) const fn interval(&self) -> Duration {
        self.interval
    }

    /// When a tick ends, so that a part of its time is left for the message about it.
    pub(crate) fn reserve(&self, clock: &dyn Clock, deadline: Deadline) -> Deadline {
        let part = deadline.remaining(clock) / RESERVE_PART;
        let reserve = TimeDelta::from_std(RESERVE_MAX.min(part)).unwrap_or_default();
        Deadline::at(deadline.instant() - reserve)
    }

    /// Sends the newest values, in at most `limit`. A failure is logged when it begins.
    pub(crate) async fn send(&self, clock: &dyn Clock, samples: &[Sample], limit: Duration) {
        let (now, limit) = (clock.now(), limit.min(self.timeout));
        let message = Bytes::from(self.message(samples, now).encode_to_vec());
        let sent = tokio::time::timeout(limit, self.patiently(clock, message)).await;
        let sent = sent.unwrap_or_else(|_| {
            let facts = format!("{} gave no answer in time", self.collector.host());
            Err(Fault::new(facts).remedy("check the receiver"))
        });
        let was_failing = self.lock().learn(self.is_delta, sent.is_ok(), now, samples);
        match sent {
            Ok(answer) => self.log(&answer, was_failing),
            Err(fault) if !was_failing => {
                let (error, hint) = fault.into_parts();
                tracing::warn!(error, hint, "metrics were not sent");
            }
            Err(fault) => tracing::debug!(error = fault.facts(), "metrics were not sent"),
        }
    }

    fn message(&self, samples: &[Sample], now: DateTime<Utc>) -> ExportMetricsServiceRequest {
        let state = self.lock();
        let told = match self.is_delta {
            true => Told::Added(state.since, &state.sent),
            false => Told::Since(state.since),
        };
        message(&self.attributes, samples, told, now)
    }

    /// Repeats a request that may be taken soon.
    async fn patiently(&self, clock: &dyn Clock, message: Bytes) -> Result<Bytes, Fault> {
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            match self.collector.post(message.clone()).await {
                Err(error) if error.may_pass && tries < TRIES_MAX => {
                    clock.sleep(error.retry_after.unwrap_or(pause)).await;
                    pause *= 2;
                    tries += 1;
                }
                answered => return answered.map_err(|error| Fault::of(&error)),
            }
        }
    }

    /// Logs that messages are taken again, and what the receiver left out of this one.
    fn log(&self, answer: &[u8], was_failing: bool) {
        if was_failing {
            tracing::info!("metrics are sent again");
        }
        // What is no such answer says nothing.
        let answer = ExportMetricsServiceResponse::decode(answer).unwrap_or_default();
        if let Some(part) = answer.partial_success.filter(|it| it.rejected_data_points > 0) {
            let reason = shown(&cut_to(&part.error_message, 100));
            let (host, values) = (self.collector.host(), part.rejected_data_points);
            tracing::warn!(host, values, reason, "metrics were rejected");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read() -> Option<Settings> {
    settings::read(&|name| env::var(name).ok()).unwrap_or_else(|fault| {
        let (error, hint) = fault.into_parts();
        tracing::warn!(error, hint, "no metrics are sent");
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::ManualClock;
    use crate::telemetry::registry::SLICES_SUCCEEDED;

    fn exporter(is_delta: bool) -> Exporter {
        let settings = Settings {
            url: "http://127.0.0.1:9/v1/metrics".parse().unwrap(),
            headers: hyper::HeaderMap::new(),
            timeout: Duration::from_secs(10),
            interval: Duration::from_mins(1),
            is_delta,
            attributes: Vec::new(),
        };
        Exporter::new(settings, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn a_tick_leaves_time_for_the_message_and_never_more_than_a_part() {
        let clock = ManualClock::new(DateTime::UNIX_EPOCH);
        for (budget, work) in [(300, 295), (20, 18), (0, 0)] {
            let deadline = Deadline::after(&clock, Duration::from_secs(budget));
            let by = exporter(false).reserve(&clock, deadline).remaining(&clock);
            assert_eq!(by, Duration::from_secs(work), "{budget}");
        }
    }

    #[test]
    fn what_was_not_taken_is_told_again() {
        for (is_delta, told) in [(true, [3.0, 5.0, 4.0]), (false, [3.0, 5.0, 9.0])] {
            let exporter = exporter(is_delta);
            let mut values = Vec::new();
            for (second, sum, is_taken) in [(1, 3.0, false), (2, 5.0, true), (3, 9.0, true)] {
                let now = DateTime::from_timestamp(second, 0).unwrap();
                let samples = [Sample::new(&SLICES_SUCCEEDED, sum)];
                values.push(message::tests::value(&exporter.message(&samples, now)));
                let was_failing = exporter.lock().learn(is_delta, is_taken, now, &samples);
                assert_eq!(was_failing, second == 2, "each failure is told once");
            }
            assert_eq!(values, told);
        }
    }
}
