//! Sampling answers with a key/value cache.
//!
//! A prompt is read once for all its samples. Rows of a batch are aligned at their newest token, so one step writes one
//! column of the cache; rows that have ended leave the batch together, since leaving copies the cache. What a sample is depends on the seed, its stream and its
//! number alone, never on the batch it happened to be in. Letters: B rows, T tokens, N query heads, K key/value heads,
//! D head width, S columns of the cache.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::attention::Mixer;
use crate::causal_lm::CausalLm;
use crate::error::{Doing, Error, Result};
use crate::packed::Packed;
use crate::sample::{Drawn, Sampling, draw};

/// A prompt to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its token ids.
    pub prompt: Vec<u32>,
    /// Number of its random stream; sample `i` of a request draws from stream `(stream, i)`.
    pub stream: u64,
}

/// Limits of an answer and of the batch it is made in.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Answers for each request.
    pub samples: usize,
    /// Tokens after which an answer is cut.
    pub max_new_tokens: usize,
    /// Tokens that end an answer; the ending token is kept in it.
    pub stop_tokens: Vec<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Rows that are generated together.
    pub batch_rows: usize,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It drew a stop token.
    Stop,
    /// It reached the limit of new tokens.
    Length,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Drawn tokens, the stop token included.
    pub tokens: Vec<u32>,
    /// Log-probability of each under the model itself (temperature 1, nothing cut), nats.
    pub logps: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

impl CausalLm {
    /// Answers every request `options.samples` times; `progress(done, total)` counts answers.
    ///
    /// # Errors
    /// [`Error::Input`] for settings out of range, an empty prompt or an unknown token id; [`Error::Torch`].
    pub fn generate(
        &self,
        requests: &[Request],
        options: &GenerateOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<Generated>>> {
        options.check()?;
        let _guard = tch::no_grad_guard();
        let total = requests.len() * options.samples;
        let mut answers: Vec<Vec<Generated>> = vec![Vec::new(); requests.len()];
        // Prompts of like length share a batch, so that little of the cache is padding.
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|&i| requests[i].prompt.len());
        let mut done = 0;
        for group in order.chunks(options.batch_rows.div_ceil(options.samples)) {
            let mut batch = Batch::read(self, requests, group, options)?;
            batch.run(self, options, &mut |finished| progress(done + finished, total))?;
            done += group.len() * options.samples;
            let mut rows = batch.finished.into_iter();
            for &request in group {
                answers[request] = rows.by_ref().take(options.samples).collect();
            }
        }
        Ok(answers)
    }
}

impl GenerateOptions {
    fn check(&self) -> Result<()> {
        self.sampling.check()?;
        for (what, value) in
            [("samples", self.samples), ("max_new_tokens", self.max_new_tokens), ("batch_rows", self.batch_rows)]
        {
            if value == 0 {
                return Err(Error::Input { what, found: "0".to_owned(), expected: "at least 1".to_owned() });
            }
        }
        Ok(())
    }
}

/// Rows that are generated together.
struct Batch {
    cache: Vec<(Tensor, Tensor)>, // per layer: keys and values [B, K, S, D]
    filled: i64,                  // columns of the cache in use
    live: Vec<Row>,               // rows of the cache, some of which may have ended
    finished: Vec<Generated>,     // by row number
}

/// A row of the cache.
struct Row {
    number: usize,
    stream: u64,
    position: i64, // rotary position of the newest token
    pad: i64,      // columns before its first token
    ended: bool,
}

impl Batch {
    /// Reads the prompts of `group` and draws the first token of each row.
    fn read(model: &CausalLm, requests: &[Request], group: &[usize], options: &GenerateOptions) -> Result<Self> {
        let mut packed = Packed::new();
        for &request in group {
            packed.push(&requests[request].prompt)?;
        }
        let (hidden, keys_values) = prefill(model, &packed)?;
        let longest = group.iter().map(|&i| requests[i].prompt.len()).max().unwrap_or(0) as i64;
        let (samples, spans) = (options.samples, packed.segments());
        let columns = longest + options.max_new_tokens as i64;
        let cache = keys_values
            .iter()
            .map(|(k, v)| {
                Ok((align(k, spans, samples, longest, columns)?, align(v, spans, samples, longest, columns)?))
            })
            .collect::<Result<_>>()?;
        let mut batch = Self { cache, filled: longest, live: Vec::new(), finished: Vec::new() };
        for (&request, span) in group.iter().zip(spans) {
            for sample in 0..samples {
                batch.live.push(Row {
                    number: batch.live.len(),
                    stream: sample_stream(requests[request].stream, sample),
                    position: span.len as i64 - 1,
                    pad: longest - span.len as i64,
                    ended: false,
                });
                batch.finished.push(Generated { tokens: Vec::new(), logps: Vec::new(), finish: Finish::Length });
            }
        }
        let last: Vec<i64> =
            spans.iter().flat_map(|s| std::iter::repeat_n((s.start + s.len) as i64 - 1, samples)).collect();
        let newest = hidden.index_select(0, &Tensor::from_slice(&last).to_device(model.device()));
        batch.extend(model, &newest, options)?;
        Ok(batch)
    }

    /// Grows the rows until each has ended.
    fn run(&mut self, model: &CausalLm, options: &GenerateOptions, progress: &mut dyn FnMut(usize)) -> Result<()> {
        progress(self.ended());
        while !self.live.is_empty() {
            let hidden = self.step(model)?;
            self.extend(model, &hidden, options)?;
            progress(self.ended());
        }
        Ok(())
    }

    /// Answers that are whole.
    fn ended(&self) -> usize {
        self.finished.len() - self.live.iter().filter(|row| !row.ended).count()
    }

    /// Hidden states `[B, H]` of the rows' newest tokens, whose keys and values join the cache.
    fn step(&mut self, model: &CausalLm) -> Result<Tensor> {
        let mut packed = Packed::new();
        for row in &self.live {
            let newest = self.finished[row.number].tokens.last().copied();
            packed.push_at(newest.unwrap_or_default(), row.position);
        }
        let column = self.filled;
        let mask = self.mask(model.kind(), model.device());
        let (cache, config) = (&mut self.cache, model.config());
        let mixer = Mixer::new(config);
        let hidden = model.network.forward(&packed, |layer, heads| {
            let (keys, values) = &mut cache[layer];
            append(keys, &heads.k, column);
            append(values, &heads.v, column);
            // The newest columns are the newest positions of every row.
            let first = config.layers[layer].window.map_or(0, |window| (column + 1 - window).max(0));
            let seen = |t: &Tensor, dim: i64| t.narrow(dim, first, column + 1 - first);
            let mask = mask.as_ref().map(|mask| seen(mask, 3));
            let mixed = mixer.mix(&heads.q.unsqueeze(2), &seen(keys, 2), &seen(values, 2), mask.as_ref())?;
            Ok(mixed.flatten(1, -1)) // [B, N * D]
        })?;
        self.filled += 1;
        Ok(hidden)
    }

    /// `[B, 1, 1, S]`: minus infinity on the columns before a row's first token; none where no row has such columns.
    fn mask(&self, kind: Kind, device: Device) -> Option<Tensor> {
        if self.live.iter().all(|row| row.pad == 0) {
            return None;
        }
        let pads: Vec<i64> = self.live.iter().map(|row| row.pad).collect();
        let pads = Tensor::from_slice(&pads).to_device(device).view([-1, 1, 1, 1]);
        let columns = Tensor::arange(self.filled + 1, (Kind::Int64, device));
        let mask = Tensor::zeros([self.live.len() as i64, 1, 1, self.filled + 1], (kind, device));
        Some(mask.masked_fill(&columns.lt_tensor(&pads), f64::NEG_INFINITY))
    }

    /// Draws the next token of every growing row from its newest hidden state.
    fn extend(&mut self, model: &CausalLm, hidden: &Tensor, options: &GenerateOptions) -> Result<()> {
        let drawn = draws(model, hidden, &self.finished, &self.live, options)?;
        for (row, drawn) in self.live.iter_mut().zip(drawn).filter(|(row, _)| !row.ended) {
            let answer = &mut self.finished[row.number];
            answer.tokens.push(drawn.token);
            answer.logps.push(drawn.logp);
            row.position += 1;
            if options.stop_tokens.contains(&drawn.token) {
                answer.finish = Finish::Stop;
            }
            row.ended = answer.finish == Finish::Stop || answer.tokens.len() == options.max_new_tokens;
        }
        let keep: Vec<i64> = (0..self.live.len()).filter(|&i| !self.live[i].ended).map(|i| i as i64).collect();
        if keep.len() * 4 <= self.live.len() * 3 {
            self.shrink(&keep, model.device());
        }
        Ok(())
    }

    /// Keeps the rows at `keep`.
    fn shrink(&mut self, keep: &[i64], device: Device) {
        let index = Tensor::from_slice(keep).to_device(device);
        for (keys, values) in &mut self.cache {
            *keys = keys.index_select(0, &index);
            *values = values.index_select(0, &index);
        }
        self.live.retain(|row| !row.ended);
    }
}

/// Next tokens of `live` rows from hidden states `[B, H]`.
fn draws(
    model: &CausalLm,
    hidden: &Tensor,
    answers: &[Generated],
    live: &[Row],
    options: &GenerateOptions,
) -> Result<Vec<Drawn>> {
    let logits = model.logits(hidden)?.to_kind(Kind::Float).to_device(Device::Cpu).contiguous();
    let vocab = model.config().vocab_size as usize;
    let mut values = vec![0f32; logits.numel()];
    logits.f_copy_data(&mut values, logits.numel()).doing("reading logits")?;
    Ok(values
        .par_chunks(vocab)
        .zip(live)
        .map(|(row, at)| draw(row, &options.sampling, at.stream, answers[at.number].tokens.len() as u64))
        .collect())
}

/// One stream for each sample of a request.
fn sample_stream(stream: u64, sample: usize) -> u64 {
    stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ sample as u64
}

/// Hidden states of the prompts, and every layer's keys and values `[T, K, D]`.
fn prefill(model: &CausalLm, packed: &Packed) -> Result<(Tensor, Vec<(Tensor, Tensor)>)> {
    let plans = model.network.plans(packed);
    let mut keys_values = Vec::with_capacity(model.network.layers.len());
    let hidden = model.network.forward(packed, |layer, heads| {
        keys_values.push((heads.k.shallow_clone(), heads.v.shallow_clone()));
        plans.attend(layer, &heads)
    })?;
    Ok((hidden, keys_values))
}

/// Prompts `[T, K, D]` to the rows of a cache `[B, K, S, D]`, each `samples` times and ending at column `longest`.
fn align(
    flat: &Tensor,
    spans: &[crate::packed::Segment],
    samples: usize,
    longest: i64,
    columns: i64,
) -> Result<Tensor> {
    let (_, heads, width) = flat.size3().doing("reading keys")?;
    let rows = (spans.len() * samples) as i64;
    let cache =
        Tensor::f_zeros([rows, heads, columns, width], (flat.kind(), flat.device())).doing("making the cache")?;
    for (i, span) in spans.iter().enumerate() {
        let prompt = flat.narrow(0, span.start as i64, span.len as i64).transpose(0, 1).unsqueeze(0);
        cache
            .narrow(0, (i * samples) as i64, samples as i64)
            .narrow(2, longest - span.len as i64, span.len as i64)
            .f_copy_(&prompt.expand([samples as i64, -1, -1, -1], false))
            .doing("filling the cache")?;
    }
    Ok(cache)
}

/// Writes `[B, K, D]` to one column of the cache.
fn append(cache: &Tensor, newest: &Tensor, column: i64) {
    cache.select(2, column).copy_(newest);
}
