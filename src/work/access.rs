//! Proofs that the app answers what it is asked. With fewer rights than an administrator's, Bubble
//! leaves out things without a sign, and drops constraints.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::clients::bubble::ThingSearch;
use crate::model::hint::Fault;
use crate::model::not_now::NotNow;
use crate::model::rollup::Rollup;
use crate::model::rollup::mirror::Mirror;
use crate::model::slice::Slice;
use crate::work::meter::Meter;

/// A key that no app has.
const UNKNOWN: &str = "tallymark_unknown_field";

const TOKEN: &str = "use the token of Settings → API, which privacy rules do not concern";

/// Looks at both the token's count and a stranger's, as things may be deleted between the two.
const LOOKS_MAX: u32 = 4;

/// What a proof found: the fault, or that all is right. The outer error: it cannot be made now.
type Proved = Result<Result<(), Fault>, NotNow>;

/// Proves, once per process and type, that the token's rights suffice, with a slice of the mirror
/// that is over at `now`. It costs about one workload unit.
pub(crate) async fn prove(
    rollup: &Rollup,
    mirror: &Mirror,
    slice: Slice,
    now: DateTime<Utc>,
    meter: &mut Meter<'_>,
) -> Proved {
    if meter.app().is_proven(&mirror.thing) {
        return Ok(Ok(()));
    }
    if let Err(fault) = prove_answers(mirror, slice, meter).await? {
        return Ok(Err(fault));
    }
    let all = ThingSearch::count(&mirror.thing, rollup.start, now);
    if let Err(fault) = sees_all(mirror, &all, meter).await? {
        return Ok(Err(fault));
    }
    meter.app().set_proven(&mirror.thing);
    Ok(Ok(()))
}

/// Proves that the app takes the token, has the branch, type and fields, and heeds constraints.
pub(crate) async fn prove_answers(mirror: &Mirror, slice: Slice, meter: &mut Meter<'_>) -> Proved {
    if let Err(fault) = has_fields(mirror, meter).await? {
        return Ok(Err(fault));
    }
    let count = |from, until| ThingSearch::count(&mirror.thing, from, until);
    let nothing = match meter.find(&count(slice.end(), slice.start())).await? {
        Ok(page) => page.total,
        Err(fault) => return Ok(Err(fault)),
    };
    if nothing > 0 {
        let facts = format!(
            "the app ignores constraints: it finds {nothing} things in a range that is empty by itself"
        );
        return Ok(Err(Fault::new(facts).remedy(TOKEN)));
    }
    let unknown = ThingSearch { contradicts: Some(UNKNOWN), ..count(slice.start(), slice.end()) };
    if meter.find(&unknown).await?.is_ok() {
        let facts = "the app ignores constraints: it takes one on a field that no type has";
        return Ok(Err(Fault::new(facts).remedy(TOKEN)));
    }
    Ok(Ok(()))
}

/// Whether the app describes the configured branch with the mirror's type and fields. An app may hide
/// its description.
async fn has_fields(mirror: &Mirror, meter: &mut Meter<'_>) -> Proved {
    let Ok(meta) = meter.meta().await? else { return Ok(Ok(())) };
    let known = meta.fields_in(meter.app().branch(), &mirror.thing, &mirror.fields);
    Ok(known.map(drop).map_err(|error| Fault::of(&error)))
}

/// Whether the token sees some of `all` things, and no fewer than a stranger. Most apps show a
/// stranger nothing at all.
async fn sees_all(mirror: &Mirror, all: &ThingSearch<'_>, meter: &mut Meter<'_>) -> Proved {
    let (mut with, mut without) = (0, 0);
    for _ in 0..LOOKS_MAX {
        without = meter.find_as_stranger(all).await?.map_or(0, |page| page.total);
        with = match meter.find(all).await? {
            Ok(page) => page.total,
            Err(fault) => return Ok(Err(fault)),
        };
        if without <= with {
            break;
        }
    }
    if with == 0 {
        let facts = format!(
            "the token finds no thing of type `{}` since `start`: it may lack the rights to see any",
            mirror.thing
        );
        let remedy =
            "use the token of Settings → API; if the type is empty, wait for its first thing";
        return Ok(Err(Fault::new(facts).remedy(remedy)));
    }
    if without > with {
        let facts = format!(
            "the app shows {with} things of type `{}` with the token, and {without} without one",
            mirror.thing
        );
        return Ok(Err(Fault::new(facts).remedy(TOKEN)));
    }
    Ok(Ok(()))
}

/// Proves that the fields of the mirror are fields of the app, where all things of a page lacked
/// one of the `absent`: a renamed field looks as if it were empty.
pub(crate) async fn prove_fields(
    mirror: &Mirror,
    slice: Slice,
    absent: &BTreeSet<String>,
    meter: &mut Meter<'_>,
) -> Proved {
    if absent.is_empty() {
        return Ok(Ok(()));
    }
    if let Err(fault) = has_fields(mirror, meter).await? {
        return Ok(Err(fault));
    }
    for key in absent {
        if let Err(fault) = prove_field(mirror, slice, key, meter).await? {
            return Ok(Err(fault
                .rephrased(|facts| format!("no thing of a page has the field `{key}`: {facts}"))));
        }
    }
    Ok(Ok(()))
}

/// Proves each field of the mirror, where the app hides its description.
pub(crate) async fn prove_hidden_fields(
    mirror: &Mirror,
    slice: Slice,
    meter: &mut Meter<'_>,
) -> Proved {
    if meter.meta().await?.is_ok() {
        return Ok(Ok(()));
    }
    for key in &mirror.fields {
        if let Err(fault) = prove_field(mirror, slice, key, meter).await? {
            return Ok(Err(fault.at(format!("field `{key}`"))));
        }
    }
    Ok(Ok(()))
}

/// The app refuses a search by a field that it does not know, and ignores a constraint on one that
/// the token may not see.
async fn prove_field(mirror: &Mirror, slice: Slice, key: &str, meter: &mut Meter<'_>) -> Proved {
    let proof = format!("{}\n{key}", mirror.thing);
    if meter.app().is_proven(&proof) {
        return Ok(Ok(()));
    }
    let count = ThingSearch::count(&mirror.thing, slice.start(), slice.end());
    let found = meter.find(&ThingSearch { contradicts: Some(key), ..count }).await?;
    Ok(match found {
        Ok(page) if page.total == 0 => {
            meter.app().set_proven(&proof);
            Ok(())
        }
        Ok(_) => Err(Fault::new("the token may not see it").remedy(TOKEN)),
        Err(fault) => Err(fault),
    })
}
