//! Scores from a reward model in this process: a sequence classifier over prompt and response.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use simplemix_data::{Pair, PairTokenizer, Policy, TokenizerAs};
use simplemix_files::hash_model_folder;
use simplemix_model::{DeviceChoice, Dtype, LoadIn, RewardModel, model_name};

use crate::error::{Error, Result};
use crate::local::{dated_tokenizer, device_mark, quantised_mark};
use crate::scorer::{Batched, Group, ScoreSink, Scorer};
use crate::together::{Part, by_group};

/// Settings of a reward model in this process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardSettings {
    /// Model folder of a `*ForSequenceClassification` with one label, or its id on the hub.
    pub model: PathBuf,
    /// Longest prompt and response together, in tokens. Longer ones are cut at their end.
    #[serde(default = "max_length")]
    pub max_length: usize,
    /// Tokens of a forward pass, unless a single response is longer.
    #[serde(default = "batch_tokens")]
    pub batch_tokens: usize,
    /// Element type of the weights.
    #[serde(default)]
    pub dtype: Dtype,
    /// Form in which the weights of linear layers are held.
    #[serde(default, skip_serializing_if = "LoadIn::is_none")]
    pub load_in: LoadIn,
    /// Device that the model runs on.
    #[serde(default)]
    pub device: DeviceChoice,
    /// Reading of a tokenizer that transformers 5 builds anew by its class.
    #[serde(default)]
    pub tokenizer_as: TokenizerAs,
    /// Date that the chat template sees, such as 2026-01-31; if not set, that of the candidates, or of the first day of the
    /// work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_date: Option<String>,
}

fn max_length() -> usize {
    4096
}

fn batch_tokens() -> usize {
    8192
}

impl RewardSettings {
    /// Defaults for the model in folder `model`.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            max_length: max_length(),
            batch_tokens: batch_tokens(),
            dtype: Dtype::Auto,
            load_in: LoadIn::None,
            device: DeviceChoice::Auto,
            tokenizer_as: TokenizerAs::File,
            template_date: None,
        }
    }

    /// The tokenizer of the folder.
    fn tokenizer(&self) -> Result<PairTokenizer> {
        dated_tokenizer(&self.model, self.tokenizer_as, self.template_date.as_deref())
    }
}

/// Scorer that runs a reward model.
pub struct RewardScorer {
    model: RewardModel,
    tokenizer: PairTokenizer,
    settings: RewardSettings,
    fingerprint: String,
    /// Whether the user was told what there is to know about the tokens.
    looked_at_tokens: bool,
}

impl RewardScorer {
    /// Loads a model folder, or a model of the hub.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Data`] or [`Error::Model`] with the setting or the file that cannot be used.
    pub fn load(settings: RewardSettings) -> Result<Self> {
        for (key, value) in [("max_length", settings.max_length), ("batch_tokens", settings.batch_tokens)] {
            if value == 0 {
                return Err(Error::Setting { key, found: "0".into(), expected: "at least 1" });
            }
        }
        let settings = RewardSettings { model: simplemix_model::hub::resolve(&settings.model)?, ..settings };
        let device = settings.device.open().map_err(simplemix_model::Error::from)?;
        let kind = settings.dtype.kind(device);
        let tokenizer = settings.tokenizer()?;
        let hash = hash_model_folder(&settings.model)?;
        let reading = match settings.tokenizer_as {
            TokenizerAs::File => "",
            TokenizerAs::Transformers => " as transformers",
        };
        let date = tokenizer.date().map(|date| format!(" {date}")).unwrap_or_default();
        let fingerprint = format!(
            "{hash} {kind:?} {} {} {}{reading}{date}{}",
            device_mark(device),
            settings.max_length,
            settings.batch_tokens,
            quantised_mark(settings.load_in)
        );
        let model = RewardModel::load_quantized(&settings.model, kind, device, &settings.load_in.into())?;
        Ok(Self { model, tokenizer, settings, fingerprint, looked_at_tokens: false })
    }

    /// Tells what the user should know about the tokens of `groups`, the first ones of the work.
    fn tell_tokens(&mut self, groups: &[Group], sink: &mut dyn ScoreSink) -> Result<()> {
        if std::mem::replace(&mut self.looked_at_tokens, true) {
            return Ok(());
        }
        let pair = |group: &Group| {
            let side = |text: Option<&String>| group.prompt.prompt.response(text.map_or("", String::as_str));
            let (first, last) = (side(group.responses.first()), side(group.responses.last()));
            Pair::new(group.prompt.prompt.clone(), first, last, "scored", Policy::On)
                .with_inputs(group.prompt.inputs.clone())
        };
        let pairs: Vec<Pair> = groups.iter().map(pair).collect();
        let different = self.tokenizer.reading_notice(&pairs)?;
        let name = model_name(&self.settings.model);
        for notice in self.model.notices().iter().chain(self.tokenizer.folder_notices()).chain(&different) {
            sink.notice(&format!("{name}: {notice}"));
        }
        Ok(())
    }

    /// Encodes every response with its prompt, cut to the limit.
    fn encode(&self, groups: &[Group]) -> Result<Vec<Vec<u32>>> {
        let mut all = Vec::new();
        for group in groups {
            for response in &group.responses {
                let response = group.prompt.prompt.response(response);
                let mut ids =
                    self.tokenizer.encode_conversation(&group.prompt.prompt, &response, &group.prompt.inputs)?;
                ids.truncate(self.settings.max_length);
                all.push(ids);
            }
        }
        Ok(all)
    }
}

impl Scorer for RewardScorer {
    fn name(&self) -> &str {
        "reward-model"
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn template_date(&self) -> Option<String> {
        self.tokenizer.date()
    }

    fn score(&mut self, groups: &[Group], sink: &mut dyn ScoreSink) -> Result<()> {
        let mut scores = vec![None; groups.iter().map(|group| group.responses.len()).sum()];
        for (number, score) in self.score_part(groups, Part::WHOLE, sink)? {
            scores[number] = Some(score);
        }
        sink.keep(by_group(groups, scores))
    }

    fn batched(&mut self) -> Option<&mut dyn Batched> {
        Some(self)
    }
}

impl Batched for RewardScorer {
    fn score_part(&mut self, groups: &[Group], part: Part, sink: &mut dyn ScoreSink) -> Result<Vec<(usize, f64)>> {
        self.tell_tokens(groups, sink)?;
        let sequences = self.encode(groups)?;
        // Shortest first, so that sequences in a batch have similar lengths.
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&at| sequences[at].len());
        let mut scores = Vec::new();
        for now in part.own(batches(&order, &sequences, self.settings.batch_tokens)) {
            if sink.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let batch: Vec<&[u32]> = now.iter().map(|&at| sequences[at].as_slice()).collect();
            scores.extend(now.iter().copied().zip(self.model.score(&batch)?));
            sink.pending();
        }
        Ok(scores)
    }
}

/// Parts of `order` with at most `batch_tokens` tokens, or with a single sequence.
fn batches<'a>(order: &'a [usize], sequences: &[Vec<u32>], batch_tokens: usize) -> Vec<&'a [usize]> {
    let (mut all, mut rest) = (Vec::new(), order);
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = |at: &&usize| {
            tokens += sequences[**at].len();
            tokens <= batch_tokens
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        all.push(now);
        rest = later;
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use simplemix_data::{Message, Text, TokenizeOptions, Unwatched};
    use simplemix_model::{CausalLm, tiny};
    use tch::Device;

    use super::*;
    use crate::generator::Prompt;
    use crate::score::{ScoreSettings, score};
    use crate::scorer::score_all;
    use crate::scorers::{ScorerKind, ScorerSettings};

    /// A tiny model, `policy`, and a reward model on top of it, `reward`.
    fn folders(dir: &Path) -> (PathBuf, PathBuf) {
        let (policy, reward) = (dir.join("policy"), dir.join("reward"));
        tiny::write_folder(&policy, 5).unwrap();
        let model = CausalLm::load(&policy, tch::Kind::Float, Device::Cpu).unwrap();
        let model = RewardModel::on_top_of(model).unwrap();
        let _guard = tch::no_grad_guard();
        let mut head = model.score_head().shallow_clone();
        head.copy_(&tch::Tensor::linspace(-1.0, 1.0, 64, (tch::Kind::Float, Device::Cpu)).unsqueeze(0));
        model.save(&reward, Some(&policy)).unwrap();
        (policy, reward)
    }

    #[test]
    fn scores_see_the_date_of_the_candidates_and_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        let (policy, reward) = folders(dir.path());
        let template = "{{ strftime_now('%d') }}{% for m in messages %}{{ m.content }}{% endfor %}";
        for folder in [&policy, &reward] {
            std::fs::write(folder.join("chat_template.jinja"), template).unwrap();
        }
        let path = dir.path().join("prompts.jsonl");
        std::fs::write(&path, r#"{"prompt": [{"role": "user", "content": "x"}]}"#).unwrap();
        let settings = crate::GenerateSettings {
            prompts: crate::PromptSettings { files: vec![path], ..crate::PromptSettings::default() },
            sampling: crate::SamplingConfig { samples: 1, max_new_tokens: 2, ..crate::SamplingConfig::simplemix() },
            output: dir.path().join("c.parquet"),
            overwrite: false,
            share: None,
        };
        let local = crate::LocalSettings::new(&policy).with_date(Some("2024-02-29".to_owned()));
        let mut model = crate::LocalGenerator::load(&local).unwrap();
        crate::generate(&settings, &mut model, &mut Unwatched).unwrap();

        let mut settings = ScoreSettings {
            candidates: settings.output,
            output: dir.path().join("s.parquet"),
            reference: false,
            overwrite: false,
        };
        let scorer = ScorerSettings::new(ScorerKind::RewardModel(RewardSettings::new(&reward)));
        let scored = |settings: &ScoreSettings, date: Option<String>| {
            score(settings, &mut [scorer.clone().with_date(date).open().unwrap()], &mut Unwatched)
        };
        assert_eq!(settings.template_date().as_deref(), Some("2024-02-29"));
        let report = scored(&settings, settings.template_date()).unwrap();
        // On another day they are found finished; another date is other work.
        assert_eq!(scored(&settings, settings.template_date()).unwrap(), report);
        assert!(scored(&settings, Some("2024-03-01".to_owned())).is_err());
        // Candidates without a date: the first day of scoring is kept.
        settings.candidates = dir.path().join("c.jsonl");
        std::fs::write(&settings.candidates, r#"{"prompt": [{"role": "user", "content": "x"}], "response": "y"}"#)
            .unwrap();
        assert_eq!(settings.template_date().as_deref(), Some("2024-02-29"));
        settings.output = dir.path().join("t.parquet");
        assert_eq!(settings.template_date(), None);
        let first = scored(&settings, Some("2024-01-31".to_owned())).unwrap();
        assert_eq!(settings.template_date().as_deref(), Some("2024-01-31"));
        settings.output = dir.path().join("u.parquet");
        let other = scored(&settings, Some("2024-01-01".to_owned())).unwrap();
        assert!(first.means["score"] != other.means["score"], "the day is part of what is scored");
        // Settings of the scorer go before it.
        let own = RewardSettings { template_date: Some("2023-01-01".to_owned()), ..RewardSettings::new(&reward) };
        let own = ScorerSettings::new(ScorerKind::RewardModel(own)).with_date(Some("2024-01-01".to_owned()));
        assert_eq!(own.open().unwrap().scorer.template_date().as_deref(), Some("2023-01-01"));
    }

    #[test]
    fn scores_do_not_depend_on_the_batch_size() {
        let dir = tempfile::tempdir().unwrap();
        let (_, reward) = folders(dir.path());

        let group = |id: &str, responses: &[&str]| Group {
            prompt: Prompt::new(id, Text::Messages(vec![Message::user(format!("question {id}"))])),
            responses: responses.iter().map(|text| (*text).to_owned()).collect(),
        };
        let groups = [group("a", &["yes", "no, rather not"]), group("b", &["perhaps", "", "x"])];
        let all = |batch_tokens: usize, max_length: usize| {
            let settings = RewardSettings { batch_tokens, max_length, ..RewardSettings::new(&reward) };
            score_all(&mut RewardScorer::load(settings).unwrap(), &groups).unwrap()
        };
        let (whole, single) = (all(8192, 4096), all(1, 4096));
        for (whole, single) in whole.iter().flatten().zip(single.iter().flatten()) {
            assert!((whole.unwrap() - single.unwrap()).abs() < 1e-5);
        }
        // By hand: the score is that of the last token of the rendered conversation.
        let tokenizer = PairTokenizer::from_dir(&reward, TokenizeOptions::default()).unwrap();
        let ids = tokenizer
            .inner()
            .encode("<|im_start|>user\nquestion a<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n", false);
        let model = RewardModel::load(&reward, tch::Kind::Float, Device::Cpu).unwrap();
        let expected = model.score(&[ids.unwrap().get_ids()]).unwrap()[0];
        assert!((single[0][0].unwrap() - expected).abs() < 1e-5);
        assert!(whole[0][0] != whole[0][1]);
        assert!(all(8192, 3)[0][0] != whole[0][0], "cut");
    }
}
