//! How the choice of pairs changes the rate of convergence of DPO, on a table of twenty responses: uniform pairs converge
//! linearly, those of DPO-Mix-R and DPO-Mix-P quadratically, and drawn ones to a floor of noise. Shi, Zhou and Du 2025
//! (arXiv:2409.19605), with the rewards and settings of their script, `bandit/examples/tabular.py`.
//!
//!     cargo run --release --example bandit -- --plot bandit.svg

#![allow(clippy::print_stdout, reason = "a demo talks to its user")]

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use simplemix::eval::plot::{Panel, Series, write_svg};
use simplemix::eval::table;
use simplemix::rollout::bandit::{Bandit, BanditPoint, BanditRun, PairSampler, StepSize};

/// `torch.manual_seed(1234567); torch.randn(1, 20)` of torch 2.11 on a CPU.
const REWARDS: [f64; 20] = [
    -1.4620221853256226,
    -0.2823958694934845,
    2.4558632373809814,
    1.6109241247177124,
    -1.221372365951538,
    0.3608270585536957,
    -2.2769412994384766,
    -0.5681864023208618,
    0.44936442375183105,
    -0.6792874336242676,
    -0.013017534278333187,
    -0.2711588740348816,
    -0.0630120262503624,
    -0.047575391829013824,
    -0.19676612317562103,
    0.6181661486625671,
    -2.185447931289673,
    1.0061845779418945,
    0.06629589945077896,
    0.15915310382843018,
];
const BETA: f64 = 3.0;

/// Rates of convergence of DPO's samplers on a table
#[derive(Parser)]
struct Args {
    /// File of the figure
    #[arg(long, default_value = "bandit.svg")]
    plot: PathBuf,
    /// Pairs drawn for an update
    #[arg(long, default_value_t = 8192)]
    draws: usize,
    /// Updates with drawn pairs
    #[arg(long, default_value_t = 3000)]
    updates: usize,
    /// Random seed of the draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One way of running all samplers.
struct Setting<'a> {
    bandit: &'a Bandit,
    title: &'static str,
    updates: usize,
    step: StepSize,
    draws: Option<usize>,
    samplers: &'static [PairSampler],
    /// Updates of which the table tells.
    shown: [usize; 5],
}

fn main() -> simplemix::Result<()> {
    Ok(run(&Args::parse())?)
}

fn run(args: &Args) -> Result<()> {
    let bandit = Bandit::new(REWARDS.to_vec(), BETA)?;
    // The theorems hold for rewards from 0 to 1.
    let (least, most) = REWARDS.iter().fold((f64::MAX, f64::MIN), |(low, high), r| (low.min(*r), high.max(*r)));
    let unit = Bandit::new(REWARDS.iter().map(|r| (r - least) / (most - least)).collect(), BETA)?;
    let exact = &[PairSampler::Uniform, PairSampler::MixR, PairSampler::MixP][..];
    // DPO-Mix-P cannot be drawn by rejection without its cap.
    let drawn = &[PairSampler::Uniform, PairSampler::MixR, PairSampler::MixPCapped][..];
    let last = args.updates;
    let settings = [
        Setting {
            bandit: &unit,
            title: "Exact, rewards 0 to 1, step Z / (2 beta^2 n)",
            updates: 12,
            step: StepSize::Newton,
            draws: None,
            samplers: exact,
            shown: [1, 2, 3, 4, 8],
        },
        Setting {
            bandit: &bandit,
            title: "Exact, fixed step 10",
            updates: 100,
            step: StepSize::Fixed(10.0),
            draws: None,
            samplers: exact,
            shown: [1, 5, 10, 50, 100],
        },
        Setting {
            bandit: &bandit,
            title: "Drawn pairs, fixed step 0.05",
            updates: last,
            step: StepSize::Fixed(0.05),
            draws: Some(args.draws),
            samplers: drawn,
            shown: [last / 30, last / 10, last / 5, last / 2, last],
        },
    ];
    let mut panels = Vec::new();
    for setting in &settings {
        let runs: Vec<Vec<BanditPoint>> = setting
            .samplers
            .iter()
            .map(|&sampler| {
                let Setting { updates, step, draws, .. } = *setting;
                setting.bandit.run(&BanditRun { sampler, updates, step, draws, seed: args.seed })
            })
            .collect();
        println!("{}: mean error of a difference of rewards\n\n{}\n", setting.title, rows(setting, &runs));
        panels.push(panel(setting, &runs));
    }
    write_svg(&args.plot, &panels)?;
    println!("plot {}", args.plot.display());
    Ok(())
}

fn rows(setting: &Setting<'_>, runs: &[Vec<BanditPoint>]) -> String {
    let headings: Vec<String> = setting.shown.iter().map(|update| format!("after {update}")).collect();
    let headings: Vec<&str> = std::iter::once("").chain(headings.iter().map(String::as_str)).collect();
    let row = |(sampler, points): (&PairSampler, &Vec<BanditPoint>)| {
        let errors = setting.shown.iter().map(|&update| format!("{:.1e}", points[update].error));
        std::iter::once(sampler.name().to_owned()).chain(errors).collect()
    };
    table(&headings, &setting.samplers.iter().zip(runs).map(row).collect::<Vec<Vec<String>>>())
}

fn panel(setting: &Setting<'_>, runs: &[Vec<BanditPoint>]) -> Panel {
    let every = setting.updates.div_ceil(60).max(1);
    let curve = |(sampler, points): (&PairSampler, &Vec<BanditPoint>)| Series {
        name: sampler.name().to_owned(),
        // Values below are rounding.
        points: (0..points.len())
            .step_by(every)
            .map(|update| (update as f64, points[update].error.max(1e-15).log10()))
            .collect(),
    };
    Panel {
        title: setting.title.to_owned(),
        x: "update (vertical: log10 of the mean error)".to_owned(),
        series: setting.samplers.iter().zip(runs).map(curve).collect(),
        smooth: false,
        baseline: None,
    }
}
