//! Every refusal is answered by some test: the variants are read off the source, so that a new one is missed here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Refusals that no decision answers, and which test does.
const ANSWERED_ELSEWHERE: [(&str, &str); 4] = [
    ("HandleNotGranted", "a grant is a row of the log"),
    ("Cursor", "a cursor is checked by the log"),
    ("DecisionPanicked", "a panic is caught by the actor"),
    ("ForeignStoreSession", "whose claim comes through a socket, its server knows"),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory of tests can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The variants of [`Refusal`](registry_actor::domain::Refusal), as its source lists them.
fn variants() -> BTreeSet<&'static str> {
    let source = include_str!("../../src/domain/refusal.rs");
    let (_, body) = source.split_once("pub enum Refusal {").expect("the enum is there");
    let names = body.lines().filter_map(|line| {
        let line = line.strip_prefix("    ")?;
        let name = line.split(|character: char| !character.is_alphanumeric()).next()?;
        (name.starts_with(char::is_uppercase)).then_some(name)
    });
    names.collect()
}

fn named_in(directory: &str) -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut files);
    let mut named = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source can be read");
        for after in text.split("Refusal::").skip(1) {
            named.insert(after.chars().take_while(|character| character.is_alphanumeric()).collect());
        }
    }
    named
}

#[test]
fn every_refusal_is_answered_by_some_test() {
    let variants = variants();
    assert_eq!(variants.len(), 42, "a refusal was added or taken away: {variants:?}");
    let named = named_in("tests/decide");
    let elsewhere = ANSWERED_ELSEWHERE.map(|(name, _)| name);
    for variant in &variants {
        assert_ne!(named.contains(*variant), elsewhere.contains(variant), "{variant}");
    }
    for name in elsewhere {
        assert!(variants.contains(name), "{name}");
    }
}
