//! Names of tensors in a checkpoint that differ from those of the model, read as transformers 5 reads them.
//!
//! A base model's file lacks the prefix of the decoder, and that of a wrapped model has one more. A file may hold an output head
//! beside an embedding that the configuration ties to it: the two may differ, and either may be missing. Tensors that the model
//! has no place for are left aside; one that the model needs is never made up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::config::{EMBEDDING, HEAD, ModelConfig};
use crate::error::{Error, Result};
use crate::reward::SCORE;

/// Prefixes of models that torch wraps for compilation or for training on several devices.
const WRAPPERS: [&str; 2] = ["_orig_mod.", "module."];

/// Kind of the layer on top of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Top {
    /// The output head.
    Head,
    /// The score of a reward model.
    Score,
}

/// How a checkpoint names the tensors of a model.
#[derive(Debug)]
pub(crate) struct Names {
    /// Prefix of all names.
    wrapper: String,
    /// The model's name of each of the checkpoint's tensors that the model has.
    known: BTreeMap<String, String>,
    /// The checkpoint's numbers that are the same in every model of its kind, with their values.
    constants: BTreeMap<String, f64>,
    /// The checkpoint's other tensors.
    others: Vec<String>,
    head: Head,
}

/// Use of the output head in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Read if the model has one of its own.
    AsConfigured,
    /// Beside an embedding that should be the same.
    Second,
    /// In place of the embedding, which is missing.
    Only,
}

impl Names {
    /// Those of a checkpoint of `folder` that holds `stored`.
    ///
    /// # Errors
    /// [`Error::Weights`] if two tensors have one place in the model.
    pub(crate) fn of(folder: &Path, stored: &BTreeSet<String>, config: &ModelConfig, top: Top) -> Result<Self> {
        let wrapper = wrapper(stored);
        let [embedding, head] = [EMBEDDING, HEAD].map(|name| config.names.tensor(name));
        let mut wanted: BTreeSet<String> =
            config.decoder_tensors().iter().map(|(name, _)| config.names.tensor(name)).collect();
        wanted.insert(if top == Top::Head { head.clone() } else { SCORE.to_owned() });
        let place = |name: &str| {
            let readings = config.names.readings(name.strip_prefix(&wrapper).unwrap_or(name));
            readings.into_iter().find(|reading| wanted.contains(reading))
        };
        let given: BTreeMap<String, f64> = config.constants().into_iter().collect();
        let constant = |name: &str| {
            let readings = config.names.readings(name.strip_prefix(&wrapper).unwrap_or(name));
            readings.iter().find_map(|reading| given.get(reading).copied())
        };
        let (mut known, mut constants, mut others, mut problems) =
            (BTreeMap::new(), BTreeMap::new(), Vec::new(), Vec::new());
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        for name in stored {
            let Some(place) = place(name) else {
                match constant(name) {
                    Some(value) => drop(constants.insert(name.clone(), value)),
                    None => others.push(name.clone()),
                }
                continue;
            };
            if let Some(other) = taken.insert(place.clone(), name) {
                problems.push(format!("`{other}` and `{name}` are both `{place}` of the model"));
            }
            known.insert(name.clone(), place);
        }
        if !problems.is_empty() {
            return Err(Error::Weights { folder: folder.to_owned(), problems: problems.join("; ") });
        }
        let has_head = config.tie_word_embeddings && taken.contains_key(&head);
        let head_use = match (has_head, taken.contains_key(&embedding)) {
            (false, _) => Head::AsConfigured,
            (true, true) => Head::Second,
            (true, false) => Head::Only,
        };
        if head_use == Head::Only {
            known.values_mut().filter(|place| **place == head).for_each(|place| place.clone_from(&embedding));
        }
        Ok(Self { wrapper, known, constants, others, head: head_use })
    }

    /// Whether the checkpoint has a head beside the embedding that the configuration ties to it.
    pub(crate) fn has_second_head(&self) -> bool {
        self.head == Head::Second
    }

    /// Name in the model of the checkpoint's tensor `name`; none if it is left aside.
    pub(crate) fn in_model(&self, name: &str) -> Option<String> {
        self.known.get(name).cloned()
    }

    /// The checkpoint's numbers that are the same in every model of its kind, with the values that they must have.
    pub(crate) fn constants(&self) -> &BTreeMap<String, f64> {
        &self.constants
    }

    /// Names of the checkpoint's tensors that the model has or writes itself, each after the model's name for it.
    pub(crate) fn of_model(&self, config: &ModelConfig) -> Vec<(String, String)> {
        let known = self.known.iter().map(|(stored, place)| (place.clone(), stored.clone()));
        let written: BTreeSet<String> = config.constants().into_iter().map(|(name, _)| name).collect();
        let constants = self.constants.keys().filter_map(|stored| {
            let readings = config.names.readings(stored.strip_prefix(&self.wrapper).unwrap_or(stored));
            Some((readings.into_iter().find(|reading| written.contains(reading))?, stored.clone()))
        });
        known.chain(constants).collect()
    }

    /// Prefix of all names in the checkpoint.
    pub(crate) fn wrapper(&self) -> &str {
        &self.wrapper
    }

    /// Tensors of the model that the checkpoint has to hold, under the decoder's names, with their shapes.
    pub(crate) fn wanted(&self, config: &ModelConfig, top: Top) -> Vec<(String, Vec<i64>)> {
        let mut all = config.decoder_tensors();
        match top {
            Top::Score => all.push((SCORE.to_owned(), vec![1, config.hidden_size])),
            Top::Head if self.has_second_head() => {
                all.push((HEAD.to_owned(), vec![config.vocab_size, config.hidden_size]));
            }
            Top::Head => all.extend(config.head_tensor()),
        }
        all
    }

    /// Facts about the names in `folder` that the user should know.
    pub(crate) fn notices(&self, folder: &Path, config: &ModelConfig) -> Vec<String> {
        let folder = folder.display();
        let mut all = Vec::new();
        if !self.wrapper.is_empty() {
            let wrapper = &self.wrapper;
            all.push(format!(
                "{folder}: the name of every tensor begins with `{wrapper}`, as where the state of a wrapped model was saved; \
                 the weights are read without it, and saved without it"
            ));
        }
        if let Some(class) = config.part_of() {
            let (weights, count) = (config.parameters(), self.others.len());
            let rest = match count {
                0 => "no other tensors are here, so a saved model has none either".to_owned(),
                _ => format!(
                    "its other tensors, {count} in all, are not loaded, and a saved model has them from this folder as they are: {}",
                    listed(&self.others)
                ),
            };
            all.push(format!("{folder}: the text part of a `{class}` model, {weights} weights, is read; {rest}"));
        } else if !self.others.is_empty() {
            let (count, names) = (self.others.len(), listed(&self.others));
            all.push(format!(
                "{folder}: the model has no place for {count} of the tensors in its files; they are ignored, as transformers \
                 does, and not saved again: {names}"
            ));
        }
        all
    }
}

/// The words of wrappers before every name.
fn wrapper(names: &BTreeSet<String>) -> String {
    let mut found = String::new();
    while !names.is_empty() {
        let all_have = |word: &&str| {
            names.iter().all(|name| name.strip_prefix(found.as_str()).is_some_and(|rest| rest.starts_with(*word)))
        };
        match WRAPPERS.into_iter().find(all_have) {
            Some(word) => found.push_str(word),
            None => break,
        }
    }
    found
}

/// Names with `*` for their numbers, each once, with how many there are; the first of them, and the number of the rest.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        let parts: Vec<&str> = name.split('.').map(|part| if is_number(part) { "*" } else { part }).collect();
        *counts.entry(parts.join(".")).or_default() += 1;
    }
    let named = |(name, count): (&String, &usize)| match count {
        1 => format!("`{name}`"),
        _ => format!("`{name}` ({count})"),
    };
    let shown = counts.iter().take(SHOWN).map(named).collect::<Vec<_>>().join(", ");
    match counts.values().skip(SHOWN).sum::<usize>() {
        0 => shown,
        rest => format!("{shown}, and {rest} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny;

    fn names(config: &ModelConfig, rename: impl Fn(&str) -> String) -> BTreeSet<String> {
        config.tensors().iter().map(|(name, _)| rename(name)).collect()
    }

    #[test]
    fn wrappers_are_words_before_every_name() {
        let config = tiny::config();
        for prefix in ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."] {
            let stored = names(&config, |name| format!("{prefix}{name}"));
            let found = Names::of(Path::new("m"), &stored, &config, Top::Head).unwrap();
            assert_eq!(found.known.len(), stored.len(), "{prefix}");
            let [notice] = &found.notices(Path::new("m"), &config)[..] else { panic!("{prefix}") };
            assert!(notice.contains(&format!("begins with `{prefix}`")), "{notice}");
        }
        // One name without it.
        let mut stored = names(&config, |name| format!("module.{name}"));
        stored.insert("other".to_owned());
        let found = Names::of(Path::new("m"), &stored, &config, Top::Head).unwrap();
        assert!(found.known.is_empty());
    }

    #[test]
    fn others_are_named_once_with_their_number() {
        let config = tiny::config();
        let mut stored = names(&config, str::to_owned);
        stored.extend((0..40).map(|i| format!("model.layers.{i}.self_attn.rotary_emb.inv_freq")));
        stored.extend(["mtp.fc.weight".to_owned(), "model.layers.2.mlp.up_proj.weight".to_owned()]);
        let notices = Names::of(Path::new("m"), &stored, &config, Top::Head).unwrap().notices(Path::new("m"), &config);
        let expected = "m: the model has no place for 42 of the tensors in its files; they are ignored, as transformers does, and \
                        not saved again: `model.layers.*.mlp.up_proj.weight`, `model.layers.*.self_attn.rotary_emb.inv_freq` (40), \
                        `mtp.fc.weight`";
        assert_eq!(notices, [expected]);
        let many: Vec<String> = (b'a'..=b'k').map(|letter| char::from(letter).to_string()).collect();
        assert!(listed(&many).ends_with("`h`, and 3 more"), "{}", listed(&many));
    }

    #[test]
    fn one_place_is_not_taken_twice() {
        let config = tiny::config();
        let mut stored = names(&config, str::to_owned);
        stored.insert("norm.weight".to_owned());
        let error = Names::of(Path::new("m"), &stored, &config, Top::Head).unwrap_err().to_string();
        assert!(
            error.contains("`model.norm.weight` and `norm.weight` are both `model.norm.weight` of the model"),
            "{error}"
        );
    }
}
