//! Memory of a run: an estimate before it, and the measured peak.

use tch::Device;

/// Peak resident memory of this process in bytes, if the system reports it.
pub fn peak_bytes() -> Option<u64> {
    of_status("VmHWM:")
}

/// Resident memory of this process in bytes, if the system reports it.
fn resident_bytes() -> Option<u64> {
    of_status("VmRSS:")
}

fn of_status(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Metric of the most memory that tensors have held on a device since the run began in this process, in GB; absent on a CPU.
pub const DEVICE_PEAK: &str = "device_peak_memory_gb";

/// Memory that does not depend on the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// This process with its libraries and the pairs that it has read.
    Host,
    /// The context, kernels and workspaces of a device.
    Device,
}

/// Resident memory of this program where the system does not report it.
const PROGRAM_BYTES: u64 = 250 << 20;
/// Code of libtorch's that training runs and nothing before it does, with the threads' stacks: the peak of a run of a tiny
/// model less that of its dry run (benches/results/dry-run-memory-2026-11-30.md).
const KERNEL_BYTES: u64 = 42 << 20;
/// CUDA's context with the kernels of libtorch, cuBLAS and cuDNN that are loaded as they are used. NVIDIA gives no figure;
/// between 0.5 and 0.8 GB are seen on an H100. Not measured here.
const CONTEXT_BYTES: u64 = 650 << 20;
/// Workspaces of cuBLAS, 32 MiB on compute capability 9.0 for each thread that computes, the forward pass's and the backward
/// pass's (`getChosenWorkspaceSize` in PyTorch's aten/src/ATen/cuda/CublasHandlePool.cpp); other cards have less.
const WORKSPACE_BYTES: u64 = 2 * (32 << 20);

impl Program {
    pub(crate) fn of(device: Device) -> Self {
        if device == Device::Cpu { Self::Host } else { Self::Device }
    }

    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Host => resident_bytes().unwrap_or(PROGRAM_BYTES) + KERNEL_BYTES,
            Self::Device => CONTEXT_BYTES + WORKSPACE_BYTES,
        }
    }
}

/// Memory that an allocator holds beside tensors, in layers of activations and as a share of all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slack {
    layers: f64,
    share: f64,
    /// Free memory that the C library keeps at the end of its heap: twice the largest block that it takes from there.
    kept_free: u64,
}

/// Largest block that the C library takes from its heap (`DEFAULT_MMAP_THRESHOLD_MAX` of glibc); larger ones are given back.
const HEAP_BLOCK_BYTES: u64 = 32 << 20;

impl Slack {
    /// On a CPU, the C library's allocator as measured on models of 6, 12 and 30 layers: gradients are made among
    /// activations, and what these leave does not fit the next ones whole; the small gradients of an adapter whose activations
    /// are kept scatter most. A device's allocator keeps blocks by size, and nothing is added.
    ///
    /// `tensors` are the bytes of the model's tensors.
    pub(crate) fn of(device: Device, keeps_adapted: bool, tensors: impl Iterator<Item = u64>) -> Self {
        let largest = tensors.filter(|bytes| *bytes <= HEAP_BLOCK_BYTES).max().unwrap_or(0);
        match device {
            Device::Cpu => Self { layers: if keeps_adapted { 3.0 } else { 2.0 }, share: 0.15, kept_free: 2 * largest },
            _ => Self { layers: 0.0, share: 0.0, kept_free: 0 },
        }
    }

    /// Bytes beside `kept` bytes of activations, where a layer has `layer`.
    pub(crate) fn bytes(self, kept: u64, layer: u64) -> u64 {
        ((self.layers * layer as f64 + self.share * kept as f64) as u64).max(self.kept_free)
    }
}

/// Largest needs of the two phases of an update, beside weights, gradients and the optimiser's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    /// Forward and backward passes of the largest micro-batch: activations, and the head's logits or a layer's gradients, or
    /// the cache of HyPO's sampling if larger.
    pub passes: u64,
    /// Temporaries of the optimiser's step.
    pub update: u64,
}

/// Estimated peak memory of a process of a run, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// This program with its libraries and the pairs, or a device's context and workspaces.
    pub program: u64,
    /// Weights of the policy, and of the reference if it is a second model, or the process's part of them.
    pub weights: u64,
    /// Gradients of the trained weights, or the process's part of them.
    pub gradients: u64,
    /// AdamW's two moments, and f32 copies of weights in half precision.
    pub optimizer: u64,
    /// Weights that are gathered from other processes while a layer runs, with its gradients.
    pub gathered: u64,
    /// Needs that come and go.
    pub phases: Phases,
    /// Copies of the largest tensor while the weights are loaded, before there are gradients and an optimiser.
    pub loading: u64,
    /// Tokens of the largest micro-batch.
    pub micro_batch_tokens: usize,
}

impl MemoryEstimate {
    /// Memory that is held throughout.
    pub(crate) fn states(&self) -> u64 {
        self.weights + self.gradients + self.optimizer
    }

    /// Sum of all parts; of the two phases of an update the larger counts, and of loading and training.
    pub fn total(&self) -> u64 {
        self.program + self.weights + self.training().max(self.loading)
    }

    /// Whether loading takes more than training.
    pub fn peaks_at_loading(&self) -> bool {
        self.loading > self.training()
    }

    fn training(&self) -> u64 {
        self.gradients + self.optimizer + (self.phases.passes + self.gathered).max(self.phases.update)
    }
}
