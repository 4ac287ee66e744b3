//! Keys and values of the rows of a batch, and states of the gated delta rule.
//!
//! A state stands for all tokens so far, so it has no columns. Of keys and values, rows are aligned at their newest token, so one step writes one column of the cache for all of them, whatever their
//! lengths. Letters: B rows, K key/value heads, S columns, D head width, P tokens of a prompt.

use tch::{Device, Kind, Tensor};

use super::attend::attend;
use crate::attention::{Heads, Mixer, Mixing, Plans};
use crate::causal_lm::CausalLm;
use crate::config::LayerKind;
use crate::convolution::{self, Window};
use crate::delta_rule::{Delta, State};
use crate::error::{Doing, Result};
use crate::packed::{Packed, Segment};

/// Memory of the tokens so far in every layer.
pub(super) type Layers = Vec<Kept>;

/// Memory of the tokens so far in a layer.
#[derive(Debug)]
pub(super) enum Kept {
    /// Keys and values: `[K, P, D]` of a prompt, `[B, K, S, D]` of rows.
    Keys(Tensor, Tensor),
    /// The state of the gated delta rule.
    State(State),
    /// None of its own: keys and values of an earlier layer are read.
    Elsewhere,
    /// Newest inputs of a short convolution, `[H, kernel - 1]` of a prompt, `[B, H, kernel - 1]` of rows.
    Recent(Tensor),
}

/// The cache of one model.
#[derive(Default)]
pub(super) struct Cache {
    layers: Layers,
}

/// How the columns of a cache are to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns {
    /// In use, from the first.
    pub(super) filled: i64,
    /// In all.
    pub(super) room: i64,
}

/// A prompt's keys and values, for so many rows.
pub(super) struct Fill<'a> {
    pub(super) layers: &'a Layers,
    pub(super) rows: i64,
}

impl Kept {
    fn keys(&self) -> Option<(&Tensor, &Tensor)> {
        match self {
            Self::Keys(keys, values) => Some((keys, values)),
            Self::State(_) | Self::Recent(_) | Self::Elsewhere => None,
        }
    }

    /// Tensors of the tokens so far that do not grow with them.
    fn states(&self) -> Vec<&Tensor> {
        match self {
            Self::Keys(..) | Self::Elsewhere => Vec::new(),
            Self::State(State { recent, heads }) => vec![recent, heads],
            Self::Recent(recent) => vec![recent],
        }
    }

    /// Another handle on these tensors.
    pub(super) fn shallow_clone(&self) -> Self {
        match self {
            Self::Keys(keys, values) => Self::Keys(keys.shallow_clone(), values.shallow_clone()),
            Self::State(State { recent, heads }) => {
                Self::State(State { recent: recent.shallow_clone(), heads: heads.shallow_clone() })
            }
            Self::Recent(recent) => Self::Recent(recent.shallow_clone()),
            Self::Elsewhere => Self::Elsewhere,
        }
    }
}

impl Cache {
    /// Lays rows out anew: the rows `keep`, of which the newest `used` columns matter, then those of `fills`.
    pub(super) fn lay_out(
        &mut self,
        model: &CausalLm,
        from: Columns,
        keep: &[i64],
        used: i64,
        fills: &[Fill<'_>],
        to: Columns,
    ) -> Result<()> {
        let config = model.config();
        let (kind, device) = (model.kind(), model.device());
        let rows = keep.len() as i64 + fills.iter().map(|fill| fill.rows).sum::<i64>();
        let kept = Tensor::from_slice(keep).to_device(device);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        let mut old = std::mem::take(&mut self.layers).into_iter();
        for layer in 0..config.num_hidden_layers {
            let old = old.next().filter(|_| !keep.is_empty());
            let size = [rows, config.key_heads(layer), to.room, config.head_width(layer)];
            let lay = |old: Option<&Tensor>, prompt: &dyn Fn(&Kept) -> Option<Tensor>| {
                let new = Tensor::f_zeros(size, (kind, device))?;
                if let Some(old) = old {
                    let newest = old.narrow(2, from.filled - used, used).f_index_select(0, &kept)?;
                    new.narrow(0, 0, keep.len() as i64).narrow(2, to.filled - used, used).f_copy_(&newest)?;
                }
                let mut row = keep.len() as i64;
                for fill in fills {
                    if let Some(prompt) = prompt(&fill.layers[layer]) {
                        let width = prompt.size()[1];
                        new.narrow(0, row, fill.rows)
                            .narrow(2, to.filled - width, width)
                            .f_copy_(&prompt.unsqueeze(0).expand([fill.rows, -1, -1, -1], false))?;
                    }
                    row += fill.rows;
                }
                Ok(new)
            };
            // Rows of states, which lie as they come.
            let join = |number: usize| {
                let rows = |old: &Kept| old.states().get(number).map(|old| old.f_index_select(0, &kept)).transpose();
                let mut parts: Vec<Tensor> = old.as_ref().map(rows).transpose()?.flatten().into_iter().collect();
                for fill in fills {
                    if let Some(state) = fill.layers[layer].states().get(number) {
                        let size = [&[fill.rows][..], &state.size()].concat();
                        parts.push(state.f_unsqueeze(0)?.f_expand(&size[..], false)?);
                    }
                }
                if parts.is_empty() { Tensor::f_zeros([0], (kind, device)) } else { Tensor::f_cat(&parts, 0) }
            };
            let state = |number: usize| join(number).doing("filling the cache");
            let laid = match config.layers[layer].kind {
                LayerKind::Attention if config.layers[layer].keys_of.is_some() => Kept::Elsewhere,
                LayerKind::Attention => {
                    let (keys, values) = old.as_ref().and_then(Kept::keys).unzip();
                    let keys = lay(keys, &|kept| kept.keys().map(|(keys, _)| keys.shallow_clone()));
                    let values = lay(values, &|kept| kept.keys().map(|(_, values)| values.shallow_clone()));
                    Kept::Keys(keys.doing("filling the cache")?, values.doing("filling the cache")?)
                }
                LayerKind::DeltaRule => Kept::State(State { recent: state(0)?, heads: state(1)? }),
                LayerKind::Convolution => Kept::Recent(state(0)?),
            };
            layers.push(laid);
        }
        self.layers = layers;
        Ok(())
    }

    /// Puts what a pass has kept of as many tokens in the place of `row`'s, of which the newest are in the column before `filled`.
    pub(super) fn replace(&mut self, row: usize, filled: i64, by: &Layers) -> Result<()> {
        let put = |old: &Tensor, new: &Tensor| {
            let width = new.size()[1];
            old.select(0, row as i64).narrow(1, filled - width, width).f_copy_(new).doing("filling the cache")
        };
        let put_state = |old: &Tensor, new: &Tensor| old.select(0, row as i64).f_copy_(new).doing("filling the cache");
        for kept in self.layers.iter().zip(by) {
            match kept {
                (Kept::Keys(keys, values), Kept::Keys(new_keys, new_values)) => {
                    put(keys, new_keys)?;
                    put(values, new_values)?;
                }
                (old, new) => {
                    old.states().into_iter().zip(new.states()).try_for_each(|(old, new)| put_state(old, new))?;
                }
            }
        }
        Ok(())
    }

    /// Hidden states `[B, H]` of the rows' newest tokens, whose keys and values go to `column` and which change the rows' states. `pads`
    /// are the columns before each row's first token.
    pub(super) fn step(&mut self, model: &CausalLm, newest: &Packed, column: i64, pads: &[i64]) -> Result<Tensor> {
        let (layers, config) = (&mut self.layers, model.config());
        let mixer = Mixer::new(config);
        let mut known = None;
        model.network.step(newest, |layer, mixing| {
            let heads = match (&mut layers[layer], mixing) {
                (Kept::Keys(keys, values), Mixing::Heads(heads)) => {
                    keys.select(2, column).f_copy_(&heads.k).doing("filling the cache")?;
                    values.select(2, column).f_copy_(&heads.v).doing("filling the cache")?;
                    heads
                }
                (Kept::Elsewhere, Mixing::Heads(heads)) => heads,
                (Kept::State(state), Mixing::Delta(delta)) => return state.step(&delta),
                (Kept::Recent(recent), Mixing::Window(window)) => return step(recent, &window),
                _ => unreachable!("a layer's cache is of the layer's kind"),
            };
            let of = config.layers[layer].keys_of.unwrap_or(layer);
            let (keys, values) = layers[of].keys().expect("a layer whose keys are read has some");
            // The newest columns are the newest positions of every row.
            let first = config.layers[layer].window.map_or(0, |window| (column + 1 - window).max(0));
            let own = |row: usize| pads[row].max(first) as usize..column as usize + 1;
            if let Some(mixed) = mixer.plain_scale().and_then(|scale| attend(&heads.q, keys, values, own, scale)) {
                return Ok(mixed);
            }
            let seen = |t: &Tensor, dim: i64| t.narrow(dim, first, column + 1 - first);
            let mask = known.get_or_insert_with(|| mask(pads, column + 1, model.kind(), model.device()));
            let mask = mask.as_ref().map(|mask| seen(mask, 3));
            let mixed = mixer.mix(&heads.q.unsqueeze(2), &seen(keys, 2), &seen(values, 2), mask.as_ref())?;
            Ok(mixed.flatten(1, -1)) // [B, N * D]
        })
    }
}

/// `[B, 1, 1, S]`: minus infinity on the columns before a row's first token; none where no row has such columns.
fn mask(pads: &[i64], columns: i64, kind: Kind, device: Device) -> Option<Tensor> {
    if pads.iter().all(|&pad| pad == 0) {
        return None;
    }
    let rows = pads.len() as i64;
    let pads = Tensor::from_slice(pads).to_device(device).view([-1, 1, 1, 1]);
    let before = Tensor::arange(columns, (Kind::Int64, device)).lt_tensor(&pads);
    Some(Tensor::zeros([rows, 1, 1, columns], (kind, device)).masked_fill(&before, f64::NEG_INFINITY))
}

/// Hidden states `[T, H]` of prompts laid end to end, and each one's keys and values.
pub(super) fn read(model: &CausalLm, packed: &Packed) -> Result<(Tensor, Vec<Layers>)> {
    let plans = model.network.plans(packed)?;
    let mut prompts: Vec<Layers> = packed.segments().iter().map(|_| Layers::new()).collect();
    let hidden = model.network.forward(packed, |layer, mixing| {
        let (mixed, kept) = match mixing {
            Mixing::Heads(heads) if model.config().layers[layer].keys_of.is_some() => {
                (plans.attend(layer, &heads)?, packed.segments().iter().map(|_| Kept::Elsewhere).collect())
            }
            Mixing::Heads(heads) => read_heads(&plans, layer, &heads, packed)?,
            Mixing::Delta(delta) => read_delta(&plans, &delta)?,
            Mixing::Window(window) => read_window(&plans, &window, packed)?,
        };
        prompts.iter_mut().zip(kept).for_each(|(prompt, kept)| prompt.push(kept));
        Ok(mixed)
    })?;
    Ok((hidden, prompts))
}

/// Output of attention for all prompts, and each one's keys and values.
fn read_heads(plans: &Plans, layer: usize, heads: &Heads, packed: &Packed) -> Result<(Tensor, Vec<Kept>)> {
    let kept = |segment: &Segment| Kept::Keys(own(&heads.k, segment), own(&heads.v, segment));
    Ok((plans.attend(layer, heads)?, packed.segments().iter().map(kept).collect()))
}

/// Output of the gated delta rule for all prompts, and the state after each.
fn read_delta(plans: &Plans, delta: &Delta<'_>) -> Result<(Tensor, Vec<Kept>)> {
    let (read, states) = plans.delta().mix_with_states(delta)?;
    Ok((read, states.into_iter().map(Kept::State).collect()))
}

/// Output of a short convolution for all prompts, and the newest inputs of each.
fn read_window(plans: &Plans, window: &Window<'_>, packed: &Packed) -> Result<(Tensor, Vec<Kept>)> {
    let before = window.weight.size()[2] - 1;
    let newest = |segment: &Segment| convolution::newest(&window.x, segment, before).map(Kept::Recent);
    let kept = packed.segments().iter().map(newest).collect::<std::result::Result<_, _>>();
    Ok((plans.convolution().mix(window)?, kept.doing("reading a prompt")?))
}

/// Output of a short convolution for one new token of each row, whose newest inputs are `recent`.
fn step(recent: &mut Tensor, window: &Window<'_>) -> Result<Tensor> {
    let mixed = convolution::step(recent, window).doing("a step of a short convolution")?;
    mixed.f_to_kind(window.x.kind()).doing("a step of a short convolution")
}

/// One prompt's `[K, P, D]` out of `[T, K, D]`, in memory of its own.
fn own(flat: &Tensor, segment: &Segment) -> Tensor {
    flat.narrow(0, segment.start as i64, segment.len as i64).transpose(0, 1).contiguous()
}
