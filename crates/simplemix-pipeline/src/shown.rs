//! Settings of a pipeline as a file to start from: every key, with its value or as a comment.

use simplemix_blend::MixSettings;
use simplemix_rollout::{PromptSettings, SamplingConfig, SelectSettings};
#[cfg(feature = "server")]
use simplemix_rollout::{ServerSettings, WeightsSettings};
use simplemix_settings::{Settings, keys};
use simplemix_train::TrainConfig;
use toml::{Table, Value};

use crate::error::Result;
use crate::pool::{PoolModel, PoolSection};
use crate::presets::preset;
use crate::settings::{CollectSection, EvaluateSection, ParallelSection, PipelineSettings, SET_BY_THE_PIPELINE};

impl PipelineSettings {
    /// The settings as TOML with every key: those without a value as comments, those of the preset `base` with the comments
    /// that say where the values come from.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for an unknown preset, [`crate::Error::Serialise`] if a number does not fit TOML.
    pub fn to_full_toml(&self, base: Option<&str>) -> Result<String> {
        let base = base.map(preset).transpose()?.unwrap_or_default();
        let table: Table = self.to_toml()?.parse().map_err(|error| crate::error::invalid("settings", &error))?;
        let head: Vec<&str> = base.lines().take_while(|line| line.starts_with('#')).collect();
        let mut text = Text { base: Comments::of(base), text: head.join("\n") };
        text.table("", &table);
        Ok(text.text.trim_start().to_owned() + "\n")
    }
}

/// Values of a preset with their comments.
struct Comments {
    values: Table,
    /// Comment after the value at a path.
    after: Vec<(String, String)>,
}

impl Comments {
    fn of(preset: &str) -> Self {
        let (mut section, mut after) = (String::new(), Vec::new());
        for line in preset.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                section = name.to_owned();
            } else if let Some((key, rest)) = line.split_once('=').filter(|_| !line.starts_with('#'))
                && let Some((_, comment)) = rest.split_once(" # ")
            {
                after.push((join(&section, key.trim()), comment.trim().to_owned()));
            }
        }
        Self { values: preset.parse().unwrap_or_default(), after }
    }

    /// The comment on a value, while it is the preset's.
    fn on(&self, path: &str, value: &Value) -> Option<&str> {
        let mut parts = path.split('.');
        let first = self.values.get(parts.next()?)?;
        let known = parts.try_fold(first, |value, key| value.get(key))?;
        let is_same = known == value || known.as_integer().map(|number| number as f64) == value.as_float();
        self.after.iter().find(|(of, _)| of == path && is_same).map(|(_, comment)| comment.as_str())
    }
}

/// The file in the making.
struct Text {
    base: Comments,
    text: String,
}

impl Text {
    fn table(&mut self, path: &str, table: &Table) {
        for (key, value) in table.iter().filter(|(_, value)| !is_section(value)) {
            let line = format!("{key} = {}", text_of(value));
            match self.base.on(&join(path, key), value) {
                Some(comment) => self.line(&format!("{line:<31} # {comment}")),
                None => self.line(&line),
            }
        }
        for key in known(path).into_iter().filter(|key| !table.contains_key(*key)) {
            self.line(&format!("# {key} ="));
        }
        for (key, value) in table {
            let path = join(path, key);
            match value {
                Value::Table(inner) => {
                    self.line(&format!("\n[{path}]"));
                    self.table(&path, inner);
                }
                Value::Array(list) if is_section(value) => {
                    for inner in list.iter().filter_map(Value::as_table) {
                        self.line(&format!("\n[[{path}]]"));
                        self.table(&path, inner);
                    }
                }
                _ => {}
            }
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push('\n');
        self.text.push_str(line);
    }
}

/// A value as TOML; a fraction that is whole stays a fraction, and a small one has an exponent.
fn text_of(value: &Value) -> String {
    match value {
        Value::Float(number) if number.is_finite() => format!("{number:?}"),
        other => other.to_string(),
    }
}

/// Whether a value is a table, or a list of tables, with a heading of its own.
fn is_section(value: &Value) -> bool {
    value.is_table() || value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_table))
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// The keys of a section that its user may set.
fn known(path: &str) -> Vec<&'static str> {
    let of_train = |name: &str| {
        let section = TrainConfig::SECTIONS.iter().find(|section| section.name == name);
        section.map(|section| section.fields.iter().map(|field| field.key).collect::<Vec<_>>()).unwrap_or_default()
    };
    let all = match path {
        "" => keys::<PipelineSettings>().to_vec(),
        "prompts" | "evaluate.prompts" => keys::<PromptSettings>().to_vec(),
        "collect" => keys::<CollectSection>().to_vec(),
        "collect.sampling" => keys::<SamplingConfig>().to_vec(),
        "collect.pool" => keys::<PoolSection>().to_vec(),
        "collect.pool.model" => keys::<PoolModel>().to_vec(),
        "collect.select" => keys::<SelectSettings>().to_vec(),
        #[cfg(feature = "server")]
        "collect.server" => keys::<ServerSettings>().to_vec(),
        #[cfg(feature = "server")]
        "collect.weights" => keys::<WeightsSettings>().to_vec(),
        "mix" => [&["on", "off"], keys::<MixSettings>()].concat(),
        "evaluate" => keys::<EvaluateSection>().to_vec(),
        "parallel" => keys::<ParallelSection>().to_vec(),
        "train" | "reward" => of_train(""),
        path => path.strip_prefix("train.").or_else(|| path.strip_prefix("reward.")).map(of_train).unwrap_or_default(),
    };
    let own = SET_BY_THE_PIPELINE.iter().find(|(section, _)| *section == path).map_or(&[][..], |(_, keys)| keys);
    all.into_iter().filter(|key| !own.contains(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::names;

    #[test]
    fn every_key_is_shown_and_what_is_shown_says_the_same() {
        for name in names() {
            let settings = PipelineSettings::resolve(Some(name), None, Table::new()).unwrap();
            let text = settings.to_full_toml(Some(name)).unwrap();
            let again = PipelineSettings::resolve(None, None, text.parse().unwrap()).unwrap();
            assert_eq!(again, settings, "{name}:\n{text}");
            let lines: Vec<&str> = text.lines().map(|line| line.trim_start_matches("# ")).collect();
            for key in [
                "model",
                "off_policy",
                "max_gap",
                "size",
                "batch_size",
                "warmup_ratio",
                "lambda",
                "kl_prompts",
                "system",
            ] {
                let is_key = |line: &&str| line.split(" =").next() == Some(key) || **line == format!("[[{key}]]");
                let is_shown = lines.iter().any(is_key);
                // Prompts are a section of their own once there are some.
                assert_eq!(is_shown, key != "system", "{key} of {name}:\n{text}");
            }
            assert!(text.starts_with("# ") && !known("mix").contains(&"source"), "{text}");
        }
    }

    #[test]
    fn comments_of_a_preset_stay_with_its_values() {
        let over = "[train.loss]\nbeta = 0.3\n[prompts]\nfiles = ['p.jsonl']".parse().unwrap();
        let settings = PipelineSettings::resolve(Some("simplemix"), None, over).unwrap();
        let text = settings.to_full_toml(Some("simplemix")).unwrap();
        assert!(text.contains("batch_size = 128                # fork: 32, 128 and 256"), "{text}");
        assert!(text.contains("\nbeta = 0.3\n") && text.contains("\n# system =\n"), "{text}");
    }
}
