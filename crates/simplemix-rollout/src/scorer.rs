//! What an answer is worth.

use crate::error::{Error, Result};
use crate::generator::Prompt;

/// A prompt with the responses that are to be scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The prompt.
    pub prompt: Prompt,
    /// Responses.
    pub responses: Vec<String>,
}

/// Takes scores as they come.
pub trait ScoreSink {
    /// Keeps the scores of groups, by their place in the list: one for each response, none where there is no score. All
    /// of a call are kept or none, in any order of calls.
    ///
    /// # Errors
    /// Whatever keeps it from it; the scorer is to stop then.
    fn scored(&mut self, scores: Vec<(usize, Vec<Option<f64>>)>) -> Result<()>;

    /// Whether the scorer is to stop, with [`Error::Interrupted`].
    fn stopped(&self) -> bool {
        false
    }
}

/// Gives numbers to responses; larger is better.
pub trait Scorer {
    /// Name, for reports and columns.
    fn name(&self) -> &str;

    /// What scores depend on beside prompts and responses. Scores under different fingerprints never get into one file.
    fn fingerprint(&self) -> String {
        self.name().to_owned()
    }

    /// Scores groups. What is told in one call of [`ScoreSink::scored`] was made together; a scorer whose last bits depend
    /// on the company that a response is in tells all groups at once.
    ///
    /// # Errors
    /// [`Error::Prompt`] if a prompt lacks what the scorer needs, [`Error::Scores`], whatever is behind it,
    /// [`Error::Interrupted`] if the sink says stop.
    fn score(&mut self, groups: &[Group], sink: &mut dyn ScoreSink) -> Result<()>;
}

/// A scorer that looks at one response at a time.
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
    /// Name, for reports and columns.
    fn name(&self) -> &str;

    /// What scores depend on beside prompts and responses.
    fn fingerprint(&self) -> String {
        self.name().to_owned()
    }

    /// Score of `response` to `prompt`.
    ///
    /// # Errors
    /// [`Error::Prompt`] if the prompt lacks what the rule needs.
    fn score(&self, prompt: &Prompt, response: &str) -> Result<f64>;
}

impl<R: Rule> Scorer for R {
    fn name(&self) -> &str {
        Rule::name(self)
    }

    fn fingerprint(&self) -> String {
        Rule::fingerprint(self)
    }

    fn score(&mut self, groups: &[Group], sink: &mut dyn ScoreSink) -> Result<()> {
        let mut scores = Vec::with_capacity(groups.len());
        for (place, group) in groups.iter().enumerate() {
            let one = |response: &String| Rule::score(self, &group.prompt, response).map(Some);
            scores.push((place, group.responses.iter().map(one).collect::<Result<_>>()?));
        }
        sink.scored(scores)
    }
}

/// The scores of groups, in memory.
///
/// # Errors
/// As [`Scorer::score`]; [`Error::Scores`] if a score is missing.
pub fn score_all(scorer: &mut dyn Scorer, groups: &[Group]) -> Result<Vec<Vec<Option<f64>>>> {
    struct Memory(Vec<Option<Vec<Option<f64>>>>);
    impl ScoreSink for Memory {
        fn scored(&mut self, scores: Vec<(usize, Vec<Option<f64>>)>) -> Result<()> {
            for (place, scores) in scores {
                if let Some(cell) = self.0.get_mut(place) {
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

/// One score for each response, or an error that says whose are missing.
pub(crate) fn checked(scorer: &str, group: &Group, scores: Option<Vec<Option<f64>>>) -> Result<Vec<Option<f64>>> {
    let found = scores.as_ref().map_or(0, Vec::len);
    scores.filter(|scores| scores.len() == group.responses.len()).ok_or_else(|| Error::Scores {
        scorer: scorer.to_owned(),
        id: group.prompt.id.clone(),
        found: format!("{found} scores"),
        expected: format!("{}, one for each response", group.responses.len()),
    })
}
