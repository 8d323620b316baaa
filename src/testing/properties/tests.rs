//! The properties of the fuzz targets, tested on random input and on every seed.

use std::path::Path;
use std::{fs, panic};

use proptest::prelude::*;
use proptest::sample::select;

use super::{config, event, item, runtime};

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 4] =
    [("event", event), ("config", config), ("item", item), ("runtime", runtime)];

/// Findings of the fuzzer stay in the corpus, so a regression fails here.
#[test]
fn every_seed_of_the_fuzz_targets_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut faults = Vec::new();
    for (name, target) in TARGETS {
        let seeds: Vec<_> =
            fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(seeds.len() > 10, "{} seeds of {name}", seeds.len());
        for seed in seeds {
            let data = fs::read(&seed).unwrap();
            if panic::catch_unwind(|| target(&data)).is_err() {
                faults.push(seed);
            }
        }
    }
    assert!(faults.is_empty(), "{faults:?}");
}

/// The attributes of all items.
const NAMES: [&str; 44] = [
    "pk",
    "sk",
    "state",
    "attempt",
    "owner",
    "lease_until",
    "claimed_from",
    "failures",
    "retry_at",
    "dirty",
    "dirty_seen",
    "definition",
    "horizon",
    "reason",
    "error",
    "rows_read",
    "groups",
    "inserted",
    "updated",
    "deleted",
    "unchanged",
    "chunks",
    "source_ms",
    "elapsed_ms",
    "settled_by",
    "finished_at",
    "watermark",
    "version",
    "first_row",
    "probed_at",
    "from",
    "to",
    "order",
    "force",
    "cursor",
    "round",
    "sent",
    "sent_in_round",
    "pending_in_round",
    "exhausted_in_round",
    "started_at",
    "day",
    "verified_today",
    "paid_until",
];

/// Values of every type, including extreme ones.
fn attribute() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        select(vec!["0", "1", "-1", "18446744073709551615", "9223372036854775807", "1e125", "NaN"])
            .prop_map(str::to_owned),
        any::<u64>().prop_map(|number| number.to_string()),
        (0_i64..9_000_000_000_000_000).prop_map(|number| number.to_string()),
    ];
    let text = prop_oneof![
        select(vec![
            "running",
            "failed",
            "stale",
            "planning",
            "newest_first",
            "daily",
            "backfill#20261125T171219123Z",
            "backfill#backfill#x",
            "2026-02-10",
            "2026-02-10T00:00:00Z",
            "2026-02-10T00:00:00.0005+01:00",
            "9999-12-31T23:59:59-23:59",
            "0000-01-01T00:00:00+23:59",
        ])
        .prop_map(str::to_owned),
        "[^\r\n]{0,20}",
    ];
    prop_oneof![
        number.prop_map(|number| format!("N {number}")),
        text.prop_map(|text| format!("S {text}")),
        Just("B true".to_owned()),
        Just("M\n at S 2026-02-10T00:00:00Z\n found_at S 2026-02-10T00:00:00.0001Z".to_owned()),
    ]
}

/// An item of the corpus, with some attributes replaced and some added.
fn any_item() -> impl Strategy<Value = String> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/item");
    let seeds: Vec<String> = ["checkpoint-running", "checkpoint-succeeded", "backfill", "scrub"]
        .into_iter()
        .chain(["watermark", "control", "budget"])
        .map(|name| fs::read_to_string(corpus.join(name)).unwrap())
        .collect();
    let control = ["pause", "nice_ratio", "pause_rollup_r", "nice_ratio_backfill_r", "woken_at"];
    let drift = ["drift_20260210T000000Z", "drift_+120260210T000000Z", "cancel_backfill_r"];
    let names: Vec<_> = NAMES.into_iter().chain(control).chain(drift).collect();
    (select(seeds), prop::collection::vec((select(names), attribute()), 0..4)).prop_map(
        |(seed, changes)| {
            let changes = changes.into_iter().map(|(name, value)| format!("{name} {value}\n"));
            seed + &changes.collect::<String>()
        },
    )
}

/// A message's body, or a similar text.
fn any_body() -> impl Strategy<Value = String> {
    let start = prop_oneof![
        Just("2026-02-10".to_owned()),
        Just("2026-04-05T01:45".to_owned()),
        "[0-9]{4}-[01][0-9]-[0-3][0-9]([T ][0-2][0-9]:[0-5][0-9](:[0-6][0-9])?(Z|[+-][0-2][0-9]:[0-5][0-9])?)?",
    ];
    let id =
        prop_oneof![Just("20261125T171219123Z".to_owned()), "[ +]?[0-9]{8}T[0-9]{9}Z", ".{0,9}"];
    let slice = (start, id).prop_map(|(start, id)| {
        serde_json::json!({ "trigger": "slice", "rollup": "r", "start": start, "backfill": id })
            .to_string()
    });
    prop_oneof![4 => slice, 1 => ".{0,40}"]
}

proptest! {
    #[test]
    fn any_item_is_refused_or_writes_back_to_the_same(text in any_item()) {
        item(text.as_bytes());
    }

    #[test]
    fn whatever_lambda_and_a_queue_hand_over_has_an_answer(
        deadline in any::<u64>(),
        count in "[0-9]{0,12}|.{0,5}",
        trace in "[^\r\n]{0,20}",
        body in any_body(),
    ) {
        runtime(format!("deadline: {deadline}\ncount: {count}\ntrace: {trace}\n\n{body}").as_bytes());
    }

    #[test]
    fn a_mutilated_definition_stands_or_is_told_about(
        seed in select(vec!["good.toml", "governor.toml", "where.toml", "url-mode.toml"]),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, "\\PC{0,3}|[0-9]|\""), 0..3)
    ) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/config");
        let mut bytes = fs::read(corpus.join(seed)).unwrap();
        for (at, length, insert) in cuts {
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, insert.into_bytes());
        }
        config(&bytes);
    }
}
