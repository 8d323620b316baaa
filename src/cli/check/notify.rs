//! `--notify`: whether the receivers of `[notify]` take what they are sent.

use super::{Finding, Findings, Grade};
use crate::cli::ui;
use crate::clients::webhook::HookError;
use crate::model::hint::Fault;
use crate::telemetry::notices::trial;
use crate::work::worker::{Severity, Worker};

const SUBJECT: &str = "notify";

/// Sends a trial notice.
pub(super) async fn inspect(worker: &Worker, findings: &mut Findings) {
    if worker.config.notify.is_none() {
        let fault = Fault::new("tallymark.toml has no [notify], so trouble is told to nobody");
        let remedy = r#"add [notify] with url = { env = "SLACK_WEBHOOK_URL" }"#;
        findings.add(Grade::Bad, SUBJECT, fault.remedy(remedy));
        return;
    }
    match trial::send(worker).await {
        None => {
            let fault = Fault::new("[notify] has no url, so no incident is told");
            findings.add(Grade::Note, SUBJECT, fault.remedy("add the address of a webhook"));
        }
        Some(Ok(answer)) => {
            let finding = format!("a trial notice was sent, and {answer}");
            findings.add(Grade::Good, SUBJECT, finding);
        }
        Some(Err(error)) => findings.refused("a trial notice was not taken", &error),
    }
    // Checkpoints out of reach are a finding of their own.
    if let Ok(Some((count, since))) = trial::waiting(worker).await {
        let facts =
            format!("{} not sent since {}", ui::counted(count, "notice"), ui::instant(since));
        findings.add(Grade::Note, SUBJECT, Fault::new(facts).remedy("the next tick sends them"));
    }
    match trial::host_of_ping(worker).await {
        None => {}
        Some(Ok(host)) => {
            let finding = format!(
                "ping is at {host}, and was left alone, as a trial would be a sign of life"
            );
            findings.add(Grade::Note, SUBJECT, finding);
        }
        Some(Err(error)) => findings.refused("the address of ping cannot be read", &error),
    }
}

impl Findings {
    /// Adds that a receiver failed.
    fn refused(&mut self, what: &str, error: &HookError) {
        let (facts, hint) = Fault::of(error).into_parts();
        // A trial is sent once, and by no tick.
        let (severity, hint) = match error.may_pass {
            true => (Severity::Unreachable, Some("check the receiver, and try again".to_owned())),
            false => (Severity::Usage, hint),
        };
        self.all.push(Finding {
            grade: Grade::Bad,
            subject: SUBJECT.to_owned(),
            finding: format!("{what}: {facts}"),
            hint,
            severity: Some(severity),
        });
    }
}
