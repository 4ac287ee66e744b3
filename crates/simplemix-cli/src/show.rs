//! `simplemix show`: rows of a file as text for reading.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use simplemix_data::{Pair, PairReader, RowReader, Text};

use crate::failure::{Fails, Failure, Result};
use crate::layout::Layout;
use crate::lines::{is_closed, print, print_laid};
use crate::reading::{Reading, files, tell_refused};

/// Print pairs, candidates or other rows of files as text for reading
///
/// A pair of any known format is shown as prompt, chosen and rejected; candidates follow their prompt; other rows are shown
/// column by column. On a terminal, lines are wrapped and long texts are cut; a pipe gets whole texts.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix show uf.parquet\n  \
  simplemix show mix.parquet --source on --skip 100 --rows 10 --full\n  \
  simplemix show on.candidates.parquet --rows 2 --only response\n  \
  simplemix show odd.jsonl --map columns.toml --only chosen,rejected")]
pub(crate) struct Args {
    /// Files, folders of shards, or patterns
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Number of pairs, or of prompts with their candidates, or of rows
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// Number of them to pass over first
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,
    /// Show only these parts: prompt, chosen and rejected of pairs, prompt and response of candidates, or columns
    /// (comma-separated)
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    /// Show only pairs of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Show only pairs, candidates or rows of this task
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Show long texts in full on a terminal too
    #[arg(long)]
    full: bool,
    /// Format of the pairs, such as explicit-text, hh-transcripts or nectar [default: detected]
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// TOML file of columns with other names: prompt = "question", chosen = "better", rejected = "worse"
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
}

/// A pair, a prompt with its candidates, or a row: a heading, and parts with their names.
struct Item {
    heading: String,
    parts: Vec<(String, String)>,
}

pub(crate) fn run(args: &Args) -> Result {
    let layout = Layout::of_stdout(args.full);
    let files = files(&args.files)?;
    let (mut passed, mut shown) = (0, 0);
    for file in &files {
        for item in items(args, file)? {
            let item = item?;
            passed += 1;
            if passed <= args.skip {
                continue;
            }
            print_item(args, layout, file, &item, shown == 0)?;
            shown += 1;
            if shown == args.rows || is_closed() {
                return Ok(());
            }
        }
    }
    match (shown, files.last()) {
        (0, Some(file)) => Err(Failure::input(format!(
            "{}: {passed} rows that fit, expected more than --skip {}",
            file.display(),
            args.skip
        ))),
        _ => Ok(()),
    }
}

type Items = Box<dyn Iterator<Item = Result<Item>>>;

/// Items to show of a file.
fn items(args: &Args, file: &Path) -> Result<Items> {
    let reader = RowReader::open(file).input()?;
    let has = |name: &str| reader.columns().iter().any(|column| column == name);
    let is_named = args.format.is_some() || args.map.is_some();
    let is_candidates = has("prompt") && has("response") && !has("chosen");
    if is_named || (reader.holds_pairs() && !is_candidates) {
        return pairs(args, file);
    }
    if let Some(source) = args.source.as_ref().filter(|_| !has("source")) {
        let (file, columns) = (file.display(), reader.columns().join(", "));
        return Err(Failure::input(format!(
            "--source is {source}, but {file} has no sources: its columns are {columns}"
        )));
    }
    let (source, task) = (args.source.clone(), args.task.clone());
    let is = |row: &Map<String, Value>, key: &str, wanted: &Option<String>| {
        wanted.as_ref().is_none_or(|wanted| row.get(key).and_then(Value::as_str) == Some(wanted))
    };
    let rows = reader.enumerate().map(|(at, row)| Ok((at, row.input()?)));
    let rows = rows.filter(move |row: &Result<(usize, Map<String, Value>)>| {
        row.as_ref().map_or(true, |(_, row)| is(row, "source", &source) && is(row, "task", &task))
    });
    match is_candidates {
        true => Ok(Box::new(Candidates { rows: rows.peekable(), number: 0 })),
        false => Ok(Box::new(rows.map(|row| row.map(|(at, row)| table_row(at, &row))))),
    }
}

fn pairs(args: &Args, file: &Path) -> Result<Items> {
    let options = Reading::named(args.format.clone(), args.map.clone()).options()?;
    let mut reader = PairReader::open(file, &options).input()?;
    let (source, task) = (args.source.clone(), args.task.clone());
    let mut at = 0;
    let batches = std::iter::from_fn(move || match reader.next_pairs().input() {
        Ok(Some(pairs)) => Some(Ok(pairs)),
        Ok(None) => {
            tell_refused(reader.report());
            None
        }
        Err(error) => Some(Err(error)),
    });
    let items = batches.flat_map(move |pairs| {
        let fits = |pair: &Pair| {
            source.as_ref().is_none_or(|source| *source == pair.source)
                && task.as_ref().is_none_or(|task| Some(task) == pair.task.as_ref())
        };
        let items: Vec<Result<Item>> = match pairs {
            Err(error) => vec![Err(error)],
            Ok(pairs) => {
                let first = at;
                at += pairs.len();
                let numbered = pairs.iter().enumerate().filter(|(_, pair)| fits(pair));
                numbered.map(|(of_batch, pair)| Ok(pair_item(first + of_batch, pair))).collect()
            }
        };
        items
    });
    Ok(Box::new(items))
}

fn pair_item(at: usize, pair: &Pair) -> Item {
    let mut facts = vec![format!("source {}", pair.source), format!("policy {}", pair.policy)];
    facts.extend(pair.task.as_ref().map(|task| format!("task {task}")));
    facts.extend(pair.generator.as_ref().map(|generator| format!("generator {generator}")));
    let scores = [pair.score_chosen, pair.score_rejected];
    if scores.iter().any(Option::is_some) {
        let [chosen, rejected] = scores.map(|score| score.map_or_else(|| "none".to_owned(), |score| score.to_string()));
        facts.push(format!("scores {chosen} and {rejected}"));
    }
    let part = |name: &str, text: &Text| (name.to_owned(), said(text));
    Item {
        heading: format!("pair {at}: {}", facts.join(", ")),
        parts: vec![part("prompt", &pair.prompt), part("chosen", &pair.chosen), part("rejected", &pair.rejected)],
    }
}

/// A text as it is read: each turn after its role, a single turn of the model without it.
pub(crate) fn said(text: &Text) -> String {
    spoken(&serde_json::to_value(text).unwrap_or_default())
}

/// Text, turns of a conversation, or any other value.
fn spoken(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(turns) if !turns.is_empty() && turns.iter().all(|turn| turn["role"].is_string()) => {
            let is_single = turns.len() == 1 && turns[0]["role"] == "assistant";
            turns.iter().map(|turn| spoken_turn(turn, is_single)).collect::<Vec<_>>().join("\n\n")
        }
        other => other.to_string(),
    }
}

fn spoken_turn(turn: &Value, is_single: bool) -> String {
    let mut lines = Vec::new();
    let content = spoken(&turn["content"]);
    let role = turn["role"].as_str().unwrap_or_default();
    lines.push(if is_single { content } else { format!("[{role}] {content}") });
    // Calls of tools, reasoning and the like.
    for (key, value) in turn.as_object().into_iter().flatten() {
        if key != "role" && key != "content" && !value.is_null() {
            lines.push(format!("[{role}, {key}] {}", spoken(value)));
        }
    }
    lines.join("\n")
}

/// Prompts with their candidates, which follow each other.
struct Candidates<I: Iterator<Item = Result<(usize, Map<String, Value>)>>> {
    rows: std::iter::Peekable<I>,
    number: usize,
}

impl<I: Iterator<Item = Result<(usize, Map<String, Value>)>>> Iterator for Candidates<I> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        let (_, first) = match self.rows.next()? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let prompt = first.get("prompt").cloned().unwrap_or_default();
        let mut candidates = vec![first];
        let is_same = |row: &Result<(usize, Map<String, Value>)>| {
            row.as_ref().is_ok_and(|(_, row)| row.get("prompt").cloned().unwrap_or_default() == prompt)
        };
        while let Some(Ok((_, row))) = self.rows.next_if(is_same) {
            candidates.push(row);
        }
        self.number += 1;
        let mut parts = vec![("prompt".to_owned(), spoken(&prompt))];
        parts.extend(candidates.iter().map(candidate));
        let task =
            candidates[0].get("task").and_then(Value::as_str).map_or(String::new(), |task| format!(", task {task}"));
        Some(Ok(Item { heading: format!("prompt {}: {} candidates{task}", self.number - 1, candidates.len()), parts }))
    }
}

/// A candidate: a name with what is known about it, and its text.
fn candidate(row: &Map<String, Value>) -> (String, String) {
    let fact = |key: &str| {
        let value = row.get(key).filter(|value| !value.is_null())?;
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some(format!("{key} {value}"))
    };
    let scores = row.keys().filter(|key| *key == "score" || key.starts_with("score_"));
    let keys = ["sample", "generator", "finish", "tokens"].into_iter().chain(scores.map(String::as_str));
    let facts: Vec<String> = keys.filter_map(fact).collect();
    let text = match row.get("response") {
        None | Some(Value::Null) => "(no text)".to_owned(),
        Some(text) => spoken(text),
    };
    (format!("response{}{}", if facts.is_empty() { "" } else { ": " }, facts.join(", ")), text)
}

fn table_row(at: usize, row: &Map<String, Value>) -> Item {
    let parts = row.iter().map(|(name, value)| (name.clone(), spoken(value))).collect();
    Item { heading: format!("row {at}"), parts }
}

fn print_item(args: &Args, layout: Layout, file: &Path, item: &Item, is_first: bool) -> Result {
    let name = |part: &str| part.split(':').next().unwrap_or_default().to_owned();
    if let Some(unknown) = args.only.iter().find(|only| !item.parts.iter().any(|(part, _)| name(part) == **only)) {
        let mut known: Vec<String> = item.parts.iter().map(|(part, _)| name(part)).collect();
        known.dedup();
        let (file, known) = (file.display(), known.join(", "));
        return Err(Failure::input(format!("--only is {unknown}, but {file} has the parts {known}")));
    }
    if !is_first {
        print("");
    }
    print_laid(&layout.heading(&item.heading));
    for (part, text) in &item.parts {
        if args.only.is_empty() || args.only.contains(&name(part)) {
            print_laid(&layout.heading(part));
            print_laid(&layout.text(text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn turns_are_read_with_their_roles_and_what_else_they_hold() {
        let turns = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "assistant", "content": null, "tool_calls": [{"name": "add"}]},
        ]);
        assert_eq!(spoken(&turns), "[system] Be brief.\n\n[assistant] \n[assistant, tool_calls] [{\"name\":\"add\"}]");
        assert_eq!(spoken(&json!([{"role": "assistant", "content": "4"}])), "4");
        assert_eq!((spoken(&json!([1, 2])), spoken(&json!("text"))), ("[1,2]".to_owned(), "text".to_owned()));
    }

    #[test]
    fn a_candidate_is_named_by_what_is_known_about_it() {
        let Value::Object(row) = json!({"response": null, "sample": 2, "score": 0.5, "finish": null, "score_judge": 3})
        else {
            unreachable!()
        };
        let expected = ("response: sample 2, score 0.5, score_judge 3".to_owned(), "(no text)".to_owned());
        assert_eq!(candidate(&row), expected);
    }
}
