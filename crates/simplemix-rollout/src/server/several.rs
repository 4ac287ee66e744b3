//! Responses from several servers that have one model.
//!
//! Servers pull requests, so that a fast one does more. Each has its own connections, concurrency, rate limits and waiting. A request
//! has the same seed wherever it is sent, so a failed one goes to another server, and the first response to it counts.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::client::{ServerClient, is_transient};
use super::generator::{check_sampling, request, requests};
use super::member::{Answer, Member, Task, Word};
use super::pool::{LOOK, start};
use super::servers::{Servers, setting};
use super::settings::ServerSettings;
use super::token_ids::{TheirIds, our_ids, their_ids};
use super::told::{Beside, Once};
use super::waiting::{backoff, now, sleep};
use crate::error::{Error, Result};
use crate::generator::{Candidate, CandidateSink, Generator, Job, Prompt, Sampled, SamplingConfig};

/// Servers with one model that share the requests of a collection. They may have unequal speed, and fail and come back: one that
/// fails is set aside and tried again later, and what it had not done goes to the others. The work ends in an error once all have
/// failed.
///
/// # Examples
/// ```no_run
/// use simplemix_rollout::{Generator, Prompt, SamplingConfig, ServerSettings, Servers, SeveralServers};
/// let servers = Servers::from(vec![ServerSettings::new("http://a:8000"), ServerSettings::new("http://b:8000")]);
/// let mut model = SeveralServers::new(&servers)?;
/// let prompts = [Prompt::new("a", "What is 2 + 2?")];
/// let candidates = model.generate(&prompts, &SamplingConfig::simplemix(), &mut |_, _| {})?;
/// # Ok::<(), simplemix_rollout::Error>(())
/// ```
#[derive(Debug)]
pub struct SeveralServers {
    clients: Vec<Arc<ServerClient>>,
    /// Settings as given; those of the clients let a request fail at once, for another server to take it.
    settings: Vec<ServerSettings>,
    name: String,
    /// Everything that responses depend on, where that is more than the settings.
    mark: Option<String>,
}

impl SeveralServers {
    /// Checks the settings and prepares a client for each server. If none names the model, the servers are asked for it.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting out of range or different among the servers, [`Error::Servers`] if none can be asked
    /// for its model.
    pub fn new(servers: &Servers) -> Result<Self> {
        servers.check()?;
        let settings = servers.all().to_vec();
        let once =
            |settings: &ServerSettings| ServerClient::nameless(ServerSettings { retries: 0, ..settings.clone() });
        let clients = settings.iter().map(once).collect::<Result<Vec<_>>>()?;
        let model = match settings.iter().find_map(|server| server.model.clone()) {
            Some(model) => model,
            None => only_model(&clients, &settings)?,
        };
        let name = settings[0].name.clone().unwrap_or_else(|| model.clone());
        let clients = clients.into_iter().map(|client| Arc::new(client.with_model(model.clone()))).collect();
        Ok(Self { clients, settings, name, mark: None })
    }

    /// Servers whose model is known by `mark`.
    pub(super) fn known_by(servers: &Servers, mark: String) -> Result<Self> {
        Ok(Self { mark: Some(mark), ..Self::new(servers)? })
    }
}

/// Name of the only model of the first server that tells it.
fn only_model(clients: &[ServerClient], settings: &[ServerSettings]) -> Result<String> {
    let retries = settings.iter().map(|server| server.retries).max().unwrap_or_default();
    let most = settings.iter().map(|server| server.max_wait_secs).fold(0.0, f64::max);
    let mut attempt = 1;
    loop {
        let mut failures = Vec::new();
        for client in clients {
            match client.models(&|| false) {
                Ok(names) => return client.only_of(&names),
                Err(error @ Error::Server { .. }) => failures.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        if attempt > retries {
            return Err(Error::Servers { failures });
        }
        sleep(backoff(0, attempt, Duration::from_secs_f64(most)), &|| false);
        attempt += 1;
    }
}

impl Generator for SeveralServers {
    fn name(&self) -> &str {
        &self.name
    }

    fn fingerprint(&self) -> String {
        self.mark.clone().unwrap_or_else(|| self.clients[0].fingerprint())
    }

    fn sample(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn CandidateSink,
    ) -> Result<()> {
        check_sampling(sampling)?;
        let mut requests = requests(jobs).peekable();
        let first = match requests.peek() {
            None => return Ok(()),
            Some(Err(_)) => return requests.next().map_or(Ok(()), |failed| failed.map(drop)),
            Some(Ok((_, _, prompt))) => prompt.clone(),
        };
        let (to_caller, answers) = channel();
        let members = self.clients.iter().zip(&self.settings).map(|(client, settings)| Member::new(client, settings));
        let mut sharing = Sharing {
            members: members.collect(),
            requests: &mut requests,
            is_at_end: false,
            flights: HashMap::new(),
            queue: VecDeque::new(),
            first,
            hearing_until: now() + HEARING,
            known_ids: None,
            is_compared: false,
            sampling: Arc::new(sampling.clone()),
            to_caller,
            give_up: Arc::new(AtomicBool::new(false)),
            once: Once::default(),
            sink,
        };
        let ended = sharing.run(&answers);
        sharing.give_up.store(true, Ordering::Relaxed);
        ended.and(sharing.pass_on_failures())
    }
}

/// Time for which samples wait until every server has told about its model; one that hangs does not hold up the others for longer.
const HEARING: Duration = Duration::from_secs(5);

/// Number of a prompt and of a sample.
pub(super) type Id = (u64, usize);

/// A request that is handed out and not yet answered.
struct Flight {
    prompt: Arc<Prompt>,
    /// Whether it waits for a server.
    is_queued: bool,
    /// Servers at which it runs.
    running: Vec<usize>,
    /// Attempts that failed, but for those of servers on trial.
    failures: u32,
    /// Servers at which it failed.
    tried: Vec<usize>,
    /// Time of the next attempt at a server at which it failed.
    not_before: Instant,
}

/// Requests and the servers that share them, during one call.
struct Sharing<'a> {
    members: Vec<Member>,
    requests: &'a mut dyn Iterator<Item = Result<(u64, usize, Arc<Prompt>)>>,
    is_at_end: bool,
    flights: HashMap<Id, Flight>,
    /// Requests that wait for a server; those whose flight has ended are passed over.
    queue: VecDeque<Id>,
    /// Prompt by whose token ids the servers are compared.
    first: Arc<Prompt>,
    /// End of the time in which no sample is asked for while a server has not told about its model.
    hearing_until: Instant,
    /// Token ids of the first server that was asked, with its number.
    known_ids: Option<(usize, TheirIds)>,
    /// Whether the ids were compared with those of the model to be trained.
    is_compared: bool,
    sampling: Arc<SamplingConfig>,
    to_caller: Sender<Result<Answer>>,
    give_up: Arc<AtomicBool>,
    once: Once,
    sink: &'a mut dyn CandidateSink,
}

impl Sharing<'_> {
    /// Hands out requests and keeps what comes back until all are answered.
    fn run(&mut self, answers: &Receiver<Result<Answer>>) -> Result<()> {
        let mut failed = None;
        loop {
            if failed.is_none()
                && let Err(error) = self.hand_out()
            {
                self.give_up.store(true, Ordering::Relaxed);
                failed = Some(error);
            }
            let is_over = if failed.is_some() { !self.awaits_any() } else { self.is_at_end && self.flights.is_empty() };
            if is_over {
                return failed.map_or(Ok(()), Err);
            }
            if self.sink.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let answer = match answers.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Interrupted),
                Ok(answer) => answer,
            };
            if let Err(error) = answer.and_then(|answer| self.take(answer)) {
                self.give_up.store(true, Ordering::Relaxed);
                // The first error is the cause.
                failed.get_or_insert(error);
            }
        }
    }

    /// Whether a server that does well still has requests, whose responses are worth waiting for.
    fn awaits_any(&self) -> bool {
        self.members.iter().any(|member| member.is_well() && member.current() > 0)
    }

    /// Gives requests to servers while there are free places, to the one that has the largest part of its places free.
    fn hand_out(&mut self) -> Result<()> {
        let mut passed = vec![false; self.members.len()];
        loop {
            let time = now();
            let holds = time < self.hearing_until && self.members.iter().any(Member::is_unheard);
            let may = |at: &usize| !holds || !self.members[*at].is_verified();
            let free = |at: &usize| !passed[*at] && may(at) && self.members[*at].has_place(time);
            let least = |at: &usize| self.members[*at].load();
            let Some(at) = (0..self.members.len()).filter(free).min_by(|a, b| least(a).total_cmp(&least(b))) else {
                return Ok(());
            };
            if !self.members[at].is_verified() {
                self.send(at, Task::Verify(self.first.clone()))?;
                continue;
            }
            match self.next_for(at, time)? {
                Some(id) => {
                    let flight = self.flights.get_mut(&id).expect("a request that is handed out has a flight");
                    flight.is_queued = false;
                    flight.running.push(at);
                    let task = Task::Sample(id, flight.prompt.clone());
                    self.send(at, task)?;
                }
                None => passed[at] = true,
            }
        }
    }

    fn send(&mut self, at: usize, task: Task) -> Result<()> {
        let (sampling, give_up) = (self.sampling.clone(), self.give_up.clone());
        let (client, to_caller) = (self.members[at].client().clone(), self.to_caller.clone());
        self.members[at].send(task, |jobs| {
            start(move || serve(&jobs, &to_caller, &|task| done(at, &client, &sampling, task, &give_up)))
        })
    }

    /// The request that server `at` is to have next.
    fn next_for(&mut self, at: usize, time: Instant) -> Result<Option<Id>> {
        let flights = &self.flights;
        self.queue.retain(|id| flights.get(id).is_some_and(|flight| flight.is_queued));
        let suits = |id: &Id| {
            let flight = &flights[id];
            !flight.running.contains(&at) && (!flight.tried.contains(&at) || time >= flight.not_before)
        };
        if let Some(place) = self.queue.iter().position(suits) {
            return Ok(self.queue.remove(place));
        }
        if !self.is_at_end {
            match self.requests.next() {
                Some(Ok((index, sample, prompt))) => {
                    let (running, tried) = (Vec::new(), Vec::new());
                    let flight = Flight { prompt, is_queued: true, running, failures: 0, tried, not_before: time };
                    self.flights.insert((index, sample), flight);
                    return Ok(Some((index, sample)));
                }
                Some(Err(error)) => return Err(error),
                None => self.is_at_end = true,
            }
        }
        // Nothing is left but what runs elsewhere: what a server on trial has may never come back.
        let members = &self.members;
        let is_doubtful = |flight: &Flight| {
            !flight.is_queued && !flight.running.is_empty() && !flight.running.iter().any(|of| members[*of].is_well())
        };
        let mut doubtful = self.flights.iter().filter(|(_, flight)| is_doubtful(flight));
        Ok(if members[at].is_well() { doubtful.next().map(|(id, _)| *id) } else { None })
    }

    /// Takes an answer of a server.
    fn take(&mut self, answer: Answer) -> Result<()> {
        let Answer { server: at, epoch, task, word } = answer;
        let is_current = self.members[at].returned(epoch);
        self.pass_on_failures()?;
        for notice in self.members[at].client().notices() {
            self.sink.notice(&notice);
        }
        if let Task::Sample(id, _) = &task
            && let Some(flight) = self.flights.get_mut(id)
        {
            flight.running.retain(|of| *of != at);
        }
        match (task, word) {
            (_, Err(Error::Interrupted)) if self.give_up.load(Ordering::Relaxed) => Ok(()),
            // A rate limit closed the server's gate before the request went through.
            (Task::Sample(id, _), Err(Error::Interrupted)) => {
                self.queue_again(id);
                Ok(())
            }
            (Task::Verify(_), Err(Error::Interrupted)) => Ok(()),
            (Task::Verify(_), Ok(word)) => self.verified(at, word),
            (Task::Sample(id, _), Ok(Word::Sampled(candidate, beside))) => {
                self.keep((at, is_current), id, candidate, beside)
            }
            (Task::Sample(..), Ok(_)) => unreachable!("a sample was asked for"),
            (task, Err(Error::Server { url, status, found, attempts })) => {
                self.fails((at, is_current), task, Error::Server { url, status, found, attempts })
            }
            (_, Err(error)) => Err(error),
        }
    }

    /// Keeps a response, unless another server has given it.
    fn keep(
        &mut self,
        (at, is_current): (usize, bool),
        id: Id,
        candidate: Option<Candidate>,
        beside: Beside,
    ) -> Result<()> {
        let shown = self.members[at].client().shown();
        // A response from before the server was set aside says nothing about it.
        if is_current && self.members[at].succeeds() {
            self.sink.passing(&format!("{shown}: does well again, and gets its part of the requests"));
        }
        if self.flights.remove(&id).is_none() {
            return Ok(());
        }
        let client = self.members[at].client();
        let wants_logps = client.settings().logps && client.sends("logprobs");
        let candidate = candidate.map(|candidate| Candidate { server: Some(shown), ..candidate });
        let sampled = Sampled { index: id.0, sample: id.1, candidate };
        for notice in self.once.notices(&sampled, beside, wants_logps) {
            self.sink.notice(&notice);
        }
        self.sink.keep(vec![sampled])
    }

    /// Compares a server that can be asked with the others.
    fn verified(&mut self, at: usize, word: Word) -> Result<()> {
        let Word::Model { others, ids } = word else { unreachable!("a model was asked for") };
        let client = self.members[at].client().clone();
        if let Some(others) = others {
            let found = format!("{} with {others}, beside one with the model {}", client.shown(), client.model());
            return Err(setting(found, "servers that have one model; `model` names it where a server has several"));
        }
        match &self.known_ids {
            None => self.known_ids = Some((at, ids.clone())),
            Some((other, known)) => {
                let other = self.members[*other].client().shown();
                let [here, there] = [&client.shown(), &other].map(|shown| format!("at {shown}"));
                if let Some(differs) = ids.differs_from(known, [&here, &there]) {
                    let found = format!("two that read prompt `{}` differently: {differs}", self.first.id);
                    return Err(setting(found, "servers that have one model, tokenizer and chat template"));
                }
            }
        }
        if let Some(tokenizer) = client.settings().tokenizer.clone()
            && !std::mem::replace(&mut self.is_compared, true)
        {
            let ours = our_ids(&tokenizer, &self.first)?;
            ids.against(&ours, &tokenizer, &self.first).iter().for_each(|notice| self.sink.notice(notice));
        }
        self.members[at].is_found_alike();
        Ok(())
    }

    /// Counts a failed attempt: the request goes to another server, and the server may be set aside.
    fn fails(&mut self, (at, is_current): (usize, bool), task: Task, error: Error) -> Result<()> {
        let Error::Server { status, found, .. } = &error else { return Err(error) };
        if matches!(task, Task::Sample(..)) && matches!(status, Some(400 | 413 | 422)) {
            // The prompt's fault, which no other server would forgive.
            return Err(error);
        }
        // Without a status, or with that of success, there was no whole reply.
        let may_pass = status.is_none_or(|status| is_transient(status) || (200..300).contains(&status));
        let was_well = self.members[at].is_well();
        let found = match &task {
            Task::Sample(_, prompt) => found.strip_prefix(&format!("prompt `{}`: ", prompt.id)).unwrap_or(found),
            Task::Verify(_) => found,
        };
        // Too many requests are the fault of whoever sends them.
        let counts = is_current && *status != Some(429);
        let is_set_aside = counts && self.members[at].fails(found, may_pass, now());
        if let Task::Sample(id, _) = task {
            self.retry(at, id, was_well && !is_set_aside, error)?;
        }
        if is_set_aside {
            self.set_aside(at)?;
        }
        Ok(())
    }

    /// Hands a request that failed at `at` to whoever is free, unless it has failed too often.
    fn retry(&mut self, at: usize, id: Id, counts: bool, error: Error) -> Result<()> {
        let retries: u32 =
            self.members.iter().map(|member| member.retries().saturating_add(1)).fold(0, u32::saturating_add);
        let Some(flight) = self.flights.get_mut(&id) else { return Ok(()) };
        flight.failures += u32::from(counts);
        if flight.failures >= retries
            && let Error::Server { url, status, found, .. } = error
        {
            return Err(Error::Server { url, status, found, attempts: flight.failures });
        }
        flight.tried.push(at);
        let most = Duration::from_secs_f64(self.members[at].client().settings().max_wait_secs);
        flight.not_before = now() + backoff(id.0.wrapping_add(id.1 as u64), flight.failures.max(1), most);
        self.queue_again(id);
        Ok(())
    }

    /// Puts a request into the queue, unless it is there or runs at a server that does well.
    fn queue_again(&mut self, id: Id) {
        if let Some(flight) = self.flights.get_mut(&id)
            && !flight.is_queued
            && !flight.running.iter().any(|of| self.members[*of].is_well())
        {
            flight.is_queued = true;
            self.queue.push_back(id);
        }
    }

    /// Gives what a server set aside has not done to the others; an error if there is none left.
    fn set_aside(&mut self, at: usize) -> Result<()> {
        let mut moved = 0;
        for (id, flight) in &mut self.flights {
            if flight.running.contains(&at) && flight.running.len() == 1 && !flight.is_queued {
                flight.is_queued = true;
                self.queue.push_back(*id);
                moved += 1;
            }
        }
        if self.members.iter().all(Member::is_spent) {
            let failures = self.members.iter().map(Member::failure).collect();
            return Err(Error::Servers { failures });
        }
        if self.members[at].is_told_aside() {
            return Ok(());
        }
        let requests =
            if moved > 0 { format!(", its {moved} requests under way go to the others") } else { String::new() };
        self.sink.passing(&format!("{}; set aside{requests}, and tried again later", self.members[at].failure()));
        Ok(())
    }

    /// Passes on the attempts that failed.
    fn pass_on_failures(&mut self) -> Result<()> {
        self.members.iter().try_for_each(|member| self.sink.failed(&member.client().failures()))
    }
}

/// Does a server's tasks until there are no more.
fn serve(jobs: &Mutex<Receiver<(u64, Task)>>, answers: &Sender<Result<Answer>>, done: &dyn Fn((u64, Task)) -> Answer) {
    loop {
        let job = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if answers.send(Ok(done(job))).is_err() {
            return;
        }
    }
}

/// Does a task at a server.
fn done(
    server: usize,
    client: &ServerClient,
    sampling: &SamplingConfig,
    (epoch, task): (u64, Task),
    give_up: &AtomicBool,
) -> Answer {
    // Another server could do the work that waits for this one's rate limit.
    let stopped = || give_up.load(Ordering::Relaxed) || !client.is_open();
    let word = match &task {
        Task::Verify(prompt) => model(client, prompt, &stopped),
        Task::Sample((_, sample), prompt) => {
            request(client, prompt, *sample, sampling, &stopped).map(|asked| asked.told(prompt)).map(Word::of_sample)
        }
    };
    Answer { server, epoch, task, word }
}

/// Facts that a server tells about its model.
fn model(client: &ServerClient, prompt: &Prompt, stopped: &dyn Fn() -> bool) -> Result<Word> {
    let others = match &client.settings().model {
        Some(_) => None,
        None => match client.models(stopped)?.as_slice() {
            [name] if name == client.model() => None,
            [] => Some("no model".to_owned()),
            [name] => Some(format!("the model {name}")),
            names => Some(format!("the models {}", names.join(", "))),
        },
    };
    Ok(Word::Model { others, ids: their_ids(client, prompt, stopped)? })
}
