//! Advice before mixing: what the literature looks at in a model, prompts and off-policy pairs, measured, with its sources.
//!
//! Responses are sampled and scored as a pipeline does it, in stages of its own that a later pipeline with the same settings finds
//! again. Nothing is judged here by a threshold of ours: each reading says what its source says of such a value, or that it says
//! nothing.

mod likelihood;
mod off_policy;
mod page;
mod report;
mod scores;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::{Pair, PairTokenizer, TokenizeOptions, Watch};
use simplemix_files::secret::storable;
use simplemix_model::{DeviceChoice, LoadIn};
use simplemix_rollout::{
    CandidateGroup, CandidateReader, PromptSettings, SamplingConfig, ScoreSettings, ScorerSettings, SelectSettings,
};
use simplemix_settings::OrAuto;

pub use report::{Advice, Figure, Reading};

use self::off_policy::OffPolicy;
use crate::error::{Error, Result};
use crate::pipeline::Pipeline;
use crate::plan::{Job, SCORED, Stage};
use crate::scoring::ScoringOptions;
use crate::settings::{CollectSection, MixSection, PipelineSettings};

/// Settings of an advice.
#[derive(Debug, Clone, PartialEq)]
pub struct AdviseSettings {
    /// Policy: a folder, or its id on the hub.
    pub model: PathBuf,
    /// Off-policy pairs: file, folder of shards, pattern or URL.
    pub off_policy: PathBuf,
    /// Files of prompts; those of the off-policy pairs if there are none.
    pub prompts: Vec<PathBuf>,
    /// Whether to turn plain prompts into messages.
    pub messages: bool,
    /// Number of prompts, from the first, and of off-policy pairs whose likelihood is measured.
    pub limit: u64,
    /// How responses are sampled.
    pub sampling: SamplingConfig,
    /// Scorers of the responses.
    pub scorer: Vec<ScorerSettings>,
    /// Device that the models run on.
    pub device: DeviceChoice,
    /// Form in which the weights of the policy's linear layers are held.
    pub load_in: LoadIn,
    /// Batch size of sampling.
    pub batch_rows: usize,
    /// Longest prompt and response together, in tokens.
    pub max_length: usize,
    /// Tokens of a forward pass.
    pub micro_batch_tokens: OrAuto<usize>,
    /// Folder to write: `advice.json`, `advice.html` and the stages.
    pub output: PathBuf,
}

impl AdviseSettings {
    /// Settings with what measures little in little time: 128 prompts, 4 responses of at most 256 tokens.
    pub fn new(model: impl Into<PathBuf>, off_policy: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            off_policy: off_policy.into(),
            prompts: Vec::new(),
            messages: false,
            limit: 128,
            sampling: SamplingConfig { max_new_tokens: 256, ..SamplingConfig::simplemix() },
            scorer: Vec::new(),
            device: DeviceChoice::Auto,
            load_in: LoadIn::None,
            batch_rows: CollectSection::default().batch_rows,
            max_length: 1024,
            micro_batch_tokens: OrAuto::Auto,
            output: output.into(),
        }
    }

    /// A pipeline whose first stages sample and score responses.
    fn pipeline(&self, watch: &mut dyn Watch) -> Result<PipelineSettings> {
        let files = match &self.prompts[..] {
            [] => crate::inputs::files(&self.off_policy, watch)?,
            files => files.to_vec(),
        };
        let prompts =
            PromptSettings { files, limit: Some(self.limit), messages: self.messages, ..PromptSettings::default() };
        Ok(PipelineSettings {
            output: Some(self.output.clone()),
            model: Some(self.model.clone()),
            device: self.device,
            load_in: self.load_in,
            off_policy: Some(self.off_policy.clone().into()),
            prompts: Some(prompts),
            collect: CollectSection {
                sampling: self.sampling.clone(),
                select: SelectSettings::default(),
                scorer: self.scorer.clone(),
                batch_rows: self.batch_rows,
                ..CollectSection::default()
            },
            mix: MixSection::default(),
            ..PipelineSettings::default()
        })
    }

    fn check(&self) -> Result<()> {
        if self.limit == 0 {
            return Err(Error::setting("limit", 0, "at least 1 prompt"));
        }
        if self.sampling.samples < 2 {
            return Err(Error::setting("samples", self.sampling.samples, "at least 2 responses, which are compared"));
        }
        Ok(())
    }
}

/// Stages of a pipeline that an advice needs.
const STAGES: [&str; 3] = ["generate", "score", "pair"];

/// File of off-policy responses to the prompts, as candidates.
const RESPONSES: &str = "off-policy.jsonl";

/// Measures, and writes `advice.json` and `advice.html`. Called again after it was stopped, it continues: sampling and scoring from
/// their journals, likelihoods from the last source that was finished.
///
/// # Errors
/// [`Error::Setting`] and others for settings and files that cannot be used, and whatever sampling and scoring report.
pub fn advise(settings: &AdviseSettings, watch: &mut dyn Watch) -> Result<Advice> {
    settings.check()?;
    let pipeline = Pipeline::open(settings.pipeline(watch)?, watch)?;
    simplemix_files::create_dir_all(&settings.output)?;
    for stage in pipeline.stages().iter().filter(|stage| STAGES.contains(&stage.name.as_str())) {
        stage.run(None, watch)?;
    }
    let on = groups(&named(&pipeline, "score").folder.join(SCORED))?;
    let off = OffPolicy::read(settings, &on, watch)?;
    let scored_off = scored_off_policy(&pipeline, &off, watch)?;
    let made = simplemix_data::read_pairs(made_pairs(&pipeline), &simplemix_data::ReadOptions::default())?;
    let measuring = Measuring::new(settings, &pipeline)?;
    let likelihood = likelihood::measure(&measuring, &on, &off.pairs, watch)?;
    let mut readings = vec![scores::rightness(&on), scores::gaps(&made, &scored_off, &off.pairs)];
    readings.extend(scores::stage_measure(&on, &scored_off));
    readings.extend(likelihood);
    readings.push(likelihood::lengths(&measuring, &made, &off.pairs)?);
    let advice = Advice {
        tool: crate::TOOL.to_owned(),
        model: simplemix_model::model_name(&settings.model),
        prompts: on.len() as u64,
        samples: settings.sampling.samples as u64,
        off_policy_pairs: off.pairs.len() as u64,
        matched_prompts: off.matched.len() as u64,
        readings,
        notices: off.notices,
    };
    let text = serde_json::to_string_pretty(&advice).map_err(|error| Error::serialise("the advice")(&error))?;
    simplemix_files::write(settings.output.join("advice.json"), storable(&(text + "\n")))?;
    simplemix_files::write(settings.output.join("advice.html"), storable(&page::html(&advice)))?;
    Ok(advice)
}

/// Model and tokenizer that likelihoods and lengths are measured with.
struct Measuring {
    model: PathBuf,
    tokenizer: PairTokenizer,
    scoring: ScoringOptions,
    /// Folder of what was measured, and key of the model.
    kept: PathBuf,
    key: String,
}

impl Measuring {
    fn new(settings: &AdviseSettings, pipeline: &Pipeline) -> Result<Self> {
        let model = simplemix_model::hub::resolve(&settings.model)?;
        let options = TokenizeOptions { max_length: settings.max_length, ..TokenizeOptions::default() };
        let tokenizer = PairTokenizer::from_dir(&model, options)?;
        let tokenizer = match &pipeline.settings().template_date {
            Some(date) => tokenizer.with_date(date)?,
            None => tokenizer,
        };
        let AdviseSettings { device, micro_batch_tokens, load_in, .. } = *settings;
        let scoring = ScoringOptions { device, micro_batch_tokens, load_in };
        // The key of sampling stands for the content of the model too.
        let key = named(pipeline, "generate").key.clone();
        Ok(Self { model, tokenizer, scoring, kept: settings.output.join("stages"), key })
    }
}

fn named<'a>(pipeline: &'a Pipeline, name: &str) -> &'a Stage {
    pipeline.stages().iter().find(|stage| stage.name == name).expect("a pipeline with on-policy pairs has this stage")
}

fn made_pairs(pipeline: &Pipeline) -> PathBuf {
    named(pipeline, "pair").outputs().remove(0)
}

fn groups(path: &Path) -> Result<Vec<CandidateGroup>> {
    Ok(CandidateReader::open(path)?.collect::<simplemix_rollout::Result<_>>()?)
}

/// Scores the off-policy responses to the prompts by the same scorers; nothing where no pair has one of the prompts.
fn scored_off_policy(pipeline: &Pipeline, off: &OffPolicy, watch: &mut dyn Watch) -> Result<Vec<CandidateGroup>> {
    if off.matched.is_empty() {
        return Ok(Vec::new());
    }
    let own = named(pipeline, "score");
    let Job::Score(_, scorers) = &own.job else { unreachable!("the stage `score` scores") };
    let text = off.candidates()?;
    let key = blake3::hash(format!("{} {text}", own.key).as_bytes()).to_hex()[..16].to_owned();
    let folder = own.folder.with_file_name(format!("score-off-{}", &key[..8]));
    simplemix_files::create_dir_all(&folder)?;
    let candidates = folder.join(RESPONSES);
    simplemix_files::write(&candidates, storable(&text))?;
    let output = folder.join(SCORED);
    let settings = ScoreSettings { candidates, output: output.clone(), reference: false, overwrite: false };
    let job = Job::Score(settings, scorers.clone());
    Stage { name: "score-off".to_owned(), key, folder, job, after: Vec::new(), collects: true }.run(None, watch)?;
    groups(&output)
}

/// Summed log-probability and tokens of a response.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Likelihood {
    nats: f64,
    tokens: usize,
}

/// A prompt's turns without a system message, as one text by which prompts of different files are the same.
fn asked(prompt: &simplemix_data::Text) -> String {
    match prompt {
        simplemix_data::Text::Plain(text) => format!("user: {}", text.trim()),
        simplemix_data::Text::Messages(turns) => {
            let turns = turns.iter().filter(|turn| turn.role != "system");
            turns.map(|turn| format!("{}: {}", turn.role, turn.content.trim())).collect::<Vec<_>>().join("\n")
        }
    }
}

/// The text of a response of one turn.
fn response(pair: &Pair, is_chosen: bool) -> Option<&str> {
    match if is_chosen { &pair.chosen } else { &pair.rejected } {
        simplemix_data::Text::Plain(text) => Some(text),
        simplemix_data::Text::Messages(turns) => match &turns[..] {
            [turn] if turn.has_content() => Some(&turn.content),
            _ => None,
        },
    }
}
