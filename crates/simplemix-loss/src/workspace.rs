//! Memory for one chunk of logits: the default budget, and one buffer for all chunks.

use tch::{Device, Kind, Tensor};

use crate::error::{Doing, Result};

/// Bytes of logits to hold by default: a 64th of the memory that is available to a CPU, within 64 MiB and 1 GiB; 1 GiB
/// on a GPU, whose free memory libtorch's Rust binding cannot tell.
pub(crate) fn default_budget(device: Device) -> usize {
    let (least, most) = (64 << 20, 1 << 30);
    if device != Device::Cpu {
        return most;
    }
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<usize>().ok()
    });
    available.map_or(256 << 20, |kib| (kib * 1024 / 64).clamp(least, most))
}

/// A buffer for one chunk of logits, reused from call to call.
#[derive(Debug, Default)]
pub(crate) struct Workspace(Option<Tensor>);

impl Workspace {
    /// A contiguous `[rows, vocab]` tensor with arbitrary contents.
    pub(crate) fn rows(&mut self, rows: i64, vocab: i64, options: (Kind, Device)) -> Result<Tensor> {
        let fits = |buffer: &Tensor| buffer.size()[0] >= rows * vocab && (buffer.kind(), buffer.device()) == options;
        let buffer = match self.0.take().filter(fits) {
            Some(buffer) => buffer,
            None => Tensor::f_empty([rows * vocab], options).doing("allocating logits")?,
        };
        let part = buffer.narrow(0, 0, rows * vocab).view([rows, vocab]);
        self.0 = Some(buffer);
        Ok(part)
    }
}
