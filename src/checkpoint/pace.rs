//! The pace that workers have found, in the item of the operator's commands. Each worker reads that
//! item before its chunks anyway.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::checkpoints::Checkpoints;
use super::control::PACE;
use super::error::CheckpointError;
use super::item::{Reader, instant, text};
use super::store::{Item, Value};

const AT: &str = "at";
const RATIO: &str = "nice_ratio";
const HOLD: &str = "held_by";
const NAP: &str = "nap_ms";
const PROBE: &str = "probe_ms";

/// The pace that a worker had found, and how the source looks without load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeptPace {
    /// When it was found.
    pub at: DateTime<Utc>,
    /// The rests, as a multiple of the work.
    pub nice_ratio: f64,
    /// The signal that kept it from being faster.
    pub held_by: String,
    /// Milliseconds that a nap of one lasts on the quiet source.
    pub nap_ms: Option<f64>,
    /// Milliseconds that the quiet source works on the question for its load.
    pub probe_ms: Option<f64>,
}

impl KeptPace {
    fn to_attribute(&self) -> Value {
        // In the form in which each store keeps a number.
        let number = |value: f64| Value::Number(((value * 1e3).round() / 1e3).to_string());
        let ms = [(NAP, self.nap_ms), (PROBE, self.probe_ms)];
        let ms = ms.into_iter().filter_map(|(name, ms)| Some((name.to_owned(), number(ms?))));
        let mut fields = Item::from([
            (AT.to_owned(), instant(self.at)),
            (RATIO.to_owned(), number(self.nice_ratio)),
            (HOLD.to_owned(), text(&self.held_by)),
        ]);
        fields.extend(ms);
        Value::Map(fields)
    }

    /// Reads the attribute. A worker finds its pace without it, so that an invalid one is ignored.
    pub(super) fn read(fields: &Item) -> Option<Self> {
        let read = Reader { item: fields };
        let number =
            |name| read.number::<f64>(name).ok()?.filter(|it| it.is_finite() && *it >= 0.0);
        Some(Self {
            at: read.instant(AT).ok()??,
            nice_ratio: number(RATIO)?,
            held_by: read.text(HOLD).ok()?.unwrap_or_default(),
            nap_ms: number(NAP),
            probe_ms: number(PROBE),
        })
    }
}

impl Checkpoints {
    /// Tells other processes the pace.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn keep_pace(&self, pace: &KeptPace) -> Result<(), CheckpointError> {
        self.set_control(PACE, Some(pace.to_attribute())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> Option<KeptPace> {
        let Value::Map(fields) = value else { panic!("{value:?}") };
        KeptPace::read(fields)
    }

    #[test]
    fn a_pace_is_read_as_it_was_written_and_an_invalid_one_is_none() {
        let pace = KeptPace {
            at: DateTime::UNIX_EPOCH,
            nice_ratio: 12.0,
            held_by: "transactions of others".into(),
            nap_ms: Some(1.07),
            probe_ms: None,
        };
        assert_eq!(read(&pace.to_attribute()), Some(pace.clone()));
        // Nothing follows from a baseline that is no length of time.
        let odd = KeptPace { nap_ms: Some(-1.0), probe_ms: Some(f64::NAN), ..pace.clone() };
        assert_eq!(read(&odd.to_attribute()), Some(KeptPace { nap_ms: None, ..pace.clone() }));
        let slow = KeptPace { nice_ratio: -1.0, ..pace };
        assert_eq!(read(&slow.to_attribute()), None);
    }
}
