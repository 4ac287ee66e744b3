//! AdamW: the fused kernel, and simplemix's optimiser around it.

use anyhow::{Result, ensure};
use simplemix::tch::{Device, Kind, Tensor};
use simplemix::torch::{AdamWTensors, AdamWValues, adamw, set_gradient, set_gradient_kind};
use simplemix::train::{AdamW, OptimizerSettings};

use crate::Setting;
use crate::numbers::{random, relative, wide};
use crate::report::{Found, Report, timed};

const VALUES: AdamWValues =
    AdamWValues { learning_rate: 1e-2, beta1: 0.9, beta2: 0.99, weight_decay: 0.1, epsilon: 1e-8 };
const UPDATES: usize = 3;
const DIVISOR: f64 = 1.5;

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    let place = setting.device;
    report.check("fused AdamW", "3 updates of 12 tensors", Kind::Float, || fused(place))?;
    for kind in [Kind::Float, Kind::BFloat16] {
        report.check("optimiser", "3 updates of 12 tensors", kind, || whole(place, kind))?;
    }
    Ok(())
}

fn tensors(seed: i64, kind: Kind, place: Device) -> Vec<Tensor> {
    (0..12).map(|i| random(&[40 + i, 64], kind, place, seed * 100 + i)).collect()
}

fn gradients(update: usize, place: Device) -> Vec<Tensor> {
    tensors(10 + update as i64, Kind::Float, place)
}

/// Weights after all updates, by the formula in f64.
fn formula(weights: &[Tensor]) -> Vec<Tensor> {
    let mut weights: Vec<Tensor> = weights.iter().map(wide).collect();
    let zeros = || weights.iter().map(Tensor::zeros_like).collect::<Vec<_>>();
    let (mut means, mut squares) = (zeros(), zeros());
    let AdamWValues { learning_rate, beta1, beta2, weight_decay, epsilon } = VALUES;
    for update in 1..=UPDATES {
        for (i, gradient) in gradients(update, Device::Cpu).iter().enumerate() {
            let gradient = wide(gradient) / DIVISOR;
            means[i] = &means[i] * beta1 + &gradient * (1.0 - beta1);
            squares[i] = &squares[i] * beta2 + gradient.square() * (1.0 - beta2);
            let mean = &means[i] / (1.0 - beta1.powi(update as i32));
            let square = &squares[i] / (1.0 - beta2.powi(update as i32));
            weights[i] =
                &weights[i] * (1.0 - learning_rate * weight_decay) - mean / (square.sqrt() + epsilon) * learning_rate;
        }
    }
    weights
}

fn fused(place: Device) -> Result<Found> {
    let weights = tensors(1, Kind::Float, place);
    let wanted = formula(&weights);
    let zeros = || weights.iter().map(Tensor::zeros_like).collect::<Vec<_>>();
    let (means, squares) = (zeros(), zeros());
    fn refs(tensors: &[Tensor]) -> Vec<&Tensor> {
        tensors.iter().collect()
    }
    let mut last = 0.0;
    for update in 1..=UPDATES {
        let gradients = gradients(update, place);
        let scalar = |value: f64| Tensor::from(value as f32).to_device(place);
        let (step, divisor) = (scalar(update as f64), scalar(DIVISOR));
        let tensors = AdamWTensors {
            weights: &refs(&weights),
            gradients: &refs(&gradients),
            means: &refs(&means),
            squares: &refs(&squares),
            step: &step,
            divisor: Some(&divisor),
        };
        last = timed(place, || Ok(adamw(&tensors, VALUES)?))?.1;
    }
    let errors = weights.iter().zip(&wanted).map(|(found, wanted)| relative(found, wanted));
    Ok(Found::within(1e-6, errors).note("update_ms", last))
}

/// simplemix's optimiser, which keeps f32 copies of bf16 parameters.
fn whole(place: Device, kind: Kind) -> Result<Found> {
    let parameters: Vec<(String, Tensor)> = tensors(1, kind, place)
        .into_iter()
        .enumerate()
        .map(|(i, tensor)| (format!("weight{i}"), tensor.set_requires_grad(true)))
        .collect();
    let wanted = formula(&parameters.iter().map(|(_, tensor)| tensor.detach().copy()).collect::<Vec<_>>());
    let AdamWValues { beta1, beta2, weight_decay, epsilon, .. } = VALUES;
    let settings = OptimizerSettings { beta1, beta2, weight_decay, epsilon, ..OptimizerSettings::default() };
    let mut optimiser = AdamW::new(&parameters, &settings)?;
    if kind != Kind::Float {
        for (_, parameter) in &parameters {
            set_gradient_kind(parameter, Kind::Float)?;
        }
    }
    let (mut norms, mut last) = (Vec::new(), 0.0);
    for update in 1..=UPDATES {
        let gradients = gradients(update, place);
        for ((_, parameter), gradient) in parameters.iter().zip(&gradients) {
            set_gradient(parameter, Some(gradient))?;
        }
        let all = Tensor::cat(&gradients.iter().map(|gradient| wide(gradient).flatten(0, -1)).collect::<Vec<_>>(), 0);
        let norm = all.norm().double_value(&[]);
        norms.push((optimiser.gradient_norm()? - norm).abs() / norm);
        last = timed(place, || Ok(optimiser.update(VALUES.learning_rate, 1.0 / DIVISOR)?))?.1;
    }
    ensure!(norms.iter().all(|off| *off < 1e-5), "norms of gradients are off by {norms:?}");
    // A parameter in bf16 is the f32 copy, rounded.
    let bound = if kind == Kind::Float { 1e-6 } else { 1.0 / 256.0 };
    let errors = parameters.iter().zip(&wanted).map(|((_, found), wanted)| relative(found, wanted));
    Ok(Found::within(bound, errors).note("update_ms", last))
}
