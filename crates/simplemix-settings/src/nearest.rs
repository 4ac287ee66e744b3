//! Suggestions for misspelled names.

/// The name that is nearest to `found`, if it is near at all.
///
/// ```
/// let names = ["learning_rate", "beta"];
/// assert_eq!(simplemix_settings::nearest("learning_rat", &names), Some("learning_rate"));
/// assert_eq!(simplemix_settings::nearest("warmth", &names), None);
/// ```
pub fn nearest<'a>(found: &str, names: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &&str| strsim::damerau_levenshtein(found, name);
    let best = names.iter().copied().min_by_key(|name| distance(name))?;
    (distance(&best) <= 1 + found.len() / 4).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let names = ["learning_rate", "beta", "batch_size"];
        assert_eq!(nearest("batchsize", &names), Some("batch_size"));
        assert_eq!(nearest("bta", &names), Some("beta"));
        assert_eq!(nearest("warmth", &names), None);
    }
}
