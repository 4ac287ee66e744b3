//! One update of AdamW: a kernel of our own in host memory, libtorch's fused one elsewhere.
//!
//! Ours reads parameter, gradient and both moments once and writes them back, clipping on the way. The fused kernel takes
//! many tensors a launch and clips by a divisor that is on the device.

use rayon::prelude::*;
use simplemix_torch::{AdamWTensors, AdamWValues, copy_all, zero_all};
use tch::{Device, Kind, Tensor};

use crate::adamw::{Movement, OptimizerSettings, Slot};
use crate::error::Result;
use crate::host::entries;

/// Elements of a thread's chunk: about a megabyte in the four arrays.
pub(crate) const CHUNK: usize = 1 << 16;

/// Constants of one update.
pub(crate) struct Update<'a> {
    pub(crate) settings: &'a OptimizerSettings,
    pub(crate) learning_rate: f64,
    /// Factor of the gradients.
    pub(crate) scale: f64,
    /// Number of this update, counted from 1.
    pub(crate) number: u64,
}

impl Update<'_> {
    /// Updates slots that have a gradient, and clears the gradients. Returns what this has changed, where that is more than
    /// `known`.
    pub(crate) fn run(&self, slots: &mut [&mut Slot], known: Movement) -> Result<Movement> {
        let before: Vec<_> = slots.iter().map(|slot| slot.before(known)).collect();
        let (mut host, mut device): (Vec<&mut Slot>, Vec<&mut Slot>) =
            slots.iter_mut().map(|slot| &mut **slot).partition(|slot| slot.weights.device() == Device::Cpu);
        for slot in &mut host {
            if !self.on_host(slot) {
                self.fused(std::slice::from_mut(slot))?;
            }
        }
        self.fused(&mut device)?;
        let rounded: Vec<&&mut Slot> = slots.iter().filter(|slot| slot.is_rounded()).collect();
        let (to, from): (Vec<&Tensor>, Vec<&Tensor>) =
            rounded.iter().map(|slot| (&slot.parameter, &slot.weights)).unzip();
        copy_all(&to, &from)?;
        let gradients: Vec<Tensor> = slots.iter().map(|slot| slot.parameter.grad()).collect();
        zero_all(&gradients.iter().collect::<Vec<_>>())?;
        let moved = slots.iter().zip(before).map(|(slot, before)| slot.movement_since(before)).max();
        Ok(moved.unwrap_or_default().max(known))
    }

    fn rate(&self, slot: &Slot) -> f64 {
        self.learning_rate * slot.rate_factor
    }

    /// Updates a slot whose tensors are plain host memory; false for any other.
    pub(crate) fn on_host(&self, slot: &mut Slot) -> bool {
        let OptimizerSettings { beta1, beta2, epsilon, .. } = *self.settings;
        let correction = |beta: f64| 1.0 - beta.powf(self.number as f64);
        let rate = (self.rate(slot) / correction(beta1)) as f32;
        let decay = (1.0 - self.rate(slot) * slot.weight_decay) as f32;
        let root = correction(beta2).sqrt() as f32;
        // Complements are computed in f64: 1 - 0.999 in f32 is off by a part in 100,000.
        let (c1, b2, c2) = ((1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32);
        let (scale, epsilon) = (self.scale as f32, epsilon as f32);
        let gradient = slot.parameter.grad().to_kind(Kind::Float);
        let written = [&mut slot.weights, &mut slot.mean, &mut slot.square];
        let Some(([p, m, v], g)) = entries(written, &gradient) else { return false };
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
        true
    }

    /// Updates slots on any device, those with one learning rate and weight decay together.
    pub(crate) fn fused(&self, slots: &mut [&mut Slot]) -> Result<()> {
        let mut groups: Vec<(Device, f64, f64, Vec<&Slot>)> = Vec::new();
        for slot in slots.iter() {
            let (device, factor, decay) = (slot.weights.device(), slot.rate_factor, slot.weight_decay);
            match groups.iter_mut().find(|group| (group.0, group.1, group.2) == (device, factor, decay)) {
                Some(group) => group.3.push(slot),
                None => groups.push((device, factor, decay, vec![slot])),
            }
        }
        groups.iter().try_for_each(|(device, factor, decay, slots)| self.group(*device, [*factor, *decay], slots))
    }

    fn group(&self, device: Device, [factor, weight_decay]: [f64; 2], slots: &[&Slot]) -> Result<()> {
        let OptimizerSettings { beta1, beta2, epsilon, .. } = *self.settings;
        let learning_rate = self.learning_rate * factor;
        let gradients: Vec<Tensor> = slots.iter().map(|slot| slot.parameter.grad().to_kind(Kind::Float)).collect();
        let scalar = |value: f64| simplemix_torch::device::to_device(&Tensor::from(value as f32), device);
        let divisor = if self.scale == 1.0 { None } else { Some(scalar(1.0 / self.scale)?) };
        let all = |of: fn(&Slot) -> &Tensor| slots.iter().map(|slot| of(slot)).collect::<Vec<_>>();
        let tensors = AdamWTensors {
            weights: &all(|slot| &slot.weights),
            gradients: &gradients.iter().collect::<Vec<_>>(),
            means: &all(|slot| &slot.mean),
            squares: &all(|slot| &slot.square),
            step: &scalar(self.number as f64)?,
            divisor: divisor.as_ref(),
        };
        let values = AdamWValues { learning_rate, beta1, beta2, weight_decay, epsilon };
        Ok(simplemix_torch::adamw(&tensors, values)?)
    }
}
