//! Meaning of a judge's reply.

/// Computes the preference from a judge's token probabilities, `2 - p(m) / (p(m) + p(M))`: 1 for the first response
/// that the judge saw, 2 for the second.
///
/// `tokens` are the most likely tokens in place of the verdict, with their log-probabilities. A missing `m` or `M` has
/// probability 0. If both are missing, tokens with spaces around the letter count, and without these there is no
/// preference.
///
/// # Examples
/// ```
/// use simplemix_eval::judge::preference;
/// let tokens = [("m".to_owned(), 0.25f64.ln()), ("M".to_owned(), 0.75f64.ln())];
/// assert!((preference(&tokens).unwrap() - 1.75).abs() < 1e-15);
/// assert_eq!((preference(&tokens[..1]), preference(&[])), (Some(1.0), None));
/// assert_eq!(preference(&[(" M".to_owned(), -0.1), ("The".to_owned(), -3.0)]), Some(2.0));
/// ```
pub fn preference(tokens: &[(String, f64)]) -> Option<f64> {
    let logps = |trim: bool| {
        let is = |token: &str, letter: &str| if trim { token.trim() == letter } else { token == letter };
        let logp = |letter| tokens.iter().rev().find(|(token, _)| is(token, letter)).map(|(_, logp)| *logp);
        Some((logp("m"), logp("M"))).filter(|found| *found != (None, None))
    };
    let (first, second) = logps(false).or_else(|| logps(true))?;
    let (first, second) = (first.unwrap_or(f64::NEG_INFINITY), second.unwrap_or(f64::NEG_INFINITY));
    let found = 2.0 - crate::logistic::sigmoid(first - second);
    found.is_finite().then_some(found)
}

/// Finds the letter, `m` or `M`, that is all of a judge's reply, after the text in which it thinks and without the marks
/// around it.
///
/// # Examples
/// ```
/// use simplemix_eval::judge::letter;
/// assert_eq!(letter("<think>\nm or M?\n</think>\n\n**M**\n"), Some("M"));
/// assert_eq!(letter("Model M is better."), None);
/// ```
pub fn letter(reply: &str) -> Option<&'static str> {
    let said = reply.rsplit("</think>").next().unwrap_or(reply);
    let said = said.trim_matches(|c: char| c.is_whitespace() || "*`\"'.()[]".contains(c));
    ["m", "M"].into_iter().find(|letter| *letter == said)
}
