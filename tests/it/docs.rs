//! The examples in the documentation are true.

use std::fs;
use std::path::Path;

use tallymark::config::Config;
use tallymark::model::measure::KINDS;

const ADDRESS: &str = "postgres://app:secret@db.example.com:5432/shop";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Reads `text` as a configuration, with every environment variable set.
fn parse(name: &str, text: &str) -> Config {
    let env = |name: &str| (name != "TALLYMARK_TABLE").then(|| ADDRESS.to_owned());
    match Config::parse(Path::new(name), text, &env) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    }
}

/// The fenced blocks of a Markdown text in this language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

#[test]
fn the_example_is_a_good_configuration() {
    let config = parse("examples/tallymark.toml", &read("examples/tallymark.toml"));
    let [daily, requests] = &config.rollups[..] else { panic!("two rollups") };
    assert_eq!(daily.measures.len(), 7);
    assert_eq!(requests.bucket.to_string(), "15 minutes");
}

/// Removes the `#` from the defaults. The file must stay valid, and have the same meaning.
#[test]
fn the_defaults_that_the_example_names_are_the_defaults() {
    let text = read("examples/tallymark.toml");
    let named = text.replace("\n# chunk_time", "\nchunk_time");
    let named = ["schema", "store", "table", "failures_max", "grace", "late", "shrink_guard"]
        .iter()
        .fold(named, |text, key| text.replace(&format!("\n# {key} ="), &format!("\n{key} =")));
    assert_eq!(named.matches("\n# ").count() + 8, text.matches("\n# ").count());
    let (left, right) = (parse("left", &text), parse("right", &named));
    assert_eq!(left.source.chunk_time, right.source.chunk_time);
    assert_eq!(left.target.schema, right.target.schema);
    assert_eq!(left.checkpoint.store, right.checkpoint.store);
    assert_eq!(left.checkpoint.table, right.checkpoint.table);
    assert_eq!(left.checkpoint.failures_max, right.checkpoint.failures_max);
    assert_eq!(format!("{:?}", left.rollups), format!("{:?}", right.rollups));
}

#[test]
fn the_configuration_in_the_readme_is_a_good_one() {
    let readme = read("README.md");
    let shown = blocks(&readme, "toml");
    assert!(!shown.is_empty());
    for text in shown {
        parse("README.md", text);
    }
}

#[test]
fn the_rollups_of_rollups_in_the_reference_are_good_ones() {
    let reference = read("docs/CONFIG.md");
    let shown = blocks(&reference, "toml");
    let text = shown.iter().find(|text| text.contains("from = { rollup = ")).unwrap();
    let config = parse("docs/CONFIG.md", &format!("source.url = {{ env = \"URL\" }}\n{text}"));
    let [hourly, daily, monthly] = &config.rollups[..] else { panic!("three rollups") };
    assert!(daily.is_computed_from(hourly) && monthly.is_computed_from(daily));
}

#[test]
fn the_mirrors_in_the_example_and_on_the_page_about_bubble_are_good_ones() {
    let example = parse("examples/bubble", &read("examples/bubble/tallymark.toml"));
    let names: Vec<&str> = example.rollups.iter().map(|it| it.name.as_str()).collect();
    let expected = ["orders", "visits", "orders_hourly", "revenue_monthly", "visits_daily"];
    assert_eq!(names, expected);
    let page = read("docs/BUBBLE.md");
    let shown = parse("docs/BUBBLE.md", blocks(&page, "toml")[0]);
    let [mirror, daily] = &shown.rollups[..] else { panic!("two tables") };
    assert!(daily.is_computed_from(mirror));
}

#[test]
fn every_kind_of_measure_stands_in_the_reference() {
    let reference = read("docs/CONFIG.md");
    let measures = reference.split("\n## Measures\n").nth(1).unwrap();
    let measures = measures.split("\n## ").next().unwrap();
    for word in KINDS.iter().map(|kind| kind.word()) {
        let forms = [format!("= \"{word}\"`"), format!("`{{ {word} = "), format!("= {{ {word} = ")];
        assert!(forms.iter().any(|form| measures.contains(form)), "{word}");
    }
}

/// Every link to a file of this repository, from the README, `docs` and the example applications.
#[test]
fn no_link_is_broken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for directory in ["docs", "docs/adr"] {
        let entries = fs::read_dir(root.join(directory)).unwrap();
        pages.extend(entries.map(|entry| entry.unwrap().path()));
    }
    let apps = root.join("examples/apps");
    pages.push(apps.join("README.md"));
    pages.push(root.join("examples/grafana/README.md"));
    let folders = fs::read_dir(apps).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(folders.map(|app| app.join("README.md")).filter(|page| page.exists()));
    let mut broken = Vec::new();
    for page in pages.iter().filter(|page| page.extension().is_some_and(|suffix| suffix == "md")) {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let is_local = !link.is_empty() && !link.contains("://");
            if is_local && !page.parent().unwrap().join(link).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Everything after `cargo test … ` in a command, and every lone name in a table's last column.
#[test]
fn every_test_that_the_pages_on_reliability_and_security_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    let mut directories = vec![root.join("src"), root.join("tests")];
    // Each directory enters once.
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|suffix| suffix == "rs") {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let names: Vec<_> = sources
        .split("fn ")
        .filter_map(|rest| rest.split_once('('))
        .map(|(name, _)| name)
        .collect();
    let page = read("docs/RELIABILITY.md");
    let rows: Vec<_> = page.lines().filter(|line| line.ends_with("` |")).collect();
    assert!(rows.len() > 20, "{} rows", rows.len());
    for row in rows {
        let code = row.trim_end_matches("` |").rsplit('`').next().unwrap();
        let filter = code.rsplit(' ').next().unwrap();
        assert!(names.iter().any(|name| name.contains(filter)), "no test is named {filter}");
    }
    let page = read("docs/SECURITY.md");
    let commands: Vec<_> = page.split("`cargo test ").skip(1).collect();
    assert!(commands.len() > 8, "{} commands", commands.len());
    for command in commands {
        let filter = command.split('`').next().unwrap().rsplit(' ').next().unwrap();
        assert!(names.iter().any(|name| name.contains(filter)), "no test is named {filter}");
    }
}

/// Every file of this repository that a page, a comment or an infrastructure file names by its
/// path.
#[test]
fn every_path_that_is_named_exists() {
    const ROOTS: [&str; 9] =
        ["src/", "tests/", "docs/", "infra/", "events/", "examples/", "benches/", "fuzz/", ".ci/"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut missing, mut named) = (Vec::new(), 0);
    let mut directories = vec![root.to_owned()];
    // Each directory enters once.
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let is_ours = !name.starts_with('.') || name == ".ci";
            if path.is_dir() && is_ours && name != "target" && name != "corpus" {
                directories.push(path);
                continue;
            }
            let is_text = ["md", "rs", "tf", "yaml", "py", "sh", "sql", "toml", "tftpl"]
                .iter()
                .any(|suffix| path.extension().is_some_and(|it| it == *suffix));
            // Entries about the past may name files that are gone.
            if !is_text || name == "CHANGELOG.md" {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let is_part = |letter: char| letter.is_ascii_alphanumeric() || "/_.-".contains(letter);
            for word in text.split(|letter: char| !is_part(letter)) {
                let word = word.trim_end_matches(['.', '/', '-']);
                let is_file = word.rsplit('/').next().is_some_and(|last| last.contains('.'));
                if !is_file || !ROOTS.iter().any(|root| word.starts_with(root)) {
                    continue;
                }
                named += 1;
                if !root.join(word).exists() {
                    missing.push(format!("{}: {word}", path.strip_prefix(root).unwrap().display()));
                }
            }
        }
    }
    assert!(named > 100, "{named} paths");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
