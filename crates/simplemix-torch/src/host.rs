//! Parts of a decoder layer in one pass over memory each, on a CPU in f32 and f64; elsewhere by libtorch's operators.
//!
//! Letters: T tokens, H width, F feed-forward width, N heads, D head width, R rotated pairs of elements.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::{calls, function, native, records};

/// Activation of a gated feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `x sigmoid(x)`: SwiGLU (Shazeer 2020, arXiv:2002.05202).
    Silu,
    /// GELU approximated by tanh: GeGLU.
    GeluTanh,
}

/// Whether layers are computed here in loops of our own, which keep their inputs alone: f32 and f64 on a CPU.
pub fn has_loops(kind: Kind, device: Device) -> bool {
    device == Device::Cpu && matches!(kind, Kind::Float | Kind::Double)
}

/// As [`has_loops`], for tensors that have to be of one kind.
pub(crate) fn take_loops(tensors: &[&Tensor]) -> bool {
    let kind = tensors[0].kind();
    tensors.iter().all(|t| t.kind() == kind && has_loops(kind, t.device()))
}

fn refused(name: &'static str, tensor: &Tensor, expected: String) -> Error {
    Error::argument(name, format!("{:?}", tensor.size()), expected)
}

/// `act(gate) * up` `[T, F]` of two tensors of that shape. Differentiable; the gradient needs nothing but the inputs.
///
/// # Errors
/// [`Error::Argument`] for other shapes.
///
/// # Examples
/// ```
/// use simplemix_torch::{Gate, gated};
/// use tch::Tensor;
///
/// let gate = Tensor::from_slice(&[0f32, 1.0]).view([1, 2]);
/// let up = Tensor::from_slice(&[5f32, 2.0]).view([1, 2]);
/// let y = Vec::<f32>::try_from(gated(&gate, &up, Gate::Silu)?.flatten(0, -1))?;
/// assert!(y[0] == 0.0 && (y[1] - 2.0 / (1.0 + (-1f32).exp())).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn gated(gate: &Tensor, up: &Tensor, act: Gate) -> Result<Tensor> {
    if gate.dim() != 2 {
        return Err(refused("gate", gate, "[T, F]".to_owned()));
    }
    if up.size() != gate.size() {
        return Err(refused("up", up, format!("{:?}", gate.size())));
    }
    if !take_loops(&[gate, up]) {
        let active = match act {
            Gate::Silu => gate.f_silu(),
            Gate::GeluTanh => gate.f_gelu("tanh"),
        };
        return Ok(active?.f_mul(up)?);
    }
    let (name, is_gelu) = ("simplemix::gate", act == Gate::GeluTanh);
    let inputs = [gate.detach(), up.detach()];
    let output = calls::named(name, || native::gate(&inputs[0], &inputs[1], is_gelu))?;
    if !records(&[gate, up])? {
        return Ok(output);
    }
    let carry = move |gradients: &[Tensor]| {
        let back = || native::gate_backward(&inputs[0], &inputs[1], is_gelu, &gradients[0]);
        Ok(calls::named(name, back)?.into_iter().map(Some).collect())
    };
    Ok(function("Gate", &[gate, up], vec![output], carry)?.remove(0))
}

/// `x / sqrt(mean(x^2) + eps) * factor` over the last dimension of `x` `[.., H]`, for a factor `[H]` (Zhang and Sennrich
/// 2019, arXiv:1910.07467). Differentiable; kept for the gradient are the inputs and a number a row.
///
/// # Errors
/// [`Error::Argument`] for other shapes.
///
/// # Examples
/// ```
/// use simplemix_torch::rms_norm;
/// use tch::Tensor;
///
/// let (x, factor) = (Tensor::from_slice(&[3f32, 4.0]).view([1, 2]), Tensor::from_slice(&[1f32, 2.0]));
/// let y = Vec::<f32>::try_from(rms_norm(&x, &factor, 0.0)?.flatten(0, -1))?;
/// let root = 12.5f32.sqrt();
/// assert!((y[0] - 3.0 / root).abs() < 1e-6 && (y[1] - 8.0 / root).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn rms_norm(x: &Tensor, factor: &Tensor, eps: f64) -> Result<Tensor> {
    let &[width] = &factor.size()[..] else { return Err(refused("factor", factor, "[H]".to_owned())) };
    if x.size().last() != Some(&width) {
        return Err(refused("x", x, format!("[.., {width}]")));
    }
    if !take_loops(&[x, factor]) || width == 0 {
        return Ok(x.f_rms_norm([width], Some(factor), eps)?);
    }
    let name = "simplemix::rms_norm";
    let inputs = [x.detach(), factor.detach().contiguous()];
    let [output, inverse] = calls::named(name, || native::rms_norm(&inputs[0], &inputs[1], eps))?;
    if !records(&[x, factor])? {
        return Ok(output);
    }
    let carry = move |gradients: &[Tensor]| {
        let [x, factor] = &inputs;
        let back = || native::rms_norm_backward([x, factor, &inverse, &gradients[0]]);
        Ok(calls::named(name, back)?.into_iter().map(Some).collect())
    };
    Ok(function("RmsNorm", &[x, factor], vec![output], carry)?.remove(0))
}

/// `x` `[T, N, D]` with elements i and R + i of each head turned by an angle with cosine and sine `[T, 1, R]`, for i below R;
/// 2 R is at most D. Rotary position embedding (Su et al. 2021, arXiv:2104.09864). Differentiable in `x`.
///
/// # Errors
/// [`Error::Argument`] for other shapes.
///
/// # Examples
/// ```
/// use simplemix_torch::rotated;
/// use tch::Tensor;
///
/// // A quarter turn.
/// let x = Tensor::from_slice(&[1f32, 2.0, 7.0]).view([1, 1, 3]);
/// let [cos, sin] = [0f32, 1.0].map(|value| Tensor::from_slice(&[value]).view([1, 1, 1]));
/// assert_eq!(Vec::<f32>::try_from(rotated(&x, &cos, &sin)?.flatten(0, -1))?, [-2.0, 1.0, 7.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn rotated(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let &[rows, _, width] = &x.size()[..] else { return Err(refused("x", x, "[T, N, D]".to_owned())) };
    let half = cos.size().last().copied().unwrap_or(0);
    for (name, tensor) in [("cos", cos), ("sin", sin)] {
        if tensor.size() != [rows, 1, half] || 2 * half > width {
            return Err(refused(name, tensor, format!("[{rows}, 1, R], R at most {}", width / 2)));
        }
    }
    if !take_loops(&[x, cos, sin]) {
        return by_operators(x, cos, sin);
    }
    let name = "simplemix::rotate";
    let angles = [cos, sin].map(|wave| wave.detach().contiguous());
    let output = calls::named(name, || native::turn(&x.detach(), &angles[0], &angles[1], 1.0))?;
    if !records(&[x])? {
        return Ok(output);
    }
    let carry = move |gradients: &[Tensor]| {
        Ok(vec![Some(calls::named(name, || native::turn(&gradients[0], &angles[0], &angles[1], -1.0))?)])
    };
    Ok(function("Rotate", &[x], vec![output], carry)?.remove(0))
}

fn by_operators(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = cos.size()[2];
    let rest = x.size()[2] - 2 * half;
    let (a, b) = (x.narrow(2, 0, half), x.narrow(2, half, half));
    let mut parts = vec![&a * cos - &b * sin, b * cos + a * sin];
    if rest > 0 {
        parts.push(x.narrow(2, 2 * half, rest));
    }
    Ok(Tensor::f_cat(&parts, -1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backward;
    use crate::tests::assert_same_on_any_threads;

    const KINDS: [(Kind, f64); 2] = [(Kind::Double, 1e-12), (Kind::Float, 3e-6)];

    fn numbers(shape: &[i64], seed: i64, kind: Kind) -> Tensor {
        let count: i64 = shape.iter().product();
        let raw = Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.73 + seed as f64;
        (raw.sin() * 4.0).to_kind(kind).reshape(shape)
    }

    /// Result and gradients of all inputs, largest difference from those of `expected` relative to their size.
    fn difference(
        inputs: &[Tensor],
        found: impl Fn(&[Tensor]) -> Tensor,
        expected: impl Fn(&[Tensor]) -> Tensor,
    ) -> f64 {
        let run = |work: &dyn Fn(&[Tensor]) -> Tensor, kind: Kind| {
            let leaves: Vec<Tensor> = inputs.iter().map(|t| t.to_kind(kind).detach().set_requires_grad(true)).collect();
            let output = work(&leaves);
            let gradient = numbers(&output.size(), 9, kind);
            backward(&[&output], &[&gradient]).unwrap();
            let mut all = vec![output.detach()];
            all.extend(leaves.iter().map(Tensor::grad));
            all
        };
        let pairs = run(&found, inputs[0].kind()).into_iter().zip(run(&expected, Kind::Double));
        let errors = pairs.map(|(found, expected)| {
            let size = expected.abs().max().double_value(&[]);
            (found - expected).abs().max().double_value(&[]) / size
        });
        errors.fold(0.0, f64::max)
    }

    #[test]
    fn gates_are_those_of_libtorch() {
        for (kind, bound) in KINDS {
            let inputs = [numbers(&[70, 37], 1, kind) * 5.0, numbers(&[70, 37], 2, kind)];
            for act in [Gate::Silu, Gate::GeluTanh] {
                let expected = |t: &[Tensor]| match act {
                    Gate::Silu => t[0].silu() * &t[1],
                    Gate::GeluTanh => t[0].gelu("tanh") * &t[1],
                };
                let error = difference(&inputs, |t| gated(&t[0], &t[1], act).unwrap(), expected);
                assert!(error < bound, "{kind:?} {act:?}: {error}");
                // Halves of one product, as fused projections give them.
                let whole = [Tensor::cat(&inputs, 1)];
                let half = |t: &Tensor, i: i64| t.narrow(1, 37 * i, 37);
                let found = |t: &[Tensor]| gated(&half(&t[0], 0), &half(&t[0], 1), act).unwrap();
                let error = difference(&whole, found, |t| expected(&[half(&t[0], 0), half(&t[0], 1)]));
                assert!(error < bound, "{kind:?} {act:?} in halves: {error}");
            }
        }
    }

    #[test]
    fn extreme_gates_are_finite() {
        let gate = Tensor::from_slice(&[-1e30f32, -200.0, -0.0, 200.0, 1e30]).view([1, 5]).set_requires_grad(true);
        let up = gate.ones_like();
        let y = gated(&gate, &up, Gate::Silu).unwrap();
        backward(&[&y], &[&up]).unwrap();
        assert_eq!(Vec::<f32>::try_from(y.flatten(0, -1)).unwrap(), [0.0, 0.0, 0.0, 200.0, 1e30]);
        assert_eq!(Vec::<f32>::try_from(gate.grad().flatten(0, -1)).unwrap(), [0.0, 0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn norms_are_those_of_libtorch() {
        for (kind, bound) in KINDS {
            for shape in [&[70, 37][..], &[1, 5], &[33, 3, 16]] {
                let inputs = [numbers(shape, 1, kind), numbers(&shape[shape.len() - 1..], 2, kind)];
                let width = shape[shape.len() - 1];
                let expected = |t: &[Tensor]| t[0].rms_norm([width], Some(&t[1]), 1e-5);
                let error = difference(&inputs, |t| rms_norm(&t[0], &t[1], 1e-5).unwrap(), expected);
                assert!(error < bound, "{kind:?} {shape:?}: {error}");
            }
        }
    }

    #[test]
    fn rotations_are_those_of_operators() {
        for (kind, bound) in KINDS {
            for half in [3, 5] {
                let angles = numbers(&[70, 1, half], 3, kind);
                let (cos, sin) = (angles.cos(), angles.sin());
                let inputs = [numbers(&[70, 2, 10], 1, kind)];
                let found = |t: &[Tensor]| rotated(&t[0], &cos, &sin).unwrap();
                let (wide_cos, wide_sin) = (cos.to_kind(Kind::Double), sin.to_kind(Kind::Double));
                let expected = |t: &[Tensor]| by_operators(&t[0], &wide_cos, &wide_sin).unwrap();
                let error = difference(&inputs, found, expected);
                assert!(error < bound, "{kind:?} {half}: {error}");
            }
        }
    }

    #[test]
    fn half_precision_goes_by_libtorch() {
        let half = |shape: &[i64], seed| numbers(shape, seed, Kind::BFloat16);
        let (x, factor) = (half(&[4, 8], 1), half(&[8], 2));
        assert_eq!(rms_norm(&x, &factor, 1e-5).unwrap(), x.rms_norm([8], Some(&factor), 1e-5));
        assert_eq!(gated(&x, &x, Gate::Silu).unwrap(), x.silu() * &x);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let x = numbers(&[4, 2, 6], 1, Kind::Float);
        let angles = numbers(&[4, 1, 4], 1, Kind::Float);
        assert!(rotated(&x, &angles, &angles).unwrap_err().to_string().contains("R at most 3"));
        assert!(rotated(&x, &angles.narrow(0, 0, 3), &angles).is_err());
        assert!(rms_norm(&x, &numbers(&[5], 1, Kind::Float), 0.0).is_err());
        assert!(rms_norm(&x, &numbers(&[6, 1], 1, Kind::Float), 0.0).is_err());
        let rows = x.view([8, 6]);
        assert!(gated(&rows, &rows.narrow(0, 0, 7), Gate::Silu).is_err());
        assert!(gated(&x, &x, Gate::Silu).is_err());
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let run = || {
            let x = numbers(&[300, 64], 1, Kind::Float).set_requires_grad(true);
            let factor = numbers(&[64], 2, Kind::Float).set_requires_grad(true);
            let y = gated(&rms_norm(&x, &factor, 1e-5).unwrap(), &x, Gate::Silu).unwrap();
            backward(&[&y], &[&y.ones_like()]).unwrap();
            [y.detach(), x.grad(), factor.grad()]
        };
        assert_same_on_any_threads(run);
    }
}
