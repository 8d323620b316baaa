//! Properties of every kind in the registry.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use super::{Column, Columns, Input, KINDS, Kind, Level, Measure, Subject, lay_out};
use crate::config::Config;
use crate::model::operand::Operand;

/// A measure `m` of this kind over the column `n`, as the configuration reads it.
fn measure(kind: &dyn Kind) -> Measure {
    let subject = match kind.subject() {
        Subject::Rows(_) => "true",
        Subject::Column => "\"n\"",
    };
    let choice = kind.choice().map(|(key, value)| format!(", {key} = {value:?}"));
    let parameters = kind.parameters().iter().map(|it| format!(", {} = {}", it.key, it.example));
    let parameters = choice.into_iter().chain(parameters);
    let text = format!(
        "source.url = \"postgres://app@db/shop\"\n[[rollup]]\nname = \"r\"\nfrom = \"events\"\n\
         time = \"at\"\nstart = \"2025-01-01\"\nslice = \"1 day\"\n\
         measures.m = {{ {} = {subject}{} }}\n",
        kind.word(),
        parameters.collect::<String>()
    );
    let config = Config::parse(Path::new("tallymark.toml"), &text, &|_| None);
    config.unwrap().rollups.remove(0).measures.remove(0)
}

/// The names by which statements over the source read what `measure` reads.
fn read_names(measure: &Measure) -> Vec<String> {
    measure.reads().iter().map(|operand| operand.name().to_owned()).collect()
}

/// The columns of `measure` over columns of a type that can be added, ordered and compared.
fn made(measure: &Measure, names: &[String], level: Level) -> Columns {
    let read: Vec<_> =
        names.iter().map(|name| Column::of_rollup(name, "bigint", None, false)).collect();
    let input = Input::new(measure, read.iter().collect(), "bigint".into(), true, false);
    lay_out(vec![input], level).unwrap().0
}

fn names(columns: &Columns) -> BTreeSet<String> {
    let generated = columns.generated.iter().map(|generated| generated.name.clone());
    columns.fields.iter().map(|field| field.name.clone()).chain(generated).collect()
}

/// The measure that merges `finer` in a coarse rollup under the same name.
fn merging(finer: &Measure) -> Option<Measure> {
    let kind = finer.kind.merged_by(finer, "finer").ok()?;
    Some(Measure { kind, column: Some(Operand::column(&finer.name)), ..finer.clone() })
}

#[test]
fn every_word_of_a_kind_is_a_key_of_its_own() {
    // Kinds of the same word differ in their choice.
    let chosen: HashSet<_> = KINDS.iter().map(|kind| (kind.word(), kind.choice())).collect();
    assert_eq!(chosen.len(), KINDS.len(), "{chosen:?}");
    let words: HashSet<_> = KINDS.iter().map(|kind| kind.word()).collect();
    let choices = KINDS.iter().filter_map(|kind| kind.choice()).map(|(key, _)| key);
    let keys = KINDS.iter().flat_map(|kind| kind.parameters()).map(|parameter| parameter.key);
    let keys: HashSet<_> = keys.chain(choices).collect();
    let all: Vec<_> = words.iter().copied().chain(keys).chain(["where"]).collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "{all:?}");
    assert!(
        all.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
    );
    for word in words {
        assert_eq!(super::kind(word).map(|kind| kind.word()), Some(word));
    }
    assert!(super::kind("median").is_none());
}

/// Otherwise two columns could share a name, and PostgreSQL cuts names after 63 bytes.
#[test]
fn every_kind_makes_the_columns_that_it_names() {
    for kind in KINDS {
        let measure = Measure { name: "m".repeat(48), ..measure(*kind) };
        let columns = made(&measure, &read_names(&measure), Level::Rows);
        assert_eq!(names(&columns), measure.names().into_iter().collect(), "{kind:?}");
        assert!(measure.names().iter().all(|name| name.len() <= 63), "{kind:?}");
        if let Some(coarse) = merging(&measure) {
            let columns = made(&coarse, &coarse.kind.reads_finer(&coarse), Level::Finer);
            assert_eq!(names(&columns), coarse.names().into_iter().collect(), "{kind:?}");
        }
    }
}

#[test]
fn what_merges_finds_its_columns_in_the_finer_table_however_many_rollups_are_above() {
    for kind in KINDS {
        let measure = measure(*kind);
        let Some(coarse) = merging(&measure) else { continue };
        let finer = made(&measure, &read_names(&measure), Level::Rows);
        let is_there = |name: &String| finer.fields.iter().any(|field| field.name == *name);
        assert!(coarse.kind.reads_finer(&coarse).iter().all(is_there), "{kind:?}");
        assert_eq!(merging(&coarse).map(|it| it.kind), Some(coarse.kind), "{kind:?}");
    }
}
