//! Short forms for the command line: `off=uf.parquet:0.5` and `off=0.5,on=0.5`.

use std::str::FromStr;

use crate::error::{Error, Result};
use crate::weight::Weight;

/// A source in short form: name, path and optional weight.
///
/// # Examples
/// ```
/// use simplemix_mix::SourceSpec;
/// let spec: SourceSpec = "off=data/uf.parquet:0.5".parse()?;
/// assert_eq!((spec.name.as_str(), spec.path.as_str()), ("off", "data/uf.parquet"));
/// assert_eq!(spec.weight, Some("1/2".parse()?));
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// Name in the mixture.
    pub name: String,
    /// Path or URL.
    pub path: String,
    /// Weight, if there is one.
    pub weight: Option<Weight>,
}

impl FromStr for SourceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Form { found: text.to_owned(), expected: "NAME=PATH or NAME=PATH:WEIGHT" };
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (path, weight) = match rest.rsplit_once(':') {
            Some((path, weight)) if is_meant_as_weight(weight) => (path, Some(read_weight(name, weight)?)),
            // A colon may be part of the path.
            _ => (rest, None),
        };
        if name.trim().is_empty() || path.is_empty() {
            return Err(wrong());
        }
        Ok(Self { name: name.trim().to_owned(), path: path.to_owned(), weight })
    }
}

/// Whether what follows the last colon is a weight, readable or not, rather than a part of the path: a path has a separator
/// there, or the ending of a file.
fn is_meant_as_weight(text: &str) -> bool {
    let is_number = text.chars().all(|c| c.is_ascii_digit() || " .,/%+-eE".contains(c));
    let has_ending = text.rsplit_once('.').is_some_and(|(_, end)| end.starts_with(|c: char| c.is_alphabetic()));
    let starts_path = text.starts_with(['/', '\\']);
    !starts_path && (is_number || !has_ending && !text.contains(['/', '\\', '*', '?']))
}

fn read_weight(name: &str, weight: &str) -> Result<Weight> {
    weight.parse().map_err(|_| {
        let (name, found) = (name.trim().to_owned(), weight.to_owned());
        Error::Weight { name, found, expected: EXPECTED }
    })
}

/// Weights that are read.
const EXPECTED: &str = "a number >= 0 such as 0.5, 3, 1/3 or 50%";

/// Reads weights by name, such as `off=0.5,on=0.5`.
///
/// # Errors
/// [`Error::Form`], [`Error::Weight`] or [`Error::Twice`].
///
/// # Examples
/// ```
/// use simplemix_mix::parse_weights;
/// let weights = parse_weights("off=0.25,on=3/4")?;
/// assert_eq!(weights[1], ("on".to_owned(), "0.75".parse()?));
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
pub fn parse_weights(text: &str) -> Result<Vec<(String, Weight)>> {
    let mut weights: Vec<(String, Weight)> = Vec::new();
    for part in text.split(',') {
        let wrong = || Error::Form { found: part.to_owned(), expected: "NAME=WEIGHT" };
        let (name, weight) = part.split_once('=').ok_or_else(wrong)?;
        let name = name.trim().to_owned();
        if weights.iter().any(|(known, _)| *known == name) {
            return Err(Error::Twice { name });
        }
        let weight = read_weight(&name, weight)?;
        weights.push((name, weight));
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_may_hold_colons_and_equal_signs() {
        let spec: SourceSpec = "on=s3://bucket/a=1/x.parquet".parse().unwrap();
        assert_eq!((spec.path.as_str(), spec.weight), ("s3://bucket/a=1/x.parquet", None));
        let spec: SourceSpec = "on=C:/x.parquet:3".parse().unwrap();
        assert_eq!((spec.path.as_str(), spec.weight), ("C:/x.parquet", Some(Weight::whole(3))));
    }

    #[test]
    fn what_follows_the_last_colon_is_a_weight_or_refused_as_one() {
        let weight = |text: &str| format!("a=x.parquet:{text}").parse::<SourceSpec>().map(|spec| spec.weight);
        for (text, expected) in
            [("50%", "1/2"), ("1/3", "1/3"), (" 0.5", "0.5"), ("5e-1", "0.5"), ("1e-9", "0.000000001")]
        {
            assert_eq!(weight(text), Ok(Some(expected.parse().unwrap())), "{text}");
        }
        for text in ["inf", "nan", "1e400", "0x1", "", "0,5", "half", "1/0", "-1", "1e-30"] {
            let error = weight(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("weight of source `a` is `{text}`, expected a number")), "{error}");
        }
        for path in
            ["http://host:8080/x.parquet", "s3://bucket", "C:\\x.parquet", "data:1.parquet", "x:*.parquet", "a:b/c"]
        {
            let spec: SourceSpec = format!("a={path}").parse().unwrap();
            assert_eq!((spec.path.as_str(), spec.weight), (path, None));
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["off", "=x.parquet", "off="] {
            assert!(text.parse::<SourceSpec>().is_err(), "{text}");
        }
        assert_eq!(parse_weights("a=0.5,a=1").unwrap_err().to_string(), "source `a` is named twice");
        assert_eq!(
            parse_weights("a=-1").unwrap_err().to_string(),
            "weight of source `a` is `-1`, expected a number >= 0 such as 0.5, 3, 1/3 or 50%"
        );
        assert!(parse_weights("").is_err());
    }
}
