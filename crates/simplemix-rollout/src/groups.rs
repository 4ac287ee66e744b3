//! What generators on models in this process share: jobs in groups, the batch's settings, answers as they are kept.

use simplemix_data::PairTokenizer;
use simplemix_model::{GenerateOptions, Generated, Sampling};

use crate::error::Result;
use crate::generator::{Answered, Candidate, Finish, Job, SamplingConfig};

/// Batches of answers that are made and kept together. Larger groups waste less on the end of each, smaller ones lose less
/// when a run is killed.
const BATCHES_TOGETHER: usize = 4;

/// Hands jobs on in groups whose answers are to be made together, since the last bits of a log-probability depend on
/// what else is in the batch.
pub(crate) fn in_groups(
    jobs: &mut dyn Iterator<Item = Result<Job>>,
    batch_rows: usize,
    samples: usize,
    together: &mut dyn FnMut(&[Job]) -> Result<()>,
) -> Result<()> {
    let size = (batch_rows * BATCHES_TOGETHER).div_ceil(samples.max(1)).max(1) as u64;
    let mut waiting: Vec<Job> = Vec::new();
    for job in jobs {
        let job = job?;
        // Groups are of places, so that a run that goes on makes the same ones.
        if waiting.first().is_some_and(|first| first.place / size != job.place / size) {
            together(&waiting)?;
            waiting.clear();
        }
        waiting.push(job);
    }
    if waiting.is_empty() { Ok(()) } else { together(&waiting) }
}

/// Limits and sampling of a batch of `batch_rows` answers.
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
            ..Sampling::default()
        },
        batch_rows,
        ..GenerateOptions::default()
    }
}

/// Answers to `jobs`, in their order, as a sink takes them.
pub(crate) fn answered(
    tokenizer: &PairTokenizer,
    jobs: &[Job],
    answers: &[Vec<Generated>],
    seed: u64,
) -> Result<Vec<Answered>> {
    let mut all = Vec::new();
    for (job, of_prompt) in jobs.iter().zip(answers) {
        for (sample, answer) in of_prompt.iter().enumerate() {
            let answer = Some(candidate(tokenizer, answer, seed)?);
            all.push(Answered { place: job.place, sample, answer });
        }
    }
    Ok(all)
}

fn candidate(tokenizer: &PairTokenizer, answer: &Generated, seed: u64) -> Result<Candidate> {
    Ok(Candidate {
        text: tokenizer.decode(&answer.tokens)?,
        tokens: answer.tokens.len(),
        logp: Some(answer.logps.iter().map(|&logp| f64::from(logp)).sum()),
        finish: match answer.finish {
            simplemix_model::Finish::Stop => Finish::Stop,
            simplemix_model::Finish::Length => Finish::Length,
        },
        seed: Some(seed),
    })
}
