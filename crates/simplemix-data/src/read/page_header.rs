//! Sizes in the header of a Parquet page. The `parquet` crate allocates what a header asks for.

use std::io::{Read, Result};

use crate::read::footer::STATISTICS;
use crate::read::thrift::{Fields, Type, damaged, walk};

/// Sizes that a page declares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) is_dictionary: bool,
    /// Bytes when decompressed.
    pub(super) expanded: u64,
    /// Bytes in the file.
    pub(super) stored: u64,
    /// Number of values, those of nulls and empty lists too.
    pub(super) values: u64,
}

const HEADER: Fields = &[
    (1, Type::I32),
    (2, Type::I32),
    (3, Type::I32),
    (4, Type::I32),
    (
        DATA,
        Type::Struct(&[(1, Type::I32), (2, Type::I32), (3, Type::I32), (4, Type::I32), (5, Type::Struct(STATISTICS))]),
    ),
    (6, Type::Struct(&[])),
    (DICTIONARY, Type::Struct(&[(1, Type::I32), (2, Type::I32), (3, Type::Flag)])),
    (DATA_2, Type::Struct(DATA_HEADER_2)),
];

const DATA: i64 = 5;
const DICTIONARY: i64 = 7;
const DATA_2: i64 = 8;

const DATA_HEADER_2: Fields = &[
    (1, Type::I32),
    (2, Type::I32),
    (3, Type::I32),
    (4, Type::I32),
    (5, Type::I32),
    (6, Type::I32),
    (7, Type::Flag),
    (8, Type::Struct(STATISTICS)),
];

impl PageHeader {
    /// Reads the header at the start of `input`.
    pub(super) fn read(input: &mut dyn Read) -> Result<Self> {
        let mut header = Self::default();
        walk(input, HEADER, &mut |path, value| {
            let place = match *path {
                [2] => &mut header.expanded,
                [3] => &mut header.stored,
                [DATA | DICTIONARY | DATA_2, 1] => {
                    header.is_dictionary |= path[0] == DICTIONARY;
                    &mut header.values
                }
                _ => return Ok(()),
            };
            *place = value.try_into().map_err(|_| damaged(format_args!("a size of {value} in a page header")))?;
            Ok(())
        })?;
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_among_other_fields() {
        // By the specification: type DATA_PAGE, 300 and 200 bytes, crc, a header of 7 values with statistics.
        let data: &[u8] = &[
            0x15, 0x00, // 1: type
            0x15, 0xd8, 0x04, // 2: 300
            0x15, 0x90, 0x03, // 3: 200
            0x15, 0x01, // 4: crc
            0x1c, 0x15, 0x0e, 0x15, 0x00, 0x15, 0x06, 0x15, 0x06, // 5: values 7, three encodings
            0x1c, 0x18, 0x02, b'a', b'b', 0x00, 0x00, // statistics with `max`
            0x00,
        ];
        let expected = PageHeader { is_dictionary: false, expanded: 300, stored: 200, values: 7 };
        assert_eq!(PageHeader::read(&mut &data[..]).unwrap(), expected);
        for end in 0..data.len() {
            assert!(PageHeader::read(&mut &data[..end]).is_err(), "cut at {end}");
        }
        // DICTIONARY_PAGE in field 7, by a step of 4; an unknown list of bytes in field 20 before it, by its number.
        let dictionary: &[u8] = &[
            0x15, 0x04, 0x15, 0x02, 0x15, 0x02, 0x4c, 0x15, 0x06, 0x15, 0x00, 0x00, 0x09, 0x28, 0x23, 0x01, 0x00, 0x00,
        ];
        let found = PageHeader::read(&mut &dictionary[..]).unwrap();
        assert_eq!((found.is_dictionary, found.values, found.expanded), (true, 3, 1));
    }
}
