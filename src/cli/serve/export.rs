//! Metrics, to the receiver that the environment names: after each tick, and as often as the
//! environment says while none ends. A receiver that is slow delays no tick, as both go on beside
//! each other.

use std::sync::Arc;
use std::time::Duration;

use super::ticker::Ticker;
use crate::telemetry::otlp::Exporter;

/// The longest time of the message at the end of the process.
const LAST_MAX: Duration = Duration::from_millis(500);

/// Sends for ever.
pub(super) async fn keep(ticker: &Arc<Ticker>, exporter: Option<&Exporter>) {
    let Some(exporter) = exporter else { return std::future::pending().await };
    let mut ticks = ticker.watch();
    loop {
        let is_over = tokio::select! {
            Ok(()) = ticks.changed() => ticks.borrow_and_update().is_none(),
            () = tokio::time::sleep(exporter.interval()) => true,
        };
        if is_over {
            send(ticker, exporter, Duration::MAX).await;
        }
    }
}

/// Sends what the last tick found.
pub(super) async fn last(ticker: &Arc<Ticker>, exporter: Option<&Exporter>) {
    if let Some(exporter) = exporter {
        send(ticker, exporter, LAST_MAX).await;
    }
}

async fn send(ticker: &Arc<Ticker>, exporter: &Exporter, limit: Duration) {
    exporter.send(&*ticker.worker.clock, &ticker.known().samples(), limit).await;
}
