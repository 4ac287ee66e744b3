//! Reading of settings that serde describes, with all keys at fault named at once: serde itself stops at the first.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::error::{Error, Result};

/// Most keys that are named.
const MOST: usize = 32;

/// Reads a table; the error names every key that cannot be used.
///
/// A key is at fault if the reader says something else without it than that it is missing.
///
/// ```
/// #[derive(Debug, serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Mix {
///     size: u64,
/// }
/// let error = simplemix_settings::read::<Mix>("size = 'big'\nsice = 3".parse()?).unwrap_err().to_string();
/// assert!(error.contains("`size`: invalid type") && error.contains("`sice`: unknown field"), "{error}");
/// # Ok::<(), toml::de::Error>(())
/// ```
///
/// # Errors
/// [`Error::Key`] for a single key, [`Error::Several`] for more, [`Error::Table`] if no key is at fault, such as for a
/// missing one.
pub fn read<T: DeserializeOwned>(mut table: Table) -> Result<T> {
    let mut errors = Vec::new();
    loop {
        let problem = match problem::<T>(&table) {
            Ok(value) if errors.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(problem) => problem,
        };
        let missing = problem.starts_with("missing field");
        match fault::<T>(&table, &problem).filter(|_| !missing && errors.len() < MOST) {
            Some(Fault { named, removed }) => {
                remove(&mut table, &removed);
                errors.push(Error::Key { key: shown(&named), problem });
            }
            // Without a key that was at fault, one may be missing.
            None if missing && !errors.is_empty() => break,
            None => {
                errors.push(Error::Table(problem));
                break;
            }
        }
    }
    Err(Error::all(errors))
}

fn problem<T: DeserializeOwned>(table: &Table) -> std::result::Result<T, String> {
    Value::Table(table.clone()).try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

fn problem_text<T: DeserializeOwned>(table: &Table) -> Option<String> {
    problem::<T>(table).err()
}

/// Subject of a problem.
struct Fault {
    named: Vec<Part>,
    /// Part that goes so that the reader says something else: `named`, or a table around it that cannot do without it.
    removed: Vec<Part>,
}

/// Finds what the problem is about by removing each key in turn.
fn fault<T: DeserializeOwned>(table: &Table, problem: &str) -> Option<Fault> {
    let (mut removed, mut needed) = (None, Vec::new());
    for path in paths(table) {
        let mut without = table.clone();
        remove(&mut without, &path);
        match (problem_text::<T>(&without), path.last()) {
            (Some(said), _) if said == problem => {}
            // Any key that is needed is missed without it, whether or not it was at fault.
            (Some(said), Some(Part::Key(key))) if said == format!("missing field `{key}`") => needed.push(path),
            _ => {
                removed.get_or_insert(path);
            }
        }
    }
    needed.retain(|path| path.starts_with(removed.as_deref().unwrap_or_default()));
    let is_quoted = |path: &&Vec<Part>| value(table, path).is_some_and(|value| quotes(problem, value));
    let named = needed.iter().find(is_quoted).or_else(|| needed.first().filter(|_| needed.len() == 1));
    let named = named.or(removed.as_ref())?.clone();
    Some(Fault { removed: removed.unwrap_or_else(|| named.clone()), named })
}

/// Whether a message shows a value.
fn quotes(message: &str, value: &Value) -> bool {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    message.contains(&format!("`{text}`")) || message.contains(&format!("\"{text}\""))
}

/// A step of the way to a value.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Key(String),
    Index(usize),
}

/// Paths of all keys, and of all tables in lists; those within a table or a list before its own.
fn paths(table: &Table) -> Vec<Vec<Part>> {
    let mut all = Vec::new();
    for (key, value) in table {
        let mut inner: Vec<Vec<Part>> = match value {
            Value::Table(inner) => paths(inner),
            Value::Array(list) => list.iter().enumerate().flat_map(|(at, value)| of_element(at, value)).collect(),
            _ => Vec::new(),
        };
        inner.push(Vec::new());
        all.extend(inner.into_iter().map(|path| [vec![Part::Key(key.clone())], path].concat()));
    }
    all
}

fn of_element(at: usize, value: &Value) -> Vec<Vec<Part>> {
    let Some(table) = value.as_table() else { return Vec::new() };
    let mut inner = paths(table);
    inner.push(Vec::new());
    inner.into_iter().map(|path| [vec![Part::Index(at)], path].concat()).collect()
}

fn remove(table: &mut Table, path: &[Part]) {
    let (Some(Part::Key(key)), rest) = (path.first(), path.get(1..).unwrap_or_default()) else { return };
    match (rest, table.get_mut(key)) {
        ([], _) => drop(table.remove(key)),
        (rest, Some(Value::Table(inner))) => remove(inner, rest),
        ([Part::Index(at)], Some(Value::Array(list))) if *at < list.len() => drop(list.remove(*at)),
        ([Part::Index(at), rest @ ..], Some(Value::Array(list))) => {
            if let Some(Value::Table(inner)) = list.get_mut(*at) {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}

fn value<'a>(table: &'a Table, path: &[Part]) -> Option<&'a Value> {
    let (Part::Key(first), rest) = path.split_first()? else { return None };
    rest.iter().try_fold(table.get(first)?, |value, part| match part {
        Part::Key(key) => value.get(key),
        Part::Index(at) => value.get(*at),
    })
}

/// `scorer[1].kind`
fn shown(path: &[Part]) -> String {
    let mut text = String::new();
    for part in path {
        match part {
            Part::Key(key) if text.is_empty() => text.push_str(key),
            Part::Key(key) => text.push_str(&format!(".{key}")),
            Part::Index(at) => text.push_str(&format!("[{at}]")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Whole {
        size: u64,
        #[serde(default)]
        part: Part2,
        #[serde(default)]
        list: Vec<Part2>,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Part2 {
        seed: u64,
    }

    fn refused(text: &str) -> String {
        read::<Whole>(text.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn every_key_at_fault_is_named_with_its_path() {
        let text = "size = 1\nsead = 2\n[part]\nseed = 'x'\n[[list]]\nseed = 1\n[[list]]\nsize = 2\nseed = 3";
        let found = refused(text);
        let lines: Vec<&str> = found.split("; ").collect();
        assert_eq!(lines.len(), 3, "{found}");
        for (line, start) in
            lines.iter().zip(["`part.seed`: invalid type", "`list[1].size`: unknown", "`sead`: unknown"])
        {
            assert!(found.contains(start), "{start} in {found}: {line}");
        }
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code, reason = "the fields are only read into")]
    enum Scorer {
        Length { target: u64 },
        Share,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Step {
        scorer: Vec<Scorer>,
        limit: Option<u64>,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Steps {
        collect: Step,
        evaluate: Step,
    }

    #[test]
    fn a_needed_key_elsewhere_is_not_taken_for_the_fault() {
        for (set, expected) in [
            ("evaluate.foo = 1", "`evaluate.foo`: unknown field `foo`"),
            ("evaluate.limit = 'x'", "`evaluate.limit`: invalid type"),
            ("[evaluate.foo]\nbar = 1", "`evaluate.foo`: unknown field `foo`"),
            ("[[evaluate.scorer]]\nkind = 'x'", "`evaluate.scorer[0].kind`: unknown variant `x`"),
            (
                "[[evaluate.scorer]]\nkind = 'share'\n[[evaluate.scorer]]\nkind = 'x'",
                "`evaluate.scorer[1].kind`: unknown variant `x`",
            ),
            (
                "[[evaluate.scorer]]\nkind = 'length'\ntarget = 'x'",
                "`evaluate.scorer[0].target`: invalid type: string \"x\"",
            ),
        ] {
            let text = format!("collect.scorer = [{{ kind = 'share' }}]\n{set}");
            let found = read::<Steps>(text.parse().unwrap()).unwrap_err().to_string();
            assert!(found.starts_with(expected), "{expected} in {found}");
        }
        let both = "[collect]\nscorer = [{ kind = 'y' }]\n[evaluate]\nfoo = 1\nscorer = [{ kind = 'x' }]";
        let found = read::<Steps>(both.parse().unwrap()).unwrap_err().to_string();
        for key in ["`collect.scorer[0].kind`", "`evaluate.foo`", "`evaluate.scorer[0].kind`"] {
            assert!(found.contains(key), "{key} in {found}");
        }
    }

    #[test]
    fn what_is_missing_is_said_if_nothing_else_is_wrong() {
        assert!(refused("").contains("missing field `size`"), "{}", refused(""));
        assert!(!refused("sice = 1").contains("missing"), "{}", refused("sice = 1"));
        assert_eq!(read::<Whole>("size = 1".parse().unwrap()).unwrap().size, 1);
    }
}
