//! Suggestions for misspelled names.

/// The name that is nearest to `found`, if it is near at all.
///
/// ```
/// let names = ["learning_rate", "beta"];
/// assert_eq!(simplemix_settings::nearest("learning_rat", &names), Some("learning_rate"));
/// assert_eq!(simplemix_settings::nearest("warmth", &names), None);
/// ```
pub fn nearest<'a>(found: &str, names: &[&'a str]) -> Option<&'a str> {
    nearest_within(found, names, 1 + found.len() / 4)
}

/// The name that is nearest to `found`, if at most `most` slips lie between.
///
/// ```
/// let names = ["dataset_name", "beta"];
/// assert_eq!(simplemix_settings::nearest_within("dataset_nmae", &names, 2), Some("dataset_name"));
/// assert_eq!(simplemix_settings::nearest_within("dataset_mixer", &names, 2), None);
/// ```
pub fn nearest_within<'a>(found: &str, names: &[&'a str], most: usize) -> Option<&'a str> {
    let distance = |name: &&str| strsim::damerau_levenshtein(found, name);
    let best = names.iter().copied().min_by_key(|name| distance(name))?;
    (distance(&best) <= most).then_some(best)
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
