//! 8-bit integers with a scale for each row: the weights of LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339) as bitsandbytes stores
//! them. A number is the integer times the row's largest magnitude over 127.
//!
//! bitsandbytes also quantises activations, less the outlying ones; here they are not, so a product is that of the dequantised
//! weights.

use tch::{Kind, TchError, Tensor};

use super::{CHUNK, on_host, tensor_bytes, unfit};
use crate::error::{Doing, Result};

/// 1 / 127 as bitsandbytes multiplies with it (`int8_vectorwise_dequant`).
const STEP: f64 = 7.874_015_718_698_502e-3;

/// A matrix of 8-bit rows.
#[derive(Debug)]
pub(crate) struct Rows {
    /// `[O, I]`, i8.
    codes: Tensor,
    /// Largest magnitude of each row, `[O]`, f32.
    scales: Tensor,
}

impl Rows {
    /// Quantises `weight` `[O, I]` as bitsandbytes' `Int8Params` does, which rounds to half precision first.
    pub(super) fn quantise(weight: &Tensor) -> Result<Self, TchError> {
        let (rows, width) = weight.size2()?;
        let device = weight.device();
        let codes = Tensor::f_empty([rows, width], (Kind::Int8, device))?;
        let all_scales = Tensor::f_empty([rows], (Kind::Float, device))?;
        let step = (CHUNK / width.max(1)).max(1);
        let mut start = 0;
        while start < rows {
            let count = step.min(rows - start);
            let rounded = weight.f_narrow(0, start, count)?.f_to_kind(Kind::Half)?;
            let scales = rounded.f_abs()?.f_amax([1], true)?.f_to_kind(Kind::Float)?; // [count, 1]
            // A row of zeros stays one.
            let factor = scales.f_clamp_min(1e-30)?.f_reciprocal()?.f_mul_scalar(127.0)?;
            let factor = factor.f_where_self(&scales.f_gt(0.0)?, &scales)?;
            let scaled = rounded.f_to_kind(Kind::Float)?.f_mul(&factor)?.f_round()?;
            codes.f_narrow(0, start, count)?.f_copy_(&scaled)?;
            all_scales.f_narrow(0, start, count)?.f_copy_(&scales.f_view(-1)?)?;
            start += count;
        }
        Ok(Self { codes, scales: all_scales })
    }

    /// A matrix as a file has it; `name` is for errors.
    pub(super) fn of(name: &str, codes: Tensor, scales: Tensor, shape: [i64; 2]) -> Result<Self> {
        let scales = scales.f_reshape(-1).and_then(|t| t.f_to_kind(Kind::Float)).doing("reading a quantised weight")?;
        if codes.size() != shape || codes.kind() != Kind::Int8 {
            let found = format!("{:?} {:?}", codes.kind(), codes.size());
            return Err(unfit(format!("`{name}`"), found, format!("Int8 {shape:?}")));
        }
        if scales.numel() as i64 != shape[0] {
            return Err(unfit(format!("scales of `{name}`"), scales.numel().to_string(), shape[0].to_string()));
        }
        Ok(Self { codes, scales })
    }

    pub(super) fn dequantise_into(&self, out: &Tensor) -> Result<(), TchError> {
        let is_done = on_host::write_rows(&self.codes, &self.scales, STEP as f32, out);
        if is_done { Ok(()) } else { self.by_operators(out) }
    }

    /// As [`Rows::dequantise_into`], by libtorch's operators.
    fn by_operators(&self, out: &Tensor) -> Result<(), TchError> {
        let (rows, width) = self.codes.size2()?;
        let step = (CHUNK / width.max(1)).max(1);
        let mut start = 0;
        while start < rows {
            let count = step.min(rows - start);
            let scales = self.scales.f_narrow(0, start, count)?.f_unsqueeze(1)?;
            let values = self.codes.f_narrow(0, start, count)?.f_to_kind(Kind::Float)?.f_mul(&scales)?;
            out.f_narrow(0, start, count)?.f_copy_(&values.f_mul_scalar(STEP)?)?;
            start += count;
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        tensor_bytes(&[&self.codes, &self.scales])
    }

    #[cfg(test)]
    pub(super) fn parts(&self) -> (&Tensor, &Tensor) {
        (&self.codes, &self.scales)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn kernels_of_the_cpu_have_the_bits_of_operators() {
        for (rows, width) in [(1, 1), (7, 33), (300, 513)] {
            let raw = Tensor::arange(rows * width, (Kind::Float, Device::Cpu)).view([rows, width]);
            let own = Rows::quantise(&((raw * 0.37).sin() * 0.02)).unwrap();
            let [found, expected] = [(); 2].map(|()| Tensor::empty([rows, width], (Kind::Float, Device::Cpu)));
            own.dequantise_into(&found).unwrap();
            own.by_operators(&expected).unwrap();
            assert_eq!(found, expected, "{rows} x {width}");
        }
    }
}
