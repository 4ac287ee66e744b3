//! Answers from a model in this process.

use simplemix_data::PairTokenizer;
use simplemix_model::{CausalLm, GenerateOptions, Generated, Request, Sampling};

use crate::error::Result;
use crate::generator::{Candidate, Finish, Generator, Prompt, SamplingConfig};

/// A model with its tokenizer.
pub struct LocalGenerator<'a> {
    model: &'a CausalLm,
    tokenizer: &'a PairTokenizer,
    name: String,
    batch_rows: usize,
}

impl<'a> LocalGenerator<'a> {
    /// `name` is what pairs will have as their generator; `batch_rows` answers are made together.
    pub fn new(model: &'a CausalLm, tokenizer: &'a PairTokenizer, name: impl Into<String>, batch_rows: usize) -> Self {
        Self { model, tokenizer, name: name.into(), batch_rows }
    }

    fn candidate(&self, answer: &Generated) -> Result<Candidate> {
        Ok(Candidate {
            text: self.tokenizer.decode(&answer.tokens)?,
            tokens: answer.tokens.len(),
            logp: Some(answer.logps.iter().map(|&logp| f64::from(logp)).sum()),
            finish: match answer.finish {
                simplemix_model::Finish::Stop => Finish::Stop,
                simplemix_model::Finish::Length => Finish::Length,
            },
        })
    }
}

impl Generator for LocalGenerator<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn generate(
        &mut self,
        prompts: &[Prompt],
        sampling: &SamplingConfig,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<Candidate>>> {
        let requests = prompts
            .iter()
            .map(|p| Ok(Request { prompt: self.tokenizer.encode_prompt(&p.prompt)?, stream: stream(&p.id) }))
            .collect::<Result<Vec<_>>>()?;
        let options = GenerateOptions {
            samples: sampling.samples,
            max_new_tokens: sampling.max_new_tokens,
            stop_tokens: self.tokenizer.eos_ids().to_vec(),
            sampling: Sampling {
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                seed: sampling.seed,
                ..Sampling::default()
            },
            batch_rows: self.batch_rows,
            ..GenerateOptions::default()
        };
        let answers = self.model.generate(&requests, &options, progress)?;
        answers.iter().map(|of_prompt| of_prompt.iter().map(|answer| self.candidate(answer)).collect()).collect()
    }
}

/// A prompt's random stream, from its id alone (FNV-1a), so that neither order nor company of prompts matters.
fn stream(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use simplemix_data::{Message, Text, TokenizeOptions};
    use simplemix_model::tiny;

    #[test]
    fn a_tiny_model_answers_in_order_and_again_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tiny");
        tiny::write_folder(&folder, 3).unwrap();
        let model = CausalLm::load(&folder, tch::Kind::Float, tch::Device::Cpu).unwrap();
        let tokenizer = PairTokenizer::from_dir(&folder, TokenizeOptions::default()).unwrap();
        let prompt = |i: usize| Prompt {
            id: format!("p{i}"),
            prompt: Text::Messages(vec![Message::user("x".repeat(i + 1))]),
            task: None,
            answer: None,
        };
        let sampling = SamplingConfig { samples: 2, temperature: 1.0, top_p: 1.0, max_new_tokens: 6, seed: 9 };
        let mut generator = LocalGenerator::new(&model, &tokenizer, "tiny", 8);
        let all = generator.generate(&[prompt(0), prompt(1)], &sampling, &mut |_, _| {}).unwrap();
        let second = generator.generate(&[prompt(1)], &sampling, &mut |_, _| {}).unwrap();
        assert_eq!(all[1], second[0]);
        assert!(all.iter().flatten().all(|c| c.tokens <= 6 && c.logp.is_some_and(|l| l < 0.0)));
    }
}
