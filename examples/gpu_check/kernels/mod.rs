//! Operations of simplemix-torch, and the attention and products of libtorch that simplemix calls, against formulas in f64.

mod attention;
mod choices;
mod device;
mod gradients;
mod optimiser;
mod products;

use anyhow::Result;

use crate::Setting;
use crate::report::Report;

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    device::check(report, setting)?;
    gradients::check(report, setting)?;
    optimiser::check(report, setting)?;
    products::check(report, setting)?;
    attention::check(report, setting)?;
    choices::check(report, setting)
}
