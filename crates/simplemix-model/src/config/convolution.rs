//! Layers with a short gated convolution, as transformers' LFM2 has them: sizes and tensors.

/// Weights of the convolution, in a layer.
pub(crate) const SHORT_WEIGHT: &str = "conv.conv.weight";
/// Bias of the convolution, in a layer.
pub(crate) const SHORT_BIAS: &str = "conv.conv.bias";

/// Short convolution of a layer: `out(c * convolved(b * x))`, where b, c and x are a linear layer's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortConvolution {
    /// Tokens that it sees, its own the last of them.
    pub kernel: i64,
    /// Whether it and the linear layers beside it have a bias.
    pub bias: bool,
}

impl ShortConvolution {
    /// Tokens before its own that it sees.
    pub(crate) fn before(self) -> i64 {
        self.kernel - 1
    }

    /// Linear layers of a layer that is `hidden` wide: name, shape `[out, in]`, whether there is a bias.
    pub(super) fn projections(self, hidden: i64) -> Vec<(&'static str, [i64; 2], bool)> {
        vec![("conv.in_proj", [3 * hidden, hidden], self.bias), ("conv.out_proj", [hidden, hidden], self.bias)]
    }

    /// Tensors of a layer that is `hidden` wide beside its linear layers.
    pub(super) fn tensors(self, hidden: i64) -> Vec<(&'static str, Vec<i64>)> {
        let mut all = vec![(SHORT_WEIGHT, vec![hidden, 1, self.kernel])];
        all.extend(self.bias.then(|| (SHORT_BIAS, vec![hidden])));
        all
    }
}
