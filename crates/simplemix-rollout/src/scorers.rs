//! Scorers by settings, and by a short form for the command line.

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

/// One scorer of a weighted sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScorerSettings {
    /// What its scores are multiplied by.
    #[serde(default = "one")]
    pub weight: f64,
    /// Tasks whose responses it scores, by the column `task`; all if none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// Which scorer, with its own settings.
    #[serde(flatten)]
    pub kind: ScorerKind,
}

fn one() -> f64 {
    1.0
}

/// Which scorer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ScorerKind {
    /// 1 where the answer has the right value.
    ExactAnswer,
    /// A reward model in this process.
    #[cfg(feature = "local")]
    RewardModel(RewardSettings),
    /// A program.
    Command(CommandSettings),
    /// A language model behind a server.
    #[cfg(feature = "server")]
    Judge(Box<JudgeSettings>),
    /// A length.
    Length(LengthRule),
    /// Conditions on the form.
    Format(FormatRule),
    /// Share of digits, for trials.
    DigitShare,
}

impl ScorerSettings {
    /// A scorer of weight 1.
    pub fn new(kind: ScorerKind) -> Self {
        Self { weight: one(), tasks: Vec::new(), kind }
    }

    /// Makes it ready.
    ///
    /// # Errors
    /// [`Error::Setting`] for settings out of range, whatever loading it reports.
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

/// `[WEIGHT*]KIND[:ARGUMENT]`.
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
                     `format` needs a file of scorers";
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
    fn short_forms_and_tables_say_the_same() {
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
    fn what_is_not_known_is_named() {
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
