//! The container, version 3: header, metadata, tensor table, and bytes of tensors at multiples of 32.

use std::io::{self, Write};

use super::packing::number;
use super::quant::Quant;

const VERSION: u32 = 3;
const ALIGNMENT: u64 = 32;

/// A metadata value that is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
}

impl Entry {
    fn put(&self, to: &mut Vec<u8>) {
        let list = |to: &mut Vec<u8>, kind: u32, count: usize| {
            to.extend(9u32.to_le_bytes());
            to.extend(kind.to_le_bytes());
            to.extend((count as u64).to_le_bytes());
        };
        match self {
            Self::U32(number) => to.extend([4u32.to_le_bytes(), number.to_le_bytes()].concat()),
            Self::F32(number) => to.extend([6u32.to_le_bytes(), number.to_le_bytes()].concat()),
            Self::Bool(flag) => {
                to.extend(7u32.to_le_bytes());
                to.push(u8::from(*flag));
            }
            Self::Text(text) => {
                to.extend(8u32.to_le_bytes());
                put_text(text, to);
            }
            Self::Texts(all) => {
                list(to, 8, all.len());
                all.iter().for_each(|text| put_text(text, to));
            }
            Self::F32s(all) => {
                list(to, 6, all.len());
                all.iter().for_each(|number| to.extend(number.to_le_bytes()));
            }
            Self::I32s(all) => {
                list(to, 5, all.len());
                all.iter().for_each(|number| to.extend(number.to_le_bytes()));
            }
        }
    }
}

fn put_text(text: &str, to: &mut Vec<u8>) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

/// A tensor that is written.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) name: String,
    /// As the model has it; the file has the dimensions in reverse.
    pub(super) shape: Vec<u64>,
    pub(super) quant: Quant,
}

impl Placed {
    /// Bytes in the file, without what follows up to the next multiple of 32.
    pub(super) fn bytes(&self) -> u64 {
        let numel: u64 = self.shape.iter().product();
        numel / self.quant.block() as u64 * self.quant.block_bytes() as u64
    }
}

/// Bytes up to the next multiple of 32.
fn padding(length: u64) -> usize {
    (length.next_multiple_of(ALIGNMENT) - length) as usize
}

/// Header of a file, up to the first tensor's bytes.
pub(super) fn header(metadata: &[(String, Entry)], tensors: &[Placed]) -> Vec<u8> {
    let mut to = b"GGUF".to_vec();
    to.extend(VERSION.to_le_bytes());
    to.extend((tensors.len() as u64).to_le_bytes());
    to.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        put_text(key, &mut to);
        value.put(&mut to);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        put_text(&tensor.name, &mut to);
        to.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|dimension| to.extend(dimension.to_le_bytes()));
        to.extend(number(tensor.quant).to_le_bytes());
        to.extend(offset.to_le_bytes());
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    let missing = padding(to.len() as u64);
    to.extend(vec![0; missing]);
    to
}

/// Writes a tensor's bytes, and what follows up to the next multiple of 32.
pub(super) fn put(bytes: &[u8], to: &mut dyn Write) -> io::Result<()> {
    to.write_all(bytes)?;
    to.write_all(&vec![0; padding(bytes.len() as u64)])
}
