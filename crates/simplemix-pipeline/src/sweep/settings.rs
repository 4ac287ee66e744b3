//! Settings of a sweep: the section `[sweep]` of a pipeline's file, and what the command line puts over it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use simplemix_settings::{merge, read};
use toml::{Table, Value};

use super::axis::Axis;
use super::metric::BestBy;
use crate::error::{Error, Result};
use crate::presets::layers;
use crate::settings::PipelineSettings;

/// Settings of a sweep, beside those of the pipeline that it varies.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct SweepSettings {
    /// Keys that vary.
    pub vary: Vec<Axis>,
    /// Metric by which the best run is found; if not set, the evaluation's score or, without one, the held-out accuracy.
    pub best_by: Option<BestBy>,
    /// Largest number of runs.
    pub max_runs: Option<usize>,
    /// Time that all runs may take together, in hours.
    pub max_hours: Option<f64>,
    /// Disk space that the sweep may take, in GB.
    pub max_disk_gb: Option<f64>,
    /// Models that stay; if not set, those of the best runs, or all where the stages' folder is shared with others.
    pub keep: Option<Keep>,
}

/// Models that stay when a sweep is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Those of the best values, one for each random seed.
    Best,
    /// All.
    All,
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(default)]
    vary: Table,
    best_by: Option<String>,
    max_runs: Option<usize>,
    max_hours: Option<f64>,
    max_disk_gb: Option<f64>,
    keep: Option<Keep>,
}

/// Name of the section in a pipeline's file.
pub(crate) const SECTION: &str = "sweep";

impl SweepSettings {
    /// Settings of the pipeline, as a table, and of the sweep: those of a preset or a file with `over` on top, as in
    /// [`PipelineSettings::resolve`]. The file may have a section `[sweep]`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`], [`Error::Setting`] and [`Error::Settings`].
    pub fn resolve(base: Option<&str>, file: Option<&Path>, over: Table) -> Result<(Table, Self)> {
        let mut table = layers(base, file)?;
        merge(&mut table, over);
        let sweep = match table.remove(SECTION) {
            None => Self::default(),
            Some(Value::Table(section)) => Self::from_table(section)?,
            Some(other) => return Err(Error::setting(SECTION, other, "a section")),
        };
        Ok((table, sweep))
    }

    fn from_table(section: Table) -> Result<Self> {
        let section: Section = read(section).map_err(|error| error.under(SECTION))?;
        let mut vary = Vec::new();
        axes("", section.vary, &mut vary)?;
        Ok(Self {
            vary,
            best_by: section.best_by.map(|text| text.parse()).transpose()?,
            max_runs: section.max_runs,
            max_hours: section.max_hours,
            max_disk_gb: section.max_disk_gb,
            keep: section.keep,
        })
    }

    /// Puts an axis in the place of that of the same key, or after the others.
    pub fn set_axis(&mut self, axis: Axis) {
        match self.vary.iter_mut().find(|known| known.key() == axis.key()) {
            Some(known) => *known = axis,
            None => self.vary.push(axis),
        }
    }

    /// The section as TOML.
    ///
    /// # Errors
    /// [`Error::Serialise`] if a number does not fit TOML.
    pub fn to_toml(&self) -> Result<String> {
        let wrong = Error::serialise("settings of a sweep");
        let whole = |number: usize| Value::try_from(number).map_err(|error| wrong(&error));
        let mut section = Table::new();
        let mut set = |key: &str, value: Option<Value>| value.map(|value| section.insert(key.to_owned(), value));
        set("best_by", self.best_by.as_ref().map(|best_by| best_by.to_string().into()));
        set("max_runs", self.max_runs.map(whole).transpose()?);
        set("max_hours", self.max_hours.map(Value::Float));
        set("max_disk_gb", self.max_disk_gb.map(Value::Float));
        set("keep", self.keep.map(Value::try_from).transpose().map_err(|error| wrong(&error))?);
        set("vary", Some(Value::Table(self.vary.iter().map(Axis::entry).collect())));
        let table = Table::from_iter([(SECTION.to_owned(), Value::Table(section))]);
        toml::to_string(&table).map_err(|error| wrong(&error))
    }

    /// Checks everything but the runs themselves, for a pipeline with these settings.
    pub(super) fn check(&self, base: &PipelineSettings) -> Result<()> {
        if self.vary.is_empty() {
            return Err(Error::setting("sweep.vary", "empty", "keys with the values to try, such as beta=0.05,0.1"));
        }
        if self.max_runs == Some(0) {
            return Err(Error::setting("sweep.max_runs", 0, "at least 1"));
        }
        for (key, value) in [("sweep.max_hours", self.max_hours), ("sweep.max_disk_gb", self.max_disk_gb)] {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value > 0.0)) {
                return Err(Error::setting(key, value, "a number above 0"));
            }
        }
        if self.keep == Some(Keep::Best) && base.stages.is_some() {
            let expected = "`all`, or no `stages`: others may need the models of a shared folder";
            return Err(Error::setting("sweep.keep", "`best` beside `stages`", expected));
        }
        Ok(())
    }

    /// Models that stay.
    pub(super) fn kept(&self, base: &PipelineSettings) -> Keep {
        self.keep.unwrap_or(if base.stages.is_some() { Keep::All } else { Keep::Best })
    }
}

/// Axes of a table of lists; keys may be nested, as TOML's dotted keys are.
fn axes(path: &str, table: Table, found: &mut Vec<Axis>) -> Result<()> {
    for (key, value) in table {
        let key = if path.is_empty() { key } else { format!("{path}.{key}") };
        match value {
            Value::Array(values) => found.push(Axis::new(&key, values)?),
            Value::Table(inner) => axes(&key, inner, found)?,
            other => {
                let found = simplemix_settings::toml_text(&other);
                return Err(Error::setting(&format!("sweep.vary.{key}"), found, "a list of values"));
            }
        }
    }
    match found.iter().enumerate().find(|(at, axis)| found[..*at].iter().any(|other| other.key() == axis.key())) {
        Some((_, twice)) => Err(Error::setting("sweep.vary", format!("`{}` twice", twice.key()), "each key once")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(section: &str) -> Result<SweepSettings> {
        let over = format!("[sweep]\n{section}").parse().unwrap();
        SweepSettings::resolve(Some("off-policy"), None, over).map(|(_, sweep)| sweep)
    }

    #[test]
    fn a_section_is_read_and_written() {
        let text = "max_runs = 6\nmax_hours = 2.5\nkeep = 'all'\nbest_by = 'lowest:eval_x'\n[sweep.vary]\nsize = [8, 16]\n\
            train.loss.beta = [0.1, 0.5]\n'train.optimizer.learning_rate' = [1e-6]";
        let mut sweep = of(text).unwrap();
        let keys: Vec<&str> = sweep.vary.iter().map(Axis::key).collect();
        assert_eq!(keys.len(), 3);
        assert!(["mix.size", "train.loss.beta", "train.optimizer.learning_rate"].iter().all(|key| keys.contains(key)));
        assert_eq!((sweep.max_runs, sweep.max_hours, sweep.keep), (Some(6), Some(2.5), Some(Keep::All)));
        let (_, again) = SweepSettings::resolve(None, None, sweep.to_toml().unwrap().parse().unwrap()).unwrap();
        assert_eq!(again, sweep);
        sweep.set_axis(Axis::parse("size=4").unwrap());
        assert_eq!((sweep.vary.len(), sweep.vary.iter().find(|axis| axis.key() == "mix.size").unwrap().len()), (3, 1));
    }

    #[test]
    fn a_single_pipeline_has_no_sweep() {
        let over = "[sweep]\nvary.beta = [0.1, 0.5]".parse().unwrap();
        let message = PipelineSettings::resolve(Some("off-policy"), None, over).unwrap_err().to_string();
        assert!(message.starts_with("`sweep` is a section") && message.contains("`simplemix sweep`"), "{message}");
    }

    #[test]
    fn wrong_keys_are_named() {
        let message = |section: &str| of(section).unwrap_err().to_string();
        assert!(message("max_run = 3").contains("sweep.max_run"), "{}", message("max_run = 3"));
        assert_eq!(message("vary.beta = 3"), "`sweep.vary.beta` is 3, expected a list of values");
        assert!(message("vary.beta = [1]\nvary.train.loss.beta = [2]").contains("`train.loss.beta` twice"));
        let base = PipelineSettings { stages: Some("s".into()), ..PipelineSettings::default() };
        let check = |section: &str| of(section).unwrap().check(&base).unwrap_err().to_string();
        assert!(check("keep = 'best'\nvary.beta = [1]").starts_with("`sweep.keep` is `best` beside `stages`"));
        assert!(check("").starts_with("`sweep.vary` is empty"));
        assert!(check("max_hours = 0\nvary.beta = [1]").starts_with("`sweep.max_hours` is 0"));
    }
}
