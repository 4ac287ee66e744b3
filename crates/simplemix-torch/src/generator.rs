//! States of libtorch's random generators.

use tch::{Device, Tensor};

use crate::device;
use crate::error::{Error, Result};
use crate::native;

/// State of the default generator of `device`, bytes on the host, as `torch.get_rng_state` and `torch.cuda.get_rng_state`.
///
/// # Errors
/// [`Error::Torch`] for a device that is not there.
pub fn generator_state(device: Device) -> Result<Tensor> {
    native::generator_state(index(device)?)
}

/// Sets the default generator of `device` to a state of [`generator_state`].
///
/// # Errors
/// [`Error::Torch`] for a device that is not there or a state of another kind of generator.
pub fn set_generator_state(device: Device, state: &Tensor) -> Result<()> {
    native::set_generator_state(index(device)?, state)
}

fn index(place: Device) -> Result<i32> {
    match place {
        Device::Cpu => Ok(-1),
        _ => device::index(place).ok_or_else(|| Error::argument("device", format!("{place:?}"), "the CPU or a GPU")),
    }
}
