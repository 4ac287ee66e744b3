//! Reading of settings that serde describes, with all keys at fault named at once: serde itself stops at the first.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::error::{Error, Result};

/// Most keys that are named.
const MOST: usize = 32;

/// Reads a table; the error names every key that cannot be used.
///
/// A key is at fault if the reader says something else without it.
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
        let paths = paths(&table);
        let is_at_fault = |path: &&Vec<Part>| {
            let mut without = table.clone();
            remove(&mut without, path);
            problem_text::<T>(&without).as_ref() != Some(&problem)
        };
        let missing = problem.starts_with("missing field");
        match paths.iter().find(is_at_fault).filter(|_| !missing && errors.len() < MOST) {
            Some(path) => {
                remove(&mut table, path);
                errors.push(Error::Key { key: shown(path), problem });
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

/// A step of the way to a value.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Key(String),
    Index(usize),
}

/// Paths of all keys, those within a table or a list of tables before the key of it.
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
    let inner = value.as_table().map(paths).unwrap_or_default();
    inner.into_iter().map(|path| [vec![Part::Index(at)], path].concat()).collect()
}

fn remove(table: &mut Table, path: &[Part]) {
    let (Some(Part::Key(key)), rest) = (path.first(), path.get(1..).unwrap_or_default()) else { return };
    match (rest, table.get_mut(key)) {
        ([], _) => drop(table.remove(key)),
        (rest, Some(Value::Table(inner))) => remove(inner, rest),
        ([Part::Index(at), rest @ ..], Some(Value::Array(list))) => {
            if let Some(Value::Table(inner)) = list.get_mut(*at) {
                remove(inner, rest);
            }
        }
        _ => {}
    }
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

    #[test]
    fn what_is_missing_is_said_if_nothing_else_is_wrong() {
        assert!(refused("").contains("missing field `size`"), "{}", refused(""));
        assert!(!refused("sice = 1").contains("missing"), "{}", refused("sice = 1"));
        assert_eq!(read::<Whole>("size = 1".parse().unwrap()).unwrap().size, 1);
    }
}
