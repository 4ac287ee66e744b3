//! Report of a finished run: plots, a page with all of them, a model card.

use simplemix_eval::html::{self, escape, number};
use simplemix_eval::markdown::{block, code, text};
use simplemix_eval::plot::{Panel, Series, svg};
use simplemix_eval::{Curves, read_curves};
use simplemix_files::AtomicFolder;

use crate::config::{Objective, TrainConfig};
use crate::error::Result;
use crate::pairs::PairSet;
use crate::run_folder::RunFolder;

/// File name, title and metrics of a plot. Metrics that end in `@` are shown for each source.
struct Plot {
    name: &'static str,
    title: &'static str,
    metrics: &'static [&'static str],
    smooth: bool,
}

const PLOTS: &[Plot] = &[
    Plot { name: "loss", title: "Loss", metrics: &["loss", "eval_loss"], smooth: true },
    Plot {
        name: "margins",
        title: "Reward margin",
        metrics: &["rewards/margins", "rewards/margins@", "margin"],
        smooth: true,
    },
    Plot {
        name: "accuracies",
        title: "Share of pairs in the right order",
        metrics: &["rewards/accuracies", "rewards/accuracies@", "accuracy"],
        smooth: true,
    },
    Plot {
        name: "logps",
        title: "Log-probability of a response",
        metrics: &["logps/chosen", "logps/rejected"],
        smooth: true,
    },
    Plot {
        name: "lengths",
        title: "Tokens of a response",
        metrics: &["lengths/chosen", "lengths/rejected"],
        smooth: true,
    },
    Plot { name: "kl", title: "KL divergence to the reference (nats)", metrics: &["kl"], smooth: true },
    Plot {
        name: "completions",
        title: "Tokens of a sampled response",
        metrics: &["completions/mean_length"],
        smooth: true,
    },
    Plot { name: "shares", title: "Share of the batch", metrics: &["share@"], smooth: false },
    Plot { name: "entropy", title: "Entropy of a token", metrics: &["entropy"], smooth: true },
    Plot { name: "grad_norm", title: "Gradient norm", metrics: &["grad_norm"], smooth: true },
    Plot { name: "learning_rate", title: "Learning rate", metrics: &["learning_rate"], smooth: false },
];

/// Writes `plots/*.svg`, `report.html` and the model's `README.md` into the folder of a finished run.
///
/// # Errors
/// [`crate::Error::Report`] if the metrics cannot be read or drawn, [`crate::Error::Files`].
pub(crate) fn write(folder: &RunFolder, config: &TrainConfig, train: &PairSet) -> Result<()> {
    let curves = read_curves(&folder.metrics_file())?;
    let plots = AtomicFolder::create(folder.path().join("plots"))?;
    let mut figures = String::new();
    for plot in PLOTS {
        let series = series(plot, &curves);
        if series.is_empty() {
            continue;
        }
        let (title, x) = (plot.title.to_owned(), "update".to_owned());
        let drawn = svg(&[Panel { title, x, series, smooth: plot.smooth, baseline: None }])?;
        plots.write(format!("{}.svg", plot.name), &drawn)?;
        let label = format!("{} over the updates", plot.title);
        figures.push_str(&html::figure(&drawn, &label, ""));
    }
    plots.commit()?;
    let settings = config.to_toml()?;
    folder.write("report.html", &page(folder, &curves, &settings, train, &figures))?;
    folder.write("model/README.md", &card(config, &curves, &settings, train))
}

fn series(plot: &Plot, curves: &Curves) -> Vec<Series> {
    let mut series = Vec::new();
    for metric in plot.metrics {
        let is_shown = |name: &str| match metric.strip_suffix('@') {
            Some(_) => name.strip_prefix(metric).is_some_and(|source| !source.starts_with("task:")),
            None => name == *metric,
        };
        let found = curves.iter().filter(|(name, _)| is_shown(name));
        series.extend(found.map(|(name, points)| Series { name: name.clone(), points: points.clone() }));
    }
    series
}

fn last(curves: &Curves, name: &str) -> Option<f64> {
    curves.get(name)?.last().map(|(_, value)| *value)
}

/// Names and last values of all metrics, those of evaluations first.
fn last_values(curves: &Curves) -> Vec<(&str, f64)> {
    let all = curves.keys().filter_map(|name| Some((name.as_str(), last(curves, name)?)));
    let (mut first, rest): (Vec<_>, Vec<_>) = all.partition(|(name, _)| name.starts_with("eval_"));
    first.extend(rest);
    first
}

fn page(folder: &RunFolder, curves: &Curves, settings: &str, train: &PairSet, figures: &str) -> String {
    // Folders such as `.` have no name.
    let name = folder.path().file_name().unwrap_or_default().to_string_lossy();
    let row = |(name, value)| format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(name), number(value));
    let rows: String = last_values(curves).into_iter().map(row).collect();
    let share = |(source, pairs, share)| format!("<li>{}: {pairs} pairs, {share:.4}</li>\n", escape(source));
    let shares: String = train.shares().into_iter().map(share).collect();
    let body = format!(
        "<h1>{}</h1>\n<p>Trained on {}:</p>\n<ul>\n{shares}</ul>\n\
        <section aria-label=\"Curves\" class=\"figures\">\n{figures}</section>\n\
        <section>\n<h2>Last values</h2>\n<table>\n<tbody>\n{rows}</tbody>\n</table>\n</section>\n\
        <section>\n<h2>Settings</h2>\n<pre tabindex=\"0\">{}</pre>\n</section>\n",
        escape(&name),
        escape(&train.summary()),
        escape(settings),
    );
    html::page(&name, &body)
}

/// Model card in the form of the Hugging Face hub.
fn card(config: &TrainConfig, curves: &Curves, settings: &str, train: &PairSet) -> String {
    let base = config.model.as_deref().map(simplemix_model::model_name).unwrap_or_default();
    let how = match config.objective {
        Objective::Preference => {
            format!(
                "preference training with the {} loss (beta {})",
                code(&config.loss.name.to_string()),
                config.loss.beta
            )
        }
        Objective::Sft => "supervised fine-tuning on the chosen responses".to_owned(),
        Objective::Reward => "training as a reward model".to_owned(),
    };
    let source = |(source, pairs, share)| format!("| {} | {pairs} | {share:.4} |\n", code(source));
    let sources: String = train.shares().into_iter().map(source).collect();
    let evaluation = last_values(curves).into_iter().filter(|(name, _)| name.starts_with("eval_"));
    let mut values: String =
        evaluation.map(|(name, value)| format!("| {} | {} |\n", code(name), number(value))).collect();
    if values.is_empty() {
        values.push_str("| no held-out pairs | |\n");
    }
    format!(
        "---\ntags:\n- simplemix\n- {tag}\n---\n\n# {base}, after {how}\n\nMade by simplemix {version} from {base}, on {pairs}.\n\n\
        | source | pairs | share |\n| --- | --- | --- |\n{sources}\n\
        | held-out metric | value |\n| --- | --- |\n{values}\n## Settings\n\n{settings}",
        tag = if config.objective == Objective::Preference { "dpo" } else { "preference-data" },
        version = env!("CARGO_PKG_VERSION"),
        base = code(&base),
        pairs = text(&train.summary()),
        settings = block("toml", settings),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_its_plots_and_no_foreign_markup() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("a<b")).unwrap();
        let lines: String = (1..9)
            .map(|step| {
                format!(
                    "{{\"step\":{step},\"loss\":{},\"share@on<i>\":0.5,\"grad_norm\":null}}\n",
                    1.0 / f64::from(step)
                )
            })
            .collect();
        folder.write("metrics.jsonl", &lines).unwrap();
        std::fs::create_dir(folder.model()).unwrap();
        write(&folder, &TrainConfig::default(), &PairSet::default()).unwrap();
        let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
        assert_eq!(page.matches("<figure").count(), 2);
        assert!(page.contains("<title>a&lt;b</title>") && !page.contains("<i>") && !page.contains("{rows}"));
        assert!(!page.contains("http://") || page.matches("http").count() == page.matches("www.w3.org").count());
        let card = std::fs::read_to_string(folder.model().join("README.md")).unwrap();
        assert!(card.starts_with("---\ntags:") && card.contains("`sigmoid` loss (beta 0.1)"));
        assert!(folder.path().join("plots/loss.svg").is_file() && !folder.path().join("plots/grad_norm.svg").exists());
    }
}
