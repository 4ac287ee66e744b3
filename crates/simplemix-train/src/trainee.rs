//! Tensors in training and their optimiser.

use std::path::Path;

use simplemix_model::weights;
use simplemix_torch::device;
use tch::{Device, Kind, Tensor};

use crate::adamw::{AdamW, Movement, OptimizerSettings};
use crate::error::{At, Error, Result};
use crate::learner::Trainable;
use crate::team::Team;

const OPTIMIZER: &str = "optimizer.safetensors";
const UPDATES: &str = "updates.json";

/// Bytes of gradients that are added up at a time, as in PyTorch's DistributedDataParallel.
const BUCKET_BYTES: usize = 25 << 20;

/// Named tensors in training and their optimiser.
#[derive(Debug)]
pub struct Trainee {
    parameters: Vec<(String, Tensor)>,
    optimizer: AdamW,
    team: Team,
    /// Memory of the gradients where several processes add them up, from the last parameters to the first, as a backward pass
    /// finishes them.
    buckets: Vec<Tensor>,
}

impl Trainee {
    /// Prepares `parameters` for training: from now on gradients are accumulated for them.
    ///
    /// # Errors
    /// Errors of [`AdamW::new`].
    pub fn new(parameters: Vec<(String, Tensor)>, settings: &OptimizerSettings) -> Result<Self> {
        Self::together(parameters, settings, Team::default())
    }

    /// As [`Trainee::new`], with gradients that all processes of `team` add up.
    ///
    /// # Errors
    /// Errors of [`AdamW::new`].
    pub fn together(parameters: Vec<(String, Tensor)>, settings: &OptimizerSettings, team: Team) -> Result<Self> {
        let optimizer = AdamW::new(&parameters, settings)?;
        for (_, parameter) in &parameters {
            let _ = parameter.set_requires_grad(true);
            if parameter.kind() != Kind::Float {
                // Gradients of micro-batches add up in f32, so that late ones are not lost.
                simplemix_torch::set_gradient_kind(parameter, Kind::Float)?;
            }
        }
        let buckets = if team.size() > 1 { buckets(&parameters)? } else { Vec::new() };
        Ok(Self { parameters, optimizer, team, buckets })
    }

    /// Processes that train together.
    pub(crate) fn team(&self) -> &Team {
        &self.team
    }

    /// Number of trained weights.
    pub fn count(&self) -> i64 {
        self.parameters.iter().map(|(_, tensor)| tensor.numel() as i64).sum()
    }
}

/// Gives the parameters gradients that lie side by side, so that many are added up in one call.
fn buckets(parameters: &[(String, Tensor)]) -> Result<Vec<Tensor>> {
    let mut all = Vec::new();
    let mut rest: Vec<&Tensor> = parameters.iter().map(|(_, parameter)| parameter).collect();
    while !rest.is_empty() {
        let mut held = 0;
        let mut members = Vec::new();
        while held * size_of::<f32>() < BUCKET_BYTES
            && let Some(parameter) = rest.pop()
        {
            held += parameter.numel();
            members.push(parameter);
        }
        let device = members[0].device();
        let bucket = Tensor::f_zeros([held as i64], (Kind::Float, device)).map_err(simplemix_torch::Error::from)?;
        let mut start = 0;
        for parameter in members {
            let count = parameter.numel() as i64;
            let gradient = bucket.narrow(0, start, count).view(parameter.size().as_slice());
            simplemix_torch::set_gradient(parameter, Some(&gradient))?;
            start += count;
        }
        all.push(bucket);
    }
    Ok(all)
}

impl Trainable for Trainee {
    fn sum_gradients(&self) -> Result<()> {
        let begun = self.buckets.iter().map(|bucket| self.team.begin_sum(bucket, "adding up gradients"));
        let works: Vec<_> = begun.collect::<Result<_>>()?;
        works.into_iter().flatten().try_for_each(|work| Ok(work.wait()?))
    }

    fn gradient_norm(&self) -> Result<f64> {
        self.optimizer.gradient_norm()
    }

    fn update(&mut self, learning_rate: f64, scale: f64) -> Result<()> {
        self.optimizer.update(learning_rate, scale)
    }

    fn movement(&self) -> Movement {
        self.optimizer.movement()
    }

    fn discard(&mut self) {
        let _guard = tch::no_grad_guard();
        for (_, parameter) in &self.parameters {
            let mut gradient = parameter.grad();
            if gradient.defined() {
                let _ = gradient.zero_();
            }
        }
    }

    fn device_peak_bytes(&self) -> Result<Option<u64>> {
        let device = self.parameters.first().map_or(Device::Cpu, |(_, parameter)| parameter.device());
        Ok(device::memory(device)?.map(|memory| memory.peak_allocated))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        weights::save(&folder.join(weights::WEIGHTS), &self.parameters)?;
        weights::save(&folder.join(OPTIMIZER), &self.optimizer.state())?;
        Ok(simplemix_files::write(folder.join(UPDATES), self.optimizer.updates().to_string())?)
    }

    fn restore(&mut self, folder: &Path) -> Result<()> {
        self.restore_weights(folder)?;
        let path = folder.join(UPDATES);
        let text = simplemix_files::read_to_string(&path).at(&path, "read")?;
        let updates = text.trim().parse().map_err(|_| Error::State {
            name: UPDATES.to_owned(),
            found: text.clone(),
            expected: "a number of updates".to_owned(),
        })?;
        self.optimizer.restore(&weights::read_all(&folder.join(OPTIMIZER))?, updates)
    }

    fn restore_weights(&mut self, folder: &Path) -> Result<()> {
        let stored = weights::read_all(&folder.join(weights::WEIGHTS))?;
        let _guard = tch::no_grad_guard();
        for (name, parameter) in &self.parameters {
            match stored.get(name) {
                Some(tensor) if tensor.size() == parameter.size() => parameter.shallow_clone().copy_(tensor),
                found => return Err(Error::misshapen(name, found, parameter)),
            }
        }
        Ok(())
    }
}
