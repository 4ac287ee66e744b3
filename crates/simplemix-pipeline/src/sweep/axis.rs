//! Keys that a sweep varies, and the values that they take.

use simplemix_mix::Weight;
use simplemix_settings::{assignment, toml_text};
use toml::{Table, Value};

use crate::error::{Error, Result};

/// Short names of keys.
const SHORT: [(&str, &str); 4] = [
    ("size", "mix.size"),
    ("learning_rate", "train.optimizer.learning_rate"),
    ("beta", "train.loss.beta"),
    ("seed", "seed"),
];

/// Name of the axis that sets the on-policy share, and the off-policy share with it.
const SHARE: &str = "share";

/// Keys that a sweep sets by itself.
const SET_BY_THE_SWEEP: [&str; 2] = ["output", "stages"];

/// A key of the pipeline's settings, and the values that it takes in a sweep.
///
/// `size`, `learning_rate`, `beta` and `seed` stand for `mix.size`, `train.optimizer.learning_rate`, `train.loss.beta` and `seed`;
/// `share` is the share of on-policy pairs, which sets `mix.on` and `mix.off`.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    key: String,
    values: Vec<Value>,
}

impl Axis {
    /// Reads `KEY=VALUE,VALUE`, as the command line has it. A value that is not TOML is taken as text; commas in brackets and
    /// quotes separate nothing.
    ///
    /// # Examples
    /// ```
    /// use simplemix_pipeline::Axis;
    /// assert_eq!(Axis::parse("beta=0.1,0.5")?.key(), "train.loss.beta");
    /// # Ok::<(), simplemix_pipeline::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Setting`] for another form, and as [`Axis::new`].
    pub fn parse(text: &str) -> Result<Self> {
        let Some((key, list)) = text.split_once('=') else {
            return Err(Error::setting("vary", format!("`{text}`"), "KEY=VALUE,VALUE, such as size=1000,2000"));
        };
        let values = split(list).into_iter().map(|value| read(key.trim(), value)).collect::<Result<Vec<_>>>()?;
        Self::new(key.trim(), values)
    }

    /// An axis of a key, by its full or its short name.
    ///
    /// # Errors
    /// [`Error::Setting`] for a key that the sweep sets itself, without values, with a value that comes twice, and for a share
    /// that is no number from 0 to 1.
    pub fn new(key: &str, values: Vec<Value>) -> Result<Self> {
        let short = key.replace('-', "_");
        let key = SHORT.iter().find(|(name, _)| *name == short).map_or(key, |(_, key)| key);
        let path = format!("vary.{key}");
        if key.is_empty() || SET_BY_THE_SWEEP.contains(&key) {
            return Err(Error::setting(
                "vary",
                format!("`{key}`"),
                "a key of the pipeline other than `output` and `stages`",
            ));
        }
        if values.is_empty() {
            return Err(Error::setting(&path, "empty", "at least one value"));
        }
        if let Some(twice) = values.iter().enumerate().find(|(at, value)| values[..*at].contains(value)) {
            return Err(Error::setting(&path, format!("{} twice", shown(twice.1)), "values that differ"));
        }
        let axis = Self { key: key.to_owned(), values };
        (0..axis.values.len()).try_for_each(|at| axis.over(at).map(drop))?;
        Ok(axis)
    }

    /// Full name of the key, or `share`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// A value as people read it, such as `1e-7`.
    pub(crate) fn shown(&self, at: usize) -> String {
        shown(&self.values[at])
    }

    /// A value as a number, if all values of the axis are numbers.
    pub(crate) fn number(&self, at: usize) -> Option<f64> {
        let number = |value: &Value| match value {
            Value::Integer(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            Value::String(text) if self.key == SHARE => {
                let (above, below) = text.parse::<Weight>().ok()?.parts();
                Some(above as f64 / below as f64)
            }
            _ => None,
        };
        let all = self.values.iter().map(number).collect::<Option<Vec<_>>>()?;
        Some(all[at])
    }

    /// The short name of the key, if it has one.
    pub(crate) fn short(&self) -> Option<&str> {
        let short = SHORT.iter().find(|(_, key)| *key == self.key).map(|(short, _)| *short);
        short.or((self.key == SHARE).then_some(SHARE))
    }

    /// The settings that a value stands for.
    pub(crate) fn over(&self, at: usize) -> Result<Table> {
        if self.key == SHARE {
            return shares(&self.values[at]);
        }
        let mut parts = self.key.rsplit('.');
        let last = parts.next().unwrap_or(&self.key);
        let inner = Table::from_iter([(last.to_owned(), self.values[at].clone())]);
        Ok(parts.fold(inner, |table, part| Table::from_iter([(part.to_owned(), Value::Table(table))])))
    }

    /// Key and values, as settings are written.
    pub(crate) fn entry(&self) -> (String, Value) {
        (self.key.clone(), Value::Array(self.values.clone()))
    }
}

/// The weights of both sources for a share of on-policy pairs.
fn shares(value: &Value) -> Result<Table> {
    let text = shown(value);
    let (above, below) = match text.parse::<Weight>() {
        Ok(weight) if weight.parts().0 <= weight.parts().1 => weight.parts(),
        _ => return Err(Error::setting("vary.share", text, "a number from 0 to 1")),
    };
    let weight = |name: &str, parts: u64| (name.to_owned(), Value::from(format!("{parts}/{below}")));
    let mix = Table::from_iter([weight("on", above), weight("off", below - above)]);
    Ok(Table::from_iter([("mix".to_owned(), Value::Table(mix))]))
}

/// A value of the command line.
fn read(key: &str, text: &str) -> Result<Value> {
    let mut table = assignment(&format!("value={}", text.trim()))?;
    table
        .remove("value")
        .filter(|value| *value != Value::from(""))
        .ok_or_else(|| Error::setting(&format!("vary.{key}"), "an empty value", "values with a comma between them"))
}

/// The parts of a list between commas that stand neither in brackets nor in quotes.
fn split(list: &str) -> Vec<&str> {
    let (mut depth, mut quote) = (0usize, None);
    let is_between = |c: char| {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && quote.is_none() && depth == 0
    };
    list.split(is_between).collect()
}

/// A value as people read it: text without quotes, small numbers with an exponent.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Float(number) => format!("{number:?}").trim_end_matches(".0").to_owned(),
        other => toml_text(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(text: &str) -> Axis {
        Axis::parse(text).unwrap()
    }

    fn refused(text: &str) -> String {
        Axis::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn values_are_toml_or_text_and_keys_may_be_short() {
        let rates = axis("learning-rate=1e-7,5e-7");
        assert_eq!(
            (rates.key(), rates.short(), rates.len()),
            ("train.optimizer.learning_rate", Some("learning_rate"), 2)
        );
        assert_eq!((rates.shown(0), rates.number(1)), ("1e-7".to_owned(), Some(5e-7)));
        let set: Table = "[train.optimizer]\nlearning_rate = 5e-7".parse().unwrap();
        assert_eq!(rates.over(1).unwrap(), set);
        let names = axis("train.loss.name=sigmoid, ipo");
        assert_eq!((names.shown(1), names.number(0), names.short()), ("ipo".to_owned(), None, None));
        let lists = axis("prompts.files=['a.jsonl','b.jsonl'],['c.jsonl']");
        assert_eq!(lists.len(), 2);
        assert_eq!(lists.entry().1.as_array().unwrap()[0].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_share_sets_both_weights_exactly() {
        let share = axis("share=0,0.3,1/3,1");
        let of = |at: usize| share.over(at).unwrap().to_string();
        assert_eq!(of(1), "[mix]\noff = \"7/10\"\non = \"3/10\"\n");
        assert_eq!(of(2), "[mix]\noff = \"2/3\"\non = \"1/3\"\n");
        assert_eq!(of(0), "[mix]\noff = \"1/1\"\non = \"0/1\"\n");
        assert_eq!(share.number(3), Some(1.0));
        assert_eq!(refused("share=0.5,2"), "`vary.share` is 2, expected a number from 0 to 1");
    }

    #[test]
    fn what_cannot_be_varied_is_refused_by_name() {
        assert_eq!(refused("beta"), "`vary` is `beta`, expected KEY=VALUE,VALUE, such as size=1000,2000");
        assert_eq!(refused("beta=0.1,1e-1"), "`vary.train.loss.beta` is 0.1 twice, expected values that differ");
        assert_eq!(refused("beta=0.1,"), "`vary.beta` is an empty value, expected values with a comma between them");
        assert!(refused("output=a,b").starts_with("`vary` is `output`, expected a key of the pipeline"));
    }
}
