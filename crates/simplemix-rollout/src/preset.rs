//! Recipes of the literature, by name.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::generator::SamplingConfig;
use crate::select::{Select, SelectSettings};

/// A recipe of the literature for sampling responses and for choosing pairs among them.
///
/// # Examples
/// ```
/// use simplemix_rollout::Preset;
/// let preset: Preset = "simpo".parse()?;
/// assert_eq!(preset.sampling().samples, 5);
/// assert!("simple".parse::<Preset>().is_err());
/// # Ok::<(), simplemix_rollout::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Preset {
    /// SIMPLEMIX: best against worst. Li and Khashabi 2025 (arXiv:2505.02363).
    Simplemix,
    /// SimPO: best against worst of five (github.com/princeton-nlp/SimPO, on_policy_data_gen).
    Simpo,
    /// RS-DPO: every gap that is large enough (arXiv:2402.10038). `min_gap` depends on the reward model and must be set.
    RsDpo,
    /// DNO: large gaps, with the reference as a teacher (arXiv:2404.03715). Gaps are at least 1, which is one point on a
    /// judge's scale.
    Dno,
    /// DPO-Mix-R: pairs drawn by their gap (arXiv:2409.19605), with the scale 1 of the authors' Iterative-Prompt runs.
    DpoMixR,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 5] = [Self::Simplemix, Self::Simpo, Self::RsDpo, Self::Dno, Self::DpoMixR];

    /// Name in settings and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simplemix => "simplemix",
            Self::Simpo => "simpo",
            Self::RsDpo => "rs-dpo",
            Self::Dno => "dno",
            Self::DpoMixR => "dpo-mix-r",
        }
    }

    /// Settings of sampling: the recipe's own where they are known, otherwise those of SIMPLEMIX.
    pub fn sampling(self) -> SamplingConfig {
        let simplemix = SamplingConfig::simplemix();
        match self {
            Self::Simpo => {
                SamplingConfig { samples: 5, temperature: 0.8, top_p: 0.95, max_new_tokens: 4096, ..simplemix }
            }
            Self::Simplemix | Self::RsDpo | Self::Dno | Self::DpoMixR => simplemix,
        }
    }

    /// Settings of selection.
    pub fn select(self) -> SelectSettings {
        let best_worst = SelectSettings::default();
        match self {
            // SimPO drops prompts whose samples are all the same, as best against worst always does here.
            Self::Simplemix | Self::Simpo => best_worst,
            Self::RsDpo => SelectSettings { select: Select::AllGaps, ..best_worst },
            Self::Dno => SelectSettings { select: Select::Dno, reference: true, min_gap: 1.0, ..best_worst },
            Self::DpoMixR => {
                SelectSettings { select: Select::MixR, reward_margin_scale: Some(1.0), seed: 42, ..best_worst }
            }
        }
    }
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == text).ok_or_else(|| Error::Setting {
            key: "preset",
            found: format!("`{text}`"),
            expected: "simplemix, simpo, rs-dpo, dno or dpo-mix-r",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_in_range_and_found_by_its_name() {
        for preset in Preset::ALL {
            preset.sampling().check().unwrap();
            preset.select().check().unwrap();
            assert_eq!(preset.name().parse::<Preset>().unwrap(), preset);
            assert_eq!(serde_json::to_value(preset).unwrap(), preset.name());
        }
        let error = "best".parse::<Preset>().unwrap_err().to_string();
        assert!(Preset::ALL.iter().all(|preset| error.contains(preset.name())), "{error}");
    }
}
