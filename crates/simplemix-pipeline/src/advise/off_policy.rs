//! Off-policy pairs: the first ones, whose likelihood is measured, and those with one of the prompts, whose responses are compared.

use std::collections::BTreeMap;

use serde_json::json;
use simplemix_data::{Pair, PairReader, ReadOptions, Watch};
use simplemix_rollout::{CandidateGroup, Prompt};

use super::{AdviseSettings, asked, response};
use crate::error::{Error, Result};
use crate::inputs::files;

#[derive(Debug, Default)]
pub(super) struct OffPolicy {
    /// The first pairs.
    pub(super) pairs: Vec<Pair>,
    /// A pair of each prompt that has one, with the prompt.
    pub(super) matched: Vec<(Prompt, Pair)>,
    pub(super) notices: Vec<String>,
}

impl OffPolicy {
    /// Reads the pairs once, no further than is needed.
    pub(super) fn read(settings: &AdviseSettings, on: &[CandidateGroup], watch: &mut dyn Watch) -> Result<Self> {
        let prompts: BTreeMap<String, &Prompt> =
            on.iter().map(|group| (asked(&group.prompt.prompt), &group.prompt)).collect();
        let mut found = Self::default();
        let mut by_prompt: BTreeMap<String, Pair> = BTreeMap::new();
        let mut without_text = 0;
        'files: for file in files(&settings.off_policy, watch)? {
            let mut reader = PairReader::open(&file, &ReadOptions::default())?;
            while let Some(pairs) = reader.next_pairs()? {
                for pair in pairs {
                    let key = asked(&pair.prompt);
                    if prompts.contains_key(&key) && !by_prompt.contains_key(&key) {
                        match (response(&pair, true), response(&pair, false)) {
                            (Some(_), Some(_)) => drop(by_prompt.insert(key, pair.clone())),
                            _ => without_text += 1,
                        }
                    }
                    if (found.pairs.len() as u64) < settings.limit {
                        found.pairs.push(pair);
                    }
                }
                if watch.is_interrupted() {
                    return Err(Error::Interrupted);
                }
                if found.pairs.len() as u64 == settings.limit && by_prompt.len() == prompts.len() {
                    break 'files;
                }
            }
            if !reader.report().is_plain() {
                found.notices.push(reader.report().to_string());
            }
        }
        if found.pairs.is_empty() {
            let expected = "a file with at least one pair";
            return Err(Error::setting("off_policy", settings.off_policy.display(), expected));
        }
        if without_text > 0 {
            let what = "have calls or several turns for a response, and are not compared with the model's own";
            found.notices.push(format!("{without_text} off-policy pairs of these prompts {what}"));
        }
        let matched = by_prompt.into_iter().map(|(key, pair)| (prompts[&key].clone(), pair));
        found.matched = matched.collect();
        found.notices.iter().for_each(|notice| watch.notice(notice));
        Ok(found)
    }

    /// The chosen and the rejected response to each prompt, as a file of candidates.
    pub(super) fn candidates(&self) -> Result<String> {
        let mut text = String::new();
        for (prompt, pair) in &self.matched {
            for (sample, is_chosen) in [true, false].into_iter().enumerate() {
                let mut row = serde_json::to_value(prompt).map_err(|error| Error::serialise("a prompt")(&error))?;
                row.as_object_mut().map(|row| row.remove("id"));
                row["prompt_id"] = json!(prompt.id);
                row["sample"] = json!(sample);
                row["response"] = json!(response(pair, is_chosen));
                text.push_str(&row.to_string());
                text.push('\n');
            }
        }
        Ok(text)
    }
}
