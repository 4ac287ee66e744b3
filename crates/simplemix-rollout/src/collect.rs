//! All three stages: on-policy pairs from prompts, in memory or from file to file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::{ChatTemplate, Watch};

use crate::error::Result;
use crate::generate::{GenerateReport, GenerateSettings, generate};
use crate::generator::{Candidate, Generator, Prompt, SamplingConfig};
use crate::pair::{PairReport, PairSettings, pair};
use crate::prompts::PromptSettings;
use crate::score::{ScoreReport, ScoreSettings, Weighted, score};
use crate::scorer::{Group, Scorer, score_all};
use crate::select::{SelectSettings, Selection, select_pairs};

/// Settings of all three stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectSettings {
    /// Prompts to sample responses to.
    pub prompts: PromptSettings,
    /// Settings of sampling.
    pub sampling: SamplingConfig,
    /// Rule by which pairs are chosen.
    #[serde(default)]
    pub select: SelectSettings,
    /// Value of the `source` column of the pairs.
    #[serde(default = "source")]
    pub source: String,
    /// Path of the output, which holds the pairs. Candidates and scores are written beside it: for `on.parquet` to
    /// `on.candidates.parquet` and `on.scored.parquet`.
    pub output: PathBuf,
    /// Whether to overwrite outputs, or unfinished work, made with other settings.
    #[serde(default)]
    pub overwrite: bool,
}

fn source() -> String {
    "on_policy".to_owned()
}

/// Summaries of the three stages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectReport {
    /// Summary of generating.
    pub generate: GenerateReport,
    /// Summary of scoring.
    pub score: ScoreReport,
    /// Summary of pairing.
    pub pair: PairReport,
}

impl CollectSettings {
    /// Settings of the first stage, generating.
    pub fn generate(&self) -> GenerateSettings {
        GenerateSettings {
            prompts: self.prompts.clone(),
            sampling: self.sampling.clone(),
            output: beside(&self.output, "candidates"),
            overwrite: self.overwrite,
            share: None,
        }
    }

    /// Settings of the second stage, scoring.
    pub fn score(&self) -> ScoreSettings {
        ScoreSettings {
            candidates: beside(&self.output, "candidates"),
            output: beside(&self.output, "scored"),
            reference: self.select.uses_reference(),
            overwrite: self.overwrite,
        }
    }

    /// Date that the chat templates of generator and scorers see: that of the day on which this collection began.
    pub fn template_date(&self) -> String {
        self.score().template_date().unwrap_or_else(ChatTemplate::today)
    }

    /// Settings of the third stage, pairing.
    pub fn pair(&self) -> PairSettings {
        PairSettings {
            select: self.select.clone(),
            source: self.source.clone(),
            overwrite: self.overwrite,
            ..PairSettings::new(beside(&self.output, "scored"), &self.output)
        }
    }
}

/// Path of `on.WHAT.parquet` beside `on.parquet`.
fn beside(output: &Path, what: &str) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').find(|part| !part.is_empty()).unwrap_or("pairs");
    output.with_file_name(format!("{stem}.{what}.parquet"))
}

/// Generates, scores and pairs from file to file. Each stage continues where it was stopped, and none is done twice.
///
/// # Errors
/// Those of [`generate()`], [`score()`] and [`pair()`]; [`Scorer::check`] is asked before anything is sampled.
///
/// # Examples
/// ```
/// use simplemix_data::Unwatched;
/// use simplemix_rollout::{
///     CollectSettings, Generator, PromptSettings, Result, SamplingConfig, ScorerKind, ScorerSettings, SelectSettings,
///     collect_to_files,
/// };
/// fn run(model: &mut dyn Generator) -> Result<()> {
///     let settings = CollectSettings {
///         prompts: PromptSettings { files: vec!["gsm8k.jsonl".into()], ..PromptSettings::default() },
///         sampling: SamplingConfig::simplemix(),
///         select: SelectSettings::default(),
///         source: "on_policy".to_owned(),
///         output: "on.parquet".into(),
///         overwrite: false,
///     };
///     let mut scorers = [ScorerSettings::new(ScorerKind::ExactAnswer).open()?];
///     let report = collect_to_files(&settings, model, &mut scorers, &mut Unwatched)?;
///     println!("{} pairs", report.pair.pairs);
///     Ok(())
/// }
/// ```
pub fn collect_to_files(
    settings: &CollectSettings,
    generator: &mut dyn Generator,
    scorers: &mut [Weighted],
    watch: &mut dyn Watch,
) -> Result<CollectReport> {
    settings.select.check()?;
    settings.select.check_for_one_model()?;
    for prompt in settings.prompts.read() {
        let prompt = prompt?;
        let mut of_prompt = scorers.iter().filter(|scorer| scorer.scores(&prompt));
        of_prompt.try_for_each(|scorer| scorer.scorer.check(&prompt))?;
    }
    let generated = generate(&settings.generate(), generator, watch)?;
    let scored = score(&settings.score(), scorers, watch)?;
    Ok(CollectReport { generate: generated, score: scored, pair: pair(&settings.pair(), watch)? })
}

/// Result of collecting in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collected {
    /// Candidates of each prompt.
    pub candidates: Vec<Vec<Candidate>>,
    /// Scores of the candidates of each prompt.
    pub scores: Vec<Vec<Option<f64>>>,
    /// Pairs, and the number of prompts without a pair.
    pub selection: Selection,
}

impl Collected {
    /// Mean score of the candidates that have one; 0 if none has.
    pub fn mean_score(&self) -> f64 {
        let scores = self.scores.iter().flatten().flatten();
        let (sum, count) = scores.fold((0.0, 0.0), |(sum, count), score| (sum + score, count + 1.0));
        if count == 0.0 { 0.0 } else { sum / count }
    }

    /// Number of candidates that were cut at the limit of new tokens.
    pub fn cut(&self) -> usize {
        self.candidates.iter().flatten().filter(|candidate| candidate.is_cut()).count()
    }
}

/// Samples responses to every prompt, scores them, and pairs the best with the worst, all in memory. `source` is the value
/// of the `source` column. [`select_pairs`] chooses pairs by other rules.
///
/// # Errors
/// [`crate::Error::Setting`], [`crate::Error::Prompt`], [`crate::Error::Responses`], and any error of the generator.
///
/// # Examples
/// ```
/// use simplemix_rollout::{ExactAnswer, Generator, Prompt, Result, SamplingConfig, collect};
/// fn run(model: &mut dyn Generator) -> Result<()> {
///     let prompts = [Prompt::new("sum-1", "What is 2 + 2?").with_answer("4")];
///     let sampling = SamplingConfig { samples: 8, ..SamplingConfig::simplemix() };
///     let collected = collect(model, &mut ExactAnswer, &prompts, &sampling, "on_policy", &mut |_, _| {})?;
///     println!("{} pairs, mean score {:.2}", collected.selection.pairs.len(), collected.mean_score());
///     Ok(())
/// }
/// ```
pub fn collect(
    generator: &mut dyn Generator,
    scorer: &mut dyn Scorer,
    prompts: &[Prompt],
    sampling: &SamplingConfig,
    source: &str,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Collected> {
    sampling.check()?;
    let candidates = generator.generate(prompts, sampling, progress)?;
    let group = |(prompt, candidates): (&Prompt, &Vec<Candidate>)| Group {
        prompt: prompt.clone(),
        responses: candidates.iter().filter_map(|candidate| candidate.text.clone()).collect(),
    };
    let groups: Vec<Group> = prompts.iter().zip(&candidates).map(group).collect();
    let scores = score_all(scorer, &groups)?;
    let spread = |(candidates, scores): (&Vec<Candidate>, Vec<Option<f64>>)| {
        // A candidate without text has no score.
        let mut scores = scores.into_iter();
        candidates.iter().map(|candidate| candidate.text.as_ref().and_then(|_| scores.next().flatten())).collect()
    };
    let scores: Vec<Vec<Option<f64>>> = candidates.iter().zip(scores).map(spread).collect();
    let best_worst = SelectSettings::default();
    let selection = select_pairs(prompts, &candidates, &scores, &best_worst, source, generator.name())?;
    Ok(Collected { candidates, scores, selection })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact::ExactAnswer;
    use crate::finish::Finish;
    use crate::generator::{CandidateSink, Job, Sampled};

    /// Generator whose first sample is right, the others are wrong; the last one is missing if it is `broken`.
    struct Half {
        broken: bool,
    }

    impl Generator for Half {
        fn name(&self) -> &str {
            "half"
        }

        fn sample(
            &mut self,
            jobs: &mut dyn Iterator<Item = Result<Job>>,
            _: &SamplingConfig,
            sink: &mut dyn CandidateSink,
        ) -> Result<()> {
            for job in jobs {
                let Job { index, prompt, samples } = job?;
                let all = samples.len();
                for sample in samples.into_iter().filter(|sample| !self.broken || sample + 1 < all) {
                    let right = sample == 0;
                    let candidate = Some(Candidate {
                        text: Some(if right {
                            prompt.answer.as_ref().map(|answer| answer.all()[0].clone()).unwrap_or_default()
                        } else {
                            format!("no {sample}")
                        }),
                        tokens: 1,
                        logp: None,
                        finish: Some(if right { Finish::Stop } else { Finish::Length }),
                        seed: None,
                        server: None,
                    });
                    sink.keep(vec![Sampled { index, sample, candidate }])?;
                }
            }
            Ok(())
        }
    }

    fn prompt(answer: &str) -> Prompt {
        Prompt::new(answer, "?").with_answer(answer)
    }

    fn sampling() -> SamplingConfig {
        SamplingConfig::plain(3, 4, 0)
    }

    #[test]
    fn right_responses_are_chosen() {
        let prompts = [prompt("7"), prompt("8")];
        let mut half = Half { broken: false };
        let collected = collect(&mut half, &mut ExactAnswer, &prompts, &sampling(), "on", &mut |_, _| {}).unwrap();
        assert_eq!(collected.selection.pairs.len(), 2);
        assert_eq!(collected.selection.pairs[1].chosen, "8".into());
        assert_eq!(collected.selection.pairs[1].generator.as_deref(), Some("half"));
        assert!((collected.mean_score() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(collected.cut(), 4);
    }

    #[test]
    fn settings_out_of_range_and_missing_responses_are_named() {
        let mut half = Half { broken: false };
        let wrong = SamplingConfig { temperature: -1.0, ..sampling() };
        let error = collect(&mut half, &mut ExactAnswer, &[], &wrong, "on", &mut |_, _| {}).unwrap_err();
        assert_eq!(error.to_string(), "`temperature` is -1, expected a number >= 0");
        half.broken = true;
        let error =
            collect(&mut half, &mut ExactAnswer, &[prompt("7")], &sampling(), "on", &mut |_, _| {}).unwrap_err();
        assert_eq!(error.to_string(), "generator `half` sampled 2 responses, expected 3: 3 to each of 1 prompts");
    }

    #[test]
    fn each_stage_has_its_own_file() {
        assert_eq!(beside(Path::new("runs/on.v2.parquet"), "scored"), Path::new("runs/on.scored.parquet"));
    }
}
