//! One AdamW update of many tensors in libtorch's fused kernel, as `torch.optim.AdamW(fused=True)`.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::many::same_shapes;
use crate::native;

/// Tensors of an update: one of each for every parameter, all of a kind and on one device.
#[derive(Debug, Clone, Copy)]
pub struct AdamWTensors<'a> {
    /// Weights, which are updated.
    pub weights: &'a [&'a Tensor],
    /// Gradients, which are divided by `divisor` in place where there is one.
    pub gradients: &'a [&'a Tensor],
    /// Decaying means of the gradients.
    pub means: &'a [&'a Tensor],
    /// Decaying means of the squared gradients.
    pub squares: &'a [&'a Tensor],
    /// Number of this update counted from 1, a scalar in f32 on the device.
    pub step: &'a Tensor,
    /// Divisor of the gradients, a scalar in f32 on the device, such as the norm over the largest norm allowed.
    pub divisor: Option<&'a Tensor>,
}

/// Numbers of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWValues {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the mean.
    pub beta1: f64,
    /// Decay of the mean square.
    pub beta2: f64,
    /// Weight decay, times the learning rate.
    pub weight_decay: f64,
    /// Added to the root of the mean square.
    pub epsilon: f64,
}

/// Updates weights and moments. Loshchilov and Hutter 2019 (arXiv:1711.05101), as `torch.optim.AdamW` computes it.
///
/// # Errors
/// [`Error::Argument`] if lengths or shapes differ or a scalar is not one in f32, [`Error::Torch`] for kinds or devices that
/// differ.
///
/// # Examples
/// ```
/// use simplemix_torch::{AdamWTensors, AdamWValues, adamw};
/// use tch::Tensor;
///
/// let (w, g) = (Tensor::from_slice(&[3f32]), Tensor::from_slice(&[6f32]));
/// let (mean, square, step) = (w.zeros_like(), w.zeros_like(), Tensor::from(1f32));
/// let tensors = AdamWTensors {
///     weights: &[&w],
///     gradients: &[&g],
///     means: &[&mean],
///     squares: &[&square],
///     step: &step,
///     divisor: None,
/// };
/// let values = AdamWValues { learning_rate: 0.1, beta1: 0.9, beta2: 0.999, weight_decay: 0.0, epsilon: 1e-8 };
/// adamw(&tensors, values)?;
/// // The first update moves every weight by the learning rate, against its gradient.
/// assert!((w.double_value(&[0]) - 2.9).abs() < 1e-6);
/// # Ok::<(), simplemix_torch::Error>(())
/// ```
pub fn adamw(tensors: &AdamWTensors<'_>, values: AdamWValues) -> Result<()> {
    same_shapes("gradients", tensors.gradients, tensors.weights)?;
    same_shapes("means", tensors.means, tensors.weights)?;
    same_shapes("squares", tensors.squares, tensors.weights)?;
    let scalars = [("step", Some(tensors.step)), ("divisor", tensors.divisor)];
    for (name, scalar) in scalars.into_iter().filter_map(|(name, scalar)| Some((name, scalar?))) {
        if scalar.numel() != 1 || scalar.kind() != Kind::Float {
            let found = format!("{:?} {:?}", scalar.kind(), scalar.size());
            return Err(Error::argument(name, found, "a scalar in f32"));
        }
    }
    if tensors.weights.is_empty() {
        return Ok(());
    }
    let AdamWTensors { weights, gradients, means, squares, step, divisor } = *tensors;
    let AdamWValues { learning_rate, beta1, beta2, weight_decay, epsilon } = values;
    let numbers = [learning_rate, beta1, beta2, weight_decay, epsilon];
    tch::no_grad(|| native::adamw(&native::AdamW { weights, gradients, means, squares, step, divisor }, numbers))
}
