//! Integers of 4 or 8 bits in groups of inputs, each group of an output with a scale and a zero point: GPTQ (Frantar et al. 2022,
//! arXiv:2210.17323) and AWQ (Lin et al. 2023, arXiv:2306.00978). A number is `(code - zero) * scale`.
//!
//! Files pack integers of 32 bits: GPTQ along the inputs from the lowest bits on, AWQ along the outputs in an order of its own. Here
//! they are packed along the inputs, two a byte or one.

use tch::{Device, Kind, TchError, Tensor};

use super::on_host::Grouped;
use super::{CHUNK, pairs_of, tensor_bytes, unfit, unpacked};
use crate::error::{Doing, Result};

/// Place of each of 8 neighbouring outputs among the nibbles of AWQ's integers, from the lowest (AutoAWQ's `AWQ_REVERSE_ORDER`).
const AWQ_ORDER: [i64; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// A matrix of groups.
#[derive(Debug)]
pub(crate) struct Groups {
    /// Two codes a byte `[O I / 2]`, or one, `[O I]`; u8.
    codes: Tensor,
    /// Values of both codes of a byte, where there are two.
    pairs: Option<Tensor>,
    /// `[O, G]`, f32.
    scales: Tensor,
    /// `[O, G]`, f32.
    zeros: Tensor,
    /// Group of each input `[I]`, where they are not in order.
    group_of: Option<Tensor>,
    shape: [i64; 2],
}

/// Parts of a matrix as a file has them, and how to read them.
pub(super) struct Parts {
    pub(super) qweight: Tensor,
    pub(super) qzeros: Tensor,
    pub(super) scales: Tensor,
    /// GPTQ's group of each input.
    pub(super) g_idx: Option<Tensor>,
    pub(super) bits: i64,
    /// Inputs of a group; those of a row if not above 0.
    pub(super) group_size: i64,
    pub(super) form: Form,
}

/// Packing of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// GPTQ; `stores_less` where zero points are stored less one.
    Gptq { stores_less: bool },
    /// AWQ's `gemm`.
    Awq,
}

impl Groups {
    /// A matrix of a file; `name` is for errors.
    pub(super) fn of(name: &str, parts: &Parts, shape: [i64; 2], device: Device) -> Result<Self> {
        let [outputs, inputs] = shape;
        let group = if parts.group_size > 0 { parts.group_size } else { inputs };
        let (each, count) = (32 / parts.bits, (inputs + group - 1) / group);
        let sized = |what: &str, tensor: &Tensor, expected: &[i64], kinds: &[Kind]| {
            if tensor.size() == expected && kinds.contains(&tensor.kind()) {
                return Ok(());
            }
            let found = format!("{:?} {:?}", tensor.kind(), tensor.size());
            Err(unfit(format!("`{name}.{what}`"), found, format!("{:?} {expected:?}", kinds[0])))
        };
        let divides = |what: &str, number: i64, by: i64| match number % by {
            0 => Ok(()),
            _ => Err(unfit(format!("{what} of `{name}`"), number.to_string(), format!("a multiple of {by}"))),
        };
        divides("outputs", outputs, each)?;
        divides("inputs", inputs, if parts.form == Form::Awq { 2 } else { each })?;
        let packed = match parts.form {
            Form::Gptq { .. } => [inputs / each, outputs],
            Form::Awq => [inputs, outputs / each],
        };
        sized("qweight", &parts.qweight, &packed, &[Kind::Int])?;
        sized("qzeros", &parts.qzeros, &[count, outputs / each], &[Kind::Int])?;
        sized("scales", &parts.scales, &[count, outputs], &[Kind::Half, Kind::BFloat16, Kind::Float])?;
        if let Some(g_idx) = &parts.g_idx {
            sized("g_idx", g_idx, &[inputs], &[Kind::Int])?;
            let found = Vec::<i64>::try_from(g_idx.to_kind(Kind::Int64)).doing("reading a quantised weight")?;
            if let Some(outside) = found.iter().find(|group| !(0..count).contains(*group)) {
                return Err(unfit(
                    format!("`{name}.g_idx`"),
                    outside.to_string(),
                    format!("groups from 0 to {}", count - 1),
                ));
            }
        }
        repacked(parts, shape, group, device).doing("reading a quantised weight")
    }

    pub(super) fn dequantise_into(&self, out: &Tensor) -> Result<(), TchError> {
        let Self { codes, pairs, scales, zeros, group_of, .. } = self;
        let grouped = Grouped { codes, pairs: pairs.as_ref(), scales, zeros, group_of: group_of.as_ref() };
        if grouped.write(out) { Ok(()) } else { self.by_operators(out) }
    }

    /// As [`Groups::dequantise_into`], by libtorch's operators.
    pub(super) fn by_operators(&self, out: &Tensor) -> Result<(), TchError> {
        let [outputs, inputs] = self.shape;
        let groups = self.scales.size2()?.1;
        let step = (CHUNK / inputs.max(1)).max(1);
        let mut start = 0;
        while start < outputs {
            let count = step.min(outputs - start);
            let values = match &self.pairs {
                Some(pairs) => unpacked(&self.codes, pairs, start * inputs / 2, count * inputs)?,
                None => self.codes.f_narrow(0, start * inputs, count * inputs)?.f_to_kind(Kind::Float)?,
            };
            let of_rows = |numbers: &Tensor| numbers.f_narrow(0, start, count);
            let (scales, zeros) = (of_rows(&self.scales)?, of_rows(&self.zeros)?);
            let (shape, scales, zeros) = match &self.group_of {
                Some(of) => (vec![count, inputs], scales.f_index_select(1, of)?, zeros.f_index_select(1, of)?),
                None => (vec![count, groups, inputs / groups], scales.f_unsqueeze(2)?, zeros.f_unsqueeze(2)?),
            };
            let values = values.f_view(&shape[..])?.f_sub(&zeros)?.f_mul(&scales)?;
            out.f_narrow(0, start, count)?.f_copy_(&values.f_view([count, inputs])?)?;
            start += count;
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        let others = [self.pairs.as_ref(), self.group_of.as_ref()].into_iter().flatten();
        let all: Vec<&Tensor> = [&self.codes, &self.scales, &self.zeros].into_iter().chain(others).collect();
        tensor_bytes(&all)
    }
}

/// The integers of `bits` in each of `packed` `[R, C]`, from the lowest: `[R, C, 32 / bits]`, u8.
fn integers(packed: &Tensor, bits: i64) -> Result<Tensor, TchError> {
    let of = |place: i64| {
        let shifted = packed.f_bitwise_right_shift_tensor_scalar(place * bits)?;
        shifted.f_bitwise_and((1 << bits) - 1)?.f_to_kind(Kind::Uint8)
    };
    let all: Vec<Tensor> = (0..32 / bits).map(of).collect::<Result<_, _>>()?;
    Tensor::f_stack(&all, 2)
}

/// As [`integers`] along the outputs, which AWQ has in another order: `[R, C * 32 / bits]`.
fn along_outputs(packed: &Tensor, bits: i64, form: Form) -> Result<Tensor, TchError> {
    let all = integers(packed, bits)?;
    let all = match form {
        Form::Awq => all.f_index_select(2, &Tensor::f_from_slice(&AWQ_ORDER)?.f_to_device(all.device())?)?,
        Form::Gptq { .. } => all,
    };
    all.f_flatten(1, 2)
}

fn repacked(parts: &Parts, shape: [i64; 2], group: i64, device: Device) -> Result<Groups, TchError> {
    let Parts { qweight, qzeros, scales, g_idx, bits, form, .. } = parts;
    let [outputs, inputs] = shape;
    let codes = match form {
        // [I / 8, O, 8] -> [O, I / 8, 8]
        Form::Gptq { .. } => integers(qweight, *bits)?.f_transpose(0, 1)?.f_reshape([outputs, inputs])?,
        Form::Awq => along_outputs(qweight, *bits, *form)?.f_tr()?.f_contiguous()?,
    };
    let zeros = along_outputs(qzeros, *bits, *form)?.f_to_kind(Kind::Int)?;
    let zeros = match form {
        // As AutoGPTQ adds it, within the bits.
        Form::Gptq { stores_less: true } => zeros.f_add_scalar(1)?.f_bitwise_and((1 << bits) - 1)?,
        _ => zeros,
    };
    let by_output = |t: &Tensor| t.f_to_kind(Kind::Float)?.f_tr()?.f_contiguous()?.f_to_device(device);
    let (codes, pairs) = match bits {
        4 => {
            let two = codes.f_view([-1, 2])?;
            let packed =
                two.f_select(1, 0)?.f_bitwise_left_shift_tensor_scalar(4)?.f_bitwise_or_tensor(&two.f_select(1, 1)?)?;
            let values: [f32; 16] = std::array::from_fn(|code| code as f32);
            (packed, Some(pairs_of(&values, device)?))
        }
        _ => (codes.f_view(-1)?, None),
    };
    let in_order = Tensor::f_arange(inputs, (Kind::Int64, Device::Cpu))?.f_floor_divide_scalar(group)?;
    let group_of = match g_idx.as_ref().map(|t| t.f_to_kind(Kind::Int64)).transpose()? {
        Some(own) if !own.f_equal(&in_order)? => Some(own),
        // Groups of unequal sizes.
        _ if inputs % group != 0 => Some(in_order),
        _ => None,
    };
    let group_of = group_of.map(|t| t.f_to_device(device)).transpose()?;
    Ok(Groups {
        codes: codes.f_to_device(device)?,
        pairs,
        scales: by_output(scales)?,
        zeros: by_output(&zeros)?,
        group_of,
        shape,
    })
}
