//! Texts of Parquet as views of their pages, and back.
//!
//! A dictionary of one long text and a few bytes of indices stand for any number of copies. As views they take no more memory
//! than the page. Rows are then taken piece by piece, with bounded texts, and have the types that the file declares.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericByteArray, GenericByteViewArray, GenericListArray, MapArray,
    OffsetSizeTrait, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    BinaryType, BinaryViewType, ByteArrayType, ByteViewType, DataType, FieldRef, Fields, LargeBinaryType,
    LargeUtf8Type, Schema, StringViewType, Utf8Type,
};
use arrow::error::ArrowError;

/// The schema with views in place of texts.
pub(super) fn with_views(schema: &Schema) -> Schema {
    Schema::new_with_metadata(fields(schema.fields()), schema.metadata().clone())
}

fn fields(all: &Fields) -> Fields {
    all.iter().map(field).collect()
}

fn field(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(view(field.data_type())))
}

fn view(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(field(item), *length),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        DataType::Struct(all) => DataType::Struct(fields(all)),
        other => other.clone(),
    }
}

/// Rows of `views` with the columns `declared`, their texts copied.
pub(super) fn declared(views: StructArray, declared: &Fields) -> Result<StructArray, ArrowError> {
    if views.fields() == declared {
        return Ok(views);
    }
    let columns = views.columns().iter().zip(declared).map(|(column, field)| plain(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    StructArray::try_new_with_length(declared.clone(), columns, views.nulls().cloned(), views.len())
}

fn plain(array: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    Ok(match (array.data_type(), kind) {
        (found, kind) if found == kind => array.clone(),
        (DataType::Utf8View, DataType::Utf8) => bytes::<StringViewType, Utf8Type>(array.as_string_view()),
        (DataType::Utf8View, DataType::LargeUtf8) => bytes::<StringViewType, LargeUtf8Type>(array.as_string_view()),
        (DataType::BinaryView, DataType::Binary) => bytes::<BinaryViewType, BinaryType>(array.as_binary_view()),
        (DataType::BinaryView, DataType::LargeBinary) => {
            bytes::<BinaryViewType, LargeBinaryType>(array.as_binary_view())
        }
        (DataType::Struct(_), DataType::Struct(all)) => Arc::new(declared(array.as_struct().clone(), all)?),
        (DataType::List(_), DataType::List(item)) => Arc::new(list::<i32>(array.as_list(), item)?),
        (DataType::LargeList(_), DataType::LargeList(item)) => Arc::new(list::<i64>(array.as_list(), item)?),
        (DataType::FixedSizeList(..), DataType::FixedSizeList(item, length)) => {
            let list = array.as_fixed_size_list();
            let values = plain(list.values(), item.data_type())?;
            Arc::new(FixedSizeListArray::try_new(item.clone(), *length, values, list.nulls().cloned())?)
        }
        (DataType::Map(..), DataType::Map(item, sorted)) => {
            let map = array.as_map();
            let (offsets, values) = used(map.offsets(), &(Arc::new(map.entries().clone()) as ArrayRef));
            let values = plain(&values, item.data_type())?;
            let nulls = map.nulls().cloned();
            Arc::new(MapArray::try_new(item.clone(), offsets, values.as_struct().clone(), nulls, *sorted)?)
        }
        (found, kind) => {
            return Err(ArrowError::SchemaError(format!("a column was read as {found}, expected {kind}")));
        }
    })
}

fn bytes<V: ByteViewType, T: ByteArrayType>(views: &GenericByteViewArray<V>) -> ArrayRef
where
    V::Native: AsRef<T::Native>,
{
    Arc::new(views.iter().map(|text| text.map(AsRef::as_ref)).collect::<GenericByteArray<T>>())
}

fn list<O: OffsetSizeTrait>(list: &GenericListArray<O>, item: &FieldRef) -> Result<GenericListArray<O>, ArrowError> {
    let (offsets, values) = used(list.offsets(), list.values());
    GenericListArray::try_new(item.clone(), offsets, plain(&values, item.data_type())?, list.nulls().cloned())
}

/// Offsets from 0, and the values that they reach.
fn used<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, values: &ArrayRef) -> (OffsetBuffer<O>, ArrayRef) {
    let (start, end) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
    let lengths = offsets.windows(2).map(|ends| ends[1].as_usize() - ends[0].as_usize());
    (OffsetBuffer::from_lengths(lengths), values.slice(start, end - start))
}
