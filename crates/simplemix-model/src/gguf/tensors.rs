//! Tensors of a checkpoint out of those of a GGUF file: names, the order of rows, and numbers that are metadata there.

use std::collections::BTreeSet;

use super::architecture::Architecture;
use super::error::{GgufError, Result};
use super::reader::{Gguf, TensorInfo, Value};
use super::rope;
use crate::config::ModelConfig;

/// A tensor of the folder.
pub(super) struct Written<'a> {
    /// transformers' name in files.
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) origin: Origin<'a>,
    /// Added to each weight.
    pub(super) offset: f32,
}

/// Where a tensor's weights come from.
pub(super) enum Origin<'a> {
    /// A tensor of the file from a row on, with the order of its rows.
    Tensor(&'a TensorInfo, usize, Rows),
    /// The only weight.
    Number(f32),
}

/// Order of a tensor's rows in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// As in the checkpoint.
    Same,
    /// Within each of so many heads, the two halves of rows alternate.
    Interleaved(usize),
    /// All queries, all keys, all values, and not each of so many heads with its own.
    Gathered(usize),
    /// Rows are the checkpoint's columns.
    Turned,
}

impl Rows {
    /// The file's order: the other way round than [`Rows::back`].
    pub(super) fn forth(self, weights: &[f32], shape: &[usize]) -> Vec<f32> {
        let rows = shape.first().copied().unwrap_or(1);
        if self == Self::Same || self == Self::Turned || rows == 0 {
            return weights.to_vec();
        }
        // Rows that are numbered tell where each comes from.
        let numbers = self.back((0..rows).map(|row| row as f32).collect(), &[rows]);
        let mut place = vec![0; rows];
        for (row, source) in numbers.into_iter().enumerate() {
            place[source as usize] = row;
        }
        reordered(weights, rows, |row| place[row])
    }

    /// The checkpoint's order, where `shape` is that of the checkpoint's tensor.
    pub(super) fn back(self, weights: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        let rows = shape.first().copied().unwrap_or(1);
        match self {
            Self::Same => weights,
            Self::Interleaved(heads) => {
                let half = rows / heads / 2;
                reordered(&weights, rows, |row| {
                    let (head, place) = (row / (2 * half), row % (2 * half));
                    head * 2 * half + place % half * 2 + place / half
                })
            }
            Self::Gathered(heads) => {
                let width = rows / heads / 3;
                reordered(&weights, rows, |row| {
                    let (head, place) = (row / (3 * width), row % (3 * width));
                    place / width * heads * width + head * width + place % width
                })
            }
            Self::Turned => {
                let columns = weights.len() / rows;
                (0..weights.len()).map(|at| weights[at % columns * rows + at / columns]).collect()
            }
        }
    }
}

/// Rows of which each is that of `source` before.
fn reordered(weights: &[f32], rows: usize, source: impl Fn(usize) -> usize) -> Vec<f32> {
    let width = weights.len() / rows;
    (0..rows).map(source).flat_map(|source| &weights[source * width..(source + 1) * width]).copied().collect()
}

/// The checkpoint's tensors, each with its place in the file.
pub(super) fn listed<'a>(gguf: &'a Gguf<'_>, of: &Architecture, config: &ModelConfig) -> Result<Vec<Written<'a>>> {
    let (mut problems, mut written) = (Vec::new(), Vec::new());
    let mut left: BTreeSet<&str> = gguf.tensors.keys().map(String::as_str).collect();
    // Numbers of rotary rules, which the configuration has.
    left.retain(|name| *name != rope::FREQUENCIES && !rope::LONG_FACTORS.contains(name));
    for (own, shape) in config.own_tensors() {
        let class = config.names.tensor(&own);
        let turned = config.is_turned(&class);
        let mut tensor = Written {
            name: config.names.in_files(&class),
            shape: shape.iter().map(|&n| n as usize).collect(),
            origin: Origin::Number(0.0),
            offset: if of.adds_one_to_norms && own.ends_with("norm.weight") { -1.0 } else { 0.0 },
        };
        if turned {
            tensor.shape.reverse();
        }
        if let Some(number) = slope(gguf, &own)? {
            tensor.origin = Origin::Number(number);
            written.push(tensor);
            continue;
        }
        let Place { source, first, rows: held } = Place::of(gguf, of, config, &own, &shape);
        left.remove(source.as_str());
        match gguf.tensors.get(&source) {
            Some(info) if is_shape(info, &shape, held) => {
                let rows = if turned { Rows::Turned } else { rows(of, config, &own) };
                tensor.origin = Origin::Tensor(info, first, rows);
                written.push(tensor);
            }
            Some(info) => {
                problems.push(format!("`{source}` is {:?}, expected {shape:?} in reverse", info.dimensions));
            }
            None => problems.push(format!("`{source}` is missing")),
        }
    }
    problems.extend(left.iter().map(|name| format!("`{name}` is not part of the model")));
    if !problems.is_empty() {
        problems.truncate(12);
        return Err(GgufError::Tensors { path: gguf.path.to_owned(), problems: problems.join("; ") });
    }
    written.extend(constants(gguf, config)?);
    Ok(written)
}

/// Where the file has a tensor.
struct Place {
    source: String,
    /// The first row, and the number of all rows in the file's tensor.
    first: usize,
    rows: i64,
}

impl Place {
    /// Queries, keys and values are three tensors, or one after the other in one.
    fn of(gguf: &Gguf<'_>, of: &Architecture, config: &ModelConfig, own: &str, shape: &[i64]) -> Self {
        let source = of.tensor(own);
        let whole = Self { source, first: 0, rows: shape.first().copied().unwrap_or(1) };
        if gguf.tensors.contains_key(&whole.source) {
            return whole;
        }
        let (queries, keys) =
            (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
        let parts = [("attn_q", 0), ("attn_k", queries), ("attn_v", queries + keys)];
        let fused = parts.iter().find_map(|(part, first)| {
            let (before, after) = whole.source.split_once(&format!(".{part}."))?;
            let source = format!("{before}.attn_qkv.{after}");
            let first = usize::try_from(*first).ok()?;
            gguf.tensors.contains_key(&source).then_some(Self { source, first, rows: queries + 2 * keys })
        });
        fused.unwrap_or(whole)
    }
}

/// Whether the file's tensor has `rows` rows, which are like those of the `shape`.
fn is_shape(info: &TensorInfo, shape: &[i64], rows: i64) -> bool {
    let of_row = shape.iter().skip(1).copied();
    info.dimensions.iter().rev().map(|&d| d as i64).eq(std::iter::once(rows).chain(of_row))
}

/// Order in files of a tensor that the decoder calls `own`.
pub(super) fn rows(of: &Architecture, config: &ModelConfig, own: &str) -> Rows {
    match own.rsplit('.').nth(1) {
        Some("q_proj") if of.interleaves_rows => Rows::Interleaved(config.num_attention_heads as usize),
        Some("k_proj") if of.interleaves_rows => Rows::Interleaved(config.num_key_value_heads as usize),
        Some("qkv_proj") if of.gathers_qkv => Rows::Gathered(config.num_attention_heads as usize),
        _ => Rows::Same,
    }
}

/// A slope of xIELU, as it is before its softplus, which the file has among its metadata.
fn slope(gguf: &Gguf<'_>, own: &str) -> Result<Option<f32>> {
    let inner = own.strip_prefix("model.layers.").and_then(|rest| rest.split_once(".mlp.act_fn."));
    let Some((layer, slope)) = inner else { return Ok(None) };
    xielu(gguf, slope, layer.parse().unwrap_or(usize::MAX)).map(|slope| Some(slope as f32))
}

/// The constants that transformers' files have, which must be the file's.
fn constants(gguf: &Gguf<'_>, config: &ModelConfig) -> Result<Vec<Written<'static>>> {
    let of = |(name, value): (String, f64)| {
        let mut parts = name.rsplit('.');
        let constant = parts.next().unwrap_or_default();
        let layer = parts.nth(2).and_then(|layer| layer.parse().ok()).unwrap_or(usize::MAX);
        let found = xielu(gguf, constant, layer)?;
        // Files in half precision hold them roughly.
        if (found - value).abs() > 0.05 * value.abs() {
            return Err(gguf.unsupported(&format!("xielu.{constant}"), found.to_string(), &value.to_string()));
        }
        Ok(Written { name, shape: Vec::new(), origin: Origin::Number(value as f32), offset: 0.0 })
    };
    config.constants().into_iter().map(of).collect()
}

/// A number of a layer's xIELU: from a list for the layers, or one for all.
fn xielu(gguf: &Gguf<'_>, name: &str, layer: usize) -> Result<f64> {
    let key = format!("xielu.{name}");
    let listed = gguf.list(&key).and_then(|all| match all.get(layer) {
        Some(Value::Float(found)) => Some(*found),
        _ => None,
    });
    let found = listed.or_else(|| gguf.float(&key)).filter(|found| found.is_finite());
    found.ok_or_else(|| gguf.unsupported(&key, "absent or no list of numbers", "a number for each layer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_head_by_head() {
        // Two heads of four rows: stored as pairs (0, 2), (1, 3).
        let stored = vec![0., 2., 1., 3., 4., 6., 5., 7.];
        assert_eq!(Rows::Interleaved(2).back(stored, &[8]), [0., 1., 2., 3., 4., 5., 6., 7.]);
        // Two heads with one row each of queries, keys and values.
        let stored = vec![0., 3., 1., 4., 2., 5.];
        assert_eq!(Rows::Gathered(2).back(stored, &[6]), [0., 1., 2., 3., 4., 5.]);
        assert_eq!(Rows::Turned.back(vec![0., 2., 4., 1., 3., 5.], &[3, 2]), [0., 1., 2., 3., 4., 5.]);
        for rows in [Rows::Interleaved(3), Rows::Gathered(2), Rows::Same] {
            let weights: Vec<f32> = (0..36).map(|x| x as f32).collect();
            assert_eq!(rows.back(rows.forth(&weights, &[12, 3]), &[12, 3]), weights, "{rows:?}");
        }
    }
}
