//! Settings and content that the updates of a run follow from, kept so that a resumed run is the same run.

use std::collections::BTreeMap;

use serde_json::Value;
use simplemix_files::hash_model_folder;

use super::Run;
use crate::config::TrainConfig;
use crate::error::{At, Error, Result};
use crate::run_folder::RunFolder;
use crate::team::Team;

const FILE: &str = "identity.json";
const MODEL: &str = "content of the model";
const REFERENCE: &str = "content of the reference model";

/// Keys, and sections up to a dot, that may change on the way. Some name a place whose content is compared; the others cannot
/// change an update, or only say how many there are.
const FREE: &[&str] = &[
    "batch.micro_batch_tokens",
    "checkpoint.",
    "data.",
    "device",
    "epochs",
    "eval.eval_at_end",
    "eval.eval_every_epoch",
    "eval.eval_every_ratio",
    "eval.eval_every_steps",
    "eval.files",
    "log.",
    "lora.adapter",
    "max_steps",
    "memory.",
    "mix",
    "model",
    "output",
    "parallel.",
    "push.",
    "reference.cache_folder",
    "reference.model",
    "tokens.cache",
    "tokens.cache_folder",
    "train",
];

/// As [`FREE`], between the processes of a run: each may have its own places, and pairs of a pass as its memory allows. All else
/// decides about what they do together.
const OWN: &[&str] = &[
    "batch.micro_batch_tokens",
    "data.sets",
    "device",
    "eval.files",
    "lora.adapter",
    "memory.logits_bytes",
    "mix",
    "model",
    "output",
    "parallel.processes",
    "reference.cache_folder",
    "reference.model",
    "tokens.cache_folder",
    "train",
];

/// Settings and content hashes by name.
#[derive(Debug, PartialEq)]
pub(super) struct Identity(BTreeMap<String, Value>);

impl Identity {
    /// Hashes data and models of a run.
    pub(super) fn of(run: &Run) -> Result<Self> {
        let mut identity = Self::of_settings(&run.config, FREE)?;
        let mut part = |name: &str, hash: String| identity.0.insert(name.to_owned(), hash.into());
        part("content of the training pairs", run.train.hash());
        if run.config.eval.best_metric.is_some() {
            for (name, set) in &run.eval {
                part(format!("content of the held-out pairs {name}").trim_end(), set.hash());
            }
        }
        let TrainConfig { reference, lora, .. } = &run.config;
        let folders = [
            (MODEL, Some(&run.model)),
            (REFERENCE, reference.model.as_ref()),
            ("content of the adapter", lora.adapter.as_ref()),
        ];
        for (name, folder) in folders {
            if let Some(folder) = folder {
                part(name, hash_model_folder(folder)?);
            }
        }
        Ok(identity)
    }

    fn of_settings(config: &TrainConfig, free: &[&str]) -> Result<Self> {
        let mut found = BTreeMap::new();
        let value = serde_json::to_value(config).expect("settings are keys and values");
        leaves("", &value, &mut found);
        let is_within = |key: &str, free: &str| {
            key == free || (free.ends_with('.') && key.starts_with(free)) || key.starts_with(&format!("{free}."))
        };
        found.retain(|key, _| !free.iter().any(|free| is_within(key, free)));
        for source in &config.mix {
            found.insert(format!("mix.{}.weight", source.name), serde_json::json!(source.weight));
        }
        Ok(Self(found))
    }

    /// Hash of the folder of the reference's weights: a model of its own, or the one that is trained.
    pub(super) fn reference_hash(&self) -> &str {
        let hash = [REFERENCE, MODEL].into_iter().find_map(|name| self.0.get(name)?.as_str());
        hash.expect("the model is always hashed")
    }

    /// Sees that all processes have the same settings, data and models.
    pub(super) fn agree(&self, run: &Run, team: &Team) -> Result<()> {
        if team.size() == 1 {
            return Ok(());
        }
        let mut own = Self::of_settings(&run.config, OWN)?.0;
        let contents = self.0.iter().filter(|(name, _)| name.starts_with("content "));
        own.extend(contents.map(|(name, value)| (name.clone(), value.clone())));
        for (name, set) in &run.eval {
            own.insert(format!("content of the held-out pairs {name}").trim_end().to_owned(), set.hash().into());
        }
        let (names, text) = (own.keys().cloned().collect::<Vec<_>>().join(", "), serde_json::json!(own).to_string());
        let names = format!("{} ({})", names, own.len());
        if team.agree("hash of settings and data", blake3::hash(text.as_bytes()).to_hex().as_str()).is_ok() {
            return Ok(());
        }
        team.agree("list of the settings", &names)?;
        own.iter().try_for_each(|(name, value)| team.agree(name, &value.to_string()))
    }

    pub(super) fn write(&self, folder: &RunFolder) -> Result<()> {
        folder.write(FILE, &format!("{:#}\n", serde_json::json!(self.0)))
    }

    /// Compares with what the run in `folder` was started with. Differences are an error or, if the run goes on `anyway`, a
    /// notice.
    pub(super) fn check(&self, folder: &RunFolder, anyway: bool) -> Result<Option<String>> {
        let differences = match folder.read_json(FILE)? {
            Some(kept) => Self(kept).with_type_of(self).with_defaults()?.differences(self),
            // A run of version 0.1 has its settings only.
            None => {
                let path = folder.path().join("config.toml");
                let text = simplemix_files::read_to_string(&path).at(&path, "read")?;
                let kept = Self::of_settings(&TrainConfig::from_toml(&text, &path)?, FREE)?;
                let own = self.0.iter().filter(|(name, _)| !name.starts_with("content "));
                kept.with_type_of(self)
                    .differences(&Self(own.map(|(name, value)| (name.clone(), value.clone())).collect()))
            }
        };
        if differences.is_empty() {
            return Ok(None);
        }
        let text = differences.join("; ");
        match anyway {
            true => Ok(Some(format!("the run goes on with other settings or data than it began with: {text}"))),
            false => Err(Error::Differs { path: folder.path().to_owned(), differences: text }),
        }
    }

    /// Earlier versions kept `auto` as the element type, which stood for the type of now.
    fn with_type_of(mut self, now: &Self) -> Self {
        if self.0.get("dtype").is_some_and(|kept| kept == "auto")
            && let Some(now) = now.0.get("dtype")
        {
            self.0.insert("dtype".to_owned(), now.clone());
        }
        self
    }

    /// Settings that an earlier version did not know have their defaults, with which it did the same.
    fn with_defaults(mut self) -> Result<Self> {
        let within = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
        for (key, value) in Self::of_settings(&TrainConfig::default(), FREE)?.0 {
            // A setting may be one value or a table.
            if !self.0.keys().any(|kept| within(kept, &key) || within(&key, kept)) {
                self.0.entry(key).or_insert(value);
            }
        }
        Ok(self)
    }

    fn differences(&self, now: &Self) -> Vec<String> {
        let (kept, now) = (&self.0, &now.0);
        let names: std::collections::BTreeSet<&String> = kept.keys().chain(now.keys()).collect();
        let names = names.into_iter().filter(|name| kept.get(*name) != now.get(*name));
        names.map(|name| difference(name, kept.get(name), now.get(name))).collect()
    }
}

fn difference(name: &str, was: Option<&Value>, is: Option<&Value>) -> String {
    if let Some(what) = name.strip_prefix("content of ") {
        return match (was, is) {
            (None, _) => format!("{what} is new"),
            (_, None) => format!("{what} is gone"),
            _ => format!("the content of {what} has changed"),
        };
    }
    let text = |value: Option<&Value>| value.map_or("not set".to_owned(), Value::to_string);
    format!("`{name}` was {} and is {}", text(was), text(is))
}

/// Leaves of nested tables by their path; what has no value is left out.
fn leaves(path: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Null => {}
        Value::Object(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(&path, value, found);
            }
        }
        value => drop(found.insert(path.to_owned(), value.clone())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn identity(text: &str) -> Identity {
        Identity::of_settings(&TrainConfig::from_toml(text, Path::new("run.toml")).unwrap(), FREE).unwrap()
    }

    #[test]
    fn what_cannot_change_an_update_may_change() {
        let free = "device = 'cpu'\noutput = 'r'\nepochs = 3\nmax_steps = 9\ntrain = 'moved.jsonl'\n[batch]\nmicro_batch_tokens = 9\n\
                    [memory]\nactivation_checkpointing = true\n[checkpoint]\nkeep = 7\nsave_every_steps = 3\n\
                    [eval]\neval_every_steps = 5\n[log]\ntensorboard = false\n[tokens]\ncache = false\n";
        assert_eq!(identity("").differences(&identity(free)), [""; 0]);
    }

    #[test]
    fn the_element_type_of_older_runs_is_not_known() {
        let now = identity("dtype = 'float32'");
        assert_eq!(identity("dtype = 'auto'").with_type_of(&now).differences(&now), [""; 0]);
        let found = identity("dtype = 'bfloat16'").with_type_of(&now).differences(&now);
        assert_eq!(found, ["`dtype` was \"bfloat16\" and is \"float32\""]);
    }

    #[test]
    fn a_setting_that_an_older_run_did_not_know_has_its_default() {
        let old = || {
            let mut old = identity("");
            old.0.remove("optimizer.min_rate_ratio").unwrap();
            old.with_defaults().unwrap()
        };
        assert_eq!(old().differences(&identity("")), [""; 0]);
        let table = || identity("loss.f_divergence_type = { alpha_divergence = 0.5 }\n");
        assert_eq!(table().with_defaults().unwrap().differences(&table()), [""; 0]);
        let now = identity("[optimizer]\nmin_rate_ratio = 0.1\n");
        assert_eq!(old().differences(&now), ["`optimizer.min_rate_ratio` was 0.0 and is 0.1"]);
    }

    #[test]
    fn what_changes_updates_is_named() {
        let text =
            "seed = 1\n[batch]\nbatch_size = 4\n[optimizer]\nfreeze = ['a']\n[loss]\nbeta = 0.2\n[lora]\nrank = 2\n";
        let expected = [
            "`batch.batch_size` was 8 and is 4",
            "`lora.rank` was 0 and is 2",
            "`loss.beta` was 0.1 and is 0.2",
            "`optimizer.freeze` was [] and is [\"a\"]",
            "`seed` was 42 and is 1",
        ];
        let found = identity("").differences(&identity(text));
        assert!(expected.iter().all(|part| found.contains(&(*part).to_owned())), "{found:?}");
        let mix = |weight: u64| identity(&format!("[[mix]]\nname = 'a'\npath = 'a'\nweight = {weight}\n"));
        assert_eq!(mix(1).differences(&mix(2)).len(), 1);
    }
}
