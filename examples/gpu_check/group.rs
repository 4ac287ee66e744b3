//! A group of this process alone, so that NCCL is loaded, connected and run on one GPU: Gloo on a CPU.

use anyhow::Result;
use simplemix::tch::{Kind, Tensor};
use simplemix::torch::group::{Group, GroupOptions, StoreKeeper};

use crate::Setting;
use crate::numbers::{random, relative};
use crate::report::{Found, Report};

/// Numbers of a tensor: 25 MB in f32, as a bucket of gradients.
const NUMBERS: i64 = 25 << 18;

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    for kind in [Kind::Float, Kind::BFloat16] {
        report.check("group of one", &format!("{NUMBERS} numbers"), kind, || alone(setting, kind))?;
    }
    Ok(())
}

/// Every collective of one process leaves the numbers as they are.
fn alone(setting: &Setting, kind: Kind) -> Result<Found> {
    let keeper = StoreKeeper::open()?;
    let mut options = GroupOptions::for_device(setting.device);
    options.interface = Some("lo".to_owned());
    let group = Group::open(&keeper.place(0, 1), setting.device, &options)?;
    let given = random(&[NUMBERS], kind, setting.device, 1);
    let fresh = || Tensor::zeros([NUMBERS], (kind, setting.device));
    let (summed, [scattered, gathered]) = (given.copy(), [fresh(), fresh()]);
    let sent = given.copy();
    group.all_reduce(&summed, "adding up")?.wait()?;
    group.reduce_scatter(&scattered, &given, "adding up a part")?.wait()?;
    group.all_gather(&gathered, &given, "gathering")?.wait()?;
    group.broadcast(&sent, 0, "sending")?.wait()?;
    group.barrier("waiting")?;
    group.agree("check", "yes")?;
    let errors = [summed, scattered, gathered, sent].map(|found| relative(&found, &given));
    let backend = format!("{:?}", group.backend()).to_lowercase();
    let traffic = group.traffic()?;
    group.leave()?;
    Ok(Found::within(0.0, errors).note("backend", backend).note("calls", traffic.calls))
}
