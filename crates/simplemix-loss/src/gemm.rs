//! The three matrix products of the output head, accumulated in f32 or f64.
//!
//! For f32 and f64 operands they are plain products into a given buffer. Half-precision operands are multiplied exactly
//! and summed in f32: on CUDA by a product with f32 output, elsewhere by converting a few vocabulary rows at a time, since
//! half-precision products on CPUs are slow and round every logit. Letters: n rows, H width, V vocabulary.

use tch::{Kind, Tensor};

use crate::error::{Doing, Result};

/// Bytes of weight rows converted to f32 at a time.
const TILE_BYTES: i64 = 32 << 20;

/// Element type of sums: f64 for f64 input, else f32.
pub(crate) fn accumulator(kind: Kind) -> Kind {
    if kind == Kind::Double { Kind::Double } else { Kind::Float }
}

/// `out = states weight^T`: `[n, V]` from `[n, H]` and `[V, H]`.
pub(crate) fn logits(out: &Tensor, states: &Tensor, weight: &Tensor) -> Result<()> {
    let doing = "multiplying hidden states with the head";
    if states.kind() == out.kind() {
        return states.f_mm_out(out, &weight.tr()).doing(doing).map(drop);
    }
    if states.device().is_cuda() {
        return states.f_mm_dtype_out(out, &weight.tr(), out.kind()).doing(doing).map(drop);
    }
    let states = states.to_kind(out.kind());
    for (start, tile) in wide_tiles(weight, out.kind()) {
        let _ = states.f_mm_out(&out.narrow(1, start, tile.size()[0]), &tile.tr()).doing(doing)?;
    }
    Ok(())
}

/// Softmax of a chunk `[n, V]` as an operand of the two products of the backward pass.
pub(crate) struct Spread<'a> {
    /// Softmax (times the soft cap's slope), in f32 or f64.
    wide: &'a Tensor,
    /// Copy in half precision, made once for both products, where they take such operands.
    half: Option<Tensor>,
}

impl<'a> Spread<'a> {
    /// Operand of products with tensors of `kind`.
    pub(crate) fn new(wide: &'a Tensor, kind: Kind) -> Result<Self> {
        let is_cast = wide.device().is_cuda() && wide.kind() != kind;
        let half = is_cast.then(|| wide.f_to_kind(kind)).transpose().doing("converting a softmax")?;
        Ok(Self { wide, half })
    }

    /// Sum of each row as the products see it, `[n]`; `None` for 1, but for rounding in f32.
    pub(crate) fn masses(&self) -> Result<Option<Tensor>> {
        let sum = |half: &Tensor| half.f_sum_dim_intlist([1i64].as_slice(), false, self.wide.kind());
        self.half.as_ref().map(sum).transpose().doing("summing a softmax")
    }

    /// `spread weight`: `[n, H]` from `[n, V]` and `[V, H]`, in f32 or f64.
    pub(crate) fn pull_back(&self, weight: &Tensor) -> Result<Tensor> {
        let (wide, doing) = (self.wide, "multiplying a gradient with the head");
        if let Some(half) = &self.half {
            return half.f_mm_dtype(weight, wide.kind()).doing(doing);
        }
        if wide.kind() == weight.kind() {
            return wide.f_mm(weight).doing(doing);
        }
        let mut sum = Tensor::zeros([wide.size()[0], weight.size()[1]], (wide.kind(), wide.device()));
        for (start, tile) in wide_tiles(weight, wide.kind()) {
            let _ = sum.f_addmm_(&wide.narrow(1, start, tile.size()[0]), &tile).doing(doing)?;
        }
        Ok(sum)
    }

    /// `into -= spread^T states`: `[V, H]` from `[n, V]` and `[n, H]`; `into` is f32 or f64.
    pub(crate) fn subtract_outer(&self, into: &mut Tensor, states: &Tensor) -> Result<()> {
        let doing = "accumulating the head's gradient";
        if let Some(half) = &self.half {
            return into.f_addmm_dtype_out(into, &half.tr(), &-states, into.kind()).doing(doing).map(drop);
        }
        into.f_addmm_(&self.wide.tr(), &-states.to_kind(into.kind())).doing(doing).map(drop)
    }

    /// `spread vector`: `[n, 1]` from `[V, 1]`.
    pub(crate) fn against(&self, vector: &Tensor) -> Result<Tensor> {
        self.wide.f_mm(vector).doing("multiplying a softmax with the bias")
    }

    /// `spread^T scale`: `[V]` from `[n, 1]`.
    pub(crate) fn weighed(&self, scale: &Tensor) -> Result<Tensor> {
        scale.tr().f_mm(self.wide).and_then(|sum| sum.f_squeeze_dim(0)).doing("accumulating the head's gradient")
    }
}

/// Converts `weight` to `kind` a few rows at a time; yields the first row's index with each tile.
fn wide_tiles(weight: &Tensor, kind: Kind) -> impl Iterator<Item = (i64, Tensor)> {
    let (vocab, width) = (weight.size()[0], weight.size()[1]);
    let rows = (TILE_BYTES / (width * kind.elt_size_in_bytes() as i64)).clamp(1, vocab);
    (0..vocab).step_by(rows as usize).map(move |start| {
        let tile = weight.narrow(0, start, rows.min(vocab - start));
        (start, tile.to_kind(kind))
    })
}
