//! DPO on a table: one prompt, a few responses, known rewards. It shows without a language model how the choice of pairs
//! changes the rate of convergence. Shi, Zhou and Du 2025 (arXiv:2409.19605), `bandit/examples/tabular.py` of
//! srzer/Samplers-in-Online-DPO.
//!
//! The policy is a softmax over logits, the reference is uniform. A sampler draws a pair `(y, y')`, whose label is
//! `p = sigmoid(r(y) - r(y'))`. The loss is `-p ln sigmoid(d) - (1 - p) ln sigmoid(-d)` with
//! `d = beta (ln pi(y) - ln pi(y'))`; it is smallest where `beta ln pi` differs from the reward by a constant.
//!
//! Letters: n responses.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random::{mix, unit};
use crate::select::log_pair_weight;

/// Sampler of pairs: the probability of a pair is proportional to a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairSampler {
    /// Equal weights: DPO-Unif.
    Uniform,
    /// `1 / (sigmoid(D) sigmoid(-D)) = 2 + e^D + e^-D`, where `D` is the difference of rewards: a uniform pair mixed with a
    /// pair of `e^r` against `e^-r`.
    MixR,
    /// As [`PairSampler::MixR`] with `D = beta (ln pi(y) - ln pi(y'))`, under the policy at each update.
    MixP,
    /// As [`PairSampler::MixP`], capped at the largest weight of [`PairSampler::MixR`], so that pairs can be drawn by
    /// rejection: DPO-Mix-P*.
    MixPCapped,
}

impl PairSampler {
    /// Every sampler.
    pub const ALL: [Self; 4] = [Self::Uniform, Self::MixR, Self::MixP, Self::MixPCapped];

    /// Name in the paper.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "DPO-Unif",
            Self::MixR => "DPO-Mix-R",
            Self::MixP => "DPO-Mix-P",
            Self::MixPCapped => "DPO-Mix-P*",
        }
    }
}

/// Step size of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StepSize {
    /// A constant; 10 in the authors' script for exact gradients, 0.05 for drawn ones.
    Fixed(f64),
    /// `Z / (2 beta^2 n)`, where `Z` is the sum of the pairs' weights. With the mixed samplers the linear part of the error
    /// cancels at this step, and the square of the error remains. At a fixed step some of the linear part remains, and
    /// convergence is linear with every sampler.
    Newton,
}

/// Rewards of the responses, and `beta`, the strength of the pull towards the uniform reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Bandit {
    rewards: Vec<f64>,
    beta: f64,
}

/// Settings of a run, which starts from logits of zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BanditRun {
    /// Sampler of pairs.
    pub sampler: PairSampler,
    /// Number of updates.
    pub updates: usize,
    /// Step size.
    pub step: StepSize,
    /// Pairs drawn for each update, with drawn labels; `None` uses the exact gradient.
    pub draws: Option<usize>,
    /// Random seed.
    pub seed: u64,
}

/// Distance of a policy from the best one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BanditPoint {
    /// Mean over all pairs of `|r(y) - r(y') - beta (ln pi(y) - ln pi(y'))|`: the script's "Param Diff".
    pub error: f64,
    /// Best value of `E[r - beta ln pi]` minus that of the policy: the script's "Value Diff".
    pub gap: f64,
}

impl Bandit {
    /// A table of at least two responses.
    ///
    /// # Errors
    /// [`Error::Setting`] for fewer responses, a reward that is not finite, or a `beta` that is not > 0.
    pub fn new(rewards: Vec<f64>, beta: f64) -> Result<Self> {
        let refuse = |key, found: String, expected| Err(Error::Setting { key, found, expected });
        if rewards.len() < 2 {
            return refuse("rewards", format!("a list of {}", rewards.len()), "at least 2 rewards");
        }
        if let Some(reward) = rewards.iter().find(|reward| !reward.is_finite()) {
            return refuse("rewards", reward.to_string(), "finite numbers");
        }
        if !(beta > 0.0 && beta.is_finite()) {
            return refuse("beta", beta.to_string(), "a number > 0");
        }
        Ok(Self { rewards, beta })
    }

    /// Distances before the first update and after each one: `updates + 1` points.
    ///
    /// # Examples
    /// ```
    /// use simplemix_rollout::bandit::{Bandit, BanditRun, PairSampler, StepSize};
    ///
    /// let bandit = Bandit::new(vec![0.0, 0.3, 0.5, 1.0], 3.0)?;
    /// let run = |sampler| BanditRun { sampler, updates: 3, step: StepSize::Newton, draws: None, seed: 0 };
    /// let error = |sampler| bandit.run(&run(sampler))[3].error;
    /// assert!(error(PairSampler::MixP) < 1e-6 && error(PairSampler::Uniform) > 1e-4);
    /// # Ok::<(), simplemix_rollout::Error>(())
    /// ```
    pub fn run(&self, run: &BanditRun) -> Vec<BanditPoint> {
        let mut logits = vec![0.0; self.rewards.len()];
        let mut points = vec![self.point(&logits)];
        for update in 0..run.updates {
            let weights = self.weights(run.sampler, &logits);
            let gradient = match run.draws {
                Some(draws) => self.drawn_gradient(&weights, &logits, draws, mix(mix(run.seed) ^ update as u64)),
                None => self.gradient(&weights, &logits),
            };
            let step = match run.step {
                StepSize::Fixed(step) => step,
                StepSize::Newton => weights.iter().sum::<f64>() / (2.0 * self.beta.powi(2) * self.rewards.len() as f64),
            };
            logits.iter_mut().zip(gradient).for_each(|(logit, slope)| *logit -= step * slope);
            points.push(self.point(&logits));
        }
        points
    }

    /// Distance of the policy with these logits, `[n]`.
    pub fn point(&self, logits: &[f64]) -> BanditPoint {
        let n = self.rewards.len();
        let logps = log_softmax(logits);
        // Reward minus the policy's implicit reward. It is equal for all responses if the policy is the best one.
        let left: Vec<f64> = self.rewards.iter().zip(&logps).map(|(r, logp)| r - self.beta * logp).collect();
        let sum: f64 = left.iter().flat_map(|a| left.iter().map(move |b| (a - b).abs())).sum();
        let value: f64 = left.iter().zip(&logps).map(|(left, logp)| left * logp.exp()).sum();
        // At the best policy every response has `r - beta ln pi = beta ln sum e^(r / beta)`.
        let scaled: Vec<f64> = self.rewards.iter().map(|r| r / self.beta).collect();
        BanditPoint { error: sum / (n * n) as f64, gap: self.beta * log_sum_exp(&scaled) - value }
    }

    /// Weight of each ordered pair, `[n n]`, row by row. With the uniform sampler it is 4, as with the others at logits of
    /// zero.
    pub fn weights(&self, sampler: PairSampler, logits: &[f64]) -> Vec<f64> {
        let reach = {
            let most = self.rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            most - self.rewards.iter().copied().fold(f64::INFINITY, f64::min)
        };
        self.of_pairs(|i, j| {
            let of_policy = log_pair_weight(self.beta * (logits[i] - logits[j])).exp();
            match sampler {
                PairSampler::Uniform => 4.0,
                PairSampler::MixR => log_pair_weight(self.rewards[i] - self.rewards[j]).exp(),
                PairSampler::MixP => of_policy,
                PairSampler::MixPCapped => of_policy.min(log_pair_weight(reach).exp()),
            }
        })
    }

    /// Gradient of the expected loss, `[n]`, with the sampler held constant.
    pub fn gradient(&self, weights: &[f64], logits: &[f64]) -> Vec<f64> {
        let n = self.rewards.len();
        let total: f64 = weights.iter().sum();
        let slope = |i: usize, j: usize| {
            let p = sigmoid(self.rewards[i] - self.rewards[j]);
            self.beta * (sigmoid(self.beta * (logits[i] - logits[j])) - p)
        };
        // Both orders of a pair contribute equally, since weights are symmetric and slopes antisymmetric.
        (0..n).map(|i| (0..n).map(|j| 2.0 * weights[i * n + j] / total * slope(i, j)).sum()).collect()
    }

    /// Mean gradient of `draws` pairs, each with its own label.
    fn drawn_gradient(&self, weights: &[f64], logits: &[f64], draws: usize, seed: u64) -> Vec<f64> {
        let n = self.rewards.len();
        let table = Alias::new(weights);
        let mut gradient = vec![0.0; n];
        for draw in 0..draws as u64 {
            let (cell, coin) = (mix(seed.wrapping_add(2 * draw)), mix(seed.wrapping_add(2 * draw + 1)));
            let pair = table.draw(unit(cell), unit(mix(cell)));
            let (i, j) = (pair / n, pair % n);
            let wins = unit(coin) < sigmoid(self.rewards[i] - self.rewards[j]);
            let sign = if wins { 1.0 } else { -1.0 };
            let slope = -self.beta * sign * sigmoid(-sign * self.beta * (logits[i] - logits[j])) / draws as f64;
            gradient[i] += slope;
            gradient[j] -= slope;
        }
        gradient
    }

    fn of_pairs(&self, of: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let n = self.rewards.len();
        (0..n * n).map(|pair| of(pair / n, pair % n)).collect()
    }
}

/// Alias table (Walker), built as in Vose 1991: one look-up per draw.
struct Alias {
    /// Share of each cell that belongs to its own index, and the index that the rest belongs to.
    cells: Vec<(f64, usize)>,
}

impl Alias {
    fn new(weights: &[f64]) -> Self {
        let mean = weights.iter().sum::<f64>() / weights.len() as f64;
        let mut cells: Vec<(f64, usize)> = weights.iter().enumerate().map(|(i, w)| (w / mean, i)).collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) = (0..cells.len()).partition(|&i| cells[i].0 < 1.0);
        while let (Some(&to), Some(from)) = (rich.last(), poor.pop()) {
            cells[from].1 = to;
            cells[to].0 -= 1.0 - cells[from].0;
            if cells[to].0 < 1.0 {
                rich.pop();
                poor.push(to);
            }
        }
        Self { cells }
    }

    /// The index drawn by two uniform numbers.
    fn draw(&self, position: f64, coin: f64) -> usize {
        let cell = (position * self.cells.len() as f64) as usize;
        let (own, other) = self.cells[cell];
        if coin < own { cell } else { other }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn log_sum_exp(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + values.iter().map(|value| (value - most).exp()).sum::<f64>().ln()
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let all = log_sum_exp(logits);
    logits.iter().map(|logit| logit - all).collect()
}

#[cfg(test)]
#[path = "bandit_tests.rs"]
mod tests;
