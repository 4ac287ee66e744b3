//! AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) over named tensors, as `torch.optim.AdamW` computes it.
//!
//! One pass reads parameter, gradient and both moments and writes them back; it also clips the gradient and clears it.
//! State is plain tensors under the parameters' names, so a checkpoint holds it as safetensors.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Constants of AdamW; defaults are PyTorch's and TRL's, except that weight decay is off as in TRL.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWOptions {
    /// Decay of the mean gradient, in [0, 1).
    pub beta1: f64,
    /// Decay of the mean squared gradient, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the mean squared gradient.
    pub epsilon: f64,
    /// Share of a weight that is taken off at each update, times the learning rate; norms and biases are spared.
    pub weight_decay: f64,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// Optimiser state of a set of f32 parameters on the CPU or a GPU.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    slots: Vec<Slot>,
    updates: u64,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    decays: bool,
}

/// Elements a thread takes at a time: a few hundred kilobytes of the four arrays.
const CHUNK: usize = 1 << 16;

impl AdamW {
    /// Zero moments for every parameter.
    ///
    /// # Errors
    /// [`Error::Setting`] for constants out of range; [`Error::Parameter`] for one that is not contiguous f32.
    pub fn new(parameters: &[(String, Tensor)], options: AdamWOptions) -> Result<Self> {
        options.check()?;
        let slots = parameters
            .iter()
            .map(|(name, parameter)| {
                if parameter.kind() != Kind::Float || !parameter.is_contiguous() {
                    return Err(Error::Parameter { name: name.clone(), found: format!("{:?}", parameter.kind()) });
                }
                Ok(Slot {
                    name: name.clone(),
                    mean: parameter.detach().zeros_like(),
                    square: parameter.detach().zeros_like(),
                    decays: parameter.dim() > 1,
                    parameter: parameter.shallow_clone(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { options, slots, updates: 0 })
    }

    /// Global L2 norm of all gradients.
    pub fn gradient_norm(&self) -> f64 {
        let _guard = tch::no_grad_guard();
        let squares = self.slots.iter().filter_map(|slot| {
            let gradient = slot.parameter.grad();
            gradient.defined().then(|| match host_slice(&gradient) {
                // Partial sums of fixed chunks, added in order: the same for every number of threads.
                Some(values) => values
                    .par_chunks(CHUNK)
                    .map(|chunk| chunk.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>())
                    .collect::<Vec<_>>()
                    .iter()
                    .sum(),
                None => gradient.square().sum(Kind::Double).double_value(&[]),
            })
        });
        squares.sum::<f64>().sqrt()
    }

    /// One update with gradients times `scale`; gradients are zero afterwards.
    pub fn update(&mut self, learning_rate: f64, scale: f64) {
        let _guard = tch::no_grad_guard();
        self.updates += 1;
        let step = Step::new(&self.options, learning_rate, scale, self.updates);
        for slot in &mut self.slots {
            let mut gradient = slot.parameter.grad();
            if !gradient.defined() {
                continue;
            }
            let decay = if slot.decays { 1.0 - learning_rate * self.options.weight_decay } else { 1.0 };
            let on_host = slot.parameter.device() == Device::Cpu && gradient.is_contiguous();
            if on_host {
                step.on_host(slot, &gradient, decay as f32);
            } else {
                step.on_device(slot, &gradient, decay);
            }
            let _ = gradient.zero_();
        }
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Moments under `NAME.exp_avg` and `NAME.exp_avg_sq`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.slots
            .iter()
            .flat_map(|s| {
                [
                    (format!("{}.exp_avg", s.name), s.mean.shallow_clone()),
                    (format!("{}.exp_avg_sq", s.name), s.square.shallow_clone()),
                ]
            })
            .collect()
    }

    /// Takes over moments as [`AdamW::state`] gave them, and the number of updates behind them.
    ///
    /// # Errors
    /// [`Error::State`] naming the first moment that is absent or misshapen.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, updates: u64) -> Result<()> {
        for slot in &mut self.slots {
            for (suffix, moment) in [("exp_avg", &mut slot.mean), ("exp_avg_sq", &mut slot.square)] {
                let name = format!("{}.{suffix}", slot.name);
                match state.get(&name) {
                    Some(stored) if stored.size() == moment.size() => moment.copy_(stored),
                    found => {
                        return Err(Error::State {
                            found: found.map_or("absent".to_owned(), |t| format!("{:?}", t.size())),
                            expected: format!("{:?}", moment.size()),
                            name,
                        });
                    }
                }
            }
        }
        self.updates = updates;
        Ok(())
    }
}

impl AdamWOptions {
    fn check(&self) -> Result<()> {
        let share = |x: f64| (0.0..1.0).contains(&x);
        for (key, value, fits, expected) in [
            ("adamw.beta1", self.beta1, share(self.beta1), "at least 0 and below 1"),
            ("adamw.beta2", self.beta2, share(self.beta2), "at least 0 and below 1"),
            ("adamw.epsilon", self.epsilon, self.epsilon > 0.0, "above 0"),
            ("adamw.weight_decay", self.weight_decay, self.weight_decay >= 0.0, "at least 0"),
        ] {
            if !(fits && value.is_finite()) {
                return Err(Error::Setting { key, found: value.to_string(), expected });
            }
        }
        Ok(())
    }
}

/// Constants of one update.
struct Step {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    scale: f64,
    /// Learning rate over the first moment's bias correction.
    rate: f64,
    /// Root of the second moment's bias correction.
    root: f64,
}

impl Step {
    fn new(options: &AdamWOptions, learning_rate: f64, scale: f64, updates: u64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(updates as f64);
        Self {
            beta1: options.beta1,
            beta2: options.beta2,
            epsilon: options.epsilon,
            scale,
            rate: learning_rate / correction(options.beta1),
            root: correction(options.beta2).sqrt(),
        }
    }

    fn on_host(&self, slot: &mut Slot, gradient: &Tensor, decay: f32) {
        // Complements are taken in f64: 1 - 0.999 in f32 is off by a part in 100,000.
        let (c1, b2, c2) = ((1.0 - self.beta1) as f32, self.beta2 as f32, (1.0 - self.beta2) as f32);
        let (scale, rate, root, epsilon) = (self.scale as f32, self.rate as f32, self.root as f32, self.epsilon as f32);
        let (Some(p), Some(m), Some(v), Some(g)) = (
            host_slice_mut(&mut slot.parameter),
            host_slice_mut(&mut slot.mean),
            host_slice_mut(&mut slot.square),
            host_slice(gradient),
        ) else {
            return self.on_device(slot, gradient, f64::from(decay));
        };
        p.par_chunks_mut(CHUNK)
            .zip(m.par_chunks_mut(CHUNK))
            .zip(v.par_chunks_mut(CHUNK))
            .zip(g.par_chunks(CHUNK))
            .for_each(|(((p, m), v), g)| {
                for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
                    let g = g * scale;
                    *m += (g - *m) * c1;
                    *v = *v * b2 + g * g * c2;
                    *p = *p * decay - rate * *m / (v.sqrt() / root + epsilon);
                }
            });
    }

    fn on_device(&self, slot: &mut Slot, gradient: &Tensor, decay: f64) {
        let g = gradient * self.scale;
        let _ = slot.mean.lerp_(&g, 1.0 - self.beta1);
        let _ = slot.square.g_mul_scalar_(self.beta2);
        let _ = slot.square.g_add_(&(g.square() * (1.0 - self.beta2)));
        let denominator = slot.square.sqrt() / self.root + self.epsilon;
        let _ = slot.parameter.g_mul_scalar_(decay);
        let _ = slot.parameter.g_sub_(&(&slot.mean / denominator * self.rate));
    }
}

/// The values of a contiguous f32 tensor in host memory.
fn host_slice(tensor: &Tensor) -> Option<&[f32]> {
    fits(tensor).then(|| {
        #[expect(unsafe_code, reason = "tch has no view of a tensor's memory")]
        // SAFETY: contiguous f32 in host memory, alive as long as the borrowed tensor; nobody writes it meanwhile.
        unsafe {
            std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), tensor.numel())
        }
    })
}

/// The values of a contiguous f32 tensor in host memory, to be changed.
fn host_slice_mut(tensor: &mut Tensor) -> Option<&mut [f32]> {
    fits(tensor).then(|| {
        #[expect(unsafe_code, reason = "tch has no view of a tensor's memory")]
        // SAFETY: as above; each slot's tensors are distinct storages and the caller holds them exclusively.
        unsafe {
            std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel())
        }
    })
}

fn fits(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous() && tensor.numel() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch 2.11: `p = torch.tensor([[1., -2.], [3., 0.5]], requires_grad=True)`, AdamW(lr=0.1, weight_decay=0.01),
    /// three updates with gradient `p**2` summed, clipped by a factor of 0.5 by hand.
    #[test]
    fn follows_torch() {
        let p = Tensor::from_slice(&[1f32, -2.0, 3.0, 0.5]).view([2, 2]).set_requires_grad(true);
        let options = AdamWOptions { weight_decay: 0.01, ..AdamWOptions::default() };
        let mut adamw = AdamW::new(&[("p".into(), p.shallow_clone())], options).unwrap();
        for _ in 0..3 {
            p.square().sum(Kind::Float).backward();
            adamw.update(0.1, 0.5);
        }
        let values: Vec<f32> = p.detach().flatten(0, -1).try_into().unwrap();
        for (got, want) in values.iter().zip(FOLLOWS_TORCH) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        assert_eq!(f64::try_from(p.grad().abs().max()).unwrap(), 0.0);
    }

    const FOLLOWS_TORCH: [f32; 4] = [0.6989112, -1.6949446, 2.6917036, 0.2037124];

    #[test]
    fn both_paths_agree() {
        let run = |device_path: bool| {
            let p = Tensor::arange(40, (Kind::Float, Device::Cpu)).view([5, 8]).set_requires_grad(true);
            let mut adamw = AdamW::new(&[("p".into(), p.shallow_clone())], AdamWOptions::default()).unwrap();
            for _ in 0..4 {
                (p.square() * &p).sum(Kind::Float).backward();
                if device_path {
                    let _guard = tch::no_grad_guard();
                    adamw.updates += 1;
                    let step = Step::new(&adamw.options, 0.01, 1.0, adamw.updates);
                    step.on_device(&mut adamw.slots[0], &p.grad(), 1.0);
                    p.shallow_clone().zero_grad();
                } else {
                    adamw.update(0.01, 1.0);
                }
            }
            p.detach()
        };
        let difference = f64::try_from((run(true) - run(false)).abs().max()).unwrap();
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn the_norm_is_global() {
        let a = Tensor::from_slice(&[3f32]).set_requires_grad(true);
        let b = Tensor::from_slice(&[2f32, 2.0]).set_requires_grad(true);
        let adamw =
            AdamW::new(&[("a".into(), a.shallow_clone()), ("b".into(), b.shallow_clone())], AdamWOptions::default())
                .unwrap();
        // Gradients 1 and (4, 4): the root of 33.
        (a.sum(Kind::Float) + b.square().sum(Kind::Float)).backward();
        assert!((adamw.gradient_norm() - 33f64.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn constants_out_of_range_are_named() {
        let options = AdamWOptions { beta2: 1.0, ..AdamWOptions::default() };
        let error = AdamW::new(&[], options).unwrap_err();
        assert_eq!(error.to_string(), "`adamw.beta2` is 1, expected at least 0 and below 1");
    }
}
