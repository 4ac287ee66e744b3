//! Responses from a server.

use std::path::Path;
use std::sync::Arc;

use simplemix_data::{PairTokenizer, TokenizeOptions};

use super::client::ServerClient;
use super::pool::in_parallel;
use super::request::Ask;
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
        let requests = jobs.flat_map(|job| match job {
            Ok(Job { index, prompt, samples }) => {
                let prompt = Arc::new(prompt);
                samples.into_iter().map(|sample| Ok((index, sample, prompt.clone()))).collect()
            }
            Err(error) => vec![Err(error)],
        });
        check_sampling(sampling)?;
        let mut requests = requests.peekable();
        if let (Some(Ok((_, _, prompt))), Some(tokenizer)) = (requests.peek(), &self.client.settings().tokenizer) {
            let notice = compare_ids(&self.client, tokenizer, prompt, &|| sink.is_interrupted())?;
            notice.iter().for_each(|notice| sink.notice(notice));
        }
        let (client, sampling) = (self.client.clone(), sampling.clone());
        let workers = client.settings().concurrency;
        let work = move |(index, sample, prompt): (u64, usize, Arc<Prompt>), stopped: &dyn Fn() -> bool| {
            let asked = request(&client, &prompt, sample, &sampling, stopped)?;
            let (candidate, refusal) = match asked {
                Asked::Told(candidate) => (Some(candidate), None),
                Asked::Refused(found) => (None, Some(format!("prompt `{}`: refused: {found}", prompt.id))),
            };
            Ok((Sampled { index, sample, candidate }, refusal))
        };
        let mut once = Once { wants_logps: self.client.settings().logps, ..Once::default() };
        let sink = std::cell::RefCell::new(sink);
        let stopped = || sink.borrow().is_interrupted();
        in_parallel(workers, &mut requests, work, &stopped, &mut |(sampled, refusal)| {
            let mut sink = sink.borrow_mut();
            let notices = self.client.notices().into_iter();
            notices.chain(once.notices(&sampled, refusal)).for_each(|notice| sink.notice(&notice));
            sink.keep(vec![sampled])
        })
    }
}

/// Facts that are told when they happen first.
#[derive(Default)]
struct Once {
    wants_logps: bool,
    told_refusal: bool,
    told_logps: bool,
}

impl Once {
    fn notices(&mut self, sampled: &Sampled, refusal: Option<String>) -> Vec<String> {
        let mut notices = Vec::new();
        if let Some(refusal) = refusal.filter(|_| !std::mem::replace(&mut self.told_refusal, true)) {
            notices.push(format!("{refusal}; further refusals are counted"));
        }
        let is_without = sampled.candidate.as_ref().is_some_and(|c| c.text.is_some() && c.logp.is_none());
        if self.wants_logps && is_without && !std::mem::replace(&mut self.told_logps, true) {
            notices.push(
                "the server tells no log-probabilities that are numbers, though they were asked for; such candidates are \
                 counted, and `logps` false asks for none"
                    .to_owned(),
            );
        }
        notices
    }
}

/// Refuses settings that no request has a field for.
fn check_sampling(sampling: &SamplingConfig) -> Result<()> {
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

/// Compares the server's token ids of a prompt with those of the model to be trained. The text for the user, if they differ
/// or the server tells nothing about them.
fn compare_ids(
    client: &ServerClient,
    tokenizer: &Path,
    prompt: &Prompt,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<String>> {
    let inputs = &prompt.inputs;
    let ours =
        PairTokenizer::from_dir(tokenizer, TokenizeOptions::default())?.encode_prompt_with(&prompt.prompt, inputs)?;
    let ask = Ask {
        max_tokens: Some(1),
        temperature: Some(0.0),
        prompt_ids: true,
        lenient: true,
        inputs: inputs.clone(),
        ..Ask::default()
    };
    let reply = match client.ask(&prompt.prompt, &ask, stopped) {
        Ok(reply) => Some(reply),
        // The request for a sample tells why, or skips the prompt.
        Err(Error::Server { status: Some(400 | 413 | 422), .. }) => None,
        Err(error) => return Err(error),
    };
    let (told, count) = reply.map_or((None, None), |reply| (reply.prompt_ids, reply.prompt_tokens));
    let at = format!("prompt `{}`, read by the server and by {}", prompt.id, tokenizer.display());
    let because = "other token ids make samples off-policy: see chat template, special tokens and system message";
    Ok(match (told.or_else(|| client.tokenize(&prompt.prompt, inputs)), count) {
        (Some(theirs), _) if theirs == ours => None,
        (Some(theirs), _) => Some(format!("{at}: {}; {because}", difference(&theirs, &ours))),
        (None, Some(count)) if count == ours.len() => None,
        (None, Some(count)) => Some(format!("{at}: {count} tokens there, {} here; {because}", ours.len())),
        (None, None) => {
            Some(format!("{at}: the server tells neither token ids nor their number, so they are not compared"))
        }
    })
}

/// The first place at which two lists of token ids differ.
fn difference(theirs: &[u32], ours: &[u32]) -> String {
    let place = theirs.iter().zip(ours).take_while(|(a, b)| a == b).count();
    let of = |ids: &[u32]| ids.get(place).map_or_else(|| "the end".to_owned(), |id| format!("id {id}"));
    let (there, here) = (of(theirs), of(ours));
    format!("token {place} is {there} there, {here} here, of {} and {}", theirs.len(), ours.len())
}

/// Answer to a request for a sample.
enum Asked {
    Told(Candidate),
    /// The server refuses the prompt, with these words, and refusals are skipped.
    Refused(String),
}

/// Requests one sample. Every setting is sent, also a neutral one: a server may fill what is absent from the model's
/// `generation_config.json`, as vLLM and SGLang do.
fn request(
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
        presence_penalty: Some(0.0),
        frequency_penalty: Some(0.0),
        min_tokens: sampling.min_new_tokens.filter(|least| *least > 0),
        seed: Some(seed),
        logprobs: client.settings().logps,
        inputs: prompt.inputs.clone(),
        lenient: true,
        ..Ask::default()
    };
    match client.ask(&prompt.prompt, &ask, stopped) {
        Ok(reply) => Ok(Asked::Told(Candidate {
            logp: reply.logp(),
            tokens: reply.tokens.unwrap_or(0),
            finish: reply.finish,
            text: reply.text,
            seed: client.sends("seed").then_some(seed),
        })),
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
