//! Training of a reward model: Bradley-Terry on the scores of both responses, as TRL's `RewardTrainer`.

use std::path::Path;

use simplemix_loss::bradley_terry;
use simplemix_model::{Packed, RewardModel};
use tch::{Kind, Tensor};

use crate::collective::Collective;
use crate::error::Result;
use crate::forward::{ForwardOptions, pack, values};
use crate::learner::{Learner, PairStats};
use crate::metrics::MetricSet;
use crate::pairs::PairSet;
use crate::preference::NamedSet;
use crate::trainee::Trainee;

/// A reward model in training. A response's score is that of its last token.
#[derive(Debug)]
pub struct RewardLearner<'a> {
    model: RewardModel,
    trainee: Trainee,
    options: ForwardOptions,
    center: f64,
    /// Whether nothing has been learnt yet and the score of everything is zero.
    fresh: bool,
    train: &'a PairSet,
    eval: &'a [NamedSet],
}

impl<'a> RewardLearner<'a> {
    /// A learner that changes what `trainee` has of `model`. `center` pulls rewards towards zero
    /// ([`bradley_terry`]).
    pub fn new(
        model: RewardModel,
        trainee: Trainee,
        options: ForwardOptions,
        center: f64,
        train: &'a PairSet,
        eval: &'a [NamedSet],
    ) -> Self {
        let fresh = model.score_head().abs().max().double_value(&[]) == 0.0;
        Self { model, trainee, options, center, fresh, train, eval }
    }

    /// The model as it is now.
    pub fn model(&self) -> &RewardModel {
        &self.model
    }

    /// Gives up the optimiser and keeps the model.
    pub fn into_model(self) -> RewardModel {
        self.model.set_trainable(false);
        self.model
    }

    /// Takes up a checkpoint's weights alone.
    ///
    /// # Errors
    /// [`crate::Error::State`] if it is not of this model.
    pub fn restore_weights(&self, folder: &Path) -> Result<()> {
        self.trainee.restore_weights(folder)
    }

    /// Scores `[B]` of chosen and rejected responses, in a graph where gradients are kept.
    fn scores(&self, set: &PairSet, pairs: &[usize]) -> Result<[Tensor; 2]> {
        let (packed, _) = pack(set, pairs)?;
        let last = last_tokens(&packed);
        let scores = self.model.scores(&packed, &last)?;
        let both = scores.view([-1, 2]);
        Ok([both.select(1, 0), both.select(1, 1)])
    }

    fn loss(&self, [chosen, rejected]: &[Tensor; 2]) -> Result<Tensor> {
        Ok(bradley_terry(chosen, rejected, None, self.center)?)
    }
}

/// Rows of the last tokens of all responses: of segments that none continues.
fn last_tokens(packed: &Packed) -> Vec<i64> {
    let segments = packed.segments();
    let continued: Vec<usize> = segments.iter().filter_map(|segment| segment.parent).collect();
    let ends = segments.iter().enumerate().filter(|(at, _)| !continued.contains(at));
    ends.map(|(_, segment)| (segment.start + segment.len) as i64 - 1).collect()
}

fn stats(loss: &Tensor, [chosen, rejected]: &[Tensor; 2]) -> Vec<PairStats> {
    let (losses, chosen, rejected) = (values(loss), values(chosen), values(rejected));
    let of = |i: usize| PairStats {
        loss: losses[i],
        chosen_reward: chosen[i],
        rejected_reward: rejected[i],
        ..PairStats::default()
    };
    (0..losses.len()).map(of).collect()
}

impl Learner for RewardLearner<'_> {
    fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
        let scores = self.scores(self.train, pairs)?;
        if scores.iter().any(|side| values(side).iter().any(|score| !score.is_finite())) {
            return Ok(crate::preference::not_a_number(pairs.len()));
        }
        let loss = self.loss(&scores)?;
        (loss.sum(Kind::Float) * weight)
            .f_backward()
            .map_err(|source| simplemix_model::Error::Torch { doing: "a backward pass", source })?;
        Ok(stats(&loss, &scores))
    }

    fn share_gradients(&mut self, collective: &dyn Collective) -> Result<()> {
        self.trainee.share_gradients(collective)
    }

    fn gradient_norm(&self) -> f64 {
        self.trainee.optimizer.gradient_norm()
    }

    fn update(&mut self, learning_rate: f64, scale: f64) {
        self.trainee.optimizer.update(learning_rate, scale);
        self.fresh = false;
    }

    fn discard(&mut self) {
        self.trainee.discard();
    }

    fn eval_sets(&self) -> Vec<String> {
        self.eval.iter().map(|(name, _)| name.clone()).collect()
    }

    fn evaluate(&mut self, set: usize, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<PairStats>> {
        let _guard = tch::no_grad_guard();
        let pairs = &self.eval[set].1;
        let all: Vec<usize> = (0..pairs.len()).collect();
        let mut found = Vec::with_capacity(all.len());
        for part in pairs.table.micro_batches(&all, self.options.micro_batch_tokens)? {
            let scores = self.scores(pairs, part)?;
            found.extend(stats(&self.loss(&scores)?, &scores));
            progress(found.len(), all.len());
        }
        Ok(found)
    }

    fn metrics(&self) -> MetricSet {
        MetricSet::Reward
    }

    fn first_loss(&self) -> Option<(f64, f64)> {
        self.fresh.then_some((std::f64::consts::LN_2, 1e-6))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.trainee.save(folder)
    }

    fn restore(&mut self, folder: &Path) -> Result<()> {
        self.fresh = false;
        self.trainee.restore(folder)
    }
}
