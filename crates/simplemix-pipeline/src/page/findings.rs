//! Sentences about a pipeline that its reader should see first.

use crate::report::StageReport;
use crate::summary::{Evaluation, Summary};

use super::{mixtures, percent};

/// Share of cut responses from which on a finding says so.
const MANY_CUT: f64 = 0.1;
/// Share of prompts without a pair from which on a finding says so.
const MANY_WITHOUT: f64 = 0.2;
/// Difference from the share that was asked for from which on a finding says so.
const STRAY: f64 = 0.01;
/// Probability below which a difference is called more than chance.
const LEVEL: f64 = 0.05;

pub(super) fn of(summary: &Summary) -> Vec<String> {
    let mut found = scores(&summary.evaluation);
    found.extend(cut(summary));
    for stage in &summary.stages {
        let StageReport::Pair(report) = &stage.report else { continue };
        let without = report.prompts.saturating_sub(report.paired);
        if without as f64 > MANY_WITHOUT * report.prompts as f64 {
            let reasons = report.dropped.iter().map(|(reason, count)| format!("{count}: {}", reason.name()));
            found.push(format!(
                "{}: {} of {} prompts gave a pair; the others did not (prompts by reason: {})",
                stage.stage,
                report.paired,
                report.prompts,
                reasons.collect::<Vec<_>>().join("; ")
            ));
        }
    }
    for mixture in mixtures(summary) {
        let strays = mixture.sources.iter().filter(|source| (source.share - source.asked).abs() > STRAY);
        found.extend(strays.map(|source| {
            format!("{}: {} of the pairs, asked were {}", source.name, percent(source.share), percent(source.asked))
        }));
    }
    found
}

/// Stages with many responses that were cut.
fn cut(summary: &Summary) -> Option<String> {
    let many = summary.stages.iter().filter_map(|stage| match &stage.report {
        StageReport::Generate(report) if report.cut as f64 > MANY_CUT * report.candidates as f64 => {
            Some(format!("{} {} of {}", stage.stage, report.cut, report.candidates))
        }
        _ => None,
    });
    let many: Vec<String> = many.collect();
    (!many.is_empty()).then(|| {
        format!(
            "Responses that reached the limit of new tokens and were cut: {}. `max_new_tokens` raises the limit; \
             `collect.select.finished = true` keeps cut responses out of pairs",
            many.join(", ")
        )
    })
}

/// The scores after the last round against those before, over all prompts and by task.
fn scores(lines: &[Evaluation]) -> Vec<String> {
    let Some(last) = lines.last() else { return Vec::new() };
    let after = lines.iter().filter(|line| line.when == last.when);
    after
        .filter_map(|after| {
            against(lines.iter().find(|line| line.when != after.when && line.task == after.task)?, after)
        })
        .collect()
}

fn against(before: &Evaluation, after: &Evaluation) -> Option<String> {
    let (better, worse, p) = (after.better?, after.worse?, after.p_value?);
    let where_ = after.task.as_ref().map_or("Over all held-out prompts".to_owned(), |task| format!("On {task}"));
    let verdict = match p < LEVEL {
        true if better > worse => "better, by more than chance",
        true => "worse, by more than chance",
        false => "which may be chance",
    };
    Some(format!(
        "{where_} the mean score went from {:.3} to {:.3}: {better} responses better, {worse} worse of {}, {verdict} (p = {})",
        before.mean_score,
        after.mean_score,
        after.prompts,
        probability(p)
    ))
}

fn probability(p: f64) -> String {
    if p < 0.001 { "below 0.001".to_owned() } else { format!("{p:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(when: &str, mean_score: f64, split: Option<(u64, u64, f64)>) -> Evaluation {
        Evaluation {
            when: when.to_owned(),
            prompts: 64,
            mean_score,
            better: split.map(|(better, ..)| better),
            worse: split.map(|(_, worse, _)| worse),
            p_value: split.map(|(.., p)| p),
            ..Evaluation::default()
        }
    }

    #[test]
    fn a_difference_is_told_with_its_chance() {
        let found = scores(&[line("before", 0.25, None), line("after", 0.5, Some((20, 4, 0.0015)))]);
        let expected = "Over all held-out prompts the mean score went from 0.250 to 0.500: 20 responses better, 4 worse of 64, better, \
                        by more than chance (p = 0.002)";
        assert_eq!(found, [expected]);
        let found = scores(&[line("before", 0.25, None), line("after", 0.2, Some((5, 8, 0.58)))]);
        assert!(found[0].ends_with("which may be chance (p = 0.580)"), "{found:?}");
        assert!(scores(&[line("before", 0.25, None)]).is_empty());
    }
}
