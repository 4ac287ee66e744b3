//! Verdicts in Parquet, on one model or many.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::alpaca::annotation::{Annotation, Annotations, Groups, Instruction};
use crate::error::{Error, Result};

pub(crate) fn read(path: &Path, bytes: Vec<u8>, name: &str) -> Result<Vec<Annotations>> {
    let mut groups = Groups::default();
    for batch in batches(path, bytes)? {
        add(path, &batch, name, &mut groups)?;
    }
    Ok(groups.finish())
}

/// Reads the rows of a file. The reader of the crate `parquet` does not check everything: some damage makes it panic.
fn batches(path: &Path, bytes: Vec<u8>) -> Result<Vec<RecordBatch>> {
    let read = || -> std::result::Result<Vec<RecordBatch>, parquet::errors::ParquetError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))?.build()?;
        Ok(reader.collect::<std::result::Result<_, _>>()?)
    };
    let read = catch_unwind(AssertUnwindSafe(read)).map_err(|_| Error::malformed(path, "damaged Parquet"))?;
    read.map_err(|e| Error::malformed(path, e))
}

fn add(path: &Path, batch: &RecordBatch, name: &str, groups: &mut Groups) -> Result<()> {
    let columns = Columns { path, batch };
    let preference = columns.of("preference", &DataType::Float64)?;
    let Some(preference) = preference else {
        let names: Vec<String> = batch.schema().fields().iter().map(|f| format!("`{}`", f.name())).collect();
        return Err(Error::malformed(path, format!("no column `preference`, expected it beside {}", names.join(", "))));
    };
    let preference = preference.as_primitive::<Float64Type>();
    let texts = |name| columns.of(name, &DataType::Utf8);
    let numbers = |name| columns.of(name, &DataType::Int64);
    let (model, annotator, baseline) = (texts("model")?, texts("annotator")?, texts("baseline")?);
    let (row, number, instruction) = (numbers("row")?, numbers("instruction_id")?, texts("instruction")?);
    let lengths = [(numbers("len_1")?, texts("output_1")?), (numbers("len_2")?, texts("output_2")?)];
    let (category, dataset) = (texts("category")?, texts("dataset")?);
    for i in 0..batch.num_rows() {
        let model = text_at(&model, i).unwrap_or_else(|| name.to_owned());
        let rows = groups.rows(model, text_at(&annotator, i), text_at(&baseline, i));
        let row = match number_at(&row, i) {
            None => rows.len(),
            Some(row) => usize::try_from(row)
                .map_err(|_| Error::malformed(path, format!("`row` is {row}, expected a number >= 0")))?,
        };
        let length = |(count, text): &(Option<ArrayRef>, Option<ArrayRef>)| {
            let counted = number_at(count, i).and_then(|n| u64::try_from(n).ok());
            counted.or_else(|| text_at(text, i).map(|text| text.chars().count() as u64))
        };
        let by_text = || text_at(&instruction, i).map(Instruction::Text);
        rows.push(Annotation {
            row,
            instruction: number_at(&number, i).map(Instruction::Number).or_else(by_text),
            preference: preference.is_valid(i).then(|| preference.value(i)).filter(|p| p.is_finite()),
            lengths: length(&lengths[0]).zip(length(&lengths[1])).map(Into::into),
            category: text_at(&category, i).or_else(|| text_at(&dataset, i)),
        });
    }
    Ok(())
}

/// Columns by name, converted to the type that is needed.
struct Columns<'a> {
    path: &'a Path,
    batch: &'a RecordBatch,
}

impl Columns<'_> {
    fn of(&self, name: &str, expected: &DataType) -> Result<Option<ArrayRef>> {
        let Some(column) = self.batch.column_by_name(name) else { return Ok(None) };
        let found = column.data_type();
        let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let fits = match (expected, found) {
            (DataType::Utf8, DataType::Dictionary(_, value)) => is_text(value),
            (DataType::Utf8, found) => is_text(found),
            (DataType::Int64, found) => found.is_integer(),
            (_, found) => found.is_numeric(),
        };
        let wrong = || Error::malformed(self.path, format!("column `{name}` is {found}, expected {expected}"));
        if fits { cast(column, expected).map(Some).map_err(|_| wrong()) } else { Err(wrong()) }
    }
}

fn text_at(column: &Option<ArrayRef>, row: usize) -> Option<String> {
    let column = column.as_ref()?.as_string::<i32>();
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn number_at(column: &Option<ArrayRef>, row: usize) -> Option<i64> {
    let column = column.as_ref()?.as_primitive::<Int64Type>();
    column.is_valid(row).then(|| column.value(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int32Array, StringArray};
    use std::sync::Arc;

    fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    #[test]
    fn many_models_share_a_file() {
        let bytes = parquet(vec![
            ("model", Arc::new(StringArray::from(vec!["a", "b", "a"]))),
            ("row", Arc::new(Int32Array::from(vec![1, 0, 0]))),
            ("preference", Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN), None]))),
            ("len_1", Arc::new(Int32Array::from(vec![Some(5), None, Some(-1)]))),
            ("output_2", Arc::new(StringArray::from(vec!["äöü", "", ""]))),
        ]);
        let models = read(Path::new("x.parquet"), bytes, "x").unwrap();
        assert_eq!(models.iter().map(|m| m.model.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((models[0].rows[0].row, models[0].rows[0].lengths), (1, Some([5, 3])));
        assert_eq!((models[0].rows[1].lengths, models[1].rows[0].preference), (None, None));
    }

    #[test]
    fn columns_of_another_kind_and_none_are_named() {
        let bytes = parquet(vec![("preference", Arc::new(StringArray::from(vec!["1"])))]);
        let error = read(Path::new("x.parquet"), bytes, "x").unwrap_err().to_string();
        assert_eq!(error, "x.parquet: column `preference` is Utf8, expected Float64");
        let bytes = parquet(vec![("verdict", Arc::new(Float64Array::from(vec![1.0])))]);
        let error = read(Path::new("x.parquet"), bytes, "x").unwrap_err().to_string();
        assert_eq!(error, "x.parquet: no column `preference`, expected it beside `verdict`");
    }

    #[test]
    fn damage_is_an_error() {
        let mut bytes = parquet(vec![("preference", Arc::new(Float64Array::from(vec![1.0])))]);
        bytes.truncate(40);
        assert!(read(Path::new("x.parquet"), bytes, "x").is_err());
    }
}
