//! Report of a finished run: plots, a page with all of them, a model card.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use simplemix_eval::html::{self, Cells, Section, Table, Tile, escape, number};
use simplemix_eval::markdown::{block, code, text};
use simplemix_eval::plot::{Panel, Series, svg};
use simplemix_eval::report::settings_by_key;
use simplemix_eval::{Curves, at_end, read_curves};
use simplemix_files::AtomicFolder;

use crate::config::{Objective, TrainConfig};
use crate::error::Result;
use crate::pairs::PairSet;
use crate::run_folder::RunFolder;

/// File name, title and metrics of a plot. Metrics that end in `@` are shown for each source, those in `@task:` for each task.
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
    Plot {
        name: "tasks",
        title: "Share in the right order by task",
        metrics: &["rewards/accuracies@task:"],
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
    folder.write("report.html", &page(folder, config, &curves, train, &figures)?)?;
    folder.write("model/README.md", &card(config, &curves, &settings, train))
}

fn series(plot: &Plot, curves: &Curves) -> Vec<Series> {
    let mut series = Vec::new();
    for metric in plot.metrics {
        let is_shown = |name: &str| match metric.strip_suffix(['@', ':']) {
            Some(_) if metric.ends_with(':') => name.starts_with(metric),
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

fn page(folder: &RunFolder, config: &TrainConfig, curves: &Curves, train: &PairSet, figures: &str) -> Result<String> {
    let name = name_of(folder.path());
    let introduction = format!(
        "<p class=\"lead\">{}</p>\n{}{}",
        escape(&lead(config, curves, train)),
        html::tiles(&tiles(curves, train)),
        html::notices("Notices", &folder.notices()?),
    );
    let curves_html = format!("<div class=\"figures\">\n{figures}</div>\n");
    let (main, rest) = at_the_end(curves);
    let rest = match rest.is_empty() {
        true => rest,
        false => format!("<details><summary>Other metrics</summary>\n{rest}</details>\n"),
    };
    let sections = [
        Section::new("data", "Data", data(train)),
        Section::new("curves", "Curves", curves_html),
        Section::new("end", "At the end", main + END + &rest),
        Section::new("settings", "Settings", settings(config)?),
    ];
    Ok(html::document(&name, &introduction, &sections))
}

const END: &str = "<p>Training metrics are means over the last tenth of the updates, those of held-out pairs last values. \
    Rewards are beta times the log-ratio of policy and reference.</p>\n";

/// Name of a run: that of its folder, or of the folder above where a stage of a pipeline has made it. Folders such as `.` have no name.
fn name_of(path: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match name(path) {
        Some(own) if own == "run" => path.parent().and_then(name).unwrap_or(own),
        own => own.unwrap_or_default(),
    }
}

/// The run in a sentence.
fn lead(config: &TrainConfig, curves: &Curves, train: &PairSet) -> String {
    let model = config.model.as_deref().map(simplemix_model::model_name).unwrap_or_default();
    let updates = curves.get("loss").and_then(|points| points.last()).map_or(0.0, |(step, _)| *step);
    format!("{model}, {} on {} pairs in {updates} updates.", how(config), train.len())
}

/// The objective in words.
fn how(config: &TrainConfig) -> String {
    match config.objective {
        Objective::Preference => format!("trained with the {} loss (beta {})", config.loss.name, config.loss.beta),
        Objective::Sft => "fine-tuned on the chosen responses".to_owned(),
        Objective::Reward => "trained as a reward model".to_owned(),
    }
}

/// Figures that are shown in large, the first of each line that the run has.
const TILES: [(&str, &[&str]); 3] = [
    ("Pairs in the right order", &["eval_rewards/accuracies", "eval_accuracy", "rewards/accuracies", "accuracy"]),
    ("Reward margin", &["eval_rewards/margins", "eval_margin", "rewards/margins", "margin"]),
    ("Loss", &["eval_loss", "loss"]),
];

fn tiles(curves: &Curves, train: &PairSet) -> Vec<Tile> {
    let tile = |(label, metrics): &(&str, &[&str])| {
        let (metric, value) = metrics.iter().find_map(|metric| Some((*metric, at_end(curves, metric)?)))?;
        let of = if metric.starts_with("eval_") { "held-out pairs" } else { "training pairs, last tenth" };
        Some(Tile::new(label, number(value), of))
    };
    let mut tiles: Vec<Tile> = TILES.iter().filter_map(tile).collect();
    let note = if train.cut > 0 { format!("{} cut at max_length", train.cut) } else { String::new() };
    tiles.push(Tile::new("Training pairs", train.len().to_string(), note));
    tiles
}

/// Sources with their shares, and pairs that were left out.
fn data(train: &PairSet) -> String {
    let mut table =
        Table::new("Sources", &[("Source", Cells::Text), ("Pairs", Cells::Numbers), ("Share", Cells::Numbers)]);
    for (source, pairs, share) in train.shares() {
        table.row([escape(source), pairs.to_string(), number(share)]);
    }
    format!("<p>{}.</p>\n{}", escape(&train.summary()), table.html())
}

/// Beginnings of the metrics that the first table shows.
const MAIN: [&str; 11] = [
    "loss",
    "rewards/",
    "accuracy",
    "margin",
    "logps/",
    "lengths/",
    "kl",
    "entropy",
    "mean_token_accuracy",
    "age/",
    "share",
];

/// Tables of the metrics at the end of the run, a row for each metric and a column for each source and task: the main ones, and the
/// others.
fn at_the_end(curves: &Curves) -> (String, String) {
    let split = |name: &str| {
        let (metric, of) = name.split_once('@').unwrap_or((name, ""));
        (metric.to_owned(), of.to_owned())
    };
    let mut rows: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    let mut of: BTreeSet<String> = BTreeSet::new();
    for name in curves.keys() {
        let (metric, part) = split(name);
        if let Some(value) = at_end(curves, name) {
            of.insert(part.clone());
            rows.entry(metric).or_default().insert(part, value);
        }
    }
    let heading = |part: &str| match part.strip_prefix("task:") {
        _ if part.is_empty() => "all".to_owned(),
        Some(task) => format!("task {task}"),
        None => part.to_owned(),
    };
    let table = |name: &str, wanted: &dyn Fn(&str) -> bool| {
        let mut table = Table::new(name, &[("metric", Cells::Text)]);
        of.iter().for_each(|part| table.column(&heading(part), Cells::Numbers));
        // Those of held-out pairs come first.
        let mut shown: Vec<_> = rows.iter().filter(|(metric, _)| wanted(metric)).collect();
        shown.sort_by_key(|(metric, _)| !metric.starts_with("eval_"));
        for (metric, values) in shown {
            let cell = |part: &String| values.get(part).map_or(String::new(), |value| number(*value));
            table.row(std::iter::once(escape(metric)).chain(of.iter().map(cell)));
        }
        table.html()
    };
    let is_main = |metric: &str| {
        let metric = metric.strip_prefix("eval_").unwrap_or(metric);
        MAIN.iter().any(|main| metric.starts_with(main))
    };
    (table("Metrics", &is_main), table("Other metrics", &|metric| !is_main(metric)))
}

/// Settings that are not the defaults, as a table, and all of them folded.
fn settings(config: &TrainConfig) -> Result<String> {
    let all = config.to_toml()?;
    let (own, usual) = (by_key(&all), by_key(&TrainConfig::default().to_toml()?));
    let mut table =
        Table::new("Settings", &[("setting", Cells::Text), ("value", Cells::Text), ("default", Cells::Text)]);
    for (key, value) in own.iter().filter(|(key, value)| usual.get(*key) != Some(*value)) {
        table.row([escape(key), escape(value), usual.get(key).map_or(String::new(), |value| escape(value))]);
    }
    Ok(format!(
        "<p>Settings other than the defaults:</p>\n{}<details><summary>Every setting</summary>\n<pre tabindex=\"0\">{}</pre></details>\n",
        table.html(),
        escape(&all)
    ))
}

/// Settings by key; all that are asked for were just written as TOML.
fn by_key(text: &str) -> BTreeMap<String, String> {
    settings_by_key(text).unwrap_or_default()
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
