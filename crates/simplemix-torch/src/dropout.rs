//! Dropout whose mask is a function of what an element is, not of where it lies.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::{function, native, records};

/// `x` `[T, I]` with a `share` of its elements set to zero and the others divided by `1 - share`. Differentiable.
///
/// An element is dropped by a hash of `seed`, the key of its row (`keys`, `[T]`, Int) and its feature, the same on every
/// device: where a row lies, and which rows are beside it, changes nothing. The mask is made again in the backward pass, not
/// kept.
///
/// # Errors
/// [`Error::Argument`] for other shapes or kinds or a share outside `[0, 1)`, [`Error::Torch`] where memory does not suffice.
///
/// # Examples
/// ```
/// use simplemix_torch::keyed_dropout;
/// use tch::{Device, Kind, Tensor};
///
/// let x = Tensor::ones([2, 1000], (Kind::Float, Device::Cpu));
/// let dropped = keyed_dropout(&x, &Tensor::from_slice(&[7i32, 8]), 1, 0.25)?;
/// // The mean stays.
/// assert!((dropped.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.05);
/// // Rows in another order, or alone, drop the same.
/// let alone = keyed_dropout(&x.narrow(0, 0, 1), &Tensor::from_slice(&[8i32]), 1, 0.25)?;
/// assert_eq!(alone.get(0), dropped.get(1));
/// # Ok::<(), simplemix_torch::Error>(())
/// ```
pub fn keyed_dropout(x: &Tensor, keys: &Tensor, seed: u32, share: f64) -> Result<Tensor> {
    let numbers = check(x, keys, seed, share)?;
    let drop = move |x: &Tensor, keys: &Tensor| native::dropout(x, keys, numbers, false);
    let output = tch::no_grad(|| drop(&x.detach(), keys))?;
    if !records(&[x])? {
        return Ok(output);
    }
    let keys = keys.shallow_clone();
    let carry = move |gradients: &[Tensor]| Ok(vec![Some(drop(&gradients[0].contiguous(), &keys)?)]);
    Ok(function("KeyedDropout", &[x], vec![output], carry)?.remove(0))
}

/// Seed, least hash that is kept, and factor of what is kept.
fn check(x: &Tensor, keys: &Tensor, seed: u32, share: f64) -> Result<(u32, u32, f64)> {
    let found = |t: &Tensor| format!("{:?} {:?}", t.kind(), t.size());
    let [rows, _] = x.size()[..] else { return Err(Error::argument("x", found(x), "a matrix")) };
    if keys.size() != [rows] || keys.kind() != Kind::Int || keys.device() != x.device() || !keys.is_contiguous() {
        return Err(Error::argument("keys", found(keys), format!("Int [{rows}] beside x")));
    }
    if !(0.0..1.0).contains(&share) {
        return Err(Error::argument("share", share, "a number from 0 to below 1"));
    }
    Ok((seed, (share * 2f64.powi(32)) as u32, 1.0 / (1.0 - share)))
}
