//! Memory of a run: an estimate before it, and the measured peak.

/// Peak resident memory of this process in bytes, if the system reports it.
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Metric of the most memory that tensors have held on a device since the run began in this process, in GB; absent on a CPU.
pub const DEVICE_PEAK: &str = "device_peak_memory_gb";

/// Resident memory of libtorch's libraries and of this program on a CPU.
pub(crate) const PROGRAM_BYTES: u64 = 130 << 20;

/// Estimated peak memory of a run, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Program and libraries.
    pub program: u64,
    /// Weights of the policy, and of the reference if it is a second model.
    pub weights: u64,
    /// Gradients of the trained weights.
    pub gradients: u64,
    /// AdamW's two moments, and f32 copies of weights in half precision.
    pub optimizer: u64,
    /// Activations that the backward pass of the largest micro-batch needs, or the cache of HyPO's sampling if larger.
    pub activations: u64,
    /// Logits in memory at a time.
    pub logits: u64,
    /// Tokens of the largest micro-batch.
    pub micro_batch_tokens: usize,
}

impl MemoryEstimate {
    /// Memory that is held throughout.
    pub(crate) fn states(&self) -> u64 {
        self.weights + self.gradients + self.optimizer
    }

    /// Sum of all parts.
    pub fn total(&self) -> u64 {
        self.program + self.weights + self.gradients + self.optimizer + self.activations + self.logits
    }
}
