//! Tables, tests and figures over all runs of a grid.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use simplemix::eval::plot::{Band, Dot, Panel, ScatterPanel, Series, banded_svg, scatter_svg, write_svg};
use simplemix::eval::{Share, half_width_95, holm, mean, paired_t_test, read_curves};
use simplemix::files;
use simplemix::pipeline::Summary;

use crate::data::{OPEN_ENDED, REASONING};
use crate::grid::{Grid, REWARD_MODELS};
use crate::outcome::{Drawn, Outcome, add_drawn};

/// Runs by arm, in the grid's order.
struct Arms {
    start: Outcome,
    arms: Vec<(String, Vec<Outcome>)>,
}

/// Measures: a task, or both alike.
const MEASURES: [Option<&str>; 3] = [Some(REASONING), Some(OPEN_ENDED), None];

fn name(measure: Option<&str>) -> &str {
    measure.unwrap_or("both")
}

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
const CLAIMS: [(&str, &str, &str, Option<&str>); 12] = [
    ("1: on-policy pairs are better on reasoning", "on-policy", "off-policy", Some(REASONING)),
    ("1, at 3e-5", "on-policy-3e-5", "off-policy-3e-5", Some(REASONING)),
    ("2: off-policy pairs are better on open-ended tasks", "off-policy", "on-policy", Some(OPEN_ENDED)),
    ("2, at 3e-5", "off-policy-3e-5", "on-policy-3e-5", Some(OPEN_ENDED)),
    ("3: the mixture is better than off-policy pairs", "simplemix", "off-policy", None),
    ("3, at 3e-5", "simplemix-3e-5", "off-policy-3e-5", None),
    ("3: the mixture is better than on-policy pairs", "simplemix", "on-policy", None),
    ("3, at 3e-5", "simplemix-3e-5", "on-policy-3e-5", None),
    ("3: the mixture is better than HyPO", "simplemix", "hypo", None),
    ("3: the mixture is better than DPO-Mix-P", "simplemix", "dpo-mix-p", None),
    ("(DPO-Mix-P against two on-policy rounds)", "dpo-mix-p", "on-policy-2", None),
    ("(training against the start)", "simplemix", "start", None),
];

/// Arms whose training curves are drawn.
const CURVES: [&str; 5] = ["off-policy", "on-policy", "simplemix", "hypo", "dpo-mix-p"];

/// Arms whose runs are drawn against their divergence.
const DOTS: [&str; 6] = ["off-policy", "on-policy", "simplemix", "off-policy-3e-5", "on-policy-3e-5", "simplemix-3e-5"];

/// Writes tables, results and figures to `folder`; runs that are not done yet are left out, and said to be.
pub(crate) fn write(grid: &Grid, folder: &Path) -> Result<()> {
    files::create_dir_all(folder)?;
    let arms = read(grid)?;
    let mut text = arms.table();
    text.push_str(&arms.chosen(grid));
    text.push_str(&arms.claims());
    text.push_str(&judges(grid)?);
    text.push_str(&drawn(grid)?);
    text.push_str(&work(grid));
    print!("{text}");
    let files = [
        ("tables.md", text),
        ("runs.csv", arms.runs()),
        ("answers.csv", arms.answers()),
        ("ratios.svg", arms.ratios()?),
        ("divergence.svg", arms.divergences()?),
    ];
    for (name, text) in files {
        files::write(folder.join(name), text)?;
    }
    arms.learning(folder)
}

/// How well the reward models order pairs that neither was trained on.
fn judges(grid: &Grid) -> Result<String> {
    let path = grid.root.join("data/counts.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    let counts: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let pairs = counts["reward_pairs"]["test"].as_u64().unwrap_or_default();
    let mut text = format!("Right order of {pairs} held-apart pairs:\n\n");
    for name in REWARD_MODELS {
        let curves = read_curves(&grid.root.join(format!("reward-{name}/metrics.jsonl")))?;
        let accuracy = curves.get("eval_accuracy").and_then(|points| points.last()).map_or(f64::NAN, |point| point.1);
        let share = Share { hits: (accuracy * pairs as f64).round() as u64, total: pairs };
        let (low, high) = share.interval(1.96);
        let [value, low, high] = [share.value(), low, high].map(|share| 100.0 * share);
        let _ = writeln!(text, "- {name}: {} of {pairs}, {value:.1} % ({low:.1} to {high:.1})", share.hits);
    }
    let length = |key: &str| 100.0 * counts[key].as_f64().unwrap_or(f64::NAN);
    let (whole, seen) = (length("reward_test_longer"), length("reward_test_longer_as_seen"));
    let _ =
        writeln!(text, "- the longer response: {whole:.1} % of whole texts, {seen:.1} % of what a reward model sees\n");
    Ok(text)
}

/// Pairs that the on-policy arm collected in one round, by kind of prompt, over its seeds.
fn drawn(grid: &Grid) -> Result<String> {
    let mut kinds = BTreeMap::new();
    for arm in grid.arm.iter().filter(|arm| arm.name == "on-policy") {
        for run in grid.runs(arm)?.iter().filter(|run| run.is_done()) {
            add_drawn(run, &mut kinds)?;
        }
    }
    let mut text = String::from(
        "Own answers, all seeds:\n\n| prompts | asked | with answers that differ in score | answers | right | cut |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for (kind, drawn) in kinds {
        let right = if kind == "open" { String::from("-") } else { drawn.right.to_string() };
        let Drawn { prompts, differing, answers, cut, .. } = drawn;
        let _ = writeln!(text, "| {kind} | {prompts} | {differing} | {answers} | {right} | {cut} |");
    }
    text.push('\n');
    Ok(text)
}

/// Time of all stages, each once, however many runs share it.
fn work(grid: &Grid) -> String {
    let runs = grid.arm.iter().flat_map(|arm| {
        let runs = grid.runs(arm).unwrap_or_default();
        runs.into_iter().chain(grid.trials(arm))
    });
    let stages = runs.filter_map(|run| Summary::read(&run.output).ok()).flat_map(|summary| summary.stages);
    let once: BTreeMap<_, f64> = stages.map(|stage| (stage.folder, stage.seconds)).collect();
    format!("{} stages, each once: {:.0} minutes\n", once.len(), once.values().sum::<f64>() / 60.0)
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

    /// The start, and all runs.
    fn all(&self) -> impl Iterator<Item = &Outcome> {
        std::iter::once(&self.start).chain(self.arms.iter().flat_map(|(_, runs)| runs))
    }

    /// Means over seeds, with half of Student's 95 % interval where there are several.
    fn table(&self) -> String {
        let mut text = String::from(
            "| arm | seeds | reasoning, % right | open-ended, % preferred to the start | both | tokens an answer | \
             KL, nats an answer | tokens drawn | updates | minutes |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        let start = (String::from("start"), vec![self.start.clone()]);
        for (name, runs) in std::iter::once(&start).chain(&self.arms) {
            let over = |value: &dyn Fn(&Outcome) -> f64| mean(&runs.iter().map(value).collect::<Vec<_>>());
            let measures = MEASURES.map(|task| with_interval(runs.iter().map(|run| 100.0 * run.value(task)), 1));
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
        for (claim, better, worse, task) in CLAIMS {
            let (Some(better_runs), Some(worse_runs)) = (self.of(better), self.of(worse)) else { continue };
            // Only seeds that both have; the start has none.
            let has = |runs: &[Outcome], seed: u64| worse == "start" || runs.iter().any(|run| run.seed == seed);
            let common = |runs: &[Outcome], others: &[Outcome]| -> Vec<Outcome> {
                runs.iter().filter(|run| has(others, run.seed)).cloned().collect()
            };
            let (better_runs, worse_runs) = (common(better_runs, worse_runs), common(worse_runs, better_runs));
            let differences = differences(&better_runs, &worse_runs, task);
            let seeds: Vec<f64> = (better_runs.iter().zip(worse_runs.iter().cycle()))
                .map(|(better, worse)| better.value(task) - worse.value(task))
                .collect();
            rows.push((claim, better, worse, name(task), differences, seeds));
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
                100.0 * mean(differences),
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
        for run in self.all() {
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
        for run in self.all() {
            for (id, answer) in &run.answers {
                let part = if answer.is_development { "development" } else { "test" };
                let _ = writeln!(text, "{},{},{id},{part},{:.4},{}", run.arm, run.seed, answer.score, answer.tokens);
            }
        }
        text
    }

    /// Effect of the share of on-policy pairs; bands from the lowest to the highest seed.
    fn ratios(&self) -> Result<String> {
        let (mut series, mut bands) = (Vec::new(), Vec::new());
        for task in MEASURES {
            let (mut points, mut band) = (Vec::new(), Band::new());
            for (arm, share) in RATIOS {
                let Some(runs) = self.of(arm) else { continue };
                let values: Vec<f64> = runs.iter().map(|run| 100.0 * run.value(task)).collect();
                points.push((share, mean(&values)));
                let [low, high] =
                    [f64::min as fn(f64, f64) -> f64, f64::max].map(|of| values.iter().copied().fold(values[0], of));
                band.push((share, low, high));
            }
            series.push(Series { name: name(task).to_owned(), points });
            bands.push(band);
        }
        let panel = Panel {
            title: "% right, or preferred".to_owned(),
            x: "share of on-policy pairs".to_owned(),
            series,
            smooth: false,
            baseline: None,
        };
        Ok(banded_svg(&panel, &bands)?)
    }

    /// Gains against the divergence that they cost.
    fn divergences(&self) -> Result<String> {
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
        Ok(scatter_svg(&panel)?)
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
    for (step, value) in runs.iter().filter_map(|run| run.curves.get(metric)).flatten() {
        by_step.entry(*step as u64).or_default().push(*value);
    }
    by_step.into_iter().map(|(step, values)| (step as f64, mean(&values))).collect()
}

/// Differences prompt by prompt, each the mean of an arm's seeds. Over both tasks they are weighted so that their mean is
/// that of the tasks' means.
fn differences(better: &[Outcome], worse: &[Outcome], task: Option<&str>) -> Vec<f64> {
    let by_prompt = |runs: &[Outcome], id: &str| {
        mean(&runs.iter().filter_map(|run| Some(run.answers.get(id)?.value)).collect::<Vec<_>>())
    };
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
    let mean = mean(&values);
    if half.is_finite() { format!("{mean:.digits$} ± {half:.digits$}") } else { format!("{mean:.digits$}") }
}
