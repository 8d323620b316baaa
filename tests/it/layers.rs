//! Dependencies point one way, and the source can be taken in at a glance.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The folders of `src` from the ground up. Each imports only those that stand before it.
const LAYERS: [&str; 18] = [
    "testing",
    "model",
    "clients",
    "config",
    "source",
    "checkpoint",
    "throttle",
    "target",
    "work",
    "check",
    "fanout",
    "tick",
    "manage",
    "event",
    "telemetry",
    "lambda",
    "embedded",
    "cli",
];

/// Lines of a file, with its comments.
const LINES_MAX: usize = 450;

/// Entries of `src` that a newcomer can take in at a glance.
const ENTRIES_MAX: usize = 20;

/// All Rust files below a directory of the repository, by their paths in it.
fn sources(directory: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = vec![Path::new(ROOT).join(directory)];
    while let Some(directory) = left.pop() {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let (directories, files): (Vec<PathBuf>, Vec<_>) = entries.partition(|path| path.is_dir());
        left.extend(directories);
        for file in files.iter().filter(|file| file.extension().is_some_and(|it| it == "rs")) {
            let path = file.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned();
            found.push((path, fs::read_to_string(file).unwrap()));
        }
    }
    found
}

/// Lines outside of comments, with the paths of their files, that contain one of `words`.
fn lines(sources: &[(String, String)], words: &[&str]) -> Vec<String> {
    let line = |path: &str, line: &str| {
        let is_code = !line.trim_start().starts_with("//");
        let is_named = words.iter().any(|word| line.contains(word));
        (is_code && is_named).then(|| format!("{path}: {}", line.trim()))
    };
    sources
        .iter()
        .flat_map(|(path, text)| text.lines().filter_map(move |text| line(path, text)))
        .collect()
}

/// The folders of `src` that the code of a file names, without its comments and tests.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code = lines.collect::<Vec<_>>().join("\n");
    let is_name = |it: &char| it.is_alphanumeric() || *it == '_';
    let names = code.split("crate::").skip(1);
    let names: BTreeSet<String> =
        names.map(|rest| rest.chars().take_while(is_name).collect()).collect();
    assert!(!names.contains(""), "a line for each folder instead of crate::{{…}}");
    names
}

#[test]
fn each_folder_imports_only_those_below_it() {
    let level = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let mut seen = BTreeSet::new();
    let mut upward = Vec::new();
    for (path, text) in sources("src") {
        let folder = path.split('/').nth(1).unwrap().trim_end_matches(".rs").to_owned();
        // The map, the programs and what only tests build stand above all.
        let is_above = ["lib", "bin"].contains(&folder.as_str())
            || ["/tests", "/testing/properties/", "/properties.rs"]
                .iter()
                .any(|it| path.contains(it));
        if is_above {
            continue;
        }
        let own = level(&folder).unwrap_or_else(|| panic!("{folder} stands in no layer"));
        let higher = |name: &String| level(name).is_some_and(|level| level > own);
        upward.extend(
            imports(&text).into_iter().filter(higher).map(|name| format!("{path}: {name}")),
        );
        seen.insert(folder);
    }
    assert_eq!(upward, [""; 0], "these import what stands above them");
    assert_eq!(seen.len(), LAYERS.len(), "a layer without a file");
}

#[test]
fn the_source_can_be_taken_in_at_a_glance() {
    let entries = fs::read_dir(Path::new(ROOT).join("src")).unwrap().count();
    assert!(entries <= ENTRIES_MAX, "{entries} entries");
    let long = |(path, text): &(String, String)| {
        let lines = text.lines().count();
        (lines > LINES_MAX).then(|| format!("{path}: {lines}"))
    };
    let long: Vec<_> = sources("src").iter().filter_map(long).collect();
    assert_eq!(long, [""; 0], "these files are too long");
}

#[test]
fn only_the_store_in_dynamodb_names_its_sdk() {
    let mut sources = sources("src");
    // The embedded server returns a client, and tests of DynamoDB itself use it.
    let clients = ["src/checkpoint/store/dynamodb/", "src/embedded/", "src/checkpoint/tests"];
    sources.retain(|(path, _)| !clients.iter().any(|client| path.starts_with(client)));
    assert!(sources.len() > 100, "{} files", sources.len());
    assert_eq!(lines(&sources, &["aws_sdk_dynamodb"]), [""; 0]);
}

#[test]
fn a_store_imports_nothing_of_those_who_use_it() {
    let mut used = lines(&sources("src/checkpoint/store"), &["crate::", "super::super"]);
    let below =
        ["checkpoint::store::", "clients::", "model::hint::", "model::sql::", "model::text::"];
    used.retain(|line| !below.iter().any(|below| line.contains(&format!("crate::{below}"))));
    assert_eq!(used, [""; 0]);
}

#[test]
fn only_the_source_asks_which_kind_it_is() {
    let mut sources = sources("src");
    // A definition names its finer rollup. `compose` waits for that one's slices and reopens coarse
    // ones, and a rollup that feeds another is not dropped.
    let names_it =
        ["src/model/", "src/config/", "src/source/", "src/work/compose.rs", "src/cli/rollup.rs"];
    sources.retain(|(path, _)| !names_it.iter().any(|named| path.starts_with(named)));
    assert!(sources.len() > 100, "{} files", sources.len());
    let mut asking = lines(&sources, &[".finer", "finer::", "source::table"]);
    // The finer rollup's progress, by which a coarse slice is due.
    asking.retain(|line| !line.contains(".finer_done"));
    assert_eq!(asking, [""; 0]);
}
