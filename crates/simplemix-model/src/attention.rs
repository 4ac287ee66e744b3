//! Attention over packed segments, on libtorch's fused kernels.
//!
//! A segment and the first continuation that follows it directly are one causal run. Any further continuation attends
//! to its parent's keys and its own, under a mask of its own rows only: nothing is computed between two responses.
//! Letters: T tokens, N query heads, K key/value heads, D head width.

use tch::{Device, Kind, Tensor};

use crate::decoder::Heads;
use crate::error::{Doing, Result};
use crate::packed::{Packed, Segment};

/// What attends to what in a [`Packed`], worked out once for all layers.
#[derive(Debug)]
pub(crate) struct AttentionPlan {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    /// `len` tokens, each sees itself and those before it.
    Run { start: i64, len: i64 },
    /// `len` tokens that see `parent_len` tokens elsewhere, and themselves causally.
    Branch {
        start: i64,
        len: i64,
        parent_start: i64,
        parent_len: i64,
        mask: Tensor, // [len, parent_len + len]
    },
}

impl AttentionPlan {
    pub(crate) fn new(packed: &Packed, kind: Kind, device: Device) -> Self {
        let segments = packed.segments();
        let mut parts: Vec<Part> = Vec::new();
        for segment in segments.iter().filter(|s| s.len > 0) {
            let (start, len) = (segment.start as i64, segment.len as i64);
            match segment.parent.map(|parent| segments[parent]) {
                None => parts.push(Part::Run { start, len }),
                Some(parent) => match parts.last_mut() {
                    Some(Part::Run { start: from, len: run }) if continues(parent, segment, *from, *run) => *run += len,
                    _ => parts.push(Part::Branch {
                        start,
                        len,
                        parent_start: parent.start as i64,
                        parent_len: parent.len as i64,
                        mask: mask(parent.len as i64, len, kind, device),
                    }),
                },
            }
        }
        Self { parts }
    }

    /// Mixed values `[T, N * D]` of all tokens.
    pub(crate) fn attend(&self, heads: Heads) -> Result<Tensor> {
        let Heads { q, k, v } = heads;
        let mut mixed = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            mixed.push(match part {
                Part::Run { start, len } => {
                    let cut = |t: &Tensor| t.narrow(0, *start, *len);
                    fused(&cut(&q), &cut(&k), &cut(&v), None)?
                }
                Part::Branch { start, len, parent_start, parent_len, mask } => {
                    let with_parent = |t: &Tensor| {
                        Tensor::f_cat(&[t.narrow(0, *parent_start, *parent_len), t.narrow(0, *start, *len)], 0)
                            .doing("joining a prompt's keys")
                    };
                    fused(&q.narrow(0, *start, *len), &with_parent(&k)?, &with_parent(&v)?, Some(mask))?
                }
            });
        }
        match mixed.len() {
            1 => Ok(mixed.remove(0)),
            _ => Tensor::f_cat(&mixed, 0).doing("joining segments"),
        }
    }
}

/// Whether `segment` carries on, without a gap, the run that ends with its parent.
fn continues(parent: Segment, segment: &Segment, run_start: i64, run_len: i64) -> bool {
    parent.start as i64 == run_start && parent.len as i64 == run_len && segment.start == parent.start + parent.len
}

/// Zero where a query may look, minus infinity elsewhere; a float mask is what the fused CPU kernel takes as it is.
fn mask(parent_len: i64, len: i64, kind: Kind, device: Device) -> Tensor {
    Tensor::full([len, parent_len + len], f64::NEG_INFINITY, (kind, device)).triu(parent_len + 1)
}

/// Scaled dot-product attention of one sequence: `q` `[L, N, D]`, `k` and `v` `[S, K, D]`; causal without a mask.
fn fused(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let batched = |t: &Tensor| t.transpose(0, 1).unsqueeze(0); // [1, N, L, D]
    let grouped = q.size()[1] != k.size()[1];
    Tensor::f_scaled_dot_product_attention(
        &batched(q),
        &batched(k),
        &batched(v),
        mask,
        0.0,
        mask.is_none(),
        None,
        grouped,
    )
    .map(|mixed| mixed.squeeze_dim(0).transpose(0, 1).flatten(1, 2)) // [L, N * D]
    .doing("attention")
}
