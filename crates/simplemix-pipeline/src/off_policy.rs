//! Off-policy pairs of a pipeline: one source, or several that share the weight `mix.off`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use simplemix_blend::MixSource;
use simplemix_mix::Weight;

use crate::error::{Error, Result};

/// Off-policy pairs: a path, or a list of sources as a mixture has them.
///
/// # Examples
/// ```
/// use simplemix_pipeline::PipelineSettings;
/// let over = "[[off_policy]]\nname = 'chat'\npath = 'chat.parquet'\nweight = 3\n\
///             [[off_policy]]\nname = 'math'\npath = 'math.parquet'\nweight = 1";
/// let settings = PipelineSettings::resolve(Some("off-policy"), None, over.parse()?)?;
/// assert_eq!(settings.off_policy.unwrap().paths().count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum OffPolicy {
    /// File, folder of shards, pattern or URL; its pairs are those of the source `off`.
    One(PathBuf),
    /// Sources with names of their own; equal shares if none has a weight.
    Several(Vec<MixSource>),
}

impl From<&str> for OffPolicy {
    fn from(path: &str) -> Self {
        Self::One(path.into())
    }
}

impl From<PathBuf> for OffPolicy {
    fn from(path: PathBuf) -> Self {
        Self::One(path)
    }
}

impl OffPolicy {
    /// Paths of the sources, as they were written.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let (one, several) = match self {
            Self::One(path) => (Some(path.as_path()), &[][..]),
            Self::Several(sources) => (None, &sources[..]),
        };
        one.into_iter().chain(several.iter().map(|source| source.path.as_path()))
    }

    /// The sources of a mixture in which they have the weight `off` together.
    pub(crate) fn sources(&self, off: Weight) -> Result<Vec<MixSource>> {
        let sources = match self {
            Self::One(path) => return Ok(vec![MixSource::new("off", path, off)]),
            Self::Several(sources) => sources,
        };
        let weights: Vec<Weight> = sources.iter().map(|source| source.weight.unwrap_or(Weight::whole(1))).collect();
        let shares = off.divided(&weights)?;
        let of = |(source, share): (&MixSource, Weight)| MixSource::new(&source.name, &source.path, share);
        Ok(sources.iter().zip(shares).map(of).collect())
    }

    /// Checks names and weights; `own` are the names of the pipeline's own sources.
    pub(crate) fn check(&self, own: &str) -> Result<()> {
        let Self::Several(sources) = self else { return Ok(()) };
        let refuse = |found: String, expected: &str| Err(Error::setting("off_policy", found, expected));
        if sources.is_empty() {
            return refuse("an empty list".to_owned(), "a path, or at least one source");
        }
        for (at, MixSource { name, weight, .. }) in sources.iter().enumerate() {
            if name.trim().is_empty() {
                return refuse(format!("a list whose entry {at} has a blank name"), "a name for each source");
            }
            if name == own || name.strip_prefix(own).is_some_and(|rest| rest.starts_with('-')) {
                let expected = "another name: the pairs that the pipeline collects have this one";
                return refuse(format!("a list with the name `{name}`"), expected);
            }
            if sources[..at].iter().any(|other| other.name == *name) {
                return refuse(format!("a list with the name `{name}` twice"), "different names");
            }
            if weight.is_some() != sources[0].weight.is_some() {
                let without = if weight.is_some() { &sources[0].name } else { name };
                let found = format!("a list in which `{without}` has no weight, though other sources have one");
                return refuse(found, "a weight for every source, or for none");
            }
        }
        match sources.iter().all(|source| source.weight.is_some_and(Weight::is_zero)) {
            true => refuse("a list of sources with the weight 0".to_owned(), "a weight above 0 for one of them"),
            false => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for OffPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = OffPolicy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or a list of sources, each with `name`, `path` and perhaps `weight`")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> std::result::Result<OffPolicy, E> {
                Ok(path.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, sources: A) -> std::result::Result<OffPolicy, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(sources)).map(OffPolicy::Several)
            }
        }

        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::PipelineSettings;

    use super::*;

    fn read(text: &str) -> Result<PipelineSettings> {
        let settings = PipelineSettings::resolve(Some("simplemix"), None, text.parse().unwrap())?;
        settings.check().map(|()| settings)
    }

    #[test]
    fn a_path_or_a_list_is_read_and_written_again() {
        let one = read("off_policy = 'a.parquet'").unwrap();
        assert_eq!(one.off_policy, Some("a.parquet".into()));
        let list =
            "off_policy = [{ name = 'a', path = 'a.parquet', weight = '1/3' }, { name = 'b', path = 'b', weight = 1 }]";
        let several = read(list).unwrap();
        for settings in [one, several.clone()] {
            let again = PipelineSettings::resolve(None, None, settings.to_toml().unwrap().parse().unwrap()).unwrap();
            assert_eq!(again, settings);
            let shown = settings.to_full_toml(Some("simplemix")).unwrap();
            assert_eq!(PipelineSettings::resolve(None, None, shown.parse().unwrap()).unwrap(), settings, "{shown}");
        }
        // A third of one against one of the other: a quarter and three quarters of a half.
        let sources = several.off_policy.unwrap().sources("1/2".parse().unwrap()).unwrap();
        let weights: Vec<String> = sources.iter().map(|source| source.weight.unwrap().to_string()).collect();
        assert_eq!(weights, ["1/8", "3/8"]);
    }

    #[test]
    fn lists_that_cannot_be_mixed_are_refused_by_name() {
        let message = |list: &str| read(&format!("off_policy = {list}")).unwrap_err().to_string();
        assert!(message("3").contains("expected a path, or a list of sources"), "{}", message("3"));
        assert!(message("[]").contains("`off_policy` is an empty list"));
        let unknown = message("[{ name = 'a', path = 'a', wieght = 1 }]");
        assert!(unknown.contains("wieght"), "{unknown}");
        let missing = message("[{ path = 'a' }]");
        assert!(missing.contains("name"), "{missing}");
        for (list, expected) in [
            ("[{ name = 'a', path = 'a' }, { name = 'a', path = 'b' }]", "the name `a` twice"),
            ("[{ name = 'on', path = 'a' }]", "the name `on`, expected another name"),
            ("[{ name = 'on-1', path = 'a' }]", "the name `on-1`, expected another name"),
            ("[{ name = ' ', path = 'a' }]", "entry 0 has a blank name"),
            ("[{ name = 'a', path = 'a', weight = 0 }]", "sources with the weight 0"),
            (
                "[{ name = 'a', path = 'a' }, { name = 'b', path = 'b', weight = 1 }]",
                "`a` has no weight, though other sources have one",
            ),
        ] {
            let message = message(list);
            assert!(message.contains(expected), "{message}");
        }
    }
}
