//! One of several servers that share some work: its threads, and whether it does well.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::client::ServerClient;
use super::settings::ServerSettings;
use super::several::Id;
use super::token_ids::TheirIds;
use super::told::Beside;
use super::waiting::backoff;
use crate::error::Result;
use crate::generator::{Candidate, Prompt};

/// Work for a thread of a server.
pub(super) enum Task {
    /// Ask for the model's name and its token ids of a prompt.
    Verify(Arc<Prompt>),
    /// Ask for a sample.
    Sample(Id, Arc<Prompt>),
}

/// Outcome of a task.
pub(super) struct Answer {
    pub(super) server: usize,
    /// Epoch of the server in which the task was given.
    pub(super) epoch: u64,
    pub(super) task: Task,
    pub(super) word: Result<Word>,
}

/// Reply of a server.
pub(super) enum Word {
    /// A response, unless the prompt was refused, and what the server says beside it.
    Sampled(Option<Candidate>, Beside),
    /// Names of other models than the others', where no name is given, and token ids of a prompt.
    Model { others: Option<String>, ids: TheirIds },
}

impl Word {
    pub(super) fn of_sample((candidate, beside): (Option<Candidate>, Beside)) -> Self {
        Self::Sampled(candidate, beside)
    }
}

/// Tasks of a server, with the epochs in which they were given.
type Jobs = Arc<Mutex<Receiver<(u64, Task)>>>;

/// A server among several.
pub(super) struct Member {
    client: Arc<ServerClient>,
    concurrency: usize,
    retries: u32,
    sender: Sender<(u64, Task)>,
    jobs: Jobs,
    threads: usize,
    /// Threads with a task.
    running: usize,
    /// Number of times that the server was set aside. Tasks of earlier epochs may never come back.
    epoch: u64,
    /// Tasks of this epoch that are not back.
    current: usize,
    /// Whether the model was compared with that of the others.
    is_verified: bool,
    /// Whether it gets all requests that it has places for; else one at a time, on trial.
    is_well: bool,
    /// End of the time for which it is set aside.
    aside_until: Option<Instant>,
    /// Failed attempts since the last success.
    in_turn: u32,
    /// Failed trials since the last success.
    trials: u32,
    /// Whether the last failure is one that time does not heal, such as a wrong key.
    is_refusing: bool,
    failure: String,
    is_told_aside: bool,
    is_told_back: bool,
}

impl Member {
    pub(super) fn new(client: &Arc<ServerClient>, settings: &ServerSettings) -> Self {
        let (sender, jobs) = channel();
        Self {
            client: client.clone(),
            concurrency: settings.concurrency,
            retries: settings.retries,
            sender,
            jobs: Arc::new(Mutex::new(jobs)),
            threads: 0,
            running: 0,
            epoch: 0,
            current: 0,
            is_verified: false,
            is_well: false,
            aside_until: None,
            in_turn: 0,
            trials: 0,
            is_refusing: false,
            failure: String::new(),
            is_told_aside: false,
            is_told_back: false,
        }
    }

    pub(super) fn client(&self) -> &Arc<ServerClient> {
        &self.client
    }

    /// Further attempts after a failed one.
    pub(super) fn retries(&self) -> u32 {
        self.retries
    }

    /// Whether it may have as many requests as it has places.
    pub(super) fn is_well(&self) -> bool {
        self.is_well
    }

    pub(super) fn is_verified(&self) -> bool {
        self.is_verified
    }

    /// Whether it has not told about its model, and has not failed to, nor is it waited for.
    pub(super) fn is_unheard(&self) -> bool {
        !self.is_verified && self.epoch == 0 && self.client.is_open()
    }

    /// Tasks that are not back, but for those given before it was set aside.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Whether it can have another task at `time`.
    pub(super) fn has_place(&self, time: Instant) -> bool {
        let places = if self.is_well { self.concurrency } else { 1 };
        self.aside_until.is_none_or(|until| time >= until)
            && self.current < places
            && self.running < self.concurrency
            && self.client.is_open()
    }

    /// Share of its places that are taken.
    pub(super) fn load(&self) -> f64 {
        self.running as f64 / self.concurrency as f64
    }

    /// Gives a task to a thread; `start` begins another one that does such tasks.
    pub(super) fn send(&mut self, task: Task, start: impl FnOnce(Jobs) -> Result<()>) -> Result<()> {
        if self.threads == self.running {
            start(self.jobs.clone())?;
            self.threads += 1;
        }
        // The receiver lives as long as this.
        let _ = self.sender.send((self.epoch, task));
        self.running += 1;
        self.current += 1;
        Ok(())
    }

    /// Notes that a task of `epoch` is back. Returns whether it was given since the server was last set aside.
    pub(super) fn returned(&mut self, epoch: u64) -> bool {
        self.running -= 1;
        let is_current = epoch == self.epoch;
        self.current -= usize::from(is_current);
        is_current
    }

    /// Notes that the model is that of the others.
    pub(super) fn is_found_alike(&mut self) {
        self.is_verified = true;
        // One that was set aside has to give a sample first.
        self.is_well = self.epoch == 0;
    }

    /// Notes a response. Returns whether the user is to know that the server is back, which is told once.
    pub(super) fn succeeds(&mut self) -> bool {
        let is_back = !self.is_well && self.is_told_aside && !std::mem::replace(&mut self.is_told_back, true);
        (self.is_well, self.is_refusing, self.aside_until) = (true, false, None);
        (self.in_turn, self.trials) = (0, 0);
        is_back
    }

    /// Notes a failed attempt since it was last set aside; `may_pass` says whether another one may help. Returns whether the server
    /// is set aside for it.
    pub(super) fn fails(&mut self, found: &str, may_pass: bool, time: Instant) -> bool {
        self.in_turn = self.in_turn.saturating_add(1);
        self.is_refusing = !may_pass;
        found.clone_into(&mut self.failure);
        if self.is_well && may_pass && self.in_turn <= self.retries {
            return false;
        }
        self.trials = self.trials.saturating_add(u32::from(!self.is_well));
        let most = Duration::from_secs_f64(self.client.settings().max_wait_secs);
        self.aside_until = Some(time + backoff(self.epoch, self.trials + 1, most));
        (self.is_well, self.current) = (false, 0);
        self.epoch += 1;
        true
    }

    /// Whether it is set aside and has failed in all trials that it has.
    pub(super) fn is_spent(&self) -> bool {
        self.aside_until.is_some() && self.current == 0 && (self.is_refusing || self.trials >= self.retries)
    }

    /// Address and last failure.
    pub(super) fn failure(&self) -> String {
        let attempts = if self.in_turn > 1 { format!(" ({} failures in turn)", self.in_turn) } else { String::new() };
        format!("{}: {}{attempts}", self.client.shown(), self.failure)
    }

    /// Whether the user knows that the server is set aside, who then does.
    pub(super) fn is_told_aside(&mut self) -> bool {
        std::mem::replace(&mut self.is_told_aside, true)
    }
}
