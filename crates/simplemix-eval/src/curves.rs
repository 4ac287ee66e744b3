//! Curves out of `metrics.jsonl`: one line an update, each a flat object of numbers with `step`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, MapAccess, Visitor};

use crate::error::{At, Error, Result};

/// Points `(step, value)` by the name of their metric.
pub type Curves = BTreeMap<String, Vec<(f64, f64)>>;

/// Reads the metrics of a run. What is `null` is no point. A last line that is cut off, as a killed run leaves it, is
/// left out.
///
/// # Errors
/// [`Error::Io`], or [`Error::Malformed`] with the line.
pub fn read_curves(path: &Path) -> Result<Curves> {
    let text = std::fs::read_to_string(path).at(path, "read")?;
    let mut columns = Columns::default();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let mut reader = serde_json::Deserializer::from_str(line);
        match Line(&mut columns).deserialize(&mut reader).and_then(|()| reader.end()) {
            Ok(()) => columns.end_line(),
            Err(_) if !line.ends_with('\n') => break,
            Err(e) => {
                let message = format!("line {}: not a line of metrics: {e}", number + 1);
                return Err(Error::malformed(path, message));
            }
        }
    }
    Ok(columns.names.into_iter().zip(columns.points).filter(|(_, points)| !points.is_empty()).collect())
}

#[derive(Default)]
struct Columns {
    names: Vec<String>,
    points: Vec<Vec<(f64, f64)>>,
    /// What the line holds so far: column and value.
    line: Vec<(usize, f64)>,
    step: f64,
}

impl Columns {
    /// The column of a name. Lines mostly have the same names in the same order, so the one after `last` is tried first.
    fn column(&mut self, name: &str, last: Option<usize>) -> usize {
        let next = last.map_or(0, |last| last + 1);
        if self.names.get(next).is_some_and(|known| known == name) {
            return next;
        }
        self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.points.push(Vec::new());
            self.names.len() - 1
        })
    }

    fn end_line(&mut self) {
        for (column, value) in self.line.drain(..) {
            self.points[column].push((self.step, value));
        }
    }
}

/// Reads a line into columns.
struct Line<'a>(&'a mut Columns);

impl<'de> DeserializeSeed<'de> for Line<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Line<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let columns = self.0;
        columns.line.clear();
        let mut last = None;
        while let Some(Name(name)) = map.next_key()? {
            let value: Option<f64> = map.next_value()?;
            if name == "step" {
                columns.step = value.unwrap_or_default();
                continue;
            }
            let column = columns.column(&name, last);
            last = Some(column);
            columns.line.extend(value.map(|value| (column, value)));
        }
        Ok(())
    }
}

/// A key, borrowed unless it has escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn curves(text: &str) -> Result<Curves> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_curves(file.path())
    }

    #[test]
    fn lines_become_curves() {
        let found = curves(
            "{\"step\":1,\"loss\":0.5,\"m@a\\\"b\":1}\n{\"loss\":0.25,\"step\":2,\"eval_loss\":null}\n{\"step\":2,\"eval_loss\":3}\n{\"step\":3,\"lo",
        )
        .unwrap();
        assert_eq!(found["loss"], [(1.0, 0.5), (2.0, 0.25)]);
        assert_eq!(found["m@a\"b"], [(1.0, 1.0)]);
        assert_eq!((found["eval_loss"].as_slice(), found.len()), (&[(2.0, 3.0)][..], 3));
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let error = curves("{\"step\":1}\n{\"step\":\"x\"}\n{\"step\":3}\n").unwrap_err().to_string();
        assert!(error.contains("line 2: not a line of metrics: invalid type: string \"x\", expected f64"), "{error}");
        assert!(curves("[1]\n").is_err());
    }
}
