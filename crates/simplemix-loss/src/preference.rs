//! Losses with checked constants, and the entry that computes them. Letters: B pairs.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use tch::Tensor;

use crate::divergence::Divergence;
use crate::error::{Error, Result};
use crate::formula::{Coupling, Formula, MAX_CONSTANTS, Rewards, Terms};
use crate::losses::FAMILIES;
use crate::objective::PairLoss;
use crate::pair::{LossOutput, Need, PairLengths, PairLogps, Pairs};
use crate::weights::Wpo;

/// Name of a loss together with its formula.
#[derive(Clone, Copy)]
pub struct LossKind(&'static Formula);

/// A loss with checked constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreferenceLoss {
    kind: LossKind,
    beta: f64,
    constants: [f64; MAX_CONSTANTS],
    divergence: Divergence,
    wpo: Option<Wpo>,
}

impl LossKind {
    /// A kind defined by another crate.
    pub const fn new(formula: &'static Formula) -> Self {
        Self(formula)
    }

    /// Every kind that this crate defines.
    pub fn all() -> impl Iterator<Item = Self> {
        FAMILIES.iter().flat_map(|family| family.iter()).map(Self)
    }

    /// Name, as in TRL if TRL has the loss.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Definition of the loss.
    pub fn formula(self) -> &'static Formula {
        self.0
    }

    /// Kind of this name or alias; an error names `key`.
    pub(crate) fn find(key: &str, name: &str) -> Result<Self> {
        Self::all().find(|kind| kind.name() == name || kind.0.aliases.contains(&name)).ok_or_else(|| {
            let known = Self::all().map(Self::name).collect::<Vec<_>>().join(", ");
            Error::Setting { key: key.to_owned(), found: format!("`{name}`"), expected: format!("one of {known}") }
        })
    }

    /// Whether `name` is one of the loss' constants.
    pub(crate) fn has_constant(self, name: &str) -> bool {
        self.0.constants.iter().any(|constant| constant.name == name)
    }

    /// The loss' constants, for an error that refuses another one.
    pub(crate) fn constants_phrase(self) -> String {
        match self.0.constants.iter().map(|constant| constant.name).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => format!("no constant: `{self}` has beta alone"),
            names => format!("a constant of `{self}`: {names}"),
        }
    }
}

impl PreferenceLoss {
    /// A loss without constants besides beta and, if the loss has it, label smoothing.
    ///
    /// `beta > 0`; `label_smoothing` in [0, 0.5), and 0 for losses that do not have it.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the constant.
    pub fn new(kind: LossKind, beta: f64, label_smoothing: f64) -> Result<Self> {
        let given = kind.has_constant("label_smoothing") || label_smoothing != 0.0;
        let constants = given.then(|| ("label_smoothing".to_owned(), label_smoothing)).into_iter().collect();
        Self::with_constants(kind, beta, &constants)
    }

    /// A loss with constants by name; absent ones take their defaults.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the constant.
    pub fn with_constants(kind: LossKind, beta: f64, given: &BTreeMap<String, f64>) -> Result<Self> {
        let refuse =
            |key: &str, found: String, expected: String| Err(Error::Setting { key: key.to_owned(), found, expected });
        if !(beta.is_finite() && beta > 0.0) {
            return refuse("beta", beta.to_string(), "a number above 0".to_owned());
        }
        if let Some((key, value)) = given.iter().find(|(key, _)| !kind.has_constant(key)) {
            return refuse(key, value.to_string(), kind.constants_phrase());
        }
        let mut constants = [0.0; MAX_CONSTANTS];
        for (slot, constant) in constants.iter_mut().zip(kind.0.constants) {
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

    /// Replaces the divergence.
    ///
    /// # Errors
    /// [`Error::Setting`] if the loss is not built on differences of scores, or alpha is not finite.
    pub fn with_divergence(self, divergence: Divergence) -> Result<Self> {
        let refuse = |expected: String| {
            Err(Error::Setting { key: "f_divergence_type".to_owned(), found: format!("`{divergence}`"), expected })
        };
        match divergence {
            Divergence::ReverseKl => {}
            _ if !self.kind.0.divergences => return refuse(format!("`reverse_kl` for `{}`", self.kind)),
            Divergence::AlphaDivergence(alpha) if !alpha.is_finite() => return refuse("a finite alpha".to_owned()),
            _ => {}
        }
        Ok(Self { divergence, ..self })
    }

    /// Weights pairs by how likely the policy is to write them; see [`Wpo`].
    ///
    /// # Errors
    /// [`Error::Setting`] for losses of sorted log-ratios, whose i-th loss is not that of the i-th pair.
    pub fn with_wpo(self, wpo: Wpo) -> Result<Self> {
        if self.kind.0.coupling == Coupling::Sorted {
            let expected = format!("no weighting for `{}`, whose losses are not those of single pairs", self.kind);
            return Err(Error::Setting { key: "wpo".to_owned(), found: format!("`{wpo}`"), expected });
        }
        Ok(Self { wpo: Some(wpo), ..self })
    }

    /// Name and formula.
    pub fn kind(&self) -> LossKind {
        self.kind
    }

    /// Strength of the pull towards the reference.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// Value of a constant.
    pub fn constant(&self, name: &str) -> Option<f64> {
        self.kind.0.constants.iter().position(|constant| constant.name == name).map(|i| self.constants[i])
    }

    /// Loss and rewards of each pair, from log-probabilities and lengths.
    ///
    /// # Shapes
    /// All vectors `[B]`, float; the loss is `[B]`, not reduced.
    ///
    /// # Errors
    /// [`Error::Shape`] if the vectors differ in length, [`Error::NonFinite`], [`Error::Missing`] if an input that the
    /// loss needs is absent.
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

impl PreferenceLoss {
    /// Loss and rewards of pairs that are checked already.
    pub(crate) fn compute(&self, pairs: &Pairs<'_>) -> Result<LossOutput> {
        if let Some(need) = self.kind.0.needs.iter().find(|need| !pairs.has(**need)) {
            return Err(Error::Missing { loss: self.kind.name().to_owned(), need: need.phrase() });
        }
        let ratio = |policy: &Tensor, side: fn(&PairLogps) -> &Tensor| match pairs.reference {
            Some(reference) => policy - side(reference),
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
}

impl PairLoss for PreferenceLoss {
    fn evaluate_pairs(&self, pairs: &Pairs<'_>) -> Result<LossOutput> {
        pairs.check()?;
        self.compute(pairs)
    }

    fn needs(&self, need: Need) -> bool {
        self.kind.0.needs.contains(&need)
    }

    fn is_coupled(&self) -> bool {
        self.kind.0.coupling != Coupling::Independent
    }

    /// ```
    /// use simplemix_loss::{PairLoss, PreferenceLoss};
    /// let dpo = PreferenceLoss::new("sigmoid".parse()?, 0.1, 0.0)?;
    /// assert_eq!(dpo.at_reference(), Some(2f64.ln()));
    /// # Ok::<(), simplemix_loss::Error>(())
    /// ```
    fn at_reference(&self) -> Option<f64> {
        let value = self.kind.0.at_reference.filter(|_| self.wpo.is_none())?;
        Some(value(self.beta, &self.constants))
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
        Self::find("loss", name)
    }
}

#[cfg(test)]
#[path = "preference_tests.rs"]
mod tests;
