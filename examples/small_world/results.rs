//! Runs and their outcomes, a line of JSON each, in a file that is only ever appended to.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer, Serialize};

use crate::models::Model;

/// Everything that a run follows from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// Size of the models: 1m, 5m or smoke.
    pub(crate) size: String,
    /// Number of the pre-trained base; 0 is for tuning.
    pub(crate) base: u64,
    /// Whether the base was pre-trained for half as long.
    pub(crate) early: bool,
    /// Whether the writers of off-policy pairs have the policies' styles and letters.
    pub(crate) near: bool,
    /// Pairs to train on.
    pub(crate) pairs: usize,
    pub(crate) arm: String,
    pub(crate) seed: u64,
    /// Rate, epochs and beta; all 0 for the base itself.
    #[serde(flatten)]
    pub(crate) setting: Setting,
}

/// Setting that an arm is tuned over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// Peak learning rate.
    pub(crate) rate: f64,
    pub(crate) epochs: u64,
    /// Strength of DPO's hold to the reference.
    pub(crate) beta: f64,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:e} x {}, {}", self.rate, self.epochs, self.beta)
    }
}

impl Spec {
    pub(crate) fn base_model(&self) -> Model {
        if self.early { Model::Early(self.base) } else { Model::Base(self.base) }
    }

    pub(crate) fn writers(&self) -> [Model; 2] {
        if self.near { [Model::StrongNear, Model::OtherNear] } else { [Model::Strong, Model::Other] }
    }

    /// Whether two runs have their pairs and prompts in common.
    pub(crate) fn shares_pool(&self, other: &Self) -> bool {
        let of = |spec: &Self| Self { arm: String::new(), setting: Setting::default(), ..spec.clone() };
        of(self) == of(other)
    }
}

/// Figures of a run: means over the samples of its held-out prompts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Right reasoning answers in percent, and those to sums and reversals apart.
    pub(crate) right: f64,
    #[serde(deserialize_with = "or_nan")]
    pub(crate) right_sums: f64,
    #[serde(deserialize_with = "or_nan")]
    pub(crate) right_reversals: f64,
    /// Right reasoning answers of greedy decoding in percent.
    pub(crate) right_greedy: f64,
    /// Open-ended reward, times 100.
    pub(crate) open: f64,
    /// Divergence from the base in nats an answer, on answers that ended.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) kl_reasoning: f64,
    #[serde(deserialize_with = "or_nan")]
    pub(crate) kl_open: f64,
    /// Shares of the styles of reasoning answers in percent.
    pub(crate) direct: f64,
    pub(crate) chain: f64,
    pub(crate) columns: f64,
    /// Share of foreign letters in open-ended answers in percent.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) foreign: f64,
    /// Characters of an answer.
    pub(crate) length_reasoning: f64,
    pub(crate) length_open: f64,
    /// Share of answers that did not end in percent.
    pub(crate) cut: f64,
    /// Updates, and pairs of an epoch as they were found.
    pub(crate) updates: u64,
    pub(crate) pairs_found: usize,
    /// Prompts with an on-policy pair, and with an off-policy pair, of all that were asked, in percent.
    pub(crate) kept_on_reasoning: f64,
    pub(crate) kept_on_open: f64,
    pub(crate) kept_off_reasoning: f64,
    pub(crate) kept_off_open: f64,
}

/// A figure that there may be nothing to take it from, such as the divergence of answers of which none ended.
fn or_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

impl Outcome {
    /// Mean of both tasks.
    pub(crate) fn both(&self) -> f64 {
        (self.right + self.open) / 2.0
    }
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Part of the plan.
    pub(crate) stage: String,
    #[serde(flatten)]
    pub(crate) spec: Spec,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// Seconds of the run on one core; collecting pairs is counted in the first run of its seed.
    pub(crate) seconds: f64,
    /// Commit of the plan, and of the program.
    pub(crate) plan: String,
    pub(crate) program: String,
}

/// The file of results.
pub(crate) struct Results {
    path: PathBuf,
    rows: Mutex<Vec<Row>>,
}

impl Results {
    /// Reads the file, if it is there.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("{}: cannot read", path.display())),
        };
        let parse = |(number, line): (usize, &str)| {
            serde_json::from_str(line).with_context(|| {
                format!("{}: line {} is no result of this program; remove it", path.display(), number + 1)
            })
        };
        let rows = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse);
        Ok(Self { path: path.to_owned(), rows: Mutex::new(rows.collect::<Result<_>>()?) })
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        self.rows.lock().map(|rows| rows.clone()).unwrap_or_default()
    }

    pub(crate) fn has(&self, spec: &Spec) -> bool {
        self.rows.lock().is_ok_and(|rows| rows.iter().any(|row| row.spec == *spec))
    }

    /// Appends a line, and waits for the disk.
    pub(crate) fn add(&self, row: Row) -> Result<()> {
        let line = format!("{}\n", serde_json::to_string(&row)?);
        let mut rows = self.rows.lock().map_err(|_| anyhow::anyhow!("another lane has failed"))?;
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .with_context(|| format!("{}: cannot append", self.path.display()))?;
        file.write_all(line.as_bytes())?;
        file.sync_data()?;
        rows.push(row);
        Ok(())
    }
}
