//! Layers with the gated delta rule (Yang et al. 2024, arXiv:2412.06464), as transformers' Qwen 3.5 has them: sizes and tensors.

use super::keys::Keys;
use crate::error::Result;

/// Short convolution's weights, in a layer.
pub(crate) const CONVOLUTION: &str = "linear_attn.conv1d.weight";
/// Logs of the heads' rates of decay, in a layer.
pub(crate) const DECAY_LOG: &str = "linear_attn.A_log";
/// Numbers added to the heads' time steps, in a layer.
pub(crate) const STEP_BIAS: &str = "linear_attn.dt_bias";
/// Factor of the gated norm, in a layer.
pub(crate) const GATED_NORM: &str = "linear_attn.norm.weight";

/// Sizes of the gated delta rule.
///
/// Each value head has a state, a matrix of `key_dim` by `value_dim` numbers. A token lets it decay, puts its value in the place of what the
/// state has under its key, and reads it with its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaRule {
    /// Query and key heads; divides `value_heads`.
    pub key_heads: i64,
    /// Value heads, each with a state of its own.
    pub value_heads: i64,
    /// Width of a query or key.
    pub key_dim: i64,
    /// Width of a value.
    pub value_dim: i64,
    /// Tokens that the convolution of queries, keys and values sees, its own the last of them.
    pub kernel: i64,
}

impl DeltaRule {
    /// Reads transformers' `linear_*` keys, with the defaults of `absent`.
    pub(crate) fn read(keys: &Keys<'_>, absent: Self) -> Result<Self> {
        let rule = Self {
            key_heads: keys.count_or("linear_num_key_heads", absent.key_heads)?,
            value_heads: keys.count_or("linear_num_value_heads", absent.value_heads)?,
            key_dim: keys.count_or("linear_key_head_dim", absent.key_dim)?,
            value_dim: keys.count_or("linear_value_head_dim", absent.value_dim)?,
            kernel: keys.count_or("linear_conv_kernel_dim", absent.kernel)?,
        };
        let refuse = |key: &str, expected: &str| Err(keys.refuse(key, expected));
        if rule.value_heads % rule.key_heads != 0 || rule.value_heads > 1 << 16 {
            let expected = format!("a multiple of {} key heads, at most 65536", rule.key_heads);
            return refuse("linear_num_value_heads", &expected);
        }
        if rule.key_dim.max(rule.value_dim) > 1 << 16 {
            return refuse("linear_key_head_dim", "at most 65536, as the width of values");
        }
        if rule.kernel > 1 << 10 {
            return refuse("linear_conv_kernel_dim", "at most 1024");
        }
        Ok(rule)
    }

    /// Width of all queries, and of all keys.
    pub(crate) fn key_width(self) -> i64 {
        self.key_heads * self.key_dim
    }

    /// Width of all values.
    pub(crate) fn value_width(self) -> i64 {
        self.value_heads * self.value_dim
    }

    /// Width of queries, keys and values side by side.
    pub(crate) fn width(self) -> i64 {
        2 * self.key_width() + self.value_width()
    }

    /// Numbers of a sequence's state in a layer, which are f32.
    pub(crate) fn state(self) -> i64 {
        self.value_heads * self.key_dim * self.value_dim
    }

    /// Tokens before its own that the convolution sees.
    pub(crate) fn before(self) -> i64 {
        self.kernel - 1
    }

    /// Linear layers of a layer that is `hidden` wide: name, shape `[out, in]`, whether there is a bias.
    pub(super) fn projections(self, hidden: i64) -> Vec<(&'static str, [i64; 2], bool)> {
        vec![
            ("linear_attn.in_proj_qkv", [self.width(), hidden], false),
            ("linear_attn.in_proj_z", [self.value_width(), hidden], false),
            ("linear_attn.in_proj_b", [self.value_heads, hidden], false),
            ("linear_attn.in_proj_a", [self.value_heads, hidden], false),
            ("linear_attn.out_proj", [hidden, self.value_width()], false),
        ]
    }

    /// Tensors of a layer beside its linear layers.
    pub(super) fn tensors(self) -> [(&'static str, Vec<i64>); 4] {
        [
            (CONVOLUTION, vec![self.width(), 1, self.kernel]),
            (DECAY_LOG, vec![self.value_heads]),
            (STEP_BIAS, vec![self.value_heads]),
            (GATED_NORM, vec![self.value_dim]),
        ]
    }
}
