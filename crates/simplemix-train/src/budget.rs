//! Tokens and logits in memory at a time, where the settings leave them to the device.
//!
//! A pass over few tokens leaves a GPU idle while its kernels are launched, so that as many are taken there as fit beside
//! what the run holds throughout. On a CPU, more tokens than these make no pass faster. Results do not depend on either.

use simplemix_settings::OrAuto;
use simplemix_torch::device;
use tch::Device;

use crate::error::{Error, Result};

/// Tokens of a training pass on a CPU.
pub(crate) const CPU_TOKENS: usize = 1024;

/// Tokens of a pass without gradients on a CPU.
const CPU_SCORING_TOKENS: usize = 2048;

/// Bytes of logits on a CPU.
pub(crate) const CPU_LOGITS: usize = 256 << 20;

/// Tokens of a training pass on a GPU, the most that fit. Launching the kernels of a pass takes some 20 ms for 28 layers, a
/// pass over 16,384 tokens of a model of 0.5e9 weights some 100 ms (an estimate for an H100).
const GPU_TOKENS: [usize; 5] = [16_384, 8192, 4096, 2048, 1024];

/// Bytes of logits on a GPU: 3,500 rows of a vocabulary of 152k in f32, so that the head's products fill it.
const GPU_LOGITS: u64 = 2 << 30;

/// Limits of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tokens of a forward pass.
    pub micro_batch_tokens: usize,
    /// Bytes of logits in memory.
    pub logits_bytes: usize,
}

/// Limits of passes without gradients on `device`.
///
/// # Errors
/// Failures of the device.
pub fn scoring_budget(micro_batch_tokens: OrAuto<usize>, device: Device) -> Result<Budget> {
    let most = if device.is_cuda() { GPU_TOKENS[0] } else { CPU_SCORING_TOKENS };
    let logits_bytes = logits_bytes(OrAuto::Auto, device_bytes(device, None)?);
    Ok(Budget { micro_batch_tokens: micro_batch_tokens.or(most), logits_bytes })
}

/// Memory of a device that this process has or could have, in bytes; none on a CPU. A `planned` number of GB stands in for that of a
/// GPU.
pub(crate) fn device_bytes(device: Device, planned: Option<f64>) -> Result<Option<u64>> {
    match planned {
        Some(gigabytes) if device.is_cuda() => Ok(Some((gigabytes * 1e9) as u64)),
        Some(gigabytes) => {
            Err(Error::setting("memory.device_gb", gigabytes, "no memory of a GPU for a run on the CPU"))
        }
        None => Ok(device::memory(device)?.map(|memory| memory.free + memory.reserved)),
    }
}

/// The most bytes of logits, on a GPU of which this process can have `device_bytes`.
pub(crate) fn logits_bytes(setting: OrAuto<usize>, device_bytes: Option<u64>) -> usize {
    setting.or(device_bytes.map_or(CPU_LOGITS, |bytes| GPU_LOGITS.min(bytes / 16).max(1) as usize))
}

/// The most tokens of a training pass, on a GPU that has `left` bytes for activations and what is short-lived.
/// `activation_bytes` says what a number of tokens takes; it gets half.
pub(crate) fn training_tokens(
    setting: OrAuto<usize>,
    left: Option<u64>,
    activation_bytes: impl Fn(usize) -> u64,
) -> usize {
    let fits = |left: u64| {
        let found = GPU_TOKENS.into_iter().find(|tokens| activation_bytes(*tokens) <= left / 2);
        found.unwrap_or(GPU_TOKENS[GPU_TOKENS.len() - 1])
    };
    setting.or(left.map_or(CPU_TOKENS, fits))
}

/// The most tokens of a training pass that the device could be given; those of the settings if they say so.
pub fn most_training_tokens(setting: OrAuto<usize>, device: Device) -> usize {
    setting.or(if device.is_cuda() { GPU_TOKENS[0] } else { CPU_TOKENS })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    /// Bytes of activations for Llama-3-8B in bf16: 32 layers of 4096 wide, some 8 MB a token.
    fn large(tokens: usize) -> u64 {
        8_000_000 * tokens as u64
    }

    #[test]
    fn a_cpu_has_the_numbers_that_it_had() {
        assert_eq!(training_tokens(OrAuto::Auto, None, large), 1024);
        assert_eq!(logits_bytes(OrAuto::Auto, None), 256 << 20);
        let expected = Budget { micro_batch_tokens: 2048, logits_bytes: 256 << 20 };
        assert_eq!(scoring_budget(OrAuto::Auto, Device::Cpu).unwrap(), expected);
        assert_eq!(scoring_budget(OrAuto::Value(7), Device::Cpu).unwrap().micro_batch_tokens, 7);
        assert_eq!(most_training_tokens(OrAuto::Auto, Device::Cpu), 1024);
    }

    #[test]
    fn a_gpu_takes_as_many_tokens_as_fit_half_of_what_is_left() {
        let tokens = |left| training_tokens(OrAuto::Auto, Some(left), large);
        // 16,384 tokens take 131 GB, 4,096 tokens 33 GB.
        assert_eq!([263 * GB, 262 * GB, 66 * GB, 65 * GB, GB, 0].map(tokens), [16_384, 8192, 4096, 2048, 1024, 1024]);
        assert_eq!(training_tokens(OrAuto::Value(77), Some(0), large), 77);
        assert_eq!(most_training_tokens(OrAuto::Auto, Device::Cuda(1)), 16_384);
    }

    #[test]
    fn logits_have_a_sixteenth_of_a_small_gpu() {
        assert_eq!(logits_bytes(OrAuto::Auto, Some(80 << 30)), 2 << 30);
        assert_eq!(logits_bytes(OrAuto::Auto, Some(24 << 30)), 3 << 29);
        assert_eq!(logits_bytes(OrAuto::Value(5), Some(24 << 30)), 5);
    }
}
