//! Responses from a server.

use std::sync::Arc;

use super::client::{Ask, ServerClient};
use super::pool::in_parallel;
use super::settings::{OnRefused, ServerSettings};
use crate::error::{Error, Result};
use crate::generator::{Candidate, CandidateSink, Generator, Job, Prompt, Sampled, SamplingConfig};
use crate::random::sample_seed;

/// A model behind a server. Each sample is a separate request with its own seed.
///
/// # Examples
/// ```no_run
/// use simplemix_rollout::{Generator, Prompt, SamplingConfig, ServerGenerator, ServerSettings};
/// let mut model = ServerGenerator::new(ServerSettings::new("http://localhost:8000/v1"))?;
/// let prompts = [Prompt::new("a", "What is 2 + 2?")];
/// let candidates = model.generate(&prompts, &SamplingConfig::simplemix(), &mut |_, _| {})?;
/// # Ok::<(), simplemix_rollout::Error>(())
/// ```
#[derive(Debug)]
pub struct ServerGenerator {
    client: Arc<ServerClient>,
    name: String,
}

impl ServerGenerator {
    /// Checks the settings and prepares the client.
    ///
    /// # Errors
    /// Those of [`ServerClient::new`].
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
        self.client.fingerprint()
    }

    fn sample(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn CandidateSink,
    ) -> Result<()> {
        let mut requests = jobs.flat_map(|job| match job {
            Ok(Job { index, prompt, samples }) => {
                let prompt = Arc::new(prompt);
                samples.into_iter().map(|sample| Ok((index, sample, prompt.clone()))).collect()
            }
            Err(error) => vec![Err(error)],
        });
        let (client, sampling) = (self.client.clone(), *sampling);
        let workers = client.settings().concurrency;
        let work = move |(index, sample, prompt): (u64, usize, Arc<Prompt>), stopped: &dyn Fn() -> bool| {
            let candidate = request(&client, &prompt, sample, &sampling, stopped)?;
            Ok(Sampled { index, sample, candidate })
        };
        let sink = std::cell::RefCell::new(sink);
        let stopped = || sink.borrow().is_interrupted();
        in_parallel(workers, &mut requests, work, &stopped, &mut |sampled| sink.borrow_mut().keep(vec![sampled]))
    }
}

/// Requests one sample; `None` if the server refuses the prompt and refusals are skipped.
fn request(
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
        inputs: prompt.inputs.clone(),
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
