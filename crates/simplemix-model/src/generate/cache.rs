//! Keys and values of the rows of a batch.
//!
//! Rows are aligned at their newest token, so one step writes one column of the cache for all of them, whatever their
//! lengths. Letters: B rows, K key/value heads, S columns, D head width, P tokens of a prompt.

use tch::{Device, Kind, Tensor};

use super::attend::attend;
use crate::attention::Mixer;
use crate::causal_lm::CausalLm;
use crate::error::{Doing, Result};
use crate::packed::{Packed, Segment};

/// Keys and values of every layer.
pub(super) type Layers = Vec<(Tensor, Tensor)>;

/// The cache of one model.
#[derive(Default)]
pub(super) struct Cache {
    layers: Layers, // [B, K, S, D]
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
    pub(super) layers: &'a Layers, // [K, P, D]
    pub(super) rows: i64,
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
        let size = [rows, config.num_key_value_heads, to.room, config.head_dim];
        let kept = Tensor::from_slice(keep).to_device(device);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        let mut old = std::mem::take(&mut self.layers).into_iter();
        for layer in 0..config.num_hidden_layers {
            let old = old.next();
            let lay = |old: Option<Tensor>, of_fill: &dyn Fn(&Fill<'_>) -> Tensor| {
                let new = Tensor::f_zeros(size, (kind, device))?;
                if let Some(old) = old.filter(|_| !keep.is_empty()) {
                    let newest = old.narrow(2, from.filled - used, used).f_index_select(0, &kept)?;
                    new.narrow(0, 0, keep.len() as i64).narrow(2, to.filled - used, used).f_copy_(&newest)?;
                }
                let mut row = keep.len() as i64;
                for fill in fills {
                    let prompt = of_fill(fill);
                    let width = prompt.size()[1];
                    new.narrow(0, row, fill.rows)
                        .narrow(2, to.filled - width, width)
                        .f_copy_(&prompt.unsqueeze(0).expand([fill.rows, -1, -1, -1], false))?;
                    row += fill.rows;
                }
                Ok(new)
            };
            let (keys, values) = old.map_or((None, None), |(keys, values)| (Some(keys), Some(values)));
            let keys = lay(keys, &|fill| fill.layers[layer].0.shallow_clone()).doing("filling the cache")?;
            let values = lay(values, &|fill| fill.layers[layer].1.shallow_clone()).doing("filling the cache")?;
            layers.push((keys, values));
        }
        self.layers = layers;
        Ok(())
    }

    /// Puts other keys and values of as many tokens in the place of `row`'s, of which the newest are in the column before
    /// `filled`.
    pub(super) fn replace(&mut self, row: usize, filled: i64, by: &Layers) -> Result<()> {
        let put = |old: &Tensor, new: &Tensor| {
            let width = new.size()[1];
            old.select(0, row as i64).narrow(1, filled - width, width).f_copy_(new).doing("filling the cache")
        };
        for ((keys, values), (new_keys, new_values)) in self.layers.iter().zip(by) {
            put(keys, new_keys)?;
            put(values, new_values)?;
        }
        Ok(())
    }

    /// Hidden states `[B, H]` of the rows' newest tokens, whose keys and values go to `column`. `pads` are the columns
    /// before each row's first token.
    pub(super) fn step(&mut self, model: &CausalLm, newest: &Packed, column: i64, pads: &[i64]) -> Result<Tensor> {
        let (layers, config) = (&self.layers, model.config());
        let mixer = Mixer::new(config);
        let mut known = None;
        model.network.step(newest, |layer, heads| {
            let (keys, values) = &layers[layer];
            keys.select(2, column).f_copy_(&heads.k).doing("filling the cache")?;
            values.select(2, column).f_copy_(&heads.v).doing("filling the cache")?;
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
    let hidden = model.network.forward(packed, |layer, heads| {
        for (prompt, segment) in prompts.iter_mut().zip(packed.segments()) {
            prompt.push((own(&heads.k, segment), own(&heads.v, segment)));
        }
        plans.attend(layer, &heads)
    })?;
    Ok((hidden, prompts))
}

/// One prompt's `[K, P, D]` out of `[T, K, D]`, in memory of its own.
fn own(flat: &Tensor, segment: &Segment) -> Tensor {
    flat.narrow(0, segment.start as i64, segment.len as i64).transpose(0, 1).contiguous()
}
