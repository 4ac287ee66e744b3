//! Random tensors and distances between tensors.

use simplemix::tch::{Device, Kind, Tensor};

/// Values of a standard normal distribution, drawn on the CPU so that they are the same for every device.
pub(crate) fn random(size: &[i64], kind: Kind, device: Device, seed: i64) -> Tensor {
    simplemix::tch::manual_seed(seed);
    Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind).to_device(device)
}

/// A copy in f64 on the CPU.
pub(crate) fn wide(tensor: &Tensor) -> Tensor {
    tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double)
}

/// Largest difference between two tensors, relative to the largest of what is wanted.
pub(crate) fn relative(found: &Tensor, wanted: &Tensor) -> f64 {
    let (found, wanted) = (wide(found), wide(wanted));
    if found.size() != wanted.size() {
        return f64::INFINITY;
    }
    let scale = wanted.abs().max().double_value(&[]).max(1e-12);
    (found - wanted).abs().max().double_value(&[]) / scale
}

/// Norm of the difference between two tensors over the norm of what is wanted.
pub(crate) fn norm_off(found: &Tensor, wanted: &Tensor) -> f64 {
    let (found, wanted) = (wide(found), wide(wanted));
    if found.size() != wanted.size() {
        return f64::INFINITY;
    }
    let scale = wanted.norm().double_value(&[]).max(1e-12);
    (found - wanted).norm().double_value(&[]) / scale
}

/// Largest difference between numbers, relative to the largest of what is wanted.
pub(crate) fn off(found: &[f64], wanted: &[f64]) -> f64 {
    relative(&Tensor::from_slice(found), &Tensor::from_slice(wanted))
}

/// Values of a tensor in order.
pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(wide(tensor).flatten(0, -1)).unwrap_or_default()
}
