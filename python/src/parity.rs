//! Orders of `datasets`, and weights as exact fractions.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use pyo3::prelude::*;
use simplemix_mix::parity::{Stopping, interleave_datasets};
use simplemix_mix::{Mixture, MixtureConfig, Weight};

use crate::failure::{Failure, Result};
use crate::table::{Data, Table};
use crate::work;

/// Rows of the concatenated sources in the order of `datasets.interleave_datasets`, as one column `index`.
#[pyfunction]
pub(crate) fn interleave(
    py: Python<'_>,
    rows: Vec<u64>,
    probabilities: Option<Vec<f64>>,
    seed: u64,
    stopping: &str,
) -> Result<Table> {
    let stopping = match stopping {
        "first_exhausted" => Stopping::FirstExhausted,
        "all_exhausted" => Stopping::AllExhausted,
        "all_exhausted_without_replacement" => Stopping::AllExhaustedWithoutReplacement,
        other => {
            return Err(Failure::refused(format!(
                "`stopping_strategy` is `{other}`, expected first_exhausted, all_exhausted or \
                 all_exhausted_without_replacement"
            )));
        }
    };
    work::long(py, |_| {
        let order = interleave_datasets(&rows, probabilities.as_deref(), seed, stopping)?;
        let starts = starts(rows.iter().copied());
        table(order.iter().map(|(source, row)| starts[*source] + row).collect())
    })
}

/// Numerator and denominator of a weight such as `0.5`, `1/3` or `50%`, in lowest terms.
#[pyfunction]
pub(crate) fn weight(name: &str, text: &str) -> Result<(u64, u64)> {
    let weight: Weight = text.parse().map_err(|_| simplemix_mix::Error::Weight {
        name: name.to_owned(),
        found: text.to_owned(),
        expected: "a number >= 0 such as 0.5, 3, 1/3 or 50%",
    })?;
    Ok(weight.parts())
}

/// Rows of the concatenated sources in the order of the mixture `config`, as one column `index`.
#[pyfunction]
pub(crate) fn exact_index(py: Python<'_>, config: &str) -> Result<Table> {
    let config: MixtureConfig = serde_json::from_str(config).map_err(|error| Failure::settings("mixture", &error))?;
    work::long(py, |stop| {
        let mixture = Mixture::new(config)?;
        let starts = starts(mixture.config().sources.iter().map(|source| source.rows));
        let mut index = Vec::with_capacity(mixture.len() as usize);
        for (position, draw) in mixture.iter().enumerate() {
            if position.is_multiple_of(1 << 16) {
                stop.check()?;
            }
            index.push(starts[draw.source] + draw.row);
        }
        table(index)
    })
}

/// Number of rows before each source.
fn starts(rows: impl Iterator<Item = u64>) -> Vec<u64> {
    rows.scan(0, |sum, rows| Some(std::mem::replace(sum, *sum + rows))).collect()
}

fn table(index: Vec<u64>) -> Result<Table> {
    let column: ArrayRef = Arc::new(UInt64Array::from(index));
    let schema = Arc::new(Schema::new(vec![Field::new("index", DataType::UInt64, false)]));
    let batch = RecordBatch::try_new(schema.clone(), vec![column])?;
    Ok(Data::new(schema, vec![batch]).into())
}
