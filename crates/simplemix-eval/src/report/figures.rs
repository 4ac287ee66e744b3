//! Figures of a comparison: a value for each run, and mean and interval for each arm.

use std::collections::BTreeSet;

use crate::curves;
use crate::report::arms::Arm;
use crate::report::run_data::RunData;
use crate::stats::{half_width_95, mean};

/// A figure, which is a column of the tables.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// Name of the metric, used in files.
    pub(crate) name: String,
    /// Heading of the column.
    pub(crate) title: String,
    /// Value of each run, if it has the metric.
    pub(crate) of_runs: Vec<Option<f64>>,
    /// Mean and half the width of the 95 % interval of each arm; the width is NaN for a single run.
    pub(crate) of_arms: Vec<Option<(f64, f64)>>,
    /// Whether lm-eval or lighteval computed it.
    pub(crate) is_benchmark: bool,
}

/// Metrics with headings. The figure of an evaluation is the last value, that of a training metric the mean over the
/// last tenth of the updates.
const METRICS: [(&str, &str); 9] = [
    ("eval_rewards/accuracies", "accuracy, held-out"),
    ("eval_rewards/margins", "margin, held-out"),
    ("eval_loss", "loss, held-out"),
    ("eval_accuracy", "reward accuracy, held-out"),
    ("rewards/accuracies", "accuracy, training"),
    ("rewards/margins", "margin, training"),
    ("accuracy", "reward accuracy, training"),
    ("loss", "loss, training"),
    ("lengths/chosen", "chosen tokens"),
];

/// Computes the figures that at least one run has.
pub(crate) fn figures(runs: &[RunData], arms: &[Arm]) -> Vec<Figure> {
    type Read = fn(&RunData) -> Option<f64>;
    let alpaca: [(&str, &str, Read); 3] = [
        ("length_controlled_winrate", "LC win rate, %", |run| run.alpaca.as_ref()?.length_controlled_winrate),
        ("win_rate", "win rate, %", |run| run.alpaca.as_ref()?.win_rate),
        ("avg_length", "characters", |run| run.alpaca.as_ref()?.avg_length),
    ];
    let from_alpaca =
        alpaca.into_iter().map(|(name, title, of)| figure(name, title, runs.iter().map(of).collect(), arms));
    let from_metrics = METRICS
        .into_iter()
        .map(|(name, title)| figure(name, title, runs.iter().map(|run| at_end(run, name)).collect(), arms));
    let all = held_out(runs, arms).into_iter().chain(from_alpaca).chain(from_metrics);
    all.filter(|figure| figure.of_runs.iter().any(Option::is_some)).collect()
}

/// Scores of responses to held-out prompts, over all and by task, with lengths and divergences over all.
fn held_out(runs: &[RunData], arms: &[Arm]) -> Vec<Figure> {
    let tasks: BTreeSet<Option<&str>> =
        runs.iter().flat_map(|run| &run.scores).map(|score| score.task.as_deref()).collect();
    let of = |run: &RunData, task: Option<&str>| run.scores.iter().find(|s| s.task.as_deref() == task).cloned();
    let mut figures = Vec::new();
    for task in tasks {
        let (name, title) = match task {
            None => ("score".to_owned(), "score, held-out prompts".to_owned()),
            Some(task) => (format!("score:{task}"), format!("score, {task}")),
        };
        figures.push(figure(&name, &title, runs.iter().map(|run| Some(of(run, task)?.after)).collect(), arms));
    }
    figures.push(figure(
        "tokens",
        "tokens of a response",
        runs.iter().map(|run| of(run, None)?.tokens).collect(),
        arms,
    ));
    figures.push(figure("divergence", "KL, nats", runs.iter().map(|run| of(run, None)?.kl).collect(), arms));
    figures
}

/// Figures of lm-eval and lighteval. An arm of one run has the interval of the benchmark's own standard error.
pub(crate) fn benchmarks(runs: &[RunData], arms: &[Arm]) -> Vec<Figure> {
    let all = runs.iter().flat_map(|run| &run.benchmarks).map(|score| (score.task.as_str(), score.metric.as_str()));
    let names: BTreeSet<(&str, &str)> = all.collect();
    let of = |run: &RunData, (task, metric): (&str, &str)| {
        run.benchmarks.iter().find(|score| score.task == task && score.metric == metric).cloned()
    };
    let found = names.into_iter().map(|at| {
        let title = format!("{}, {}", at.0, at.1);
        let mut figure = figure(&title, &title, runs.iter().map(|run| Some(of(run, at)?.value)).collect(), arms);
        figure.is_benchmark = true;
        for (arm, value) in arms.iter().zip(&mut figure.of_arms) {
            if let ([run], Some((_, half))) = (arm.runs.as_slice(), value) {
                let error = of(&runs[*run], at).and_then(|score| score.standard_error);
                *half = error.map_or(f64::NAN, |error| 1.96 * error);
            }
        }
        figure
    });
    found.collect()
}

fn figure(name: &str, title: &str, of_runs: Vec<Option<f64>>, arms: &[Arm]) -> Figure {
    let of_arms = arms.iter().map(|arm| over_runs(arm.runs.iter().filter_map(|run| of_runs[*run]).collect())).collect();
    Figure { name: name.to_owned(), title: title.to_owned(), of_runs, of_arms, is_benchmark: false }
}

/// Mean and half width of the interval over runs; `None` without runs.
pub(crate) fn over_runs(values: Vec<f64>) -> Option<(f64, f64)> {
    (!values.is_empty()).then(|| (mean(&values), half_width_95(&values)))
}

/// The last value of an evaluation metric, or the mean over the last tenth of a training metric.
pub(crate) fn at_end(run: &RunData, metric: &str) -> Option<f64> {
    curves::at_end(&run.curves, metric)
}

/// Formats a figure of an arm; mean and half width get the same number of decimals.
pub(crate) fn shown(value: Option<(f64, f64)>) -> String {
    let Some((mean, half)) = value else { return "-".to_owned() };
    let decimals = match mean.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 2,
        _ => 4,
    };
    if half.is_nan() { format!("{mean:.decimals$}") } else { format!("{mean:.decimals$} ± {half:.decimals$}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn arms_have_means_and_intervals() {
        let run = |scale: f64| RunData {
            curves: BTreeMap::from([
                ("loss".to_owned(), (0..100).map(|i| (f64::from(i), if i < 90 { 9.0 } else { scale })).collect()),
                ("eval_loss".to_owned(), vec![(10.0, 5.0), (20.0, scale)]),
            ]),
            ..RunData::default()
        };
        let runs = [run(1.0), run(2.0), run(4.0)];
        let arms = [Arm { name: "a".into(), runs: vec![0, 1, 2] }, Arm { name: "b".into(), runs: vec![1] }];
        let found = figures(&runs, &arms);
        assert_eq!(found.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["eval_loss", "loss"]);
        for figure in &found {
            assert_eq!(figure.of_runs, [Some(1.0), Some(2.0), Some(4.0)]);
            let (mean, half) = figure.of_arms[0].unwrap();
            // scipy: t.ppf(0.975, 2) * sem([1, 2, 4])
            assert!((mean - 7.0 / 3.0).abs() < 1e-12 && (half - 3.794_583).abs() < 1e-5);
            assert_eq!(shown(figure.of_arms[1]), "2.0000");
        }
        assert_eq!(shown(Some((1234.4, 5.0))), "1234 ± 5");
    }
}
