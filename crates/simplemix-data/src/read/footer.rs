//! The footer of a Parquet file, checked before the `parquet` crate reads it.

use std::io::Result;

use crate::read::thrift::{Fields, Type, walk};

/// Reads over a footer.
///
/// # Errors
/// A footer in which the reader could be kept busy for ever; see [`walk`].
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    walk(&mut &bytes[..], FILE, &mut |_, _| Ok(()))
}

const FILE: Fields = &[
    (1, Type::I32),
    (2, Type::List(&Type::Struct(SCHEMA_ELEMENT))),
    (3, Type::I64),
    (4, Type::List(&Type::Struct(ROW_GROUP))),
    (5, Type::List(&Type::Struct(KEY_VALUE))),
    (6, Type::Binary),
    (7, Type::List(&Type::Struct(&[(1, NOTHING), (2, NOTHING)]))),
];

const NOTHING: Type = Type::Struct(&[]);

const SCHEMA_ELEMENT: Fields = &[
    (1, Type::I32),
    (2, Type::I32),
    (3, Type::I32),
    (4, Type::Binary),
    (5, Type::I32),
    (6, Type::I32),
    (7, Type::I32),
    (8, Type::I32),
    (9, Type::I32),
    (10, Type::Struct(LOGICAL_TYPE)),
];

const LOGICAL_TYPE: Fields = &[
    (1, NOTHING),
    (2, NOTHING),
    (3, NOTHING),
    (4, NOTHING),
    (5, Type::Struct(&[(1, Type::I32), (2, Type::I32)])),
    (6, NOTHING),
    (7, Type::Struct(TIME)),
    (8, Type::Struct(TIME)),
    (10, Type::Struct(&[(1, Type::Byte), (2, Type::Flag)])),
    (11, NOTHING),
    (12, NOTHING),
    (13, NOTHING),
    (14, NOTHING),
    (15, NOTHING),
    (16, Type::Struct(&[(1, Type::Byte)])),
    (17, Type::Struct(&[(1, Type::Binary)])),
    (18, Type::Struct(&[(1, Type::Binary), (2, Type::I32)])),
    (19, NOTHING),
];

/// Times and points in time.
const TIME: Fields = &[(1, Type::Flag), (2, Type::Struct(&[(1, NOTHING), (2, NOTHING), (3, NOTHING)]))];

const ROW_GROUP: Fields = &[
    (1, Type::List(&Type::Struct(COLUMN_CHUNK))),
    (2, Type::I64),
    (3, Type::I64),
    (4, Type::List(&Type::Struct(&[(1, Type::I32), (2, Type::Flag), (3, Type::Flag)]))),
    (5, Type::I64),
    (6, Type::I64),
    (7, Type::I16),
];

const COLUMN_CHUNK: Fields = &[
    (1, Type::Binary),
    (2, Type::I64),
    (3, Type::Struct(COLUMN)),
    (4, Type::I64),
    (5, Type::I32),
    (6, Type::I64),
    (7, Type::I32),
    (9, Type::Binary),
];

const COLUMN: Fields = &[
    (1, Type::I32),
    (2, Type::List(&Type::I32)),
    (3, Type::List(&Type::Binary)),
    (4, Type::I32),
    (5, Type::I64),
    (6, Type::I64),
    (7, Type::I64),
    (8, Type::List(&Type::Struct(KEY_VALUE))),
    (9, Type::I64),
    (10, Type::I64),
    (11, Type::I64),
    (12, Type::Struct(STATISTICS)),
    (13, Type::List(&Type::Struct(&[(1, Type::I32), (2, Type::I32), (3, Type::I32)]))),
    (14, Type::I64),
    (15, Type::I32),
    (16, Type::Struct(&[(1, Type::I64), (2, Type::List(&Type::I64)), (3, Type::List(&Type::I64))])),
    (17, Type::Struct(&[(1, Type::Struct(BOX)), (2, Type::List(&Type::I32))])),
];

const KEY_VALUE: Fields = &[(1, Type::Binary), (2, Type::Binary)];

/// Statistics of a column or a page.
pub(super) const STATISTICS: Fields = &[
    (1, Type::Binary),
    (2, Type::Binary),
    (3, Type::I64),
    (4, Type::I64),
    (5, Type::Binary),
    (6, Type::Binary),
    (7, Type::Flag),
    (8, Type::Flag),
    (9, Type::I64),
];

const BOX: Fields = &[
    (1, Type::Double),
    (2, Type::Double),
    (3, Type::Double),
    (4, Type::Double),
    (5, Type::Double),
    (6, Type::Double),
    (7, Type::Double),
    (8, Type::Double),
];
