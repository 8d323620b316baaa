//! The mutations in `tests/mutations`: each can still be applied, and docs/RELIABILITY.md lists
//! each. `tests/mutations/run` shows that the tests catch them, which takes longer than a test
//! suite should.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Every mutation's name and the text of its patch, in order.
fn patches() -> Vec<(String, String)> {
    let directory = Path::new(ROOT).join("tests/mutations");
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let patches = paths.filter(|path| path.extension().is_some_and(|suffix| suffix == "patch"));
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut patches: Vec<_> =
        patches.map(|path| (name(&path), fs::read_to_string(path).unwrap())).collect();
    patches.sort();
    assert!(patches.len() > 30, "{} mutations", patches.len());
    patches
}

/// The part after `Test: ` in a patch's header: the arguments of `cargo test`.
fn test_of(patch: &str) -> &str {
    let lines: Vec<_> = patch.lines().filter_map(|line| line.strip_prefix("Test: ")).collect();
    assert_eq!(lines.len(), 1, "one test:\n{patch}");
    lines[0]
}

/// Whether the program refuses the patch. `None`: the program is missing.
fn is_refused(program: &str, arguments: &[&str]) -> Option<bool> {
    let mut command = Command::new(program);
    // A repository around the source's directory, if any, is a foreign one, in which git would look
    // for the files.
    command.env("GIT_CEILING_DIRECTORIES", Path::new(ROOT).parent().unwrap());
    command.args(arguments).current_dir(ROOT).output().ok().map(|output| !output.status.success())
}

#[test]
fn every_mutation_can_still_be_made() {
    let mut refused = Vec::new();
    for (name, patch) in patches() {
        assert!(patch.contains("\n--- a/src/"), "{name} changes nothing");
        let file = format!("tests/mutations/{name}.patch");
        let dry = ["-p1", "--dry-run", "--force", "--fuzz=0", "--input", file.as_str()];
        let is_refused = is_refused("git", &["apply", "--check", &file])
            .or_else(|| is_refused("patch", &dry))
            .expect("git or patch");
        if is_refused {
            refused.push(name);
        }
    }
    assert!(refused.is_empty(), "these no longer fit the code: {refused:?}");
}

/// `docs/RELIABILITY.md` lists each mutation with the test that catches it: `` `07-name`: `a_test`
/// ``.
#[test]
fn each_mutation_stands_with_its_test_on_the_page_on_reliability() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/RELIABILITY.md")).unwrap();
    let parts: Vec<_> = page.split('`').collect();
    let is_name = |text: &str| {
        let number = text.split_once('-').map_or("", |(number, _)| number);
        number.len() > 1 && number.bytes().all(|it| it.is_ascii_digit())
    };
    let told: BTreeSet<_> = parts
        .windows(3)
        .filter(|three| three[1] == ": " && is_name(three[0]))
        .map(|three| (three[0].to_owned(), three[2].to_owned()))
        .collect();
    let made: BTreeSet<_> = patches()
        .into_iter()
        .map(|(name, patch)| (name, test_of(&patch).rsplit(' ').next().unwrap().to_owned()))
        .collect();
    assert_eq!(told, made);
}
