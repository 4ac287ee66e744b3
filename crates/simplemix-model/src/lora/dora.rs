//! Weight-decomposed adaptation (Liu et al. 2024, arXiv:2402.09353) as peft computes it: each row of the changed weight
//! is brought to a length that is trained. No gradient flows through the length that it has.
//!
//! Letters as in [`super::tensors`].

use tch::{Kind, TchError, Tensor};

use super::tensors::Pair;
use crate::error::{Doing, Result};

/// Lengths of a changed weight's rows.
#[derive(Debug)]
pub(super) struct Dora {
    pub(super) magnitude: Tensor, // [O]
    /// The weight before the change, `[O, I]`, or `[I, O]` if it is turned. It is the model's own, which may be whole in passes only.
    weight: Tensor,
    is_turned: bool,
    /// Squared lengths of its rows.
    squares: Tensor, // [O]
    /// Factors that hold for as long as the matrices stay as they are.
    settled: Option<Tensor>, // [O]
}

impl Clone for Dora {
    fn clone(&self) -> Self {
        Self {
            magnitude: self.magnitude.shallow_clone(),
            weight: self.weight.shallow_clone(),
            is_turned: self.is_turned,
            squares: self.squares.shallow_clone(),
            settled: self.settled.as_ref().map(Tensor::shallow_clone),
        }
    }
}

impl Dora {
    /// For the change of `weight` `[O, I]`, with the lengths `magnitude`, or those that the rows have at first.
    pub(super) fn new(weight: &Tensor, pair: &Pair, magnitude: Option<Tensor>) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let squares = || weight.f_to_kind(Kind::Float)?.f_square()?.f_sum_dim_intlist(1, false, Kind::Float);
        let squares = squares().doing("lengths of a weight's rows")?;
        let weight = weight.shallow_clone();
        let mut dora = Self { magnitude: squares.shallow_clone(), weight, is_turned: false, squares, settled: None };
        dora.magnitude = match magnitude {
            Some(magnitude) => magnitude,
            None => dora.lengths(&dora.weight, pair).doing("lengths of a weight's rows")?,
        };
        Ok(dora)
    }

    /// Takes the model's own tensor for the weight.
    pub(super) fn over(self, weight: &Tensor, is_turned: bool) -> Self {
        Self { weight: weight.shallow_clone(), is_turned, ..self }
    }

    /// The weight before the change as the model has it, `[O, I]`.
    fn straight(&self, weight: &Tensor) -> std::result::Result<Tensor, TchError> {
        let weight = weight.f_detach()?;
        if self.is_turned { weight.f_tr() } else { Ok(weight) }
    }

    /// Lengths of the changed weight's rows `[O]`, for which nothing as large as the weight is made:
    /// `|w + s b A|^2 = |w|^2 + 2 s b (A w) + s^2 b (A A^T) b`.
    fn lengths(&self, weight: &Tensor, Pair { a, b, scale }: &Pair) -> std::result::Result<Tensor, TchError> {
        let _guard = tch::no_grad_guard();
        let across = self.straight(weight)?.f_to_kind(Kind::Float)?.f_matmul(&a.f_tr()?)?.f_mul(b)?;
        let own = b.f_matmul(&a.f_matmul(&a.f_tr()?)?)?.f_mul(b)?;
        let sum = |t: Tensor, factor: f64| t.f_sum_dim_intlist(1, false, Kind::Float)?.f_mul_scalar(factor);
        let squares = self.squares.f_add(&sum(across, 2.0 * scale)?)?.f_add(&sum(own, scale * scale)?)?;
        squares.f_clamp_min(0.0)?.f_sqrt()
    }

    /// Factor of each row `[O]`, through which gradients reach the trained length alone.
    pub(super) fn factor(&self, pair: &Pair) -> std::result::Result<Tensor, TchError> {
        match &self.settled {
            Some(factor) => Ok(factor.shallow_clone()),
            None => self.factor_over(&self.weight, pair),
        }
    }

    /// As [`Dora::factor`], where `weight` is the model's, whole.
    pub(super) fn factor_over(&self, weight: &Tensor, pair: &Pair) -> std::result::Result<Tensor, TchError> {
        self.magnitude.f_div(&self.lengths(weight, pair)?)
    }

    /// Keeps the factors.
    pub(super) fn settle(&mut self, pair: &Pair) -> Result<()> {
        self.settled = Some(tch::no_grad(|| self.factor(pair)).doing("lengths of a weight's rows")?);
        Ok(())
    }

    /// Output of the layer, where `y` is its own with `bias`, and `low` `[T, r]` the scaled product of its inputs and A. Where inputs
    /// are `dropped`, peft scales the product of the weight and the inputs that are left.
    pub(super) fn scaled(
        &self,
        pair: &Pair,
        y: &Tensor,
        bias: Option<&Tensor>,
        low: &Tensor,
        dropped: Option<&Tensor>,
    ) -> Result<Tensor> {
        let scaled = || {
            let kind = low.kind();
            let (plain, rest) = match (dropped, bias) {
                (Some(x), _) => {
                    let weight = self.straight(&self.weight)?;
                    let plain = x.f_to_kind(weight.kind())?.f_linear(&weight, None::<&Tensor>)?;
                    let plain = plain.f_to_kind(kind)?;
                    let rest = y.f_to_kind(kind)?.f_sub(&plain)?;
                    (plain, Some(rest))
                }
                (None, Some(bias)) => {
                    let bias = bias.f_to_kind(kind)?;
                    (y.f_to_kind(kind)?.f_sub(&bias)?, Some(bias))
                }
                (None, None) => (y.f_to_kind(kind)?, None),
            };
            let product = plain.f_addmm(low, &pair.b.f_tr()?)?.f_mul(&self.factor(pair)?)?;
            match rest {
                Some(rest) => product.f_add(&rest)?.f_to_kind(y.kind()),
                None => product.f_to_kind(y.kind()),
            }
        };
        scaled().doing("an adapter")
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn numbers(shape: &[i64], seed: f64) -> Tensor {
        let count = shape.iter().product::<i64>();
        (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.37 + seed).sin().view(shape)
    }

    /// peft 0.21, `DoraLinearVariant.forward` and `DoraLinearLayer.forward`, line by line.
    fn naive(dora: &Dora, pair: &Pair, y: &Tensor, x: &Tensor, bias: Option<&Tensor>, dropped: bool) -> Tensor {
        let weight_norm = (&dora.weight + pair.b.matmul(&pair.a).detach() * pair.scale).square().sum_dim_intlist(
            1,
            false,
            None::<Kind>,
        );
        let factor = (&dora.magnitude / weight_norm.sqrt()).view([1, -1]);
        let low = x.matmul(&pair.a.tr()).matmul(&pair.b.tr());
        let base = match (dropped, bias) {
            (true, _) => x.matmul(&dora.weight.tr()),
            (false, Some(bias)) => y - bias,
            (false, None) => y.shallow_clone(),
        };
        y + (&factor - 1.0) * base + &factor * low * pair.scale
    }

    #[test]
    fn outputs_and_gradients_are_pefts_with_dropped_inputs_too() {
        let (x, weight, bias) = (numbers(&[5, 6], 0.1), numbers(&[4, 6], 1.0), numbers(&[4], 2.0));
        let leaf = |t: Tensor| t.set_requires_grad(true);
        for dropped in [None, Some(&x * Tensor::from_slice(&[0f32, 2.0, 2.0, 0.0, 2.0, 0.0]))] {
            for bias in [None, Some(&bias)] {
                let y = x.linear(&weight, bias);
                let outcome = |by_hand: bool| {
                    let pair = Pair { a: leaf(numbers(&[2, 6], 3.0)), b: leaf(numbers(&[4, 2], 4.0)), scale: 1.5 };
                    let magnitude = leaf(numbers(&[4], 5.0).abs() + 0.5);
                    let dora = Dora::new(&weight, &pair, Some(magnitude.shallow_clone())).unwrap();
                    let seen = dropped.as_ref().unwrap_or(&x);
                    let out = match by_hand {
                        true => naive(&dora, &pair, &y, seen, bias, dropped.is_some()),
                        false => {
                            let low = seen.matmul(&pair.a.tr()) * pair.scale;
                            dora.scaled(&pair, &y, bias, &low, dropped.as_ref()).unwrap()
                        }
                    };
                    out.square().sum(Kind::Float).backward();
                    [out.detach(), pair.a.grad(), pair.b.grad(), magnitude.grad()]
                };
                for (ours, theirs) in outcome(false).iter().zip(outcome(true)) {
                    let error = (ours - &theirs).abs().max().double_value(&[]);
                    assert!(error < 1e-4 * theirs.abs().max().double_value(&[]), "{error}");
                }
            }
        }
    }

    #[test]
    fn first_lengths_change_nothing_and_settled_factors_stay() {
        let weight = numbers(&[4, 6], 1.0);
        let pair = Pair { a: numbers(&[2, 6], 3.0), b: Tensor::zeros([4, 2], (Kind::Float, Device::Cpu)), scale: 2.0 };
        let mut dora = Dora::new(&weight, &pair, None).unwrap();
        let one = |dora: &Dora| (dora.factor(&pair).unwrap() - 1.0).abs().max().double_value(&[]) < 1e-6;
        assert!(one(&dora));
        dora.settle(&pair).unwrap();
        let _ = pair.b.shallow_clone().fill_(1.0);
        assert!(one(&dora));
    }
}
