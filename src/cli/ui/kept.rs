//! The output of a command that runs for an operator elsewhere. It is kept for the answer instead
//! of printed.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

tokio::task_local! {
    static KEPT: Mutex<KeptOutput>;
}

/// What a command printed, without colours.
#[derive(Debug, Default)]
pub(crate) struct KeptOutput {
    /// The document of `--json`.
    pub(crate) document: Option<Value>,
    /// All texts, in their order.
    pub(crate) texts: Vec<KeptText>,
    /// Where another run of the command continues.
    pub(crate) next: Option<Value>,
}

/// One text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptText {
    pub(crate) kind: TextKind,
    pub(crate) text: String,
}

/// Where a text belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TextKind {
    /// The result, in place of the document.
    Result,
    /// A result with lines that must not be wrapped.
    Script,
    /// What the command announces before its result.
    Announcement,
    /// A note on stderr.
    Note,
}

/// Keeps all output of `work`.
pub(crate) async fn keeping<T>(work: impl Future<Output = T>) -> (T, KeptOutput) {
    KEPT.scope(Mutex::default(), async {
        let done = work.await;
        let kept = KEPT
            .with(|kept| std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner)));
        (done, kept)
    })
    .await
}

/// Whether output is kept.
pub(crate) fn is_keeping() -> bool {
    KEPT.try_with(|_| ()).is_ok()
}

/// Keeps a text. `false`: it is to be printed.
pub(super) fn keep_text(kind: TextKind, text: &str) -> bool {
    let text = super::paint::shown(text, false);
    keep(|kept| kept.texts.push(KeptText { kind, text }))
}

/// Keeps the document. `false`: nothing is kept.
pub(crate) fn keep_document(document: &impl Serialize) -> bool {
    // Serialisation fails only on maps whose keys are no texts, which no document has.
    keep(|kept| kept.document = Some(serde_json::to_value(document).unwrap_or_default()))
}

/// Keeps the place where another run continues.
pub(crate) fn keep_next(next: Value) {
    keep(|kept| kept.next = Some(next));
}

fn keep(add: impl FnOnce(&mut KeptOutput)) -> bool {
    KEPT.try_with(|kept| add(&mut kept.lock().unwrap_or_else(PoisonError::into_inner))).is_ok()
}
