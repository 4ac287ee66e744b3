//! Attention within sequences of any lengths, and which kernels libtorch may choose for attention.
//!
//! Letters: T queries of all sequences, S keys of all sequences, N query heads, K key/value heads, D head width, B sequences.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::{backward, calls, function, native, records};

/// Kernels that `scaled_dot_product_attention` may choose on a GPU, for the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionKernels {
    /// Flash attention (Dao 2023, arXiv:2307.08691): half precision, no mask.
    pub flash: bool,
    /// The memory-efficient kernel: masks, all kinds, as many key heads as query heads.
    pub efficient: bool,
    /// Plain products, which hold every product of a query and a key.
    pub math: bool,
    /// cuDNN's kernels, which are planned anew for every pair of lengths.
    pub cudnn: bool,
}

impl AttentionKernels {
    /// Kernels that may be chosen now.
    pub fn get() -> Self {
        let bits = native::attention_kernels();
        let has = |bit| bits & bit != 0;
        Self { flash: has(1), efficient: has(2), math: has(4), cudnn: has(8) }
    }

    /// Lets these be chosen from now on.
    pub fn set(self) {
        let bit = |is_on: bool, bit: i32| if is_on { bit } else { 0 };
        native::set_attention_kernels(
            bit(self.flash, 1) | bit(self.efficient, 2) | bit(self.math, 4) | bit(self.cudnn, 8),
        );
    }
}

/// Lengths of the sequences that queries and keys consist of, one after another.
#[derive(Debug)]
pub struct Sequences {
    queries: Vec<i64>,
    keys: Vec<i64>,
    /// Starts of queries and of keys, `[B + 1]`, Int, on the device.
    starts: [Tensor; 2],
}

impl Sequences {
    /// Sequence b has `queries[b]` queries, which stand for the last ones of its `keys[b]` keys.
    ///
    /// # Errors
    /// [`Error::Argument`] if the lengths differ in number, are below 0, or a sequence has more queries than keys.
    pub fn new(queries: &[i64], keys: &[i64], device: Device) -> Result<Self> {
        let mut sequences = Self::on_host(queries, keys)?;
        crate::device::move_together(&mut sequences.tensors_mut(), device)?;
        Ok(sequences)
    }

    /// Such sequences on the host, from where [`Sequences::tensors_mut`] are still to be moved to the queries' device.
    ///
    /// # Errors
    /// As [`Sequences::new`].
    pub fn on_host(queries: &[i64], keys: &[i64]) -> Result<Self> {
        if queries.len() != keys.len() {
            return Err(Error::argument("keys", format!("{} lengths", keys.len()), format!("{}", queries.len())));
        }
        if let Some((query, key)) = queries.iter().zip(keys).find(|(query, key)| **query < 0 || query > key) {
            return Err(Error::argument("queries", format!("{query} of {key} keys"), "at most as many as keys"));
        }
        let starts = |lengths: &[i64]| {
            let mut at = 0i32;
            let ends = lengths.iter().map(|length| {
                at += *length as i32;
                at
            });
            let starts: Vec<i32> = std::iter::once(0).chain(ends).collect();
            Tensor::from_slice(&starts)
        };
        Ok(Self { starts: [starts(queries), starts(keys)], queries: queries.to_vec(), keys: keys.to_vec() })
    }

    /// Tensors that have to be on the queries' device.
    pub fn tensors_mut(&mut self) -> [&mut Tensor; 2] {
        self.starts.each_mut()
    }

    /// Number of queries T.
    pub fn queries(&self) -> i64 {
        self.queries.iter().sum()
    }

    /// Number of keys S.
    pub fn keys(&self) -> i64 {
        self.keys.iter().sum()
    }

    fn longest(&self) -> [i64; 2] {
        [&self.queries, &self.keys].map(|lengths| lengths.iter().copied().max().unwrap_or(0))
    }
}

/// How queries attend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Varlen {
    /// Factor of the products of queries and keys, usually `1 / sqrt(D)`.
    pub scale: f64,
    /// Number of keys that a query sees, its own among them; none for all up to its own.
    pub window: Option<i64>,
}

/// Causal attention within each sequence: `[T, N, D]` from queries `[T, N, D]`, keys and values `[S, K, D]`. Differentiable.
///
/// The last query of a sequence sees all of its keys, the one before all but the last, and so on. N is a multiple of K. On a
/// GPU, for half precision and D up to 256, one call of flash attention (Dao 2023, arXiv:2307.08691), whose launches do not
/// grow with B; elsewhere a call of `scaled_dot_product_attention` for each sequence, with the same result.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit each other, [`Error::Torch`] where memory does not suffice.
///
/// # Examples
/// ```
/// use simplemix_torch::{Sequences, Varlen, varlen_attention};
/// use tch::{Device, Kind, Tensor};
///
/// // A sequence of two tokens and one query over three keys, one head of width 1.
/// let sequences = Sequences::new(&[2, 1], &[2, 3], Device::Cpu)?;
/// let q = Tensor::zeros([3, 1, 1], (Kind::Float, Device::Cpu));
/// let k = Tensor::zeros([5, 1, 1], (Kind::Float, Device::Cpu));
/// let v = Tensor::from_slice(&[1f32, 3.0, 1.0, 2.0, 6.0]).view([5, 1, 1]);
/// let mixed = varlen_attention(&q, &k, &v, &sequences, Varlen { scale: 1.0, window: None })?;
/// // Even weights: the mean of the values that each query sees.
/// assert_eq!(Vec::<f32>::try_from(mixed.flatten(0, -1))?, [1.0, 2.0, 3.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn varlen_attention(q: &Tensor, k: &Tensor, v: &Tensor, sequences: &Sequences, how: Varlen) -> Result<Tensor> {
    check(q, k, v, sequences, how)?;
    if has_kernel(q) {
        let numbers =
            native::Flash { longest: sequences.longest(), causal: true, scale: how.scale, window: how.window };
        let [starts_q, starts_k] = &sequences.starts;
        return native::flash_attention([q, k, v], [starts_q, starts_k], &numbers);
    }
    if !records(&[q, k, v])? {
        return calls::named(VARLEN, || each(q, k, v, sequences, how));
    }
    // One operation with one gradient, as the kernel is.
    let leaves = [q, k, v].map(|t| t.detach().set_requires_grad(true));
    let mixed = calls::named(VARLEN, || each(&leaves[0], &leaves[1], &leaves[2], sequences, how))?;
    let output = mixed.detach();
    let carry = move |gradients: &[Tensor]| {
        calls::named(VARLEN, || backward(&[&mixed], &[&gradients[0]]))?;
        Ok(leaves.iter().map(|leaf| Some(leaf.grad())).collect())
    };
    Ok(function("VarlenAttention", &[q, k, v], vec![output], carry)?.remove(0))
}

/// Name in traces of attention that runs sequence by sequence, forward or backward.
const VARLEN: &str = "simplemix::varlen_attention";

fn has_kernel(q: &Tensor) -> bool {
    q.device().is_cuda() && matches!(q.kind(), Kind::BFloat16 | Kind::Half) && q.size()[2] <= 256
}

fn check(q: &Tensor, k: &Tensor, v: &Tensor, sequences: &Sequences, how: Varlen) -> Result<()> {
    let shape =
        |name, tensor: &Tensor, expected: String| Error::argument(name, format!("{:?}", tensor.size()), expected);
    let [rows, heads, width] = q.size()[..] else { return Err(shape("q", q, "[T, N, D]".to_owned())) };
    if rows != sequences.queries() {
        return Err(shape("q", q, format!("[{}, N, D]", sequences.queries())));
    }
    let [_, key_heads, _] = k.size()[..] else { return Err(shape("k", k, "[S, K, D]".to_owned())) };
    if k.size() != [sequences.keys(), key_heads, width] || key_heads == 0 || heads % key_heads != 0 {
        return Err(shape("k", k, format!("[{}, K, {width}], K a divisor of {heads}", sequences.keys())));
    }
    if v.size() != k.size() {
        return Err(shape("v", v, format!("{:?}", k.size())));
    }
    match how.window {
        Some(window) if window < 1 => Err(Error::argument("window", window, "at least 1")),
        _ => Ok(()),
    }
}

/// Mask `[L, S]` that is added to products: zero where a query may look, minus infinity elsewhere.
///
/// `queries` and `keys` are the position of the first and their number, L and S; a query sees the keys up to its own position,
/// at most `window` of them.
///
/// # Examples
/// ```
/// use simplemix_torch::causal_mask;
/// use tch::{Device, Kind};
///
/// // Queries at positions 2 and 3 over keys from 1 to 3; each sees two.
/// let mask = causal_mask((2, 2), (1, 3), Some(2), (Kind::Float, Device::Cpu));
/// let inf = f32::INFINITY;
/// assert_eq!(Vec::<f32>::try_from(mask.flatten(0, -1))?, [0.0, 0.0, -inf, -inf, 0.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn causal_mask(queries: (i64, i64), keys: (i64, i64), window: Option<i64>, options: (Kind, Device)) -> Tensor {
    let ahead = queries.0 - keys.0;
    let full = Tensor::full([queries.1, keys.1], f64::NEG_INFINITY, options);
    match window {
        Some(window) if keys.0 + window < queries.0 + queries.1 => full.triu(ahead + 1) + full.tril(ahead - window),
        _ => full.triu(ahead + 1),
    }
}

/// Attention, a sequence at a time.
fn each(q: &Tensor, k: &Tensor, v: &Tensor, sequences: &Sequences, how: Varlen) -> Result<Tensor> {
    let parts = |t: &Tensor, lengths: &[i64]| t.f_split_with_sizes(lengths, 0);
    let (q, k, v) = (parts(q, &sequences.queries)?, parts(k, &sequences.keys)?, parts(v, &sequences.keys)?);
    let mixed: Vec<Tensor> = q.iter().zip(&k).zip(&v).map(|((q, k), v)| one(q, k, v, how)).collect::<Result<_>>()?;
    Ok(Tensor::f_cat(&mixed, 0)?)
}

fn one(q: &Tensor, k: &Tensor, v: &Tensor, how: Varlen) -> Result<Tensor> {
    if q.size()[0] == 0 {
        return Ok(q.shallow_clone());
    }
    let batched = |t: &Tensor| t.transpose(0, 1).unsqueeze(0); // [1, N, L, D]
    let (queries, keys) = (q.size()[0], k.size()[0]);
    let is_grouped = q.size()[1] != k.size()[1];
    let is_causal = queries == keys && how.window.is_none_or(|window| window >= keys);
    let mask = (!is_causal).then(|| {
        let ahead = keys - queries;
        causal_mask((ahead, queries), (0, keys), how.window, (q.kind(), q.device()))
    });
    let mixed = Tensor::f_scaled_dot_product_attention(
        &batched(q),
        &batched(k),
        &batched(v),
        mask.as_ref(),
        0.0,
        is_causal,
        how.scale,
        is_grouped,
    )?;
    Ok(mixed.squeeze_dim(0).transpose(0, 1))
}
