//! What was meant by a word that nobody knows.

/// How alike two words have to be, from 0 to 1.
const LIKENESS: f64 = 0.8;

/// How many words are suggested.
const SUGGESTIONS: usize = 3;

/// The known words that are most like the typed one, the most alike first.
fn closest<'known>(typed: &str, known: impl Iterator<Item = &'known str>) -> Vec<&'known str> {
    let mut alike: Vec<(f64, &str)> = known
        .map(|word| {
            // Who types a beginning, or the last characters of an id, means this one.
            let is_part = typed.chars().count() >= 3 && (word.starts_with(typed) || word.ends_with(typed));
            (if is_part { 1.0 } else { strsim::jaro_winkler(typed, word) }, word)
        })
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .collect();
    alike.sort_by(|(one, first), (other, second)| other.total_cmp(one).then(first.cmp(second)));
    alike.dedup();
    alike.into_iter().take(SUGGESTIONS).map(|(_, word)| word).collect()
}

/// The suggestion as the end of a sentence; nothing where nothing is alike.
pub(crate) fn among<'known>(typed: &str, known: impl Iterator<Item = &'known str>) -> String {
    let words: Vec<String> = closest(typed, known).into_iter().map(|word| format!("`{word}`")).collect();
    match words.as_slice() {
        [] => String::new(),
        words => format!("; did you mean {}?", words.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_and_a_part_are_recognised() {
        let known = ["backup-20260101-101010-x7k2", "deploy", "deploy-2", "report"];
        assert_eq!(closest("depoly", known.into_iter()), ["deploy", "deploy-2"]);
        assert_eq!(closest("x7k2", known.into_iter()), [known[0]]);
        assert_eq!(closest("rep", known.into_iter()), ["report"]);
        assert_eq!(closest("zzz", known.into_iter()), [""; 0]);
    }

    #[test]
    fn few_are_suggested() {
        let known = ["job-1", "job-2", "job-3", "job-4"];
        assert_eq!(among("job", known.into_iter()), "; did you mean `job-1` or `job-2` or `job-3`?");
        assert_eq!(among("zzz", known.into_iter()), "");
    }
}
