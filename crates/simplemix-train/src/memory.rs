//! How much memory a run needs: before, by reckoning, and after, by measuring.

/// Largest resident size of this process in bytes; none where the system does not tell.
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// libtorch's libraries and this program's, as far as they are read into memory on a CPU.
pub(crate) const PROGRAM_BYTES: u64 = 130 << 20;

/// Bytes that a run is expected to need at its peak, on a CPU in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Libraries.
    pub program: u64,
    /// The policy; the reference is the policy before training.
    pub weights: u64,
    /// One for each weight.
    pub gradients: u64,
    /// AdamW's two moments.
    pub optimizer: u64,
    /// Kept for the backward pass of the largest micro-batch.
    pub activations: u64,
    /// Logits held at a time.
    pub logits: u64,
    /// Tokens of the largest micro-batch.
    pub micro_batch_tokens: usize,
}

impl MemoryEstimate {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.program + self.weights + self.gradients + self.optimizer + self.activations + self.logits
    }
}
