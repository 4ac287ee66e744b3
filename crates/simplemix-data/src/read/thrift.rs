//! Structs in Thrift's compact protocol, read over by the types that their fields are declared to have.
//!
//! The `parquet` crate keeps its own parser private. It takes a field that it knows for what it should be, whatever type the
//! bytes say, and reads over flags in a list of an unknown field without taking a byte for each, so that six bytes make 2^31
//! steps. What passes here holds neither: the crate takes no more steps than there are bytes.

use std::io::{Error, ErrorKind, Read, Result};

/// Type of a field, or of the items of a list.
#[derive(Debug)]
pub(super) enum Type {
    Flag,
    Byte,
    I16,
    I32,
    I64,
    Double,
    Binary,
    List(&'static Type),
    Struct(Fields),
}

/// The known fields of a struct, by number.
pub(super) type Fields = &'static [(i64, Type)];

/// Deepest nesting that is read over.
const MAX_DEPTH: usize = 16;

// Types in the bytes.
const STOP: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// Reads over the struct at the start of `input`. Each number in a known field goes to `seen`, with the numbers of the fields
/// that lead to it.
///
/// # Errors
/// [`ErrorKind::InvalidData`] for a known field of another type, and for flags in a list; what `seen` says; an input that ends.
pub(super) fn walk(
    input: &mut dyn Read,
    fields: Fields,
    seen: &mut dyn FnMut(&[i64], i64) -> Result<()>,
) -> Result<()> {
    Walk { input, path: Vec::new(), seen }.fields(fields)
}

pub(super) fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, format!("damaged metadata: {what}"))
}

struct Walk<'a> {
    input: &'a mut dyn Read,
    path: Vec<i64>,
    seen: &'a mut dyn FnMut(&[i64], i64) -> Result<()>,
}

impl Walk<'_> {
    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
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
        Err(damaged("a number of more than 64 bits"))
    }

    fn signed(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Number and type of the next field of a struct; `None` at its end.
    fn field(&mut self, last: i64) -> Result<Option<(i64, u8)>> {
        let byte = self.byte()?;
        let (id, kind) = match (byte >> 4, byte & 0xf) {
            (_, STOP) => return Ok(None),
            (0, kind) => (self.signed()?, kind),
            (step, kind) => (last + i64::from(step), kind),
        };
        match i16::try_from(id) {
            Ok(_) => Ok(Some((id, kind))),
            Err(_) => Err(damaged(format_args!("field number {id}"))),
        }
    }

    fn fields(&mut self, known: Fields) -> Result<()> {
        let mut last = 0;
        while let Some((id, kind)) = self.field(last)? {
            last = id;
            self.path.push(id);
            match known.iter().find(|(known, _)| *known == id) {
                Some((_, declared)) => self.value(declared, kind)?,
                None => self.skip(kind, 0)?,
            }
            self.path.pop();
        }
        Ok(())
    }

    /// A value of a known field.
    fn value(&mut self, declared: &Type, kind: u8) -> Result<()> {
        match (declared, kind) {
            (Type::Flag, TRUE | FALSE) | (Type::Byte, BYTE) | (Type::Double, DOUBLE) | (Type::Binary, BINARY) => {
                self.skip(kind, 0)
            }
            (Type::I16, I16) | (Type::I32, I32) | (Type::I64, I64) => {
                let value = self.signed()?;
                (self.seen)(&self.path, value)
            }
            (Type::List(item), LIST) => {
                let (length, kind) = self.list()?;
                (0..length).try_for_each(|_| self.value(item, kind))
            }
            (Type::Struct(fields), STRUCT) => self.fields(fields),
            _ => Err(damaged(format_args!("field {:?} of type {kind} of Thrift, expected {declared:?}", self.path))),
        }
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(damaged("nested too deeply"));
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
            LIST | SET => {
                let (length, kind) = self.list()?;
                (0..length).try_for_each(|_| self.skip(kind, depth + 1))
            }
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
            kind => Err(damaged(format_args!("type {kind}, which Thrift does not have"))),
        }
    }

    /// Length of a list, and type of its items.
    fn list(&mut self) -> Result<(u64, u8)> {
        let byte = self.byte()?;
        let length = match byte >> 4 {
            15 => self.varint()?,
            length => u64::from(length),
        };
        let kind = item(byte & 0xf, length)?;
        Ok((length, kind))
    }

    fn skip_map(&mut self, depth: usize) -> Result<()> {
        let length = self.varint()?;
        if length == 0 {
            return Ok(());
        }
        let kinds = self.byte()?;
        let (key, value) = (item(kinds >> 4, length)?, item(kinds & 0xf, length)?);
        (0..length).try_for_each(|_| {
            self.skip(key, depth + 1)?;
            self.skip(value, depth + 1)
        })
    }

    fn pass(&mut self, count: u64) -> Result<()> {
        match std::io::copy(&mut self.input.take(count), &mut std::io::sink())? {
            passed if passed == count => Ok(()),
            passed => Err(damaged(format_args!("{count} bytes expected, {passed} found"))),
        }
    }
}

/// The type of items, which are no flags. Parquet has lists of flags in its indexes only.
fn item(kind: u8, length: u64) -> Result<u8> {
    match kind {
        TRUE | FALSE if length > 0 => Err(damaged(format_args!("a list of {length} flags"))),
        kind => Ok(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Fields = &[
        (1, Type::I32),
        (2, Type::List(&Type::Struct(&[(1, Type::I64), (2, Type::Flag)]))),
        (3, Type::Binary),
        (4, Type::Double),
        (5, Type::Byte),
    ];

    fn numbers(bytes: &[u8]) -> Result<Vec<(Vec<i64>, i64)>> {
        let mut found = Vec::new();
        walk(&mut &bytes[..], KNOWN, &mut |path, value| {
            found.push((path.to_vec(), value));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn numbers_are_found_with_their_paths() {
        let bytes = [
            0x15,
            0xd8,
            0x04, // 1: 300
            0x19,
            0x2c,
            0x16,
            0x01,
            0x11,
            0x00,
            0x16,
            0x04,
            0x00, // 2: [{1: -1, 2: true}, {1: 2}]
            0x18,
            0x02,
            b'a',
            b'b', // 3: "ab"
            0x17,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0, // 4: 0.0
            0x13,
            0x07, // 5: 7
            0x1b,
            0x01,
            0x85,
            b'k' - b'j',
            b'v',
            0x02, // 6: a map, unknown
            0x09,
            0x28,
            0x23,
            0x01,
            0x00, // 20, by its number: [1, 0]
            0x00,
        ];
        let expected = vec![(vec![1], 300), (vec![2, 1], -1), (vec![2, 1], 2)];
        assert_eq!(numbers(&bytes).unwrap(), expected);
        for end in 0..bytes.len() {
            assert!(numbers(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn flags_in_lists_and_other_types_are_refused_at_once() {
        let refused = |bytes: &[u8]| numbers(bytes).unwrap_err().to_string();
        let many = [0xff, 0xff, 0xff, 0xff, 0x07];
        for head in [&[0x69, 0xf1][..], &[0x69, 0xf2], &[0x6a, 0xf1]] {
            let found = refused(&[head, &many, &[0, 0]].concat());
            assert_eq!(found, "damaged metadata: a list of 2147483647 flags");
        }
        // In a list of lists, in a struct, and as a map's values.
        assert!(refused(&[&[0x69, 0x29, 0xf1][..], &many].concat()).contains("flags"));
        assert!(refused(&[&[0x6c, 0x19, 0xf1][..], &many].concat()).contains("flags"));
        assert!(refused(&[&[0x6b][..], &many, &[0x31]].concat()).contains("flags"));
        // A flag takes no byte; a reader that takes it for a number reads on elsewhere.
        assert!(refused(&[0x11, 0x00]).contains("field [1] of type 1"));
        assert!(refused(&[0x29, 0x25, 0x02, 0x02, 0x00]).contains("field [2] of type 5"));
        assert!(refused(&[0x05, 0x82, 0x80, 0x08, 0x02, 0x00]).contains("field number 65537"));
        assert_eq!(numbers(&[0x69, 0x01, 0x00]).unwrap(), [], "an empty list");
    }
}
