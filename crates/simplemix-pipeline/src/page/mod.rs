//! The report of a pipeline as a page: what came out, what the reader should know, the responses before and after, the mixture, the
//! training, sample pairs, stages, settings.

mod curves;
mod evaluation;
mod findings;
mod mixture;
mod pairs;
mod responses;
mod stages;
mod text;

use std::path::{Path, PathBuf};

use simplemix_eval::html::{Section, Tile, document, escape, notices, tiles};
use simplemix_eval::read_curves;

use crate::error::Result;
use crate::plan::{Job, Plan};
use crate::report::StageReport;
use crate::settings::PipelineSettings;
use crate::summary::Summary;

/// The page as HTML, to be written to `output`.
pub(crate) fn report(output: &Path, settings: &PipelineSettings, plan: &Plan, summary: &Summary) -> Result<String> {
    let name = output.file_name().map_or_else(|| output.display().to_string(), |name| name.to_string_lossy().into());
    let runs = policies(plan).into_iter().map(|run| Ok((run, read_curves(&run.join("metrics.jsonl"))?)));
    let runs = runs.collect::<Result<Vec<_>>>()?;
    let introduction = format!(
        "<p class=\"lead\">{}</p>\n<p>Result: <code>{}</code></p>\n{}{}{}",
        escape(&lead(settings, summary)),
        escape(&summary.model.display().to_string()),
        tiles(&figures(summary)),
        notices("Findings", &findings::of(summary)),
        notices("Notices", &all_notices(summary)),
    );
    let settings = format!(
        "<details><summary>Every setting</summary>\n<pre tabindex=\"0\">{}</pre></details>\n",
        escape(&settings.to_toml()?)
    );
    let sections = [
        Section::new("evaluation", "Evaluation", evaluation::html(&summary.evaluation)?),
        Section::new("responses", "Responses before and after", responses::html(plan)?),
        Section::new("mixture", "Mixture", mixture::html(summary, runs.last().map(|(_, curves)| curves))?),
        Section::new("training", "Training", curves::html(output, &runs)?),
        Section::new("pairs", "Sample pairs", pairs::html(plan)?),
        Section::new("stages", "Stages", stages::html(output, plan, summary)),
        Section::new("settings", "Settings", settings),
    ];
    Ok(document(&format!("{name}: pipeline"), &introduction, &sections))
}

/// The pipeline in a sentence.
fn lead(settings: &PipelineSettings, summary: &Summary) -> String {
    let model = settings.model.as_deref().map(simplemix_model::model_name).unwrap_or_default();
    let pairs: u64 = trainings(summary).map(|training| training.pairs).sum();
    let rounds = match settings.rounds {
        1 => String::new(),
        rounds => format!(" in {rounds} rounds"),
    };
    let from = match mixtures(summary).last() {
        None => String::new(),
        Some(mixture) => {
            let share = |source: &simplemix_mix::SourceAchieved| format!("{} {}", source.name, percent(source.share));
            format!(" ({})", mixture.sources.iter().map(share).collect::<Vec<_>>().join(", "))
        }
    };
    let loss = &settings.train.loss;
    format!("{model}, trained on {pairs} pairs{from}{rounds} with the {} loss, beta {}.", loss.name, loss.beta)
}

/// Large figures: the score before and after, the accuracy of rewards, pairs and time.
fn figures(summary: &Summary) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let all: Vec<_> = summary.evaluation.iter().filter(|line| line.task.is_none()).collect();
    if let [before, .., after] = all.as_slice() {
        let short = |score: f64| format!("{score:.3}");
        let note = format!("{} before, {} prompts", short(before.mean_score), after.prompts);
        tiles.push(Tile::new("Mean score after training", short(after.mean_score), note));
        if let Some(kl) = after.kl {
            let error = after.kl_standard_error.filter(|error| error.is_finite());
            let error = error.map_or(String::new(), |error| format!("± {error:.2} standard error"));
            tiles.push(Tile::new("KL to the start, nats a response", format!("{kl:.2}"), error));
        }
    }
    if let Some(training) = trainings(summary).last() {
        let known = [
            ("eval_rewards/accuracies", "Held-out pairs in the right order"),
            ("rewards/accuracies", "Training pairs in the right order"),
            ("eval_accuracy", "Held-out pairs in the right order"),
        ];
        let found = known.iter().find_map(|(metric, label)| Some((label, training.last.get(*metric)?)));
        if let Some((label, value)) = found {
            let of_updates =
                if training.updates == 1 { "1 update".to_owned() } else { format!("{} updates", training.updates) };
            tiles.push(Tile::new(label, percent(*value), of_updates));
        }
    }
    let seconds: f64 = summary.stages.iter().map(|stage| stage.seconds).sum();
    tiles.push(Tile::new("Time of all stages", text::duration(seconds), ""));
    tiles
}

/// A share as a percentage.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if (percent - percent.round()).abs() < 0.05 { format!("{percent:.0} %") } else { format!("{percent:.1} %") }
}

fn trainings(summary: &Summary) -> impl Iterator<Item = &crate::report::TrainReport> {
    let of_policy = summary.stages.iter().filter(|stage| stage.kind() == "train");
    of_policy.filter_map(|stage| if let StageReport::Train(report) = &stage.report { Some(report) } else { None })
}

fn mixtures(summary: &Summary) -> impl Iterator<Item = &simplemix_mix::Achieved> {
    summary
        .stages
        .iter()
        .filter_map(|stage| if let StageReport::Mix(report) = &stage.report { Some(report) } else { None })
}

/// Notices of all stages, each once.
fn all_notices(summary: &Summary) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for stage in &summary.stages {
        let notices: &[String] = match &stage.report {
            StageReport::Generate(report) => &report.notices,
            StageReport::Pool(report) => &report.notices,
            StageReport::Score(report) => &report.notices,
            StageReport::Pair(report) => &report.notices,
            StageReport::Train(report) => &report.notices,
            _ => &[],
        };
        for text in notices.iter().filter(|text| !texts.contains(text)).cloned().collect::<Vec<_>>() {
            texts.push(text);
        }
    }
    texts
}

/// Run folders of the policy's trainings, in the order of the rounds.
fn policies(plan: &Plan) -> Vec<&PathBuf> {
    plan.stages
        .iter()
        .filter(|stage| stage.name.split('-').next() == Some("train"))
        .filter_map(|stage| if let Job::Train(config) = &stage.job { config.output.as_ref() } else { None })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_short() {
        assert_eq!((percent(0.5), percent(0.3333), percent(1.0)), ("50 %".into(), "33.3 %".into(), "100 %".into()));
    }
}
