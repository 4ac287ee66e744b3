//! Scorers from settings, and from the short form of the command line.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::command::{CommandScorer, CommandSettings};
use crate::error::{Error, Result};
use crate::exact::ExactAnswer;
#[cfg(feature = "server")]
use crate::judge::{Judge, JudgeSettings};
#[cfg(feature = "local")]
use crate::reward::{RewardScorer, RewardSettings};
use crate::rules::{DigitShare, FormatRule, LengthRule, LengthUnit};
use crate::score::Weighted;
use crate::scorer::Scorer;

/// Settings of one scorer in a weighted sum.
///
/// # Examples
/// ```
/// use simplemix_rollout::{ScorerKind, ScorerSettings};
/// let short: ScorerSettings = "0.5*exact-answer".parse()?;
/// assert_eq!(short, ScorerSettings { weight: 0.5, ..ScorerSettings::new(ScorerKind::ExactAnswer) });
/// let scorer = short.open()?;
/// assert_eq!(scorer.scorer.name(), "exact-answer");
/// # Ok::<(), simplemix_rollout::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScorerSettings {
    /// Factor of its scores in the sum.
    #[serde(default = "one")]
    pub weight: f64,
    /// Tasks whose responses it scores, by the `task` column; an empty list means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// Kind of scorer, with its own settings.
    #[serde(flatten)]
    pub kind: ScorerKind,
}

fn one() -> f64 {
    1.0
}

/// Kind of scorer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ScorerKind {
    /// 1 if the response states the right answer, otherwise 0.
    ExactAnswer,
    /// A reward model in this process.
    #[cfg(feature = "local")]
    RewardModel(RewardSettings),
    /// A program that reads responses and writes scores.
    Command(CommandSettings),
    /// A language model behind a server, asked for its verdict.
    #[cfg(feature = "server")]
    Judge(Box<JudgeSettings>),
    /// Preference for a length.
    Length(LengthRule),
    /// Share of conditions on the form that are met.
    Format(FormatRule),
    /// Share of characters that are digits. For trials with untrained models.
    DigitShare,
}

impl ScorerSettings {
    /// A scorer of weight 1.
    pub fn new(kind: ScorerKind) -> Self {
        Self { weight: one(), tasks: Vec::new(), kind }
    }

    /// Sets the date that a reward model's chat template sees, such as 2026-01-31, unless the settings have one.
    #[must_use]
    #[cfg_attr(not(feature = "local"), expect(unused_mut, reason = "a reward model alone has a date"))]
    pub fn with_date(mut self, date: Option<String>) -> Self {
        #[cfg(feature = "local")]
        if let ScorerKind::RewardModel(settings) = &mut self.kind {
            settings.template_date = settings.template_date.take().or(date);
        }
        #[cfg(not(feature = "local"))]
        let _ = date;
        self
    }

    /// Sets the device of a reward model, unless its settings name one.
    #[must_use]
    #[cfg(feature = "local")]
    pub fn with_device(mut self, device: simplemix_model::DeviceChoice) -> Self {
        if let ScorerKind::RewardModel(settings) = &mut self.kind
            && settings.device == simplemix_model::DeviceChoice::Auto
        {
            settings.device = device;
        }
        self
    }

    /// Loads the scorer.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting is out of range, and any error of loading.
    pub fn open(&self) -> Result<Weighted> {
        let scorer: Box<dyn Scorer> = match &self.kind {
            ScorerKind::ExactAnswer => Box::new(ExactAnswer),
            #[cfg(feature = "local")]
            ScorerKind::RewardModel(settings) => Box::new(RewardScorer::load(settings.clone())?),
            ScorerKind::Command(settings) => Box::new(CommandScorer::new(settings.clone())?),
            #[cfg(feature = "server")]
            ScorerKind::Judge(settings) => Box::new(Judge::new(settings.as_ref().clone())?),
            ScorerKind::Length(rule) => {
                rule.check()?;
                Box::new(*rule)
            }
            ScorerKind::Format(rule) => {
                rule.check()?;
                Box::new(rule.clone())
            }
            ScorerKind::DigitShare => Box::new(DigitShare),
        };
        Ok(Weighted { scorer, weight: self.weight, tasks: self.tasks.clone() })
    }
}

/// Reads the short form `[WEIGHT*]KIND[:ARGUMENT]`.
impl FromStr for ScorerSettings {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let weighted = text.split_once('*').and_then(|(weight, kind)| Some((weight.trim().parse().ok()?, kind)));
        let (weight, kind): (f64, &str) = weighted.unwrap_or((one(), text));
        let (name, argument) = match kind.trim().split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (kind.trim(), None),
        };
        let refused = |key, found: String, expected| Error::Setting { key, found, expected };
        let needed = |expected| match argument {
            Some(argument) if !argument.is_empty() => Ok(argument),
            _ => Err(refused("scorer", format!("`{name}` without an argument"), expected)),
        };
        let kind = match name {
            "exact-answer" => ScorerKind::ExactAnswer,
            #[cfg(feature = "local")]
            "reward-model" => ScorerKind::RewardModel(RewardSettings::new(needed("reward-model:DIR")?)),
            "command" => ScorerKind::Command(CommandSettings::new(needed("command:COMMAND")?)),
            #[cfg(feature = "server")]
            "judge" => {
                let server = crate::server::ServerSettings::new(needed("judge:URL")?);
                ScorerKind::Judge(Box::new(JudgeSettings::new(server)))
            }
            "length" => {
                let words = needed("length:WORDS")?;
                let Ok(max) = words.parse() else {
                    return Err(refused("length", words.to_owned(), "a number of words"));
                };
                ScorerKind::Length(LengthRule { min: 0, max, unit: LengthUnit::Words })
            }
            "digit-share" => ScorerKind::DigitShare,
            other => {
                let expected = "exact-answer, reward-model:DIR, command:COMMAND, judge:URL, length:WORDS or digit-share; \
                     `format` is available in a file of scorers";
                return Err(refused("scorer", format!("`{other}`"), expected));
            }
        };
        let takes_none = matches!(kind, ScorerKind::ExactAnswer | ScorerKind::DigitShare);
        if let Some(argument) = argument.filter(|_| takes_none) {
            return Err(refused("scorer", format!("`{name}:{argument}`"), "no argument"));
        }
        Ok(Self { weight, tasks: Vec::new(), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_and_tables_agree() {
        let from_table = |text: &str| serde_json::from_str::<ScorerSettings>(text).unwrap();
        for (short, table) in [
            ("exact-answer", r#"{"kind": "exact-answer"}"#),
            ("-0.5*length:200", r#"{"kind": "length", "max": 200, "weight": -0.5}"#),
            ("command:awk '{print 2*3}'", r#"{"kind": "command", "command": "awk '{print 2*3}'"}"#),
            ("2 * digit-share", r#"{"kind": "digit-share", "weight": 2}"#),
        ] {
            assert_eq!(short.parse::<ScorerSettings>().unwrap(), from_table(table), "{short}");
        }
    }

    #[test]
    fn unknown_scorers_are_named() {
        for (text, expected) in [
            ("exact", "`scorer` is `exact`, expected exact-answer"),
            ("command", "`command` without an argument, expected command:COMMAND"),
            ("length:long", "`length` is long"),
            ("exact-answer:5", "expected no argument"),
        ] {
            let message = text.parse::<ScorerSettings>().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(serde_json::from_str::<ScorerSettings>(r#"{"kind": "length"}"#).is_err());
    }
}
