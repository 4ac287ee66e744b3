//! Feed-forward layers that are mixtures of experts (Shazeer et al. 2017, arXiv:1701.06538): sizes, tensors and the way in which a
//! router chooses.

use super::keys::Keys;
use crate::error::Result;

/// Weight of the router, in a layer.
pub(crate) const ROUTER: &str = "mlp.gate.weight";
/// Numbers added to the experts' scores where they are chosen, in a layer.
pub(crate) const CORRECTION: &str = "mlp.gate.e_score_correction_bias";
/// Linear layers of an expert, and of those that every token has.
pub(crate) const EXPERT: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// Sizes of a mixture of experts, and how its router chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: i64,
    /// Experts of a token.
    pub per_token: i64,
    /// Width of an expert.
    pub width: i64,
    /// Width of the expert that every token has; 0 without it.
    pub shared_width: i64,
    /// How experts are chosen and weighted.
    pub routing: Routing,
    /// Factor of the loss that keeps the experts' loads even, as `config.json` has it; none where transformers computes no such loss.
    pub aux_loss_coef: Option<f64>,
}

/// How the experts of a token are chosen and weighted.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Routing {
    /// The likeliest, by the softmax over all of them.
    Softmax {
        /// Whether the weights of the chosen ones are divided by their sum.
        normed: bool,
        /// Whether the weights are rounded to the element type of the hidden states before they multiply.
        rounded: bool,
    },
    /// Those of the highest sigmoid with a correction, in the best groups (DeepSeek-V3, arXiv:2412.19437).
    Sigmoid {
        /// Whether the weights of the chosen ones are divided by their sum.
        normed: bool,
        /// Groups of experts.
        groups: i64,
        /// Groups of a token.
        groups_per_token: i64,
        /// Factor of the weights.
        scale: f64,
    },
}

impl Experts {
    /// Reads how many experts there are under `count`, and of what `width`; `per_token` experts of a token where the key is absent.
    pub(super) fn checked(self, keys: &Keys<'_>, count: &str) -> Result<Self> {
        let refuse = |key: &str, expected: String| Err(keys.refuse(key, &expected));
        if self.count > 1 << 12 {
            return refuse(count, "at most 4096".to_owned());
        }
        if self.per_token > self.count {
            return refuse("num_experts_per_tok", format!("at most {} experts", self.count));
        }
        if let Routing::Sigmoid { groups, groups_per_token, .. } = self.routing {
            if self.count % groups != 0 || self.count / groups < 2 {
                return refuse(
                    "n_group",
                    format!("a divisor of {} experts that leaves at least two in a group", self.count),
                );
            }
            if groups_per_token > groups || groups_per_token * (self.count / groups) < self.per_token {
                let expected = format!("at most {groups} groups, with room for {} experts", self.per_token);
                return refuse("topk_group", expected);
            }
        }
        Ok(self)
    }

    /// Linear layers that every token has, in a layer that is `hidden` wide: name, shape `[out, in]`, whether there is a bias.
    pub(super) fn projections(self, hidden: i64) -> Vec<(&'static str, [i64; 2], bool)> {
        let f = self.shared_width;
        match f {
            0 => Vec::new(),
            _ => vec![
                ("mlp.shared_experts.gate_proj", [f, hidden], false),
                ("mlp.shared_experts.up_proj", [f, hidden], false),
                ("mlp.shared_experts.down_proj", [hidden, f], false),
            ],
        }
    }

    /// Tensors of a layer beside the linear layers that every token has.
    pub(super) fn tensors(self, hidden: i64) -> Vec<(String, Vec<i64>)> {
        let mut all = vec![(ROUTER.to_owned(), vec![self.count, hidden])];
        if matches!(self.routing, Routing::Sigmoid { .. }) {
            all.push((CORRECTION.to_owned(), vec![self.count]));
        }
        for expert in 0..self.count {
            let shapes = [[self.width, hidden], [self.width, hidden], [hidden, self.width]];
            all.extend(EXPERT.iter().zip(shapes).map(|(part, shape)| (expert_weight(expert, part), shape.to_vec())));
        }
        all
    }
}

/// Name of a weight of an expert, in a layer.
pub(crate) fn expert_weight(expert: i64, part: &str) -> String {
    format!("mlp.experts.{expert}.{part}.weight")
}
