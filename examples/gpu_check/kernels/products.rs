//! Products of matrices: bf16 with f32 results, f32 without TF32.

use anyhow::{Result, anyhow};
use simplemix::tch::{Device, Kind, Tensor};
use simplemix::torch::{MatmulPrecision, set_half_sums, set_matmul_precision};

use crate::Setting;
use crate::numbers::{random, relative, wide};
use crate::report::{Found, Report, timed};

/// Rows, inner length, columns.
const SIZE: [i64; 3] = [192, 1024, 320];

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    let place = setting.device;
    let shapes = format!("{}x{} {}x{}", SIZE[0], SIZE[1], SIZE[1], SIZE[2]);
    report.check("mm of f32 without TF32", &shapes, Kind::Float, || {
        set_matmul_precision(MatmulPrecision::Highest)?;
        product(place, Kind::Float, 1e-5, |a, b| Ok(a.f_mm(b)?))
    })?;
    report.check("mm of f32, TF32 allowed", &shapes, Kind::Float, || {
        set_matmul_precision(MatmulPrecision::High)?;
        let found = product(place, Kind::Float, 5e-3, |a, b| Ok(a.f_mm(b)?));
        set_matmul_precision(MatmulPrecision::Highest)?;
        found
    })?;
    report.check("mm of bf16, sums in f32", &shapes, Kind::BFloat16, || {
        set_half_sums(false)?;
        product(place, Kind::BFloat16, 8e-3, |a, b| Ok(a.f_mm(b)?))
    })?;
    if place != Device::Cpu {
        // libtorch has them for CUDA alone, and the loss head calls them there alone.
        with_f32_results(report, place, &shapes)?;
    }
    Ok(())
}

fn with_f32_results(report: &mut Report, place: Device, shapes: &str) -> Result<()> {
    let kind = Kind::BFloat16;
    report.check("mm with f32 result", shapes, kind, || {
        product(place, kind, 1e-5, |a, b| Ok(a.f_mm_dtype(b, Kind::Float)?))
    })?;
    report.check("mm into f32", shapes, kind, || {
        product(place, kind, 1e-5, |a, b| {
            let out = Tensor::f_zeros([SIZE[0], SIZE[2]], (Kind::Float, place))?;
            Ok(a.f_mm_dtype_out(&out, b, Kind::Float)?)
        })
    })?;
    report.check("addmm into its own f32", shapes, kind, || {
        product(place, kind, 1e-5, |a, b| {
            let sum = Tensor::f_zeros([SIZE[0], SIZE[2]], (Kind::Float, place))?;
            Ok(sum.f_addmm_dtype_out(&sum, a, b, Kind::Float)?)
        })
    })
}

fn product(
    place: Device,
    kind: Kind,
    bound: f64,
    multiply: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Found> {
    let (a, b) = (random(&SIZE[..2], kind, place, 1), random(&SIZE[1..], kind, place, 2));
    let _ = multiply(&a, &b)?;
    let (found, ms) = timed(place, || multiply(&a, &b))?;
    let wanted = wide(&a).f_mm(&wide(&b)).map_err(|error| anyhow!(error))?;
    Ok(Found::within(bound, [relative(&found, &wanted)]).note("ms_alone", ms))
}
