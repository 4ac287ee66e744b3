//! Settings of a preference loss, and the one place that builds a loss from them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use simplemix_settings::{Setting, Settings, section};

use crate::divergence::Divergence;
use crate::error::{Error, Result};
use crate::preference::{LossKind, PreferenceLoss};
use crate::sum::LossSum;
use crate::weights::Wpo;

section! {
    /// Loss, from the log-probabilities of a pair's responses under policy and reference.
    pub struct LossSettings("loss") {
        /// Loss by TRL's name, such as `sigmoid` (DPO), `ipo` or `simpo`; the losses of several names are added up.
        name: LossNames = LossNames::One("sigmoid".to_owned()), from "TRL", was "loss";
        /// Weight of each loss, if there are several; all 1 if empty.
        weights: Vec<f64> = Vec::new();
        /// Strength of the pull towards the reference, for every loss.
        beta: f64 = 0.1, in above(0.0), from "TRL", was "beta";
        /// Probability that a label is flipped, for the losses that have it as a constant.
        label_smoothing: f64 = 0.0, in from_to_below(0.0, 0.5), from "TRL", was "label_smoothing";
        /// Other constants of the losses by name, such as `simpo_gamma` or `len_penalty`; the losses have defaults.
        constants: BTreeMap<String, f64> = BTreeMap::new(), was "loss_constants";
        /// f-divergence to the reference, for losses of score differences (arXiv:2309.16240).
        f_divergence_type: Divergence = Divergence::ReverseKl, from "TRL", was "f_divergence_type";
        /// Scale of score differences in the labels of `soft_label`: the chosen response is the better one with probability
        /// `sigmoid(reward_margin_scale * (score_chosen - score_rejected))`.
        reward_margin_scale: f64 = 1.0, in above(0.0), was "reward_margin_scale";
        /// WPO: weight pairs by how likely the policy is to write them, `capped` at 1 or `uncapped` (arXiv:2406.11827).
        wpo: Option<Wpo> = None, was "wpo";
        /// LD-DPO: weight of the tokens beyond the shorter response's length (arXiv:2409.06411).
        ld_alpha: Option<f64> = None, in between(0.0, 1.0), was "ld_alpha";
        /// Factor of the loss that keeps the loads of experts even, for models with experts; if not set, `router_aux_loss_coef` of the model's
        /// `config.json`, and 0 leaves the loss out.
        router_aux_loss_coef: Option<f64> = None, in at_least(0.0);
        /// Reward models: weight of the term that centres their scores on zero; TRL's `center_rewards_coefficient`.
        center_rewards: f64 = 0.0, in at_least(0.0), was "center_rewards";
    }
}

/// Name of a loss, or names of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LossNames {
    /// One loss.
    One(String),
    /// Losses to add up.
    Sum(Vec<String>),
}

impl LossNames {
    /// The names, in order.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Sum(names) => names,
        }
    }
}

impl From<&str> for LossNames {
    fn from(name: &str) -> Self {
        Self::One(name.to_owned())
    }
}

impl fmt::Display for LossNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_slice().join(" + "))
    }
}

impl Setting for LossNames {
    fn kind() -> String {
        "a name, or a list of names".to_owned()
    }
}

impl Setting for Divergence {
    fn kind() -> String {
        "`reverse_kl`, `forward_kl`, `js_divergence` or `{ alpha_divergence = NUMBER }`".to_owned()
    }
}

impl Setting for Wpo {
    fn kind() -> String {
        "`capped` or `uncapped`".to_owned()
    }
}

impl LossSettings {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Range`] for a number out of range, [`Error::Setting`] naming a setting that is unknown or in conflict with
    /// another one.
    pub fn check(&self) -> Result<()> {
        self.check_ranges()?;
        self.build().map(drop)
    }

    /// Builds the loss: a weighted sum, usually of one loss.
    ///
    /// ```
    /// use simplemix_loss::LossSettings;
    /// let settings = |json: &str| serde_json::from_str::<LossSettings>(json).unwrap();
    /// let simpo = settings(r#"{ "name": "simpo", "beta": 2, "constants": { "simpo_gamma": 1 } }"#).build()?;
    /// assert_eq!(simpo.parts()[0].0.constant("simpo_gamma"), Some(1.0));
    /// let mpo = settings(r#"{ "name": ["sigmoid", "bco_pair", "sft"], "weights": [0.8, 0.2, 1] }"#).build()?;
    /// assert_eq!(mpo.to_string(), "0.8 sigmoid + 0.2 bco_pair + sft");
    /// let refused = settings(r#"{ "name": "simpo", "constants": { "tau": 1 } }"#).check().unwrap_err();
    /// let expected = "`constants.tau` is 1, expected a constant of `simpo`: simpo_gamma, label_smoothing";
    /// assert_eq!(refused.to_string(), expected);
    /// # Ok::<(), simplemix_loss::Error>(())
    /// ```
    ///
    /// A constant goes to every loss that has it, and at least one must. `reward_margin_scale`, `ld_alpha` and `router_aux_loss_coef` are not part
    /// of the loss; they apply to its inputs.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the setting that is unknown, out of range or in conflict with another one.
    pub fn build(&self) -> Result<LossSum> {
        let kinds = self.name.as_slice().iter().map(|name| LossKind::find("name", name)).collect::<Result<Vec<_>>>()?;
        let constants = self.all_constants(&kinds)?;
        let parts = kinds.iter().map(|kind| self.part(*kind, &constants)).collect::<Result<Vec<_>>>()?;
        LossSum::new(parts.into_iter().zip(self.all_weights(kinds.len())?).collect())
    }

    fn part(&self, kind: LossKind, constants: &BTreeMap<String, f64>) -> Result<PreferenceLoss> {
        let own = constants.iter().filter(|(name, _)| kind.has_constant(name));
        let own = own.map(|(name, value)| (name.clone(), *value)).collect();
        let loss = PreferenceLoss::with_constants(kind, self.beta, &own).map_err(under_constants)?;
        let loss = loss.with_divergence(self.f_divergence_type)?;
        self.wpo.map_or(Ok(loss), |wpo| loss.with_wpo(wpo))
    }

    /// Constants with the label smoothing among them, each of which a loss has.
    fn all_constants(&self, kinds: &[LossKind]) -> Result<BTreeMap<String, f64>> {
        let mut constants = self.constants.clone();
        if self.label_smoothing != 0.0 {
            constants.insert("label_smoothing".to_owned(), self.label_smoothing);
        }
        let unknown = |(name, _): &(&String, &f64)| !kinds.iter().any(|kind| kind.has_constant(name));
        match constants.iter().find(unknown) {
            Some((name, value)) => {
                let known = kinds.iter().map(|kind| kind.constants_phrase()).collect::<Vec<_>>().join("; ");
                refuse(name, value.to_string(), &known).map_err(under_constants)
            }
            None => Ok(constants),
        }
    }

    fn all_weights(&self, losses: usize) -> Result<Vec<f64>> {
        match self.weights.len() {
            0 => Ok(vec![1.0; losses]),
            found if found == losses => Ok(self.weights.clone()),
            found => refuse("weights", format!("{found} numbers"), &format!("{losses}, one for each loss in `name`")),
        }
    }
}

fn refuse<T>(key: &str, found: String, expected: &str) -> Result<T> {
    Err(Error::Setting { key: key.to_owned(), found, expected: expected.to_owned() })
}

/// Puts `constants.` before the name of a constant, which is where the settings have it.
fn under_constants(error: Error) -> Error {
    match error {
        Error::Setting { key, found, expected } if key != "beta" && key != "label_smoothing" => {
            Error::Setting { key: format!("constants.{key}"), found, expected }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::PairLoss;
    use crate::pair::Need;

    fn names(names: &[&str]) -> LossNames {
        LossNames::Sum(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn refusal(settings: LossSettings) -> String {
        settings.check().unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_those_of_dpo() {
        let loss = LossSettings::default().build().unwrap();
        assert_eq!(loss, PreferenceLoss::new("dpo".parse().unwrap(), 0.1, 0.0).unwrap().into());
        assert_eq!(loss.at_reference(), Some(std::f64::consts::LN_2));
        assert_eq!(serde_json::from_str::<LossSettings>("{}").unwrap(), LossSettings::default());
    }

    #[test]
    fn every_key_goes_through_serde() {
        let settings = LossSettings {
            name: names(&["robust", "sft"]),
            weights: vec![1.0, 0.5],
            label_smoothing: 0.2,
            wpo: Some(Wpo::Capped),
            ld_alpha: Some(0.5),
            ..LossSettings::default()
        };
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<LossSettings>(&text).unwrap(), settings);
        assert!(serde_json::from_str::<LossSettings>(r#"{ "betta": 1 }"#).is_err());
        let loss = settings.build().unwrap();
        assert_eq!((loss.parts()[0].0.constant("label_smoothing"), loss.wpo()), (Some(0.2), Some(Wpo::Capped)));
    }

    #[test]
    fn a_constant_goes_to_every_loss_that_has_it() {
        let settings = LossSettings {
            name: names(&["cpo", "simpo", "sigmoid"]),
            label_smoothing: 0.1,
            constants: [("simpo_gamma".to_owned(), 2.0)].into(),
            ..LossSettings::default()
        };
        let loss = settings.build().unwrap();
        let constants = |name| loss.parts().iter().map(|(part, _)| part.constant(name)).collect::<Vec<_>>();
        assert_eq!(constants("label_smoothing"), [Some(0.1), Some(0.1), None]);
        assert_eq!(constants("simpo_gamma"), [None, Some(2.0), None]);
        assert!(loss.needs(Need::Reference) && loss.needs(Need::Lengths) && !loss.needs(Need::LabelProbs));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let default = LossSettings::default;
        let text = refusal(LossSettings { beta: 0.0, ..default() });
        assert_eq!(text, "`loss.beta` is 0, expected a number above 0");
        let text = refusal(LossSettings { label_smoothing: 0.1, ..default() });
        assert_eq!(text, "`label_smoothing` is 0.1, expected no constant: `sigmoid` has beta alone");
        let text = refusal(LossSettings { name: "length_margin".into(), ..default() });
        assert!(text.starts_with("`constants.len_penalty` is absent, expected a finite number of nats"), "{text}");
        let text = refusal(LossSettings { name: "dop".into(), ..default() });
        assert!(text.starts_with("`name` is `dop`, expected one of sigmoid, cdpo"), "{text}");
        let text = refusal(LossSettings { name: names(&[]), ..default() });
        assert_eq!(text, "`name` is empty, expected at least one loss");
        let text = refusal(LossSettings { weights: vec![1.0, 2.0], ..default() });
        assert_eq!(text, "`weights` is 2 numbers, expected 1, one for each loss in `name`");
        let text = refusal(LossSettings { weights: vec![f64::NAN], ..default() });
        assert_eq!(text, "`weights` is NaN, expected finite numbers");
        let text = refusal(LossSettings { ld_alpha: Some(1.5), ..default() });
        assert_eq!(text, "`loss.ld_alpha` is 1.5, expected a number from 0 to 1");
        let text = refusal(LossSettings { reward_margin_scale: f64::INFINITY, ..default() });
        assert_eq!(text, "`loss.reward_margin_scale` is inf, expected a number above 0");
        let aot = LossSettings { name: names(&["sigmoid", "aot"]), wpo: Some(Wpo::Capped), ..default() };
        assert!(refusal(aot).starts_with("`wpo` is `capped`, expected"));
        let apo = LossSettings { name: "apo_zero".into(), f_divergence_type: Divergence::ForwardKl, ..default() };
        assert_eq!(refusal(apo), "`f_divergence_type` is `forward_kl`, expected `reverse_kl` for `apo_zero`");
    }
}
