//! Tensors in training and their optimiser.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use simplemix_model::Residence;
use simplemix_model::weights::{self, Deferred, TensorFile};
use simplemix_torch::device;
use tch::{Device, Kind, Tensor};

use crate::adamw::{AdamW, Movement, OptimizerSettings, Slot};
use crate::buckets::Bucket;
use crate::config::{ParallelSettings, Shard};
use crate::error::{At, Error, Result};
use crate::learner::Trainable;
use crate::sending::Sending;
use crate::sharded::{Sharded, restore_weights, save_weights};
use crate::span::Span;
use crate::team::Team;

const OPTIMIZER: &str = "optimizer.safetensors";
const UPDATES: &str = "updates.json";

/// Named tensors in training and their optimiser.
#[derive(Debug)]
pub struct Trainee {
    parameters: Vec<(String, Tensor)>,
    optimizer: AdamW,
    team: Team,
    /// Memory of the gradients, and of sharded weights, where there are several processes.
    buckets: Vec<Bucket>,
    sending: Option<Sending>,
    shard: Shard,
    /// Places of the optimiser's pieces, where it is sharded.
    spans: Vec<Span>,
    sharded: Option<Arc<Sharded>>,
}

impl Trainee {
    /// Prepares `parameters` for training: from now on gradients are accumulated for them.
    ///
    /// # Errors
    /// Errors of [`AdamW::new`].
    pub fn new(parameters: Vec<(String, Tensor)>, settings: &OptimizerSettings) -> Result<Self> {
        Self::together(parameters, settings, Team::default(), &ParallelSettings::default(), None)
    }

    /// As [`Trainee::new`], with gradients that all processes of `team` add up, and with what `parallel.shard` names divided among
    /// them; `sharded` holds the weights that are divided already.
    ///
    /// # Errors
    /// Errors of [`AdamW::new`].
    pub(crate) fn together(
        parameters: Vec<(String, Tensor)>,
        settings: &OptimizerSettings,
        team: Team,
        parallel: &ParallelSettings,
        sharded: Option<Arc<Sharded>>,
    ) -> Result<Self> {
        for (_, parameter) in &parameters {
            let _ = parameter.set_requires_grad(true);
            if parameter.kind() != Kind::Float {
                // Gradients of micro-batches add up in f32, so that late ones are not lost.
                simplemix_torch::set_gradient_kind(parameter, Kind::Float)?;
            }
        }
        let shard = if team.size() > 1 { parallel.shard } else { Shard::None };
        let is_whole = |number: &usize| sharded.as_ref().is_none_or(|sharded| !sharded.has(&parameters[*number].0));
        let buckets = match team.size() {
            1 => Vec::new(),
            _ => {
                let whole = (0..parameters.len()).filter(is_whole).collect();
                Bucket::all(&parameters, whole, &team, shard != Shard::None, parallel.bucket_bytes())?
            }
        };
        if shard != Shard::None {
            // Weights have moved into the buckets.
            device::empty_cache()?;
        }
        let sending = Sending::new(&parameters, &buckets, &team)?;
        let mut spans = Vec::new();
        let optimizer = match shard {
            Shard::None => AdamW::new(&parameters, settings)?,
            Shard::Optimizer | Shard::All => {
                let divided = sharded.as_ref().map_or_else(|| Ok(Vec::new()), |sharded| sharded.pieces(&parameters))?;
                let of_bucket = |bucket: &Bucket| Ok((bucket.span(), bucket.pieces(&team)?));
                let buckets = buckets.iter().map(of_bucket).collect::<Result<Vec<_>>>()?;
                let (all, pieces): (_, Vec<_>) = divided.into_iter().chain(buckets).unzip();
                spans = all;
                AdamW::of_pieces(&parameters, pieces.into_iter().flatten().collect(), settings)?
            }
        };
        Ok(Self { parameters, optimizer, team, buckets, sending, shard, spans, sharded })
    }

    /// Writes the optimiser's state to `path`, or helps the process that does.
    fn save_state(&self, path: Option<&Path>) -> Result<()> {
        match (self.shard, path) {
            (Shard::None, None) => Ok(()),
            (Shard::None, Some(path)) => Ok(weights::save(path, &self.optimizer.state())?),
            (Shard::Optimizer | Shard::All, path) => Ok(weights::save_deferred(path, self.deferred_state())?),
        }
    }

    /// State of a sharded optimiser under its names, each tensor put together from the pieces of all processes when its turn comes.
    fn deferred_state(&self) -> Vec<(String, Deferred<'_>)> {
        let (mut all, mut slots) = (Vec::new(), self.optimizer.slots().iter());
        for span in &self.spans {
            let here = span.here(&self.team).map(|(member, ..)| member.parameter);
            let here: HashMap<usize, &Slot> = here.zip(slots.by_ref()).collect();
            for member in &span.members {
                let (name, parameter) = &self.parameters[member.parameter];
                // A process may have no piece of a parameter, and knows the names nevertheless.
                for &suffix in span.state_names() {
                    let own = here.get(&member.parameter).map(|slot| slot.part(suffix));
                    let shape = parameter.size();
                    let view = shape.clone();
                    let make = move || Ok(span.state(&self.team, member, own)?.f_view(view.as_slice())?);
                    let tensor = Deferred { kind: Kind::Float, shape, make: Box::new(make) };
                    all.push((format!("{name}.{suffix}"), tensor));
                }
            }
        }
        all
    }

    /// Bytes of the moments that this process has.
    #[cfg(test)]
    pub(crate) fn moment_bytes(&self) -> u64 {
        let of = |slot: &Slot| 4 * (slot.mean.numel() + slot.square.numel()) as u64;
        self.optimizer.slots().iter().map(of).sum()
    }

    /// Weights that are divided among the processes.
    pub(crate) fn sharded(&self) -> Option<&Sharded> {
        self.sharded.as_deref()
    }

    fn clear(&self) -> Result<()> {
        self.sharded.as_ref().map_or(Ok(()), |sharded| sharded.clear())?;
        self.buckets.iter().try_for_each(Bucket::clear)
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

impl Trainable for Trainee {
    fn begin_last_pass(&self) {
        if let Some(sending) = &self.sending {
            sending.begin_last();
        }
    }

    fn begin_sum(&self) -> Result<()> {
        self.sending.as_ref().map_or(Ok(()), Sending::begin_rest)
    }

    fn sum_gradients(&self) -> Result<()> {
        self.sending.as_ref().map_or(Ok(()), Sending::finish)
    }

    fn gradient_norm(&self) -> Result<f64> {
        match self.shard {
            Shard::None => self.optimizer.gradient_norm(),
            Shard::Optimizer | Shard::All => {
                let own = self.optimizer.gradient_squares()?;
                Ok(self.team.sums(&[own], "computing the gradient norm")?[0].sqrt())
            }
        }
    }

    fn update(&mut self, learning_rate: f64, scale: f64) -> Result<()> {
        let known = self.optimizer.movement();
        self.optimizer.update(learning_rate, scale)?;
        if self.shard == Shard::None {
            return Ok(());
        }
        self.clear()?;
        let works: Vec<_> = self.buckets.iter().map(|bucket| bucket.begin_gather(&self.team)).collect::<Result<_>>()?;
        works.into_iter().flatten().try_for_each(|work| work.wait())?;
        if known < Movement::Parameters {
            // All have moved if one has.
            let own = self.optimizer.movement();
            let said = |movement: Movement| f64::from(u8::from(own >= movement));
            let all = self.team.sums(&[said(Movement::Copies), said(Movement::Parameters)], "seeing what has moved")?;
            let moved = match (all[0] > 0.0, all[1] > 0.0) {
                (_, true) => Movement::Parameters,
                (true, false) => Movement::Copies,
                (false, false) => Movement::Nothing,
            };
            self.optimizer.set_movement(moved);
        }
        Ok(())
    }

    fn movement(&self) -> Movement {
        self.optimizer.movement()
    }

    fn discard(&mut self) -> Result<()> {
        if let Some(sending) = &self.sending {
            sending.wait()?;
            return self.clear();
        }
        let _guard = tch::no_grad_guard();
        for (_, parameter) in &self.parameters {
            let mut gradient = parameter.grad();
            if gradient.defined() {
                let _ = gradient.zero_();
            }
        }
        Ok(())
    }

    fn device_peak_bytes(&self) -> Result<Option<u64>> {
        let device = self.parameters.first().map_or(Device::Cpu, |(_, parameter)| parameter.device());
        Ok(device::memory(device)?.map(|memory| memory.peak_allocated))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        save_weights(Some(folder.join(weights::WEIGHTS)), &self.parameters, self.sharded())?;
        self.save_state(Some(&folder.join(OPTIMIZER)))?;
        Ok(simplemix_files::write(folder.join(UPDATES), self.optimizer.updates().to_string())?)
    }

    fn help_save(&self) -> Result<()> {
        save_weights(None, &self.parameters, self.sharded())?;
        self.save_state(None)
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
        let mut file = TensorFile::open(&folder.join(OPTIMIZER))?;
        self.optimizer.restore_with(|name| Ok(file.tensor(name)?), updates)
    }

    fn restore_weights(&mut self, folder: &Path) -> Result<()> {
        restore_weights(&folder.join(weights::WEIGHTS), &self.parameters, self.sharded())
    }
}

#[cfg(test)]
#[path = "trainee_tests.rs"]
mod tests;
