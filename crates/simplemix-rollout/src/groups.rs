//! Parts that the generators of this process share: groups of jobs, options of a batch, responses as candidates.

use simplemix_data::PairTokenizer;
use simplemix_model::{GenerateOptions, Generated, GenerationConfig, ModelConfig, Processors, Sampling};

use crate::error::{Error, Result};
use crate::finish::Finish;
use crate::generator::{Candidate, Job, ModelProcessors, Prompt, Sampled, SamplingConfig};

/// Batches in a group. Larger groups waste less time at the end of each; smaller ones lose less when a run is killed.
const BATCHES_IN_GROUP: usize = 4;

/// Passes jobs to `sample` in groups, whose responses are sampled and kept together: the last bits of a log-probability
/// depend on the other rows of its batch.
pub(crate) fn in_groups(
    jobs: &mut dyn Iterator<Item = Result<Job>>,
    batch_rows: usize,
    samples: usize,
    sample: &mut dyn FnMut(&[Job]) -> Result<()>,
) -> Result<()> {
    let size = (batch_rows * BATCHES_IN_GROUP).div_ceil(samples.max(1)).max(1) as u64;
    let mut waiting: Vec<Job> = Vec::new();
    for job in jobs {
        let job = job?;
        // Groups are ranges of the prompts' numbers, so that a continued run forms the same ones.
        if waiting.first().is_some_and(|first| first.index / size != job.index / size) {
            sample(&waiting)?;
            waiting.clear();
        }
        waiting.push(job);
    }
    if waiting.is_empty() { Ok(()) } else { sample(&waiting) }
}

/// Refuses a prompt whose tokens `model` does not have, or that is too long for it once its response follows.
pub(crate) fn check(
    model: &ModelConfig,
    tokenizer: &PairTokenizer,
    prompt: &Prompt,
    sampling: &SamplingConfig,
) -> Result<()> {
    let ids = tokenizer.encode_prompt_with(&prompt.prompt, &prompt.inputs).map_err(|error| match error {
        simplemix_data::Error::Template { name, message } => {
            simplemix_data::Error::Template { name, message: format!("prompt `{}`: {message}", prompt.id) }
        }
        error => error,
    })?;
    let unfit = |source| Error::Unfit { id: prompt.id.clone(), source: Box::new(source) };
    model.check_sequence(&ids, sampling.max_new_tokens).map_err(unfit)
}

/// Limits and sampling of a batch of `batch_rows` responses.
pub(crate) fn options(tokenizer: &PairTokenizer, sampling: &SamplingConfig, batch_rows: usize) -> GenerateOptions {
    GenerateOptions {
        samples: sampling.samples,
        max_new_tokens: sampling.max_new_tokens,
        stop_tokens: tokenizer.eos_ids().to_vec(),
        sampling: Sampling {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            seed: sampling.seed,
        },
        batch_rows,
        ..GenerateOptions::default()
    }
}

/// Processors of the samples of a model: those that its `generation_config.json` asks for, and over them what `sampling` gives.
pub(crate) fn processors(model: &GenerationConfig, sampling: &SamplingConfig) -> Processors {
    let base = match sampling.generation_config {
        ModelProcessors::Model => model.processors.clone(),
        ModelProcessors::None => Processors::default(),
    };
    Processors {
        repetition_penalty: sampling.repetition_penalty.unwrap_or(base.repetition_penalty),
        no_repeat_ngram_size: sampling.no_repeat_ngram_size.unwrap_or(base.no_repeat_ngram_size),
        suppress_tokens: sampling.suppress_tokens.clone().unwrap_or(base.suppress_tokens),
        begin_suppress_tokens: sampling.begin_suppress_tokens.clone().unwrap_or(base.begin_suppress_tokens),
        min_new_tokens: sampling.min_new_tokens.unwrap_or(base.min_new_tokens),
        ..base
    }
}

/// The responses to `jobs`, in the order of the jobs, for a sink.
pub(crate) fn sampled(
    tokenizer: &PairTokenizer,
    jobs: &[Job],
    responses: &[Vec<Generated>],
    seed: u64,
) -> Result<Vec<Sampled>> {
    let mut all = Vec::new();
    for (job, of_prompt) in jobs.iter().zip(responses) {
        for (sample, response) in of_prompt.iter().enumerate() {
            let candidate = Some(candidate(tokenizer, response, seed)?);
            all.push(Sampled { index: job.index, sample, candidate });
        }
    }
    Ok(all)
}

fn candidate(tokenizer: &PairTokenizer, response: &Generated, seed: u64) -> Result<Candidate> {
    Ok(Candidate {
        text: Some(tokenizer.decode(&response.tokens)?),
        tokens: response.tokens.len(),
        logp: Some(response.logps.iter().map(|&logp| f64::from(logp)).sum()),
        finish: Some(match response.finish {
            simplemix_model::Finish::Stop => Finish::Stop,
            simplemix_model::Finish::Length => Finish::Length,
        }),
        seed: Some(seed),
        server: None,
    })
}
