//! Responses from a server.

use std::sync::Arc;

use super::client::ServerClient;
use super::pool::in_parallel;
use super::request::Ask;
use super::settings::{OnRefused, ServerSettings};
use super::token_ids::compare_ids;
use super::told::{Beside, Once};
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
    /// Everything that responses depend on, where that is not the server's address.
    mark: Option<String>,
}

impl ServerGenerator {
    /// Checks the settings and prepares the client.
    ///
    /// # Errors
    /// Those of [`ServerClient::new`].
    pub fn new(settings: ServerSettings) -> Result<Self> {
        let client = ServerClient::new(settings)?;
        let name = client.settings().name.clone().unwrap_or_else(|| client.model().to_owned());
        Ok(Self { client: Arc::new(client), name, mark: None })
    }

    /// A model that may be behind any address, and is known by `mark`.
    pub(super) fn known_by(settings: ServerSettings, mark: String) -> Result<Self> {
        Ok(Self { mark: Some(mark), ..Self::new(settings)? })
    }
}

impl Generator for ServerGenerator {
    fn name(&self) -> &str {
        &self.name
    }

    fn fingerprint(&self) -> String {
        self.mark.clone().unwrap_or_else(|| self.client.fingerprint())
    }

    fn sample(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn CandidateSink,
    ) -> Result<()> {
        check_sampling(sampling)?;
        let mut requests = requests(jobs).peekable();
        if let (Some(Ok((_, _, prompt))), Some(tokenizer)) = (requests.peek(), &self.client.settings().tokenizer) {
            let notice = compare_ids(&self.client, tokenizer, prompt, &|| sink.is_interrupted())?;
            notice.iter().for_each(|notice| sink.notice(notice));
        }
        let (client, sampling) = (self.client.clone(), sampling.clone());
        let workers = client.settings().concurrency;
        let work = move |(index, sample, prompt): (u64, usize, Arc<Prompt>), stopped: &dyn Fn() -> bool| {
            let (candidate, told) = request(&client, &prompt, sample, &sampling, stopped)?.told(&prompt);
            Ok((Sampled { index, sample, candidate }, told))
        };
        let mut once = Once::default();
        let sink = std::cell::RefCell::new(sink);
        let stopped = || sink.borrow().is_interrupted();
        let done = in_parallel(workers, &mut requests, work, &stopped, &mut |(sampled, beside)| {
            let mut sink = sink.borrow_mut();
            sink.failed(&self.client.failures())?;
            let wants_logps = self.client.settings().logps && self.client.sends("logprobs");
            let notices = self.client.notices().into_iter();
            notices.chain(once.notices(&sampled, beside, wants_logps)).for_each(|notice| sink.notice(&notice));
            sink.keep(vec![sampled])
        });
        // Those of the request that ended the work.
        done.and(sink.borrow_mut().failed(&self.client.failures()))
    }
}

/// Requests for samples: number of the prompt, number of the sample, prompt.
pub(super) fn requests(
    jobs: &mut dyn Iterator<Item = Result<Job>>,
) -> impl Iterator<Item = Result<(u64, usize, Arc<Prompt>)>> {
    jobs.flat_map(|job| match job {
        Ok(Job { index, prompt, samples }) => {
            let prompt = Arc::new(prompt);
            samples.into_iter().map(|sample| Ok((index, sample, prompt.clone()))).collect()
        }
        Err(error) => vec![Err(error)],
    })
}

/// Refuses settings that no request has a field for.
pub(super) fn check_sampling(sampling: &SamplingConfig) -> Result<()> {
    let given = [
        ("no_repeat_ngram_size", sampling.no_repeat_ngram_size.is_some()),
        ("suppress_tokens", sampling.suppress_tokens.is_some()),
        ("begin_suppress_tokens", sampling.begin_suppress_tokens.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((key, _)) => Err(Error::Setting {
            key,
            found: "given".to_owned(),
            expected: "no value with a server, whose interface has no such field; `extra` sends others",
        }),
    }
}

/// Answer to a request for a sample.
pub(super) enum Asked {
    /// A sample, and the fields that the server keeps apart from its text.
    Told(Candidate, Vec<&'static str>),
    /// The server refuses the prompt, with these words, and refusals are skipped.
    Refused(String),
}

impl Asked {
    /// The response, if there is one, and what the server says beside it.
    pub(super) fn told(self, prompt: &Prompt) -> (Option<Candidate>, Beside) {
        match self {
            Self::Told(candidate, apart) => (Some(candidate), Beside::Apart(apart)),
            Self::Refused(found) => (None, Beside::Refusal(format!("prompt `{}`: refused: {found}", prompt.id))),
        }
    }
}

/// Requests one sample. Every setting is sent, also a neutral one: a server may fill what is absent from the model's
/// `generation_config.json`, as vLLM and SGLang do.
pub(super) fn request(
    client: &ServerClient,
    prompt: &Prompt,
    sample: usize,
    sampling: &SamplingConfig,
    stopped: &dyn Fn() -> bool,
) -> Result<Asked> {
    let seed = sample_seed(sampling.seed, &prompt.id, sample);
    let ask = Ask {
        max_tokens: Some(sampling.max_new_tokens),
        temperature: Some(sampling.temperature),
        top_p: Some(sampling.top_p),
        top_k: Some(sampling.top_k),
        min_p: Some(sampling.min_p),
        repetition_penalty: Some(sampling.repetition_penalty.unwrap_or(1.0)),
        min_tokens: sampling.min_new_tokens.filter(|least| *least > 0),
        seed: Some(seed),
        logprobs: client.settings().logps,
        inputs: prompt.inputs.clone(),
        ..Ask::neutral()
    };
    match client.ask(&prompt.prompt, &ask, stopped) {
        Ok(reply) => {
            let apart = reply.apart.clone();
            let candidate = Candidate {
                logp: reply.logp(),
                tokens: reply.tokens.unwrap_or(0),
                finish: reply.finish,
                text: reply.text,
                seed: client.sends("seed").then_some(seed),
                server: None,
            };
            Ok(Asked::Told(candidate, apart))
        }
        Err(Error::Server { status: Some(400 | 413 | 422), found, .. })
            if client.settings().on_refused == OnRefused::Skip =>
        {
            tracing::debug!("prompt `{}`: refused: {found}", prompt.id);
            Ok(Asked::Refused(found))
        }
        Err(Error::Server { url, status, found, attempts }) => {
            Err(Error::Server { url, status, found: format!("prompt `{}`: {found}", prompt.id), attempts })
        }
        Err(error) => Err(error),
    }
}
