//! Tables, tests and figures over all runs of a grid.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use simplemix::eval::{
    Band, Curves, Dot, Panel, ScatterPanel, Series, banded_svg, half_width_95, holm, paired_t_test, scatter_svg,
    write_svg,
};

use crate::data::{OPEN_ENDED, REASONING};
use crate::grid::Grid;
use crate::outcome::{Outcome, mean};

/// Runs by arm, in the grid's order.
struct Arms {
    start: Outcome,
    arms: Vec<(String, Vec<Outcome>)>,
}

/// What is measured: a task, or both alike.
type Measure = (&'static str, Option<&'static str>);
const MEASURES: [Measure; 3] = [("reasoning", Some(REASONING)), ("open-ended", Some(OPEN_ENDED)), ("both", None)];

/// Arms whose pairs are one mixture of both sources, by the share of on-policy pairs.
const RATIOS: [(&str, f64); 7] = [
    ("off-policy", 0.0),
    ("on-10", 0.1),
    ("on-30", 0.3),
    ("simplemix", 0.5),
    ("on-70", 0.7),
    ("on-90", 0.9),
    ("on-policy", 1.0),
];

/// The paper's claims as comparisons: which arm is better than which, by what.
const CLAIMS: [(&str, &str, &str, usize); 12] = [
    ("1: on-policy pairs are better on reasoning", "on-policy", "off-policy", 0),
    ("1, at 3e-5", "on-policy-3e-5", "off-policy-3e-5", 0),
    ("2: off-policy pairs are better on open-ended tasks", "off-policy", "on-policy", 1),
    ("2, at 3e-5", "off-policy-3e-5", "on-policy-3e-5", 1),
    ("3: the mixture is better than off-policy pairs", "simplemix", "off-policy", 2),
    ("3, at 3e-5", "simplemix-3e-5", "off-policy-3e-5", 2),
    ("3: the mixture is better than on-policy pairs", "simplemix", "on-policy", 2),
    ("3, at 3e-5", "simplemix-3e-5", "on-policy-3e-5", 2),
    ("3: the mixture is better than HyPO", "simplemix", "hypo", 2),
    ("3: the mixture is better than DPO-Mix-P", "simplemix", "dpo-mix-p", 2),
    ("(DPO-Mix-P against two on-policy rounds)", "dpo-mix-p", "on-policy-2", 2),
    ("(training against the start)", "simplemix", "start", 2),
];

/// Arms whose training curves are drawn.
const CURVES: [&str; 5] = ["off-policy", "on-policy", "simplemix", "hypo", "dpo-mix-p"];

/// Arms whose runs are drawn against their divergence.
const DOTS: [&str; 6] = ["off-policy", "on-policy", "simplemix", "off-policy-3e-5", "on-policy-3e-5", "simplemix-3e-5"];

/// Writes tables, results and figures to `folder`; runs that are not done yet are left out, and said to be.
pub(crate) fn write(grid: &Grid, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let arms = read(grid)?;
    let mut text = arms.table();
    text.push_str(&arms.chosen(grid));
    text.push_str(&arms.claims());
    print!("{text}");
    for (name, text) in [("tables.md", text), ("runs.csv", arms.runs()), ("answers.csv", arms.answers())] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    arms.ratios(folder)?;
    arms.divergences(folder)?;
    arms.learning(folder)
}

fn read(grid: &Grid) -> Result<Arms> {
    let (mut start, mut arms) = (None, Vec::new());
    for arm in &grid.arm {
        let mut done = Vec::new();
        for run in grid.runs(arm).unwrap_or_default() {
            match Outcome::read(&run) {
                Ok(outcome) => {
                    if start.is_none() {
                        start = Some(Outcome::start(&run)?);
                    }
                    done.push(outcome);
                }
                Err(error) => println!("left out: {} seed {}: {error:#}", run.arm, run.seed),
            }
        }
        if !done.is_empty() {
            arms.push((arm.name.clone(), done));
        }
    }
    Ok(Arms { start: start.context("no run is done")?, arms })
}

impl Arms {
    fn of(&self, name: &str) -> Option<&[Outcome]> {
        if name == "start" {
            return Some(std::slice::from_ref(&self.start));
        }
        self.arms.iter().find(|(arm, _)| arm == name).map(|(_, runs)| runs.as_slice())
    }

    /// Means over seeds, with half of Student's 95 % interval where there are several.
    fn table(&self) -> String {
        let mut text = String::from(
            "| arm | seeds | reasoning, % right | open-ended, % preferred to the start | both | tokens an answer | \
             KL, nats an answer | tokens drawn | updates | minutes |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        let start = (String::from("start"), vec![self.start.clone()]);
        for (name, runs) in std::iter::once(&start).chain(&self.arms) {
            let over = |value: &dyn Fn(&Outcome) -> f64| mean(runs.iter().map(value));
            let measures = MEASURES.map(|(_, task)| with_interval(runs.iter().map(|run| 100.0 * run.value(task)), 1));
            let both = |of: &dyn Fn(&Outcome, &str) -> f64, digits: usize| {
                let [a, b] = [REASONING, OPEN_ENDED].map(|task| over(&|run| of(run, task)));
                format!("{a:.digits$} / {b:.digits$}")
            };
            let (seeds, kl) = match name.as_str() {
                "start" => (String::from("-"), String::from("0 / 0")),
                _ => (runs.len().to_string(), both(&|run, task| run.kl[task], 2)),
            };
            let _ = writeln!(
                text,
                "| {name} | {seeds} | {} | {} | {kl} | {:.0} | {:.0} | {:.1} |",
                measures.join(" | "),
                both(&|run, task| run.tokens(task), 1),
                over(&|run| run.cost.tokens),
                over(&|run| run.cost.updates),
                over(&|run| run.cost.seconds) / 60.0,
            );
        }
        text.push('\n');
        text
    }

    /// The settings that trials chose.
    fn chosen(&self, grid: &Grid) -> String {
        let mut text = String::new();
        for arm in &grid.arm {
            let trials: Vec<Outcome> = grid.trials(arm).iter().filter_map(|trial| Outcome::read(trial).ok()).collect();
            if trials.is_empty() {
                continue;
            }
            let row = |trial: &Outcome| {
                format!("{:e}, {}: {:.1}", trial.learning_rate, trial.beta, 100.0 * trial.development())
            };
            let _ = writeln!(text, "- {}: {}", arm.name, trials.iter().map(row).collect::<Vec<_>>().join("; "));
        }
        if text.is_empty() {
            return text;
        }
        format!("Trials (learning rate, beta: both tasks, % on the development prompts):\n\n{text}\n")
    }

    /// Differences of arms, prompt by prompt over the mean of the seeds that both have, with tests.
    fn claims(&self) -> String {
        let mut rows = Vec::new();
        for (claim, better, worse, measure) in CLAIMS {
            let (Some(better_runs), Some(worse_runs)) = (self.of(better), self.of(worse)) else { continue };
            // Of seeds that both have; the start has none.
            let has = |runs: &[Outcome], seed: u64| worse == "start" || runs.iter().any(|run| run.seed == seed);
            let common = |runs: &[Outcome], others: &[Outcome]| -> Vec<Outcome> {
                runs.iter().filter(|run| has(others, run.seed)).cloned().collect()
            };
            let (better_runs, worse_runs) = (common(better_runs, worse_runs), common(worse_runs, better_runs));
            let task = MEASURES[measure].1;
            let differences = differences(&better_runs, &worse_runs, task);
            let seeds: Vec<f64> = (better_runs.iter().zip(worse_runs.iter().cycle()))
                .map(|(better, worse)| better.value(task) - worse.value(task))
                .collect();
            rows.push((claim, better, worse, MEASURES[measure].0, differences, seeds));
        }
        let corrected = holm(&rows.iter().map(|row| paired_t_test(&row.4)).collect::<Vec<_>>());
        let mut text = String::from(
            "| claim | difference | by | points, 95 % over prompts | p | p, Holm | by seed |\n| --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for ((claim, better, worse, by, differences, seeds), holm) in rows.iter().zip(corrected) {
            let by_seed: Vec<String> = seeds.iter().map(|d| format!("{:+.1}", 100.0 * d)).collect();
            let _ = writeln!(
                text,
                "| {claim} | {better} - {worse} | {by} | {:+.1} ± {:.1} | {:.3} | {holm:.3} | {} |",
                100.0 * mean(differences.iter().copied()),
                100.0 * half_width_95(differences),
                paired_t_test(differences),
                by_seed.join(", "),
            );
        }
        text.push('\n');
        text
    }

    fn runs(&self) -> String {
        let mut text = String::from(
            "arm,seed,learning_rate,beta,reasoning,open_ended,open_ended_reward,tokens_reasoning,tokens_open_ended,\
             kl_reasoning,kl_open_ended,tokens_drawn,updates,pairs,seconds\n",
        );
        for run in std::iter::once(&self.start).chain(self.arms.iter().flat_map(|(_, runs)| runs)) {
            let kl = |task: &str| run.kl.get(task).copied().unwrap_or_default();
            let _ = writeln!(
                text,
                "{},{},{:e},{},{:.4},{:.4},{:.4},{:.2},{:.2},{:.4},{:.4},{},{},{},{:.1}",
                run.arm,
                run.seed,
                run.learning_rate,
                run.beta,
                run.value(Some(REASONING)),
                run.value(Some(OPEN_ENDED)),
                run.score(OPEN_ENDED),
                run.tokens(REASONING),
                run.tokens(OPEN_ENDED),
                kl(REASONING),
                kl(OPEN_ENDED),
                run.cost.tokens,
                run.cost.updates,
                run.cost.pairs,
                run.cost.seconds,
            );
        }
        text
    }

    fn answers(&self) -> String {
        let mut text = String::from("arm,seed,prompt,part,score,tokens\n");
        for run in std::iter::once(&self.start).chain(self.arms.iter().flat_map(|(_, runs)| runs)) {
            for (id, answer) in &run.answers {
                let part = if answer.is_development { "development" } else { "test" };
                let _ = writeln!(text, "{},{},{id},{part},{:.4},{}", run.arm, run.seed, answer.score, answer.tokens);
            }
        }
        text
    }

    /// What the share of on-policy pairs does; bands from the lowest to the highest seed.
    fn ratios(&self, folder: &Path) -> Result<()> {
        let (mut series, mut bands) = (Vec::new(), Vec::new());
        for (name, task) in MEASURES {
            let (mut points, mut band) = (Vec::new(), Band::new());
            for (arm, share) in RATIOS {
                let Some(runs) = self.of(arm) else { continue };
                let values: Vec<f64> = runs.iter().map(|run| 100.0 * run.value(task)).collect();
                points.push((share, mean(values.iter().copied())));
                let ends = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
                band.push((share, ends.0, ends.1));
            }
            series.push(Series { name: name.to_owned(), points });
            bands.push(band);
        }
        let panel = Panel {
            title: "% right, or preferred".to_owned(),
            x: "share of on-policy pairs".to_owned(),
            series,
            smooth: false,
            baseline: None,
        };
        let path = folder.join("ratios.svg");
        fs::write(&path, banded_svg(&panel, &bands)?).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Gains against the divergence that they cost.
    fn divergences(&self, folder: &Path) -> Result<()> {
        let dot = |run: &Outcome| Dot {
            series: run.arm.clone(),
            at: ((run.kl[REASONING] + run.kl[OPEN_ENDED]) / 2.0, 100.0 * run.value(None)),
        };
        let shown = self.arms.iter().filter(|(arm, _)| DOTS.contains(&arm.as_str()));
        let panel = ScatterPanel {
            title: "Both tasks against divergence".to_owned(),
            x: "KL to the start, nats an answer".to_owned(),
            y: "%".to_owned(),
            dots: shown.flat_map(|(_, runs)| runs).map(dot).collect(),
        };
        let path = folder.join("divergence.svg");
        fs::write(&path, scatter_svg(&panel)?).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Training by update, means over seeds.
    fn learning(&self, folder: &Path) -> Result<()> {
        let panels = [("loss", "Loss"), ("rewards/accuracies", "Accuracy of rewards"), ("rewards/margins", "Margin")];
        let panels = panels.map(|(metric, title)| Panel {
            title: title.to_owned(),
            x: "update of the last round".to_owned(),
            series: (CURVES.iter())
                .filter_map(|arm| Some(Series { name: (*arm).to_owned(), points: averaged(self.of(arm)?, metric) }))
                .collect(),
            smooth: true,
            baseline: None,
        });
        Ok(write_svg(&folder.join("learning.svg"), &panels)?)
    }
}

/// A metric by update, as the mean of the runs that have it.
fn averaged(runs: &[Outcome], metric: &str) -> Vec<(f64, f64)> {
    let mut by_step: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    let points = |curves: &'_ Curves| curves.get(metric).cloned().unwrap_or_default();
    for (step, value) in runs.iter().flat_map(|run| points(&run.curves)) {
        by_step.entry(step as u64).or_default().push(value);
    }
    by_step.into_iter().map(|(step, values)| (step as f64, mean(values))).collect()
}

/// Differences prompt by prompt, each the mean of an arm's seeds. Over both tasks they are weighted so that their mean is
/// that of the tasks' means.
fn differences(better: &[Outcome], worse: &[Outcome], task: Option<&str>) -> Vec<f64> {
    let by_prompt = |runs: &[Outcome], id: &str| mean(runs.iter().filter_map(|run| Some(run.answers.get(id)?.value)));
    let prompts: Vec<_> = (better[0].answers.iter())
        .filter(|(_, answer)| !answer.is_development && task.is_none_or(|task| answer.task == task))
        .collect();
    let weight = |of: &str| match task {
        Some(_) => 1.0,
        None => prompts.len() as f64 / 2.0 / prompts.iter().filter(|(_, answer)| answer.task == of).count() as f64,
    };
    prompts.iter().map(|(id, a)| weight(&a.task) * (by_prompt(better, id) - by_prompt(worse, id))).collect()
}

/// Mean, and half of Student's 95 % interval.
fn with_interval(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let values: Vec<f64> = values.collect();
    let half = half_width_95(&values);
    let mean = mean(values);
    if half.is_finite() { format!("{mean:.digits$} ± {half:.digits$}") } else { format!("{mean:.digits$}") }
}
