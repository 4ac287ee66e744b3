//! Rows read the same in every Arrow encoding, and written files read back the same.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, LargeListArray, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use simplemix_data::{Message, Pair, PairWriter, Policy, ReadOptions, Text, WriteOptions, read_pairs};

/// Arrow types of strings.
#[derive(Debug, Clone, Copy)]
enum Strings {
    Utf8,
    Large,
    View,
    Dictionary,
}

/// Arrow types of lists; all rows have equally many turns, so that fixed sizes fit.
#[derive(Debug, Clone, Copy)]
enum Lists {
    List,
    Large,
    Fixed,
}

fn strings(values: Vec<String>, kind: Strings) -> ArrayRef {
    let plain: ArrayRef = Arc::new(StringArray::from(values));
    let kind = match kind {
        Strings::Utf8 => DataType::Utf8,
        Strings::Large => DataType::LargeUtf8,
        Strings::View => DataType::Utf8View,
        Strings::Dictionary => DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8)),
    };
    cast(&plain, &kind).unwrap()
}

/// One turn per row.
fn turns(role: &str, contents: Vec<String>, kind: Strings, lists: Lists, content_first: bool) -> ArrayRef {
    let rows = contents.len();
    let columns = [("role", vec![role.to_owned(); rows]), ("content", contents)];
    let mut columns: Vec<(Field, ArrayRef)> = columns
        .into_iter()
        .map(|(name, values)| {
            let array = strings(values, kind);
            (Field::new(name, array.data_type().clone(), true), array)
        })
        .collect();
    if content_first {
        columns.reverse();
    }
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let fields = Fields::from(fields);
    let item = Arc::new(Field::new("item", DataType::Struct(fields.clone()), true));
    let values = Arc::new(StructArray::new(fields, arrays, None));
    match lists {
        Lists::List => Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(vec![1; rows]), values, None)),
        Lists::Large => Arc::new(LargeListArray::new(item, OffsetBuffer::from_lengths(vec![1; rows]), values, None)),
        Lists::Fixed => Arc::new(FixedSizeListArray::new(item, 1, values, None)),
    }
}

fn written(
    rows: &[(String, String, String, f64)],
    kind: Strings,
    lists: Lists,
    content_first: bool,
    number: &DataType,
) -> Vec<Pair> {
    let column =
        |of: fn(&(String, String, String, f64)) -> &String| rows.iter().map(|row| of(row).clone()).collect::<Vec<_>>();
    let scores: ArrayRef = Arc::new(arrow::array::Float64Array::from_iter_values(rows.iter().map(|row| row.3)));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("rejected", turns("assistant", column(|row| &row.2), kind, lists, content_first)),
        ("score_chosen", cast(&scores, number).unwrap()),
        ("prompt", turns("user", column(|row| &row.0), kind, lists, content_first)),
        ("chosen", turns("assistant", column(|row| &row.1), kind, lists, content_first)),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let batch =
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect())
            .unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Without a source column, the file name would become the source.
    let path = dir.path().join("rows.parquet");
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    read_pairs(&path, &ReadOptions::default()).unwrap()
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 äß∑🦀\"\\\\\n]{0,24}".prop_map(|text| format!("{text}."))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_arrow_encoding_reads_the_same(rows in prop::collection::vec((text(), text(), text(), 0u8..9), 1..6)) {
        let rows: Vec<_> = rows.into_iter().map(|(p, c, r, s)| (p, format!("{c}+"), r, f64::from(s))).collect();
        let plain = written(&rows, Strings::Utf8, Lists::List, false, &DataType::Float64);
        prop_assert_eq!(plain.len(), rows.len());
        for kind in [Strings::Large, Strings::View, Strings::Dictionary] {
            prop_assert_eq!(&written(&rows, kind, Lists::List, true, &DataType::Int32), &plain, "{:?}", kind);
        }
        for lists in [Lists::Large, Lists::Fixed] {
            prop_assert_eq!(&written(&rows, Strings::Utf8, lists, true, &DataType::Float32), &plain, "{:?}", lists);
        }
    }

    #[test]
    fn what_is_written_reads_back(rows in prop::collection::vec((text(), text(), text(), prop::option::of(-1e6f64..1e6), prop::option::of("[a-z]{1,6}")), 1..8)) {
        let turn = |role: &str, text: &str| Text::Messages(vec![Message::new(role, text)]);
        let pairs: Vec<Pair> = rows.iter().map(|(prompt, chosen, rejected, score, task)| {
            let chosen = format!("{chosen}+");
            let mut pair = Pair::new(turn("user", prompt), turn("assistant", &chosen), turn("assistant", rejected), "made", Policy::On);
            (pair.score_chosen, pair.score_rejected, pair.task) = (*score, score.map(|s| s - 1.0), task.clone());
            pair
        }).collect();
        let dir = tempfile::tempdir().unwrap();
        for name in ["p.parquet", "p.arrow", "p.jsonl", "p.jsonl.gz", "p.jsonl.zst"] {
            let path = dir.path().join(name);
            let mut writer = PairWriter::create(&path, &WriteOptions::default()).unwrap();
            writer.write_pairs(&pairs).unwrap();
            writer.finish().unwrap();
            prop_assert_eq!(&read_pairs(&path, &ReadOptions::default()).unwrap(), &pairs, "{}", name);
        }
    }
}

/// A column of nulls, scores of all number types, and numbers as ids.
#[test]
fn columns_of_nulls_and_odd_numbers_do_not_matter() {
    let texts = |values: [&str; 2]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
    let numbers: ArrayRef = Arc::new(arrow::array::UInt8Array::from(vec![3, 4]));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("prompt", texts(["a", "b"])),
        ("chosen", texts(["1", "2"])),
        ("rejected", texts(["x", "y"])),
        ("generator", arrow::array::new_null_array(&DataType::Null, 2)),
        ("task", arrow::array::new_null_array(&DataType::Utf8, 2)),
        ("score_chosen", cast(&numbers, &DataType::Decimal128(5, 1)).unwrap_or(numbers.clone())),
        ("score_rejected", cast(&numbers, &DataType::Float16).unwrap_or(numbers.clone())),
        ("id", cast(&numbers, &DataType::Int64).unwrap()),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let batch =
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect())
            .unwrap();
    assert_eq!(batch.column(7).as_primitive::<arrow::datatypes::Int64Type>().value(0), 3);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.arrow");
    let mut writer =
        arrow::ipc::writer::FileWriter::try_new(std::fs::File::create(&path).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let pairs = read_pairs(&path, &ReadOptions::default()).unwrap();
    assert_eq!(pairs.len(), 2);
    assert_eq!((pairs[1].generator.as_ref(), pairs[1].task.as_ref()), (None, None));
    assert_eq!((pairs[1].score_chosen, pairs[1].score_rejected), (Some(4.0), Some(4.0)));
}
