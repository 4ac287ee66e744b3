//! Embeddings that each layer reads beside the residual stream, as transformers' Gemma 4 has them: sizes and tensors.

/// Table of them: for each token, `width` numbers of every layer.
pub(crate) const LAYER_TABLE: &str = "model.embed_tokens_per_layer.weight";
/// Linear layer that adds what follows from the token's embedding.
pub(crate) const LAYER_PROJECTION: &str = "model.per_layer_model_projection";
/// Norm of what it gives, in the decoder.
pub(crate) const LAYER_PROJECTION_NORM: &str = "model.per_layer_projection_norm";
/// Linear layers of a layer: from the residual stream to the embedding's width, and back.
pub(crate) const LAYER_GATE: &str = "per_layer_input_gate";
/// As [`LAYER_GATE`].
pub(crate) const LAYER_OUTPUT: &str = "per_layer_projection";
/// Norm of what a layer adds to the residual stream.
pub(crate) const LAYER_OUTPUT_NORM: &str = "post_per_layer_input_norm";
/// Number of a layer that its output is multiplied by.
pub(crate) const LAYER_SCALAR: &str = "layer_scalar";

/// Embeddings that each layer reads beside the residual stream: `x + norm(out(act(gate(x)) * e))` for the layer's embedding e.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerLayerEmbedding {
    /// Entries of the table; no fewer than the vocabulary has.
    pub vocab_size: i64,
    /// Numbers of a token in a layer.
    pub width: i64,
}

impl PerLayerEmbedding {
    /// Tensors outside of the `layers` of a decoder that is `hidden` wide, but for the norm.
    pub(super) fn tensors(self, layers: usize, hidden: i64) -> [(String, Vec<i64>); 2] {
        let all = layers as i64 * self.width;
        [
            (LAYER_TABLE.to_owned(), vec![self.vocab_size, all]),
            (format!("{LAYER_PROJECTION}.weight"), vec![all, hidden]),
        ]
    }

    /// Linear layers of a layer that is `hidden` wide: name, shape `[out, in]`, whether there is a bias.
    pub(super) fn projections(self, hidden: i64) -> [(&'static str, [i64; 2], bool); 2] {
        [(LAYER_GATE, [self.width, hidden], false), (LAYER_OUTPUT, [hidden, self.width], false)]
    }
}
