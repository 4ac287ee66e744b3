//! Short causal convolutions over packed segments: each number of a token is mixed with the same number of a few tokens before it.
//!
//! A sequence starts with zeros before it, and a continuation sees its parent's last tokens.
//! Letters: T tokens, C numbers of a token, B rows, L inputs laid out with those before each segment.

use tch::{Kind, TchError, Tensor};

use crate::error::{Doing, Result};
use crate::packed::{Packed, Segment};

/// Input of a layer's convolution.
pub(crate) struct Window<'a> {
    /// `[T, C]`.
    pub(crate) x: Tensor,
    /// `[C, 1, kernel]`.
    pub(crate) weight: &'a Tensor,
    /// `[C]`.
    pub(crate) bias: Option<&'a Tensor>,
}

/// Places of a pass's tokens among the convolution's inputs and outputs.
#[derive(Debug)]
pub(crate) struct ConvolutionPlan {
    /// Row of each input, T for zeros, `[L]`.
    inputs: Tensor,
    /// Output of each token, `[T]`.
    outputs: Tensor,
}

impl ConvolutionPlan {
    /// The plan of a pass, whose [`ConvolutionPlan::tensors_mut`] are still to be moved to the device. The convolution sees `before`
    /// tokens before a token's own.
    pub(crate) fn new(packed: &Packed, before: usize) -> Self {
        let (inputs, starts) = inputs(packed.segments(), packed.len(), before);
        let outputs = packed.segments().iter().zip(starts).flat_map(|(segment, start)| start..start + segment.len);
        let outputs: Vec<i64> = outputs.map(|place| place as i64).collect();
        Self { inputs: Tensor::from_slice(&inputs), outputs: Tensor::from_slice(&outputs) }
    }

    /// Tensors that are on the host still.
    pub(crate) fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        vec![&mut self.inputs, &mut self.outputs]
    }

    /// Mixed numbers `[T, C]`.
    pub(crate) fn mix(&self, Window { x, weight, bias }: &Window<'_>) -> Result<Tensor> {
        let mixed = || convolved(x, &self.inputs, weight, *bias)?.f_index_select(0, &self.outputs);
        mixed().doing("a short convolution")
    }
}

/// Outputs of the convolution over the rows `inputs` of `x` `[T, C]`, T for zeros.
pub(crate) fn convolved(
    x: &Tensor,
    inputs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> std::result::Result<Tensor, TchError> {
    let laid = x.f_constant_pad_nd([0, 0, 0, 1])?.f_index_select(0, inputs)?; // a row of zeros at the end
    let width = laid.size()[1];
    let mixed = laid.f_tr()?.f_unsqueeze(0)?.f_conv1d(weight, bias, [1i64], [0i64], [1i64], width)?;
    mixed.f_squeeze_dim(0)?.f_tr()
}

/// The newest `before` rows of a segment of `x` `[T, C]`, zeros before its first, `[C, before]`.
pub(crate) fn newest(x: &Tensor, segment: &Segment, before: i64) -> std::result::Result<Tensor, TchError> {
    let count = (segment.len as i64).min(before);
    let rows = x.f_narrow(0, (segment.start + segment.len) as i64 - count, count)?;
    rows.f_tr()?.f_constant_pad_nd([before - count, 0])?.f_contiguous()
}

/// Output of the convolution for one new token of each row, `[B, C]`, f32; `recent` `[B, C, kernel - 1]` then has it as its newest. A row's
/// numbers do not depend on other rows.
pub(crate) fn step(recent: &mut Tensor, window: &Window<'_>) -> std::result::Result<Tensor, TchError> {
    let Window { x, weight, bias } = window;
    let seen = Tensor::f_cat(&[&*recent, &x.f_unsqueeze(2)?], 2)?; // [B, C, kernel]
    let kernel = seen.size()[2];
    *recent = seen.f_narrow(2, 1, kernel - 1)?.f_contiguous()?;
    let mut sum = match bias {
        Some(bias) => bias.f_to_kind(Kind::Float)?.f_expand(&x.size()[..], false)?,
        None => Tensor::f_zeros(&x.size()[..], (Kind::Float, x.device()))?,
    };
    for tap in 0..kernel {
        let weight = weight.f_select(2, tap)?.f_squeeze_dim(1)?.f_to_kind(Kind::Float)?;
        sum = sum.f_addcmul(&seen.f_select(2, tap)?.f_to_kind(Kind::Float)?, &weight)?;
    }
    Ok(sum)
}

/// Rows of the convolution's inputs, where `none` is a row of zeros, and the place of each segment's first output.
pub(crate) fn inputs(segments: &[Segment], none: usize, before: usize) -> (Vec<i64>, Vec<usize>) {
    let (mut inputs, mut starts) = (Vec::new(), Vec::with_capacity(segments.len()));
    for segment in segments {
        starts.push(inputs.len());
        if segment.len == 0 {
            continue;
        }
        let parent = segment.parent.map_or(0..0, |parent| {
            let Segment { start, len, .. } = segments[parent];
            start + len.saturating_sub(before)..start + len
        });
        inputs.extend(std::iter::repeat_n(none as i64, before - parent.len()));
        inputs.extend(parent.chain(segment.start..segment.start + segment.len).map(|row| row as i64));
    }
    (inputs, starts)
}
