//! Device and element type of models, chosen in one place.

use simplemix_settings::choice;
use simplemix_torch::AttentionKernels;
use tch::{Device, Kind};

/// Device that models run on unless the caller names another one: the first GPU that libtorch can use, else the CPU.
///
/// On a GPU, cuDNN's attention is switched off for the process: it makes a plan for every pair of lengths that is new, which
/// takes longer than the attention of a batch. `TORCH_CUDNN_SDPA_DEPRIORITIZED` in the environment leaves libtorch's choice.
pub fn default_device() -> Device {
    let device = Device::cuda_if_available();
    if device.is_cuda() && std::env::var_os("TORCH_CUDNN_SDPA_DEPRIORITIZED").is_none() {
        AttentionKernels { cudnn: false, ..AttentionKernels::get() }.set();
    }
    device
}

choice! {
    /// Element type of a model's weights; names are those of transformers.
    ///
    /// ```
    /// use simplemix_model::Dtype;
    /// use tch::{Device, Kind};
    /// assert_eq!(Dtype::Auto.kind(Device::Cpu), Kind::Float);
    /// assert_eq!(Dtype::Auto.kind(Device::Cuda(0)), Kind::BFloat16);
    /// ```
    pub enum Dtype {
        /// bfloat16 on a GPU, float32 on a CPU.
        Auto = "auto";
        /// float32.
        Float32 = "float32";
        /// bfloat16; the optimiser keeps copies in float32. Slow on CPUs without bfloat16 matrix units.
        Bfloat16 = "bfloat16";
    }
}

impl Dtype {
    /// Element type on `device`.
    pub fn kind(self, device: Device) -> Kind {
        match self {
            Self::Auto if device.is_cuda() => Kind::BFloat16,
            Self::Auto | Self::Float32 => Kind::Float,
            Self::Bfloat16 => Kind::BFloat16,
        }
    }
}
