//! Curves of the trainings, one after the other where there are several rounds: loss, and margins and accuracies by source and task.

use std::path::{Path, PathBuf};

use simplemix_eval::Curves;
use simplemix_eval::html::{escape, figure};
use simplemix_eval::plot::{Panel, Series, svg};

use crate::error::Result;

/// Title of a panel, and the metrics that it shows: those of these names, or that begin with one that ends in `@` or `:`.
const PANELS: [(&str, &[&str]); 6] = [
    ("Loss", &["loss", "eval_loss"]),
    ("Reward margin by source", &["rewards/margins@"]),
    ("Reward margin by task", &["rewards/margins@task:"]),
    ("Share of pairs in the right order", &["rewards/accuracies", "eval_rewards/accuracies"]),
    ("Share in the right order by source", &["rewards/accuracies@"]),
    ("KL divergence to the reference (nats)", &["kl"]),
];

/// The part of the page, of the folders of the trainings and their curves.
pub(super) fn html(output: &Path, runs: &[(&PathBuf, Curves)]) -> Result<String> {
    let mut all = Curves::new();
    let mut offset = 0.0;
    for (_, curves) in runs {
        let last = curves.values().flatten().map(|(step, _)| *step).fold(0.0, f64::max);
        for (name, points) in curves {
            all.entry(name.clone()).or_default().extend(points.iter().map(|(step, value)| (step + offset, *value)));
        }
        offset += last;
    }
    let mut figures = String::new();
    for (title, metrics) in PANELS {
        let series = series(&all, metrics);
        if series.is_empty() {
            continue;
        }
        let panel = Panel { title: title.to_owned(), x: "update".to_owned(), series, smooth: true, baseline: None };
        figures.push_str(&figure(&svg(&[panel])?, &format!("{title} over the updates"), ""));
    }
    if figures.is_empty() {
        return Ok(figures);
    }
    let mut html = format!("<div class=\"figures\">\n{figures}</div>\n");
    for (round, (run, _)) in runs.iter().enumerate() {
        let name = if runs.len() > 1 {
            format!("Report of the training of round {}", round + 1)
        } else {
            "Report of the training".to_owned()
        };
        html.push_str(&format!(
            "<p><a href=\"{}\">{name}</a></p>\n",
            escape(&super::stages::address(&run.join("report.html"), output))
        ));
    }
    Ok(html)
}

fn series(curves: &Curves, metrics: &[&str]) -> Vec<Series> {
    let mut series = Vec::new();
    for metric in metrics {
        for (name, points) in curves {
            let label = match name.strip_prefix(metric) {
                Some("") => name.as_str(),
                // `rewards/margins@` is not for the tasks.
                Some(rest) if metric.ends_with(['@', ':']) && (metric.ends_with(':') || !rest.starts_with("task:")) => {
                    rest
                }
                _ => continue,
            };
            series.push(Series { name: label.to_owned(), points: points.clone() });
        }
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_tasks_have_panels_of_their_own() {
        let curves: Curves = ["rewards/margins", "rewards/margins@on", "rewards/margins@task:math"]
            .map(|name| (name.to_owned(), vec![(1.0, 1.0)]))
            .into();
        let names = |metrics: &[&str]| series(&curves, metrics).into_iter().map(|s| s.name).collect::<Vec<_>>();
        assert_eq!(names(&["rewards/margins@"]), ["on"]);
        assert_eq!(names(&["rewards/margins@task:"]), ["math"]);
        assert_eq!(names(&["rewards/margins"]), ["rewards/margins"]);
    }
}
