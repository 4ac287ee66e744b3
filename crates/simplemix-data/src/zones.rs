//! Time zones of timestamps, which Arrow can print by their offset only.

use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, make_array};
use arrow::datatypes::{DataType, Field, FieldRef};

/// Moments as before, with the offset `+00:00` in place of named zones, in nested values too.
pub(crate) fn in_utc(array: &ArrayRef) -> ArrayRef {
    let kind = type_in_utc(array.data_type());
    if kind == *array.data_type() {
        return array.clone();
    }
    make_array(retyped(array.to_data(), &kind))
}

/// The type without named zones.
fn type_in_utc(kind: &DataType) -> DataType {
    let of = |field: &FieldRef| -> FieldRef {
        let kind = type_in_utc(field.data_type());
        Arc::new(Field::clone(field).with_data_type(kind))
    };
    match kind {
        DataType::Timestamp(unit, Some(zone)) if !zone.starts_with(['+', '-']) => {
            DataType::Timestamp(*unit, Some("+00:00".into()))
        }
        DataType::List(item) => DataType::List(of(item)),
        DataType::LargeList(item) => DataType::LargeList(of(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(of(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(of).collect()),
        DataType::Map(entries, sorted) => DataType::Map(of(entries), *sorted),
        DataType::Dictionary(key, value) => DataType::Dictionary(key.clone(), Box::new(type_in_utc(value))),
        other => other.clone(),
    }
}

/// These buffers as values of `kind`, which differs in zones only.
fn retyped(data: ArrayData, kind: &DataType) -> ArrayData {
    let kinds: Vec<&DataType> = match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => vec![item.data_type()],
        DataType::Map(entries, _) => vec![entries.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Dictionary(_, value) => vec![value.as_ref()],
        _ => Vec::new(),
    };
    let children = data.child_data().iter().zip(kinds).map(|(child, kind)| retyped(child.clone(), kind)).collect();
    let builder = data.into_builder().data_type(kind.clone()).child_data(children);
    builder.build().expect("zones are no part of the buffers")
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, StructArray, TimestampSecondArray};
    use arrow::datatypes::TimestampSecondType;

    use super::*;

    #[test]
    fn moments_stay_and_zones_become_an_offset() {
        let moments: ArrayRef =
            Arc::new(TimestampSecondArray::from(vec![Some(0), None]).with_timezone("America/New_York"));
        let field = Arc::new(Field::new("at", moments.data_type().clone(), true));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(field, moments)]));
        let shown = in_utc(&nested);
        let inner = shown.as_struct().column(0).as_primitive::<TimestampSecondType>();
        assert_eq!((inner.value(0), inner.is_null(1), inner.timezone()), (0, true, Some("+00:00")));
        let fixed: ArrayRef = Arc::new(TimestampSecondArray::from(vec![0]).with_timezone("+02:00"));
        assert_eq!(in_utc(&fixed).data_type(), fixed.data_type());
    }
}
