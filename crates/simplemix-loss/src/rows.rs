//! In-place processing of a chunk of logits: normalisers, log-probabilities of the targets, statistics, softmax.
//!
//! A chunk is processed in blocks of rows that stay in the processor's cache, so that the sweeps over it (maximum,
//! softmax, sums) cost little compared with the matrix products. Letters: n rows of the chunk, V vocabulary.

use tch::{Kind, Tensor};

use crate::error::{Doing, Result};
use crate::inputs::TokenStats;

/// Bytes of a block on a CPU; fits the shared cache.
const BLOCK_BYTES: i64 = 4 << 20;

/// Bytes of a block on a device, where logits are copied.
const COPIED_BYTES: i64 = 64 << 20;

/// Results of each row, `[n]`.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) token_logps: Tensor,
    pub(crate) lse: Tensor,
    /// Slope of the soft cap at the target, if there is a cap.
    pub(crate) target_slope: Option<Tensor>,
    pub(crate) mean_logit: Option<Tensor>,
    pub(crate) entropy: Option<Tensor>,
    pub(crate) top1: Option<Tensor>,
    pub(crate) log_sum_sq_probs: Option<Tensor>,
}

/// Turns `logits` `[n, V]` into softmax (times the soft cap's slope), and returns what is computed on the way.
pub(crate) fn normalise(logits: &Tensor, targets: &Tensor, soft_cap: Option<f64>, stats: TokenStats) -> Result<Rows> {
    let doing = "normalising logits";
    let (rows, vocab) = (logits.size()[0], logits.size()[1]);
    let block_bytes = match logits.device() {
        tch::Device::Cpu => BLOCK_BYTES,
        _ if stats.entropy || soft_cap.is_some() => COPIED_BYTES,
        _ => i64::MAX,
    };
    let block_rows = (block_bytes / (vocab * logits.kind().elt_size_in_bytes() as i64)).clamp(1, rows);
    let mut blocks = Vec::new();
    for start in (0..rows).step_by(block_rows as usize) {
        let len = block_rows.min(rows - start);
        blocks.push(block(logits.narrow(0, start, len), &targets.narrow(0, start, len), soft_cap, stats).doing(doing)?);
    }
    Rows::join(&blocks)
}

impl Rows {
    /// Concatenates the rows of all parts.
    pub(crate) fn join(parts: &[Self]) -> Result<Self> {
        let cat = |of: fn(&Self) -> Option<&Tensor>| -> Result<Option<Tensor>> {
            let column: Option<Vec<&Tensor>> = parts.iter().map(of).collect();
            column.map(|column| Tensor::f_cat(&column, 0).doing("joining log-probs")).transpose()
        };
        let (token_logps, lse): (Vec<_>, Vec<_>) = parts.iter().map(|part| (&part.token_logps, &part.lse)).unzip();
        Ok(Self {
            token_logps: Tensor::f_cat(&token_logps, 0).doing("joining log-probs")?,
            lse: Tensor::f_cat(&lse, 0).doing("joining normalisers")?,
            target_slope: cat(|part| part.target_slope.as_ref())?,
            mean_logit: cat(|part| part.mean_logit.as_ref())?,
            entropy: cat(|part| part.entropy.as_ref())?,
            top1: cat(|part| part.top1.as_ref())?,
            log_sum_sq_probs: cat(|part| part.log_sum_sq_probs.as_ref())?,
        })
    }
}

fn block(
    mut logits: Tensor,
    targets: &Tensor,
    soft_cap: Option<f64>,
    stats: TokenStats,
) -> std::result::Result<Rows, tch::TchError> {
    if let Some(cap) = soft_cap {
        let _ = logits.f_div_scalar_(cap)?.f_tanh_()?.f_mul_scalar_(cap)?;
    }
    let target = logits.f_gather(1, &targets.unsqueeze(1), false)?.squeeze_dim(1);
    let max = logits.f_amax(1, false)?;
    let mean_logit =
        stats.mean_logit.then(|| logits.f_mean_dim([1i64].as_slice(), false, logits.kind())).transpose()?;
    let kept = (stats.entropy || soft_cap.is_some()).then(|| logits.copy());
    let probs = logits.f_internal_softmax_out(&logits, 1, false)?;
    // The largest probability is one over the sum of exponentials, so it never underflows.
    let lse = &max - probs.f_amax(1, false)?.log();
    let log_sum_sq_probs = stats
        .log_sum_sq_probs
        .then(|| probs.f_norm_scalaropt_dim(2.0, [1i64].as_slice(), false).map(|norm| norm.log() * 2.0))
        .transpose()?;
    let entropy = match &kept {
        Some(kept) if stats.entropy => {
            let dot = probs.unsqueeze(1).f_bmm(&kept.unsqueeze(2))?;
            Some(&lse - dot.flatten(0, -1))
        }
        _ => None,
    };
    let slope = |capped: &Tensor, cap: f64| (capped / cap).square().neg() + 1.0;
    if let (Some(cap), Some(kept)) = (soft_cap, &kept) {
        let _ = logits.f_mul_(&slope(kept, cap))?;
    }
    Ok(Rows {
        token_logps: &target - &lse,
        top1: stats.top1.then(|| target.ge_tensor(&max).to_kind(Kind::Bool)),
        target_slope: soft_cap.map(|cap| slope(&target, cap)),
        lse,
        mean_logit,
        entropy,
        log_sum_sq_probs,
    })
}
