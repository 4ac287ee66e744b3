//! Activations of feed-forward layers.
//!
//! Letters: T tokens, F feed-forward width.

use simplemix_torch::Gate;
use tch::{TchError, Tensor};

use crate::config::{Activation, XIELU_CONSTANTS};
use crate::error::{Doing, Result};

/// An activation with its weights, if it has any.
#[derive(Debug)]
pub(crate) enum Active {
    /// A function without weights.
    Fixed(Activation),
    /// xIELU with its slopes above and below zero before softplus, `[1]` each.
    Xielu([Tensor; 2]),
}

impl Active {
    /// `act(x)` of `x` `[T, F]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Fixed(activation) => fixed(*activation, x),
            Self::Xielu(slopes) => xielu(x, slopes),
        }
        .doing("the activation")
    }

    /// `act(gate) * up`, all `[T, F]`.
    pub(crate) fn gated(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        let kind = match self {
            Self::Fixed(Activation::Silu) => Gate::Silu,
            Self::Fixed(Activation::GeluTanh) => Gate::GeluTanh,
            _ => return self.apply(gate)?.f_mul(up).doing("the activation"),
        };
        Ok(simplemix_torch::gated(gate, up, kind)?)
    }
}

fn fixed(activation: Activation, x: &Tensor) -> std::result::Result<Tensor, TchError> {
    match activation {
        Activation::Silu => x.f_silu(),
        Activation::Gelu => x.f_gelu("none"),
        Activation::GeluTanh => x.f_gelu("tanh"),
        Activation::Relu => x.f_relu(),
        Activation::ReluSquared => x.f_relu()?.f_square(),
        Activation::Xielu => unreachable!("xIELU is made with its weights"),
    }
}

/// `a x^2 + b x` above zero and `c (exp(min(x, eps)) - 1 - x) + b x` elsewhere, with `a = softplus(p)` and
/// `c = b + softplus(n)` of the weights p and n.
fn xielu(x: &Tensor, [p, n]: &[Tensor; 2]) -> std::result::Result<Tensor, TchError> {
    let [(_, beta), (_, eps)] = XIELU_CONSTANTS;
    let (above, below) = (p.f_softplus()?, n.f_softplus()?.f_add_scalar(beta)?);
    let high = x.f_square()?.f_mul(&above)?;
    let low = x.f_clamp_max(eps)?.f_expm1()?.f_sub(x)?.f_mul(&below)?;
    high.f_where_self(&x.f_gt(0.0)?, &low)?.f_add(&x.f_mul_scalar(beta)?)
}
