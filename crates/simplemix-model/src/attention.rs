//! Attention over packed segments, on fused kernels.
//!
//! A segment and the first continuation that follows it directly are one causal run. Any further continuation attends
//! to its parent's keys and its own: nothing is computed between two responses. [`AttentionRoute`] says how, by device.
//! Letters: B batch, T tokens, N query heads, K key/value heads, D head width, L queries, S keys.

use std::cell::RefCell;
use std::collections::HashMap;

use simplemix_torch::{Run, Sequences, Varlen, causal_mask, has_run_attention, run_attention, varlen_attention};
use tch::{Device, Kind, Tensor};

use crate::config::{LayerKind, ModelConfig};
use crate::convolution::{ConvolutionPlan, Window};
use crate::delta_rule::{Delta, DeltaPlan};
use crate::error::{Doing, Result};
use crate::packed::{Packed, Segment};

/// Queries `[T, N, D]`, keys and values `[T, K, D]`; queries and keys are rotated.
pub(crate) struct Heads {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
}

/// Input by which the tokens of a layer learn of each other.
pub(crate) enum Mixing<'a> {
    /// For attention.
    Heads(Heads),
    /// For the gated delta rule.
    Delta(Delta<'a>),
    /// For a short convolution.
    Window(Window<'a>),
}

/// Scale and soft cap of the products of queries and keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mixer {
    scale: f64,
    soft_cap: Option<f64>,
}

/// Way to compute the attention of a packed pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionRoute {
    /// All runs in one call, windows included, on a CPU in f32 and f64.
    Fused,
    /// A call for each run; continuations under masks of their own rows, and runs longer than a window in blocks with the keys
    /// that each can see.
    Masked,
    /// Continuations as causal runs over parent and continuation, of which the continuation's rows are kept: GPUs have no
    /// kernel for a mask over grouped heads that would not hold all products. Windows are as in `Masked`.
    Runs,
    /// All sequences in one call, windows included.
    Varlen,
}

/// Attention of a [`Packed`], worked out once for all layers of a kind.
#[derive(Debug)]
enum AttentionPlan {
    Fused(FusedPlan),
    Parts(Parts),
    Varlen(VarlenPlan),
}

/// A call for each part.
#[derive(Debug)]
struct Parts {
    mixer: Mixer,
    parts: Vec<Part>,
    /// Cuts between the parts' rows of queries, and of keys and values.
    queries: Cuts,
    keys: Cuts,
}

/// One call for all runs, which see their parents' keys where they lie.
#[derive(Debug)]
struct FusedPlan {
    how: Varlen,
    runs: Vec<Run>,
}

/// One call for all sequences.
#[derive(Debug)]
struct VarlenPlan {
    how: Varlen,
    sequences: Sequences,
    /// Rows of the keys of all sequences, where some belong to several.
    keys: Option<Tensor>,
}

/// Plans for every kind of layer.
#[derive(Debug)]
pub(crate) struct Plans {
    plans: Vec<AttentionPlan>,
    of_layer: Vec<usize>,
    delta: Option<DeltaPlan>,
    convolution: Option<ConvolutionPlan>,
}

/// Rows of queries and the rows of keys that they see.
#[derive(Debug)]
struct Part {
    queries: Rows,
    keys: Rows,
    /// Keys before those.
    parent: Option<Rows>,
    /// `[L, S]`; none: each query sees the keys up to its own.
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
            let is_wide = q.size()[3] > WIDEST_HEAD;
            if grouped && (mask.is_some() || is_wide) && queries > 1 && q.device().is_cuda() {
                // The only kernels with masks, or for wide heads, that hold no products want as many key heads as query heads.
                let [k, v] = [k, v].map(|t| t.f_repeat_interleave_self_int(q.size()[1] / k.size()[1], 1, None));
                let (k, v) = (k.doing("repeating heads")?, v.doing("repeating heads")?);
                return Tensor::f_scaled_dot_product_attention(q, &k, &v, mask, 0.0, causal, self.scale, false)
                    .doing("attention");
            }
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
            None if causal => Some(causal_mask((0, q.size()[2]), (0, q.size()[2]), None, (q.kind(), q.device()))),
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

impl AttentionPlan {
    fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        match self {
            Self::Varlen(plan) => plan.sequences.tensors_mut().into_iter().chain(&mut plan.keys).collect(),
            _ => Vec::new(),
        }
    }
}

impl Plans {
    /// Plans whose [`Plans::tensors_mut`] are still to be moved to the device.
    pub(crate) fn new(
        config: &ModelConfig,
        packed: &Packed,
        options: (Kind, Device),
        route: AttentionRoute,
    ) -> Result<Self> {
        let mut kinds: Vec<(Option<i64>, AttentionRoute)> = Vec::new();
        let longest = packed.positions().iter().max().map_or(0, |last| last + 1);
        let of_layer = config
            .layers
            .iter()
            .enumerate()
            .map(|(index, layer)| {
                if layer.kind != LayerKind::Attention {
                    return 0;
                }
                // A window as wide as everything is none.
                let window = layer.window.filter(|window| *window < longest);
                let kind = (window, route.for_heads(config.head_width(index)));
                kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
                    kinds.push(kind);
                    kinds.len() - 1
                })
            })
            .collect();
        let mixer = Mixer::new(config);
        let plan = |(window, route): (Option<i64>, AttentionRoute)| match route {
            AttentionRoute::Fused => Ok(AttentionPlan::Fused(FusedPlan::new(packed, mixer, window))),
            AttentionRoute::Varlen => VarlenPlan::new(packed, mixer, window).map(AttentionPlan::Varlen),
            AttentionRoute::Masked | AttentionRoute::Runs => {
                let in_runs = route == AttentionRoute::Runs && window.is_none();
                Ok(AttentionPlan::Parts(Parts::new(packed, mixer, window, in_runs, options)))
            }
        };
        Ok(Self {
            plans: kinds.into_iter().map(plan).collect::<Result<_>>()?,
            of_layer,
            delta: config.delta_rule.map(|rule| DeltaPlan::new(packed, rule)),
            convolution: config.short_convolution.map(|of| ConvolutionPlan::new(packed, of.before() as usize)),
        })
    }

    /// Tensors that are on the host still and have to be on the model's device.
    pub(crate) fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        let of_delta = self.delta.iter_mut().flat_map(DeltaPlan::tensors_mut);
        let of_convolution = self.convolution.iter_mut().flat_map(ConvolutionPlan::tensors_mut);
        let of_attention = self.plans.iter_mut().flat_map(AttentionPlan::tensors_mut);
        of_attention.chain(of_delta).chain(of_convolution).collect()
    }

    /// The plan of layers with the gated delta rule.
    pub(crate) fn delta(&self) -> &DeltaPlan {
        self.delta.as_ref().expect("a model with such layers has sizes for them")
    }

    /// The plan of layers with a short convolution.
    pub(crate) fn convolution(&self) -> &ConvolutionPlan {
        self.convolution.as_ref().expect("a model with such layers has sizes for them")
    }

    /// Outputs of all tokens in `layer`: `[T, N * D]`; `[T, V * E]` by the gated delta rule; `[T, H]` by a short convolution.
    pub(crate) fn mix(&self, layer: usize, mixing: &Mixing<'_>) -> Result<Tensor> {
        match mixing {
            Mixing::Heads(heads) => self.attend(layer, heads),
            Mixing::Delta(delta) => self.delta().mix(delta),
            Mixing::Window(window) => self.convolution().mix(window),
        }
    }

    /// Mixed values `[T, N * D]` of all tokens in `layer`.
    pub(crate) fn attend(&self, layer: usize, heads: &Heads) -> Result<Tensor> {
        match &self.plans[self.of_layer[layer]] {
            AttentionPlan::Fused(plan) => plan.attend(heads),
            AttentionPlan::Parts(parts) => parts.attend(heads),
            AttentionPlan::Varlen(plan) => plan.attend(heads),
        }
    }
}

/// Widest heads that GPUs' kernels for sequences of any lengths take.
const WIDEST_HEAD: i64 = 256;

impl AttentionRoute {
    /// The best way for a model of `kind` on `device`.
    pub fn of(config: &ModelConfig, kind: Kind, device: Device) -> Self {
        let half = matches!(kind, Kind::BFloat16 | Kind::Half);
        let route = match device {
            // No fused kernel caps products, and what holds them all may as well hold a mask.
            _ if config.attention_soft_cap.is_some() => Self::Masked,
            Device::Cpu if has_run_attention(kind, device) => Self::Fused,
            Device::Cpu => Self::Masked,
            _ if half => Self::Varlen,
            _ => Self::Runs,
        };
        route.for_model(config)
    }

    /// The way for a model, of which some layers may go another: see [`AttentionRoute::for_heads`].
    fn for_model(self, config: &ModelConfig) -> Self {
        let mut routes = (0..config.num_hidden_layers).map(|layer| self.for_heads(config.head_width(layer)));
        if routes.any(|route| route == self) { self } else { self.for_heads(i64::MAX) }
    }

    /// The way for heads of this width: no kernel takes wide ones of sequences of any lengths at once.
    pub(crate) fn for_heads(self, width: i64) -> Self {
        match self {
            Self::Varlen if width > WIDEST_HEAD => Self::Runs,
            other => other,
        }
    }
}

/// Runs of a pass: rows of queries, which are all rows in order, and the parent's rows before them, which have keys only.
fn runs(packed: &Packed) -> Vec<(Rows, Option<Rows>)> {
    let segments = packed.segments();
    let mut runs: Vec<(Rows, Option<Rows>)> = Vec::new();
    for segment in segments.iter().filter(|s| s.len > 0) {
        let rows = Rows { start: segment.start as i64, len: segment.len as i64 };
        let parent = segment.parent.map(|parent| segments[parent]);
        match (runs.last_mut(), parent) {
            (Some((last, None)), Some(parent)) if continues(parent, segment, *last) => last.len += rows.len,
            (_, parent) => {
                let before = parent.map(|parent| Rows { start: parent.start as i64, len: parent.len as i64 });
                runs.push((rows, before));
            }
        }
    }
    runs
}

impl Parts {
    fn new(packed: &Packed, mixer: Mixer, window: Option<i64>, in_runs: bool, options: (Kind, Device)) -> Self {
        let known = RefCell::new(HashMap::new());
        // Masks of one shape are one tensor. Positions count from the sequence's start.
        let mask = |queries: (i64, i64), keys: (i64, i64)| {
            let key = (queries.0 - keys.0, queries.1, keys.1);
            // A float mask is what the fused CPU kernel takes as it is.
            let make = || causal_mask(queries, keys, window, options);
            Some(known.borrow_mut().entry(key).or_insert_with(make).shallow_clone())
        };
        let part = |(rows, parent): (Rows, Option<Rows>)| match parent {
            Some(parent) if !in_runs => {
                let seen = window.map_or(parent.len, |window| parent.len.min(window - 1));
                Part {
                    queries: rows,
                    keys: rows,
                    parent: Some(Rows { start: parent.start + parent.len - seen, len: seen }),
                    mask: mask((parent.len, rows.len), (parent.len - seen, seen + rows.len)),
                }
            }
            parent => Part { queries: rows, keys: rows, parent, mask: None },
        };
        let mut parts: Vec<Part> = runs(packed).into_iter().map(part).collect();
        if let Some(window) = window {
            parts = parts.into_iter().flat_map(|part| part.cut(window, &mask)).collect();
        }
        let rows = packed.len() as i64;
        let queries = Cuts::new(rows, parts.iter().flat_map(|part| [Some(part.queries), part.lead()]).flatten());
        let keys = Cuts::new(rows, parts.iter().flat_map(|part| [Some(part.keys), part.parent]).flatten());
        Self { mixer, parts, queries, keys }
    }

    fn attend(&self, heads: &Heads) -> Result<Tensor> {
        let batched = |t: Tensor| t.transpose(0, 1).unsqueeze(0); // [1, N, L, D]
        let q = self.queries.cut(&heads.q)?;
        let (k, v) = (self.keys.cut(&heads.k)?, self.keys.cut(&heads.v)?);
        let mut mixed = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let queries = batched(self.queries.join(&q, part.lead(), part.queries)?);
            let seen = |t: &[Tensor]| self.keys.join(t, part.parent, part.keys).map(batched);
            let of_part = self.mixer.mix(&queries, &seen(&k)?, &seen(&v)?, part.mask.as_ref())?;
            let own = match part.lead() {
                Some(lead) => of_part.narrow(2, lead.len, part.queries.len),
                None => of_part,
            };
            mixed.push(own.squeeze_dim(0).transpose(0, 1).flatten(1, 2)); // [L, N * D]
        }
        match mixed.len() {
            1 => Ok(mixed.remove(0)),
            _ => Tensor::f_cat(&mixed, 0).doing("joining segments"),
        }
    }
}

impl FusedPlan {
    fn new(packed: &Packed, mixer: Mixer, window: Option<i64>) -> Self {
        let run = |(rows, parent): (Rows, Option<Rows>)| {
            let parent = parent.unwrap_or(Rows { start: 0, len: 0 });
            Run { start: rows.start, length: rows.len, parent: parent.start, parent_length: parent.len }
        };
        Self { how: Varlen { scale: mixer.scale, window }, runs: runs(packed).into_iter().map(run).collect() }
    }

    fn attend(&self, heads: &Heads) -> Result<Tensor> {
        let mixed = run_attention(&heads.q, &heads.k, &heads.v, &self.runs, self.how)?;
        mixed.f_flatten(1, 2).doing("joining heads")
    }
}

impl VarlenPlan {
    fn new(packed: &Packed, mixer: Mixer, window: Option<i64>) -> Result<Self> {
        let runs = runs(packed);
        let before = |parent: &Option<Rows>| parent.map_or(0, |parent| parent.len);
        let queries: Vec<i64> = runs.iter().map(|(rows, _)| rows.len).collect();
        let keys: Vec<i64> = runs.iter().map(|(rows, parent)| before(parent) + rows.len).collect();
        let shared = runs.iter().any(|(_, parent)| parent.is_some());
        let rows = || -> Vec<i64> {
            let all = runs.iter().flat_map(|(rows, parent)| parent.iter().chain([rows]));
            all.flat_map(|rows| rows.start..rows.start + rows.len).collect()
        };
        Ok(Self {
            how: Varlen { scale: mixer.scale, window },
            sequences: Sequences::on_host(&queries, &keys)?,
            keys: shared.then(|| Tensor::from_slice(&rows())),
        })
    }

    fn attend(&self, heads: &Heads) -> Result<Tensor> {
        let seen = |t: &Tensor| match &self.keys {
            Some(rows) => t.f_index_select(0, rows).doing("gathering the keys of prompts"),
            None => Ok(t.shallow_clone()),
        };
        let mixed = varlen_attention(&heads.q, &seen(&heads.k)?, &seen(&heads.v)?, &self.sequences, self.how)?;
        mixed.f_flatten(1, 2).doing("joining heads")
    }
}

/// Places where a tensor's rows are cut, so that ranges of rows are pieces. One cut into pieces has one joining as its
/// backward pass, where a cut for each range would have a tensor of all rows each.
#[derive(Debug)]
struct Cuts {
    /// First row of each piece, and the number of rows.
    edges: Vec<i64>,
    sizes: Vec<i64>,
}

impl Cuts {
    fn new(rows: i64, ranges: impl Iterator<Item = Rows>) -> Self {
        let mut edges: Vec<i64> = ranges.flat_map(|range| [range.start, range.start + range.len]).collect();
        edges.extend([0, rows]);
        edges.sort_unstable();
        edges.dedup();
        Self { sizes: edges.windows(2).map(|edge| edge[1] - edge[0]).collect(), edges }
    }

    fn cut(&self, t: &Tensor) -> Result<Vec<Tensor>> {
        match self.sizes.len() {
            0 | 1 => Ok(vec![t.shallow_clone()]),
            _ => t.f_split_with_sizes(&self.sizes, 0).doing("cutting segments"),
        }
    }

    /// Rows of `first`, if any, and then those of `second`.
    fn join(&self, pieces: &[Tensor], first: Option<Rows>, second: Rows) -> Result<Tensor> {
        let at = |row: i64| self.edges.binary_search(&row).unwrap_or_else(|at| at);
        let of = |rows: Rows| &pieces[at(rows.start)..at(rows.start + rows.len)];
        match (first, of(second)) {
            (None, [whole]) => Ok(whole.shallow_clone()),
            (first, rest) => {
                let all: Vec<&Tensor> = first.map_or(&[][..], of).iter().chain(rest).collect();
                Tensor::f_cat(&all, 0).doing("joining a prompt's keys")
            }
        }
    }
}

impl Part {
    /// Rows of queries before its own that a causal call needs.
    fn lead(&self) -> Option<Rows> {
        if self.mask.is_none() { self.parent } else { None }
    }

    /// A run longer than `window` in blocks as long as it, each of which sees its own tokens and the block before.
    fn cut(self, window: i64, mask: &dyn Fn((i64, i64), (i64, i64)) -> Option<Tensor>) -> Vec<Self> {
        if self.parent.is_some() || self.queries.len <= window {
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

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
