//! Rows that are generated together, and the queue that refills them.
//!
//! Letters: B rows, H width, V vocabulary.

use tch::{Device, Kind, Tensor};

use super::cache::{Cache, Columns, Fill, Kept, Layers, read};
use super::{Finish, GenerateOptions, Generated, Request};
use crate::causal_lm::CausalLm;
use crate::error::{Doing, Result};
use crate::packed::Packed;
use crate::sample::{Draw, Drawn, draw_rows};
use crate::stand_by::StandBy;

/// Tokens of prompts that are read in one forward pass, unless one prompt is longer.
const PROMPT_TOKENS: usize = 4096;
/// Columns that a cache has to spare when it is laid out.
const SPARE_COLUMNS: i64 = 256;

/// Rows that are generated together.
pub(super) struct Batch<'a> {
    models: &'a [(&'a CausalLm, f64)],
    requests: &'a [Request],
    options: &'a GenerateOptions,
    /// Requests that are not read yet, the next one last.
    queue: Vec<usize>,
    /// Prompts that are read, and have samples that no row has begun.
    waiting: Vec<Prompt>,
    caches: Vec<Cache>, // one a model
    columns: Columns,
    rows: Vec<Row>,
    answers: Vec<Vec<Generated>>, // by request
    done: usize,
    /// From a step on until prompts are read, which is libtorch's with all its threads.
    standing_by: Option<StandBy>,
}

/// A prompt that has been read.
struct Prompt {
    request: usize,
    layers: Vec<Layers>, // one a model
    logits: Vec<Tensor>, // [1, V], one a model
    begun: usize,        // samples
}

/// A row of the cache.
struct Row {
    request: usize,
    sample: usize,
    len: i64, // columns
    ended: bool,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        models: &'a [(&'a CausalLm, f64)],
        requests: &'a [Request],
        options: &'a GenerateOptions,
    ) -> Result<Self> {
        // Prompts of like length come together, so that little of the cache is padding.
        let mut queue: Vec<usize> = (0..requests.len()).collect();
        queue.sort_by_key(|&i| std::cmp::Reverse(requests[i].prompt.len()));
        let empty = Generated { tokens: vec![], logps: vec![], sampling_logps: vec![], finish: Finish::Length };
        Ok(Self {
            models,
            requests,
            options,
            queue,
            waiting: Vec::new(),
            caches: models.iter().map(|_| Cache::default()).collect(),
            columns: Columns { filled: 0, room: 0 },
            rows: Vec::new(),
            answers: requests.iter().map(|_| vec![empty.clone(); options.samples]).collect(),
            done: 0,
            standing_by: None,
        })
    }

    pub(super) fn answers(self) -> Vec<Vec<Generated>> {
        self.answers
    }

    /// Until every answer has ended; false if `go_on` said no before.
    pub(super) fn run(&mut self, go_on: &mut dyn FnMut(usize, usize) -> bool) -> Result<bool> {
        let total = self.requests.len() * self.options.samples;
        loop {
            if !go_on(self.done, total) {
                return Ok(false);
            }
            self.refill()?;
            if self.rows.is_empty() {
                return Ok(true);
            }
            self.step()?;
        }
    }

    /// Replaces rows that have ended, once they are a quarter of the batch: by new ones while there are any, else by
    /// nothing. Laying the cache out anew copies it.
    fn refill(&mut self) -> Result<()> {
        loop {
            let live = self.rows.iter().filter(|row| !row.ended).count();
            let size = self.options.batch_rows;
            let more = !self.queue.is_empty() || !self.waiting.is_empty();
            let (free, whole) = if more { (size - live, size) } else { (self.rows.len() - live, self.rows.len()) };
            if free == 0 || (live > 0 && free * 4 < whole) {
                return Ok(());
            }
            let begun = self.begin(free)?;
            self.lay_out(&begun)?;
            // A row may have ended with its first token.
            if begun.is_empty() || self.rows.iter().any(|row| !row.ended) {
                return Ok(());
            }
        }
    }

    /// Prompts for up to `free` new rows, each with its number of rows.
    fn begin(&mut self, free: usize) -> Result<Vec<(Prompt, usize)>> {
        let (samples, mut left, mut begun) = (self.options.samples, free, Vec::new());
        while left > 0 {
            if self.waiting.is_empty() {
                self.read_prompts(left.div_ceil(samples))?;
            }
            let Some(mut prompt) = self.waiting.pop() else { break };
            let rows = left.min(samples - prompt.begun);
            left -= rows;
            if prompt.begun + rows < samples {
                // Everything kept of its prompt is needed again.
                let again = Prompt {
                    request: prompt.request,
                    layers: prompt.layers.iter().map(shallow).collect(),
                    logits: prompt.logits.iter().map(Tensor::shallow_clone).collect(),
                    begun: prompt.begun + rows,
                };
                self.waiting.push(again);
            }
            prompt.begun += rows;
            begun.push((prompt, rows));
        }
        Ok(begun)
    }

    /// Reads the next prompts, at most `most` and [`PROMPT_TOKENS`], but one at least.
    fn read_prompts(&mut self, most: usize) -> Result<()> {
        let (mut packed, mut read_now) = (Packed::new(), Vec::new());
        while let Some(&request) = self.queue.last().filter(|_| read_now.len() < most) {
            let prompt = &self.requests[request].prompt;
            if !packed.is_empty() && packed.len() + prompt.len() > PROMPT_TOKENS {
                break;
            }
            packed.push(prompt)?;
            read_now.push(request);
            self.queue.pop();
        }
        if packed.is_empty() {
            return Ok(());
        }
        self.standing_by = None;
        let last: Vec<i64> = packed.segments().iter().map(|s| (s.start + s.len) as i64 - 1).collect();
        let mut prompts: Vec<Prompt> = read_now
            .into_iter()
            .map(|request| Prompt { request, layers: Vec::new(), logits: Vec::new(), begun: 0 })
            .collect();
        for (model, _) in self.models {
            let (hidden, layers) = read(model, &packed)?;
            let rows = hidden.index_select(0, &Tensor::from_slice(&last).to_device(model.device()));
            let logits = model.logits(&rows)?;
            for (i, (prompt, layers)) in prompts.iter_mut().zip(layers).enumerate() {
                prompt.layers.push(layers);
                prompt.logits.push(logits.narrow(0, i as i64, 1));
            }
        }
        // The first is taken first.
        prompts.reverse();
        self.waiting = prompts;
        Ok(())
    }

    /// Lays the cache out for the rows that go on and those of `begun`, and draws the first token of the latter.
    fn lay_out(&mut self, begun: &[(Prompt, usize)]) -> Result<()> {
        let keep: Vec<i64> = (0..self.rows.len()).filter(|&i| !self.rows[i].ended).map(|i| i as i64).collect();
        self.rows.retain(|row| !row.ended);
        let first_new = self.rows.len();
        let used = self.rows.iter().map(|row| row.len).max().unwrap_or(0);
        for (prompt, rows) in begun {
            let len = self.requests[prompt.request].prompt.len() as i64;
            let samples = prompt.begun - rows..prompt.begun;
            self.rows.extend(samples.map(|sample| Row { request: prompt.request, sample, len, ended: false }));
        }
        let filled = self.rows.iter().map(|row| row.len).max().unwrap_or(0);
        let to = Columns { filled, room: filled + self.spare() };
        for (i, ((model, _), cache)) in self.models.iter().zip(&mut self.caches).enumerate() {
            let fills: Vec<Fill<'_>> =
                begun.iter().map(|(p, rows)| Fill { layers: &p.layers[i], rows: *rows as i64 }).collect();
            cache.lay_out(model, self.columns, &keep, used, &fills, to)?;
        }
        self.columns = to;
        if begun.is_empty() {
            return Ok(());
        }
        let logits = |model: usize| {
            let of = |(prompt, rows): &(Prompt, usize)| prompt.logits[model].expand([*rows as i64, -1], false);
            Tensor::f_cat(&begun.iter().map(of).collect::<Vec<_>>(), 0).doing("joining logits")
        };
        let logits = (0..self.models.len()).map(logits).collect::<Result<Vec<_>>>()?;
        self.extend(first_new, &logits)
    }

    /// Columns to spare: no more than any row can still need.
    fn spare(&self) -> i64 {
        let drawn = |row: &Row| self.answers[row.request][row.sample].tokens.len();
        let most = self.rows.iter().map(|row| self.options.max_new_tokens - drawn(row)).max().unwrap_or(0);
        (most as i64).min(SPARE_COLUMNS)
    }

    /// One token for every row.
    fn step(&mut self) -> Result<()> {
        if self.columns.filled == self.columns.room {
            self.lay_out(&[])?;
            if self.rows.is_empty() {
                return Ok(());
            }
        }
        self.read_again()?;
        let mut newest = Packed::new();
        for row in &self.rows {
            let token = self.answers[row.request][row.sample].tokens.last();
            newest.push_at(*token.expect("a row's first token is drawn when the row is laid out"), row.len);
        }
        self.standing_by.get_or_insert_with(StandBy::new);
        let column = self.columns.filled;
        let pads: Vec<i64> = self.rows.iter().map(|row| column - row.len).collect();
        let mut logits = Vec::with_capacity(self.models.len());
        for ((model, _), cache) in self.models.iter().zip(&mut self.caches) {
            logits.push(model.logits(&cache.step(model, &newest, column, &pads)?)?);
        }
        self.columns.filled += 1;
        for row in &mut self.rows {
            row.len += 1;
        }
        self.extend(0, &logits)
    }

    /// Reads rows again whose newest token takes them out of the first context of a model that then has other frequencies for
    /// all their tokens.
    fn read_again(&mut self) -> Result<()> {
        for ((model, _), cache) in self.models.iter().zip(&mut self.caches) {
            let Some(context) = model.config().reads_again_above() else { continue };
            for (number, row) in self.rows.iter().enumerate().filter(|(_, row)| !row.ended && row.len == context) {
                self.standing_by = None;
                let answer = &self.answers[row.request][row.sample].tokens;
                let earlier = &answer[..answer.len().saturating_sub(1)];
                let mut packed = Packed::new();
                packed.push_as(&[&self.requests[row.request].prompt, earlier].concat(), context + 1);
                let (_, layers) = read(model, &packed)?;
                layers.iter().try_for_each(|layers| cache.replace(number, self.columns.filled, layers))?;
            }
        }
        Ok(())
    }

    /// Draws the next token of the rows from `first` on out of each model's logits `[B, V]`.
    fn extend(&mut self, first: usize, logits: &[Tensor]) -> Result<()> {
        let wide =
            |t: &Tensor| t.f_to_kind(Kind::Float).and_then(|t| t.f_to_device(Device::Cpu)).doing("reading logits");
        let own = wide(&logits[0])?;
        let mixed = match self.models {
            [(_, a), (_, b)] => Some(&own * *a + wide(&logits[1])? * *b),
            _ => None,
        };
        let draws: Vec<Draw<'_>> = self.rows[first..]
            .iter()
            .map(|row| {
                let (request, answer) = (&self.requests[row.request], &self.answers[row.request][row.sample]);
                Draw {
                    stream: sample_stream(request.stream, row.sample),
                    prompt: &request.prompt,
                    answer: &answer.tokens,
                }
            })
            .collect();
        let logits = mixed.as_ref().unwrap_or(&own);
        let changed = self.options.processors.applied(logits, &draws, &self.options.stop_tokens)?;
        let drawn = draw_rows(&own, changed.as_ref().or(mixed.as_ref()), &self.options.sampling, &draws)?;
        for (row, drawn) in self.rows[first..].iter_mut().zip(drawn).filter(|(row, _)| !row.ended) {
            let answer = &mut self.answers[row.request][row.sample];
            let Drawn { token, logp, sampling_logp } = drawn;
            answer.tokens.push(token);
            answer.logps.push(logp);
            answer.sampling_logps.push(sampling_logp);
            let stops = self.options.stop_strings.as_ref();
            if self.options.stop_tokens.contains(&token) || stops.is_some_and(|stops| stops.end(&answer.tokens)) {
                answer.finish = Finish::Stop;
            }
            row.ended = answer.finish == Finish::Stop || answer.tokens.len() == self.options.max_new_tokens;
            self.done += usize::from(row.ended);
        }
        Ok(())
    }
}

fn shallow(layers: &Layers) -> Layers {
    layers.iter().map(Kept::shallow_clone).collect()
}

/// One stream for each sample of a request.
fn sample_stream(stream: u64, sample: usize) -> u64 {
    stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ sample as u64
}
