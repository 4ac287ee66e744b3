//! The end of a training run: loss, accuracy and margin of its last updates and of its held-out pairs.

use std::collections::BTreeMap;
use std::path::Path;

use simplemix_eval::{Curves, at_end, read_curves};
use simplemix_train::{DEVICE_PEAK, Finished, Outcome};

use crate::failure::{Fails, Result};
use crate::lines::print;
use crate::progress::BESIDE_THE_BAR;

/// The end of a run, as it is shown and as JSON.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Closing {
    outcome: &'static str,
    model: std::path::PathBuf,
    report: std::path::PathBuf,
    /// Updates of the whole run, however often it was stopped.
    updates: u64,
    /// Means over the last tenth of the updates, then the last values of the evaluations, by the metrics' names.
    last: BTreeMap<String, f64>,
    /// Most memory that tensors held on the device, in GB; absent on a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_peak_memory_gb: Option<f64>,
    /// Address of the commit on the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pushed: Option<String>,
    notices: Vec<String>,
}

impl Closing {
    /// The end of a run whose model is written.
    pub(crate) fn of(finished: &Finished) -> Result<Self> {
        let folder = &finished.folder;
        let curves = read_curves(&folder.metrics_file()).run()?;
        let last = curves.keys().filter(|name| is_shown(name));
        let last = last.filter_map(|name| Some((name.clone(), at_end(&curves, name)?)));
        Ok(Self {
            outcome: match finished.outcome {
                Outcome::Finished => "finished",
                Outcome::StoppedEarly => "stopped early",
                Outcome::FinishedBefore => "finished before",
                Outcome::Stopped => "stopped",
            },
            model: folder.model(),
            report: folder.path().join("report.html"),
            updates: updates(&curves),
            last: last.collect(),
            device_peak_memory_gb: device_peak(&curves, finished.device_peak_bytes),
            pushed: finished.pushed.clone(),
            notices: folder.notices().run()?,
        })
    }

    /// Prints the end in words.
    pub(crate) fn print(&self) {
        match self.outcome {
            "stopped early" => print("stopped early: the evaluations had stopped getting better"),
            "finished before" => print("the run had finished; nothing was changed"),
            _ => {}
        }
        lines(self.updates, &self.last).iter().for_each(|line| print(line));
        if let Some(peak) = self.device_peak_memory_gb {
            print(&format!("device memory: at most {peak:.2} GB in tensors"));
        }
        print(&format!("model: {}", self.model.display()));
        print(&format!("report: {}", self.report.display()));
        if let Some(commit) = &self.pushed {
            print(&format!("pushed: {commit}"));
        }
    }
}

fn updates(curves: &Curves) -> u64 {
    curves.get("loss").and_then(|points| points.last()).map_or(0, |(step, _)| *step as u64)
}

/// The most memory on a device, in GB: of all updates, and of this process with what came after them.
fn device_peak(curves: &Curves, now: Option<u64>) -> Option<f64> {
    let of_updates = curves.get(DEVICE_PEAK).into_iter().flatten().map(|(_, peak)| *peak);
    of_updates.chain(now.map(|bytes| bytes as f64 / 1e9)).reduce(f64::max)
}

/// The name without the metric, such as `eval_` or `eval_math_`, and the metric's short name.
fn parts(name: &str) -> Option<(&str, &'static str)> {
    let found = BESIDE_THE_BAR.iter().find_map(|(metric, short)| Some((name.strip_suffix(metric)?, *short)));
    found.filter(|(prefix, _)| prefix.is_empty() || (prefix.starts_with("eval_") && prefix.ends_with('_')))
}

fn is_shown(name: &str) -> bool {
    parts(name).is_some()
}

/// `last tenth of 90 updates: loss 0.6012, margin 0.2101, accuracy 0.8750`, and such a line for each held-out set.
fn lines(updates: u64, last: &BTreeMap<String, f64>) -> Vec<String> {
    let mut of_prefix: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (metric, _) in BESIDE_THE_BAR {
        for (name, value) in last {
            if let Some((prefix, short)) = parts(name).filter(|(prefix, _)| name.len() == prefix.len() + metric.len()) {
                of_prefix.entry(prefix).or_default().push(format!("{short} {value:.4}"));
            }
        }
    }
    let line = |(prefix, values): (&str, Vec<String>)| {
        let head = match prefix.strip_prefix("eval_").map(|name| name.trim_end_matches('_')) {
            None => format!("last tenth of {updates} updates"),
            Some("") => "held-out pairs".to_owned(),
            Some(name) => format!("held-out pairs {name}"),
        };
        format!("{head}: {}", values.join(", "))
    };
    of_prefix.into_iter().map(line).collect()
}

/// The line that says how to go on with a run that was stopped.
pub(crate) fn how_to_go_on(folder: &Path) -> String {
    format!("stopped; go on with: simplemix train --resume {}", shell_word(folder))
}

/// A path as a word of a shell's command.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c));
    if is_plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_for_updates_and_for_each_held_out_set() {
        let names = [
            ("loss", 0.5),
            ("rewards/accuracies", 0.75),
            ("rewards/margins", 1.25),
            ("rewards/margins@on", 9.0),
            ("eval_loss", 0.625),
            ("eval_math_rewards/margins", -0.5),
            ("grad_norm", 3.0),
        ];
        let last: BTreeMap<String, f64> =
            names.iter().filter(|(name, _)| is_shown(name)).map(|(name, value)| ((*name).to_owned(), *value)).collect();
        assert_eq!(
            lines(90, &last),
            [
                "last tenth of 90 updates: loss 0.5000, margin 1.2500, accuracy 0.7500",
                "held-out pairs: loss 0.6250",
                "held-out pairs math: margin -0.5000",
            ]
        );
    }

    #[test]
    fn the_most_memory_on_a_device_is_told_where_there_is_one() {
        let mut curves = Curves::new();
        assert_eq!(device_peak(&curves, None), None);
        curves.insert(DEVICE_PEAK.to_owned(), vec![(1.0, 3.5), (2.0, 4.25)]);
        assert_eq!(device_peak(&curves, None), Some(4.25));
        assert_eq!(device_peak(&curves, Some(5_500_000_000)), Some(5.5));
    }

    #[test]
    fn a_folder_with_a_blank_is_one_word() {
        assert_eq!(how_to_go_on(Path::new("a b")), "stopped; go on with: simplemix train --resume 'a b'");
    }
}
