//! Changes of logits before a token is drawn, as the logits processors of transformers 5 that a `generation_config.json` asks
//! for: repetition penalty, forbidden repeats and words, suppressed tokens, shortest answer.
//!
//! They change what is drawn. The log-probabilities of an answer stay those of the model.

use tch::Tensor;

use crate::error::{Doing, Error, Result};
use crate::sample::Draw;

/// Changes of logits before a token is drawn; by default none.
#[derive(Debug, Clone, PartialEq)]
pub struct Processors {
    /// Divides logits above 0, and multiplies those below, of tokens that prompt or answer hold already (Keskar et al.
    /// 2019, arXiv:1909.05858); 1 for none.
    pub repetition_penalty: f64,
    /// Length of token sequences that come once at most in prompt and answer; 0 for no limit.
    pub no_repeat_ngram_size: usize,
    /// Sequences of tokens that do not come in an answer.
    pub bad_words: Vec<Vec<u32>>,
    /// Tokens that are never drawn.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that do not begin an answer.
    pub begin_suppress_tokens: Vec<u32>,
    /// Tokens of an answer before which no token ends it.
    pub min_new_tokens: usize,
    /// Tokens of prompt and answer together before which no token ends it.
    pub min_length: usize,
}

impl Default for Processors {
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            bad_words: Vec::new(),
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            min_new_tokens: 0,
            min_length: 0,
        }
    }
}

impl Processors {
    /// Whether nothing is changed.
    pub fn is_neutral(&self) -> bool {
        *self == Self::default()
    }

    /// # Errors
    /// [`Error::Input`] naming the value out of range.
    pub fn check(&self) -> Result<()> {
        if self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0 {
            return Ok(());
        }
        let (found, expected) = (self.repetition_penalty.to_string(), "a number above 0".to_owned());
        Err(Error::Input { what: "repetition_penalty", found, expected })
    }

    /// The processors that change something, as `repetition_penalty 1.3, suppress_tokens (2)`.
    pub fn names(&self) -> String {
        let number = |name: &str, value: usize| (value > 0).then(|| format!("{name} {value}"));
        let list = |name: &str, count: usize| (count > 0).then(|| format!("{name} ({count})"));
        let penalty = self.repetition_penalty;
        let all = [
            (penalty != 1.0).then(|| format!("repetition_penalty {penalty}")),
            number("no_repeat_ngram_size", self.no_repeat_ngram_size),
            list("bad_words_ids", self.bad_words.len()),
            list("suppress_tokens", self.suppress_tokens.len()),
            list("begin_suppress_tokens", self.begin_suppress_tokens.len()),
            number("min_new_tokens", self.min_new_tokens),
            number("min_length", self.min_length),
        ];
        all.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Changed logits of each row, from `[B, V]` f32 on the CPU; `None` if nothing is changed. `ends` are the tokens that end
    /// an answer.
    pub(crate) fn applied(&self, logits: &Tensor, rows: &[Draw<'_>], ends: &[u32]) -> Result<Option<Tensor>> {
        if self.is_neutral() {
            return Ok(None);
        }
        let (count, shape) = (logits.numel(), logits.size());
        let mut values = vec![0f32; count];
        logits.contiguous().f_copy_data(&mut values, count).doing("reading logits")?;
        for (row, logits) in rows.iter().zip(values.chunks_exact_mut(count / rows.len().max(1))) {
            self.change(logits, row.prompt, row.answer, ends);
        }
        let changed = Tensor::f_from_slice(&values).and_then(|changed| changed.f_view(&shape[..]));
        changed.map(Some).doing("changing logits")
    }

    /// Changes the logits of the token after `prompt` and `answer`.
    fn change(&self, logits: &mut [f32], prompt: &[u32], answer: &[u32], ends: &[u32]) {
        let held = [prompt, answer].concat();
        penalise(logits, &held, self.repetition_penalty as f32);
        forbid(logits, repeats(&held, self.no_repeat_ngram_size));
        // A word that is the end of an answer is no bad word.
        let words = self.bad_words.iter().filter(|word| !matches!(word[..], [only] if ends.contains(&only)));
        forbid(logits, words.filter_map(|word| completes(&held, word)));
        if answer.len() < self.min_new_tokens || held.len() < self.min_length {
            forbid(logits, ends.iter().copied());
        }
        forbid(logits, self.suppress_tokens.iter().copied());
        if answer.is_empty() {
            forbid(logits, self.begin_suppress_tokens.iter().copied());
        }
    }
}

fn penalise(logits: &mut [f32], held: &[u32], penalty: f32) {
    let mut seen = held.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for token in seen {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

/// Makes tokens impossible. Ids beyond the vocabulary have no logit.
fn forbid(logits: &mut [f32], tokens: impl Iterator<Item = u32>) {
    for token in tokens {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Tokens with which the last `size` tokens would be a sequence that came before.
fn repeats(held: &[u32], size: usize) -> impl Iterator<Item = u32> {
    // Without a size no window is as long.
    let windows = held.windows(if size == 0 { held.len() + 1 } else { size });
    let last = &held[held.len().saturating_sub(size.saturating_sub(1))..];
    windows.filter(move |window| window[..size.saturating_sub(1)] == *last).filter_map(|window| window.last().copied())
}

/// The last token of `word` if the tokens so far end with those before it.
fn completes(held: &[u32], word: &[u32]) -> Option<u32> {
    let (last, before) = word.split_last()?;
    held.ends_with(before).then_some(*last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(processors: &Processors, prompt: &[u32], answer: &[u32]) -> Vec<f32> {
        let mut logits = vec![1.0, -1.0, 2.0, 0.5, -0.5];
        processors.change(&mut logits, prompt, answer, &[4]);
        logits
    }

    const GONE: f32 = f32::NEG_INFINITY;

    /// Numbers of transformers: tests/golden/model_processors.py.
    #[test]
    fn logits_are_changed_as_by_transformers() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/model_processors.json");
        let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let ids = |ids: &serde_json::Value| -> Vec<u32> { serde_json::from_value(ids.clone()).unwrap() };
        let before: Vec<f32> = (0..64).map(|token| ((token * 37 % 64 - 32) as f32) / 8.0).collect();
        let end = golden["end"].as_u64().unwrap() as u32;
        let mut changes = 0;
        for case in golden["cases"].as_array().unwrap() {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("generation_config.json"), case["config"].to_string()).unwrap();
            let processors = crate::GenerationConfig::read(dir.path()).unwrap().processors;
            for step in case["steps"].as_array().unwrap() {
                let mut after = before.clone();
                processors.change(&mut after, &ids(&case["prompt"]), &ids(&step["answer"]), &[end]);
                let changed = step["changed"].as_object().unwrap();
                changes += changed.len();
                for (token, (after, before)) in after.iter().zip(&before).enumerate() {
                    let want =
                        changed.get(&token.to_string()).map(|want| want.as_f64().map_or(GONE, |want| want as f32));
                    let want = want.unwrap_or(*before);
                    assert!(*after == want || (after - want).abs() < 1e-6, "{} {step}: token {token}", case["config"]);
                }
            }
        }
        assert!(changes > 500, "{changes}");
    }

    #[test]
    fn repetitions_are_less_likely_whatever_their_sign() {
        let penalty = Processors { repetition_penalty: 2.0, ..Processors::default() };
        assert_eq!(changed(&penalty, &[1, 0, 0, 9], &[2]), [0.5, -2.0, 1.0, 0.5, -0.5]);
        assert_eq!(penalty.names(), "repetition_penalty 2");
        assert!(Processors { repetition_penalty: 0.0, ..Processors::default() }.check().is_err());
    }

    #[test]
    fn sequences_that_came_before_are_not_completed() {
        let of = |size| Processors { no_repeat_ngram_size: size, ..Processors::default() };
        // After 0 came 1 and 3.
        assert_eq!(changed(&of(2), &[0, 1, 0, 3], &[0]), [1.0, GONE, 2.0, GONE, -0.5]);
        assert_eq!(changed(&of(3), &[0, 1, 2, 0], &[1]), [1.0, -1.0, GONE, 0.5, -0.5]);
        assert_eq!(changed(&of(1), &[0], &[3]), [GONE, -1.0, 2.0, GONE, -0.5]);
        assert_eq!(changed(&of(4), &[0, 1], &[]), [1.0, -1.0, 2.0, 0.5, -0.5]);
        assert_eq!(changed(&of(1), &[], &[]), [1.0, -1.0, 2.0, 0.5, -0.5]);
    }

    #[test]
    fn words_tokens_and_early_ends_are_forbidden() {
        let words =
            Processors { bad_words: vec![vec![3], vec![4], vec![0, 1], vec![2, 1, 0]], ..Processors::default() };
        assert_eq!(changed(&words, &[2], &[0]), [1.0, GONE, 2.0, GONE, -0.5]);
        assert_eq!(changed(&words, &[2], &[1]), [GONE, -1.0, 2.0, GONE, -0.5]);
        let tokens =
            Processors { suppress_tokens: vec![0, 99], begin_suppress_tokens: vec![1], ..Processors::default() };
        assert_eq!(changed(&tokens, &[2], &[]), [GONE, GONE, 2.0, 0.5, -0.5]);
        assert_eq!(changed(&tokens, &[2], &[2]), [GONE, -1.0, 2.0, 0.5, -0.5]);
        let least = Processors { min_new_tokens: 1, min_length: 4, ..Processors::default() };
        assert_eq!(changed(&least, &[0, 0, 0, 0], &[])[4], GONE);
        assert_eq!(changed(&least, &[0], &[0, 0])[4], GONE);
        assert_eq!(changed(&least, &[0, 0, 0], &[0])[4], -0.5);
    }
}
