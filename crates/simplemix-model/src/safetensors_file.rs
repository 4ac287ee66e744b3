//! Safetensors files written to any writer, so that they go through simplemix-files and reach the disk whole.
//!
//! The layout is that of the safetensors library: tensors by falling alignment of their type, then by name.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

use safetensors::tensor::{Metadata, TensorInfo, View};

/// Bytes that are collected before a write.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes named tensors, one at a time in memory.
///
/// # Errors
/// Errors of the writer, or a tensor whose length does not fit its shape.
pub(crate) fn write<N: AsRef<str>, V: View>(to: impl Write, mut tensors: Vec<(N, V)>) -> io::Result<()> {
    tensors.sort_by(|(a_name, a), (b_name, b)| b.dtype().cmp(&a.dtype()).then(a_name.as_ref().cmp(b_name.as_ref())));
    let header = header(&tensors)?;
    let mut to = BufWriter::with_capacity(BUFFER_BYTES, to);
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    for (_, tensor) in &tensors {
        to.write_all(&tensor.data())?;
    }
    to.flush()
}

/// JSON of all names, types, shapes and places, filled up with spaces to a multiple of 8 bytes.
fn header<N: AsRef<str>, V: View>(tensors: &[(N, V)]) -> io::Result<Vec<u8>> {
    let mut offset = 0;
    let place = |(name, tensor): &(N, V)| {
        let start = offset;
        offset += tensor.data_len();
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        (name.as_ref().to_owned(), TensorInfo { dtype, shape, data_offsets: (start, offset) })
    };
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), tensors.iter().map(place).collect()).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{Dtype, TensorView};

    #[test]
    fn bytes_are_those_of_the_library() {
        let numbers: Vec<u8> = (0..48).collect();
        let view =
            |dtype, shape: &[usize], bytes: usize| TensorView::new(dtype, shape.to_vec(), &numbers[..bytes]).unwrap();
        let tensors = || {
            vec![
                ("b", view(Dtype::F32, &[2, 3], 24)),
                ("half", view(Dtype::BF16, &[3], 6)),
                ("a", view(Dtype::F32, &[1], 4)),
                ("long", view(Dtype::I64, &[6], 48)),
                ("none", view(Dtype::F32, &[0], 0)),
            ]
        };
        let mut ours = Vec::new();
        write(&mut ours, tensors()).unwrap();
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        assert_eq!(ours, safetensors::serialize(tensors(), Some(format)).unwrap());
    }
}
