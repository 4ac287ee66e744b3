//! Scorers: numbers for responses, larger is better.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::generator::{Failures, Prompt};

/// A prompt with responses to score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The prompt.
    pub prompt: Prompt,
    /// Texts of the responses.
    pub responses: Vec<String>,
}

/// Receiver of scores while they are computed.
pub trait ScoreSink {
    /// Keeps the scores of groups, given by the index of the group: one for each response, `None` where there is no score.
    /// Keeps all scores of a call or none. Calls may come in any order.
    ///
    /// # Errors
    /// Any error of keeping them; the scorer must then stop.
    fn keep(&mut self, scores: Vec<(usize, Vec<Option<f64>>)>) -> Result<()>;

    /// Reports attempts that failed since the last call. They are counted in the summary.
    ///
    /// # Errors
    /// Any error of keeping the counts; the scorer must then stop.
    fn failed(&mut self, failures: &Failures) -> Result<()> {
        let _ = failures;
        Ok(())
    }

    /// Reports that a batch is done. For signs of life.
    fn pending(&mut self) {}

    /// Tells the user a fact about the scores, such as that the tokens are not those of another program.
    fn notice(&mut self, text: &str) {
        let _ = text;
    }

    /// Whether the scorer should stop and return [`Error::Interrupted`].
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// A scorer of responses; a larger score is better.
pub trait Scorer {
    /// Name in reports and in the column `score_NAME`.
    fn name(&self) -> &str;

    /// Everything that scores depend on beside prompts and responses. Scores with different fingerprints never go into the
    /// same file.
    fn fingerprint(&self) -> String {
        self.name().to_owned()
    }

    /// Date that the chat template sees, if the scorer has one that looks at the date.
    fn template_date(&self) -> Option<String> {
        None
    }

    /// Checks that a prompt has all that the scorer needs, before responses to it are sampled.
    ///
    /// # Errors
    /// [`Error::Prompt`] if it lacks a field.
    fn check(&self, prompt: &Prompt) -> Result<()> {
        let _ = prompt;
        Ok(())
    }

    /// Scores groups.
    ///
    /// If the last bits of a score depend on the other responses, all groups must be passed to the sink in a single call.
    ///
    /// # Errors
    /// [`Error::Prompt`] if a prompt lacks a field that the scorer needs; [`Error::Scores`]; any error of the backend;
    /// [`Error::Interrupted`] if the sink asks to stop.
    fn score(&mut self, groups: &[Group], sink: &mut dyn ScoreSink) -> Result<()>;

    /// This scorer, if it runs a model over batches that several processes can share.
    #[cfg(feature = "local")]
    fn batched(&mut self) -> Option<&mut dyn Batched> {
        None
    }
}

/// A scorer that runs a model over batches of responses, which several processes can share.
#[cfg(feature = "local")]
pub trait Batched {
    /// Scores a part of the batches that [`Scorer::score`] makes of `groups`: pairs of the number of a response, counted through
    /// all groups, and its score. `sink` gets signs of life and notices, and keeps nothing.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    fn score_part(
        &mut self,
        groups: &[Group],
        part: crate::together::Part,
        sink: &mut dyn ScoreSink,
    ) -> Result<Vec<(usize, f64)>>;
}

/// A scorer that looks at one response at a time. Every rule is a [`Scorer`].
///
/// # Examples
/// ```
/// use simplemix_rollout::{Group, Prompt, Result, Rule, score_all};
/// struct Polite;
/// impl Rule for Polite {
///     fn name(&self) -> &str {
///         "polite"
///     }
///     fn score(&self, _: &Prompt, response: &str) -> Result<f64> {
///         Ok(f64::from(u8::from(response.contains("please"))))
///     }
/// }
/// let group = Group { prompt: Prompt::new("a", "Ask me."), responses: vec!["Tell me, please.".into(), "Tell me.".into()] };
/// assert_eq!(score_all(&mut Polite, &[group])?, [[Some(1.0), Some(0.0)]]);
/// # Ok::<(), simplemix_rollout::Error>(())
/// ```
pub trait Rule {
    /// Name in reports and in the column `score_NAME`.
    fn name(&self) -> &str;

    /// Everything that scores depend on beside prompts and responses.
    fn fingerprint(&self) -> String {
        self.name().to_owned()
    }

    /// As [`Scorer::check`].
    ///
    /// # Errors
    /// As there.
    fn check(&self, prompt: &Prompt) -> Result<()> {
        let _ = prompt;
        Ok(())
    }

    /// Scores `response` to `prompt`.
    ///
    /// # Errors
    /// [`Error::Prompt`] if the prompt lacks a field that the rule needs.
    fn score(&self, prompt: &Prompt, response: &str) -> Result<f64>;
}

impl<R: Rule> Scorer for R {
    fn name(&self) -> &str {
        Rule::name(self)
    }

    fn fingerprint(&self) -> String {
        Rule::fingerprint(self)
    }

    fn check(&self, prompt: &Prompt) -> Result<()> {
        Rule::check(self, prompt)
    }

    fn score(&mut self, groups: &[Group], sink: &mut dyn ScoreSink) -> Result<()> {
        let mut scores = Vec::with_capacity(groups.len());
        for (index, group) in groups.iter().enumerate() {
            let one = |response: &String| Rule::score(self, &group.prompt, response).map(Some);
            scores.push((index, group.responses.iter().map(one).collect::<Result<_>>()?));
        }
        sink.keep(scores)
    }
}

/// Scores groups in memory.
///
/// # Errors
/// Those of [`Scorer::score`], and [`Error::Scores`] if a score is missing.
pub fn score_all(scorer: &mut dyn Scorer, groups: &[Group]) -> Result<Vec<Vec<Option<f64>>>> {
    struct Memory(Vec<Option<Vec<Option<f64>>>>);
    impl ScoreSink for Memory {
        fn keep(&mut self, scores: Vec<(usize, Vec<Option<f64>>)>) -> Result<()> {
            for (index, scores) in scores {
                if let Some(cell) = self.0.get_mut(index) {
                    *cell = Some(scores);
                }
            }
            Ok(())
        }
    }
    let mut memory = Memory(vec![None; groups.len()]);
    scorer.score(groups, &mut memory)?;
    let mut all = Vec::with_capacity(groups.len());
    for (group, scores) in groups.iter().zip(memory.0) {
        all.push(checked(scorer.name(), group, scores)?);
    }
    Ok(all)
}

/// Checks that there is one score for each response.
pub(crate) fn checked(scorer: &str, group: &Group, scores: Option<Vec<Option<f64>>>) -> Result<Vec<Option<f64>>> {
    let found = scores.as_ref().map_or(0, Vec::len);
    scores.filter(|scores| scores.len() == group.responses.len()).ok_or_else(|| Error::Scores {
        scorer: scorer.to_owned(),
        id: group.prompt.id.clone(),
        found,
        expected: group.responses.len(),
    })
}
