//! Responses of a round's model in this process, by which it is seen that a server has its weights.
//!
//! They are made before the server is asked, and in a stage of their own: models need the devices that a server may take, and several
//! servers, or a collection that goes on, are measured by one file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};
use crate::generator::Prompt;

/// Likeliest responses of a model to the first prompts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Yardstick {
    /// Responses, one a prompt.
    pub responses: Vec<OwnResponse>,
}

/// Likeliest response of a model in this process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnResponse {
    /// Prompt that is responded to.
    pub prompt: Prompt,
    /// Token ids of the prompt.
    pub prompt_ids: Vec<u32>,
    /// Token ids of the response.
    pub ids: Vec<u32>,
    /// Text of each token.
    pub tokens: Vec<String>,
    /// Text of the response.
    pub text: String,
    /// Log-probability of each token in nats.
    pub logps: Vec<f64>,
    /// View of the model before, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
}

/// Numbers of the prompt for the model before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// Log-probability, under it, of each token of the other model's response, in nats.
    pub logps: Vec<f64>,
    /// Text of its own likeliest response.
    pub text: String,
}

impl Yardstick {
    /// Reads a file of [`measure`].
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Row`] for a file that cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let text = simplemix_files::read_to_string(path).at(path, "read")?;
        serde_json::from_str(&text).map_err(|error| Error::Row {
            path: path.to_owned(),
            row: 0,
            found: error.to_string(),
            expected: "own responses of a model as JSON".to_owned(),
        })
    }

    /// Tokens of all responses.
    pub fn tokens(&self) -> usize {
        self.responses.iter().map(|response| response.ids.len()).sum()
    }

    /// Root of the mean squared difference of a token's log-probability between the model and the one before, in nats; none without
    /// one.
    pub fn gap(&self) -> Option<f64> {
        let mut squares = Vec::new();
        for response in &self.responses {
            let before = response.before.as_ref()?;
            squares.extend(response.logps.iter().zip(&before.logps).map(|(own, before)| (own - before).powi(2)));
        }
        (!squares.is_empty()).then(|| (squares.iter().sum::<f64>() / squares.len() as f64).sqrt())
    }
}

#[cfg(feature = "local")]
pub use own::{YardstickReport, YardstickSettings, measure};

#[cfg(feature = "local")]
mod own {
    use std::path::PathBuf;

    use serde::{Deserialize, Serialize};
    use simplemix_data::{PairTokenizer, Watch};
    use simplemix_model::{CausalLm, Generated, Packed, Request};
    use tch::{Kind, Tensor};

    use super::{Before, OwnResponse, Yardstick};
    use crate::error::{Error, Result};
    use crate::generator::{Prompt, SamplingConfig};
    use crate::groups::{check, options};
    use crate::journal::json;
    use crate::local::LocalSettings;
    use crate::prompts::PromptSettings;

    /// Prompts that are responded to, and tokens of a response.
    const PROMPTS: usize = 8;
    const TOKENS: usize = 32;

    /// Settings of [`measure`].
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct YardstickSettings {
        /// Prompts, of which the first are taken.
        pub prompts: PromptSettings,
        /// Model of the round.
        pub model: LocalSettings,
        /// Folder of the model that the server had before, if any.
        pub before: Option<PathBuf>,
        /// File to write.
        pub output: PathBuf,
    }

    /// Summary of [`measure`].
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    #[non_exhaustive]
    pub struct YardstickReport {
        /// Prompts responded to.
        pub prompts: u64,
        /// Tokens of the responses.
        pub tokens: u64,
        /// Root of the mean squared difference of a token's log-probability between the model and the one before, in nats.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub difference_to_before: Option<f64>,
    }

    /// Writes the likeliest responses of a model to the first prompts, with log-probabilities under it and under the model before.
    ///
    /// # Errors
    /// Errors of reading prompts, of loading and running models, and of writing the file.
    pub fn measure(settings: &YardstickSettings, watch: &mut dyn Watch) -> Result<YardstickReport> {
        let prompts = settings.prompts.read().take(PROMPTS).collect::<Result<Vec<Prompt>>>()?;
        let total = 2 + u64::from(settings.before.is_some());
        let mut step = |done: u64| {
            watch.progress("own responses", done, total);
            if watch.is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
        };
        step(0)?;
        let mut yardstick = own_responses(&settings.model, &prompts)?;
        step(1)?;
        if let Some(folder) = &settings.before {
            let before = LocalSettings { model: folder.clone(), ..settings.model.clone() };
            add_before(&before, &mut yardstick)?;
            step(2)?;
        }
        simplemix_files::write(&settings.output, json(&yardstick))?;
        step(total)?;
        Ok(YardstickReport {
            prompts: prompts.len() as u64,
            tokens: yardstick.tokens() as u64,
            difference_to_before: yardstick.gap(),
        })
    }

    fn own_responses(local: &LocalSettings, prompts: &[Prompt]) -> Result<Yardstick> {
        let (model, tokenizer) = loaded(local)?;
        let sampling = SamplingConfig::greedy(TOKENS);
        prompts.iter().try_for_each(|prompt| check(model.config(), &tokenizer, prompt, &sampling))?;
        let ids = prompts.iter().map(|prompt| Ok(tokenizer.encode_prompt_with(&prompt.prompt, &prompt.inputs)?));
        let ids = ids.collect::<Result<Vec<_>>>()?;
        let mut responses = Vec::new();
        for ((prompt, prompt_ids), generated) in prompts.iter().zip(&ids).zip(greedy(&model, &tokenizer, &ids)?) {
            responses.push(OwnResponse {
                prompt: prompt.clone(),
                prompt_ids: prompt_ids.clone(),
                tokens: generated.tokens.iter().map(|&id| token_text(&tokenizer, id)).collect(),
                text: tokenizer.decode(&generated.tokens)?,
                logps: logps(&model, prompt_ids, &generated.tokens)?,
                ids: generated.tokens,
                before: None,
            });
        }
        Ok(Yardstick { responses })
    }

    fn add_before(local: &LocalSettings, yardstick: &mut Yardstick) -> Result<()> {
        let (model, tokenizer) = loaded(local)?;
        let ids: Vec<Vec<u32>> = yardstick.responses.iter().map(|response| response.prompt_ids.clone()).collect();
        for (response, own) in yardstick.responses.iter_mut().zip(greedy(&model, &tokenizer, &ids)?) {
            let logps = logps(&model, &response.prompt_ids, &response.ids)?;
            response.before = Some(Before { logps, text: tokenizer.decode(&own.tokens)? });
        }
        Ok(())
    }

    fn loaded(local: &LocalSettings) -> Result<(CausalLm, PairTokenizer)> {
        let device = local.device.open().map_err(simplemix_model::Error::from)?;
        let kind = local.dtype.kind(device);
        Ok((CausalLm::load_quantized(&local.model, kind, device, &local.load_in.into())?, local.tokenizer()?))
    }

    fn greedy(model: &CausalLm, tokenizer: &PairTokenizer, prompts: &[Vec<u32>]) -> Result<Vec<Generated>> {
        let request = |prompt: &Vec<u32>| Request { prompt: prompt.clone(), stream: 0 };
        let requests: Vec<Request> = prompts.iter().map(request).collect();
        let options = options(tokenizer, &SamplingConfig::greedy(TOKENS), PROMPTS);
        let responses = model.generate(&requests, &options, &mut |_, _| {})?;
        Ok(responses.into_iter().flatten().collect())
    }

    /// Log-probability of each token of a response, by one forward pass over prompt and response.
    fn logps(model: &CausalLm, prompt: &[u32], response: &[u32]) -> Result<Vec<f64>> {
        let _guard = tch::no_grad_guard();
        let mut packed = Packed::of(model.config());
        packed.push(&[prompt, response].concat())?;
        let (first, count) = (prompt.len() as i64 - 1, response.len() as i64);
        let hidden = model.hidden_states(&packed)?.narrow(0, first, count);
        let ids: Vec<i64> = response.iter().map(|&id| i64::from(id)).collect();
        let ids = Tensor::from_slice(&ids).to_device(model.device()).unsqueeze(1); // [R, 1]
        let all = model.logits(&hidden)?.log_softmax(-1, Kind::Float); // [R, V]
        let own = all.gather(1, &ids, false).squeeze_dim(1).to_kind(Kind::Double);
        Vec::<f64>::try_from(own).map_err(|error| Error::Process(Box::new(error)))
    }

    /// Text of one token, special ones too; one that is a part of a character only has U+FFFD.
    fn token_text(tokenizer: &PairTokenizer, id: u32) -> String {
        tokenizer.inner().decode(&[id], false).unwrap_or_default()
    }

    #[cfg(test)]
    mod tests {
        use simplemix_data::Unwatched;
        use simplemix_model::tiny;

        use super::*;

        /// The sum over a response is what sampling itself tells, and the model before is told by the same tokens.
        #[test]
        fn own_responses_have_the_log_probabilities_of_both_models() {
            let dir = tempfile::tempdir().unwrap();
            let folder = |seed| {
                let folder = dir.path().join(format!("tiny-{seed}"));
                tiny::write_folder(&folder, seed).unwrap();
                folder
            };
            let file = dir.path().join("p.jsonl");
            let rows: Vec<String> = (0..12).map(|i| format!(r#"{{"prompt": "question {i}"}}"#)).collect();
            std::fs::write(&file, rows.join("\n")).unwrap();
            let settings = YardstickSettings {
                prompts: PromptSettings { files: vec![file], ..PromptSettings::default() },
                model: LocalSettings::new(folder(1)),
                before: Some(folder(2)),
                output: dir.path().join("own.json"),
            };
            let report = measure(&settings, &mut Unwatched).unwrap();
            let yardstick = Yardstick::read(&settings.output).unwrap();
            assert_eq!((yardstick.responses.len(), report.prompts), (PROMPTS, 8));
            assert_eq!(report.difference_to_before, yardstick.gap());
            let (model, tokenizer) = loaded(&settings.model).unwrap();
            let (before, _) = loaded(&LocalSettings::new(settings.before.clone().unwrap())).unwrap();
            for response in &yardstick.responses {
                let whole = greedy(&model, &tokenizer, std::slice::from_ref(&response.prompt_ids)).unwrap().remove(0);
                assert_eq!(whole.tokens, response.ids);
                for (a, b) in whole.logps.iter().zip(&response.logps) {
                    assert!((f64::from(*a) - b).abs() < 1e-4, "{a} {b}");
                }
                // One token at a time, by logits of the prefix alone.
                let mut ids = response.prompt_ids.clone();
                for (&id, told) in response.ids.iter().zip(&response.before.as_ref().unwrap().logps) {
                    let mut packed = Packed::new();
                    packed.push(&ids).unwrap();
                    let last = before.hidden_states(&packed).unwrap().narrow(0, ids.len() as i64 - 1, 1);
                    let own =
                        before.logits(&last).unwrap().log_softmax(-1, Kind::Float).double_value(&[0, i64::from(id)]);
                    assert!((own - told).abs() < 1e-4, "{own} {told}");
                    ids.push(id);
                }
            }
            assert!(report.difference_to_before.unwrap() > 0.01);
        }
    }
}
