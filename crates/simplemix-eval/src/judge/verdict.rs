//! Meaning of a judge's reply.

/// Computes the preference from a judge's token probabilities, `2 - p(m) / (p(m) + p(M))`: 1 for the first response
/// that the judge saw, 2 for the second.
///
/// `tokens` are the most likely tokens in place of the reply's first token, with their log-probabilities. A missing `m`
/// or `M` has probability 0; if both are missing, there is no preference.
///
/// # Examples
/// ```
/// use simplemix_eval::judge::preference;
/// let tokens = [("m".to_owned(), 0.25f64.ln()), ("M".to_owned(), 0.75f64.ln())];
/// assert!((preference(&tokens).unwrap() - 1.75).abs() < 1e-15);
/// assert_eq!((preference(&tokens[..1]), preference(&[])), (Some(1.0), None));
/// ```
pub fn preference(tokens: &[(String, f64)]) -> Option<f64> {
    let logp = |name: &str| tokens.iter().rev().find(|(token, _)| token == name).map(|(_, logp)| *logp);
    let (first, second) = (logp("m"), logp("M"));
    if first.is_none() && second.is_none() {
        return None;
    }
    let (first, second) = (first.unwrap_or(f64::NEG_INFINITY), second.unwrap_or(f64::NEG_INFINITY));
    let found = 2.0 - crate::logistic::sigmoid(first - second);
    found.is_finite().then_some(found)
}
