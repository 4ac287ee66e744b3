//! The device that models run on, as settings and flags name it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use simplemix_settings::Setting;
use tch::Device;

use crate::attention::AttentionKernels;
use crate::device::select;
use crate::error::{Error, Result};
use crate::gpus::Gpus;

/// A device by its name: `auto`, `cpu`, `cuda` or `cuda:1`.
///
/// `auto` is the first GPU that libtorch can use, else the CPU. A machine with an NVIDIA GPU that libtorch cannot use has no
/// device by `auto`, so that nobody trains on its CPU unawares.
///
/// ```
/// use simplemix_torch::DeviceChoice;
/// assert_eq!("cuda:1".parse::<DeviceChoice>()?, DeviceChoice::Cuda(1));
/// assert_eq!("cpu".parse::<DeviceChoice>()?.open()?, tch::Device::Cpu);
/// # Ok::<(), simplemix_torch::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first GPU, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

const EXPECTED: &str = "`auto`, `cpu`, `cuda` or `cuda:N`";

impl DeviceChoice {
    /// The device, made the current one of this thread.
    ///
    /// On a GPU, cuDNN's attention is switched off for the process: it makes a plan for every pair of lengths that is new, which
    /// takes longer than the attention of a batch. `TORCH_CUDNN_SDPA_DEPRIORITIZED` in the environment leaves libtorch's choice.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no such device.
    pub fn open(self) -> Result<Device> {
        let device = match self {
            Self::Cpu => Device::Cpu,
            _ => self.among(&Gpus::here())?,
        };
        select(device)?;
        if device.is_cuda() && std::env::var_os("TORCH_CUDNN_SDPA_DEPRIORITIZED").is_none() {
            AttentionKernels { cudnn: false, ..AttentionKernels::get() }.set();
        }
        Ok(device)
    }

    /// The device on a machine with these GPUs.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no such device.
    pub fn among(self, gpus: &Gpus) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto if gpus.usable > 0 => Ok(Device::Cuda(0)),
            Self::Auto if gpus.sign.is_none() || gpus.are_hidden() => Ok(Device::Cpu),
            Self::Auto => {
                let (reason, advice) = gpus.why_none();
                let found = format!("but this machine has an NVIDIA GPU that libtorch cannot use: {reason}");
                self.refuse(found, format!("{advice}, or choose `--device cpu` to run on the CPU on purpose"))
            }
            Self::Cuda(number) if number < gpus.usable => Ok(Device::Cuda(number)),
            Self::Cuda(_) if gpus.usable == 0 => {
                let (reason, advice) = gpus.why_none();
                self.refuse(
                    format!("but libtorch can use no GPU: {reason}"),
                    format!("{advice}, or choose `--device cpu`"),
                )
            }
            Self::Cuda(_) => {
                let names: Vec<String> = (0..gpus.usable).map(|number| format!("`cuda:{number}`")).collect();
                let found = match gpus.usable {
                    1 => "but libtorch can use 1 GPU".to_owned(),
                    count => format!("but libtorch can use {count} GPUs"),
                };
                self.refuse(found, format!("expected {}, `cpu` or `auto`", names.join(", ")))
            }
        }
    }

    fn refuse(self, found: String, advice: String) -> Result<Device> {
        Err(Error::Device { asked: self, found, advice })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(number).map(Self::Cuda),
        }
        .ok_or_else(|| Error::argument("device", format!("`{text}`"), EXPECTED))
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::custom(format!("`{text}` is no device, expected {EXPECTED}")))
    }
}

impl Setting for DeviceChoice {
    fn kind() -> String {
        EXPECTED.to_owned()
    }

    fn words() -> Option<&'static str> {
        Some("auto|cpu|cuda|cuda:N")
    }
}

/// The name of a device as settings have it: `cpu`, `cuda:0`.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(number) => format!("cuda:{number}"),
        Device::Mps => "mps".to_owned(),
        Device::Vulkan => "vulkan".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(choice: DeviceChoice, gpus: &Gpus) -> String {
        choice.among(gpus).unwrap_err().to_string()
    }

    #[test]
    fn names_are_read_and_written() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:11", DeviceChoice::Cuda(11)),
        ] {
            assert_eq!((text.parse::<DeviceChoice>().unwrap(), choice.to_string().as_str()), (choice, text));
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        for text in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda:99999999999999999999999", "mps"] {
            let error = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert_eq!(error, format!("`device` is `{text}`, expected `auto`, `cpu`, `cuda` or `cuda:N`"));
        }
    }

    #[test]
    fn auto_is_the_first_gpu_else_the_cpu() {
        assert_eq!(DeviceChoice::Auto.among(&Gpus::default()).unwrap(), Device::Cpu);
        let two = Gpus { usable: 2, sign: Some("/dev/nvidia0".into()), ..Gpus::default() };
        assert_eq!(DeviceChoice::Auto.among(&two).unwrap(), Device::Cuda(0));
        assert_eq!(DeviceChoice::Cpu.among(&two).unwrap(), Device::Cpu);
        assert_eq!(DeviceChoice::Cuda(1).among(&two).unwrap(), Device::Cuda(1));
        let expected =
            "`device` is `cuda:2`, but libtorch can use 2 GPUs; expected `cuda:0`, `cuda:1`, `cpu` or `auto`";
        assert_eq!(said(DeviceChoice::Cuda(2), &two), expected);
        let one = Gpus { usable: 1, ..two };
        assert!(said(DeviceChoice::Cuda(1), &one).contains("can use 1 GPU; expected `cuda:0`, `cpu` or"));
    }

    #[test]
    fn a_gpu_that_libtorch_cannot_use_is_not_passed_over() {
        let unused = Gpus { sign: Some("/dev/nvidia0".into()), has_device_file: true, ..Gpus::default() };
        let text = said(DeviceChoice::Auto, &unused);
        assert!(text.starts_with("`device` is `auto`, but this machine has an NVIDIA GPU that libtorch cannot use: "));
        assert!(text.contains("cargo xtask setup --cuda") && text.contains("`--device cpu`"), "{text}");
        let old = Gpus { has_cuda_part: true, driver: Some("550.54.14".to_owned()), ..unused.clone() };
        assert!(said(DeviceChoice::Auto, &old).contains("550.54.14 is too old for CUDA 13, which needs 580"));
        assert!(said(DeviceChoice::Cuda(0), &old).contains("can use no GPU: the NVIDIA driver 550.54.14"));
        assert_eq!(DeviceChoice::Cpu.among(&old).unwrap(), Device::Cpu);
        // Who hides the GPUs from CUDA has chosen the CPU.
        let hidden = Gpus { visible: Some(String::new()), ..old };
        assert_eq!(DeviceChoice::Auto.among(&hidden).unwrap(), Device::Cpu);
        assert!(said(DeviceChoice::Cuda(0), &hidden).contains("CUDA_VISIBLE_DEVICES is ``, which hides all GPUs"));
    }
}
