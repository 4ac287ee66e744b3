//! `--pool` of `simplemix run`: another model whose responses stand beside the policy's.

use std::str::FromStr;

/// Value of one flag: `[GROUP:]NAME=MODEL`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PoolFlag {
    group: Option<String>,
    name: String,
    /// Where the responses come from.
    origin: Origin,
}

#[derive(Debug, Clone, PartialEq)]
enum Origin {
    /// Address of a server.
    Server(String),
    /// File of candidates.
    Candidates(String),
    /// Model folder, or id on the hub.
    Model(String),
}

/// Endings of files of candidates.
const ENDINGS: [&str; 6] = [".parquet", ".arrow", ".jsonl", ".json", ".csv", ".gz"];

impl FromStr for PoolFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = || "expected NAME=MODEL or GROUP:NAME=MODEL".to_owned();
        let (left, right) = text.split_once('=').ok_or_else(expected)?;
        let (group, name) = match left.split_once(':') {
            Some((group, name)) => (Some(group.trim().to_owned()), name.trim()),
            None => (None, left.trim()),
        };
        if name.is_empty() || right.is_empty() || group.as_ref().is_some_and(String::is_empty) {
            return Err(expected());
        }
        let right = right.to_owned();
        let origin = match &right {
            url if url.starts_with("http://") || url.starts_with("https://") => Origin::Server(right),
            file if ENDINGS.iter().any(|end| file.ends_with(end)) => Origin::Candidates(right),
            _ => Origin::Model(right),
        };
        Ok(Self { group, name: name.to_owned(), origin })
    }
}

impl PoolFlag {
    /// The entry of `collect.pool.model` that the flag stands for.
    pub(crate) fn table(&self) -> toml::Value {
        let mut table = toml::Table::new();
        table.insert("name".to_owned(), self.name.clone().into());
        if let Some(group) = &self.group {
            table.insert("group".to_owned(), group.clone().into());
        }
        let (key, value) = match &self.origin {
            Origin::Server(url) => {
                ("server", toml::Value::Table(toml::Table::from_iter([("url".to_owned(), url.clone().into())])))
            }
            Origin::Candidates(path) => ("candidates", path.clone().into()),
            Origin::Model(path) => ("model", path.clone().into()),
        };
        table.insert(key.to_owned(), value);
        table.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_servers_and_files_are_told_apart() {
        for (flag, expected) in [
            ("strong=./qwen3-32b", "name = 'strong'\nmodel = './qwen3-32b'"),
            ("weak:small=Qwen/Qwen3-0.6B", "name = 'small'\ngroup = 'weak'\nmodel = 'Qwen/Qwen3-0.6B'"),
            ("gpt=http://localhost:8000/v1?a=b", "name = 'gpt'\nserver = { url = 'http://localhost:8000/v1?a=b' }"),
            ("yi=yi.parquet", "name = 'yi'\ncandidates = 'yi.parquet'"),
        ] {
            let table: toml::Table = expected.parse().unwrap();
            assert_eq!(flag.parse::<PoolFlag>().unwrap().table(), toml::Value::Table(table), "{flag}");
        }
        for wrong in ["yi.parquet", "=x", "a=", ":a=x", "g:=x"] {
            assert_eq!(wrong.parse::<PoolFlag>().unwrap_err(), "expected NAME=MODEL or GROUP:NAME=MODEL");
        }
    }
}
