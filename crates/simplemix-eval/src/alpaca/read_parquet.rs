//! Verdicts in Parquet, on one model or many.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use parquet::arrow::ProjectionMask;
use parquet::errors::ParquetError;
use simplemix_data::BoundedFile;

use crate::alpaca::annotation::{Annotation, Annotations, Groups, Instruction};
use crate::error::{Error, Result};
use crate::json::most_expanded;

/// Rows that are decoded before their size is looked at.
const BATCH_ROWS: usize = 64;

pub(crate) fn read(path: &Path, bytes: Vec<u8>, name: &str) -> Result<Vec<Annotations>> {
    let mut groups = Groups::default();
    for batch in batches(path, bytes)? {
        add(path, &batch, name, &mut groups)?;
    }
    Ok(groups.finish())
}

/// Columns that are read.
const COLUMNS: [&str; 13] = [
    "preference",
    "model",
    "annotator",
    "baseline",
    "row",
    "instruction_id",
    "instruction",
    "len_1",
    "output_1",
    "len_2",
    "output_2",
    "category",
    "dataset",
];

/// Reads the rows of a file. The reader of the crate `parquet` does not check everything: some damage makes it panic.
fn batches(path: &Path, bytes: Vec<u8>) -> Result<Vec<RecordBatch>> {
    let length = bytes.len();
    let read = || -> std::result::Result<Vec<RecordBatch>, ParquetError> {
        let builder = BoundedFile::from_bytes(bytes).into_builder()?;
        let expands = |held: u64| ParquetError::General(format!("{length} bytes that expand to {held} or more"));
        let declared = builder.metadata().row_groups().iter().map(|group| u64::try_from(group.total_byte_size()));
        let declared = declared.map(|bytes| bytes.unwrap_or(u64::MAX)).fold(0, u64::saturating_add);
        if declared > most_expanded(length) {
            return Err(expands(declared));
        }
        let schema = builder.schema().clone();
        // Without verdicts, the error names the columns that there are.
        let is_read = |name: &str| COLUMNS.contains(&name) || schema.index_of("preference").is_err();
        let wanted = schema.fields().iter().enumerate().filter(|(_, field)| is_read(field.name()));
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.map(|(index, _)| index));
        let (mut held, mut batches) = (0, Vec::new());
        for batch in builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()? {
            let batch = batch?;
            held += batch.get_array_memory_size() as u64;
            if held > most_expanded(length) {
                return Err(expands(held));
            }
            batches.push(batch);
        }
        Ok(batches)
    };
    let read = simplemix_files::guarded(read).map_err(|found| Error::malformed(path, format!("damaged: {found}")))?;
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
        let rows = &mut groups.of(model, text_at(&annotator, i), text_at(&baseline, i)).rows;
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
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;
    use std::sync::Arc;

    fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
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
    fn a_file_that_expands_without_measure_is_refused() {
        let text = "a".repeat(1 << 20);
        let column: ArrayRef = Arc::new(StringArray::from_iter_values((0..80).map(|_| text.as_str())));
        let preference: ArrayRef = Arc::new(Float64Array::from(vec![1.0; 80]));
        let batch = RecordBatch::try_from_iter([("preference", preference), ("instruction", column)]).unwrap();
        for dictionary in [true, false] {
            let properties = WriterProperties::builder()
                .set_dictionary_enabled(dictionary)
                .set_dictionary_page_size_limit(2 << 20)
                .set_compression(Compression::SNAPPY)
                .build();
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            let result = read(Path::new("x.parquet"), bytes, "x");
            assert_eq!(result.is_err(), dictionary, "a dictionary of one text is small; with 80 texts the file is too");
            if let Err(error) = result {
                assert!(error.to_string().contains("bytes that expand to"), "{error}");
            }
        }
    }

    #[test]
    fn damage_is_an_error() {
        let mut bytes = parquet(vec![("preference", Arc::new(Float64Array::from(vec![1.0])))]);
        bytes.truncate(40);
        assert!(read(Path::new("x.parquet"), bytes, "x").is_err());
    }

    #[test]
    fn a_footer_of_two_thousand_million_flags_is_an_error() {
        let bytes = parquet(vec![("preference", Arc::new(Float64Array::from(vec![1.0])))]);
        let (rest, end) = bytes.split_at(bytes.len() - 8);
        // Field 20, a list of flags, in place of the end of the footer.
        let field = [0x09, 0x28, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
        let length = u32::from_le_bytes(end[..4].try_into().unwrap()) + 8;
        let bytes = [&rest[..rest.len() - 1], &field, &length.to_le_bytes(), b"PAR1"].concat();
        let error = read(Path::new("x.parquet"), bytes, "x").unwrap_err().to_string();
        assert!(error.starts_with("x.parquet: ") && error.contains("a list of 2147483647 flags"), "{error}");
    }
}
