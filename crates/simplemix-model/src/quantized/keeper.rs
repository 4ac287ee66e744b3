//! Keeper of quantised weights: those of a stage have their numbers while a pass is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use simplemix_torch::exchange_memory;
use tch::{Device, Kind, Tensor};

use super::{QuantizationSettings, Stored, quantizable};
use crate::config::ModelConfig;
use crate::residence::{Divider, Residence, Stage};

/// A quantised weight, and the model's own tensor, which has memory while its stage is entered.
#[derive(Debug)]
pub(crate) struct Weight {
    stored: Stored,
    own: Tensor,
    /// In place of the memory, while the tensor has it.
    lent: Option<Tensor>,
}

impl Weight {
    /// A weight of `shape`, whose numbers are `kind` on `device` when they are there.
    pub(crate) fn new(stored: Stored, shape: [i64; 2], kind: Kind, device: Device) -> simplemix_torch::Result<Self> {
        let own = Tensor::f_empty(shape, (kind, device))?;
        exchange_memory(&own, &Tensor::f_empty([0], (kind, device))?)?;
        Ok(Self { stored, own, lent: None })
    }

    /// The model's own tensor.
    pub(crate) fn own(&self) -> Tensor {
        self.own.shallow_clone()
    }

    /// Gives the tensor its numbers, in `spare` memory of its size if there is some.
    fn fill(&mut self, spare: &mut Vec<Tensor>) -> simplemix_torch::Result<()> {
        let numel = self.own.numel();
        let memory = match spare.iter().position(|memory| memory.numel() == numel) {
            Some(place) => spare.swap_remove(place),
            None => Tensor::f_empty([numel as i64], (self.own.kind(), self.own.device()))?,
        };
        exchange_memory(&self.own, &memory)?;
        self.lent = Some(memory);
        Ok(self.stored.dequantise_into(&self.own)?)
    }

    /// Takes the memory back.
    fn clear(&mut self) -> Option<Tensor> {
        let memory = self.lent.take()?;
        exchange_memory(&self.own, &memory).ok()?;
        Some(memory)
    }
}

/// Weights of a stage.
#[derive(Debug, Default)]
struct Rows {
    weights: BTreeMap<String, Weight>,
    /// How often the stage was entered and not yet left.
    entered: usize,
}

#[derive(Debug, Default)]
struct State {
    stages: BTreeMap<Stage, Rows>,
    /// Memory of the stage that was left last.
    spare: Vec<Tensor>,
}

/// Quantised weights of a model.
#[derive(Debug)]
pub(crate) struct Quantized {
    /// Stage of each weight.
    stages: BTreeMap<String, Stage>,
    state: Mutex<State>,
}

impl Quantized {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        Self { stages: config.stages(), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stage(&self, name: &str) -> Stage {
        self.stages.get(name).copied().unwrap_or(Stage::Root)
    }

    /// Keeps a weight; returns the model's own tensor.
    pub(crate) fn keep(&self, name: &str, weight: Weight) -> Tensor {
        let own = weight.own();
        self.lock().stages.entry(self.stage(name)).or_default().weights.insert(name.to_owned(), weight);
        own
    }

    /// Bytes that the quantised weights take.
    pub(crate) fn bytes(&self) -> u64 {
        let state = self.lock();
        let all = state.stages.values().flat_map(|rows| rows.weights.values());
        all.map(|weight| weight.stored.bytes()).sum()
    }
}

impl Residence for Quantized {
    fn enter(&self, stage: Stage, _: Option<Stage>) -> simplemix_torch::Result<()> {
        let mut state = self.lock();
        let State { stages, spare } = &mut *state;
        let Some(rows) = stages.get_mut(&stage) else { return Ok(()) };
        if rows.entered == 0 {
            let _guard = tch::no_grad_guard();
            let filled = rows.weights.values_mut().try_for_each(|weight| weight.fill(spare));
            // Memory of other sizes is not kept.
            spare.clear();
            if filled.is_err() {
                rows.weights.values_mut().for_each(|weight| drop(weight.clear()));
                return filled;
            }
        }
        rows.entered += 1;
        Ok(())
    }

    fn leave(&self, stage: Stage) {
        let mut state = self.lock();
        let State { stages, spare } = &mut *state;
        let Some(rows) = stages.get_mut(&stage) else { return };
        rows.entered = rows.entered.saturating_sub(1);
        if rows.entered == 0 {
            *spare = rows.weights.values_mut().filter_map(Weight::clear).collect();
        }
    }

    fn begin_backward(&self, _: Stage) -> simplemix_torch::Result<()> {
        Ok(())
    }

    fn end_backward(&self, _: Stage) -> simplemix_torch::Result<()> {
        Ok(())
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn has(&self, name: &str) -> bool {
        self.lock().stages.get(&self.stage(name)).is_some_and(|rows| rows.weights.contains_key(name))
    }

    fn whole(&self, name: &str) -> simplemix_torch::Result<Tensor> {
        let state = self.lock();
        let weight = state.stages.get(&self.stage(name)).and_then(|rows| rows.weights.get(name));
        let weight = weight.expect("only weights that are kept are asked for");
        let out = Tensor::f_empty(weight.own.size(), (weight.own.kind(), weight.own.device()))?;
        weight.stored.dequantise_into(&out)?;
        Ok(out)
    }
}

/// Quantises the weights of linear layers while a model is read, one after the other.
#[derive(Debug)]
pub struct Quantizer {
    settings: QuantizationSettings,
    device: Device,
    names: BTreeSet<String>,
    kept: Option<Arc<Quantized>>,
}

impl Quantizer {
    /// One for a model that is loaded onto `device`; none if nothing is to be quantised.
    ///
    /// # Examples
    /// ```
    /// use simplemix_model::{CausalLm, LoadIn, QuantizationSettings, Quantizer, tiny};
    /// use tch::{Device, Kind};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let folder = dir.path().join("tiny");
    /// # tiny::write_folder(&folder, 1)?;
    /// let settings = QuantizationSettings { load_in: LoadIn::FourBit, double_quant: true };
    /// let mut quantizer = Quantizer::new(&settings, Device::Cpu).expect("quantisation is on");
    /// let model = CausalLm::load_divided(&folder, Kind::Float, Device::Cpu, Some(&mut quantizer))?;
    /// assert!(model.is_quantized());
    /// assert!(quantizer.bytes() < 4 * model.config().parameters() as u64);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(settings: &QuantizationSettings, device: Device) -> Option<Self> {
        settings.is_on().then(|| Self { settings: settings.clone(), device, names: BTreeSet::new(), kept: None })
    }
}

impl Quantizer {
    /// Bytes that the weights take which have been quantised so far.
    pub fn bytes(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.bytes())
    }
}

impl Divider for Quantizer {
    fn begin(&mut self, config: &ModelConfig, _: &[(String, Vec<i64>)]) -> simplemix_torch::Result<Arc<dyn Residence>> {
        let kept = Arc::new(Quantized::new(config));
        self.names = quantizable(config);
        self.kept = Some(Arc::clone(&kept));
        Ok(kept)
    }

    fn take(&mut self, name: &str, weight: &Tensor) -> simplemix_torch::Result<Tensor> {
        let moved = weight.f_to_device(self.device)?;
        let (Some(kept), true) = (&self.kept, self.names.contains(name)) else { return Ok(moved) };
        let Ok((rows, columns)) = moved.size2() else { return Ok(moved) };
        match Stored::quantise(&moved, &self.settings)? {
            Some(stored) => {
                let weight = Weight::new(stored, [rows, columns], weight.kind(), self.device)?;
                Ok(kept.keep(name, weight))
            }
            None => Ok(moved),
        }
    }

    fn is_shared(&self) -> bool {
        false
    }
}
