//! Answers from a server.

use std::sync::Arc;

use super::client::{Ask, ServerClient};
use super::pool::in_parallel;
use super::settings::{OnRefused, ServerSettings};
use crate::error::{Error, Result};
use crate::generator::{AnswerSink, Answered, Candidate, Generator, Job, Prompt, SamplingConfig, sample_seed};

/// A model behind a server. Each sample is a request of its own with a seed of its own.
#[derive(Debug)]
pub struct ServerGenerator {
    client: Arc<ServerClient>,
    name: String,
}

impl ServerGenerator {
    /// Gets ready to ask.
    ///
    /// # Errors
    /// As [`ServerClient::new`].
    pub fn new(settings: ServerSettings) -> Result<Self> {
        let client = ServerClient::new(settings)?;
        let name = client.settings().name.clone().unwrap_or_else(|| client.model().to_owned());
        Ok(Self { client: Arc::new(client), name })
    }
}

impl Generator for ServerGenerator {
    fn name(&self) -> &str {
        &self.name
    }

    fn fingerprint(&self) -> String {
        self.client.settings().fingerprint(self.client.model())
    }

    fn answer(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn AnswerSink,
    ) -> Result<()> {
        let mut questions = jobs.flat_map(|job| match job {
            Ok(Job { place, prompt, samples }) => {
                let prompt = Arc::new(prompt);
                samples.into_iter().map(|sample| Ok((place, sample, prompt.clone()))).collect()
            }
            Err(error) => vec![Err(error)],
        });
        let (client, sampling) = (self.client.clone(), *sampling);
        let workers = client.settings().concurrency;
        let work = move |(place, sample, prompt): (u64, usize, Arc<Prompt>), stopped: &dyn Fn() -> bool| {
            let answer = one(&client, &prompt, sample, &sampling, stopped)?;
            Ok(Answered { place, sample, answer })
        };
        let sink = std::cell::RefCell::new(sink);
        let stopped = || sink.borrow().stopped();
        in_parallel(workers, &mut questions, work, &stopped, &mut |answered| sink.borrow_mut().answered(vec![answered]))
    }
}

/// One sample; none if the server refuses the prompt and that is passed over.
fn one(
    client: &ServerClient,
    prompt: &Prompt,
    sample: usize,
    sampling: &SamplingConfig,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Candidate>> {
    let seed = sample_seed(sampling.seed, &prompt.id, sample);
    let ask = Ask {
        max_tokens: Some(sampling.max_new_tokens),
        temperature: Some(sampling.temperature),
        top_p: Some(sampling.top_p),
        top_k: (sampling.top_k > 0).then_some(sampling.top_k),
        min_p: (sampling.min_p > 0.0).then_some(sampling.min_p),
        seed: Some(seed),
        logprobs: client.settings().logps,
        ..Ask::default()
    };
    match client.ask(&prompt.prompt, &ask, stopped) {
        Ok(reply) => Ok(Some(Candidate {
            logp: reply.logp(),
            tokens: reply.tokens.unwrap_or(0),
            finish: reply.finish,
            text: reply.text,
            seed: Some(seed),
        })),
        Err(Error::Server { status: Some(400 | 413 | 422), found, .. })
            if client.settings().on_refused == OnRefused::Skip =>
        {
            tracing::warn!("prompt `{}`: refused: {found}", prompt.id);
            Ok(None)
        }
        Err(Error::Server { url, status, found, attempts }) => {
            Err(Error::Server { url, status, found: format!("prompt `{}`: {found}", prompt.id), attempts })
        }
        Err(error) => Err(error),
    }
}
