//! Modules by name, matched as peft matches them with Python's `re`.

use fancy_regex::{Regex, RegexBuilder};

/// Most steps of a match with a name; ordinary patterns take some hundred.
const MOST_STEPS: usize = 20_000;

/// Modules of a model, by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleNames {
    /// Those of these names: the last part, as in `q_proj`, or more of it, as in `3.self_attn.q_proj`.
    Named(Vec<String>),
    /// Those whose whole name this regular expression of Python matches.
    Pattern(String),
}

/// Matches whole names of modules.
#[derive(Debug)]
pub(super) enum Matcher {
    Names(Vec<String>),
    Pattern(Regex),
}

impl ModuleNames {
    /// Whether no module is meant.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Named(names) if names.is_empty())
    }

    /// # Errors
    /// The reason why a pattern cannot be followed.
    pub(super) fn matcher(&self) -> Result<Matcher, String> {
        match self {
            Self::Named(names) => Ok(Matcher::Names(names.clone())),
            Self::Pattern(pattern) => Ok(Matcher::Pattern(whole(pattern, |pattern| pattern.to_owned())?)),
        }
    }
}

impl Matcher {
    /// As [`problem_on`].
    pub(super) fn problem_on<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<String> {
        match self {
            Self::Names(_) => None,
            Self::Pattern(regex) => problem_on(regex, names),
        }
    }

    pub(super) fn is_match(&self, module: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| is_named(module, name)),
            Self::Pattern(regex) => matches(regex, module),
        }
    }
}

/// Whether a module has this name, or its last parts are.
pub(super) fn is_named(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Why a pattern is refused on one of the names that it is for: matching takes too many steps.
pub(super) fn problem_on<'a>(regex: &Regex, mut names: impl Iterator<Item = &'a str>) -> Option<String> {
    names.find_map(|name| regex.is_match(name).err().map(|error| format!("`{name}`: {error}")))
}

/// Whether a pattern that [`whole`] made matches; [`problem_on`] tells of one that takes too many steps.
pub(super) fn matches(regex: &Regex, text: &str) -> bool {
    regex.is_match(text).unwrap_or(false)
}

/// peft's `get_pattern_key`: the expression matches the end of a name from a dot on, or all of it.
pub(super) fn ending(pattern: &str) -> Result<Regex, String> {
    whole(pattern, |pattern| format!(r"(?:.*\.)?(?:{pattern})"))
}

/// The expression matches some parts of a name, as peft keeps adapters out of modules that are saved whole.
pub(super) fn within(pattern: &str) -> Result<Regex, String> {
    whole(pattern, |pattern| format!(r"(?:.*\.)?(?:{pattern})(?:\..*)?"))
}

/// The number of the layer in a name, whose list of layers matches `list`, or any list. peft takes the first.
pub(super) fn layer_index(list: Option<&str>) -> Result<Regex, String> {
    let expression = |list: &str| format!(r"\A(?:.*?\.)?{list}\.(\d+)\.");
    match list {
        Some(list) => {
            check(list)?;
            compiled(&expression(list))
        }
        None => compiled(r"\A.*?\.[^.]*\.(\d+)\."),
    }
}

/// The expression that `around` makes of a pattern, as one for whole names.
fn whole(pattern: &str, around: impl Fn(&str) -> String) -> Result<Regex, String> {
    check(pattern)?;
    compiled(&format!(r"\A(?:{})\z", around(pattern)))
}

/// Refuses what is another expression in Python, or none.
fn check(pattern: &str) -> Result<(), String> {
    if has_set_operation(pattern) {
        return Err("`[`, `&&`, `--` or `~~` inside of a class, which Python reads as plain characters".to_owned());
    }
    compiled(pattern).map(drop)
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).backtrack_limit(MOST_STEPS).build().map_err(|error| error.to_string())
}

/// Whether a class of characters holds what is an operation on sets in Rust's syntax.
fn has_set_operation(pattern: &str) -> bool {
    let mut rest = pattern.chars().peekable();
    while let Some(found) = rest.next() {
        match found {
            '\\' => drop(rest.next()),
            '[' => {
                rest.next_if_eq(&'^');
                rest.next_if_eq(&']');
                loop {
                    match rest.next() {
                        None | Some(']') => break,
                        Some('\\') => drop(rest.next()),
                        Some('[') => return true,
                        Some(sign @ ('&' | '-' | '~')) if rest.peek() == Some(&sign) => return true,
                        Some(_) => {}
                    }
                }
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: &str = "model.layers.11.self_attn.q_proj";

    /// `re.fullmatch` of Python 3.11.
    #[test]
    fn patterns_match_whole_names() {
        for (pattern, expected) in [
            (r".*q_proj", true),
            (r"q_proj", false),
            (r".*(self_attn|mlp).*(q_proj|k_proj)$", true),
            (r"model\.layers\.1[0-9]\..*", true),
            (r"model\.layers\.(?!11)\d+\..*_proj", false),
            (
                r"(?:.*?(?:language|text).*?(?:q_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|up_proj)))",
                true,
            ),
            (r"model.*q", false),
            (r"^model.*\Z", true),
            (r".*(?<=self_attn\.)[qv]_proj", true),
        ] {
            let matcher = ModuleNames::Pattern(pattern.to_owned()).matcher().unwrap();
            assert_eq!(matcher.is_match(Q), expected, "{pattern}");
        }
        for pattern in ["(", "a)|(b", "[a[b]]", "[a&&b]", "[+--]"] {
            assert!(ModuleNames::Pattern(pattern.to_owned()).matcher().is_err(), "{pattern}");
        }
        assert!(ModuleNames::Pattern(r"[]\[a-z]+[.&]".to_owned()).matcher().is_ok());
    }

    /// peft 0.21, `get_pattern_key` and `check_target_module_exists`.
    #[test]
    fn ends_parts_and_layers_of_names() {
        for (pattern, expected) in [
            ("q_proj", true),
            ("proj", false),
            (r"11\.self_attn\.q_proj", true),
            (r"\d\.self_attn\.q_proj", false),
            (".*", true),
        ] {
            assert_eq!(matches(&ending(pattern).unwrap(), Q), expected, "{pattern}");
        }
        for (pattern, expected) in [("self_attn", true), ("attn", false), ("q_proj", true), ("model", true)] {
            assert_eq!(matches(&within(pattern).unwrap(), Q), expected, "{pattern}");
        }
        let index = |list: Option<&str>, name: &str| {
            let found = layer_index(list).unwrap().captures(name).unwrap()?;
            Some(found.get(1).unwrap().as_str().to_owned())
        };
        assert_eq!(index(None, Q), Some("11".to_owned()));
        assert_eq!(index(Some("layers"), Q), Some("11".to_owned()));
        assert_eq!(index(Some("h"), Q), None);
        assert_eq!(index(None, "lm_head"), None);
        assert_eq!(index(Some("layers"), "layers.3.mlp.up_proj"), Some("3".to_owned()));
    }
}
