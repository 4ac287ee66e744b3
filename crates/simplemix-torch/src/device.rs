//! GPUs: which there are, their memory, waiting for them, copies to and from them.

use tch::{Cuda, Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::{calls, native};

/// Name in traces of a copy for which the host waits.
pub(crate) const BLOCKING: &str = "simplemix::blocking_copy";

/// Name in traces of a copy from the host, for which it does not wait.
pub(crate) const COPY: &str = "simplemix::copy_to_device";

/// Number of GPUs that libtorch can use.
pub fn count() -> usize {
    if native::has_accelerator() { usize::try_from(Cuda::device_count()).unwrap_or(0) } else { 0 }
}

/// Number of a GPU among its kind; none for the CPU.
pub(crate) fn index(device: Device) -> Option<i32> {
    match device {
        Device::Cuda(index) => i32::try_from(index).ok(),
        _ => None,
    }
}

/// Makes `device` the one that new streams and events belong to on this thread. Nothing happens for the CPU.
///
/// # Errors
/// [`Error::Torch`] for a device that is not there.
pub fn select(device: Device) -> Result<()> {
    index(device).map_or(Ok(()), native::select_device)
}

/// Waits until `device` has done all work that was given to it.
///
/// # Errors
/// [`Error::Torch`] for a device that is not there, or an error of its earlier work.
pub fn synchronize(device: Device) -> Result<()> {
    index(device).map_or(Ok(()), native::synchronize)
}

/// Memory of a device, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Held by tensors.
    pub allocated: u64,
    /// Most that tensors have held since the start or [`reset_peak`].
    pub peak_allocated: u64,
    /// Taken from the device, held by tensors or kept for later ones.
    pub reserved: u64,
    /// Most that was taken since the start or [`reset_peak`].
    pub peak_reserved: u64,
    /// Free on the device, for all processes.
    pub free: u64,
    /// Size of the device's memory.
    pub total: u64,
}

/// Memory of `device`; none for the CPU.
///
/// # Errors
/// [`Error::Torch`] for a device that is not there.
pub fn memory(device: Device) -> Result<Option<Memory>> {
    let Some(index) = index(device) else { return Ok(None) };
    let [allocated, peak_allocated, reserved, peak_reserved, free, total] =
        native::memory(index)?.map(|bytes| u64::try_from(bytes).unwrap_or(0));
    Ok(Some(Memory { allocated, peak_allocated, reserved, peak_reserved, free, total }))
}

/// Starts the peaks of [`memory`] again.
///
/// # Errors
/// [`Error::Torch`] for a device that is not there.
pub fn reset_peak(device: Device) -> Result<()> {
    index(device).map_or(Ok(()), native::reset_peak)
}

/// Gives memory that no tensor holds back to the devices, and with glibc memory of the CPU to the system: what is freed between
/// blocks that stay would be kept by the process otherwise.
///
/// # Errors
/// [`Error::Torch`] for an error of earlier work.
pub fn empty_cache() -> Result<()> {
    native::trim_heap();
    if native::has_accelerator() { native::empty_cache() } else { Ok(()) }
}

/// A point in the work of a device.
#[derive(Debug)]
pub struct Event(Option<native::Event>);

impl Event {
    /// Marks the work given to `device` so far; on the CPU, whose work is done when a call returns, nothing.
    ///
    /// # Errors
    /// [`Error::Torch`] for a device that is not there.
    pub fn record(device: Device) -> Result<Self> {
        index(device).map(native::Event::record).transpose().map(Self)
    }

    /// Waits for the work before the event.
    ///
    /// # Errors
    /// [`Error::Torch`] for an error of that work.
    pub fn wait(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), native::Event::synchronize)
    }

    /// Milliseconds of the device between this event and a later one, for which the host waits; none on the CPU.
    ///
    /// # Errors
    /// [`Error::Torch`] for events of several devices.
    pub fn milliseconds_to(&self, end: &Self) -> Result<Option<f64>> {
        self.0.as_ref().zip(end.0.as_ref()).map(|(from, to)| from.milliseconds_to(to)).transpose()
    }
}

/// Moves a tensor of the host to `device` without waiting: through pinned memory, in order with the device's work.
///
/// # Errors
/// [`Error::Argument`] for a tensor of a device, [`Error::Torch`] where memory does not suffice.
pub fn to_device(host: &Tensor, device: Device) -> Result<Tensor> {
    if host.device() != Device::Cpu {
        return Err(Error::argument("host", format!("on {:?}", host.device()), "a tensor of the host"));
    }
    let mut moved = host.shallow_clone();
    move_together(&mut [&mut moved], device)?;
    Ok(moved)
}

/// Moves tensors of the host to `device` without waiting, all in one copy: through one pinned buffer, in order with the device's
/// work.
///
/// # Errors
/// [`Error::Argument`] for a tensor of a device, [`Error::Torch`] where memory does not suffice.
pub fn move_together(tensors: &mut [&mut Tensor], device: Device) -> Result<()> {
    if let Some(other) = tensors.iter().find(|tensor| tensor.device() != Device::Cpu) {
        return Err(Error::argument("host", format!("on {:?}", other.device()), "a tensor of the host"));
    }
    if tensors.is_empty() {
        return Ok(());
    }
    calls::named(COPY, || match device {
        Device::Cpu => Ok(()),
        device => {
            let _guard = tch::no_grad_guard();
            let pinned = joined(tensors)?.f_pin_memory(device)?;
            split(&pinned.f_to_device_(device, Kind::Uint8, true, false)?, tensors)
        }
    })
}

/// Alignment of each tensor in a buffer of several, in bytes.
const ALIGNMENT: usize = 16;

/// The bytes of tensors of the host, one after another.
pub(crate) fn joined(tensors: &[&mut Tensor]) -> Result<Tensor> {
    let mut parts = Vec::with_capacity(2 * tensors.len());
    for tensor in tensors {
        let bytes = tensor.contiguous().f_view([-1])?.f_view_dtype(Kind::Uint8)?;
        let rest = bytes.numel().next_multiple_of(ALIGNMENT) - bytes.numel();
        parts.extend([bytes, Tensor::zeros([rest as i64], (Kind::Uint8, Device::Cpu))]);
    }
    Ok(Tensor::f_cat(&parts, 0)?)
}

/// Replaces each tensor by its part of a buffer that [`joined`] made.
pub(crate) fn split(buffer: &Tensor, tensors: &mut [&mut Tensor]) -> Result<()> {
    let mut at = 0;
    for tensor in tensors {
        let bytes = tensor.numel() * tensor.kind().elt_size_in_bytes();
        let part = buffer.f_narrow(0, at as i64, bytes as i64)?.f_view_dtype(tensor.kind())?;
        **tensor = part.f_view(&tensor.size()[..])?;
        at += bytes.next_multiple_of(ALIGNMENT);
    }
    Ok(())
}

/// Copies of `tensors` on the host as f64, one after another; the host waits once for all.
///
/// # Errors
/// [`Error::Torch`] where memory does not suffice or earlier work on the device failed.
pub fn read_all(tensors: &[&Tensor]) -> Result<Vec<Vec<f64>>> {
    let _guard = tch::no_grad_guard();
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let flat: Vec<Tensor> = tensors.iter().map(|t| t.detach().flatten(0, -1).to_kind(Kind::Double)).collect();
    let joined = Tensor::f_cat(&flat, 0)?;
    let host = calls::named(BLOCKING, || joined.f_to_device(Device::Cpu))?.contiguous();
    let mut values = vec![0.0; host.numel()];
    host.f_copy_data(&mut values, host.numel())?;
    let mut rest = values.into_iter();
    Ok(tensors.iter().map(|tensor| rest.by_ref().take(tensor.numel()).collect()).collect())
}
