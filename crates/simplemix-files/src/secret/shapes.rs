//! Keys that the process does not know but that look like ones: tokens after `Bearer`, and tokens with a provider's prefix.

use super::HIDDEN;

/// Prefixes of keys, and the fewest characters after them.
const PREFIXES: [(&str, usize); 10] = [
    ("hf_", 16),
    ("sk-", 20),
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 30),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghs_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
];

/// Longest key that is looked at whole; the ends of words are searched once for each of their beginnings.
const MOST: usize = 4096;

/// Words before a key in a header, with a blank.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// `text` with what looks like a key masked; `None` if nothing does.
pub(super) fn masked(text: &str) -> Option<String> {
    let (mut changed, mut kept, mut at) = (String::new(), 0, 0);
    while at < text.len() {
        match key_at(text, at) {
            Some((start, end)) => {
                changed.push_str(&text[kept..start]);
                changed.push_str(HIDDEN);
                (kept, at) = (end, end);
            }
            None => at += text[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    (kept > 0).then(|| changed + &text[kept..])
}

/// Start and end of the key of a word that begins at `at`.
fn key_at(text: &str, at: usize) -> Option<(usize, usize)> {
    let is_inside = text[..at].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let rest = &text[at..];
    if is_inside || !rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let scheme = SCHEMES.iter().find(|scheme| starts_with_ignoring_case(rest, scheme));
    if let Some(scheme) = scheme {
        let start = at + scheme.len();
        let end = start + length(&text[start..], "-._~+/=");
        // `basic text` is no header.
        let is_key = text[start..end].len() >= 16 || text[start..end].bytes().any(|byte| byte.is_ascii_digit());
        return (is_key || (*scheme == "bearer " && end - start >= 8)).then_some((start, end));
    }
    let (prefix, least) = PREFIXES.iter().find(|(prefix, _)| rest.starts_with(prefix))?;
    let end = at + prefix.len() + length(&rest[prefix.len()..], if *prefix == "hf_" { "" } else { "-_" });
    let key = &text[at + prefix.len()..end];
    // Names of files and models have words, keys have digits or capitals.
    let is_key = key.bytes().any(|byte| byte.is_ascii_digit())
        && key.bytes().any(|byte| byte.is_ascii_uppercase() || !key.contains('-'));
    (key.len() >= *least && is_key).then_some((at, end))
}

fn starts_with_ignoring_case(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start))
}

/// Length of the letters, digits and characters of `others` at the start of `text`.
fn length(text: &str, others: &str) -> usize {
    let is_other = |byte: &u8| !byte.is_ascii_alphanumeric() && !others.as_bytes().contains(byte);
    let bytes = &text.as_bytes()[..text.len().min(MOST)];
    bytes.iter().position(is_other).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_words() {
        for (text, expected) in [
            ("Authorization: Bearer abcdefgh.ij", Some("Authorization: Bearer [key]")),
            ("\"basic dXNlcjpwYXNz\"", None),
            ("\"Basic dXNlcjpwYXNzd29yZA==\"", Some("\"Basic [key]\"")),
            ("a bearer of news, basic things", None),
            ("token hf_AbCdEfGhIjKlMnOpQrStUvWx01 is bad", Some("token [key] is bad")),
            ("runs/hf_preferences_of_2024/sk-learn-preferences-2024-large", None),
            ("AKIAIOSFODNN7EXAMPLE", Some("[key]")),
            ("my_hf_AbCdEfGhIjKlMnOpQrStUvWx01", None),
        ] {
            assert_eq!(masked(text).as_deref(), expected, "{text}");
        }
    }
}
