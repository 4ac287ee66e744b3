//! Losses with their constants, checked, and the one entry that computes them. Letters: B pairs.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::divergence::Divergence;
use crate::error::{Error, Result};
use crate::formula::{Formula, MAX_CONSTANTS, Need, Rewards, Terms};
use crate::losses::FAMILIES;
use crate::pair::{LossOutput, PairLengths, PairLogps, Pairs};
use crate::weights::Wpo;

/// Anything that gives pairs a loss: one [`PreferenceLoss`], or a [`crate::LossSum`].
pub trait Objective {
    /// Loss and rewards of each pair.
    ///
    /// # Errors
    /// [`Error::Shape`] if vectors differ in length, [`Error::NonFinite`], [`Error::Missing`].
    fn evaluate_pairs(&self, pairs: &Pairs<'_>) -> Result<LossOutput>;

    /// Whether a pair's loss depends on the other pairs of the batch.
    fn is_coupled(&self) -> bool;

    /// How pairs are weighted by how likely the policy is to write them.
    fn wpo(&self) -> Option<Wpo> {
        None
    }
}

/// Which formula.
#[derive(Clone, Copy)]
pub struct LossKind(&'static Formula);

/// A loss as it is written in a file: name, beta, and the constants that it knows.
///
/// ```
/// use simplemix_loss::{LossSettings, PreferenceLoss};
/// let loss = |name: &str, constant: &str, value: f64| {
///     let constants = [(constant.to_owned(), value)].into();
///     PreferenceLoss::from_settings(&LossSettings { loss: name.into(), beta: 2.0, constants, ..Default::default() })
/// };
/// assert_eq!(loss("simpo", "simpo_gamma", 1.0)?.constant("simpo_gamma"), Some(1.0));
/// let refused = loss("simpo", "tau", 1.0).unwrap_err().to_string();
/// assert_eq!(refused, "`tau` is 1, expected nothing: `simpo` knows simpo_gamma, label_smoothing");
/// # Ok::<(), simplemix_loss::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LossSettings {
    /// Name or alias.
    pub loss: String,
    /// Strength of the pull towards the reference, above 0.
    pub beta: f64,
    /// f-divergence; reverse KL if none is given.
    #[serde(default)]
    pub f_divergence_type: Divergence,
    /// Weights of pairs by the policy's probability of them.
    #[serde(default)]
    pub wpo: Option<Wpo>,
    /// Constants of the loss, by name.
    #[serde(flatten)]
    pub constants: BTreeMap<String, f64>,
}

/// A loss with its constants, checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreferenceLoss {
    kind: LossKind,
    beta: f64,
    constants: [f64; MAX_CONSTANTS],
    divergence: Divergence,
    wpo: Option<Wpo>,
}

impl LossKind {
    /// A loss of another crate.
    pub const fn new(formula: &'static Formula) -> Self {
        Self(formula)
    }

    /// Every kind that this crate knows.
    pub fn all() -> impl Iterator<Item = Self> {
        FAMILIES.iter().flat_map(|family| family.iter()).map(Self)
    }

    /// TRL's name, where it has one.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// What there is to know of it.
    pub fn formula(self) -> &'static Formula {
        self.0
    }

    /// Whether label smoothing means something to it.
    pub fn smooths(self) -> bool {
        self.0.constants.iter().any(|constant| constant.name == "label_smoothing")
    }

    fn needs(self, need: Need) -> bool {
        self.0.needs.contains(&need)
    }
}

impl PreferenceLoss {
    /// A loss without constants beside beta and, where the loss knows it, label smoothing.
    ///
    /// `beta > 0`; `label_smoothing` in [0, 0.5), and 0 for losses that do not know it.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the constant.
    pub fn new(kind: LossKind, beta: f64, label_smoothing: f64) -> Result<Self> {
        let given = kind.smooths() || label_smoothing != 0.0;
        let constants = given.then(|| ("label_smoothing".to_owned(), label_smoothing)).into_iter().collect();
        Self::with_constants(kind, beta, &constants)
    }

    /// A loss as written in a file.
    ///
    /// # Errors
    /// [`Error::Setting`] naming what is unknown, out of range or does not go together.
    pub fn from_settings(settings: &LossSettings) -> Result<Self> {
        let loss = Self::with_constants(settings.loss.parse()?, settings.beta, &settings.constants)?;
        let loss = loss.with_divergence(settings.f_divergence_type)?;
        settings.wpo.map_or(Ok(loss), |wpo| loss.with_wpo(wpo))
    }

    /// A loss with constants by name; those not given have their defaults.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the constant.
    pub fn with_constants(kind: LossKind, beta: f64, given: &BTreeMap<String, f64>) -> Result<Self> {
        let refuse =
            |key: &str, found: String, expected: String| Err(Error::Setting { key: key.to_owned(), found, expected });
        if !(beta.is_finite() && beta > 0.0) {
            return refuse("beta", beta.to_string(), "a number above 0".to_owned());
        }
        let known = kind.0.constants;
        if let Some((key, value)) = given.iter().find(|(key, _)| known.iter().all(|c| c.name != key.as_str())) {
            let names = known.iter().map(|constant| constant.name).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "no constant but beta" } else { &names };
            return refuse(key, value.to_string(), format!("nothing: `{kind}` knows {names}"));
        }
        let mut constants = [0.0; MAX_CONSTANTS];
        for (slot, constant) in constants.iter_mut().zip(known) {
            let Some(value) = given.get(constant.name).copied().or(constant.default) else {
                return refuse(constant.name, "absent".to_owned(), format!("{} for `{kind}`", constant.expected));
            };
            if !(constant.accepts)(value) {
                return refuse(constant.name, value.to_string(), format!("{} for `{kind}`", constant.expected));
            }
            *slot = value;
        }
        Ok(Self { kind, beta, constants, divergence: Divergence::ReverseKl, wpo: None })
    }

    /// The same loss under another divergence.
    ///
    /// # Errors
    /// [`Error::Setting`] if the loss is not built on differences of scores, or alpha is not finite.
    pub fn with_divergence(self, divergence: Divergence) -> Result<Self> {
        let refuse = |expected: String| {
            Err(Error::Setting { key: "f_divergence_type".to_owned(), found: format!("{divergence:?}"), expected })
        };
        match divergence {
            Divergence::ReverseKl => {}
            _ if !self.kind.0.divergences => return refuse(format!("ReverseKl for `{}`", self.kind)),
            Divergence::AlphaDivergence(alpha) if !alpha.is_finite() => return refuse("a finite alpha".to_owned()),
            _ => {}
        }
        Ok(Self { divergence, ..self })
    }

    /// The same loss with pairs weighted by how likely the policy is to write them; see [`Wpo`].
    ///
    /// # Errors
    /// [`Error::Setting`] for `aot` and `aot_unpaired`, whose i-th loss is not that of the i-th pair.
    pub fn with_wpo(self, wpo: Wpo) -> Result<Self> {
        if self.kind.name().starts_with("aot") {
            let expected = format!("none for `{}`, whose losses are not those of single pairs", self.kind);
            return Err(Error::Setting { key: "wpo".to_owned(), found: format!("{wpo:?}"), expected });
        }
        Ok(Self { wpo: Some(wpo), ..self })
    }

    /// Which formula.
    pub fn kind(&self) -> LossKind {
        self.kind
    }

    /// Strength of the pull towards the reference.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// A constant by its name.
    pub fn constant(&self, name: &str) -> Option<f64> {
        self.kind.0.constants.iter().position(|constant| constant.name == name).map(|i| self.constants[i])
    }

    /// Loss of a pair on which policy and reference agree; none where it depends on the pair.
    ///
    /// ```
    /// use simplemix_loss::PreferenceLoss;
    /// let dpo = PreferenceLoss::new("sigmoid".parse()?, 0.1, 0.0)?;
    /// assert_eq!(dpo.at_reference(), Some(2f64.ln()));
    /// # Ok::<(), simplemix_loss::Error>(())
    /// ```
    pub fn at_reference(&self) -> Option<f64> {
        let known = self.kind.0.at_reference.filter(|_| self.wpo.is_none())?;
        Some(known(self.beta, &self.constants))
    }

    /// Loss and rewards of each pair, from log-probabilities and lengths.
    ///
    /// # Shapes
    /// All vectors `[B]`, float; the loss is `[B]`, not reduced.
    ///
    /// # Errors
    /// [`Error::Shape`] if the vectors differ in length, [`Error::NonFinite`], [`Error::Missing`] if the loss needs
    /// what is not given.
    ///
    /// # Examples
    /// ```
    /// use simplemix_loss::{PairLogps, PreferenceLoss};
    /// use tch::Tensor;
    ///
    /// let pair = |chosen: f64, rejected: f64| PairLogps {
    ///     chosen: Tensor::from_slice(&[chosen]),
    ///     rejected: Tensor::from_slice(&[rejected]),
    /// };
    /// // Log-ratios 5 and -5: at beta 0.1 a margin of 1, which costs ln(1 + e^-1).
    /// let dpo = PreferenceLoss::new("sigmoid".parse()?, 0.1, 0.0)?;
    /// let output = dpo.evaluate(&pair(-10.0, -12.0), &pair(-15.0, -7.0), None)?;
    /// assert!((output.loss.double_value(&[0]) - 0.313262).abs() < 1e-6);
    /// assert!((output.margins().double_value(&[0]) - 1.0).abs() < 1e-12);
    /// # Ok::<(), simplemix_loss::Error>(())
    /// ```
    pub fn evaluate<'a>(
        &self,
        policy: &'a PairLogps,
        reference: impl Into<Option<&'a PairLogps>>,
        lengths: impl Into<Option<&'a PairLengths>>,
    ) -> Result<LossOutput> {
        self.evaluate_pairs(&Pairs { reference: reference.into(), lengths: lengths.into(), ..Pairs::new(policy) })
    }
}

impl Objective for PreferenceLoss {
    fn evaluate_pairs(&self, pairs: &Pairs<'_>) -> Result<LossOutput> {
        pairs.check()?;
        let given = [
            (Need::Reference, "a reference", pairs.reference.is_some()),
            (Need::Lengths, "lengths", pairs.lengths.is_some()),
            (Need::LabelProbs, "label_probs", pairs.label_probs.is_some()),
        ];
        if let Some((_, name, _)) = given.into_iter().find(|(need, _, given)| self.kind.needs(*need) && !given) {
            return Err(Error::Missing { loss: self.kind.name().to_owned(), name });
        }
        let ratio = |policy: &Tensor, of: fn(&PairLogps) -> &Tensor| match pairs.reference {
            Some(reference) => policy - of(reference),
            None => policy.shallow_clone(),
        };
        let logratios = PairLogps {
            chosen: ratio(&pairs.policy.chosen, |logps| &logps.chosen),
            rejected: ratio(&pairs.policy.rejected, |logps| &logps.rejected),
        };
        let scores = PairLogps {
            chosen: self.divergence.scores(&logratios.chosen),
            rejected: self.divergence.scores(&logratios.rejected),
        };
        let terms = Terms { beta: self.beta, constants: self.constants, pairs: *pairs, logratios, scores };
        let plain = (self.kind.0.value)(&terms);
        // Not in place: the formula's backward pass may need its own result.
        let loss = pairs.weights.map_or_else(|| plain.shallow_clone(), |weights| &plain * weights);
        let rewarded = match self.kind.0.rewards {
            Rewards::Sum => terms.logratios,
            Rewards::Mean => terms.mean_logratios(),
        };
        let reward = |logratio: &Tensor| logratio.detach() * self.beta;
        Ok(LossOutput { loss, chosen_rewards: reward(&rewarded.chosen), rejected_rewards: reward(&rewarded.rejected) })
    }

    fn is_coupled(&self) -> bool {
        self.kind.0.coupled
    }

    fn wpo(&self) -> Option<Wpo> {
        self.wpo
    }
}

impl fmt::Debug for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LossKind({})", self.name())
    }
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for LossKind {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for LossKind {}

impl FromStr for LossKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::all().find(|kind| kind.name() == name || kind.0.aliases.contains(&name)).ok_or_else(|| {
            let known = Self::all().map(Self::name).collect::<Vec<_>>().join(", ");
            Error::Setting { key: "loss".to_owned(), found: format!("`{name}`"), expected: format!("one of {known}") }
        })
    }
}

#[cfg(test)]
#[path = "preference_tests.rs"]
mod tests;
