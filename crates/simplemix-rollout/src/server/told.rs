//! Facts about a server's samples that are told once, when they happen first.

use std::collections::BTreeSet;

use crate::generator::{Candidate, Sampled};

/// Facts that are told when they happen first.
#[derive(Default)]
pub(super) struct Once {
    told_refusal: bool,
    told_logps: bool,
    told_apart: BTreeSet<&'static str>,
}

/// Remarks of a server beside a sample.
pub(super) enum Beside {
    /// Words of a refusal of the prompt.
    Refusal(String),
    /// Fields that it keeps apart from the text.
    Apart(Vec<&'static str>),
}

impl Once {
    /// Texts for the user about a sample, for which log-probabilities were asked if `wants_logps`.
    pub(super) fn notices(&mut self, sampled: &Sampled, beside: Beside, wants_logps: bool) -> Vec<String> {
        let mut notices = Vec::new();
        let has_text = sampled.candidate.as_ref().is_some_and(|candidate| candidate.text.is_some());
        match beside {
            Beside::Refusal(words) if !std::mem::replace(&mut self.told_refusal, true) => {
                notices.push(format!("{words}; further refusals are counted"));
            }
            Beside::Apart(names) if has_text => {
                for name in names.into_iter().filter(|name| self.told_apart.insert(name)) {
                    notices.push(format!(
                        "the server keeps `{name}` apart from the text of some responses: candidates hold the text alone, their \
                         tokens and log-probabilities are those of both"
                    ));
                }
            }
            _ => {}
        }
        let has_no_logp = |candidate: &Candidate| {
            candidate.logp.is_none() && candidate.text.as_ref().is_some_and(|text| !text.is_empty())
        };
        if wants_logps
            && sampled.candidate.as_ref().is_some_and(has_no_logp)
            && !std::mem::replace(&mut self.told_logps, true)
        {
            notices.push(
                "the server tells no log-probabilities that are numbers, though they were asked for; such candidates are \
                 counted, and `logps` false asks for none"
                    .to_owned(),
            );
        }
        notices
    }
}
