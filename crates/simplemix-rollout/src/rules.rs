//! Rules for the length and the form of a response.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::generator::Prompt;
use crate::scorer::Rule;

/// Unit of a length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LengthUnit {
    /// Words, separated by white space.
    #[default]
    Words,
    /// Unicode characters.
    Characters,
}

/// Preference for a length: 1 from `min` to `max`. Below, the length divided by `min`; above, it falls to 0 at twice `max`.
///
/// # Examples
/// ```
/// use simplemix_rollout::{LengthRule, LengthUnit, Prompt, Rule};
/// let rule = LengthRule { min: 2, max: 4, unit: LengthUnit::Words };
/// let score = |response| rule.score(&Prompt::new("p", "?"), response);
/// assert_eq!((score("one two")?, score("one")?, score("1 2 3 4 5")?), (1.0, 0.5, 0.75));
/// # Ok::<(), simplemix_rollout::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthRule {
    /// Smallest length with the full score.
    #[serde(default)]
    pub min: u64,
    /// Largest length with the full score.
    pub max: u64,
    /// Unit of both limits.
    #[serde(default)]
    pub unit: LengthUnit,
}

impl LengthRule {
    pub(crate) fn check(&self) -> Result<()> {
        if self.max == 0 || self.min > self.max {
            let found = format!("{} to {}", self.min, self.max);
            return Err(Error::Setting { key: "max", found, expected: "a limit > 0 and >= `min`" });
        }
        Ok(())
    }
}

impl Rule for LengthRule {
    fn name(&self) -> &str {
        "length"
    }

    fn fingerprint(&self) -> String {
        format!("{self:?}")
    }

    fn score(&self, _: &Prompt, response: &str) -> Result<f64> {
        let length = match self.unit {
            LengthUnit::Words => response.split_whitespace().count() as u64,
            LengthUnit::Characters => response.chars().count() as u64,
        };
        Ok(if length < self.min {
            length as f64 / self.min as f64
        } else if length > self.max {
            (1.0 - (length - self.max) as f64 / self.max as f64).max(0.0)
        } else {
            1.0
        })
    }
}

/// Share of the conditions on its form that a response meets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FormatRule {
    /// Texts that the response must contain, such as `####`.
    pub contains: Vec<String>,
    /// Texts that the response must not contain.
    pub lacks: Vec<String>,
    /// Text at its start, after white space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_with: Option<String>,
    /// Text at its end, before white space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_with: Option<String>,
    /// Whether the response must be JSON, with or without a fenced block around it.
    pub json: bool,
}

impl FormatRule {
    pub(crate) fn check(&self) -> Result<()> {
        if *self == Self::default() {
            let expected = "at least one of `contains`, `lacks`, `starts_with`, `ends_with` and `json`";
            return Err(Error::Setting { key: "format", found: "empty".to_owned(), expected });
        }
        Ok(())
    }
}

impl Rule for FormatRule {
    fn name(&self) -> &str {
        "format"
    }

    fn fingerprint(&self) -> String {
        format!("{self:?}")
    }

    fn score(&self, _: &Prompt, response: &str) -> Result<f64> {
        let text = response.trim();
        let conditions = (self.contains.iter().map(|part| text.contains(part.as_str())))
            .chain(self.lacks.iter().map(|part| !text.contains(part.as_str())))
            .chain(self.starts_with.iter().map(|start| text.starts_with(start.as_str())))
            .chain(self.ends_with.iter().map(|end| text.ends_with(end.as_str())))
            .chain(self.json.then(|| serde_json::from_str::<serde_json::Value>(unfenced(text)).is_ok()));
        let (met, all) = conditions.fold((0, 0), |(met, all), is| (met + u32::from(is), all + 1));
        Ok(f64::from(met) / f64::from(all.max(1)))
    }
}

/// Content of a fenced block, if the text is one; otherwise the text.
fn unfenced(text: &str) -> &str {
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inner.map_or(text, |inner| inner.strip_prefix("json").unwrap_or(inner))
}

/// Share of the characters of a response that are digits. For trials: even an untrained model scores above 0 by chance.
#[derive(Debug, Clone, Copy, Default)]
pub struct DigitShare;

impl Rule for DigitShare {
    fn name(&self) -> &str {
        "digit-share"
    }

    fn score(&self, _: &Prompt, response: &str) -> Result<f64> {
        let (mut digits, mut all) = (0u32, 0u32);
        for c in response.chars() {
            digits += u32::from(c.is_ascii_digit());
            all += 1;
        }
        Ok(f64::from(digits) / f64::from(all.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(rule: &dyn Rule, response: &str) -> f64 {
        rule.score(&Prompt::new("p", "?"), response).unwrap()
    }

    #[test]
    fn scores_fall_outside_the_limits() {
        let rule = LengthRule { min: 2, max: 4, unit: LengthUnit::Words };
        for (text, expected) in [("", 0.0), ("a", 0.5), ("a b", 1.0), ("a b c d", 1.0), ("a b c d e", 0.75)] {
            assert_eq!(score(&rule, text), expected, "{text:?}");
        }
        assert_eq!(score(&rule, &"a ".repeat(9)), 0.0);
        assert_eq!(score(&LengthRule { min: 0, max: 2, unit: LengthUnit::Characters }, "éé"), 1.0);
        assert!(LengthRule { min: 5, max: 4, unit: LengthUnit::Words }.check().is_err());
    }

    #[test]
    fn conditions_have_equal_weights() {
        let rule = FormatRule {
            contains: vec!["####".into()],
            lacks: vec!["sorry".into()],
            ends_with: Some("4".into()),
            ..FormatRule::default()
        };
        assert_eq!(score(&rule, "so #### 4 "), 1.0);
        assert!((score(&rule, "sorry, 4") - 1.0 / 3.0).abs() < 1e-12);
        let json = FormatRule { json: true, ..FormatRule::default() };
        assert_eq!([score(&json, "```json\n{\"a\": 1}\n```"), score(&json, "{a}")], [1.0, 0.0]);
        assert!(FormatRule::default().check().is_err());
    }
}
