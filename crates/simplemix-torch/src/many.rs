//! Work over many tensors in few kernels.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::native;

/// L2 norm over the elements of all tensors, a scalar in f32 on their device. The host does not wait for it.
///
/// # Errors
/// [`Error::Torch`] for tensors on several devices.
///
/// # Examples
/// ```
/// use tch::Tensor;
///
/// let norm = simplemix_torch::norm(&[&Tensor::from_slice(&[3f32]), &Tensor::from_slice(&[0f32, 4.0])])?;
/// assert_eq!(norm.double_value(&[]), 5.0);
/// # Ok::<(), simplemix_torch::Error>(())
/// ```
pub fn norm(tensors: &[&Tensor]) -> Result<Tensor> {
    match tensors {
        [] => Ok(Tensor::zeros([0i64; 0], (Kind::Float, Device::Cpu))),
        _ => tch::no_grad(|| native::norm(tensors)),
    }
}

/// Copies each tensor of `from` into that of `to`, casting where kinds differ. Copies from pinned memory do not wait.
///
/// # Errors
/// [`Error::Argument`] if the lengths or a shape differ.
pub fn copy_all(to: &[&Tensor], from: &[&Tensor]) -> Result<()> {
    same_shapes("from", from, to)?;
    if to.is_empty() { Ok(()) } else { tch::no_grad(|| native::copy_all(to, from)) }
}

/// Sets all elements of all tensors to 0.
///
/// # Errors
/// [`Error::Torch`] where libtorch refuses one, such as a sparse tensor.
pub fn zero_all(tensors: &[&Tensor]) -> Result<()> {
    if tensors.is_empty() { Ok(()) } else { tch::no_grad(|| native::zero_all(tensors)) }
}

/// Checks that `tensors` are as many as `like`, of the same shapes.
pub(crate) fn same_shapes(name: &'static str, tensors: &[&Tensor], like: &[&Tensor]) -> Result<()> {
    if tensors.len() != like.len() {
        return Err(Error::argument(name, format!("{} tensors", tensors.len()), format!("{}", like.len())));
    }
    match tensors.iter().zip(like).find(|(tensor, like)| tensor.size() != like.size()) {
        Some((tensor, like)) => {
            Err(Error::argument(name, format!("{:?}", tensor.size()), format!("{:?}", like.size())))
        }
        None => Ok(()),
    }
}
