//! `--off-policy` of `simplemix run`: a path, or sources with names and weights as in `simplemix mix --source`.

use std::str::FromStr;

use simplemix_mix::SourceSpec;

use crate::failure::{Fails, Failure, Result};

/// Value of one flag.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OffPolicyFlag {
    /// A path without a name.
    Path(String),
    /// `NAME=PATH`, or `NAME=PATH:WEIGHT`.
    Named(SourceSpec),
}

impl FromStr for OffPolicyFlag {
    type Err = simplemix_mix::Error;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text.split_once('=') {
            // A name has no characters of paths, patterns and URLs, which may have a `=` of their own.
            Some((name, _)) if !name.contains(['/', '\\', ':', '?', '*', '[']) => text.parse().map(Self::Named),
            _ => Ok(Self::Path(text.to_owned())),
        }
    }
}

/// The setting `off_policy` that the flags stand for.
pub(crate) fn value(flags: &[OffPolicyFlag]) -> Result<Option<toml::Value>> {
    match flags {
        [] => return Ok(None),
        [OffPolicyFlag::Path(path)] => return Ok(Some(path.clone().into())),
        _ => {}
    }
    let source = |flag: &OffPolicyFlag| match flag {
        OffPolicyFlag::Path(path) => Err(Failure::input(format!(
            "--off-policy `{path}` has no name, expected NAME=FILE or NAME=FILE:WEIGHT for each"
        ))),
        OffPolicyFlag::Named(SourceSpec { name, path, weight }) => {
            let mut table = toml::Table::new();
            table.insert("name".to_owned(), name.clone().into());
            table.insert("path".to_owned(), path.clone().into());
            if let Some(weight) = weight {
                table.insert("weight".to_owned(), toml::Value::try_from(weight).input()?);
            }
            Ok(toml::Value::Table(table))
        }
    };
    flags.iter().map(source).collect::<Result<_>>().map(|sources| Some(toml::Value::Array(sources)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(flags: &[&str]) -> Result<Option<toml::Value>> {
        value(&flags.iter().map(|flag| flag.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn a_path_stays_a_path_and_names_make_a_list() {
        assert_eq!(of(&[]).unwrap(), None);
        for path in ["uf.parquet", "hf://datasets/a/b@v1?config=c&split=train", "./a=b.parquet", "shards/*.parquet"] {
            assert_eq!(of(&[path]).unwrap(), Some(path.into()));
        }
        let list = of(&["chat=uf.parquet:0.7", "math=hf://datasets/a/b?split=train"]).unwrap().unwrap();
        let expected: toml::Table = "list = [{ name = 'chat', path = 'uf.parquet', weight = '7/10' }, \
            { name = 'math', path = 'hf://datasets/a/b?split=train' }]"
            .parse()
            .unwrap();
        assert_eq!(list, expected["list"]);
        let error = of(&["chat=uf.parquet", "orca.parquet"]).unwrap_err().message().unwrap();
        assert!(error.starts_with("--off-policy `orca.parquet` has no name, expected NAME=FILE"), "{error}");
        assert!("chat=uf.parquet:much".parse::<OffPolicyFlag>().is_err());
    }
}
