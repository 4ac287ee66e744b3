//! Plain text from LaTeX and Markdown, and a normal form of words.

/// LaTeX commands whose braces contain plain text.
const TEXTS: [&str; 6] = ["\\text{", "\\textbf{", "\\mathrm{", "\\mathbf{", "\\mbox{", "\\textit{"];

/// Makes a text plain: LaTeX fractions as `a/b`, no spacing and text commands, typographic signs as ASCII. `\boxed` and
/// unknown commands stay.
pub(super) fn plain(text: &str) -> String {
    let mut text: String = text.chars().map(ascii).collect();
    for (from, to) in [
        ("\\dfrac", "\\frac"),
        ("\\tfrac", "\\frac"),
        ("\\left", ""),
        ("\\right", ""),
        ("\\%", "%"),
        ("\\$", "$"),
        ("{,}", ","),
        ("\\!", ""),
        ("\\,", " "),
        ("\\;", " "),
        ("\\:", " "),
        ("\\ ", " "),
        ("\\times", "×"),
        ("\\cdot", "·"),
        ("^{\\circ}", "°"),
        ("^\\circ", "°"),
        ("**", ""),
        ("`", ""),
    ] {
        if text.contains(from) {
            text = text.replace(from, to);
        }
    }
    for command in TEXTS {
        while let Some(at) = text.find(command) {
            let inner = at + command.len();
            let end = text[inner..].find('}').map_or(text.len(), |end| inner + end);
            // An unclosed brace ends with the text.
            let rest = text.get(end + 1..).unwrap_or("").to_owned();
            text = format!("{}{}{rest}", &text[..at], &text[inner..end]);
        }
    }
    fractions(&vulgar(&text))
}

/// ASCII form of typographic minus signs, spaces and digits.
fn ascii(c: char) -> char {
    match c {
        '\u{2212}' | '\u{2013}' => '-',
        '\u{a0}' | '\u{202f}' => ' ',
        '\u{ff10}'..='\u{ff19}' => char::from(b'0' + (u32::from(c) - 0xff10) as u8),
        _ => c,
    }
}

/// Writes fraction characters as text: `½` as `1/2`, with a space after a digit.
fn vulgar(text: &str) -> String {
    const SIGNS: [(char, &str); 9] = [
        ('½', "1/2"),
        ('⅓', "1/3"),
        ('⅔', "2/3"),
        ('¼', "1/4"),
        ('¾', "3/4"),
        ('⅕', "1/5"),
        ('⅛', "1/8"),
        ('⅜', "3/8"),
        ('⅚', "5/6"),
    ];
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match SIGNS.iter().find(|(sign, _)| *sign == c) {
            Some((_, fraction)) => {
                if plain.ends_with(|c: char| c.is_ascii_digit()) {
                    plain.push(' ');
                }
                plain.push_str(fraction);
            }
            None => plain.push(c),
        }
    }
    plain
}

/// Writes `\frac{a}{b}` and `\frac12` as `a/b`.
fn fractions(text: &str) -> String {
    let mut text = text.to_owned();
    // The last fraction contains no other.
    while let Some(at) = text.rfind("\\frac") {
        let rest = &text[at + "\\frac".len()..];
        let Some((above, rest)) = argument(rest) else { return text.replace("\\frac", "frac") };
        let Some((below, rest)) = argument(rest) else { return text.replace("\\frac", "frac") };
        let mixed = text[..at].ends_with(|c: char| c.is_ascii_digit());
        // A minus sign of the numerator belongs to the whole fraction.
        let (sign, above) = above.strip_prefix('-').map_or(("", above), |above| ("-", above));
        text = format!("{}{}{sign}{above}/{below}{rest}", &text[..at], if mixed { " " } else { "" });
    }
    text
}

/// Argument of a command, `{a}` or a single character, and the rest of the text.
fn argument(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(' ');
    if let Some(inner) = text.strip_prefix('{') {
        return inner.split_once('}');
    }
    let end = text.chars().next().filter(|c| c.is_alphanumeric())?.len_utf8();
    Some(text.split_at(end))
}

/// Letter from A to J if it is the whole text, apart from parentheses and points: the right answer to a choice.
pub(super) fn only_letter(text: &str) -> Option<char> {
    let mut letters = text.trim().chars().filter(|c| !matches!(c, '(' | ')' | '.' | ':' | '$' | '*'));
    let letter = letters.next()?.to_ascii_uppercase();
    (letters.next().is_none() && ('A'..='J').contains(&letter)).then_some(letter)
}

/// First letter from A to J that is a word, as a capital. A lower-case letter counts only in parentheses or as the whole
/// text.
pub(super) fn capital_alone(text: &str) -> Option<char> {
    if let Some(letter) = only_letter(text) {
        return Some(letter);
    }
    let chars: Vec<char> = text.chars().collect();
    let neighbour = |at: Option<usize>| at.and_then(|at| chars.get(at)).copied();
    let alone = |&(at, c): &(usize, &char)| {
        let (before, after) = (neighbour(at.checked_sub(1)), neighbour(Some(at + 1)));
        let word =
            !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(|c| c.is_alphanumeric() || c == '\'');
        word && (('A'..='J').contains(c) || ('a'..='j').contains(c) && (before, after) == (Some('('), Some(')')))
    };
    chars.iter().enumerate().find(alone).map(|(_, c)| c.to_ascii_uppercase())
}

/// Whether the words around a number are only a unit or a name, as in `$5`, `5 apples`, `x = 5`.
pub(super) fn is_unit(before: &str, after: &str) -> bool {
    let before = before.trim().trim_end_matches('=').trim();
    let before = before.trim_start_matches(['$', '(']).trim_end_matches(['$', '(']);
    let after = after.trim().trim_matches(['$', ')', '.', '°']);
    let words = |text: &str| text.chars().all(|c| c.is_alphabetic() || c == ' ' || c == '^' || c == '/' || c == '-');
    before.chars().count() <= 12 && before.chars().all(|c| c.is_alphabetic() || c == ' ') && words(after)
}

/// Normal form of words: lower case, without articles, extra white space, braces, and punctuation at the ends.
pub(super) fn normal(text: &str) -> String {
    let lower = text.to_lowercase().replace('$', " ").replace("\\boxed", "");
    let words = lower.split_whitespace().filter(|word| !["the", "a", "an"].contains(word));
    let joined = words.collect::<Vec<_>>().join(" ");
    let mut compact = String::with_capacity(joined.len());
    let chars: Vec<char> = joined.chars().filter(|c| !matches!(c, '{' | '}' | '"')).collect();
    for (at, &c) in chars.iter().enumerate() {
        // Only spaces between words stay.
        let inner = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(|c| c.is_alphanumeric());
        if c != ' ' || inner(at.checked_sub(1)) && inner(Some(at + 1)) {
            compact.push(c);
        }
    }
    compact.trim_matches(|c: char| matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | '*' | '\'')).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latex_becomes_plain() {
        for (text, expected) in [
            ("\\dfrac{1}{2}", "1/2"),
            ("\\frac12", "1/2"),
            ("2\\frac{3}{4}", "2 3/4"),
            ("\\frac{\\frac{1}{2}}{3}", "1/2/3"),
            ("\\text{about} 5\\%", "about 5%"),
            ("\\text{open", "open"),
            ("\\frac", "frac"),
            ("\\frac{1", "frac{1"),
            ("90^\\circ", "90°"),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
    }

    #[test]
    fn letters_stand_alone() {
        assert_eq!(capital_alone(" (C) because A"), Some('C'));
        assert_eq!(capital_alone("option b"), None);
        assert_eq!(capital_alone("Because"), None);
        assert_eq!(only_letter("(k)"), None);
    }

    #[test]
    fn units_are_not_part_of_a_number() {
        assert!(is_unit("x = ", ""));
        assert!(is_unit("$", " dollars"));
        assert!(!is_unit("", ", 4)"));
        assert!(!is_unit("", "x + 1"));
    }
}
