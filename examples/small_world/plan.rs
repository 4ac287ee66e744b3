//! Runs of the plan, stage by stage. `PLAN.md` says what they are for.

use anyhow::{Context, Result};

use crate::arms::{MAIN, OTHERS, SCHEDULES};
use crate::language::Use;
use crate::results::{Row, Spec};

/// Learning rates and epochs among which tuning chooses.
const RATES: [f64; 3] = [3e-5, 1e-4, 3e-4];
const EPOCHS: [u64; 2] = [1, 2];
/// Seeds of tuning, which the comparison does not use.
const TUNING_SEEDS: [u64; 2] = [901, 902];
/// Seeds of the claims, and of the other arms and the maps.
const SEEDS: u64 = 10;
const FEW_SEEDS: u64 = 3;
/// Bases that the seeds share out.
const BASES: [(&str, u64); 3] = [("1m", 5), ("5m", 3), ("smoke", 1)];
const PAIRS: usize = 1024;
/// Numbers of pairs of the map, beside [`PAIRS`].
const OTHER_PAIRS: [usize; 2] = [256, 4096];

/// Stages in the order of their work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Rates and epochs of the arms of the claims.
    Tune,
    /// The claims, ten seeds.
    Claims,
    /// Rates and epochs of the other arms, then these arms, three seeds.
    TuneOthers,
    Others,
    /// Off, half and on, each at its best rate for one epoch.
    OneEpoch,
    /// Off, half and on over the number of pairs, the distance of the writers, and the base.
    Maps,
    /// The claims at five million weights, with the rates of one million.
    Large,
    Smoke,
}

pub(crate) const STAGES: [Stage; 7] =
    [Stage::Tune, Stage::Claims, Stage::TuneOthers, Stage::Others, Stage::OneEpoch, Stage::Maps, Stage::Large];

/// Learning rate and epochs.
pub(crate) type Setting = (f64, u64);

impl Stage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tune => "tune",
            Self::Claims => "claims",
            Self::TuneOthers => "tune-others",
            Self::Others => "others",
            Self::OneEpoch => "one-epoch",
            Self::Maps => "maps",
            Self::Large => "large",
            Self::Smoke => "smoke",
        }
    }

    /// Use of the prompts of pairs, and of those that are held out.
    pub(crate) fn uses(self) -> [Use; 2] {
        match self.tunes() {
            true => [Use::TuningPairs, Use::TuningHeldOut],
            false => [Use::Pairs, Use::HeldOut],
        }
    }

    pub(crate) fn tunes(self) -> bool {
        matches!(self, Self::Tune | Self::TuneOthers)
    }

    /// Runs of the stage; those of a seed follow each other. The rows are those of the stages before.
    ///
    /// # Errors
    /// If a stage that this one follows from is not done.
    pub(crate) fn runs(self, rows: &[Row]) -> Result<Vec<Spec>> {
        match self {
            Self::Tune => Ok(tuning(&MAIN)),
            Self::TuneOthers => Ok(tuning(&OTHERS)),
            Self::Claims => claims("1m", rows),
            Self::Large => claims("5m", rows),
            Self::Others => seeds("1m", FEW_SEEDS, rows, &OTHERS),
            Self::OneEpoch => {
                let mut runs = seeds("1m", FEW_SEEDS, rows, &["off", "half", "on"])?;
                runs.retain(|run| run.arm != "start");
                for run in &mut runs {
                    (run.rate, run.epochs) = chosen_of(rows, &run.arm, &[1])?;
                }
                Ok(runs)
            }
            Self::Maps => maps(rows),
            Self::Smoke => Ok(smoke()),
        }
    }
}

fn start(size: &str, seed: u64) -> Spec {
    let bases = BASES.iter().find(|(known, _)| *known == size).map_or(1, |(_, bases)| *bases);
    Spec {
        size: size.into(),
        base: 1 + (seed - 1) % bases,
        early: false,
        near: false,
        pairs: PAIRS,
        arm: "start".into(),
        seed,
        rate: 0.0,
        epochs: 0,
    }
}

fn tuning(arms: &[&str]) -> Vec<Spec> {
    let mut runs = Vec::new();
    for seed in TUNING_SEEDS {
        let start = Spec { base: 0, ..start("1m", seed) };
        runs.push(start.clone());
        for arm in arms {
            for (rate, epochs) in RATES.iter().flat_map(|rate| EPOCHS.map(|epochs| (*rate, epochs))) {
                runs.push(Spec { arm: (*arm).into(), rate, epochs, ..start.clone() });
            }
        }
    }
    runs
}

/// Mean over both tasks of an arm's tuning runs at a setting; none unless all seeds are done.
pub(crate) fn tuned(rows: &[Row], arm: &str, (rate, epochs): Setting) -> Option<f64> {
    let of = |seed: &u64| {
        let is = |row: &&Row| {
            let Spec { seed: its, rate: at, epochs: over, .. } = &row.spec;
            row.spec.base == 0 && row.spec.arm == arm && (*its, *at, *over) == (*seed, rate, epochs)
        };
        rows.iter().find(is).map(|row| row.outcome.both())
    };
    let values = TUNING_SEEDS.iter().map(of).collect::<Option<Vec<f64>>>()?;
    Some(values.iter().sum::<f64>() / values.len() as f64)
}

/// Settings in the order of the plan, with what tuning gave them.
pub(crate) fn grid(rows: &[Row], arm: &str) -> Vec<(Setting, Option<f64>)> {
    let all = RATES.iter().flat_map(|rate| EPOCHS.map(|epochs| (*rate, epochs)));
    all.map(|setting| (setting, tuned(rows, arm, setting))).collect()
}

/// The best setting of an arm among some numbers of epochs; of equal ones, the first.
fn chosen_of(rows: &[Row], arm: &str, epochs: &[u64]) -> Result<Setting> {
    let mut best: Option<(Setting, f64)> = None;
    for (setting, value) in grid(rows, arm) {
        let value = value.with_context(|| format!("arm {arm} is not tuned at {setting:?} yet"))?;
        if epochs.contains(&setting.1) && best.is_none_or(|(_, before)| value > before) {
            best = Some((setting, value));
        }
    }
    Ok(best.with_context(|| format!("no setting for arm {arm}"))?.0)
}

pub(crate) fn chosen(rows: &[Row], arm: &str) -> Result<Setting> {
    chosen_of(rows, arm, &EPOCHS)
}

/// The schedule that tuning prefers.
pub(crate) fn best_schedule(rows: &[Row]) -> Result<&'static str> {
    let mut best: Option<(&str, f64)> = None;
    for arm in SCHEDULES {
        let value = tuned(rows, arm, chosen(rows, arm)?).with_context(|| format!("arm {arm} is not tuned"))?;
        if best.is_none_or(|(_, before)| value > before) {
            best = Some((arm, value));
        }
    }
    Ok(best.context("no schedule")?.0)
}

fn seeds(size: &str, count: u64, rows: &[Row], arms: &[&str]) -> Result<Vec<Spec>> {
    let mut runs = Vec::new();
    for seed in 1..=count {
        runs.push(start(size, seed));
        for arm in arms {
            let (rate, epochs) = chosen(rows, arm)?;
            runs.push(Spec { arm: (*arm).into(), rate, epochs, ..start(size, seed) });
        }
    }
    Ok(runs)
}

/// Ten seeds of off, half, on and the best schedule; three of the other schedule at one million weights.
fn claims(size: &str, rows: &[Row]) -> Result<Vec<Spec>> {
    let best = best_schedule(rows)?;
    let mut runs = seeds(size, SEEDS, rows, &["off", "half", "on", best])?;
    if size == "1m" {
        let other = SCHEDULES.into_iter().find(|arm| *arm != best).context("two schedules")?;
        let more = seeds(size, FEW_SEEDS, rows, &[other])?.into_iter().filter(|run| run.arm == other);
        for run in more {
            let place = runs.iter().rposition(|before| before.seed == run.seed).map_or(runs.len(), |last| last + 1);
            runs.insert(place, run);
        }
    }
    Ok(runs)
}

fn maps(rows: &[Row]) -> Result<Vec<Spec>> {
    let main = seeds("1m", FEW_SEEDS, rows, &["off", "half", "on"])?;
    let mut cells: Vec<(bool, bool, usize)> = vec![(false, true, PAIRS), (true, false, PAIRS), (true, true, PAIRS)];
    cells.extend(OTHER_PAIRS.iter().flat_map(|pairs| [(false, false, *pairs), (false, true, *pairs)]));
    let cell = |(early, near, pairs)| main.iter().map(move |run| Spec { early, near, pairs, ..run.clone() });
    Ok(cells.into_iter().flat_map(cell).collect())
}

/// Every arm once, on a few pairs.
fn smoke() -> Vec<Spec> {
    let start = Spec { pairs: 8, ..start("smoke", 1) };
    let arms = MAIN.into_iter().chain(["on-30", "iterative", "hypo", "dpo-mix-p"]);
    let trained = arms.map(|arm| Spec { arm: arm.into(), rate: 1e-3, epochs: 3, ..start.clone() });
    std::iter::once(start.clone()).chain(trained).collect()
}
