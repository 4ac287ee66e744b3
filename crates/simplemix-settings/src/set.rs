//! Settings over settings: tables that are merged, and assignments of the command line.

use crate::error::{Error, Result};

/// Puts `over` on top of `table`: values replace values, tables are merged.
///
/// ```
/// let mut table: toml::Table = "seed = 1\n[loss]\nname = 'ipo'\nbeta = 0.1".parse()?;
/// simplemix_settings::merge(&mut table, "[loss]\nbeta = 0.5".parse()?);
/// assert_eq!(table, "seed = 1\n[loss]\nname = 'ipo'\nbeta = 0.5".parse()?);
/// # Ok::<(), toml::de::Error>(())
/// ```
pub fn merge(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

/// Reads `section.key=value` of `--set`. A value that is not TOML is taken as text.
///
/// ```
/// let table = simplemix_settings::assignment("loss.name=ipo")?;
/// assert_eq!(table["loss"]["name"].as_str(), Some("ipo"));
/// # Ok::<(), simplemix_settings::Error>(())
/// ```
///
/// # Errors
/// [`Error::Assignment`] if there is no `=`, or the key is not one of TOML.
pub fn assignment(text: &str) -> Result<toml::Table> {
    let refuse = |problem: String| Error::Assignment { text: text.to_owned(), problem };
    let (path, value) =
        text.split_once('=').ok_or_else(|| refuse("expected SECTION.KEY=VALUE, such as loss.beta=0.05".to_owned()))?;
    let line = |value: &str| format!("{} = {value}", path.trim()).parse::<toml::Table>();
    line(value.trim())
        .or_else(|_| line(&toml::Value::from(value.trim()).to_string()))
        .map_err(|error| refuse(error.message().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_toml_or_text() {
        let read = |text: &str| assignment(text).unwrap();
        assert_eq!(read("optimizer.learning_rate=1e-3"), "optimizer.learning_rate = 1e-3".parse().unwrap());
        assert_eq!(read("lora.targets=['q_proj']"), "lora.targets = ['q_proj']".parse().unwrap());
        assert_eq!(read("model = some/folder"), "model = 'some/folder'".parse().unwrap());
        assert_eq!(read("model=").get("model").and_then(toml::Value::as_str), Some(""));
    }

    #[test]
    fn what_is_no_assignment_is_refused() {
        let refused = |text: &str| assignment(text).unwrap_err().to_string();
        assert_eq!(refused("beta"), "--set is `beta`, expected SECTION.KEY=VALUE, such as loss.beta=0.05");
        assert!(refused("a b=1").starts_with("--set is `a b=1`, "), "{}", refused("a b=1"));
    }
}
