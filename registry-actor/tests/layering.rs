//! What the pure rooms may not name. Features keep whole crates out of them; this test keeps out what comes with the
//! standard library, or would come with a feature that is on by default.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that mean a clock, a thread, the operating system, randomness, a runtime or a log line.
const FORBIDDEN_EVERYWHERE: [&str; 20] = [
    "Instant",
    "SystemTime",
    "std::thread",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::io",
    "RandomState",
    "tokio",
    "ractor",
    "rusqlite",
    "rustix",
    "getrandom",
    "rand",
    "dashmap",
    "tracing",
    "println!",
    "eprintln!",
    "dbg!",
];

/// Rooms that stand above the domain.
const FORBIDDEN_IN_DOMAIN: [&str; 5] = ["crate::port", "crate::log", "crate::actor", "crate::worker", "crate::remote"];

/// Rooms that stand above the ports.
const FORBIDDEN_IN_PORT: [&str; 4] = ["crate::log", "crate::actor", "crate::worker", "crate::remote"];

/// The groups of a `use` tree hide paths from a search for whole paths: `use std::{fs, time::Instant}`. No source of
/// the pure rooms may group at the root of `std` or of the crate, so that a path is always spelt out.
const FORBIDDEN_GROUPS: [&str; 4] = ["std::{", "crate::{", "std::time::{", "super::super::super"];

/// A word of the code and where it stands.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    line: usize,
    word: String,
}

/// The forbidden words that the code names. Comments do not count, documentation included.
fn violations(source: &str, forbidden: &[&str]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, line) in source.lines().enumerate() {
        let code = code_of(line);
        for word in forbidden {
            if names(&code, word) {
                found.push(Violation { line: number + 1, word: (*word).to_owned() });
            }
        }
    }
    found
}

/// The line without its comment, and without the blanks that may stand inside a path.
fn code_of(line: &str) -> String {
    let code = line.split_once("//").map_or(line, |(code, _)| code);
    code.replace(" :: ", "::")
}

/// Whether the word stands in the code as a whole word.
fn names(code: &str, word: &str) -> bool {
    let is_part = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let word_begins_whole = !is_part(word.chars().next()) || !is_part(before);
        let word_ends_whole = !is_part(word.chars().next_back()) || !is_part(after);
        word_begins_whole && word_ends_whole
    })
}

/// Sources of a room: the file of its name and every file below the directory of its name.
fn sources(room: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = vec![root.join(format!("{room}.rs"))];
    let mut directories = vec![root.join(room)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("the directory of a room can be read") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn check(room: &str, forbidden_rooms: &[&str]) {
    let files = sources(room);
    assert!(files.len() > 3, "the room {room} was found: {files:?}");
    let forbidden = [&FORBIDDEN_EVERYWHERE[..], forbidden_rooms, &FORBIDDEN_GROUPS].concat();
    let mut report = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).expect("a source can be read");
        for Violation { line, word } in violations(&source, &forbidden) {
            report.push(format!("{}:{line}: {word}", file.display()));
        }
    }
    assert!(report.is_empty(), "the pure room {room} names what it must not know:\n{}", report.join("\n"));
}

#[test]
fn the_domain_knows_no_clock_no_system_no_runtime_and_no_other_room() {
    check("domain", &FORBIDDEN_IN_DOMAIN);
}

#[test]
fn the_ports_know_no_clock_no_system_no_runtime_and_no_implementation() {
    check("port", &FORBIDDEN_IN_PORT);
}

#[test]
fn a_violation_is_detected_wherever_code_names_it() {
    let all = [&FORBIDDEN_EVERYWHERE[..], &FORBIDDEN_IN_DOMAIN, &FORBIDDEN_GROUPS].concat();
    let detected = [
        ("let now = Instant::now();", "Instant"),
        ("use std::time::SystemTime;", "SystemTime"),
        ("use std::time::{Duration, Instant};", "std::time::{"),
        ("use std::{fs, sync::Arc};", "std::{"),
        ("    std :: thread::spawn(work);", "std::thread"),
        ("std::fs::read(path)", "std::fs"),
        ("use tokio::sync::mpsc;", "tokio"),
        ("use ractor::Actor;", "ractor"),
        ("tracing::warn!(\"late\");", "tracing"),
        ("println!(\"{x}\"); // why", "println!"),
        ("let x = rand::random();", "rand"),
        ("use crate::port::Clock;", "crate::port"),
        ("use crate::log::memory;", "crate::log"),
        ("use crate::actor;", "crate::actor"),
        ("HashMap::<u8, u8, RandomState>::default()", "RandomState"),
    ];
    for (code, word) in detected {
        let source = format!("//! A room.\n\n{code}\n");
        let found = violations(&source, &all);
        assert!(found.contains(&Violation { line: 3, word: word.to_owned() }), "{code}: {found:?}");
    }
}

#[test]
fn comments_and_longer_words_are_no_violation() {
    let innocent = [
        "//! It does not know that tokio, ractor or std::thread exist.",
        "/// As `Instant::now` would.",
        "let operand = 1; // not rand",
        "let brand = operand;",
        "use super::instant_of_the_epoch;",
        "use crate::domain::ProcessEvent;",
        "use crate::logical;",
        "struct Instantly;",
    ];
    for code in innocent {
        let found = violations(code, &[&FORBIDDEN_EVERYWHERE[..], &FORBIDDEN_IN_DOMAIN].concat());
        assert_eq!(found, Vec::new(), "{code}");
    }
}
