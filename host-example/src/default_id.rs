//! The id of a process for which none was chosen: readable, sortable, and never used twice.
//!
//! It owns the form of such ids. It knows neither a clock nor a source of randomness: both are arguments.

use std::path::Path;

use jiff::Timestamp;

/// Digits that are not mistaken for one another when read aloud.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The digits at the end, of five bits each: room for 64 bits, for ids that are equal are taken for one and the same process.
const RANDOM_DIGITS: usize = 13;

/// The characters of a program's name that are kept.
const NAME_CHARACTERS: usize = 40;

/// The id for a run of `program` at `now`, such as `echo-20261124-073501-x7k2m9qwt04ae`.
pub(crate) fn default_id(program: &str, now: Timestamp, random: u64) -> String {
    let file_name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name: String = file_name
        .chars()
        .map(|character| if character.is_alphanumeric() || "._+".contains(character) { character } else { '-' })
        .take(NAME_CHARACTERS)
        .collect();
    let name = if name.is_empty() { "command" } else { &name };
    let suffix: String =
        (0..RANDOM_DIGITS).map(|digit| char::from(DIGITS[((random >> (5 * digit)) & 0x1f) as usize])).collect();
    format!("{name}-{}-{suffix}", now.strftime("%Y%m%d-%H%M%S"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id(program: &str, random: u64) -> String {
        default_id(program, Timestamp::from_second(1_795_505_701).expect("in range"), random)
    }

    #[test]
    fn an_id_names_program_and_time() {
        assert_eq!(id("/bin/echo", 0), "echo-20261124-073501-0000000000000");
        assert_eq!(id("my tool", 0x000f_ffff), "my-tool-20261124-073501-zzzz000000000");
    }

    #[test]
    fn each_of_the_64_bits_makes_another_id() {
        let ids: BTreeSet<String> = (0..64).map(|bit| id("echo", 1 << bit)).chain([id("echo", 0)]).collect();
        assert_eq!(ids.len(), 65);
    }

    #[test]
    fn a_program_without_a_name_has_an_id_nevertheless() {
        assert_eq!(id("/", 1), "command-20261124-073501-1000000000000");
    }
}
