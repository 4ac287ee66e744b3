//! Training of a reward model: Bradley-Terry loss of both responses' scores, as TRL's `RewardTrainer`. The score of a response is
//! that of its last token.

use simplemix_loss::{Checks, bradley_terry};
use simplemix_model::{Packed, RewardModel, Segment};
use simplemix_torch::device::read_all;
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::first_loss::FirstLoss;
use crate::forward::{ForwardOptions, lay_out};
use crate::learner::{Learner, Trainable};
use crate::metrics::MetricSet;
use crate::pairs::{NamedSet, PairSet};
use crate::policy::update_seed;
use crate::sides::Sides;
use crate::stats::PairStats;
use crate::trainee::Trainee;

/// A reward model in training. The score of a response is that of its last token.
#[derive(Debug)]
pub(crate) struct RewardLearner<'a> {
    model: RewardModel,
    /// Another handle of these weights, with the dropout of the current update on.
    in_training: RewardModel,
    seed: u64,
    trainee: Trainee,
    options: ForwardOptions,
    center: f64,
    /// Whether the score head was zero before training, so that the score of everything was.
    started_at_zero: bool,
    train: &'a PairSet,
    eval: &'a [NamedSet],
}

impl<'a> RewardLearner<'a> {
    /// Creates a learner that changes the tensors that `trainee` holds of `model`. `center` is the weight of the term
    /// that pulls rewards towards zero ([`bradley_terry`]), `seed` that of dropout.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] if another process has failed.
    pub(crate) fn new(
        model: RewardModel,
        seed: u64,
        trainee: Trainee,
        options: ForwardOptions,
        center: f64,
        train: &'a PairSet,
        eval: &'a [NamedSet],
    ) -> Result<Self> {
        let root = model.resident_root()?;
        let started_at_zero = model.score_head().abs().max().double_value(&[]) == 0.0;
        drop(root);
        let in_training = model.in_training(seed);
        Ok(Self { model, in_training, seed, trainee, options, center, started_at_zero, train, eval })
    }

    /// Drops the optimiser and returns the model.
    pub(crate) fn into_model(self) -> RewardModel {
        self.model.set_trainable(false);
        self.model
    }

    /// Scores `[B]` of both responses in f32.
    fn scores(&self, model: &RewardModel, set: &PairSet, pairs: &[usize]) -> Result<Sides<Tensor>> {
        let (packed, last) = whole_sequences(model, set, pairs)?;
        Ok(in_sides(&model.scores(&packed, &last)?))
    }

    fn loss(&self, scores: &Sides<Tensor>) -> Result<Tensor> {
        // NaN is looked for where results are read.
        Ok(bradley_terry(&scores.chosen, &scores.rejected, None, self.center, Checks::Later)?)
    }
}

/// Chosen and rejected of scores in turn, in f32: a margin of half precision has 8 bits.
fn in_sides(scores: &Tensor) -> Sides<Tensor> {
    let scores = scores.to_kind(Kind::Float).view([-1, 2]);
    Sides { chosen: scores.select(1, 0), rejected: scores.select(1, 1) }
}

/// Packs prompts and whole responses, and says which row of each sequence is scored: chosen and rejected in turn.
fn whole_sequences(model: &RewardModel, set: &PairSet, pairs: &[usize]) -> Result<(Packed, Vec<i64>)> {
    let mut rows = Vec::with_capacity(2 * pairs.len());
    let packed = lay_out(Packed::of(model.config()), set, pairs, |packed, parent, response| {
        let segment = packed.push_after(parent, response)?;
        rows.push(scored_row(model, packed, packed.segments()[segment], response));
        Ok(segment)
    })?;
    Ok((packed, rows))
}

/// Row of the last token that is no padding; where a response is padding alone, the prompt's, as in transformers.
fn scored_row(model: &RewardModel, packed: &Packed, segment: Segment, response: &[u32]) -> i64 {
    if let Some(place) = model.last_token(response) {
        return (segment.start + place) as i64;
    }
    let prompt = packed.segments()[segment.parent.expect("a response continues a prompt")];
    let tokens = &packed.tokens()[prompt.start..prompt.start + prompt.len];
    let ids: Vec<u32> = tokens.iter().map(|&id| id as u32).collect();
    (prompt.start + model.last_token(&ids).unwrap_or(0)) as i64
}

/// Statistics of pairs, for which the host waits once. A pair whose scores are not finite has the loss NaN.
fn stats(loss: &Tensor, scores: &Sides<Tensor>) -> Result<Vec<PairStats>> {
    let read = read_all(&[loss, &scores.chosen, &scores.rejected])?;
    let stats = |i: usize| {
        let rewards = Sides { chosen: read[1][i], rejected: read[2][i] };
        let is_finite = rewards.chosen.is_finite() && rewards.rejected.is_finite();
        PairStats { loss: if is_finite { read[0][i] } else { f64::NAN }, rewards, ..PairStats::default() }
    };
    Ok((0..read[0].len()).map(stats).collect())
}

impl Learner for RewardLearner<'_> {
    fn trainee(&self) -> &dyn Trainable {
        &self.trainee
    }

    fn trainee_mut(&mut self) -> &mut dyn Trainable {
        &mut self.trainee
    }

    fn begin(&mut self, step: u64) -> Result<()> {
        if self.model.has_adapter() {
            self.in_training = self.model.in_training(update_seed(self.seed, step));
        }
        Ok(())
    }

    fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
        let model = &self.in_training;
        let (packed, last) = whole_sequences(model, self.train, pairs)?;
        let (scores, pass) = match self.options.activation_checkpointing {
            true => model.checkpointed_scores(&packed, &last).map(|(scores, pass)| (scores, Some(pass)))?,
            false => (model.scores(&packed, &last)?, None),
        };
        let scores = in_sides(&scores);
        let loss = self.loss(&scores)?;
        (loss.sum(Kind::Float) * weight)
            .f_backward()
            .map_err(|source| simplemix_model::Error::Torch { doing: "a backward pass", source })?;
        if let Some(pass) = pass {
            pass.backward()?;
        }
        stats(&loss, &scores)
    }

    fn passes_together(&self) -> bool {
        self.model.is_divided()
    }

    fn idle(&mut self) -> Result<()> {
        Ok(self.in_training.idle_pass(true)?)
    }

    fn eval_sets(&self) -> Vec<String> {
        self.eval.iter().map(|(name, _)| name.clone()).collect()
    }

    fn evaluate(&mut self, set: usize, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<PairStats>> {
        let _guard = tch::no_grad_guard();
        let pairs = &self.eval[set].1;
        let all: Vec<usize> = (0..pairs.len()).collect();
        let team = self.trainee.team();
        let own = team.share(&all);
        let mut found = Vec::with_capacity(own.len());
        let parts = pairs.table.micro_batches(&own, self.options.micro_batch_tokens)?;
        let most = pairs.table.most_micro_batches(team, &all, self.options.micro_batch_tokens)?;
        for part in &parts {
            let scores = self.scores(&self.model, pairs, part)?;
            found.extend(stats(&self.loss(&scores)?, &scores)?.into_iter().map(PairStats::to_row));
            team.does_part("scoring held-out pairs", found.len(), own.len());
            progress((found.len() * team.size()).min(all.len()), all.len());
        }
        if self.passes_together() {
            (parts.len()..most).try_for_each(|_| self.model.idle_pass(false))?;
        }
        let found = team.gather(all.len(), found, "scoring held-out pairs")?;
        Ok(found.into_iter().map(PairStats::of_row).collect())
    }

    fn metrics(&self) -> MetricSet {
        MetricSet::Reward
    }

    fn first_loss(&self) -> Result<Option<FirstLoss>> {
        let first = FirstLoss { loss: std::f64::consts::LN_2, tolerance: 1e-6, nats_per_token: None };
        Ok(self.started_at_zero.then_some(first))
    }
}
