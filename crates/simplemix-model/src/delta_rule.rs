//! The gated delta rule over packed segments (Yang et al. 2024, arXiv:2412.06464), as transformers' Qwen 3.5 computes it.
//!
//! Each value head has a state S, `[D, E]`, from which a token with decay a, strength b, query q, key k and value v makes
//! `S' = a S + k (b (v - a S^T k))^T` and reads `S'^T q`. A sequence starts from zeros and a continuation from the state that its parent
//! ends with, which is computed once for all of them, with gradients. The same holds of the tokens before its first one that the
//! convolution sees.
//!
//! Tokens go in chunks of [`CHUNK`]. What happens inside of chunks is computed for all of a pass at once, the states from chunk to chunk for
//! all segments at once: launches grow with the longest prompt and the longest response, not with the number of pairs.
//!
//! Letters: T tokens, C width of queries, keys and values side by side, K key heads, V value heads, D key width, E value width, N chunks,
//! L tokens of a chunk, S segments, B rows.

use tch::{Kind, TchError, Tensor};

use crate::config::DeltaRule;
use crate::convolution::{self, Window, convolved, inputs, newest};
use crate::error::{Doing, Result};
use crate::packed::{Packed, Segment};

/// Tokens of a chunk.
pub(crate) const CHUNK: usize = 64;

/// Added to the square of a query's and a key's length before its root is taken.
const EPS: f64 = 1e-6;

/// Input of the rule in a layer.
pub(crate) struct Delta<'a> {
    /// Queries, keys and values `[T, C]` before the convolution.
    pub(crate) qkv: Tensor,
    /// Logs of decays `[T, V]`, f32, at most 0.
    pub(crate) decay: Tensor,
    /// Strengths `[T, V]`.
    pub(crate) beta: Tensor,
    /// The convolution's weights `[C, 1, kernel]`.
    pub(crate) convolution: &'a Tensor,
    pub(crate) rule: DeltaRule,
}

/// State of a sequence, or of the rows of a batch.
#[derive(Debug)]
pub(crate) struct State {
    /// Newest queries, keys and values before the convolution, `[C, kernel - 1]`, zeros before the first; or `[B, C, kernel - 1]`.
    pub(crate) recent: Tensor,
    /// States of the heads, `[V, D, E]`, f32; or `[B, V, D, E]`.
    pub(crate) heads: Tensor,
}

/// Places of a pass's tokens, worked out once for all layers.
#[derive(Debug)]
pub(crate) struct DeltaPlan {
    places: Places,
    levels: [Level; 2],
    segments: Vec<Segment>,
    /// Rank of each segment in its level; none where it has no token.
    ranks: Vec<Option<usize>>,
}

/// Places as tensors on the model's device.
#[derive(Debug)]
struct Places {
    /// Row of each of the convolution's inputs, T for zeros.
    inputs: Tensor,
    /// Output of the convolution at each place of the chunks, `[N * L]`.
    outputs: Tensor,
    /// Row of each place, `[N * L]`; any where there is no token.
    rows: Tensor,
    /// One where a place has a token and zero elsewhere, `[N * L, 1]`, f32.
    taken: Tensor,
    /// Place of each row, `[T]`.
    back: Tensor,
    /// Rank of the parent of each continuation.
    parents: Tensor,
}

/// Segments without a parent, or those with one, the longest first.
#[derive(Debug, Clone, Default)]
struct Level {
    /// Segments that have a first chunk, a second one, and so on.
    steps: Vec<i64>,
}

impl Places {
    fn shallow_clone(&self) -> Self {
        let Self { inputs, outputs, rows, taken, back, parents } = self;
        let [inputs, outputs, rows, taken, back, parents] =
            [inputs, outputs, rows, taken, back, parents].map(Tensor::shallow_clone);
        Self { inputs, outputs, rows, taken, back, parents }
    }
}

impl DeltaPlan {
    /// The plan of a pass, whose [`DeltaPlan::tensors_mut`] are still to be moved to the device.
    pub(crate) fn new(packed: &Packed, rule: DeltaRule) -> Self {
        let segments = packed.segments().to_vec();
        let before = rule.before() as usize;
        let (inputs, starts) = inputs(&segments, packed.len(), before);
        let mut ranks = vec![None; segments.len()];
        let mut levels = [Level::default(), Level::default()];
        let (mut outputs, mut rows, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        let mut back = vec![0i64; packed.len()];
        let mut parents = Vec::new();
        for (level, has_parent) in levels.iter_mut().zip([false, true]) {
            let mut order: Vec<usize> = (0..segments.len())
                .filter(|&number| segments[number].len > 0 && segments[number].parent.is_some() == has_parent)
                .collect();
            // Stable, so that equal lengths keep their order.
            order.sort_by_key(|&number| std::cmp::Reverse(segments[number].len.div_ceil(CHUNK)));
            for (rank, &number) in order.iter().enumerate() {
                ranks[number] = Some(rank);
                if let Some(parent) = segments[number].parent {
                    parents.push(ranks[parent].unwrap_or_default() as i64);
                }
            }
            for first in (0..).step_by(CHUNK) {
                let live = order.iter().take_while(|&&number| segments[number].len > first);
                let mut count = 0;
                for &number in live {
                    let segment = segments[number];
                    for at in first..first + CHUNK {
                        let token = at.min(segment.len - 1);
                        if at < segment.len {
                            back[segment.start + at] = rows.len() as i64;
                        }
                        outputs.push((starts[number] + token) as i64);
                        rows.push((segment.start + token) as i64);
                        taken.push(if at < segment.len { 1f32 } else { 0.0 });
                    }
                    count += 1;
                }
                if count == 0 {
                    break;
                }
                level.steps.push(count);
            }
        }
        let [inputs, outputs, rows, back, parents] =
            [&inputs, &outputs, &rows, &back, &parents].map(|all| Tensor::from_slice(all));
        let taken = Tensor::from_slice(&taken).view([-1, 1]);
        let places = Places { inputs, outputs, rows, taken, back, parents };
        Self { places, levels, segments, ranks }
    }

    /// Tensors that are on the host still.
    pub(crate) fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        let Places { inputs, outputs, rows, taken, back, parents } = &mut self.places;
        vec![inputs, outputs, rows, taken, back, parents]
    }

    /// Another handle on these tensors.
    fn shallow_clone(&self) -> Self {
        let Self { places, levels, segments, ranks } = self;
        Self {
            places: places.shallow_clone(),
            levels: levels.clone(),
            segments: segments.clone(),
            ranks: ranks.clone(),
        }
    }

    /// Values that all tokens read, `[T, V * E]`, of the kind of `qkv`. Kept for the gradient is the input alone: the rest is computed again.
    pub(crate) fn mix(&self, delta: &Delta<'_>) -> Result<Tensor> {
        let Delta { qkv, decay, beta, convolution, rule } = delta;
        let inputs = [qkv, decay, beta, *convolution];
        let kept = inputs.map(Tensor::detach);
        let (read, _) = tch::no_grad(|| self.run(&kept, *rule)).doing("the gated delta rule")?;
        if !simplemix_torch::records(&inputs)? {
            return Ok(read);
        }
        let (plan, rule, wanted) = (self.shallow_clone(), *rule, inputs.map(Tensor::requires_grad));
        let carry = move |gradients: &[Tensor]| {
            if !gradients[0].defined() {
                return Ok(vec![None, None, None, None]);
            }
            let leaves = kept.map(|tensor| tensor.detach());
            for (leaf, wanted) in leaves.iter().zip(wanted) {
                let _ = leaf.set_requires_grad(wanted);
            }
            let (read, _) = tch::with_grad(|| plan.run(&leaves, rule))?;
            simplemix_torch::backward(&[&read], &[&gradients[0]])?;
            Ok(leaves.iter().zip(wanted).map(|(leaf, wanted)| wanted.then(|| leaf.grad())).collect())
        };
        Ok(simplemix_torch::function("DeltaRule", &inputs, vec![read], carry)?.remove(0))
    }

    /// As [`DeltaPlan::mix`], without gradients; also the states with which segments without parent end, in their order.
    pub(crate) fn mix_with_states(&self, delta: &Delta<'_>) -> Result<(Tensor, Vec<State>)> {
        let Delta { qkv, decay, beta, convolution, rule } = delta;
        let run = || -> std::result::Result<_, TchError> {
            let inputs = [qkv, decay, beta, *convolution].map(Tensor::detach);
            let (read, heads) = self.run(&inputs, *rule)?;
            let mut states = Vec::new();
            for (segment, rank) in self.segments.iter().zip(&self.ranks) {
                let Some(rank) = rank.filter(|_| segment.parent.is_none()) else { continue };
                states.push(State {
                    recent: newest(qkv, segment, rule.before())?,
                    heads: heads.f_select(0, rank as i64)?.f_contiguous()?,
                });
            }
            Ok((read, states))
        };
        tch::no_grad(run).doing("the gated delta rule")
    }

    /// Values that all tokens read, `[T, V * E]`, and the last states of segments without parent, `[S, V, D, E]`.
    fn run(&self, inputs: &[Tensor; 4], rule: DeltaRule) -> std::result::Result<(Tensor, Tensor), TchError> {
        let [qkv, decay, beta, convolution] = inputs;
        let Places { inputs, outputs, rows, taken, back, parents } = &self.places;
        let active = convolved(qkv, inputs, convolution, None)?.f_silu()?.f_index_select(0, outputs)?; // [N * L, C]
        let by_head = |t: &Tensor, heads: i64| {
            let split = t.f_reshape([-1, CHUNK as i64, heads, t.size()[1] / heads])?;
            split.f_transpose(1, 2)?.f_to_kind(Kind::Float)?.f_contiguous() // [N, heads, L, ..]
        };
        let widths = [rule.key_width(), rule.key_width(), rule.value_width()];
        let parts = active.f_split_with_sizes(widths, 1)?;
        let [q, k] = [&parts[0], &parts[1]].map(|t| unit(&by_head(t, rule.key_heads)?));
        let (q, k) = (q?.f_mul_scalar((rule.key_dim as f64).powf(-0.5))?, k?);
        let v = by_head(&parts[2], rule.value_heads)?;
        let of_places = |t: &Tensor| {
            let at = t.f_to_kind(Kind::Float)?.f_index_select(0, rows)?.f_mul(taken)?;
            by_head(&at, rule.value_heads)?.f_squeeze_dim(-1) // [N, V, L]
        };
        let chunks = Chunks::new([q, k, v], [of_places(decay)?, of_places(beta)?], rule)?;
        let mut read = Vec::new();
        let sizes: Vec<i64> = self.levels.iter().flat_map(|level| level.steps.iter().copied()).collect();
        let mut steps = chunks.steps(&sizes)?.into_iter();
        let [prompts, responses] = &self.levels;
        let last = prompts.scan(&mut steps, None, &mut read)?;
        if !responses.steps.is_empty() {
            drop(responses.scan(&mut steps, Some(last.f_index_select(0, parents)?), &mut read)?);
        }
        let read = Tensor::f_cat(&read, 0)?.f_transpose(1, 2)?; // [N, L, V, E]
        let read = read.f_reshape([-1, rule.value_width()])?.f_index_select(0, back)?;
        Ok((read.f_to_kind(qkv.kind())?, last))
    }
}

/// Vectors of length 1.
fn unit(t: &Tensor) -> std::result::Result<Tensor, TchError> {
    let squares = t.f_square()?.f_sum_dim_intlist(&[-1i64][..], true, Kind::Float)?;
    t.f_mul(&squares.f_add_scalar(EPS)?.f_rsqrt()?)
}

/// Parts of chunks, of all or of one step: for the state before them, for the one after, and for what they read in themselves.
struct Chunks {
    /// Values that a chunk puts into the state, if that is zeros, `[N, V, L, E]`.
    values: Tensor,
    /// Keys under which it takes values off that the state has, `[N, V, L, D]`.
    taking: Tensor,
    /// Keys under which it puts them, decayed to its end, `[N, V, L, D]`.
    putting: Tensor,
    /// Queries of the state, `[N, V, L, D]`.
    queries: Tensor,
    /// Products of queries and keys inside of the chunk, `[N, V, L, L]`.
    inside: Tensor,
    /// Decay over the whole chunk, `[N, V, 1, 1]`.
    decay: Tensor,
}

impl Chunks {
    /// Makes them of queries and keys `[N, K, L, D]`, values `[N, V, L, E]`, logs of decays and strengths `[N, V, L]`, all f32. Steps inside of a chunk
    /// are one triangular system (the UT transform of Yang et al. 2024, arXiv:2406.06484, with decays).
    fn new([q, k, v]: [Tensor; 3], [log, beta]: [Tensor; 2], rule: DeltaRule) -> std::result::Result<Self, TchError> {
        let shared = rule.value_heads / rule.key_heads;
        let each = |t: Tensor| if shared == 1 { Ok(t) } else { t.f_repeat_interleave_self_int(shared, 1, None) };
        let (length, device) = (CHUNK as i64, q.device());
        let sum = log.f_cumsum(2, Kind::Float)?;
        let later = Tensor::f_ones([length, length], (Kind::Bool, device))?.f_triu(1)?;
        let between = sum.f_unsqueeze(3)?.f_sub(&sum.f_unsqueeze(2)?)?;
        let between = between.f_masked_fill(&later, f64::NEG_INFINITY)?.f_exp()?; // [N, V, L, L]
        let turned = k.f_transpose(2, 3)?;
        let inside = each(q.f_matmul(&turned)?)?.f_mul(&between)?;
        let system = each(k.f_matmul(&turned)?)?.f_mul(&beta.f_unsqueeze(3)?)?.f_mul(&between)?;
        let (decayed, keys) = (sum.f_exp()?, each(k)?);
        let strong = v.f_mul(&beta.f_unsqueeze(3)?)?;
        let taken = keys.f_mul(&beta.f_mul(&decayed)?.f_unsqueeze(3)?)?;
        let solved = system.f_linalg_solve_triangular(&Tensor::f_cat(&[strong, taken], 3)?, false, true, true)?;
        let solved = solved.f_split_with_sizes([rule.value_dim, rule.key_dim], 3)?;
        let last = sum.f_narrow(2, length - 1, 1)?;
        Ok(Self {
            values: solved[0].shallow_clone(),
            taking: solved[1].shallow_clone(),
            putting: keys.f_mul(&last.f_sub(&sum)?.f_exp()?.f_unsqueeze(3)?)?,
            queries: each(q)?.f_mul(&decayed.f_unsqueeze(3)?)?,
            inside,
            decay: last.f_exp()?.f_unsqueeze(3)?,
        })
    }

    /// Cut into steps of so many chunks. One cut has one joining as its backward pass.
    fn steps(self, sizes: &[i64]) -> std::result::Result<Vec<Self>, TchError> {
        let cut = |t: Tensor| Ok::<_, TchError>(t.f_split_with_sizes(sizes, 0)?.into_iter());
        let (mut values, mut taking, mut putting) = (cut(self.values)?, cut(self.taking)?, cut(self.putting)?);
        let (mut queries, mut inside, mut decay) = (cut(self.queries)?, cut(self.inside)?, cut(self.decay)?);
        let step = |_: &i64| {
            Some(Self {
                values: values.next()?,
                taking: taking.next()?,
                putting: putting.next()?,
                queries: queries.next()?,
                inside: inside.next()?,
                decay: decay.next()?,
            })
        };
        Ok(sizes.iter().map_while(step).collect())
    }
}

impl Level {
    /// Carries states through all chunks of the level, adds what tokens read, and returns the last state of each segment. Without `state`
    /// segments start from zeros.
    fn scan(
        &self,
        steps: &mut impl Iterator<Item = Chunks>,
        mut state: Option<Tensor>,
        read: &mut Vec<Tensor>,
    ) -> std::result::Result<Tensor, TchError> {
        let mut ended = Vec::new();
        for (&count, step) in self.steps.iter().zip(steps) {
            let Chunks { values, taking, putting, queries, inside, decay } = step;
            // Segments that have ended are the last ones.
            let before = match state.take() {
                Some(all) if all.size()[0] > count => {
                    let mut parts = all.f_split_with_sizes([count, all.size()[0] - count], 0)?;
                    ended.extend(parts.pop());
                    parts.pop()
                }
                other => other,
            };
            let (values, seen) = match &before {
                Some(before) => (values.f_sub(&taking.f_matmul(before)?)?, Some(queries.f_matmul(before)?)),
                None => (values, None),
            };
            let own = inside.f_matmul(&values)?;
            read.push(seen.map_or(Ok(own.shallow_clone()), |seen| seen.f_add(&own))?);
            let put = putting.f_transpose(2, 3)?.f_matmul(&values)?;
            state = Some(match before {
                Some(before) => before.f_mul(&decay)?.f_add(&put)?,
                None => put,
            });
        }
        ended.extend(state);
        ended.reverse();
        match ended.len() {
            1 => Ok(ended.remove(0)),
            _ => Tensor::f_cat(&ended, 0),
        }
    }
}

impl State {
    /// Values that one new token of each row reads, `[B, V * E]`, after it has changed the row's state. A row's numbers do not depend on other
    /// rows.
    pub(crate) fn step(&mut self, delta: &Delta<'_>) -> Result<Tensor> {
        self.stepped(delta).doing("a step of the gated delta rule")
    }

    fn stepped(&mut self, delta: &Delta<'_>) -> std::result::Result<Tensor, TchError> {
        let Delta { qkv, decay, beta, convolution, rule } = delta;
        let (rows, kind) = (qkv.size()[0], qkv.kind());
        let window = Window { x: qkv.shallow_clone(), weight: convolution, bias: None };
        let sum = convolution::step(&mut self.recent, &window)?;
        let active = sum.f_to_kind(kind)?.f_silu()?.f_to_kind(Kind::Float)?;
        let parts = active.f_split_with_sizes([rule.key_width(), rule.key_width(), rule.value_width()], 1)?;
        let shared = rule.value_heads / rule.key_heads;
        let key = |t: &Tensor| {
            let t = unit(&t.f_reshape([rows, rule.key_heads, rule.key_dim])?)?;
            t.f_repeat_interleave_self_int(shared, 1, None)?.f_unsqueeze(2) // [B, V, 1, D]
        };
        let (q, k) = (key(&parts[0])?.f_mul_scalar((rule.key_dim as f64).powf(-0.5))?, key(&parts[1])?);
        let v = parts[2].f_reshape([rows, rule.value_heads, 1, rule.value_dim])?;
        let of_head = |t: &Tensor| t.f_to_kind(Kind::Float)?.f_reshape([rows, rule.value_heads, 1, 1]);
        let _ = self.heads.f_mul_(&of_head(&decay.f_exp()?)?)?;
        let known = k.f_matmul(&self.heads)?;
        let change = v.f_sub(&known)?.f_mul(&of_head(beta)?)?; // [B, V, 1, E]
        let _ = self.heads.f_add_(&k.f_transpose(2, 3)?.f_mul(&change)?)?;
        let read = q.f_matmul(&self.heads)?;
        read.f_reshape([rows, rule.value_width()])?.f_to_kind(kind)
    }
}

#[cfg(test)]
#[path = "delta_rule_tests.rs"]
mod tests;
