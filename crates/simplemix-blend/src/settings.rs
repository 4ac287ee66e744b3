//! Settings of a mixture, as a file has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simplemix_data::TokenizerAs;
use simplemix_mix::{
    BatchOrder, Exhaustion, MixtureConfig, Routing, RowOrder, Schedule, Shares, SourceConfig, Weight, parse_weights,
};

use crate::error::{Error, Result};

/// Settings of a mixture of files; unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MixSettings {
    /// Pairs of the mixture; without it, as many as fit before a source has to repeat.
    pub size: Option<u64>,
    /// Response tokens of the mixture, in place of `size`.
    pub size_tokens: Option<u64>,
    /// Random seed.
    pub seed: u64,
    /// How weights are read.
    pub shares: Shares,
    /// Batch size; every batch then holds each source's share, rounded up or down.
    pub batch: Option<u64>,
    /// Order of pairs within a batch.
    pub order: BatchOrder,
    /// Where the mixture ends, and whether a source may repeat.
    pub exhaustion: Exhaustion,
    /// Order of a source's rows.
    pub rows: RowOrder,
    /// Treatment of prompts that several sources have.
    pub prompts: SharedPrompts,
    /// Make plain text messages, for the chat template of the model that is trained; where a source has messages, the text of
    /// the others becomes messages in any case.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub messages: bool,
    /// Number of processes that will train on the mixture, for the report; at least 1.
    pub ranks: usize,
    /// Model folder whose tokenizer counts response tokens; without it, lengths are in bytes.
    pub tokenizer: Option<PathBuf>,
    /// Reading of a tokenizer that transformers 5 builds anew by its class.
    #[serde(skip_serializing_if = "is_file")]
    pub tokenizer_as: TokenizerAs,
    /// Largest difference between the lengths of a pair's two responses, in tokens, or bytes without `tokenizer`; pairs with a
    /// larger one are left out and counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length_difference: Option<u64>,
    /// Limits for the pairs of some tasks, in place of `max_length_difference`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub max_length_difference_of_tasks: BTreeMap<String, u64>,
    /// Megabytes of rows held in memory; rows beyond go to a temporary file beside the output.
    pub memory: u64,
    /// File to write: .parquet, .arrow or .jsonl.
    pub output: Option<PathBuf>,
    /// Receipt to write, as JSON.
    pub report: Option<PathBuf>,
    /// Plot to write of the sources' shares, as SVG.
    pub plot: Option<PathBuf>,
    /// Sources, in the order of their weights in a schedule.
    #[serde(rename = "source", skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<MixSource>,
    /// Shares that change over the mixture.
    pub schedule: Option<Schedule>,
    /// Shares for each task.
    pub routing: Option<Routing>,
}

fn is_file(reading: &TokenizerAs) -> bool {
    *reading == TokenizerAs::File
}

/// A source of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixSource {
    /// Name of the source, for its pairs and for reports.
    pub name: String,
    /// File, folder of shards, pattern or URL.
    pub path: PathBuf,
    /// Share relative to the other sources' weights; equal shares if no source has one.
    #[serde(default)]
    pub weight: Option<Weight>,
    /// Rounds between the model that wrote the pairs and the one that is to be trained on them; kept in the mixture, for the metrics
    /// of training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<u32>,
}

impl MixSource {
    /// A source with a weight.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, weight: Weight) -> Self {
        Self { name: name.into(), path: path.into(), weight: Some(weight), age: None }
    }

    /// Sets the age of the pairs.
    #[must_use]
    pub fn with_age(self, age: Option<u32>) -> Self {
        Self { age, ..self }
    }
}

/// Treatment of prompts that several sources have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SharedPrompts {
    /// Take them as they come.
    #[default]
    Any,
    /// Take each prompt from one source only.
    Disjoint,
    /// Take only prompts that both sources have, both pairs of a prompt one after the other.
    Adjacent,
    /// Take only prompts that both sources have, both pairs of a prompt half of the mixture apart.
    Apart,
    /// Take only prompts that both sources have, one pair a prompt: the chosen response of one source and the rejected one
    /// of the other.
    Crossed,
}

impl Default for MixSettings {
    fn default() -> Self {
        Self {
            size: None,
            size_tokens: None,
            seed: 42,
            shares: Shares::default(),
            batch: None,
            order: BatchOrder::default(),
            exhaustion: Exhaustion::default(),
            rows: RowOrder::default(),
            prompts: SharedPrompts::default(),
            messages: false,
            ranks: 1,
            tokenizer: None,
            tokenizer_as: TokenizerAs::File,
            max_length_difference: None,
            max_length_difference_of_tasks: BTreeMap::new(),
            memory: 256,
            output: None,
            report: None,
            plot: None,
            sources: Vec::new(),
            schedule: None,
            routing: None,
        }
    }
}

impl MixSettings {
    /// Gives sources the weights that `text` has for their names, such as `off=0.5,on=0.5`.
    ///
    /// # Errors
    /// [`Error::Weights`] for a name that is none of the sources, [`Error::Mix`] for a text of another form.
    pub fn set_weights(&mut self, text: &str) -> Result<()> {
        for (name, weight) in parse_weights(text)? {
            let Some(source) = self.sources.iter_mut().find(|source| source.name == name) else {
                let known: Vec<&str> = self.sources.iter().map(|source| source.name.as_str()).collect();
                let expected = format!("one of the sources {}", known.join(", "));
                return Err(Error::Weights { name, found: "no such source", expected });
            };
            source.weight = Some(weight);
        }
        Ok(())
    }

    /// Checks what can be checked before the sources are read.
    ///
    /// # Errors
    /// [`Error::Setting`] and [`Error::Weights`].
    pub fn check(&self) -> Result<()> {
        if self.sources.is_empty() {
            return Err(Error::setting("source", "not set", "at least one source, a name and a path"));
        }
        if self.ranks == 0 {
            return Err(Error::setting("ranks", 0, "at least 1"));
        }
        if self.prompts != SharedPrompts::Any && self.routing.is_some() {
            return Err(Error::setting("prompts", "set, with [routing]", "one of the two"));
        }
        if self.tokenizer.is_none() && !is_file(&self.tokenizer_as) {
            return Err(Error::setting("tokenizer_as", "set, without `tokenizer`", "a model folder in `tokenizer`"));
        }
        if let Some(path) = self.plot.as_ref().filter(|path| path.extension().is_none_or(|end| end != "svg")) {
            return Err(Error::setting("plot", path.display(), "a name that ends in .svg"));
        }
        #[cfg(not(feature = "plot"))]
        if let Some(path) = &self.plot {
            return Err(Error::setting("plot", path.display(), "none: this build draws no plots (feature `plot`)"));
        }
        let without = self.sources.iter().find(|source| source.weight.is_none());
        match without.filter(|_| self.sources.iter().any(|source| source.weight.is_some())) {
            Some(MixSource { name, .. }) => Err(Error::Weights {
                name: name.clone(),
                found: "not set, though other sources have one",
                expected: "a weight for every source, or for none".to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Checks that no file to write is one of the sources' files.
    pub(crate) fn check_apart(&self) -> Result<()> {
        let is_url = |source: &&MixSource| source.path.to_string_lossy().contains("://");
        // A source that cannot be listed is reported when it is read.
        let listed =
            self.sources.iter().filter(|source| !is_url(source)).map(|source| simplemix_data::inputs(&source.path));
        let files: Vec<PathBuf> = listed.filter_map(std::result::Result::ok).flatten().collect();
        for (key, path) in [("output", &self.output), ("report", &self.report), ("plot", &self.plot)] {
            let Some(path) = path else { continue };
            if files.iter().any(|file| simplemix_files::is_same_file(file, path)) {
                return Err(Error::setting(key, path.display(), "a file that is none of the sources"));
            }
        }
        Ok(())
    }

    /// The file to write.
    pub(crate) fn required_output(&self) -> Result<&Path> {
        self.output.as_deref().ok_or_else(|| Error::setting("output", "not set", "a file"))
    }

    /// The mixture over sources with these numbers of rows and response tokens.
    pub(crate) fn mixture(&self, rows: &[u64], tokens: &[Option<u64>]) -> MixtureConfig {
        let source = |((source, &rows), &tokens): ((&MixSource, &u64), &Option<u64>)| SourceConfig {
            name: source.name.clone(),
            rows,
            weight: source.weight.unwrap_or(Weight::whole(1)),
            tokens,
        };
        MixtureConfig {
            sources: self.sources.iter().zip(rows).zip(tokens).map(source).collect(),
            shares: self.shares,
            size: self.size,
            size_tokens: self.size_tokens,
            batch: self.batch,
            order: self.order,
            schedule: self.schedule.clone(),
            exhaustion: self.exhaustion,
            rows: self.rows,
            seed: self.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_for_every_source_or_for_none() {
        let source = |name: &str, weight| MixSource { name: name.to_owned(), path: name.into(), weight, age: None };
        let mut settings =
            MixSettings { sources: vec![source("off", None), source("on", None)], ..MixSettings::default() };
        settings.check().unwrap();
        settings.set_weights("off=0.25").unwrap();
        let error = settings.check().unwrap_err();
        assert!(error.is_input() && error.to_string().starts_with("weight of source `on`: not set"), "{error}");
        settings.set_weights("on=3/4").unwrap();
        settings.check().unwrap();
        let error = settings.set_weights("of=1").unwrap_err().to_string();
        assert_eq!(error, "weight of source `of`: no such source, expected one of the sources off, on");
    }
}
