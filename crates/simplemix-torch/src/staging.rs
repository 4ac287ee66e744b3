//! Bytes of files into tensors and back, through one buffer that a device can read and write without a further copy.

use std::io::{Read, Write};

use tch::{Device, Kind, Tensor};

use crate::device::{self, Event};
use crate::error::{Error, Result};
use crate::native;

/// A buffer in host memory, pinned where `device` is a GPU, in two halves: one is filled while the other is copied.
#[derive(Debug)]
pub struct Staging {
    device: Device,
    halves: [Half; 2],
}

#[derive(Debug)]
struct Half {
    buffer: Tensor,
    /// Copy to the device that still reads the buffer.
    copied: Option<Event>,
}

impl Staging {
    /// A buffer of `bytes` in all, for tensors on `device`.
    ///
    /// # Errors
    /// [`Error::Torch`] where memory does not suffice.
    pub fn new(bytes: usize, device: Device) -> Result<Self> {
        // Every kind's elements fit whole.
        let size = i64::try_from((bytes / 2).max(16) / 16 * 16).unwrap_or(i64::MAX);
        let half = || -> Result<Half> {
            let plain = Tensor::f_zeros([size], (Kind::Uint8, Device::Cpu))?;
            let buffer = if device == Device::Cpu { plain } else { plain.f_pin_memory(device)? };
            Ok(Half { buffer, copied: None })
        };
        Ok(Self { device, halves: [half()?, half()?] })
    }

    /// Fills `tensor`, contiguous and on the buffer's device, with its bytes in native order from `reader`.
    ///
    /// The device may still be copying when this returns; its later work sees the values.
    ///
    /// # Errors
    /// [`Error::Argument`] for another device or a tensor that is not contiguous, [`Error::Io`] where `reader` fails or ends
    /// early, after which the tensor holds a part.
    pub fn read(&mut self, reader: &mut impl Read, tensor: &Tensor) -> Result<()> {
        self.check(tensor)?;
        let _guard = tch::no_grad_guard();
        let flat = tensor.detach().f_view([-1])?;
        let most = self.elements(tensor.kind());
        let all = flat.size()[0];
        for (turn, start) in (0..all).step_by(most as usize).enumerate() {
            let count = most.min(all - start);
            let half = &mut self.halves[turn % 2];
            if let Some(copied) = half.copied.take() {
                copied.wait()?;
            }
            let bytes = count as usize * tensor.kind().elt_size_in_bytes();
            reader.read_exact(&mut native::bytes_mut(&mut half.buffer)[..bytes])?;
            let part = half.buffer.narrow(0, 0, bytes as i64).f_view_dtype(tensor.kind())?;
            native::copy_all(&[&flat.narrow(0, start, count)], &[&part])?;
            half.copied = Some(Event::record(self.device)?);
        }
        Ok(())
    }

    /// Writes the bytes of `tensor`, contiguous and on the buffer's device, in native order.
    ///
    /// # Errors
    /// [`Error::Argument`] for another device or a tensor that is not contiguous, [`Error::Io`] where `writer` fails.
    pub fn write(&mut self, tensor: &Tensor, writer: &mut impl Write) -> Result<()> {
        self.check(tensor)?;
        let _guard = tch::no_grad_guard();
        let flat = tensor.detach().f_view([-1])?;
        let most = self.elements(tensor.kind());
        let all = flat.size()[0];
        let width = tensor.kind().elt_size_in_bytes();
        let parts: Vec<(i64, i64)> =
            (0..all).step_by(most as usize).map(|start| (start, most.min(all - start))).collect();
        // A part is on its way from the device while the one before is written.
        for turn in 0..=parts.len() {
            if let Some((start, count)) = parts.get(turn) {
                let half = &mut self.halves[turn % 2];
                let part = half.buffer.narrow(0, 0, count * width as i64).f_view_dtype(tensor.kind())?;
                native::copy_all(&[&part], &[&flat.narrow(0, *start, *count)])?;
                half.copied = Some(Event::record(self.device)?);
            }
            if let Some((_, count)) = turn.checked_sub(1).and_then(|before| parts.get(before)) {
                let half = &mut self.halves[(turn - 1) % 2];
                if let Some(copied) = half.copied.take() {
                    copied.wait()?;
                }
                writer.write_all(&native::bytes_mut(&mut half.buffer)[..*count as usize * width])?;
            }
        }
        Ok(())
    }

    /// Elements of a kind that fit one half.
    fn elements(&self, kind: Kind) -> i64 {
        self.halves[0].buffer.size()[0] / kind.elt_size_in_bytes() as i64
    }

    fn check(&self, tensor: &Tensor) -> Result<()> {
        if tensor.device() != self.device || !tensor.is_contiguous() {
            let found = format!("on {:?}, contiguous: {}", tensor.device(), tensor.is_contiguous());
            return Err(Error::argument("tensor", found, format!("contiguous, on {:?}", self.device)));
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Pinned memory may not go while a device reads it.
        let _ = device::synchronize(self.device);
    }
}
