//! Drawing of the plots of a report.

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::error::Result;
use crate::plot::{Band, Bar, BarPanel, Dot, Panel, ScatterPanel, Series, banded_svg, bars_svg, scatter_svg};
use crate::report::arms::Arm;
use crate::report::figures::{at_end, over_runs};
use crate::report::plots::{ReportPlot, STRETCHES, Section};
use crate::report::run_data::RunData;

/// Metrics that are drawn as curves, with titles.
const CURVES: [(&str, &str); 13] = [
    ("loss", "Loss"),
    ("eval_loss", "Loss, held-out"),
    ("rewards/margins", "Reward margin"),
    ("eval_rewards/margins", "Reward margin, held-out"),
    ("rewards/accuracies", "Share of pairs in the right order"),
    ("eval_rewards/accuracies", "Share in the right order, held-out"),
    ("accuracy", "Reward accuracy"),
    ("logps/chosen", "Log-probability of the chosen response"),
    ("logps/rejected", "Log-probability of the rejected response"),
    ("entropy", "Entropy of a token"),
    ("mean_token_accuracy", "Accuracy of a token"),
    ("grad_norm", "Gradient norm"),
    ("learning_rate", "Learning rate"),
];
const MARGINS_OF: &str = "rewards/margins@";
/// Group of the bars that stand for all prompts.
const ALL_PROMPTS: &str = "all prompts";
const ACCURACY_OF_TASK: [&str; 2] = ["eval_rewards/accuracies@task:", "rewards/accuracies@task:"];

pub(crate) fn plots(runs: &[RunData], arms: &[Arm]) -> Result<Vec<ReportPlot>> {
    let sources: BTreeSet<&str> = runs
        .iter()
        .flat_map(|run| run.curves.keys())
        .filter_map(|name| name.strip_prefix(MARGINS_OF).filter(|source| !source.starts_with("task:")))
        .collect();
    let of_sources = sources
        .iter()
        .map(|source| (format!("{MARGINS_OF}{source}"), format!("Reward margin of {source}"), Section::Sources));
    let wanted: Vec<(String, String, Section)> = CURVES
        .iter()
        .map(|(metric, title)| ((*metric).to_owned(), (*title).to_owned(), Section::Curves))
        .chain(of_sources)
        .collect();
    let curves: Vec<Option<ReportPlot>> = wanted
        .par_iter()
        .map(|(metric, title, section)| curve(runs, arms, metric, title, *section))
        .collect::<Result<_>>()?;
    let mut plots: Vec<ReportPlot> = curves.into_iter().flatten().collect();
    plots.extend(win_rate_bars(runs, arms)?);
    plots.extend(accuracy_bars(runs, arms)?);
    plots.extend(length_scatter(runs, arms)?);
    plots.extend(score_bars(runs, arms)?);
    plots.extend(benchmark_bars(runs, arms)?);
    Ok(plots)
}

fn curve(runs: &[RunData], arms: &[Arm], metric: &str, title: &str, section: Section) -> Result<Option<ReportPlot>> {
    let (mut series, mut bands, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let Some(range) = range(runs, metric) else { return Ok(None) };
    for arm in arms {
        let lines: Vec<Vec<Option<f64>>> = arm
            .runs
            .iter()
            .filter_map(|run| runs[*run].curves.get(metric))
            .map(|points| stretches(points, range))
            .collect();
        let (points, band) = over_seeds(&lines, range);
        if let Some(end) = points.last() {
            ends.push(format!("{} ends at {}", arm.name, crate::html::number(end.1)));
        }
        bands.push(if lines.len() > 1 { band } else { Vec::new() });
        series.push(Series { name: arm.name.clone(), points });
    }
    let panel = Panel { title: title.to_owned(), x: "update".to_owned(), series, smooth: false, baseline: None };
    let svg = banded_svg(&panel, &bands)?;
    let label = format!("{title} over the updates: {}", ends.join("; "));
    Ok(Some(ReportPlot { name: file_name(metric), section, label, svg }))
}

/// First and last update at which any run has the metric; `None` if no run has it.
fn range(runs: &[RunData], metric: &str) -> Option<(f64, f64)> {
    let curves = || runs.iter().filter_map(|run| run.curves.get(metric));
    let first = curves().filter_map(|points| Some(points.first()?.0)).reduce(f64::min)?;
    let last = curves().filter_map(|points| Some(points.last()?.0)).reduce(f64::max)?;
    Some((first, last))
}

/// Mean of the points in each of [`STRETCHES`] equal stretches of the range; `None` for a stretch without points.
fn stretches(points: &[(f64, f64)], (first, last): (f64, f64)) -> Vec<Option<f64>> {
    let mut sums = vec![(0.0, 0u32); STRETCHES];
    let scale = (STRETCHES - 1) as f64 / (last - first).max(f64::MIN_POSITIVE);
    for (step, value) in points.iter().filter(|point| point.1.is_finite()) {
        let place = (((step - first) * scale).round() as usize).min(STRETCHES - 1);
        sums[place].0 += value;
        sums[place].1 += 1;
    }
    sums.into_iter().map(|(sum, count)| (count > 0).then(|| sum / f64::from(count))).collect()
}

/// Mean over runs, and the band from the lowest to the highest.
fn over_seeds(lines: &[Vec<Option<f64>>], (first, last): (f64, f64)) -> (Vec<(f64, f64)>, Band) {
    let (mut points, mut band) = (Vec::new(), Vec::new());
    for place in 0..STRETCHES {
        let values: Vec<f64> = lines.iter().filter_map(|line| line[place]).collect();
        if values.is_empty() {
            continue;
        }
        let x = first + (last - first) * place as f64 / (STRETCHES - 1) as f64;
        points.push((x, values.iter().sum::<f64>() / values.len() as f64));
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        band.push((x, low, values.iter().copied().fold(f64::NEG_INFINITY, f64::max)));
    }
    (points, band)
}

fn win_rate_bars(runs: &[RunData], arms: &[Arm]) -> Result<Option<ReportPlot>> {
    let of = |run: &RunData, category: &str| {
        let found = run.alpaca.as_ref()?.categories.iter().find(|found| found.category == category)?;
        found.length_controlled_winrate.or(found.win_rate)
    };
    let categories: BTreeSet<&str> = runs
        .iter()
        .filter_map(|run| run.alpaca.as_ref())
        .flat_map(|figures| figures.categories.iter().map(|found| found.category.as_str()))
        .collect();
    let is_controlled = runs
        .iter()
        .filter_map(|run| run.alpaca.as_ref())
        .flat_map(|figures| &figures.categories)
        .any(|found| found.length_controlled_winrate.is_some());
    let title = if is_controlled { "Length-controlled win rate by category" } else { "Win rate by category" };
    bars("categories", title, "percent", Some(50.0), &categories, arms, |run, category| of(&runs[run], category))
}

fn accuracy_bars(runs: &[RunData], arms: &[Arm]) -> Result<Option<ReportPlot>> {
    let tasks = |prefix: &str| -> BTreeSet<&str> {
        runs.iter().flat_map(|run| run.curves.keys()).filter_map(|name| name.strip_prefix(prefix)).collect()
    };
    let Some(prefix) = ACCURACY_OF_TASK.into_iter().find(|prefix| !tasks(prefix).is_empty()) else { return Ok(None) };
    let title = "Share of pairs in the right order by task";
    bars("tasks", title, "share", Some(0.5), &tasks(prefix), arms, |run, task| {
        at_end(&runs[run], &format!("{prefix}{task}"))
    })
}

fn score_bars(runs: &[RunData], arms: &[Arm]) -> Result<Option<ReportPlot>> {
    let groups = ALL_PROMPTS;
    let of = |run: &RunData, group: &str| {
        let score = run.scores.iter().find(|score| score.task.as_deref().unwrap_or(groups) == group)?;
        Some(score.after)
    };
    let tasks: BTreeSet<&str> =
        runs.iter().flat_map(|run| &run.scores).map(|score| score.task.as_deref().unwrap_or(groups)).collect();
    bars("scores", "Score on held-out prompts", "score", None, &tasks, arms, |run, group| of(&runs[run], group))
}

/// Most bars of benchmarks that are drawn; the table has them all.
const BENCHMARK_BARS: usize = 60;

/// Bars of the benchmarks whose scores are shares.
fn benchmark_bars(runs: &[RunData], arms: &[Arm]) -> Result<Option<ReportPlot>> {
    let figures = crate::report::figures::benchmarks(runs, arms);
    let is_share = |value: &&(f64, f64)| (0.0..=1.0).contains(&value.0);
    let all_shares = |figure: &&crate::report::figures::Figure| {
        figure.of_arms.iter().flatten().count() == figure.of_arms.iter().flatten().filter(is_share).count()
    };
    let mut bars = Vec::new();
    for figure in figures.iter().filter(all_shares) {
        for (arm, value) in arms.iter().zip(&figure.of_arms) {
            bars.extend(value.map(|(value, half_width)| Bar {
                group: figure.title.clone(),
                series: arm.name.clone(),
                value,
                interval: Some([value - half_width, value + half_width]),
            }));
        }
    }
    if bars.is_empty() || bars.len() > BENCHMARK_BARS {
        return Ok(None);
    }
    let values: Vec<String> =
        bars.iter().map(|bar| format!("{}, {}: {}", bar.group, bar.series, crate::html::number(bar.value))).collect();
    let label = format!("Benchmarks: {}", values.join("; "));
    let panel = BarPanel { title: "Benchmarks".to_owned(), x: "score".to_owned(), bars, mark: None };
    let svg = bars_svg(&panel)?;
    Ok(Some(ReportPlot { name: "benchmarks".to_owned(), section: Section::Benchmarks, label, svg }))
}

fn bars(
    name: &str,
    title: &str,
    x: &str,
    mark: Option<f64>,
    groups: &BTreeSet<&str>,
    arms: &[Arm],
    of: impl Fn(usize, &str) -> Option<f64>,
) -> Result<Option<ReportPlot>> {
    let mut bars = Vec::new();
    for group in groups {
        for arm in arms {
            let found = over_runs(arm.runs.iter().filter_map(|run| of(*run, group)).collect());
            let label = if group.is_empty() { "(none)" } else { group };
            bars.extend(found.map(|(value, half_width)| Bar {
                group: label.to_owned(),
                series: arm.name.clone(),
                value,
                interval: Some([value - half_width, value + half_width]),
            }));
        }
    }
    if bars.is_empty() {
        return Ok(None);
    }
    let values: Vec<String> =
        bars.iter().map(|bar| format!("{}, {}: {}", bar.group, bar.series, crate::html::number(bar.value))).collect();
    let label = format!("{title}: {}", values.join("; "));
    let panel = BarPanel { title: title.to_owned(), x: x.to_owned(), bars, mark };
    Ok(Some(ReportPlot { name: name.to_owned(), section: Section::Categories, label, svg: bars_svg(&panel)? }))
}

fn length_scatter(runs: &[RunData], arms: &[Arm]) -> Result<Option<ReportPlot>> {
    let of = |run: usize| {
        let figures = runs[run].alpaca.as_ref()?;
        Some((figures.avg_length?, figures.win_rate?))
    };
    let points = arms.iter().flat_map(|arm| arm.runs.iter().filter_map(|run| Some((&arm.name, of(*run)?))));
    let dots: Vec<Dot> = points.map(|(name, at)| Dot { series: name.clone(), at }).collect();
    if dots.is_empty() {
        return Ok(None);
    }
    let values: Vec<String> =
        dots.iter().map(|dot| format!("{}: {:.0} characters, {:.1} %", dot.series, dot.at.0, dot.at.1)).collect();
    let label = format!("Length of the responses against win rate: {}", values.join("; "));
    let panel = ScatterPanel {
        title: "Length against win rate".to_owned(),
        x: "characters of a response".to_owned(),
        y: "win rate, %".to_owned(),
        dots,
    };
    Ok(Some(ReportPlot { name: "length".to_owned(), section: Section::Length, label, svg: scatter_svg(&panel)? }))
}

/// Makes the name of a file from that of a metric.
fn file_name(metric: &str) -> String {
    metric.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_hold_means() {
        let points: Vec<(f64, f64)> = (0..2000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let found = stretches(&points, (0.0, 1999.0));
        assert!(found[1..199].iter().all(|mean| (mean.unwrap() - 0.5).abs() < 0.1));
        let few = stretches(&[(0.0, 1.0), (5.0, f64::NAN), (10.0, 3.0)], (0.0, 10.0));
        assert_eq!((few[0], few[100], few[199]), (Some(1.0), None, Some(3.0)));
        assert_eq!(stretches(&[(7.0, 1.0)], (7.0, 7.0))[0], Some(1.0));
    }

    #[test]
    fn bands_reach_from_the_lowest_to_the_highest() {
        let line = |value| vec![Some(value); STRETCHES];
        let (points, band) = over_seeds(&[line(1.0), line(2.0)], (1.0, 2.0));
        assert_eq!((points[0], band[0]), ((1.0, 1.5), (1.0, 1.0, 2.0)));
        assert_eq!(file_name("rewards/margins@on policy"), "rewards-margins-on-policy");
    }
}
