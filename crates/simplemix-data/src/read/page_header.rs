//! Sizes in the header of a Parquet page, in Thrift's compact protocol. The `parquet` crate keeps its own parser private, and
//! allocates what a header asks for.

use std::io::{Error, ErrorKind, Read, Result};

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

/// Deepest nesting that is read over.
const MAX_DEPTH: usize = 16;

// Types of Thrift's compact protocol.
const STOP: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

impl PageHeader {
    /// Reads the header at the start of `input`.
    pub(super) fn read(input: &mut dyn Read) -> Result<Self> {
        let mut input = Input(input);
        let mut header = Self::default();
        let mut last = 0;
        while let Some((id, kind)) = input.field(last)? {
            last = id;
            match id {
                2 => header.expanded = input.size()?,
                3 => header.stored = input.size()?,
                // Data pages of both versions, and dictionaries.
                5 | 7 | 8 => {
                    header.is_dictionary |= id == 7;
                    header.values = input.values()?;
                }
                _ => input.skip(kind, 0)?,
            }
        }
        Ok(header)
    }
}

struct Input<'a>(&'a mut dyn Read);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(damaged())
    }

    fn signed(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn size(&mut self) -> Result<u64> {
        u64::try_from(self.signed()?).map_err(|_| damaged())
    }

    /// Number and type of the next field of a struct; `None` at its end.
    fn field(&mut self, last: i64) -> Result<Option<(i64, u8)>> {
        let byte = self.byte()?;
        match (byte >> 4, byte & 0xf) {
            (_, STOP) => Ok(None),
            (0, kind) => Ok(Some((self.signed()?, kind))),
            (step, kind) => Ok(Some((last.wrapping_add(i64::from(step)), kind))),
        }
    }

    /// Field 1 of a struct, the number of values in each header.
    fn values(&mut self) -> Result<u64> {
        let (mut values, mut last) = (0, 0);
        while let Some((id, kind)) = self.field(last)? {
            last = id;
            match id {
                1 => values = self.size()?,
                _ => self.skip(kind, 1)?,
            }
        }
        Ok(values)
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(damaged());
        }
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.pass(1),
            I16..=I64 => self.varint().map(drop),
            DOUBLE => self.pass(8),
            BINARY => {
                let length = self.varint()?;
                self.pass(length)
            }
            LIST | SET => self.skip_list(depth),
            MAP => self.skip_map(depth),
            STRUCT => {
                let mut last = 0;
                while let Some((id, kind)) = self.field(last)? {
                    last = id;
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            UUID => self.pass(16),
            _ => Err(damaged()),
        }
    }

    fn skip_list(&mut self, depth: usize) -> Result<()> {
        let byte = self.byte()?;
        let length = match byte >> 4 {
            15 => self.varint()?,
            length => u64::from(length),
        };
        (0..length).try_for_each(|_| self.skip_item(byte & 0xf, depth))
    }

    fn skip_map(&mut self, depth: usize) -> Result<()> {
        let length = self.varint()?;
        if length == 0 {
            return Ok(());
        }
        let kinds = self.byte()?;
        (0..length).try_for_each(|_| {
            self.skip_item(kinds >> 4, depth)?;
            self.skip_item(kinds & 0xf, depth)
        })
    }

    /// Reads over a value in a list, where a flag takes a byte.
    fn skip_item(&mut self, kind: u8, depth: usize) -> Result<()> {
        match kind {
            TRUE | FALSE => self.pass(1),
            kind => self.skip(kind, depth + 1),
        }
    }

    fn pass(&mut self, count: u64) -> Result<()> {
        match std::io::copy(&mut self.0.take(count), &mut std::io::sink())? {
            passed if passed == count => Ok(()),
            _ => Err(damaged()),
        }
    }
}

fn damaged() -> Error {
    Error::new(ErrorKind::InvalidData, "a damaged page header")
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
        // DICTIONARY_PAGE in field 7, by a step of 4; an unknown list of flags in field 20 before it, by its number.
        let dictionary: &[u8] = &[
            0x15, 0x04, 0x15, 0x02, 0x15, 0x02, 0x4c, 0x15, 0x06, 0x15, 0x00, 0x00, 0x09, 0x28, 0x21, 0x01, 0x00, 0x00,
        ];
        let found = PageHeader::read(&mut &dictionary[..]).unwrap();
        assert_eq!((found.is_dictionary, found.values, found.expanded), (true, 3, 1));
    }
}
