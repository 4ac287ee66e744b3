//! Attention over packed segments, on libtorch's fused kernels.
//!
//! A segment and the first continuation that follows it directly are one causal run. Any further continuation attends
//! to its parent's keys and its own, under a mask of its own rows only: nothing is computed between two responses.
//! Where a layer has a window, runs longer than it are cut into blocks, each with the keys that it can see.
//! Letters: B batch, T tokens, N query heads, K key/value heads, D head width, L queries, S keys.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use crate::config::ModelConfig;
use crate::error::{Doing, Result};
use crate::packed::{Packed, Segment};

/// Queries `[T, N, D]`, keys and values `[T, K, D]`; queries and keys are rotated.
pub(crate) struct Heads {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
}

/// Scale and soft cap of the products of queries and keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mixer {
    scale: f64,
    soft_cap: Option<f64>,
}

/// Ranges of a [`Packed`] that attend to each other, worked out once for all layers of a kind.
#[derive(Debug)]
pub(crate) struct AttentionPlan {
    mixer: Mixer,
    parts: Vec<Part>,
}

/// Plans for every kind of layer.
#[derive(Debug)]
pub(crate) struct Plans {
    plans: Vec<AttentionPlan>,
    of_layer: Vec<usize>,
}

/// Rows of queries and the rows of keys that they see.
#[derive(Debug)]
struct Part {
    queries: Rows,
    keys: Rows,
    /// Keys before those.
    parent: Option<Rows>,
    /// `[L, S]`; none: as many keys as queries, each query sees those up to its own.
    mask: Option<Tensor>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rows {
    start: i64,
    len: i64,
}

impl Mixer {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        Self { scale: config.attention_scale, soft_cap: config.attention_soft_cap }
    }

    /// The factor on products, where that is all that is done to them.
    pub(crate) fn plain_scale(&self) -> Option<f32> {
        self.soft_cap.is_none().then_some(self.scale as f32)
    }

    /// Queries `[B, N, L, D]` over keys and values `[B, K, S, D]`: `[B, N, L, D]`. A mask is added to the products, is
    /// `[L, S]` or `[B, 1, L, S]`; without one, L is S and attention causal, or L is 1 and sees all.
    pub(crate) fn mix(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let causal = mask.is_none() && q.size()[2] > 1;
        let Some(cap) = self.soft_cap else {
            let (grouped, queries) = (q.size()[1] != k.size()[1], q.size()[2]);
            if grouped && queries == 1 {
                // All queries of a key head see the same, so they are its rows: no key is copied for each query head.
                let rows = q.f_view([q.size()[0], k.size()[1], -1, q.size()[3]]).doing("grouping heads")?;
                let mixed = Tensor::f_scaled_dot_product_attention(&rows, k, v, mask, 0.0, false, self.scale, false);
                return mixed.and_then(|mixed| mixed.f_reshape(&q.size()[..])).doing("attention");
            }
            return Tensor::f_scaled_dot_product_attention(q, k, v, mask, 0.0, causal, self.scale, grouped)
                .doing("attention");
        };
        // No fused kernel caps. Query heads of a key head are a dimension of their own: [B, K, N / K, L, D].
        let mask = match mask {
            None if causal => Some(band((0, q.size()[2]), (0, q.size()[2]), None, q.kind(), q.device())),
            None => None,
            Some(mask) if mask.dim() == 4 => Some(mask.unsqueeze(1)),
            Some(mask) => Some(mask.shallow_clone()),
        };
        let capped = || {
            let grouped = q.f_unflatten(1, [k.size()[1], -1])?;
            let products = grouped.f_matmul(&k.unsqueeze(2).transpose(-1, -2))?;
            let mut products = (products * (self.scale / cap)).f_tanh()? * cap;
            if let Some(mask) = &mask {
                products += mask;
            }
            let weights = products.f_softmax(-1, Kind::Float)?.f_to_kind(v.kind())?;
            weights.f_matmul(&v.unsqueeze(2))?.f_flatten(1, 2)
        };
        capped().doing("attention")
    }
}

impl Plans {
    pub(crate) fn new(config: &ModelConfig, packed: &Packed, kind: Kind, device: Device) -> Self {
        let mut windows: Vec<Option<i64>> = Vec::new();
        let longest = packed.positions().iter().max().map_or(0, |last| last + 1);
        let of_layer = config
            .layers
            .iter()
            .map(|layer| {
                // A window as wide as everything is none.
                let window = layer.window.filter(|window| *window < longest);
                windows.iter().position(|known| *known == window).unwrap_or_else(|| {
                    windows.push(window);
                    windows.len() - 1
                })
            })
            .collect();
        let mixer = Mixer::new(config);
        let plans = windows.into_iter().map(|window| AttentionPlan::new(packed, mixer, window, kind, device)).collect();
        Self { plans, of_layer }
    }

    /// Mixed values `[T, N * D]` of all tokens in `layer`.
    pub(crate) fn attend(&self, layer: usize, heads: &Heads) -> Result<Tensor> {
        self.plans[self.of_layer[layer]].attend(heads)
    }
}

impl AttentionPlan {
    fn new(packed: &Packed, mixer: Mixer, window: Option<i64>, kind: Kind, device: Device) -> Self {
        let segments = packed.segments();
        let mut parts: Vec<Part> = Vec::new();
        let known = RefCell::new(HashMap::new());
        // Masks of one shape are one tensor. Positions count from the sequence's start.
        let mask = |queries: (i64, i64), keys: (i64, i64)| {
            let key = (queries.0 - keys.0, queries.1, keys.1);
            let make = || band(queries, keys, window, kind, device);
            Some(known.borrow_mut().entry(key).or_insert_with(make).shallow_clone())
        };
        for segment in segments.iter().filter(|s| s.len > 0) {
            let rows = Rows { start: segment.start as i64, len: segment.len as i64 };
            let Some(parent) = segment.parent.map(|parent| segments[parent]) else {
                parts.push(Part { queries: rows, keys: rows, parent: None, mask: None });
                continue;
            };
            match parts.last_mut() {
                Some(last) if last.is_run() && continues(parent, segment, last.queries) => {
                    last.queries.len += rows.len;
                    last.keys = last.queries;
                }
                _ => {
                    let whole = parent.len as i64;
                    let seen = window.map_or(whole, |window| whole.min(window - 1));
                    parts.push(Part {
                        queries: rows,
                        keys: rows,
                        parent: Some(Rows { start: (parent.start + parent.len) as i64 - seen, len: seen }),
                        mask: mask((whole, rows.len), (whole - seen, seen + rows.len)),
                    });
                }
            }
        }
        if let Some(window) = window {
            parts = parts.into_iter().flat_map(|part| part.cut(window, &mask)).collect();
        }
        Self { mixer, parts }
    }

    fn attend(&self, heads: &Heads) -> Result<Tensor> {
        let Heads { q, k, v } = heads;
        let batched = |t: Tensor| t.transpose(0, 1).unsqueeze(0); // [1, N, L, D]
        let mut mixed = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let seen = |t: &Tensor| match part.parent {
                Some(parent) => {
                    Tensor::f_cat(&[parent.of(t), part.keys.of(t)], 0).map(batched).doing("joining a prompt's keys")
                }
                None => Ok(batched(part.keys.of(t))),
            };
            let of_part = self.mixer.mix(&batched(part.queries.of(q)), &seen(k)?, &seen(v)?, part.mask.as_ref())?;
            mixed.push(of_part.squeeze_dim(0).transpose(0, 1).flatten(1, 2)); // [L, N * D]
        }
        match mixed.len() {
            1 => Ok(mixed.remove(0)),
            _ => Tensor::f_cat(&mixed, 0).doing("joining segments"),
        }
    }
}

impl Rows {
    fn of(self, t: &Tensor) -> Tensor {
        t.narrow(0, self.start, self.len)
    }
}

impl Part {
    /// Whether it is a sequence from its start.
    fn is_run(&self) -> bool {
        self.mask.is_none()
    }

    /// A run longer than `window` in blocks as long as it, each of which sees its own tokens and the block before.
    fn cut(self, window: i64, mask: &dyn Fn((i64, i64), (i64, i64)) -> Option<Tensor>) -> Vec<Self> {
        if !self.is_run() || self.queries.len <= window {
            return vec![self];
        }
        let Rows { start, len } = self.queries;
        let block = |first: i64| {
            let rows = window.min(len - first);
            let from = (first - window + 1).max(0);
            Self {
                queries: Rows { start: start + first, len: rows },
                keys: Rows { start: start + from, len: first - from + rows },
                parent: None,
                mask: if first == 0 { None } else { mask((first, rows), (from, first - from + rows)) },
            }
        };
        // Blocks of a tiny window would be many; tests and the smallest models alone have such.
        (0..len).step_by(window as usize).map(block).collect()
    }
}

/// Whether `segment` carries on, without a gap, the run that ends with its parent.
fn continues(parent: Segment, segment: &Segment, run: Rows) -> bool {
    parent.start as i64 == run.start && parent.len as i64 == run.len && segment.start == parent.start + parent.len
}

/// Zero where a query may look, minus infinity elsewhere; a float mask is what the fused CPU kernel takes as it is.
/// `queries` and `keys` are first position and number: `[L, S]`.
fn band(queries: (i64, i64), keys: (i64, i64), window: Option<i64>, kind: Kind, device: Device) -> Tensor {
    let ahead = queries.0 - keys.0;
    let full = Tensor::full([queries.1, keys.1], f64::NEG_INFINITY, (kind, device));
    match window {
        Some(window) if keys.0 + window < queries.0 + queries.1 => full.triu(ahead + 1) + full.tril(ahead - window),
        _ => full.triu(ahead + 1),
    }
}
