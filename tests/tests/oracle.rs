//! The registry against an independent model of it: random histories, step by step, with everything that must not be
//! seen happening in between.
//!
//! `PROCTOR_MODEL_HISTORIES` says how many histories are played over the log in memory (a twentieth of it over SQLite),
//! `PROCTOR_MODEL_SEED` where they begin. A history that fails is made short and written to `tests/regressions`, from
//! where every later run plays it first.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use registry_tests::oracle::{Backend, Case, Difference, Played, history, play, read_case, shrink, write_case};

/// Steps of a history.
const STEPS: usize = 60;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn regressions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

fn play_on(case: &Case) -> Result<Played, Difference> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(case.backend == Backend::Memory);
    runtime.build().expect("a runtime").block_on(play(case))
}

/// Makes the case short, keeps it, and fails with its story.
fn fail(name: &str, case: Case) -> ! {
    let backend = case.backend;
    let steps = shrink(case.steps, |steps| play_on(&Case { backend, steps: steps.to_vec() }).is_err());
    let case = Case { backend, steps };
    let story = play_on(&case).map_or_else(|difference| difference.story, |_| "it does not fail every time".to_owned());
    let file = regressions().join(format!("{name}.txt"));
    std::fs::write(&file, write_case(&case, &story)).expect("the case can be written");
    panic!("{name} of {} steps over {backend:?}, kept in {}:\n{story}", case.steps.len(), file.display());
}

fn play_histories(backend: Backend, histories: u64) {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let first = env("PROCTOR_MODEL_SEED").unwrap_or_else(|| u64::try_from(nanos % 1_000_000_000).unwrap_or(0));
    println!("from seed {first}");
    let (begin, mut total) = (Instant::now(), Played::default());
    for seed in (0..histories).map(|number| first.wrapping_add(number)) {
        let case = Case { backend, steps: history(seed, STEPS) };
        match play_on(&case) {
            Ok(played) => {
                total.steps += played.steps;
                total.refused += played.refused;
            }
            Err(_) => fail(&format!("seed-{seed}"), case),
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let Played { steps, refused } = total;
    println!("{histories} histories, {steps} steps over {backend:?}, {refused} of them refused, in {seconds:.1} s");
}

#[test]
fn what_failed_once_fails_no_more() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(regressions())
        .map_or_else(|_| Vec::new(), |entries| entries.map(|entry| entry.expect("readable").path()).collect());
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    for file in files {
        let case = read_case(&std::fs::read_to_string(&file).expect("readable"));
        if let Err(difference) = play_on(&case) {
            panic!("{}:\n{}", file.display(), difference.story);
        }
    }
}

#[test]
fn the_registry_in_memory_answers_as_the_model_does() {
    play_histories(Backend::Memory, env("PROCTOR_MODEL_HISTORIES").unwrap_or(2_000));
}

#[test]
fn the_registry_over_sqlite_answers_as_the_model_does() {
    play_histories(Backend::Sqlite, env("PROCTOR_MODEL_HISTORIES").unwrap_or(2_000).div_ceil(20));
}
