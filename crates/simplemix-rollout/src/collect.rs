//! Generate, score, pair: on-policy pairs from prompts, in memory or from file to file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::Watch;

use crate::error::Result;
use crate::generate::{GenerateReport, GenerateSettings, generate};
use crate::generator::{Candidate, Finish, Generator, Prompt, SamplingConfig};
use crate::pair::{PairReport, PairSettings, pair};
use crate::prompts::PromptSettings;
use crate::score::{ScoreReport, ScoreSettings, Weighted, score};
use crate::scorer::{Group, Scorer, score_all};
use crate::select::{SelectSettings, Selection, best_worst};

/// All three stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectSettings {
    /// Which prompts.
    pub prompts: PromptSettings,
    /// How answers are drawn.
    pub sampling: SamplingConfig,
    /// Rule and bounds of pairs.
    #[serde(default)]
    pub select: SelectSettings,
    /// Name of the pairs' source.
    #[serde(default = "source")]
    pub source: String,
    /// File of pairs to write. Candidates and scores lie beside it: of `on.parquet` in `on.candidates.parquet` and
    /// `on.scored.parquet`.
    pub output: PathBuf,
    /// Replace outputs, or unfinished work, of other arguments.
    #[serde(default)]
    pub overwrite: bool,
}

fn source() -> String {
    "on_policy".to_owned()
}

/// What came of each stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectReport {
    /// Of generating.
    pub generate: GenerateReport,
    /// Of scoring.
    pub score: ScoreReport,
    /// Of pairing.
    pub pair: PairReport,
}

impl CollectSettings {
    /// Of generating.
    pub fn generate(&self) -> GenerateSettings {
        GenerateSettings {
            prompts: self.prompts.clone(),
            sampling: self.sampling,
            output: beside(&self.output, "candidates"),
            overwrite: self.overwrite,
        }
    }

    /// Of scoring.
    pub fn score(&self) -> ScoreSettings {
        ScoreSettings {
            candidates: beside(&self.output, "candidates"),
            output: beside(&self.output, "scored"),
            reference: self.select.uses_reference(),
            overwrite: self.overwrite,
        }
    }

    /// Of pairing.
    pub fn pair(&self) -> PairSettings {
        PairSettings {
            select: self.select,
            source: self.source.clone(),
            overwrite: self.overwrite,
            ..PairSettings::new(beside(&self.output, "scored"), &self.output)
        }
    }
}

/// `on.parquet` to `on.WHAT.parquet`.
fn beside(output: &Path, what: &str) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').find(|part| !part.is_empty()).unwrap_or("pairs");
    output.with_file_name(format!("{stem}.{what}.parquet"))
}

/// Generates, scores and pairs from file to file; each stage goes on where it was broken off, and none is done twice.
///
/// # Errors
/// As [`generate()`], [`score()`] and [`pair()`].
pub fn collect_to_files(
    settings: &CollectSettings,
    generator: &mut dyn Generator,
    scorers: &mut [Weighted],
    watch: &mut dyn Watch,
) -> Result<CollectReport> {
    settings.select.check()?;
    let generated = generate(&settings.generate(), generator, watch)?;
    let scored = score(&settings.score(), scorers, watch)?;
    Ok(CollectReport { generate: generated, score: scored, pair: pair(&settings.pair(), watch)? })
}

/// Everything that collecting in memory gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collected {
    /// Answers, by prompt.
    pub answers: Vec<Vec<Candidate>>,
    /// Their scores.
    pub scores: Vec<Vec<Option<f64>>>,
    /// Pairs, and prompts that gave none.
    pub selection: Selection,
}

impl Collected {
    /// Mean score over all answers that have one.
    pub fn mean_score(&self) -> f64 {
        let scores = self.scores.iter().flatten().flatten();
        let (sum, count) = scores.fold((0.0, 0.0), |(sum, count), score| (sum + score, count + 1.0));
        if count == 0.0 { 0.0 } else { sum / count }
    }

    /// Answers that were cut at the limit of new tokens.
    pub fn cut(&self) -> usize {
        self.answers.iter().flatten().filter(|answer| answer.finish == Finish::Length).count()
    }
}

/// Answers every prompt, scores the answers and pairs best with worst under the name `source`, all in memory.
///
/// # Errors
/// [`crate::Error::Setting`], [`crate::Error::Prompt`], [`crate::Error::Answers`], or what the generator reports.
pub fn collect(
    generator: &mut dyn Generator,
    scorer: &mut dyn Scorer,
    prompts: &[Prompt],
    sampling: &SamplingConfig,
    source: &str,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Collected> {
    sampling.check()?;
    let answers = generator.generate(prompts, sampling, progress)?;
    let texts = |answers: &[Candidate]| answers.iter().map(|answer| answer.text.clone()).collect();
    let group =
        |(prompt, answers): (&Prompt, &Vec<Candidate>)| Group { prompt: prompt.clone(), responses: texts(answers) };
    let groups: Vec<Group> = prompts.iter().zip(&answers).map(group).collect();
    let scores = score_all(scorer, &groups)?;
    let selection = best_worst(prompts, &answers, &scores, source, generator.name());
    Ok(Collected { answers, scores, selection })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact::ExactAnswer;
    use crate::generator::{AnswerSink, Answered, Job};

    /// Answers right with its first sample, wrong with the others; the last of them not at all if it is `broken`.
    struct Half {
        broken: bool,
    }

    impl Generator for Half {
        fn name(&self) -> &str {
            "half"
        }

        fn answer(
            &mut self,
            jobs: &mut dyn Iterator<Item = Result<Job>>,
            _: &SamplingConfig,
            sink: &mut dyn AnswerSink,
        ) -> Result<()> {
            for job in jobs {
                let Job { place, prompt, samples } = job?;
                let all = samples.len();
                for sample in samples.into_iter().filter(|sample| !self.broken || sample + 1 < all) {
                    let right = sample == 0;
                    let answer = Some(Candidate {
                        text: if right { prompt.answer.clone().unwrap_or_default() } else { format!("no {sample}") },
                        tokens: 1,
                        logp: None,
                        finish: if right { Finish::Stop } else { Finish::Length },
                        seed: None,
                    });
                    sink.answered(vec![Answered { place, sample, answer }])?;
                }
            }
            Ok(())
        }
    }

    fn prompt(answer: &str) -> Prompt {
        Prompt::new(answer, "?").with_answer(answer)
    }

    const SAMPLING: SamplingConfig =
        SamplingConfig { samples: 3, temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, max_new_tokens: 4, seed: 0 };

    #[test]
    fn right_answers_are_chosen() {
        let prompts = [prompt("7"), prompt("8")];
        let mut half = Half { broken: false };
        let collected = collect(&mut half, &mut ExactAnswer, &prompts, &SAMPLING, "on", &mut |_, _| {}).unwrap();
        assert_eq!(collected.selection.pairs.len(), 2);
        assert_eq!(collected.selection.pairs[1].chosen, "8".into());
        assert_eq!(collected.selection.pairs[1].generator.as_deref(), Some("half"));
        assert!((collected.mean_score() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(collected.cut(), 4);
    }

    #[test]
    fn settings_out_of_range_and_missing_answers_are_named() {
        let mut half = Half { broken: false };
        let wrong = SamplingConfig { temperature: -1.0, ..SAMPLING };
        let error = collect(&mut half, &mut ExactAnswer, &[], &wrong, "on", &mut |_, _| {}).unwrap_err();
        assert_eq!(error.to_string(), "`temperature` is -1, expected a number from 0");
        half.broken = true;
        let error = collect(&mut half, &mut ExactAnswer, &[prompt("7")], &SAMPLING, "on", &mut |_, _| {}).unwrap_err();
        assert_eq!(error.to_string(), "generator `half` gave 2 answers, expected 3: 3 to each of 1 prompts");
    }

    #[test]
    fn stages_have_files_of_their_own() {
        assert_eq!(beside(Path::new("runs/on.v2.parquet"), "scored"), Path::new("runs/on.scored.parquet"));
    }
}
