//! Scores from a reward model in this process: a sequence classifier over prompt and response.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use simplemix_data::{PairTokenizer, TokenizeOptions};
use simplemix_files::hash_model_folder;
use simplemix_model::{Dtype, RewardModel, default_device};

use crate::error::{Error, Result};
use crate::scorer::{Group, ScoreSink, Scorer};

/// Settings of a reward model in this process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardSettings {
    /// Model folder of a `*ForSequenceClassification` with one label.
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
        Self { model: model.into(), max_length: max_length(), batch_tokens: batch_tokens(), dtype: Dtype::Auto }
    }
}

/// Scorer that runs a reward model.
pub struct RewardScorer {
    model: RewardModel,
    tokenizer: PairTokenizer,
    settings: RewardSettings,
    fingerprint: String,
}

impl RewardScorer {
    /// Loads a model folder, onto a GPU if there is one.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Data`] or [`Error::Model`] with the setting or the file that cannot be used.
    pub fn load(settings: RewardSettings) -> Result<Self> {
        for (key, value) in [("max_length", settings.max_length), ("batch_tokens", settings.batch_tokens)] {
            if value == 0 {
                return Err(Error::Setting { key, found: "0".into(), expected: "at least 1" });
            }
        }
        let device = default_device();
        let kind = settings.dtype.kind(device);
        let tokenizer = PairTokenizer::from_dir(&settings.model, TokenizeOptions::default())?;
        let hash = hash_model_folder(&settings.model)?;
        let fingerprint = format!("{hash} {kind:?} {device:?} {} {}", settings.max_length, settings.batch_tokens);
        let model = RewardModel::load(&settings.model, kind, device)?;
        Ok(Self { model, tokenizer, settings, fingerprint })
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

    fn score(&mut self, groups: &[Group], sink: &mut dyn ScoreSink) -> Result<()> {
        let sequences = self.encode(groups)?;
        // Shortest first, so that sequences in a batch have similar lengths.
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&at| sequences[at].len());
        let mut scores = vec![None; sequences.len()];
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            if sink.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let mut tokens = 0;
            let fits = |at: &&usize| {
                tokens += sequences[**at].len();
                tokens <= self.settings.batch_tokens
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            let batch: Vec<&[u32]> = now.iter().map(|&at| sequences[at].as_slice()).collect();
            for (&at, score) in now.iter().zip(self.model.score(&batch)?) {
                scores[at] = Some(score);
            }
            rest = later;
        }
        let mut scores = scores.into_iter();
        let of_group = |group: &Group| scores.by_ref().take(group.responses.len()).collect();
        let scores: Vec<Vec<Option<f64>>> = groups.iter().map(of_group).collect();
        sink.keep(scores.into_iter().enumerate().collect())
    }
}

#[cfg(test)]
mod tests {
    use simplemix_data::{Message, Text};
    use simplemix_model::{CausalLm, tiny};
    use tch::Device;

    use super::*;
    use crate::generator::Prompt;
    use crate::scorer::score_all;

    #[test]
    fn scores_do_not_depend_on_the_batch_size() {
        let dir = tempfile::tempdir().unwrap();
        let (policy, reward) = (dir.path().join("policy"), dir.path().join("reward"));
        tiny::write_folder(&policy, 5).unwrap();
        let model = CausalLm::load(&policy, tch::Kind::Float, Device::Cpu).unwrap();
        let model = RewardModel::on_top_of(model).unwrap();
        let _guard = tch::no_grad_guard();
        let mut head = model.score_head().shallow_clone();
        head.copy_(&tch::Tensor::linspace(-1.0, 1.0, 64, (tch::Kind::Float, Device::Cpu)).unsqueeze(0));
        model.save(&reward, Some(&policy)).unwrap();

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
