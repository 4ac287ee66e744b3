//! Memory figures, events, generators, copies and buffers.

use std::io::Cursor;

use anyhow::{Context, Result, ensure};
use simplemix::tch::{Device, Kind, Tensor};
use simplemix::torch::{Staging, device, generator_state, set_generator_state};

use crate::Setting;
use crate::numbers::{random, relative, values};
use crate::report::{Found, Report, timed};

const MIB: i64 = 1 << 20;

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    let place = setting.device;
    report.check("memory figures", "64 MiB", Kind::Uint8, || memory(place))?;
    report.check("events", "1024x1024 product", Kind::Float, || events(place))?;
    report.check("generator state", "1000", Kind::Float, || generator(place))?;
    report.check("copies to and from", "3 tensors", Kind::Float, || copies(place))?;
    for kind in [Kind::Float, Kind::BFloat16, Kind::Uint8] {
        report.check("staging", "1000x1003 through 1 MiB", kind, || staging(place, kind))?;
    }
    Ok(())
}

/// Figures before, with and after a block of 64 MiB.
fn memory(place: Device) -> Result<Found> {
    if place == Device::Cpu {
        ensure!(device::memory(place)?.is_none(), "a CPU has no figures");
        return Ok(Found::told());
    }
    let figures = || device::memory(place)?.context("no figures");
    device::empty_cache()?;
    device::reset_peak(place)?;
    let before = figures()?;
    let block = Tensor::f_zeros([64 * MIB], (Kind::Uint8, place))?;
    let held = figures()?;
    drop(block);
    let after = figures()?;
    device::empty_cache()?;
    let emptied = figures()?;
    let off = |a: u64, b: u64| (a as f64 - b as f64).abs();
    let errors = [
        off(held.allocated, before.allocated + 64 * MIB as u64),
        off(after.allocated, before.allocated),
        off(after.peak_allocated, held.allocated),
    ];
    ensure!(emptied.reserved + 64 * MIB as u64 <= held.reserved, "emptying the cache gave nothing back");
    ensure!(emptied.free <= emptied.total && emptied.total > 1 << 30, "{emptied:?}");
    // Blocks are rounded up.
    Ok(Found::within(2e6, errors).note("total_gb", emptied.total as f64 / 1e9))
}

fn events(place: Device) -> Result<Found> {
    let x = random(&[1024, 1024], Kind::Float, place, 1);
    let _ = x.mm(&x);
    let ((start, end), wall) = timed(place, || {
        let start = device::Event::record(place)?;
        let _ = x.mm(&x);
        let end = device::Event::record(place)?;
        end.wait()?;
        Ok((start, end))
    })?;
    match (place, start.milliseconds_to(&end)?) {
        (Device::Cpu, None) => Ok(Found::told()),
        (Device::Cpu, Some(_)) => anyhow::bail!("a CPU has no events"),
        (_, None) => anyhow::bail!("no time between events"),
        // Between nothing and what the host's clock saw.
        (_, Some(between)) => {
            ensure!(between > 0.0, "{between} ms between events");
            Ok(Found::within(wall, [between]).note("device_ms", between))
        }
    }
}

fn generator(place: Device) -> Result<Found> {
    let draw = || Tensor::f_rand([1000], (Kind::Float, place));
    let state = generator_state(place)?;
    let first = draw()?;
    let second = draw()?;
    set_generator_state(place, &state)?;
    ensure!(relative(&second, &first) > 0.0, "two draws are the same");
    Ok(Found::within(0.0, [relative(&draw()?, &first)]))
}

fn copies(place: Device) -> Result<Found> {
    let tensors = [1, 2, 3].map(|seed| random(&[seed, 100], Kind::Float, Device::Cpu, seed));
    let there = tensors.each_ref().map(|tensor| device::to_device(tensor, place));
    let there = there.into_iter().collect::<Result<Vec<_>, _>>()?;
    ensure!(there.iter().all(|tensor| tensor.device() == place), "a copy is elsewhere");
    let read = device::read_all(&there.iter().collect::<Vec<_>>())?;
    let same = tensors.iter().zip(&read).all(|(tensor, read)| values(tensor) == *read);
    ensure!(same, "other values came back");
    Ok(Found::told())
}

fn staging(place: Device, kind: Kind) -> Result<Found> {
    let size = [1000, 1003];
    let tensor = match kind {
        Kind::Uint8 => random(&size, Kind::Float, place, 4).abs().clamp_max(5.0).f_mul_scalar(50.0)?.to_kind(kind),
        _ => random(&size, kind, place, 4),
    };
    let mut staging = Staging::new(MIB as usize, place)?;
    let mut bytes = Vec::new();
    let ((), write_ms) = timed(place, || Ok(staging.write(&tensor, &mut bytes)?))?;
    let back = tensor.zeros_like();
    let ((), read_ms) = timed(place, || Ok(staging.read(&mut Cursor::new(&bytes), &back)?))?;
    if kind == Kind::Float {
        let plain: Vec<u8> = values(&tensor).iter().flat_map(|&value| (value as f32).to_ne_bytes()).collect();
        ensure!(plain == bytes, "the bytes written are not the tensor's");
    }
    Ok(Found::within(0.0, [relative(&back, &tensor)]).note("write_ms", write_ms).note("read_ms", read_ms))
}
