//! Losses of single responses labelled desirable or undesirable: KTO and APO-zero. Letters: B responses.

use tch::{Kind, Tensor};

use crate::check::{finite, float_vector};
use crate::error::{Error, Result};

/// Constants of [`kto`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KtoConstants {
    /// Strength of the pull towards the reference, above 0; 0.1 in the paper.
    pub beta: f64,
    /// Weight of desirable responses, 0 or above; 1 in the paper.
    pub desirable_weight: f64,
    /// Weight of undesirable responses, 0 or above; 1 in the paper.
    pub undesirable_weight: f64,
}

/// KTO, `w_D (1 - sigmoid(beta (s - z0)))` for desirable and `w_U (1 - sigmoid(beta (z0 - s)))` for undesirable
/// responses: Ethayarajh et al. 2024, eq. 8 (arXiv:2402.01306). TRL's `kto`.
///
/// `logratios` `[B]`, nats; `desirable` `[B]`, Bool; `z0` from [`kto_baseline`]. Returns the loss `[B]`, between 0 and the
/// weights.
///
/// # Errors
/// [`Error::Setting`], [`Error::Shape`], [`Error::NonFinite`].
///
/// # Examples
/// ```
/// use simplemix_loss::unpaired::{KtoConstants, kto};
/// use tch::Tensor;
/// let constants = KtoConstants { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 2.0 };
/// let labels = Tensor::from_slice(&[true, false]);
/// let loss = kto(&Tensor::from_slice(&[13.0, 3.0]), &labels, 3.0, constants)?;
/// assert!((loss.double_value(&[0]) - 0.268941).abs() < 1e-6); // 1 - sigmoid(1)
/// assert!((loss.double_value(&[1]) - 1.0).abs() < 1e-6); // 2 (1 - sigmoid(0))
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
pub fn kto(logratios: &Tensor, desirable: &Tensor, z0: f64, constants: KtoConstants) -> Result<Tensor> {
    let KtoConstants { beta, desirable_weight, undesirable_weight } = constants;
    let weight = |w: f64| w.is_finite() && w >= 0.0;
    let checks = [
        ("beta", beta, beta.is_finite() && beta > 0.0),
        ("desirable_weight", desirable_weight, weight(desirable_weight)),
        ("undesirable_weight", undesirable_weight, weight(undesirable_weight)),
        ("z0", z0, weight(z0)),
    ];
    if let Some((key, found, _)) = checks.into_iter().find(|(_, _, holds)| !holds) {
        let expected = if key == "beta" { "a number above 0" } else { "a number >= 0" }.to_owned();
        return Err(Error::Setting { key: key.to_owned(), found: found.to_string(), expected });
    }
    let sign = signs(logratios, desirable)?;
    let weights = (&sign + 1.0) * (0.5 * desirable_weight) - (&sign - 1.0) * (0.5 * undesirable_weight);
    Ok(((logratios - z0) * sign * -beta).sigmoid() * weights)
}

/// Baseline `z0` of [`kto`]: the mean log-ratio of mismatched prompts and responses, at least 0, without gradient.
///
/// TRL pairs each prompt with the response of the next example in the batch.
///
/// # Errors
/// [`Error::Shape`] unless `mismatched_logratios` is a float vector, [`Error::NonFinite`].
///
/// ```
/// let z0 = simplemix_loss::unpaired::kto_baseline(&tch::Tensor::from_slice(&[1.0, 3.0]))?;
/// assert_eq!(z0, 2.0);
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
pub fn kto_baseline(mismatched_logratios: &Tensor) -> Result<f64> {
    float_vector("mismatched_logratios", mismatched_logratios, mismatched_logratios.numel() as i64)?;
    finite("mismatched_logratios", mismatched_logratios)?;
    if mismatched_logratios.numel() == 0 {
        return Ok(0.0);
    }
    Ok(mismatched_logratios.detach().mean(Kind::Double).double_value(&[]).max(0.0))
}

/// APO-zero of single responses, `1 - sigmoid(beta s)` for desirable, `sigmoid(beta s)` for undesirable ones:
/// D'Oosterlinck et al. 2024 (arXiv:2408.06266). TRL's `apo_zero_unpaired`; equals KTO without baseline.
///
/// # Errors
/// As [`kto`].
///
/// ```
/// use simplemix_loss::unpaired::apo_zero_unpaired;
/// use tch::Tensor;
/// let loss = apo_zero_unpaired(&Tensor::from_slice(&[10.0, -10.0]), &Tensor::from_slice(&[true, false]), 0.1)?;
/// assert!((loss.double_value(&[0]) - 0.268941).abs() < 1e-6);
/// assert!((loss.double_value(&[1]) - 0.268941).abs() < 1e-6);
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
pub fn apo_zero_unpaired(logratios: &Tensor, desirable: &Tensor, beta: f64) -> Result<Tensor> {
    kto(logratios, desirable, 0.0, KtoConstants { beta, desirable_weight: 1.0, undesirable_weight: 1.0 })
}

/// Signs of the responses: 1 for desirable, -1 for undesirable.
fn signs(logratios: &Tensor, desirable: &Tensor) -> Result<Tensor> {
    let len = logratios.numel() as i64;
    float_vector("logratios", logratios, len)?;
    finite("logratios", logratios)?;
    if desirable.size() != [len] || desirable.kind() != Kind::Bool {
        let found = format!("{:?} {:?}", desirable.kind(), desirable.size());
        return Err(Error::Shape { name: "desirable", found, expected: format!("Bool [{len}]") });
    }
    Ok(desirable.to_kind(logratios.kind()) * 2.0 - 1.0)
}
