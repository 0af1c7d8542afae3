//! The scoreboard: what the long and random runs did, and what they found.
//!
//! A run writes one small JSON file into the directory that `PROCTOR_SCOREBOARD` names, in the place of that of an
//! earlier run of the same name; without the variable it writes nothing. `cargo run -p registry-tests --bin scoreboard`
//! renders a directory of them as a page of the documentation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Names the directory that runs write to.
pub const DIRECTORY_VARIABLE: &str = "PROCTOR_SCOREBOARD";

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// Short name, unique among the runs: it is the name of the file.
    pub name: String,
    /// What was done, in one sentence.
    pub what: String,
    /// How often it was done.
    pub ran: u64,
    /// What is counted: rounds, seeds, cut points.
    pub unit: String,
    /// The seed that repeats the run, where it is random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How often a promise was broken.
    pub violations: u64,
    /// What was measured or counted beside it, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measured: BTreeMap<String, String>,
    /// Why it, or a part of it, could not be done on that machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_run: Option<String>,
}

/// A run and the day on which it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatedRun {
    /// The day, in UTC.
    pub on: Date,
    /// The run.
    #[serde(flatten)]
    pub run: RunRecord,
}

/// Writes the run where the environment asks for it.
///
/// # Panics
/// When it cannot be written: a run that nobody can read about was made for nothing.
pub fn record(run: &RunRecord) {
    if let Some(directory) = env::var_os(DIRECTORY_VARIABLE) {
        let today = jiff::Timestamp::now().to_zoned(TimeZone::UTC).date();
        let dated = DatedRun { on: today, run: run.clone() };
        write(&in_workspace(Path::new(&directory)), &dated).expect("the scoreboard can be written");
    }
}

/// Tests run in the directory of their package, and who names a relative directory means that of the workspace.
fn in_workspace(directory: &Path) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(directory)
}

fn write(directory: &Path, run: &DatedRun) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut text = serde_json::to_string_pretty(run)?;
    text.push('\n');
    fs::write(directory.join(format!("{}.json", run.run.name)), text)
}

/// All runs of a directory, by name.
///
/// # Errors
/// When it cannot be read, or a file is no run.
pub fn read(directory: &Path) -> io::Result<Vec<DatedRun>> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let parse = |path: PathBuf| {
        let text = fs::read_to_string(&path)?;
        serde_json::from_str(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
    };
    files.into_iter().map(parse).collect()
}

/// The page of the documentation that shows them.
#[must_use]
pub fn render(runs: &[DatedRun]) -> String {
    let mut page = String::from(
        "# Scoreboard\n\n\
         What the long and random runs did when they were last made by hand, and what they found. Each line is written by the\n\
         run itself. The gate makes the short version of every one of them, with a new seed each time.\n\n\
         | run | on | how often | violations | seed | measured |\n|---|---|---|---|---|---|\n",
    );
    for DatedRun { on, run } in runs {
        let measured: Vec<String> = run.measured.iter().map(|(what, value)| format!("{what}: {value}")).collect();
        let seed = run.seed.map_or_else(|| "–".to_owned(), |seed| seed.to_string());
        let RunRecord { name, what, ran, unit, violations, .. } = run;
        // Writing into a string does not fail.
        let _ = writeln!(
            page,
            "| **{name}**: {what} | {on} | {ran} {unit} | {violations} | {seed} | {} |",
            measured.join("; ")
        );
    }
    let left: Vec<_> = runs.iter().filter_map(|dated| Some((&dated.run.name, dated.run.not_run.as_ref()?))).collect();
    if !left.is_empty() {
        page.push_str("\nWhat could not be run on the machine that made these runs:\n\n");
        for (name, reason) in left {
            let _ = writeln!(page, "- **{name}**: {reason}");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> DatedRun {
        let measured = BTreeMap::from([("median time to serve".to_owned(), "3 ms".to_owned())]);
        let run = RunRecord {
            name: "kill".to_owned(),
            what: "a host is killed".to_owned(),
            ran: 20,
            unit: "rounds".to_owned(),
            seed: Some(7),
            violations: 1,
            measured,
            not_run: Some("no loop devices".to_owned()),
        };
        DatedRun { on: Date::constant(2026, 1, 2), run }
    }

    #[test]
    fn a_run_reads_back_as_it_was_written_and_takes_the_place_of_the_one_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut second = run();
        second.run.violations = 0;
        write(directory.path(), &run()).expect("written");
        write(directory.path(), &second).expect("written again");
        assert_eq!(read(directory.path()).expect("readable"), [second]);
    }

    #[test]
    fn the_page_shows_what_was_found_and_what_was_not_run() {
        let page = render(&[run()]);
        assert!(
            page.contains(
                "| **kill**: a host is killed | 2026-01-02 | 20 rounds | 1 | 7 | median time to serve: 3 ms |"
            ),
            "{page}"
        );
        assert!(page.ends_with("- **kill**: no loop devices\n"), "{page}");
    }

    /// Whoever makes a long run renders the page again.
    #[test]
    fn the_page_in_the_documentation_is_that_of_the_runs_beside_it() {
        let docs = in_workspace(Path::new("docs"));
        let page = fs::read_to_string(docs.join("scoreboard.md")).expect("the page is there");
        assert_eq!(page, render(&read(&docs.join("scoreboard")).expect("the runs are there")));
    }
}
