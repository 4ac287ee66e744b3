//! Linear layers of which each has rows of its own, computed by one product on a device.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::{function, records};

/// Whether [`grouped_linear`] takes weights of `[outputs, inputs]` numbers of this kind: libtorch wants rows that are multiples of 16
/// bytes.
pub fn takes_grouped(kind: Kind, [outputs, inputs]: [i64; 2]) -> bool {
    let is_whole = |width: i64| (width as usize * kind.elt_size_in_bytes()).is_multiple_of(16);
    is_whole(outputs) && is_whole(inputs)
}

/// `x_e W_e^T` `[S, O]`, where `x_e` are the rows of `x` `[S, I]` up to `ends[e]` from the end of those before, and `weights` are one
/// `[O, I]` for each group. `ends` `[E]` is i32 on the device of `x`, so that nothing waits for the device: PyTorch's `_grouped_mm`.
/// Differentiable in `x` and the weights.
///
/// The weights are read where they lie if they are parts of one tensor, as [`side_by_side`] makes them, and are copied otherwise, for
/// the forward product and once more for the backward one; no copy is kept in between.
///
/// On CUDA libtorch 2.11 has one kernel for bf16; for other kinds it waits for the device and multiplies group by group.
///
/// # Errors
/// [`Error::Argument`] without weights or for widths that [`takes_grouped`] refuses, [`Error::Torch`] for shapes or kinds that do not fit
/// each other.
///
/// # Examples
/// ```
/// use simplemix_torch::grouped_linear;
/// use tch::{Device, Kind, Tensor};
///
/// let x = Tensor::ones([3, 4], (Kind::Float, Device::Cpu));
/// let weights = [1.0, 2.0].map(|value| Tensor::full([4, 4], value, (Kind::Float, Device::Cpu)));
/// // One row for the first weight, two for the second.
/// let y = grouped_linear(&x, &Tensor::from_slice(&[1i32, 3]), &[&weights[0], &weights[1]])?;
/// assert_eq!(Vec::<f32>::try_from(y.select(1, 0))?, [4.0, 8.0, 8.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn grouped_linear(x: &Tensor, ends: &Tensor, weights: &[&Tensor]) -> Result<Tensor> {
    let Some((outputs, inputs)) = weights.first().and_then(|weight| weight.size2().ok()) else {
        return Err(Error::argument("weights", format!("{}", weights.len()), "a matrix for each group"));
    };
    if !takes_grouped(x.kind(), [outputs, inputs]) {
        let found = format!("[{outputs}, {inputs}] of {:?}", x.kind());
        return Err(Error::argument("weights", found, "rows and columns of multiples of 16 bytes"));
    }
    let held: Vec<Tensor> = weights.iter().map(|weight| weight.detach()).collect();
    let (input, ends) = (x.detach().f_contiguous()?, ends.shallow_clone());
    let y = product(&input, &stacked(&held)?.f_transpose(1, 2)?, &ends)?;
    let inputs: Vec<&Tensor> = [x].into_iter().chain(weights.iter().copied()).collect();
    if !records(&inputs)? {
        return Ok(y);
    }
    let (wants_input, wants_weights) = (records(&[x])?, records(weights)?);
    let input = wants_weights.then_some(input);
    let backward = move |gradients: &[Tensor]| {
        let dy = gradients[0].f_contiguous()?;
        let dx = if wants_input { Some(product(&dy, &stacked(&held)?, &ends)?) } else { None };
        let mut all = vec![dx];
        match input {
            Some(input) => {
                all.extend(product(&dy.f_transpose(0, 1)?, &input, &ends)?.f_unbind(0)?.into_iter().map(Some))
            }
            None => all.extend(held.iter().map(|_| None)),
        }
        Ok(all)
    };
    Ok(function("GroupedLinear", &inputs, vec![y], backward)?.remove(0))
}

fn product(a: &Tensor, b: &Tensor, ends: &Tensor) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    Ok(a.f_internal_grouped_mm(b, Some(ends), None, None)?)
}

/// The tensors as one, without a copy where they lie side by side already.
fn stacked(tensors: &[Tensor]) -> Result<Tensor> {
    let first = &tensors[0];
    let (numel, size) = (first.numel(), first.kind().elt_size_in_bytes());
    let lies = |(place, tensor): (usize, &Tensor)| {
        let offset = (tensor.data_ptr() as usize).checked_sub(first.data_ptr() as usize);
        tensor.size() == first.size() && tensor.is_contiguous() && offset == Some(place * numel * size)
    };
    if tensors.len() > 1 && tensors.iter().enumerate().all(lies) {
        let mut shape = vec![tensors.len() as i64];
        shape.extend(first.size());
        let mut strides = vec![numel as i64];
        strides.extend(first.stride());
        // Refused where they adjoin by chance, in memories of their own.
        if let Ok(all) = first.f_as_strided(shape, strides, None) {
            return Ok(all);
        }
    }
    Ok(Tensor::f_stack(tensors, 0)?)
}

/// Copies of tensors of one shape that lie in one memory, in their order, for [`grouped_linear`].
///
/// # Errors
/// [`Error::Torch`] for tensors of several shapes, or where memory does not suffice.
pub fn side_by_side(tensors: &[&Tensor]) -> Result<Vec<Tensor>> {
    let _guard = tch::no_grad_guard();
    Ok(Tensor::f_stack(tensors, 0)?.f_unbind(0)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::backward;

    fn numbers(shape: &[i64], seed: i64) -> Tensor {
        let raw = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu)) * 0.73 + seed as f64;
        raw.sin().reshape(shape).to_kind(Kind::Float)
    }

    /// Groups of two, no, four and one row.
    const ENDS: [i32; 4] = [2, 2, 6, 7];

    fn by_hand(x: &Tensor, weights: &[&Tensor]) -> Tensor {
        let starts = [0].into_iter().chain(ENDS);
        let parts: Vec<Tensor> = starts
            .zip(ENDS)
            .zip(weights)
            .map(|((start, end), weight)| {
                x.slice(0, i64::from(start), i64::from(end), 1).linear(weight, None::<&Tensor>)
            })
            .collect();
        Tensor::cat(&parts, 0)
    }

    fn results(work: impl Fn(&Tensor, &[&Tensor]) -> Tensor, is_one: bool, trains: [bool; 2]) -> Vec<Tensor> {
        let weights: Vec<Tensor> = (0..4).map(|seed| numbers(&[12, 8], seed)).collect();
        let weights = if is_one { side_by_side(&weights.iter().collect::<Vec<_>>()).unwrap() } else { weights };
        let weights: Vec<Tensor> = weights.into_iter().map(|weight| weight.set_requires_grad(trains[1])).collect();
        let x = numbers(&[7, 8], 9).set_requires_grad(trains[0]);
        let y = work(&x, &weights.iter().collect::<Vec<_>>());
        if y.requires_grad() {
            backward(&[&y], &[&numbers(&[7, 12], 5)]).unwrap();
        }
        let grads = weights.iter().chain([&x]).map(|t| if t.grad().defined() { t.grad() } else { t.zeros_like() });
        grads.chain([y.detach()]).collect()
    }

    #[test]
    fn groups_are_products_of_their_own() {
        for (is_one, trains) in [
            (true, [true, true]),
            (false, [true, true]),
            (true, [true, false]),
            (false, [false, true]),
            (false, [false; 2]),
        ] {
            let found = results(|x, w| grouped_linear(x, &Tensor::from_slice(&ENDS), w).unwrap(), is_one, trains);
            let expected = results(by_hand, is_one, trains);
            for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let off = (found - expected).abs().max().double_value(&[]);
                assert!(off < 1e-5, "{is_one} {trains:?} {place}: {off}");
            }
        }
    }

    #[test]
    fn parts_of_one_tensor_are_not_copied() {
        let weights: Vec<Tensor> = (0..3).map(|seed| numbers(&[4, 8], seed)).collect();
        let apart = stacked(&weights).unwrap();
        let together = side_by_side(&weights.iter().collect::<Vec<_>>()).unwrap();
        let one = stacked(&together).unwrap();
        assert_eq!(one.data_ptr(), together[0].data_ptr());
        assert_eq!(one, apart);
        assert_ne!(apart.data_ptr(), weights[0].data_ptr());
        // Every other part, and parts in another order.
        let [a, b, c] = &together[..] else { panic!("three parts") };
        for parts in [[a, c], [b, a]] {
            let parts = parts.map(Tensor::shallow_clone);
            assert_ne!(stacked(&parts).unwrap().data_ptr(), parts[0].data_ptr());
        }
    }

    #[test]
    fn narrow_rows_are_refused() {
        let (x, weight) = (numbers(&[2, 6], 0), numbers(&[8, 6], 0));
        let error = grouped_linear(&x, &Tensor::from_slice(&[2i32]), &[&weight]).unwrap_err().to_string();
        assert!(error.contains("multiples of 16 bytes"), "{error}");
        assert!(grouped_linear(&x, &Tensor::from_slice(&[2i32]), &[]).is_err());
    }
}
