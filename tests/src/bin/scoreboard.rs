//! Renders a directory of runs as a page: `scoreboard DIRECTORY PAGE`.

use std::path::Path;
use std::{env, fs, process::ExitCode};

use registry_tests::scoreboard;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [directory, page] = arguments.as_slice() else {
        eprintln!("usage: scoreboard DIRECTORY PAGE");
        return ExitCode::from(2);
    };
    let rendered = scoreboard::read(Path::new(directory)).and_then(|runs| fs::write(page, scoreboard::render(&runs)));
    match rendered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scoreboard: {error}");
            ExitCode::FAILURE
        }
    }
}
