//! Flags over file over defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use simplemix_mix::{
    BatchOrder, Exhaustion, MixtureConfig, Routing, RowOrder, Schedule, Shares, SourceConfig, Weight, parse_weights,
};

use super::{Args, word};
use crate::failure::{Fails, Failure, Result, read_toml};

/// A mixture as it is written in a file; unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    pub(crate) size: Option<u64>,
    pub(crate) size_tokens: Option<u64>,
    pub(crate) seed: u64,
    pub(crate) shares: Shares,
    pub(crate) batch: Option<u64>,
    pub(crate) order: BatchOrder,
    pub(crate) exhaustion: Exhaustion,
    pub(crate) rows: RowOrder,
    pub(crate) prompts: Prompts,
    pub(crate) ranks: usize,
    pub(crate) tokenizer: Option<PathBuf>,
    pub(crate) memory: u64,
    pub(crate) output: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
    pub(crate) plot: Option<PathBuf>,
    #[serde(rename = "source")]
    pub(crate) sources: Vec<Source>,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) routing: Option<Routing>,
}

/// A source of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) weight: Option<Weight>,
}

impl Source {
    /// A source of a weight.
    pub(crate) fn new(name: &str, path: &std::path::Path, weight: Weight) -> Self {
        Self { name: name.to_owned(), path: path.to_owned(), weight: Some(weight) }
    }
}

/// What happens with prompts that several sources have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Prompts {
    /// Nothing.
    #[default]
    Any,
    /// Each comes from one source only.
    Disjoint,
    /// Only these, both pairs of a prompt one after the other.
    Adjacent,
    /// Only these, both pairs of a prompt half of the mixture apart.
    Apart,
    /// Only these, one pair a prompt: the chosen response of one source, the rejected one of the other.
    Crossed,
}

impl Default for Settings {
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
            prompts: Prompts::default(),
            ranks: 1,
            tokenizer: None,
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

/// The settings of a call.
pub(crate) fn resolve(args: &Args) -> Result<Settings> {
    let mut settings = args.config.as_deref().map_or(Ok(Settings::default()), read_toml)?;
    if !args.sources.is_empty() {
        settings.sources = args
            .sources
            .iter()
            .map(|spec| Source { name: spec.name.clone(), path: spec.path.clone().into(), weight: spec.weight })
            .collect();
    }
    if settings.sources.is_empty() {
        return Err(Failure::input("no source is given, expected --source NAME=PATH or [[source]] in --config"));
    }
    settings.size = args.size.or(settings.size);
    settings.size_tokens = args.size_tokens.or(settings.size_tokens);
    settings.seed = args.seed.unwrap_or(settings.seed);
    settings.batch = args.batch.or(settings.batch);
    settings.ranks = args.ranks.unwrap_or(settings.ranks);
    settings.memory = args.memory.unwrap_or(settings.memory);
    if let Some(text) = &args.shares {
        settings.shares = match text.as_str() {
            "bernoulli" => Shares::Bernoulli { replace: false },
            "bernoulli-replace" => Shares::Bernoulli { replace: true },
            _ => word("shares", text, "exact, bernoulli, bernoulli-replace, quota or tokens")?,
        };
    }
    if let Some(text) = &args.order {
        settings.order = word("order", text, "interleaved or batch-shuffled")?;
    }
    if let Some(text) = &args.prompts {
        settings.prompts = word("prompts", text, "any, disjoint, adjacent, apart or crossed")?;
    }
    if let Some(epochs) = args.repeat {
        settings.exhaustion = if epochs > 1 { Exhaustion::Repeat { epochs } } else { Exhaustion::Refuse };
    }
    if let Some(text) = &args.until {
        settings.exhaustion = word("until", text, "first-exhausted or all-exhausted")?;
    }
    if args.file_order {
        settings.rows = RowOrder::File;
    }
    for (setting, flag) in [
        (&mut settings.tokenizer, &args.tokenizer),
        (&mut settings.output, &args.output),
        (&mut settings.report, &args.report),
        (&mut settings.plot, &args.plot),
    ] {
        if flag.is_some() {
            setting.clone_from(flag);
        }
    }
    if let Some(text) = &args.weights {
        weigh(&mut settings.sources, text, args.sources.is_empty())?;
    }
    let given = settings.sources.iter().filter(|source| source.weight.is_some()).count();
    if let Some(source) = settings.sources.iter().find(|source| source.weight.is_none() && given > 0) {
        return Err(Failure::input(format!("source `{}` has no weight, but others have", source.name)));
    }
    Ok(settings)
}

/// Weights by name; they may stand in for a file's, not for those written with a --source.
fn weigh(sources: &mut [Source], text: &str, from_file: bool) -> Result {
    for (name, weight) in parse_weights(text).input()? {
        let known: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
        match sources.iter_mut().find(|source| source.name == name) {
            None => {
                return Err(Failure::input(format!("--weights names `{name}`, expected one of the sources {known:?}")));
            }
            Some(source) if source.weight.is_some() && !from_file => {
                return Err(Failure::input(format!("source `{name}` has a weight with it and one in --weights")));
            }
            Some(source) => source.weight = Some(weight),
        }
    }
    Ok(())
}

impl Settings {
    /// The mixture over sources of so many rows (and response tokens).
    pub(crate) fn mixture(&self, rows: &[u64], tokens: &[Option<u64>]) -> MixtureConfig {
        let source = |((source, &rows), &tokens): ((&Source, &u64), &Option<u64>)| SourceConfig {
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
