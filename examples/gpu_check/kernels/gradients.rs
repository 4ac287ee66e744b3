//! Gradients in f32, work over many tensors, dropout by keys.

use anyhow::{Result, ensure};
use simplemix::tch::{self, Device, Kind, Tensor};
use simplemix::torch::{backward, copy_all, keyed_dropout, norm, set_gradient_kind, zero_all};

use crate::Setting;
use crate::numbers::{norm_off, random, relative, wide};
use crate::report::{Found, Report, timed};

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    let place = setting.device;
    report.check("gradients of bf16 leaves in f32", "8 of 256x256", Kind::BFloat16, || sums(place))?;
    for kind in [Kind::Float, Kind::BFloat16] {
        report.check("norm of many tensors", "40 tensors", kind, || norms(place, kind))?;
        report.check("copies with casts", "40 tensors", kind, || casts(place, kind))?;
        let shapes = "512x1024";
        report.check("dropout by keys equals the CPU's", shapes, kind, || dropout(place, kind))?;
    }
    Ok(())
}

/// Eight backward passes against the f32 sum of their own gradients.
fn sums(place: Device) -> Result<Found> {
    let w = random(&[256, 256], Kind::BFloat16, place, 1).set_requires_grad(true);
    set_gradient_kind(&w, Kind::Float)?;
    let mut sum = Tensor::zeros([256, 256], (Kind::Double, Device::Cpu));
    for part in 0..8 {
        let x = random(&[64, 256], Kind::BFloat16, place, 2 + part);
        let alone = w.detach().copy().set_requires_grad(true);
        for leaf in [&alone, &w] {
            let y = x.f_matmul(leaf)?;
            backward(&[&y], &[&y.detach()])?;
        }
        sum += wide(&alone.grad());
    }
    ensure!(w.grad().kind() == Kind::Float, "gradients are in {:?}", w.grad().kind());
    // Eight roundings of f32.
    Ok(Found::within(1e-6, [relative(&w.grad(), &sum)]))
}

/// Tensors of several shapes, matrices and vectors.
fn many(kind: Kind, place: Device) -> Vec<Tensor> {
    (0..40).map(|i| random(if i % 2 == 0 { &[33, 65] } else { &[129] }, kind, place, i)).collect()
}

fn norms(place: Device, kind: Kind) -> Result<Found> {
    let tensors = many(kind, place);
    let refs: Vec<&Tensor> = tensors.iter().collect();
    let _ = norm(&refs)?;
    let (found, ms) = timed(place, || Ok(norm(&refs)?))?;
    let wanted = tensors.iter().map(|t| wide(t).square().sum(Kind::Double).double_value(&[])).sum::<f64>().sqrt();
    Ok(Found::within(1e-5, [(found.double_value(&[]) - wanted).abs() / wanted]).note("ms_alone", ms))
}

fn casts(place: Device, kind: Kind) -> Result<Found> {
    let from = many(Kind::Float, place);
    let to: Vec<Tensor> = from.iter().map(|t| t.zeros_like().to_kind(kind)).collect();
    let (from_refs, to_refs): (Vec<&Tensor>, Vec<&Tensor>) = (from.iter().collect(), to.iter().collect());
    copy_all(&to_refs, &from_refs)?;
    let there: Vec<f64> = to.iter().zip(&from).map(|(to, from)| relative(to, &from.to_kind(kind))).collect();
    let ((), ms) = timed(place, || Ok(copy_all(&from_refs, &to_refs)?))?;
    let back: Vec<f64> = to.iter().zip(&from).map(|(to, from)| relative(from, to)).collect();
    zero_all(&to_refs)?;
    ensure!(norm(&to_refs)?.double_value(&[]) == 0.0, "not all elements are 0");
    Ok(Found::within(0.0, there.into_iter().chain(back)).note("ms_alone", ms))
}

/// The device drops the elements that the CPU drops, forward and backward.
fn dropout(place: Device, kind: Kind) -> Result<Found> {
    let keys: Vec<i32> = (0..512).map(|row| i32::wrapping_mul(row, 0x0765_4321)).collect();
    let run = |place: Device| -> Result<(Tensor, Tensor)> {
        let x = Tensor::ones([512, 1024], (kind, place)).set_requires_grad(true);
        let dropped = keyed_dropout(&x, &Tensor::from_slice(&keys).to_device(place), 77, 0.1)?;
        backward(&[&dropped], &[&Tensor::ones_like(&dropped)])?;
        Ok((dropped.detach(), x.grad()))
    };
    let (here, there) = (run(Device::Cpu)?, run(place)?);
    let zeros = |t: &Tensor| wide(t).eq(0.0);
    for (a, b) in [(&here.0, &there.0), (&here.1, &there.1), (&here.0, &here.1)] {
        ensure!(zeros(a) == zeros(b), "other elements are dropped");
    }
    let dropped = zeros(&here.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    ensure!((dropped - 0.1).abs() < 0.01, "{dropped} of the elements are dropped, not 0.1");
    let x = random(&[512, 1024], kind, place, 3);
    let on_device = Tensor::from_slice(&keys).to_device(place);
    let _ = tch::no_grad(|| keyed_dropout(&x, &on_device, 77, 0.1))?;
    let (_, ms) = timed(place, || Ok(tch::no_grad(|| keyed_dropout(&x, &on_device, 77, 0.1))?))?;
    Ok(Found::within(1e-6, [norm_off(&there.0, &here.0), norm_off(&there.1, &here.1)]).note("ms_alone", ms))
}
