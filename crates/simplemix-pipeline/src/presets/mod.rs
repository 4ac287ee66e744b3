//! Presets, files over presets or over other files, and settings over both.

use std::path::Path;

use simplemix_settings::merge;

use crate::error::{At, Error, Result, invalid};

const PRESETS: [(&str, &str); 17] = [
    ("simplemix", include_str!("simplemix.toml")),
    ("off-policy", include_str!("off-policy.toml")),
    ("on-policy", include_str!("on-policy.toml")),
    ("hypo", include_str!("hypo.toml")),
    ("dpo-mix-p", include_str!("dpo-mix-p.toml")),
    ("dpo-mix-r", include_str!("dpo-mix-r.toml")),
    ("iterative", include_str!("iterative.toml")),
    ("semi-online", include_str!("semi-online.toml")),
    ("qrpo", include_str!("qrpo.toml")),
    ("tulu3", include_str!("tulu3.toml")),
    ("olmo2", include_str!("olmo2.toml")),
    ("olmo3-instruct", include_str!("olmo3-instruct.toml")),
    ("olmo3-think", include_str!("olmo3-think.toml")),
    ("smollm3", include_str!("smollm3.toml")),
    ("small", include_str!("small.toml")),
    ("delta", include_str!("delta.toml")),
    ("delta-judged", include_str!("delta-judged.toml")),
];

/// Names of the presets.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The text of a preset, with comments on the sources of its values.
///
/// # Errors
/// [`Error::Setting`] naming the presets that there are.
pub fn preset(name: &str) -> Result<&'static str> {
    let found = PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    let known = || format!("one of {}, or a file that ends in .toml", names().collect::<Vec<_>>().join(", "));
    found.ok_or_else(|| Error::setting("preset", format!("`{name}`"), known()))
}

/// Most files that may be based on one another.
const MOST_LAYERS: usize = 8;

/// The settings of `file` over those of `base`, which is a preset or the path of a TOML file. Without a base, the file's
/// own key `preset` names it; a path in that key is relative to the file.
pub(crate) fn layers(base: Option<&str>, file: Option<&Path>) -> Result<toml::Table> {
    match (file, base) {
        (Some(path), _) => read(path, base, MOST_LAYERS),
        (None, Some(name)) => named(name, Path::new(""), MOST_LAYERS),
        (None, None) => Ok(toml::Table::new()),
    }
}

fn read(path: &Path, base: Option<&str>, layers: usize) -> Result<toml::Table> {
    let text = simplemix_files::read_to_string(path).at(path, "read")?;
    let mut own: toml::Table = text.parse().map_err(|error| invalid(&path.display().to_string(), &error))?;
    let preset = match own.remove("preset") {
        Some(toml::Value::String(name)) => Some(name),
        Some(other) => return Err(Error::setting("preset", other, "a name or a file")),
        None => None,
    };
    let mut table = match (base, &preset) {
        (Some(name), _) => named(name, Path::new(""), layers)?,
        (None, Some(name)) => named(name, path.parent().unwrap_or(Path::new("")), layers)?,
        (None, None) => toml::Table::new(),
    };
    merge(&mut table, own);
    Ok(table)
}

/// The settings that a name stands for; one that ends in `.toml` is a file, relative to `folder`.
fn named(name: &str, folder: &Path, layers: usize) -> Result<toml::Table> {
    if !name.ends_with(".toml") {
        return preset(name)?.parse().map_err(|error| invalid(name, &error));
    }
    if layers == 0 {
        let found = format!("a chain of more than {MOST_LAYERS} files");
        return Err(Error::setting("preset", found, "fewer; is it a circle?"));
    }
    read(&folder.join(name), None, layers - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that say themselves what they are: shares, and random seeds.
    const PLAIN: [&str; 3] = ["on", "off", "seed"];

    #[test]
    fn every_number_has_its_source_beside_it() {
        for (name, text) in PRESETS {
            assert!(!text.contains("from memory"), "{name}");
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let Some((key, rest)) = line.split_once('=') else { continue };
                let (value, comment) = rest.split_once(" # ").unwrap_or((rest, ""));
                let is_number = value.trim().parse::<f64>().is_ok() && !PLAIN.contains(&key.trim());
                assert!(!is_number || !comment.trim().is_empty(), "{name}: {line}");
            }
        }
    }
}
