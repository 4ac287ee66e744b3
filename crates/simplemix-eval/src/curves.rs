//! Curves from `metrics.jsonl`, where each line is a flat object of numbers with the key `step`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, MapAccess, Visitor};

use crate::error::{At, Error, Result};
use crate::stats::mean;

/// Points `(step, value)` of each metric.
pub type Curves = BTreeMap<String, Vec<(f64, f64)>>;

/// Reads the metrics of a run. A `null` is not a point. A last line that is cut off, as a killed run leaves it, is
/// skipped.
///
/// # Errors
/// [`Error::Io`], or [`Error::Malformed`] that names the line.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("metrics.jsonl");
/// std::fs::write(&path, "{\"step\": 1, \"loss\": 0.69}\n{\"step\": 2, \"loss\": 0.61}\n")?;
/// let curves = simplemix_eval::read_curves(&path)?;
/// assert_eq!(curves["loss"], [(1.0, 0.69), (2.0, 0.61)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_curves(path: &Path) -> Result<Curves> {
    let text = simplemix_files::read_to_string(path).at(path, "read")?;
    let mut columns = Columns::default();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let mut reader = serde_json::Deserializer::from_str(line);
        match Line(&mut columns).deserialize(&mut reader).and_then(|step| reader.end().map(|()| step)) {
            Ok(step) => columns.end_line(step),
            Err(_) if !line.ends_with('\n') => break,
            Err(e) => {
                let message = format!("line {}: not an object of numbers: {e}", number + 1);
                return Err(Error::malformed(path, message));
            }
        }
    }
    Ok(columns.names.into_iter().zip(columns.points).filter(|(_, points)| !points.is_empty()).collect())
}

/// The value of a metric at the end of a run: the last one of an evaluation, or the mean over the last tenth of the updates.
///
/// # Examples
/// ```
/// use simplemix_eval::{Curves, at_end};
///
/// let mut curves = Curves::new();
/// curves.insert("loss".to_owned(), (1..=21).map(|step| (f64::from(step), f64::from(step))).collect());
/// curves.insert("eval_loss".to_owned(), vec![(10.0, 0.6), (20.0, 0.5)]);
/// assert_eq!((at_end(&curves, "loss"), at_end(&curves, "eval_loss")), (Some(20.0), Some(0.5)));
/// ```
pub fn at_end(curves: &Curves, metric: &str) -> Option<f64> {
    let points = curves.get(metric)?;
    let last = points.last()?;
    if metric.starts_with("eval_") {
        return Some(last.1);
    }
    let first = points[0].0;
    let start = last.0 - (last.0 - first) / 10.0;
    let tail: Vec<f64> = points.iter().filter(|point| point.0 >= start).map(|point| point.1).collect();
    Some(mean(&tail))
}

#[derive(Default)]
struct Columns {
    names: Vec<String>,
    points: Vec<Vec<(f64, f64)>>,
    /// Column and value of each metric in the current line.
    line: Vec<(usize, f64)>,
}

impl Columns {
    /// The column of a name. Most lines have the same names in the same order, so the column after `last` is tried
    /// first.
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

    fn end_line(&mut self, step: f64) {
        for (column, value) in self.line.drain(..) {
            self.points[column].push((step, value));
        }
    }
}

/// Reads a line into columns and returns the step.
struct Line<'a>(&'a mut Columns);

impl<'de> DeserializeSeed<'de> for Line<'_> {
    type Value = f64;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<f64, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Line<'_> {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<f64, A::Error> {
        let columns = self.0;
        columns.line.clear();
        let (mut step, mut last) = (None, None);
        while let Some(Name(name)) = map.next_key()? {
            if name == "step" {
                step = Some(map.next_value()?);
                continue;
            }
            let value: Option<f64> = map.next_value()?;
            let column = columns.column(&name, last);
            last = Some(column);
            columns.line.extend(value.map(|value| (column, value)));
        }
        step.ok_or_else(|| serde::de::Error::missing_field("step"))
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
    fn a_wrong_line_is_named() {
        let error = curves("{\"step\":1}\n{\"step\":\"x\"}\n{\"step\":3}\n").unwrap_err().to_string();
        assert!(
            error.contains("line 2: not an object of numbers: invalid type: string \"x\", expected f64"),
            "{error}"
        );
        assert!(curves("[1]\n").is_err() && curves("{\"step\":null,\"loss\":1}\n").is_err());
        let error = curves("{\"loss\":1}\n").unwrap_err().to_string();
        assert!(error.contains("line 1: not an object of numbers: missing field `step`"), "{error}");
    }
}
