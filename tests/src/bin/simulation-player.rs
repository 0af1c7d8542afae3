//! Plays one seed in a process whose hash keys are always the same, and writes what became of the run: see
//! `registry_tests::simulation::Player`.
#![expect(
    unsafe_code,
    reason = "std asks the function of the C library for its hash keys, and this stands in its place"
)]

use std::ffi::{c_uint, c_void};
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use registry_tests::simulation;

/// How many times randomness was asked for. It is the next byte too: whoever asks until he gets another value gets one.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// In place of the function of the C library, in this program alone: bytes that are the same in every process.
///
/// # Safety
/// As of that function: `length` bytes at `buffer` may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller lends these bytes.
    unsafe { buffer.cast::<u8>().write_bytes(asked.to_le_bytes()[0], length) };
    isize::try_from(length).unwrap_or(isize::MAX)
}

fn main() -> ExitCode {
    let Some(seed) = std::env::args().nth(1).and_then(|seed| seed.parse().ok()) else {
        eprintln!("usage: simulation-player SEED");
        return ExitCode::from(2);
    };
    let _ = RandomState::new().hash_one(seed);
    if ASKED.load(Ordering::Relaxed) == 0 {
        eprintln!("simulation-player: std has its hash keys from elsewhere than `getrandom`, and they are random");
        return ExitCode::FAILURE;
    }
    let written = serde_json::to_vec(&simulation::play(seed)).map_err(Into::into);
    match written.and_then(|run| std::io::stdout().write_all(&run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulation-player: {error}");
            ExitCode::FAILURE
        }
    }
}
