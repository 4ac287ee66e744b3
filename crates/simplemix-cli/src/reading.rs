//! Flags that say how files of pairs are read, and which names `--deny` knows.

use std::path::{Path, PathBuf};

use simplemix_data::{
    Finding, Findings, Form, Format, Occurrences, Policy, PolicyRule, RankedRule, ReadOptions, ReadReport,
};

use crate::failure::{Failure, Result, read_toml};
use crate::progress::Terminal;

/// How files are read.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Reading")]
pub(crate) struct Reading {
    /// The files' format, where it is not to be recognised: explicit-text, hh-transcript, nectar, ...
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// Columns under other names, in TOML: prompt = "question", chosen = "better", rejected = "worse"
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Name of every pair's source [default: as the file says, or the file's name]
    #[arg(long, value_name = "NAME")]
    source_name: Option<String>,
    /// Who wrote every pair's responses, seen from the model to be trained [default: as the file says, or off]
    #[arg(long, value_name = "on|off", conflicts_with = "our_models")]
    policy: Option<String>,
    /// Models whose responses count as on-policy, by the file's own names
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    our_models: Vec<String>,
    /// Pairs of a ranked list: best-worst, best-other, or all pairs whose scores differ by more than a gap: all:0.5
    /// [default: best-worst]
    #[arg(long, value_name = "RULE")]
    ranked: Option<String>,
    /// Turn bare text into messages
    #[arg(long)]
    messages: bool,
}

impl Reading {
    pub(crate) fn options(&self) -> Result<ReadOptions> {
        let mut options = ReadOptions::default();
        if let Some(name) = &self.format {
            options.format =
                Some(name.parse::<Format>().map_err(|e| Failure::input(format!("--format is `{name}`: {e}")))?);
        }
        if let Some(path) = &self.map {
            options.columns = read_toml(path)?;
        }
        if let Some(name) = &self.source_name {
            options = options.with_source(name);
        }
        match self.policy.as_deref() {
            None if self.our_models.is_empty() => {}
            None => options.policy = PolicyRule::Models(self.our_models.clone()),
            Some("on") => options = options.with_policy(Policy::On),
            Some("off") => options = options.with_policy(Policy::Off),
            Some(other) => return Err(Failure::input(format!("--policy is `{other}`, expected on or off"))),
        }
        if let Some(rule) = &self.ranked {
            options.ranked = ranked(rule)?;
        }
        options.form = self.messages.then_some(Form::Messages);
        Ok(options)
    }
}

/// The files that the texts name: paths, folders, patterns and, with the feature `object-store`, URLs.
pub(crate) fn files(texts: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for text in texts {
        files.extend(named(text)?);
    }
    Ok(files)
}

/// The files that one text names.
pub(crate) fn named(text: &Path) -> Result<Vec<PathBuf>> {
    let mut terminal = Terminal::passive();
    let files = simplemix_pipeline::files(text, &mut terminal);
    terminal.clear();
    Ok(files?)
}

fn ranked(rule: &str) -> Result<RankedRule> {
    let gap = rule.strip_prefix("all:").and_then(|gap| gap.parse().ok()).filter(|gap: &f64| *gap >= 0.0);
    match (rule, gap) {
        ("best-worst", _) => Ok(RankedRule::BestWorst),
        ("best-other", _) => Ok(RankedRule::BestOther),
        ("all", _) => Ok(RankedRule::AllPairs { min_gap: 0.0 }),
        (_, Some(min_gap)) => Ok(RankedRule::AllPairs { min_gap }),
        _ => Err(Failure::input(format!("--ranked is `{rule}`, expected best-worst, best-other, all or all:GAP"))),
    }
}

/// Fails if a file has what `--deny` names: problems of reading and findings, by name, or `any`.
pub(crate) fn deny(names: &[String], report: &ReadReport, findings: &Findings) -> Result {
    let refused = report.refused.iter().map(|(problem, rows)| (problem.name(), rows));
    let found = findings.iter().map(|(finding, rows)| (finding.name(), rows));
    let denied: Vec<(&str, &Occurrences)> =
        refused.chain(found).filter(|(name, _)| names.iter().any(|deny| deny == name || deny == "any")).collect();
    let Some((name, rows)) = denied.first() else { return Ok(()) };
    let more = if denied.len() > 1 { format!(" (and {} more kinds)", denied.len() - 1) } else { String::new() };
    let file = report.path.display();
    Err(Failure::input(format!(
        "{file}: {} rows are {name}, first {:?}, which --deny forbids{more}",
        rows.count, rows.first_rows
    )))
}

/// Checks the names that `--deny` is given.
pub(crate) fn check_denied(names: &[String]) -> Result {
    let known: Vec<&str> = simplemix_data::Problem::ALL
        .iter()
        .map(|problem| problem.name())
        .chain(Finding::ALL.iter().map(|finding| finding.name()))
        .chain(["any"])
        .collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Failure::input(format!("--deny is `{name}`, expected {}", known.join(", ")))),
        None => Ok(()),
    }
}
