//! The Lambda function: polls for events and passes each to [`tallymark::lambda::handle`].

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use tallymark::cli::remote;
use tallymark::clients::queue::Queues;
use tallymark::clients::secret;
use tallymark::config::Config;
use tallymark::lambda::{HandleError, Invocation, deadline, handle};
use tallymark::model::clock::{Clock, SystemClock};
use tallymark::model::hint::Hinted;
use tallymark::model::text::cut_to;
use tallymark::model::visible;
use tallymark::telemetry::log;
use tallymark::telemetry::metrics::{Kept, Metrics};
use tallymark::work::worker::Worker;
use tokio::sync::OnceCell;
use tracing::Instrument as _;

/// The queues of the fan-out. Unless both are set, an invocation works on all due slices itself.
const QUEUES: [&str; 2] = ["TALLYMARK_QUEUE_URL", "TALLYMARK_BACKFILL_QUEUE_URL"];

/// The parts of the function, built once its configuration is known.
struct Function {
    worker: Worker,
    metrics: Kept,
}

/// Longest text of an error, which is also a log line. The errors of a hundred rollups fit.
const ERROR_MAX: usize = 100_000;

/// One thread, as an invocation mostly waits for servers, and below 1,769 MB Lambda has less than
/// one CPU.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    log::lambda();
    if env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        bail!("`bootstrap` runs inside AWS Lambda\nhint: on a command line, run `tallymark run`");
    }
    // Built by the first invocation, so that a wrong configuration becomes that invocation's answer
    // instead of a crash that Lambda repeats.
    let function = OnceCell::new();
    let answer = |event: LambdaEvent<Value>| async {
        let (request, trace) =
            (event.context.request_id.clone(), event.context.xray_trace_id.clone());
        let span = tracing::info_span!("invocation", request.id = request, trace.id = trace);
        // Boxed, as the nested future would be too deep for the compiler.
        let result = Box::pin(invoke(&function, event));
        let result = result.instrument(span.clone()).await;
        result.inspect_err(|Diagnostic { error_type, error_message }| {
            span.in_scope(|| {
                tracing::error!(
                    error.kind = error_type,
                    error = error_message,
                    "invocation failed"
                );
            });
        })
    };
    lambda_runtime::run(service_fn(answer)).await.map_err(anyhow::Error::from_boxed)
}

async fn invoke(
    function: &OnceCell<Function>,
    event: LambdaEvent<Value>,
) -> Result<Value, Diagnostic> {
    let diagnostic = |error_type: &str, error_message: String| Diagnostic {
        error_type: error_type.to_owned(),
        error_message: cut_to(&error_message, ERROR_MAX).into_owned(),
    };
    let deadline = deadline(event.context.deadline)
        .ok_or_else(|| diagnostic("NoDeadline", "lambda gave no deadline".to_owned()))?;
    let built = function.get_or_try_init(build);
    let built = tokio::time::timeout(deadline.remaining(&SystemClock), built).await;
    let Function { worker, metrics: kept } = built
        .map_err(|_| diagnostic("OutOfTime", HandleError::OutOfTime.to_string()))?
        .map_err(|error| diagnostic("WrongConfiguration", format!("{error:#}")))?;
    let emit = |metrics: &Metrics| emit(metrics, *kept);
    let trace = event.context.xray_trace_id.as_deref();
    let invocation = Invocation { deadline, trace, emit: &emit, commands: &remote::answer };
    // Boxed, as the type of a slice's whole path is too deep for the runtime's layers around it.
    Box::pin(handle(worker, event.payload, invocation))
        .await
        .map_err(|error| diagnostic(error.kind(), error.in_one_line()))
}

/// Writes the metrics to stdout, from where CloudWatch reads them.
fn emit(metrics: &Metrics, kept: Kept) {
    let function = env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|_| "tallymark".to_owned());
    let line = metrics.line(&function, kept, SystemClock.now());
    // As with the log, a failure to write cannot be reported anywhere.
    let _ = writeln!(std::io::stdout(), "{}", visible::json(&line.to_string()));
}

/// Builds the clients. They connect later.
async fn build() -> anyhow::Result<Function> {
    let config = config().await?;
    let kept = env::var("TALLYMARK_METRICS").ok().filter(|kept| !kept.is_empty());
    let metrics = kept.map_or(Ok(Kept::default()), |kept| kept.parse());
    let metrics = metrics.map_err(anyhow::Error::msg).context("reading TALLYMARK_METRICS")?;
    let urls = QUEUES.map(|name| env::var(name).ok().filter(|url| !url.is_empty()));
    let queues = match urls {
        [Some(fresh), Some(backfill)] => Some(Queues::connect(fresh, backfill).await),
        [None, None] => None,
        _ => bail!("set both of {} and {}, or neither", QUEUES[0], QUEUES[1]),
    };
    let worker = Worker::new(config, Arc::new(SystemClock), 1).await;
    let mut worker = worker.context("building the clients")?;
    worker.queues = queues;
    Ok(Function { worker, metrics })
}

/// The definitions, from the file in the zip or the text of a parameter.
async fn config() -> anyhow::Result<Config> {
    let env = |name: &str| env::var(name).ok();
    if let Some(name) = env("TALLYMARK_CONFIG_PARAMETER").filter(|name| !name.is_empty()) {
        let text = secret::parameter(&name).await.context("reading TALLYMARK_CONFIG_PARAMETER")?;
        return Ok(Config::parse(Path::new(&name), &text, &env)?);
    }
    let name = env("TALLYMARK_CONFIG").unwrap_or_else(|| "tallymark.toml".to_owned());
    let path = PathBuf::from(env::var_os("LAMBDA_TASK_ROOT").unwrap_or_default()).join(name);
    Ok(Config::load(&path, &env)?)
}
