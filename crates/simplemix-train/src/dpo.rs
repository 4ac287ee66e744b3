//! Preference training of a causal language model against a frozen reference.
//!
//! A prompt goes through the network once a pair, no padding token does, and the head sees response positions only.
//! Reference log-probabilities are computed once, before the first update, with the policy's own weights: there is no
//! second model in memory. Letters: B pairs, N scored positions.

use std::path::Path;

use simplemix_loss::{Head, PairLogps, Positions, PreferenceLoss, fused_preference_loss, score_only};
use simplemix_model::{CausalLm, Packed, Targets, weights};
use tch::{Kind, Tensor};

use crate::adamw::{AdamW, AdamWOptions};
use crate::error::{At, Error, Result};
use crate::learner::{Learner, PairStats};
use crate::pairs::PairSet;

const OPTIMIZER: &str = "optimizer.safetensors";
const UPDATES: &str = "updates.json";

/// Settings of the step that are not the loop's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DpoOptions {
    /// The loss.
    pub loss: PreferenceLoss,
    /// Constants of the optimiser.
    pub adamw: AdamWOptions,
    /// Tokens of a forward pass of the reference and of evaluation.
    pub micro_batch_tokens: usize,
    /// Bytes of logits held at a time.
    pub logits_bytes: usize,
    /// Whether the backward pass computes every layer again instead of keeping its activations.
    pub activation_checkpointing: bool,
}

/// A policy in training, with the reference's log-probabilities of both sets.
#[derive(Debug)]
pub struct DpoLearner<'a> {
    model: CausalLm,
    optimizer: AdamW,
    options: DpoOptions,
    train: &'a PairSet,
    eval: &'a PairSet,
    train_reference: Vec<[f64; 2]>,
    eval_reference: Vec<[f64; 2]>,
}

impl<'a> DpoLearner<'a> {
    /// Scores both sets under `model` as it is, the reference, and readies it for training.
    ///
    /// `progress(done, total)` counts pairs scored.
    ///
    /// # Errors
    /// Whatever the forward pass or the optimiser's set-up reports.
    pub fn new(
        model: CausalLm,
        train: &'a PairSet,
        eval: &'a PairSet,
        options: DpoOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let total = train.len() + eval.len();
        let train_reference = pair_logps(&model, train, &options, &mut |done| progress(done, total))?;
        let eval_reference = pair_logps(&model, eval, &options, &mut |done| progress(train.len() + done, total))?;
        model.set_trainable(true);
        let optimizer = AdamW::new(model.named_parameters(), options.adamw)?;
        Ok(Self { model, optimizer, options, train, eval, train_reference, eval_reference })
    }

    /// The policy as it is now.
    pub fn model(&self) -> &CausalLm {
        &self.model
    }

    /// Gives up the optimiser and keeps the policy.
    pub fn into_model(self) -> CausalLm {
        self.model.set_trainable(false);
        self.model
    }
}

impl Learner for DpoLearner<'_> {
    fn accumulate(&mut self, pairs: &[usize], weight: f64) -> Result<Vec<PairStats>> {
        let (packed, targets) = pack(self.train, pairs)?;
        let pass = match self.options.activation_checkpointing {
            true => Some(self.model.checkpointed(&packed)?),
            false => None,
        };
        let hidden = match &pass {
            Some(pass) => pass.hidden().shallow_clone(),
            None => self.model.hidden_states(&packed)?,
        };
        let (rows, positions) = scored(&self.model, &hidden, &targets);
        let reference = reference_logps(&self.model, &self.train_reference, pairs);
        let fused = fused_preference_loss(
            &self.options.loss,
            head(&self.model),
            &rows,
            &positions,
            &reference,
            weight,
            self.options.logits_bytes,
        )?;
        fused
            .surrogate
            .f_backward()
            .map_err(|source| simplemix_model::Error::Torch { doing: "a backward pass", source })?;
        if let Some(pass) = pass {
            pass.backward()?;
        }
        let column = |t: &Tensor| values(t);
        let output = &fused.output;
        let columns = [
            column(&output.loss),
            column(&output.chosen_rewards),
            column(&output.rejected_rewards),
            column(&fused.policy.chosen),
            column(&fused.policy.rejected),
        ];
        Ok((0..pairs.len()).map(|i| stats(columns.each_ref().map(|c| c[i]))).collect())
    }

    fn gradient_norm(&self) -> f64 {
        self.optimizer.gradient_norm()
    }

    fn update(&mut self, learning_rate: f64, scale: f64) {
        self.optimizer.update(learning_rate, scale);
    }

    fn evaluate(&mut self, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<PairStats>> {
        let total = self.eval.tokens.len();
        let policy = pair_logps(&self.model, self.eval, &self.options, &mut |done| progress(done, total))?;
        let loss = self.options.loss;
        let to_logps = |logps: &[[f64; 2]]| PairLogps {
            chosen: Tensor::from_slice(&logps.iter().map(|p| p[0]).collect::<Vec<_>>()),
            rejected: Tensor::from_slice(&logps.iter().map(|p| p[1]).collect::<Vec<_>>()),
        };
        if policy.is_empty() {
            return Ok(Vec::new());
        }
        let lengths = simplemix_loss::PairLengths {
            chosen: lengths(self.eval, |pair| pair.chosen.len()),
            rejected: lengths(self.eval, |pair| pair.rejected.len()),
        };
        let output = loss.evaluate(&to_logps(&policy), &to_logps(&self.eval_reference), &lengths)?;
        let (losses, chosen, rejected) =
            (values(&output.loss), values(&output.chosen_rewards), values(&output.rejected_rewards));
        Ok((0..total).map(|i| stats([losses[i], chosen[i], rejected[i], policy[i][0], policy[i][1]])).collect())
    }

    fn first_loss(&self) -> Option<(f64, f64)> {
        // f32 sums of some hundred log-probabilities repeat to about 1e-4, whatever the packing.
        let tolerance = if self.model.kind() == Kind::Float { 2e-3 } else { 5e-2 };
        let known = self.options.loss.at_reference()?;
        Some((known, tolerance * if known > 2.0 { known } else { 1.0 }))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        weights::save(&folder.join(weights::WEIGHTS), self.model.named_parameters())?;
        weights::save(&folder.join(OPTIMIZER), &self.optimizer.state())?;
        let path = folder.join(UPDATES);
        std::fs::write(&path, self.optimizer.updates().to_string()).at(&path, "write")
    }

    fn restore(&mut self, folder: &Path) -> Result<()> {
        let stored = weights::read_all(&folder.join(weights::WEIGHTS))?;
        let _guard = tch::no_grad_guard();
        for (name, parameter) in self.model.named_parameters() {
            match stored.get(name) {
                Some(tensor) if tensor.size() == parameter.size() => parameter.shallow_clone().copy_(tensor),
                found => {
                    return Err(Error::State {
                        name: name.clone(),
                        found: found.map_or("absent".to_owned(), |t| format!("{:?}", t.size())),
                        expected: format!("{:?}", parameter.size()),
                    });
                }
            }
        }
        let path = folder.join(UPDATES);
        let text = std::fs::read_to_string(&path).at(&path, "read")?;
        let updates = text.trim().parse().map_err(|_| Error::State {
            name: UPDATES.to_owned(),
            found: text.clone(),
            expected: "a number of updates".to_owned(),
        })?;
        self.optimizer.restore(&weights::read_all(&folder.join(OPTIMIZER))?, updates)
    }
}

/// Summed log-probabilities of chosen and rejected responses under `model`, without gradients.
fn pair_logps(
    model: &CausalLm,
    set: &PairSet,
    options: &DpoOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<[f64; 2]>> {
    let _guard = tch::no_grad_guard();
    let all: Vec<usize> = (0..set.tokens.len()).collect();
    let mut logps = Vec::with_capacity(all.len());
    for part in set.table.micro_batches(&all, options.micro_batch_tokens)? {
        let (packed, targets) = pack(set, part)?;
        let hidden = model.hidden_states(&packed)?;
        let (rows, positions) = scored(model, &hidden, &targets);
        let of_part = values(&score_only(head(model), &rows, &positions, options.logits_bytes)?);
        logps.extend(of_part.chunks_exact(2).map(|pair| [pair[0], pair[1]]));
        progress(logps.len());
    }
    Ok(logps)
}

/// The pairs' tokens, each prompt once, and what is scored of them: chosen and rejected in turn.
fn pack(set: &PairSet, pairs: &[usize]) -> Result<(Packed, Targets)> {
    let (mut packed, mut targets) = (Packed::new(), Targets::default());
    for &pair in pairs {
        let pair = &set.tokens[pair];
        let prompt = packed.push(&pair.prompt)?;
        packed.push_response(prompt, &pair.chosen, &mut targets)?;
        packed.push_response(prompt, &pair.rejected, &mut targets)?;
    }
    Ok((packed, targets))
}

/// The output head, with the model's cap on logits.
fn head(model: &CausalLm) -> Head<'_> {
    Head { soft_cap: model.config().logit_soft_cap, ..Head::from(model.head()) }
}

/// Hidden states `[N, H]` of the scored positions, and what they predict.
fn scored(model: &CausalLm, hidden: &Tensor, targets: &Targets) -> (Tensor, Positions) {
    let vector = |values: &[i64]| Tensor::from_slice(values).to_device(model.device());
    let positions = Positions {
        targets: vector(&targets.tokens),
        owners: vector(&targets.owners),
        responses: targets.responses as i64,
    };
    (hidden.index_select(0, &vector(&targets.rows)), positions)
}

/// The reference's log-probabilities of `pairs`, as tensors beside the model.
fn reference_logps(model: &CausalLm, reference: &[[f64; 2]], pairs: &[usize]) -> PairLogps {
    let side = |side: usize| {
        let values: Vec<f64> = pairs.iter().map(|&pair| reference[pair][side]).collect();
        Tensor::from_slice(&values).to_kind(Kind::Float).to_device(model.device())
    };
    PairLogps { chosen: side(0), rejected: side(1) }
}

fn lengths(set: &PairSet, of: impl Fn(&simplemix_data::TokenizedPair) -> usize) -> Tensor {
    Tensor::from_slice(&set.tokens.iter().map(|pair| of(pair) as f64).collect::<Vec<_>>())
}

/// The values of a vector, in f64.
fn values(vector: &Tensor) -> Vec<f64> {
    let host = vector.detach().to_kind(Kind::Double).to_device(tch::Device::Cpu).contiguous();
    let mut values = vec![0.0; host.numel()];
    host.copy_data(&mut values, host.numel());
    values
}

fn stats([loss, chosen_reward, rejected_reward, chosen_logp, rejected_logp]: [f64; 5]) -> PairStats {
    PairStats { loss, chosen_reward, rejected_reward, chosen_logp, rejected_logp }
}
