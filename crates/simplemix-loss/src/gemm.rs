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

/// `spread weight`: `[n, H]` from `[n, V]` and `[V, H]`, in the kind of `spread`.
pub(crate) fn pull_back(spread: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let doing = "multiplying a gradient with the head";
    if spread.kind() == weight.kind() {
        return spread.f_mm(weight).doing(doing);
    }
    if weight.device().is_cuda() {
        return spread.to_kind(weight.kind()).f_mm_dtype(weight, spread.kind()).doing(doing);
    }
    let mut sum = Tensor::zeros([spread.size()[0], weight.size()[1]], (spread.kind(), spread.device()));
    for (start, tile) in wide_tiles(weight, spread.kind()) {
        let _ = sum.f_addmm_(&spread.narrow(1, start, tile.size()[0]), &tile).doing(doing)?;
    }
    Ok(sum)
}

/// `into -= spread^T states`: `[V, H]` from `[n, V]` and `[n, H]`; `into` has the kind of `spread`.
pub(crate) fn subtract_outer(into: &mut Tensor, spread: &Tensor, states: &Tensor) -> Result<()> {
    let doing = "accumulating the head's gradient";
    if states.device().is_cuda() && states.kind() != into.kind() {
        let left = spread.to_kind(states.kind()).tr();
        return into.f_addmm_dtype_out(into, &left, &-states, into.kind()).doing(doing).map(drop);
    }
    into.f_addmm_(&spread.tr(), &-states.to_kind(into.kind())).doing(doing).map(drop)
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
