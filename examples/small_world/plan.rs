//! Runs of the plan, stage by stage. `PLAN.md` says what they are for.

use anyhow::{Context, Result};

use crate::arms::{MAIN, OTHERS, SCHEDULES};
use crate::language::Use;
use crate::results::{Outcome, Row, Setting, Spec};

/// Learning rates, epochs and betas among which tuning chooses.
const RATES: [f64; 4] = [1e-5, 3e-5, 1e-4, 3e-4];
const EPOCHS: [u64; 2] = [1, 2];
pub(crate) const BETAS: [f64; 4] = [0.1, 0.3, 1.0, 3.0];
/// Points that a setting may lose on either task and still be one for both.
const ALLOWED_LOSS: f64 = 1.0;
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

/// Purpose that an arm's setting is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The most right answers.
    Reasoning,
    /// The most open-ended reward.
    Open,
    /// The highest mean of both, of the settings that lose at most a point on either.
    Both,
}

pub(crate) const GOALS: [Goal; 3] = [Goal::Reasoning, Goal::Open, Goal::Both];

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
            Self::Tune => tuning(rows, &MAIN),
            Self::TuneOthers => tuning(rows, &OTHERS),
            Self::Claims => claims("1m", rows),
            Self::Large => claims("5m", rows),
            Self::Others => seeds("1m", FEW_SEEDS, rows, &[(&OTHERS, &[Goal::Both])]),
            Self::OneEpoch => {
                let mut runs = seeds("1m", FEW_SEEDS, rows, &[(&["off", "half", "on"], &[Goal::Both])])?;
                runs.retain(|run| run.arm != "start");
                for run in &mut runs {
                    run.setting = chosen_of(rows, &run.arm, Goal::Both, &[1])?;
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
        setting: Setting::default(),
    }
}

fn settings() -> impl Iterator<Item = Setting> {
    let of_rate = |rate| BETAS.map(|beta| EPOCHS.map(|epochs| Setting { rate, epochs, beta }));
    RATES.into_iter().flat_map(of_rate).flatten()
}

/// Settings that an arm is tuned over: all for the arms of the claims, those at the beta of `half` for the others.
fn settings_of(rows: &[Row], arm: &str) -> Result<Vec<Setting>> {
    if MAIN.contains(&arm) {
        return Ok(settings().collect());
    }
    let beta = chosen(rows, "half", Goal::Both)?.beta;
    Ok(settings().filter(|setting| setting.beta == beta).collect())
}

fn tuning(rows: &[Row], arms: &[&str]) -> Result<Vec<Spec>> {
    let mut runs = Vec::new();
    for seed in TUNING_SEEDS {
        let start = Spec { base: 0, ..start("1m", seed) };
        runs.push(start.clone());
        for arm in arms {
            let settings = settings_of(rows, arm)?.into_iter();
            runs.extend(settings.map(|setting| Spec { arm: (*arm).into(), setting, ..start.clone() }));
        }
    }
    Ok(runs)
}

/// Means over the tuning seeds of an arm at a setting; none unless all seeds are done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuned {
    pub(crate) right: f64,
    pub(crate) open: f64,
    pub(crate) kl_reasoning: f64,
    pub(crate) kl_open: f64,
}

impl Tuned {
    pub(crate) fn of(rows: &[Row], arm: &str, setting: Setting) -> Option<Self> {
        let of_seed = |seed: &u64| {
            let is = |row: &&Row| {
                let Spec { base, arm: trained, seed: drawn, setting: at, .. } = &row.spec;
                (*base, trained.as_str(), *drawn, *at) == (0, arm, *seed, setting)
            };
            rows.iter().find(is).map(|row| row.outcome)
        };
        let all = TUNING_SEEDS.iter().map(of_seed).collect::<Option<Vec<Outcome>>>()?;
        let over = |of: fn(&Outcome) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        Some(Self {
            right: over(|o| o.right),
            open: over(|o| o.open),
            kl_reasoning: over(|o| o.kl_reasoning),
            kl_open: over(|o| o.kl_open),
        })
    }

    /// The base of tuning.
    pub(crate) fn start(rows: &[Row]) -> Option<Self> {
        Self::of(rows, "start", Setting::default())
    }

    pub(crate) fn both(&self) -> f64 {
        (self.right + self.open) / 2.0
    }

    /// Points lost beyond what is allowed on the task that lost more, or 0.
    pub(crate) fn loss(&self, start: &Self) -> f64 {
        (start.right - self.right).max(start.open - self.open).max(ALLOWED_LOSS) - ALLOWED_LOSS
    }

    /// Numbers that are highest for the best setting, compared in order.
    fn merit(&self, start: &Self, goal: Goal) -> [f64; 2] {
        match goal {
            Goal::Reasoning => [self.right, self.open],
            Goal::Open => [self.open, self.right],
            Goal::Both => [-self.loss(start), self.both()],
        }
    }
}

/// Settings in the order of the plan, with what tuning gave them.
pub(crate) fn grid(rows: &[Row], arm: &str) -> Result<Vec<(Setting, Option<Tuned>)>> {
    let settings = settings_of(rows, arm)?.into_iter();
    Ok(settings.map(|setting| (setting, Tuned::of(rows, arm, setting))).collect())
}

/// The best setting of an arm among some numbers of epochs; of equal ones, the first.
fn chosen_of(rows: &[Row], arm: &str, goal: Goal, epochs: &[u64]) -> Result<Setting> {
    let start = Tuned::start(rows).context("the base of tuning is not measured yet")?;
    let mut best: Option<(Setting, [f64; 2])> = None;
    for (setting, tuned) in grid(rows, arm)? {
        let merit = tuned.with_context(|| format!("arm {arm} is not tuned at {setting} yet"))?.merit(&start, goal);
        if epochs.contains(&setting.epochs) && best.is_none_or(|(_, before)| merit > before) {
            best = Some((setting, merit));
        }
    }
    Ok(best.with_context(|| format!("no setting for arm {arm}"))?.0)
}

pub(crate) fn chosen(rows: &[Row], arm: &str, goal: Goal) -> Result<Setting> {
    chosen_of(rows, arm, goal, &EPOCHS)
}

/// The schedule that tuning prefers for both tasks.
pub(crate) fn best_schedule(rows: &[Row]) -> Result<&'static str> {
    let start = Tuned::start(rows).context("the base of tuning is not measured yet")?;
    let mut best: Option<(&str, [f64; 2])> = None;
    for arm in SCHEDULES {
        let tuned = Tuned::of(rows, arm, chosen(rows, arm, Goal::Both)?);
        let merit = tuned.with_context(|| format!("arm {arm} is not tuned"))?.merit(&start, Goal::Both);
        if best.is_none_or(|(_, before)| merit > before) {
            best = Some((arm, merit));
        }
    }
    Ok(best.context("no schedule")?.0)
}

/// Arms, each at its settings for some goals.
type Arms<'a> = (&'a [&'a str], &'a [Goal]);

fn seeds(size: &str, count: u64, rows: &[Row], groups: &[Arms<'_>]) -> Result<Vec<Spec>> {
    let mut runs = Vec::new();
    for seed in 1..=count {
        runs.push(start(size, seed));
        for (arms, goals) in groups {
            for (arm, goal) in arms.iter().flat_map(|arm| goals.iter().map(move |goal| (arm, *goal))) {
                let run = Spec { arm: (*arm).into(), setting: chosen(rows, arm, goal)?, ..start(size, seed) };
                // An arm may have one setting for several goals.
                if !runs.contains(&run) {
                    runs.push(run);
                }
            }
        }
    }
    Ok(runs)
}

/// Off, half and on at their settings for each goal, and the best schedule at that for both, ten seeds; three of the other
/// schedule at one million weights.
fn claims(size: &str, rows: &[Row]) -> Result<Vec<Spec>> {
    let best = best_schedule(rows)?;
    let mut runs = seeds(size, SEEDS, rows, &[(&["off", "half", "on"], &GOALS), (&[best], &[Goal::Both])])?;
    if size == "1m" {
        let other = SCHEDULES.into_iter().find(|arm| *arm != best).context("two schedules")?;
        let more = seeds(size, FEW_SEEDS, rows, &[(&[other], &[Goal::Both])])?;
        for run in more.into_iter().filter(|run| run.arm == other) {
            let place = runs.iter().rposition(|before| before.seed == run.seed).map_or(runs.len(), |last| last + 1);
            runs.insert(place, run);
        }
    }
    Ok(runs)
}

fn maps(rows: &[Row]) -> Result<Vec<Spec>> {
    let groups: [Arms<'_>; 2] = [(&["off", "on"], &GOALS), (&["half"], &[Goal::Both])];
    let main = seeds("1m", FEW_SEEDS, rows, &groups)?;
    let mut cells: Vec<(bool, bool, usize)> = vec![(false, true, PAIRS), (true, false, PAIRS), (true, true, PAIRS)];
    cells.extend(OTHER_PAIRS.iter().flat_map(|pairs| [(false, false, *pairs), (false, true, *pairs)]));
    let cell = |(early, near, pairs)| main.iter().map(move |run| Spec { early, near, pairs, ..run.clone() });
    Ok(cells.into_iter().flat_map(cell).collect())
}

/// Every arm once, on a few pairs.
fn smoke() -> Vec<Spec> {
    let start = Spec { pairs: 8, ..start("smoke", 1) };
    let arms = MAIN.into_iter().chain(["on-30", "iterative", "hypo", "dpo-mix-p"]);
    let setting = Setting { rate: 1e-3, epochs: 3, beta: 0.1 };
    let trained = arms.map(|arm| Spec { arm: arm.into(), setting, ..start.clone() });
    std::iter::once(start.clone()).chain(trained).collect()
}
