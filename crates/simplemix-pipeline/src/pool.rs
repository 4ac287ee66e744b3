//! Settings of a pool: other models whose responses stand beside the policy's, and how many of which models each prompt has.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
#[cfg(feature = "server")]
use simplemix_rollout::Servers;
use simplemix_rollout::{Quota, SelectSettings};

use crate::error::{Error, Result};

/// Name of the policy among the models of a pool.
pub(crate) const POLICY: &str = "policy";

/// Other models that take part in collecting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolSection {
    /// Numbers of responses that each prompt has of some models, such as `2:weak` or `1:policy,qwen`: names of models or of their
    /// groups, and `policy`. Without any, every model gives as many responses as `collect.sampling.samples` says, and files all
    /// that they have.
    #[serde(serialize_with = "written", deserialize_with = "read")]
    pub take: Vec<Quota>,
    /// Random seed of the draw, to which the pipeline's is added.
    pub seed: u64,
    /// The other models.
    #[serde(rename = "model", skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<PoolModel>,
}

impl Default for PoolSection {
    fn default() -> Self {
        Self { take: Vec::new(), seed: 42, models: Vec::new() }
    }
}

/// Another model of a pool; one of `model`, `server` and `candidates` says where its responses come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolModel {
    /// Name in quotas, rules and the column `generator`; a file without one has that column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Group that quotas and rules can name in place of each of its models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Model in this process: a folder, or its id on the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// Server that has the model, or a list of several that share the requests.
    #[cfg(feature = "server")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Servers>,
    /// Candidates that are there already: file, folder of shards, pattern or URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates: Option<PathBuf>,
}

impl PoolModel {
    /// Whether it samples in the pipeline.
    pub(crate) fn samples(&self) -> bool {
        self.candidates.is_none()
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Number of places where its responses could come from.
    fn origins(&self) -> usize {
        #[cfg(feature = "server")]
        let server = usize::from(self.server.is_some());
        #[cfg(not(feature = "server"))]
        let server = 0;
        usize::from(self.model.is_some()) + usize::from(self.candidates.is_some()) + server
    }
}

fn refuse<T>(key: &str, found: impl Into<String>, expected: impl Into<String>) -> Result<T> {
    Err(Error::setting(&format!("collect.pool.{key}"), found.into(), expected.into()))
}

impl PoolSection {
    /// Checks what can be checked before the models are known.
    pub(crate) fn check(&self) -> Result<()> {
        for (at, model) in self.models.iter().enumerate() {
            self.check_model(at, model)?;
        }
        let is_void = |quota: &&Quota| quota.responses == 0 || quota.generators.iter().any(String::is_empty);
        if let Some(quota) = self.take.iter().find(is_void) {
            return refuse("take", quota.to_string(), "at least 1 response, and names of models after the number");
        }
        let mut named: Vec<String> = self.quotas().into_iter().flat_map(|quota| quota.generators).collect();
        named.sort();
        match named.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => refuse("take", format!("a list with `{}` twice", twice[0]), "each model once"),
            None => Ok(()),
        }
    }

    fn check_model(&self, at: usize, model: &PoolModel) -> Result<()> {
        let of = match model.name() {
            Some(name) => format!("of `{name}`"),
            None => format!("of entry {at}"),
        };
        if model.origins() != 1 {
            let found = if model.origins() == 0 { "without an origin" } else { "with several origins" };
            return refuse("model", format!("{of} {found}"), "one of `model`, `server` and `candidates`");
        }
        if model.name().is_none() && model.samples() {
            return refuse("model", format!("{of} without a name"), "a name for each model that samples");
        }
        let names = [model.name(), model.group.as_deref()];
        if let Some(name) = names.into_iter().flatten().find(|name| is_unfit(name)) {
            let expected = "another name: not blank, not `policy`, and without `,` and `:`";
            return refuse("model", format!("{of} with the name `{name}`"), expected);
        }
        let earlier = || self.models[..at].iter();
        if let Some(name) = model.name().filter(|name| earlier().any(|other| other.name() == Some(name))) {
            return refuse("model", format!("a list with the name `{name}` twice"), "different names");
        }
        let is_model = |group: &&String| self.models.iter().any(|other| other.name() == Some(group.as_str()));
        match model.group.as_ref().filter(is_model) {
            Some(group) => refuse("model", format!("{of} in the group `{group}`"), "a group with no model's name"),
            None => Ok(()),
        }
    }

    /// Checks that every name is known, and that every model takes part.
    pub(crate) fn check_names(&self, select: &SelectSettings) -> Result<()> {
        // The column of a file may have further names.
        let is_open = self.models.iter().any(|model| model.name().is_none());
        let known: Vec<&str> =
            self.models.iter().flat_map(|model| [model.name(), model.group.as_deref()]).flatten().collect();
        let is_known = |name: &str| is_open || name == POLICY || known.contains(&name);
        let expected = || {
            let known = if known.is_empty() { "none is given".to_owned() } else { known.join(", ") };
            format!("`policy`, or a model or group of [[collect.pool.model]] (--pool): {known}")
        };
        if let Some(name) = self.take.iter().flat_map(|quota| &quota.generators).find(|name| !is_known(name)) {
            return refuse("take", format!("a list with `{name}`"), expected());
        }
        for (key, names) in
            [("chosen_generators", &select.chosen_generators), ("rejected_generators", &select.rejected_generators)]
        {
            if let Some(name) = names.iter().find(|name| !is_known(name)) {
                return Err(Error::setting(
                    &format!("collect.select.{key}"),
                    format!("a list with `{name}`"),
                    expected(),
                ));
            }
        }
        if self.models.is_empty() {
            return refuse("model", "not set", "at least one other model, or no section [collect.pool]");
        }
        let quotas = self.quotas();
        let takes_part =
            |name: &str| quotas.is_empty() || quotas.iter().any(|quota| quota.generators.iter().any(|of| of == name));
        match self.models.iter().filter_map(PoolModel::name).find(|name| !takes_part(name)) {
            Some(name) => refuse("take", "set", format!("a number for each model; none has `{name}`")),
            None => Ok(()),
        }
    }

    /// The quotas with models in place of groups.
    pub(crate) fn quotas(&self) -> Vec<Quota> {
        let quota = |quota: &Quota| Quota { generators: self.models_of(&quota.generators), ..quota.clone() };
        self.take.iter().map(quota).collect()
    }

    /// The models that names of models and groups stand for.
    pub(crate) fn models_of(&self, names: &[String]) -> Vec<String> {
        let of = |name: &String| {
            let group = self.models.iter().filter(|model| model.group.as_ref() == Some(name));
            let models: Vec<String> = group.filter_map(|model| model.name.clone()).collect();
            if models.is_empty() { vec![name.clone()] } else { models }
        };
        names.iter().flat_map(of).collect()
    }

    /// Whether the policy takes part.
    pub fn has_policy(&self) -> bool {
        self.take.is_empty() || self.take.iter().any(|quota| quota.generators.iter().any(|name| name == POLICY))
    }

    /// Whether any response is sampled.
    pub fn samples(&self) -> bool {
        self.models.is_empty() || self.has_policy() || self.models.iter().any(PoolModel::samples)
    }

    /// Folders and ids of models in this process.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.models.iter().filter_map(|model| model.model.as_deref())
    }
}

fn is_unfit(name: &str) -> bool {
    name.trim().is_empty() || name == POLICY || name.contains([',', ':'])
}

/// Quotas as the command line has them.
fn written<S: Serializer>(quotas: &[Quota], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(quotas.iter().map(ToString::to_string))
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<Quota>, D::Error> {
    let quotas: Vec<String> = Vec::deserialize(deserializer)?;
    quotas.iter().map(|text| Quota::from_str(text).map_err(serde::de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use crate::settings::PipelineSettings;

    use super::*;

    fn read(text: &str) -> Result<PoolSection> {
        let settings = PipelineSettings::resolve(Some("on-policy"), None, text.parse().unwrap())?;
        settings.check()?;
        let again = PipelineSettings::resolve(None, None, settings.to_toml()?.parse().unwrap())?;
        assert_eq!(again, settings);
        let pool = settings.collect.pool.unwrap();
        pool.check_names(&settings.collect.select).map(|()| pool)
    }

    const MODELS: &str = "
        [[collect.pool.model]]
        name = 'small'
        group = 'weak'
        model = './small'
        [[collect.pool.model]]
        name = 'tiny'
        group = 'weak'
        candidates = 'tiny.parquet'
        [[collect.pool.model]]
        name = 'large'
        model = './large'";

    #[test]
    fn groups_stand_for_their_models() {
        let pool = read(&format!("[collect.pool]\ntake = ['2:weak', '1:large', '1:policy']\n{MODELS}")).unwrap();
        let quotas: Vec<String> = pool.quotas().iter().map(ToString::to_string).collect();
        assert_eq!(quotas, ["2:small,tiny", "1:large", "1:policy"]);
        assert!(pool.has_policy() && pool.samples());
        let pool = read(&format!("[collect.pool]\ntake = ['1:small,tiny', '1:large']\n{MODELS}")).unwrap();
        assert!(!pool.has_policy());
        // Without quotas all take part.
        assert!(read(MODELS).unwrap().has_policy());
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let with = |take: &str, more: &str| {
            read(&format!("[collect.pool]\ntake = {take}\n{MODELS}\n{more}")).unwrap_err().to_string()
        };
        let absent = with("['1:weak', '1:huge']", "");
        assert!(
            absent.contains("`collect.pool.take` is a list with `huge`, expected `policy`, or a model"),
            "{absent}"
        );
        assert!(with("['1:weak', '1:policy']", "").contains("none has `large`"));
        assert!(with("['1:weak', '1:large', '1:small']", "").contains("`small` twice"));
        assert!(with("['0:weak', '1:large']", "").contains("at least 1 response"));
        assert!(with("['weak']", "").contains("a number and models"), "{}", with("['weak']", ""));
        let take = "['1:weak', '1:large']";
        for (more, expected) in [
            ("name = 'x'", "of `x` without an origin"),
            ("name = 'x'\nmodel = 'a'\ncandidates = 'b'", "of `x` with several origins"),
            ("model = 'a'", "of entry 3 without a name"),
            ("name = 'policy'\nmodel = 'a'", "with the name `policy`, expected another name"),
            ("name = 'a,b'\nmodel = 'a'", "with the name `a,b`, expected another name"),
            ("name = 'tiny'\nmodel = 'a'", "a list with the name `tiny` twice"),
            ("name = 'x'\nmodel = 'a'\ngroup = 'large'", "in the group `large`, expected a group with no model's name"),
            ("nmae = 'x'", "nmae"),
        ] {
            let message = with(take, &format!("[[collect.pool.model]]\n{more}"));
            assert!(message.contains(expected), "{message}");
        }
        let none = read("[collect.pool]\ntake = ['1:policy']").unwrap_err().to_string();
        assert!(none.contains("`collect.pool.model` is not set"), "{none}");
    }
}
