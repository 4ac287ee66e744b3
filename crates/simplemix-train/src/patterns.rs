//! Selection of parameters by patterns of their names.

use crate::error::{Error, Result};

/// Indices of the `names` that match any of `patterns`, in ascending order. `*` matches any text, including dots.
///
/// # Errors
/// [`Error::Pattern`] for a pattern that is invalid or matches nothing, since such a setting would have no effect.
pub(crate) fn matching(key: &'static str, patterns: &[String], names: &[&str]) -> Result<Vec<usize>> {
    let mut matched = vec![false; names.len()];
    for pattern in patterns {
        let refuse = |expected: String| Error::Pattern { key, pattern: pattern.clone(), problem: expected };
        let glob = glob::Pattern::new(pattern).map_err(|error| refuse(format!("is invalid: {error}")))?;
        let mut any = false;
        for (matched, name) in matched.iter_mut().zip(names) {
            if glob.matches(name) {
                (*matched, any) = (true, true);
            }
        }
        if !any {
            let some: Vec<&str> = names.iter().take(3).copied().collect();
            let more = if names.len() > 3 { ", ..." } else { "" };
            return Err(refuse(format!("matches none of {}{more}", some.join(", "))));
        }
    }
    Ok((0..names.len()).filter(|&at| matched[at]).collect())
}
