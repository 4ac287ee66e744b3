//! Names of parameters by pattern.

use crate::error::{Error, Result};

/// Places of the `names` that any of `patterns` matches, in order. `*` stands for anything, dots included.
///
/// # Errors
/// [`Error::Pattern`] for a pattern that is none or matches nothing: it would be a setting without effect.
pub(crate) fn matching(key: &'static str, patterns: &[String], names: &[&str]) -> Result<Vec<usize>> {
    let mut matched = vec![false; names.len()];
    for pattern in patterns {
        let refuse = |expected: String| Error::Pattern { key, pattern: pattern.clone(), problem: expected };
        let glob = glob::Pattern::new(pattern).map_err(|error| refuse(format!("is none: {error}")))?;
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
