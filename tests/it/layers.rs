//! Dependencies point one way: names that may not occur in a part of the code.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

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
    let below = ["checkpoint::store::", "db::", "aws::", "sql::", "text::"];
    used.retain(|line| !below.iter().any(|below| line.contains(&format!("crate::{below}"))));
    assert_eq!(used, [""; 0]);
}
