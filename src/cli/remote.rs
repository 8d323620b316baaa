//! Commands that the deployed function runs, for databases that only it reaches.
//!
//! The command line sends a command and its arguments as data. The function runs the same code as
//! this process would, keeps what it prints, and answers with that and the exit code.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::adopt::AdoptArgs;
use super::capture::CaptureStatusArgs;
use super::check::CheckArgs;
use super::init::InitArgs;
use super::plan::PlanArgs;
use super::preview::PreviewArgs;
use super::purgeable::PurgeableArgs;
use super::repair::RepairArgs;
use super::status::StatusArgs;
use super::ui::{self, KeptOutput, KeptText, TextKind};
use super::verify::{self, VerifyArgs};
use super::{Failure, Global, via};
use crate::lambda::{CommandRequest, HandleError, RESPONSE_MAX};
use crate::model::clock::Deadline;
use crate::model::hint::Fault;
use crate::model::text::{nearest, shown};
use crate::work::worker::{Severity, Worker};

/// A command is stopped this long before the deadline, so that it can give back its work and
/// answer. In a shorter invocation it is half of the time.
const STOP_BEFORE: Duration = Duration::from_secs(5);

/// A command with its arguments.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", content = "arguments", rename_all = "snake_case")]
pub(super) enum Remote {
    Init(InitArgs),
    Check(CheckArgs),
    Verify(VerifyArgs),
    CaptureStatus(CaptureStatusArgs),
    Plan(PlanArgs),
    Preview(PreviewArgs),
    Status(StatusArgs),
    Repair(RepairArgs),
    Purgeable(PurgeableArgs),
    Adopt(AdoptArgs),
}

/// The names of the commands.
const COMMANDS: [&str; 10] = [
    "init",
    "check",
    "verify",
    "capture_status",
    "plan",
    "preview",
    "status",
    "repair",
    "purgeable",
    "adopt",
];

/// A function's answer.
#[derive(Debug, Default, Serialize, Deserialize)]
struct CommandAnswer {
    /// The exit code of the command line.
    exit: u8,
    /// The document of `--json`, if the command came as far as printing it.
    document: Option<Value>,
    output: Vec<KeptText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// Where the command goes on, as its time was up.
    next: Option<Value>,
}

/// Runs a command in the function. It stops in time for an answer by `deadline`.
#[must_use]
pub fn answer(
    worker: &Worker,
    request: CommandRequest,
    deadline: Deadline,
) -> BoxFuture<'_, Result<Value, HandleError>> {
    Box::pin(async move {
        let name = request.command.clone();
        let command = Remote::read(request).map_err(HandleError::Command)?;
        let global = Global {
            file: worker.config.path.clone(),
            json: false,
            verbose: 0,
            given: Some(Box::new(worker.config.clone())),
            interrupt: Default::default(),
            signals: Default::default(),
        };
        let left = deadline.remaining(&*worker.clock);
        let time = left - STOP_BEFORE.min(left / 2);
        let work = Box::pin(ui::keeping(command.run(&global)));
        // Once stopped, the command ends by itself.
        let stop = async {
            worker.clock.sleep(time).await;
            global.interrupt.raise().await;
            std::future::pending::<Infallible>().await
        };
        let (ended, kept) = tokio::select! {
            done = work => done,
            never = stop => match never {},
        };
        let is_cut = global.interrupt.is_raised() && kept.next.is_none();
        if is_cut && (ended.is_err() || kept.document.is_none()) {
            return Err(HandleError::CommandOutOfTime(name));
        }
        CommandAnswer::new(ended, kept).within_limit(&name)
    })
}

impl CommandAnswer {
    fn new(ended: Result<(), Failure>, kept: KeptOutput) -> Self {
        let KeptOutput { document, texts: output, next } = kept;
        let answer = Self { document, output, next, ..Self::default() };
        match ended {
            Ok(()) => answer,
            Err(Failure { severity, message, hint, .. }) => {
                Self { exit: severity as u8, error: Some(message), hint, ..answer }
            }
        }
    }

    /// The response, if a function may return it.
    fn within_limit(self, command: &str) -> Result<Value, HandleError> {
        let mut response = json!({ "trigger": "command", "command": command });
        if let (Value::Object(response), Value::Object(fields)) = (&mut response, json!(self)) {
            response.extend(fields);
        }
        let bytes = response.to_string().len();
        if bytes > RESPONSE_MAX {
            let (command, max) = (command.to_owned(), RESPONSE_MAX);
            return Err(HandleError::AnswerTooLarge { command, bytes, max });
        }
        Ok(response)
    }

    /// Prints the texts as the command would.
    fn print(&self, global: &Global) {
        for KeptText { kind, text } in &self.output {
            match kind {
                TextKind::Note => ui::note(text),
                TextKind::Announcement => global.announce(text),
                TextKind::Result if !global.json => ui::print(text),
                TextKind::Script if !global.json => ui::verbatim(text),
                TextKind::Result | TextKind::Script => {}
            }
        }
    }

    /// The failure that the exit code stands for.
    fn failure(&self) -> Option<Failure> {
        let severity = match self.exit {
            0 => return None,
            2 => Severity::Usage,
            3 => Severity::Unreachable,
            _ => Severity::Failed,
        };
        let fault = Fault::new(self.error.clone().unwrap_or_default());
        let failure = Failure::of(severity, fault.remedy_if_known(self.hint.clone()));
        Some(Failure { is_printed: self.document.is_some(), ..failure })
    }
}

impl Remote {
    /// Reads the command of an event.
    fn read(CommandRequest { command, arguments }: CommandRequest) -> Result<Self, Fault> {
        if !COMMANDS.contains(&&*command) {
            let known = format!("a function runs {}", COMMANDS.join(", "));
            let near = nearest(&command, COMMANDS.into_iter());
            let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            let fault = Fault::new(format!("unknown command {}", shown(&command)));
            return Err(fault.remedy(format!("{near}{known}")));
        }
        let at = |fault: Fault| fault.at(format!("command `{command}`"));
        let given: BTreeSet<String> = arguments.keys().cloned().collect();
        let arguments: Map<_, _> = arguments.into_iter().filter(|(_, it)| !it.is_null()).collect();
        let request = json!({ "command": command, "arguments": arguments });
        let read: Self = serde_json::from_value(request).map_err(|error| {
            let fault = Fault::new(crate::model::text::cut(&error.to_string()).into_owned());
            at(fault.remedy("give the arguments that docs/EVENTS.md lists"))
        })?;
        // Each argument that is known is written again.
        let written = json!(read);
        let known: Vec<&String> =
            written["arguments"].as_object().into_iter().flat_map(Map::keys).collect();
        if let Some(key) = given.iter().find(|key| !known.contains(key)) {
            let known = known.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ");
            let fault = Fault::new(format!("unknown argument {}", shown(key)));
            let known = if known.is_empty() {
                "leave it out".to_owned()
            } else {
                format!("its arguments are {known}")
            };
            return Err(at(fault.remedy(known)));
        }
        read.refusal().map_or(Ok(read), |fault| Err(at(fault)))
    }

    /// Why the arguments exclude each other, as the parser of the command line says too.
    fn refusal(&self) -> Option<Fault> {
        match self {
            Self::Init(args) => args.refusal(),
            Self::Verify(args) => args.refusal(),
            Self::Plan(args) => args.refusal(),
            Self::Preview(args) => args.refusal(),
            Self::Purgeable(args) => args.refusal(),
            Self::Adopt(args) => args.refusal(),
            _ => None,
        }
    }

    async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Init(args) => args.run_here(global).await,
            Self::Check(args) => args.run_here(global).await,
            Self::Verify(args) => args.run_here(global).await,
            Self::CaptureStatus(args) => args.run_here(global).await,
            Self::Plan(args) => args.run_here(global).await,
            Self::Preview(args) => args.run_here(global).await,
            Self::Status(args) => args.run_here(global).await,
            Self::Repair(args) => args.run_here(global).await,
            Self::Purgeable(args) => args.run_here(global).await,
            Self::Adopt(args) => args.run_here(global).await,
        }
    }

    fn event(&self) -> Value {
        let mut event = json!(self);
        event["trigger"] = "command".into();
        event
    }

    /// The same command from `next` on. `None`: it continues nowhere else than before.
    fn after(mut self, next: Value) -> Option<Self> {
        let before = self.event();
        let Self::Verify(args) = &mut self else { return None };
        args.continue_at(next).ok()?;
        (self.event() != before).then_some(self)
    }
}

/// Lets the function run a command, and prints what it printed. A command whose time was up is
/// sent again, to continue where it ended.
pub(super) async fn ask(
    global: &Global,
    function: &str,
    mut command: Remote,
) -> Result<(), Failure> {
    if let Remote::Verify(args) = &mut command {
        args.fix_sample();
    }
    let (mut whole, mut failure) = (None, None);
    // Bounded: each turn begins at a later slice than the one before.
    loop {
        let answer = via::invoke(function, &command.event()).await?;
        let answer: CommandAnswer =
            serde_json::from_value(answer).map_err(|_| not_understood(function))?;
        answer.print(global);
        failure = worse(failure, answer.failure());
        whole = match (whole, answer.document) {
            (Some(before), Some(after)) => Some(verify::merged(before, after)),
            (before, after) => after.or(before),
        };
        let Some(next) = answer.next else { break };
        command = command.after(next).ok_or_else(|| too_slow(function))?;
    }
    if let Some(whole) = whole.filter(|_| global.json) {
        ui::json(&whole);
    }
    failure.map_or(Ok(()), Err)
}

/// Lets the function run a command, for its document alone.
pub(super) async fn document(function: &str, command: &Remote) -> Result<Value, Failure> {
    let answer = via::invoke(function, &command.event()).await?;
    let answer: CommandAnswer =
        serde_json::from_value(answer).map_err(|_| not_understood(function))?;
    match answer.failure() {
        Some(failure) => Err(failure),
        None => answer.document.ok_or_else(|| not_understood(function)),
    }
}

/// The failure that decides the exit code: the later one, unless it is less severe.
fn worse(before: Option<Failure>, after: Option<Failure>) -> Option<Failure> {
    match (before, after) {
        (Some(before), Some(after)) if before.severity as u8 > after.severity as u8 => Some(before),
        (before, after) => after.or(before),
    }
}

fn not_understood(function: &str) -> Failure {
    let fault = Fault::new(format!("function `{function}` did not answer as Tallymark does"));
    Failure::usage(fault.remedy("name Tallymark's function, in the same version as this program"))
}

fn too_slow(function: &str) -> Failure {
    let fault = Fault::new(format!("function `{function}` compared no slice in its time"));
    let remedy = "raise the function's timeout, at most to 15 minutes, or give less with --timeout";
    Failure::of(Severity::Failed, fault.remedy(remedy))
}

/// Durations as texts: `5 minutes`, `300000ms`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::cli) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}ms", value.as_millis()))
    }

    pub(in crate::cli) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::super::parse_duration(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hint::Hinted as _;

    fn read(command: &str, arguments: Value) -> Result<Remote, Fault> {
        let Value::Object(arguments) = arguments else { panic!("{arguments} is no object") };
        Remote::read(CommandRequest { command: command.to_owned(), arguments })
    }

    #[test]
    fn each_command_is_read_without_arguments_and_written_as_it_was_read() {
        for command in COMMANDS {
            let event = read(command, json!({})).unwrap().event();
            assert_eq!(
                (&event["trigger"], &event["command"]),
                (&"command".into(), &command.into())
            );
            let again = read(command, event["arguments"].clone()).unwrap();
            assert_eq!(again.event(), event);
        }
    }

    #[test]
    fn what_the_parser_of_the_command_line_refuses_an_event_refuses_too() {
        for (command, arguments, facts, hint) in [
            (
                "chekc",
                json!({}),
                "unknown command \"chekc\"",
                "did you mean `check`? a function runs init",
            ),
            (
                "check",
                json!({ "rolup": "r" }),
                "command `check`: unknown argument \"rolup\"",
                "its arguments are rollup",
            ),
            ("check", json!({ "via": "f" }), "unknown argument \"via\"", "rollup"),
            ("verify", json!({ "repair": true }), "unknown argument \"repair\"", "sample"),
            ("check", json!({ "rollup": 5 }), "expected a string", "docs/EVENTS.md"),
            (
                "init",
                json!({ "dry_run": true, "delete_outside": true }),
                "dry_run and delete_outside",
                "leave one out",
            ),
            ("verify", json!({ "slice": "2026-01-01" }), "slice needs rollup", "give rollup"),
            (
                "verify",
                json!({ "rollup": "r", "slice": "2026-01-01", "from": "2026-01-01" }),
                "slice and from",
                "leave one out",
            ),
            ("verify", json!({ "sample": 0 }), "sample is 0", "at least 1"),
            ("verify", json!({ "seed": 1 }), "seed needs sample", "give sample"),
            ("verify", json!({ "timeout": "soon" }), "write a duration", "docs/EVENTS.md"),
            ("plan", json!({ "force": true }), "force needs from", "give from"),
            ("preview", json!({ "sql": true, "against": "t" }), "sql and against", "leave one out"),
            ("purgeable", json!({ "before": "2026-01-01" }), "before needs seal", "give seal"),
            ("purgeable", json!({ "unseal": true }), "unseal needs table", "give table"),
            ("adopt", json!({ "before": "2026-01-01" }), "before needs rollup", "give rollup"),
            ("adopt", json!({ "rollup": "r", "from": "t" }), "rollup and from", "leave one out"),
            (
                "purgeable",
                json!({ "table": "t", "seal": true, "unseal": true }),
                "seal and unseal",
                "leave one out",
            ),
            (
                "plan",
                json!({ "from": "2026-01-01", "concurrency": 65 }),
                "concurrency is 65",
                "1 to 64",
            ),
        ] {
            let fault = read(command, arguments.clone()).unwrap_err();
            assert!(fault.facts().contains(facts), "{arguments}: {fault}");
            assert!(fault.hint().is_some_and(|it| it.contains(hint)), "{arguments}: {fault:?}");
        }
    }

    #[test]
    fn an_answer_that_a_function_may_not_return_is_an_error() {
        let document = Some(json!({ "findings": "x".repeat(RESPONSE_MAX) }));
        let answer = CommandAnswer { document, ..CommandAnswer::default() };
        let error = answer.within_limit("check").unwrap_err();
        assert_eq!(error.kind(), "AnswerTooLarge");
        assert!(error.to_string().contains("command `check` has 40000"), "{error}");
    }

    #[test]
    fn the_worst_of_several_answers_decides_the_exit_code() {
        let failure = |exit| CommandAnswer { exit, ..CommandAnswer::default() }.failure();
        let code = |one, other| worse(failure(one), failure(other)).map(|it| it.severity as u8);
        assert_eq!([code(0, 0), code(1, 0), code(0, 1)], [None, Some(1), Some(1)]);
        assert_eq!([code(3, 1), code(1, 3)], [Some(3), Some(3)]);
    }
}
