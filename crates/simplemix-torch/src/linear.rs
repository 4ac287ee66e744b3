//! Linear layers whose weight gradients are added up by the product that computes them.

use tch::Tensor;

use crate::error::Result;
use crate::host::take_loops;
use crate::{function, records, set_gradient};

/// `x W^T + b` `[T, O]` of `x` `[T, I]`, weight `[O, I]` and bias `[O]`. Differentiable.
///
/// Where the weight is a leaf on a CPU in f32 or f64, its gradient goes straight into `.grad`: the product adds to what is
/// there, where autograd would write it down and add it in a second pass.
///
/// # Errors
/// [`Error::Torch`](crate::Error::Torch) for shapes or kinds that do not fit each other.
///
/// # Examples
/// ```
/// use simplemix_torch::linear;
/// use tch::Tensor;
///
/// let x = Tensor::from_slice(&[1f32, 2.0]).view([1, 2]);
/// let weight = Tensor::from_slice(&[3f32, 4.0]).view([1, 2]).set_requires_grad(true);
/// for _ in 0..2 {
///     linear(&x, &weight, None)?.backward();
/// }
/// assert_eq!(Vec::<f32>::try_from(weight.grad().flatten(0, -1))?, [2.0, 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if !adds_up(x, weight) || !records(&[weight])? {
        return Ok(x.f_linear(weight, bias)?);
    }
    let (input, leaf) = (x.detach(), weight.shallow_clone());
    let y = input.f_linear(&weight.detach(), bias.map(Tensor::detach).as_ref())?;
    let (wants_input, wants_bias) = (records(&[x])?, bias.is_some());
    let carry = move |gradients: &[Tensor]| {
        let dy = &gradients[0];
        add_gradient(&leaf, dy, &input)?;
        let dx = if wants_input { Some(dy.f_mm(&leaf.detach())?) } else { None };
        let mut all = vec![dx, None];
        if wants_bias {
            all.push(Some(dy.f_sum_dim_intlist(0, false, dy.kind())?));
        }
        Ok(all)
    };
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    Ok(function("Linear", &inputs, vec![y], carry)?.remove(0))
}

fn adds_up(x: &Tensor, weight: &Tensor) -> bool {
    take_loops(&[x, weight]) && x.dim() == 2 && weight.dim() == 2 && weight.is_leaf()
}

/// Adds `dy^T x` to the gradient of `leaf`.
fn add_gradient(leaf: &Tensor, dy: &Tensor, x: &Tensor) -> Result<()> {
    let sum = leaf.grad();
    let product = dy.f_transpose(0, 1)?;
    if !sum.defined() {
        return set_gradient(leaf, Some(&product.f_mm(x)?));
    }
    let _ = tch::no_grad(|| sum.shallow_clone().f_addmm_(&product, x))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::backward;

    fn numbers(shape: [i64; 2], seed: i64) -> Tensor {
        let raw = Tensor::arange(shape[0] * shape[1], (Kind::Double, Device::Cpu)) * 0.73 + seed as f64;
        raw.sin().reshape(shape)
    }

    /// Gradients of input, weight and bias after three passes.
    fn gradients(work: impl Fn(&Tensor, &Tensor, Option<&Tensor>) -> Tensor, has_bias: bool) -> Vec<Tensor> {
        let leaf = |t: Tensor| t.set_requires_grad(true);
        let (x, weight) = (leaf(numbers([7, 5], 1)), leaf(numbers([4, 5], 2)));
        let bias = leaf(numbers([1, 4], 3).squeeze_dim(0));
        for pass in 0..3 {
            // An input that is itself the result of an operation, and one that needs no gradient.
            let input = if pass < 2 { &x * 2.0 } else { x.detach() };
            let y = work(&input, &weight, has_bias.then_some(&bias));
            backward(&[&y.tanh()], &[&numbers([7, 4], pass)]).unwrap();
        }
        [&x, &weight, &bias].iter().map(|t| t.grad()).filter(Tensor::defined).collect()
    }

    #[test]
    fn gradients_add_up_as_libtorch_adds_them() {
        for has_bias in [false, true] {
            let found = gradients(|x, w, b| linear(x, w, b).unwrap(), has_bias);
            let expected = gradients(|x, w, b| x.linear(w, b), has_bias);
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs().max().double_value(&[]) < 1e-13);
            }
        }
    }

    #[test]
    fn weights_that_are_no_leaves_or_frozen_go_by_libtorch() {
        let (x, weight) = (numbers([2, 3], 0).set_requires_grad(true), numbers([2, 3], 1).set_requires_grad(true));
        backward(&[&linear(&x, &(&weight * 2.0), None).unwrap()], &[&numbers([2, 2], 4)]).unwrap();
        let through = weight.grad().copy();
        assert!(through.abs().max().double_value(&[]) > 0.0 && x.grad().defined());
        let frozen = weight.detach();
        assert!(!linear(&x.detach(), &frozen, None).unwrap().requires_grad());
        let y = tch::no_grad(|| linear(&x, &weight, None)).unwrap();
        assert!(!y.requires_grad());
        assert_eq!(weight.grad(), through);
    }
}
