//! The fuzz targets on a stable compiler: the corpus and whatever the fuzzer ever found are replayed, and each target is run
//! over a few thousand mutations of its seeds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use registry_actor::fuzzing::{Target, all};

fn fuzz_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The files of a target, in the order of their names; none if there is no such directory.
fn inputs(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(fuzz_directory().join(kind).join(target)) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry can be read").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("an input can be read");
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

fn names(directory: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(fuzz_directory().join(directory)).expect("the directory is there");
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    entries.map(|entry| stem(entry.expect("an entry can be read").path())).collect()
}

#[test]
fn each_target_has_a_file_and_seeds() {
    let targets: BTreeSet<_> = all().iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
    assert!(names("regressions").is_subset(&targets));
    for target in all() {
        assert!(!inputs("corpus", target.name).is_empty(), "{} has no seed", target.name);
        let file = fuzz_directory().join("fuzz_targets").join(target.name).with_extension("rs");
        let source = std::fs::read_to_string(file).expect("the file of a target can be read");
        assert!(source.contains(&format!("\"{}\"", target.name)), "{} runs another target", target.name);
    }
}

#[test]
fn corpus_and_regressions_are_replayed() {
    let mut replayed = 0;
    for Target { name, run } in all() {
        for (path, bytes) in inputs("corpus", name).into_iter().chain(inputs("regressions", name)) {
            println!("{}", path.display());
            run(&bytes);
            replayed += 1;
        }
    }
    println!("{replayed} inputs replayed");
    assert!(replayed >= all().len());
}

/// A small generator whose numbers are those of its seed (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).expect("it fits");
        usize::try_from(self.next() % bound).expect("it fits")
    }
}

/// Words that readers of these inputs react to.
const WORDS: [&str; 24] = [
    "null",
    "true",
    "0",
    "-1",
    "18446744073709551615",
    "1e308",
    "\"\"",
    "[]",
    "{}",
    "\"\\u0000\"",
    "\"process.completed\"",
    "\"process:p:first_started\"",
    "{\"session_id\":\"s\"}",
    "{\"pointer\":\"/a\"}",
    "\"payload\"",
    "\"unfenced\"",
    "\"any\"",
    "[[[[[[[[",
    "]]]]]]]]",
    ",",
    ":",
    "\"await_output\"",
    ".",
    "v1.",
];

fn mutate(numbers: &mut Numbers, seeds: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = seeds[numbers.below(seeds.len())].1.clone();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let until = (at + numbers.below(16)).min(bytes.len());
        match numbers.below(6) {
            0 => drop(bytes.drain(at..until)),
            1 => drop(bytes.splice(at..until, WORDS[numbers.below(WORDS.len())].bytes())),
            2 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << numbers.below(8);
                }
            }
            3 => {
                let copied = bytes[at..until].to_vec();
                let to = numbers.below(bytes.len() + 1);
                drop(bytes.splice(to..to, copied));
            }
            4 => {
                let other = &seeds[numbers.below(seeds.len())].1;
                let from = numbers.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            // A number in the place of a number reads more often than any byte.
            _ => {
                for byte in bytes.iter_mut().skip(at).take_while(|byte| **byte != b',') {
                    if byte.is_ascii_digit() {
                        *byte = b'0' + u8::try_from(numbers.below(10)).expect("a digit");
                    }
                }
            }
        }
    }
    bytes
}

#[test]
fn no_mutation_of_a_seed_breaks_a_target() {
    const EXECUTIONS: u32 = 3_000;
    for (number, Target { name, run }) in (1_u64..).zip(all()) {
        let seeds = inputs("corpus", name);
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ number);
        for _ in 0..EXECUTIONS {
            let bytes = mutate(&mut numbers, &seeds);
            if let Err(panicked) = std::panic::catch_unwind(|| run(&bytes)) {
                eprintln!("{name} broke at {:?}", String::from_utf8_lossy(&bytes));
                std::panic::resume_unwind(panicked);
            }
        }
        println!("{name}: {EXECUTIONS} executions");
    }
}
