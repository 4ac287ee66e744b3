//! Flags for reading files of pairs, and the names for `--deny`.

use std::path::{Path, PathBuf};

use simplemix_data::{
    Finding, Findings, Form, Format, Occurrences, OnTemplateRefusal, Pair, PairTokenizer, Policy, PolicyRule,
    ReadOptions, ReadReport, TokenRow, TokenizerAs,
};

use crate::failure::{Fails, Failure, Result, read_toml};
use crate::flags::word;
use crate::progress::Terminal;

/// Flags for reading files of pairs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Reading")]
pub(crate) struct Reading {
    /// Format of the files, such as explicit-text, hh-transcripts or nectar [default: detected]
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// TOML file of columns with other names: prompt = "question", chosen = "better", rejected = "worse"
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Source name of all pairs [default: the source column, or the file name]
    #[arg(long, value_name = "NAME")]
    source_name: Option<String>,
    /// Author of the responses, seen from the model to be trained: on for the model itself, off for others [default: the
    /// policy column, or off]
    #[arg(long, value_name = "on|off", conflicts_with = "our_models")]
    policy: Option<String>,
    /// Models whose responses are on-policy, as named in the files (comma-separated)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    our_models: Vec<String>,
    /// Pairs to make of a list of ranked responses: best-worst, best-other, or all:GAP for all pairs whose scores differ by
    /// more than GAP [default: best-worst]
    #[arg(long, value_name = "RULE")]
    ranked: Option<String>,
    /// Convert bare text to messages
    #[arg(long)]
    messages: bool,
}

/// Handling of pairs that the chat template refuses.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RefusalFlag {
    /// Reaction to a pair that the chat template refuses, such as one with a system turn: fail, or skip the pair and count it
    #[arg(long, value_name = "fail|skip", default_value = "fail", value_parser = word::<OnTemplateRefusal>)]
    pub(crate) on_refused: OnTemplateRefusal,
}

/// Reading of the tokenizer.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TokenizerFlag {
    /// Reading of a tokenizer that transformers 5 builds anew by its class: as tokenizer.json has it, or as transformers does
    #[arg(long, value_name = "file|transformers", default_value = "file", value_parser = word::<TokenizerAs>)]
    pub(crate) tokenizer_as: TokenizerAs,
}

/// Warns of what the user should know about the tokens of `pairs`, of which `rows` are the ids, and returns it.
pub(crate) fn token_notices<'a>(
    tokenizer: &PairTokenizer,
    pairs: &[Pair],
    rows: impl Iterator<Item = TokenRow<'a>>,
) -> Result<Vec<String>> {
    let mut notices: Vec<String> = tokenizer.plain_text_notice(pairs).into_iter().collect();
    notices.extend(tokenizer.folder_notices().iter().cloned());
    notices.extend(tokenizer.reading_notice(pairs).input()?);
    notices.extend(tokenizer.repeated_notices(rows));
    for notice in &notices {
        tracing::warn!("{notice}");
    }
    Ok(notices)
}

impl Reading {
    /// The flags of a command that has these two only.
    pub(crate) fn named(format: Option<String>, map: Option<PathBuf>) -> Self {
        let (source_name, policy, ranked) = (None, None, None);
        Self { format, map, source_name, policy, our_models: Vec::new(), ranked, messages: false }
    }

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
            options.ranked = rule.parse().map_err(|e| Failure::input(format!("--ranked is `{rule}`, {e}")))?;
        }
        options.form = self.messages.then_some(Form::Messages);
        Ok(options)
    }

    /// Options with which all files give the same columns.
    pub(crate) fn options_for(&self, files: &[PathBuf]) -> Result<ReadOptions> {
        let (options, left_out) = self.options()?.alike(files).input()?;
        if !left_out.is_empty() {
            let names = left_out.join(", ");
            tracing::warn!("columns that not all files have, or with other types, are left out: {names}");
        }
        Ok(options)
    }
}

/// Files that the texts name: paths, folders, patterns and, with the feature `object-store`, URLs.
pub(crate) fn files(texts: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for text in texts {
        files.extend(named(text)?);
    }
    Ok(files)
}

/// Files that one text names.
pub(crate) fn named(text: &Path) -> Result<Vec<PathBuf>> {
    let mut terminal = Terminal::passive();
    let files = simplemix_pipeline::files(text, &mut terminal);
    terminal.clear();
    Ok(files?)
}

/// Says on standard error how many rows of a file are no pairs, and why, and what was read otherwise than it stands there.
pub(crate) fn tell_refused(report: &ReadReport) {
    if !report.is_plain() {
        tracing::warn!("{report}");
    }
}

/// Fails if a file has a problem or finding that `--deny` names.
pub(crate) fn deny(names: &[String], report: &ReadReport, findings: &Findings) -> Result {
    let refused = report.refused.iter().map(|(problem, rows)| (problem.name(), rows));
    let found = findings.iter().map(|(finding, rows)| (finding.name(), rows));
    let denied: Vec<(&str, &Occurrences)> =
        refused.chain(found).filter(|(name, _)| names.iter().any(|deny| deny == name || deny == "any")).collect();
    let Some((name, rows)) = denied.first() else { return Ok(()) };
    let more = if denied.len() > 1 { format!(" (and {} more kinds)", denied.len() - 1) } else { String::new() };
    let file = report.path.display();
    Err(Failure::input(format!(
        "{file}: {} rows are {name}, first {:?}, and --deny forbids that{more}",
        rows.count, rows.first_rows
    )))
}

/// Checks the names given to `--deny`.
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
