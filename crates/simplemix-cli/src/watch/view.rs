//! The view as lines of text.

use std::time::Duration;

use simplemix_eval::html::number;
use simplemix_eval::plain::clean_line;

use super::stages::{Stage, StageState};
use super::state::{State, Training};

/// Metrics that are shown where none are named, the first that the run has of each line.
const USUAL: [&[&str]; 8] = [
    &["loss"],
    &["rewards/margins", "margin"],
    &["rewards/accuracies", "accuracy"],
    &["kl"],
    &["grad_norm"],
    &["eval_loss"],
    &["eval_rewards/margins", "eval_margin"],
    &["eval_rewards/accuracies", "eval_accuracy"],
];
/// Beginnings of the metrics that are also shown for each source.
const BY_SOURCE: [&str; 2] = ["rewards/margins@", "rewards/accuracies@"];
/// Most stages that are shown; of more, the last.
const STAGES: usize = 14;
/// Most characters of a curve.
const CURVE: usize = 40;

/// The whole view.
pub(super) fn lines(state: &State<'_>, metrics: &[String], columns: usize) -> Vec<String> {
    let mut lines = vec![head(state)];
    lines.extend(stages(&state.stages));
    if let Some(training) = state.training {
        if !state.stages.is_empty() {
            lines.push(String::new());
            lines.push(format!("training in {}", training.folder.display()));
        }
        lines.push(progress(training, columns));
        lines.extend(values(training, metrics, columns));
        lines.extend(training.ranks.iter().map(|(name, last)| format!("{name}: {last}")));
        lines.extend(training.notices.iter().map(|notice| format!("note: {notice}")));
    }
    lines.iter().map(|line| cut(&clean_line(line), columns)).collect()
}

/// The state in one line.
pub(super) fn line(state: &State<'_>) -> String {
    let running =
        state.stages.iter().filter(|stage| stage.state == StageState::Running).map(|stage| stage.name.as_str());
    let running: Vec<&str> = running.collect();
    let mut parts = Vec::new();
    if !state.stages.is_empty() {
        let done = state.stages.iter().filter(|stage| matches!(stage.state, StageState::Done(_))).count();
        parts.push(format!("{done} of {} begun stages done", state.stages.len()));
        if !running.is_empty() {
            parts.push(format!("at work: {}", running.join(", ")));
        }
    }
    if let Some(training) = state.training {
        parts.push(updates(training));
        for name in ["loss", "rewards/margins", "rewards/accuracies"] {
            parts.extend(training.metrics.recent(name, 10).map(|value| format!("{name} {}", number(value))));
        }
        parts.extend(
            training
                .seconds_left()
                .filter(|_| !training.is_finished)
                .map(|left| format!("about {} left", duration(left))),
        );
    }
    clean_line(&format!("{}: {}", state.path.display(), parts.join(", "))).into_owned()
}

fn head(state: &State<'_>) -> String {
    let what = match &state.holder {
        _ if state.has_ended() => "done".to_owned(),
        Some(holder) => format!("running, {holder}"),
        None if state.stages.iter().any(|stage| stage.state == StageState::Running) => "running".to_owned(),
        None if state.stages.is_empty() => "stopped; the command that trained continues it with --resume".to_owned(),
        None => "stopped; the same command continues it".to_owned(),
    };
    format!("{}: {what}", state.path.display())
}

fn stages(stages: &[Stage]) -> Vec<String> {
    let width = stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0);
    let line = |stage: &Stage| {
        let (mark, said) = match &stage.state {
            StageState::Done(seconds) => ("✓", seconds.map_or(String::new(), duration)),
            StageState::Running => ("▸", "at work".to_owned()),
            StageState::Stopped => ("·", "begun".to_owned()),
        };
        format!("  {mark} {:<width$}  {said}", stage.name).trim_end().to_owned()
    };
    let left_out = stages.len().saturating_sub(STAGES);
    let mut lines: Vec<String> = Vec::new();
    if left_out > 0 {
        lines.push(format!("  … {left_out} more"));
    }
    lines.extend(stages[left_out..].iter().map(line));
    lines
}

fn updates(training: &Training) -> String {
    let done = training.metrics.step;
    training.steps.map_or_else(|| format!("update {done}"), |steps| format!("update {done} of {steps}"))
}

/// Bar, updates, time left, speed, checkpoint.
fn progress(training: &Training, columns: usize) -> String {
    let share = training.steps.map(|steps| training.metrics.step as f64 / steps.max(1) as f64);
    let bar = share.map_or(String::new(), |share| {
        let width = (columns / 4).clamp(8, 30);
        let done = ((share * width as f64) as usize).min(width);
        format!("[{}{}] {:.0} %, ", "=".repeat(done), " ".repeat(width - done), 100.0 * share.min(1.0))
    });
    let mut parts = vec![updates(training)];
    if !training.is_finished {
        parts.extend(training.seconds_left().map(|left| format!("about {} left", duration(left))));
    }
    parts.extend(training.metrics.recent("tokens_per_second", 10).map(|speed| format!("{speed:.0} tokens/s")));
    parts.extend(training.checkpoint.map(|step| format!("checkpoint of update {step}")));
    bar + &parts.join(", ")
}

/// A line for each metric: its mean over the last ten updates, or the last value of an evaluation, and its curve.
fn values(training: &Training, wanted: &[String], columns: usize) -> Vec<String> {
    let curves = &training.metrics.curves;
    let names: Vec<&str> = match wanted.is_empty() {
        false => wanted.iter().map(String::as_str).collect(),
        true => {
            let usual = USUAL.iter().filter_map(|names| names.iter().find(|name| curves.contains_key(**name)).copied());
            let of_sources = |name: &&String| {
                let source = BY_SOURCE.iter().find_map(|start| name.strip_prefix(start));
                source.is_some_and(|source| !source.starts_with("task:"))
            };
            usual.chain(curves.keys().filter(of_sources).map(String::as_str)).collect()
        }
    };
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let line = |name: &str| {
        let Some(points) = curves.get(name) else {
            return format!("  {name:<width$}  no such metric in metrics.jsonl");
        };
        let recent = if name.starts_with("eval_") { 1 } else { 10 };
        let value = training.metrics.recent(name, recent).map_or(String::new(), number);
        let room = columns.saturating_sub(width + 18).clamp(8, CURVE);
        format!("  {name:<width$}  {value:>10}  {}", spark(points, room))
    };
    names.into_iter().map(line).collect()
}

const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A curve in one line of text, of means over equal stretches of its points.
fn spark(points: &[(f64, f64)], width: usize) -> String {
    let values: Vec<f64> = points.iter().map(|(_, value)| *value).filter(|value| value.is_finite()).collect();
    let count = values.len().min(width);
    let means: Vec<f64> = (0..count)
        .map(|at| {
            let part = &values[at * values.len() / count..(at + 1) * values.len() / count];
            part.iter().sum::<f64>() / part.len() as f64
        })
        .collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let step = |mean: &f64| match high > low {
        true => STEPS[(((mean - low) / (high - low) * 7.0).round() as usize).min(7)],
        false => STEPS[3],
    };
    means.iter().map(step).collect()
}

fn duration(seconds: f64) -> String {
    let whole = Duration::from_secs_f64(seconds.clamp(0.0, 1e9)).as_secs();
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A line that fits the terminal, so that none is wrapped.
fn cut(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    line.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_rise_and_fall_in_eight_steps() {
        let points: Vec<(f64, f64)> = (0..8).map(|i| (f64::from(i), f64::from(i))).collect();
        assert_eq!(spark(&points, 40), "▁▂▃▄▅▆▇█");
        assert_eq!(spark(&points, 2), "▁█");
        assert_eq!(spark(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0)], 5), "▄▄");
        assert_eq!(spark(&[], 5), "");
    }

    #[test]
    fn times_and_long_lines_are_short() {
        assert_eq!(
            (duration(59.9), duration(61.0), duration(7260.0)),
            ("59 s".into(), "1 min 1 s".into(), "2 h 1 min".into())
        );
        assert_eq!((cut("abcdef", 4), cut("äöü", 3)), ("abc…".into(), "äöü".into()));
    }
}
