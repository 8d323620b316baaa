//! Ctrl-C and SIGTERM. Slices in work are given back, and the exit code names the signal.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::ui;
use crate::throttle::interrupt::Interrupt;

/// Slices in work are given back within this time, even if a store is out of reach.
const TIDY_MAX: Duration = Duration::from_secs(2);

/// Time for a command without work under way to print its result.
const PRINT_MAX: Duration = Duration::from_millis(500);

const POLL: Duration = Duration::from_millis(20);

/// The signals that this process received.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals(Arc<SignalState>);

#[derive(Debug, Default)]
struct SignalState {
    /// The exit code of the first signal, or 0.
    code: AtomicU8,
    /// Whether the command ends on its own.
    is_awaited: AtomicBool,
    is_told: AtomicBool,
}

impl Signals {
    /// Listens for signals from now on, and ends the process if the command does not end.
    pub(super) fn listen(&self, interrupt: &Interrupt) {
        let kinds = [(SignalKind::interrupt(), 130), (SignalKind::terminate(), 143)];
        let [Ok(mut int), Ok(mut term)] = kinds.map(|(kind, _)| signal(kind)) else { return };
        let (signals, interrupt) = (self.clone(), interrupt.clone());
        tokio::spawn(async move {
            let code = next(&mut int, &mut term).await;
            signals.0.code.store(code, Ordering::SeqCst);
            tokio::select! {
                () = tidied(&interrupt) => {}
                _ = next(&mut int, &mut term) => process::exit(code.into()),
            }
            if signals.0.is_awaited.load(Ordering::SeqCst) {
                next(&mut int, &mut term).await;
            } else {
                signals.print_how_to_continue(interrupt.has_left());
            }
            process::exit(code.into());
        });
    }

    /// The exit code of the signal that ended the command.
    pub(super) fn code(&self) -> Option<u8> {
        let code = self.0.code.load(Ordering::SeqCst);
        (code != 0 && !self.0.is_awaited.load(Ordering::SeqCst)).then_some(code)
    }

    /// From now on a signal is the normal end of the command.
    pub(super) fn await_one(&self) {
        self.0.is_awaited.store(true, Ordering::SeqCst);
    }

    /// Prints once how to continue. `has_left`: a slice could not be given back.
    pub(super) fn print_how_to_continue(&self, has_left: bool) {
        if self.0.is_told.swap(true, Ordering::SeqCst) {
            return;
        }
        ui::leave_question();
        ui::note(match has_left {
            false => "interrupted; the same command goes on from here",
            true => {
                "interrupted; a slice could not be given back: the same command goes on once its \
                 lease is over"
            }
        });
    }
}

/// The exit code of the next signal.
async fn next(int: &mut Signal, term: &mut Signal) -> u8 {
    tokio::select! {
        _ = int.recv() => 130,
        _ = term.recv() => 143,
    }
}

/// Ends when all work is given back, or after the time limit.
async fn tidied(interrupt: &Interrupt) {
    let tidy = async {
        interrupt.raise().await;
        while interrupt.is_busy() {
            tokio::time::sleep(POLL).await;
        }
    };
    let _ = tokio::time::timeout(TIDY_MAX, tidy).await;
    if !interrupt.is_busy() {
        tokio::time::sleep(PRINT_MAX).await;
    }
}
