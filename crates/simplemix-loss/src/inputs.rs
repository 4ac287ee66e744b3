//! Scored positions, and how to score them. Letters: N scored positions, S responses.

use std::ops::Range;

use simplemix_torch::device::move_together;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Scored positions: the token that each one predicts, and the response that the token belongs to.
///
/// They are checked here, on the host, so that a device is asked for nothing.
#[derive(Debug)]
pub struct Positions {
    targets: Tensor,
    owners: Tensor,
    /// Tokens of each response, `[S]`, Double.
    lengths: Tensor,
    counts: Vec<i64>,
    largest: i64,
    /// Owners on the host, for weights of tokens.
    order: Vec<i64>,
}

impl Positions {
    /// Positions that predict `targets` `[N]`, tokens of the responses `owners` `[N]`, counted from 0 to `responses` - 1.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths differ or there is no position, [`Error::Index`] for an owner that is no response or a
    /// token below 0, [`Error::EmptyResponse`], [`Error::Native`] where the device has no room.
    ///
    /// # Examples
    /// ```
    /// use simplemix_loss::Positions;
    /// use tch::Device;
    ///
    /// let positions = Positions::new(&[5, 7, 5], &[0, 0, 1], 2, Device::Cpu)?;
    /// assert_eq!(positions.counts(), [2, 1]);
    /// # Ok::<(), simplemix_loss::Error>(())
    /// ```
    pub fn new(targets: &[i64], owners: &[i64], responses: usize, device: Device) -> Result<Self> {
        let mut positions = Self::on_host(targets, owners, responses)?;
        move_together(&mut positions.tensors_mut(), device)?;
        Ok(positions)
    }

    /// Such positions on the host, from where [`Positions::tensors_mut`] are still to be moved to the device of the hidden states.
    ///
    /// # Errors
    /// As [`Positions::new`].
    pub fn on_host(targets: &[i64], owners: &[i64], responses: usize) -> Result<Self> {
        if targets.len() != owners.len() || targets.is_empty() {
            let (found, expected) = (format!("{} owners", owners.len()), format!("{}, and at least 1", targets.len()));
            return Err(Error::Shape { name: "owners", found, expected });
        }
        let last = responses as i64 - 1;
        if let Some(&found) = owners.iter().find(|owner| !(0..=last).contains(*owner)) {
            return Err(Error::Index { name: "owners", found, last });
        }
        if let Some(&found) = targets.iter().find(|target| **target < 0) {
            return Err(Error::Index { name: "targets", found, last: i64::MAX });
        }
        let mut counts = vec![0; responses];
        owners.iter().for_each(|&owner| counts[owner as usize] += 1);
        if let Some(response) = counts.iter().position(|count| *count == 0) {
            return Err(Error::EmptyResponse { response: response as i64, responses: responses as i64 });
        }
        Ok(Self {
            targets: Tensor::from_slice(targets),
            owners: Tensor::from_slice(owners),
            lengths: Tensor::from_slice(&counts).to_kind(Kind::Double),
            counts,
            largest: targets.iter().copied().max().unwrap_or(0),
            order: owners.to_vec(),
        })
    }

    /// Tensors that have to be on the device of the hidden states.
    pub fn tensors_mut(&mut self) -> [&mut Tensor; 3] {
        [&mut self.targets, &mut self.owners, &mut self.lengths]
    }

    /// Token that each position predicts, `[N]`, Int64.
    pub fn targets(&self) -> &Tensor {
        &self.targets
    }

    /// Response that each token belongs to, `[N]`, Int64.
    pub fn owners(&self) -> &Tensor {
        &self.owners
    }

    /// Number of responses S.
    pub fn responses(&self) -> i64 {
        self.counts.len() as i64
    }

    /// Number of tokens of each response, `[S]`.
    pub fn counts(&self) -> &[i64] {
        &self.counts
    }

    /// Number of positions N.
    pub(crate) fn rows(&self) -> i64 {
        self.order.len() as i64
    }

    /// Owners on the host.
    pub(crate) fn owner_of(&self) -> &[i64] {
        &self.order
    }

    /// Tokens of each response in `kind` on the positions' device, `[S]`.
    pub(crate) fn lengths(&self, kind: Kind) -> Tensor {
        self.lengths.to_kind(kind)
    }

    /// Checks that all targets are in a vocabulary.
    pub(crate) fn check_vocabulary(&self, size: i64) -> Result<()> {
        match self.largest {
            found if found >= size => Err(Error::Index { name: "targets", found, last: size - 1 }),
            _ => Ok(()),
        }
    }

    /// Positions `rows` of the responses `responses`, which they are all of.
    pub(crate) fn narrow(&self, rows: Range<i64>, responses: Range<i64>) -> Self {
        let part = |t: &Tensor| t.narrow(0, rows.start, rows.end - rows.start);
        let order = &self.order[rows.start as usize..rows.end as usize];
        let owners = part(&self.owners);
        Self {
            targets: part(&self.targets),
            owners: if responses.start == 0 { owners } else { owners - responses.start },
            lengths: self.lengths.narrow(0, responses.start, responses.end - responses.start),
            counts: self.counts[responses.start as usize..responses.end as usize].to_vec(),
            largest: self.largest,
            order: order.iter().map(|owner| owner - responses.start).collect(),
        }
    }
}

/// Time at which results are looked through for NaN and infinity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Checks {
    /// At once, as errors; the host waits for the device.
    #[default]
    Now,
    /// Later, by the caller, who reads results anyway. NaN goes on into gradients.
    Later,
}

/// Statistics of each token to take from its logits while they are in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenStats {
    /// Mean logit over the vocabulary.
    pub mean_logit: bool,
    /// Entropy of the next-token distribution, nats.
    pub entropy: bool,
    /// Whether the target is the most likely token (on an exact tie: one of them).
    pub top1: bool,
    /// `ln sum p^2` over the vocabulary, which WPO needs.
    pub log_sum_sq_probs: bool,
}

/// Options of scoring. A plain number of bytes converts to a budget with nothing else set.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScoreOptions<'a> {
    /// Bytes of logits held at a time, though always at least one row. `None`: on a CPU a 64th of the available memory,
    /// within 64 MiB and 1 GiB; on a GPU 1 GiB.
    pub budget: Option<usize>,
    /// Statistics of each token to report.
    pub stats: TokenStats,
    /// Factors of the tokens' log-probabilities in their response's sum, `[N]`, such as [`crate::ld_token_weights`].
    pub token_weights: Option<&'a Tensor>,
    /// Time of the checks for NaN and infinity.
    pub checks: Checks,
}

impl From<usize> for ScoreOptions<'_> {
    fn from(budget: usize) -> Self {
        Self { budget: Some(budget), ..Self::default() }
    }
}
