//! Element type of models, which depends on the device.

use simplemix_settings::choice;
use tch::{Device, Kind};

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

    /// The type that `auto` stands for on `device`; others stay.
    #[must_use]
    pub fn resolved(self, device: Device) -> Self {
        if self.kind(device) == Kind::BFloat16 { Self::Bfloat16 } else { Self::Float32 }
    }
}
