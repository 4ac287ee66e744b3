//! Safetensors files written to any writer, so that they go through simplemix-files and reach the disk whole.
//!
//! The layout is that of the safetensors library: tensors by falling alignment of their type, then by name.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

/// Bytes that are collected before a write.
const BUFFER_BYTES: usize = 1 << 20;

/// Type, shape and length of a tensor, known before its bytes are.
pub(crate) trait Layout {
    fn dtype(&self) -> Dtype;
    fn shape(&self) -> &[usize];
    fn bytes(&self) -> usize;
}

/// Writes named tensors, one at a time: `put` writes a tensor's bytes.
///
/// # Errors
/// Errors of the writer and of `put`, or a tensor whose length does not fit its shape.
pub(crate) fn write<N: AsRef<str>, V: Layout>(
    to: impl Write,
    mut tensors: Vec<(N, V)>,
    put: impl Fn(&V, &mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    sort(&mut tensors);
    let header = header(&tensors)?;
    let mut to = BufWriter::with_capacity(BUFFER_BYTES, to);
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    for (_, tensor) in &tensors {
        put(tensor, &mut to)?;
    }
    to.flush()
}

/// Puts tensors into the order of the file.
pub(crate) fn sort<N: AsRef<str>, V: Layout>(tensors: &mut [(N, V)]) {
    tensors.sort_by(|(a_name, a), (b_name, b)| b.dtype().cmp(&a.dtype()).then(a_name.as_ref().cmp(b_name.as_ref())));
}

/// JSON of all names, types, shapes and places, filled up with spaces to a multiple of 8 bytes.
fn header<N: AsRef<str>, V: Layout>(tensors: &[(N, V)]) -> io::Result<Vec<u8>> {
    let mut offset = 0;
    let place = |(name, tensor): &(N, V)| {
        let start = offset;
        offset += tensor.bytes();
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
    use safetensors::tensor::TensorView;

    impl Layout for TensorView<'_> {
        fn dtype(&self) -> Dtype {
            TensorView::dtype(self)
        }

        fn shape(&self) -> &[usize] {
            TensorView::shape(self)
        }

        fn bytes(&self) -> usize {
            self.data().len()
        }
    }

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
        write(&mut ours, tensors(), |tensor, to| to.write_all(tensor.data())).unwrap();
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        assert_eq!(ours, safetensors::serialize(tensors(), Some(format)).unwrap());
    }
}
