//! Golden files of the repository's tests.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Reads a file of JSON.
pub(crate) fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// Numbers of a JSON list.
pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// Token ids of a JSON list.
pub(crate) fn ids(value: &Value) -> Vec<u32> {
    numbers(value).iter().map(|&id| id as u32).collect()
}
