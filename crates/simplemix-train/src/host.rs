//! Memory of f32 tensors on the CPU, as slices.

use tch::{Device, Kind, Tensor};

/// Entries of tensors, some to write and one to read; `None` unless all are non-empty, contiguous f32 tensors on the CPU
/// of which no two share memory.
///
/// While the slices live, other handles on the same memory must not be used; libtorch itself asks the same of two threads.
pub(crate) fn entries<'a, const N: usize>(
    written: [&'a mut Tensor; N],
    read: &'a Tensor,
) -> Option<([&'a mut [f32]; N], &'a [f32])> {
    let mut all: Vec<&Tensor> = written.iter().map(|tensor| &**tensor).collect();
    all.push(read);
    if !all.iter().all(|tensor| is_plain(tensor)) || any_overlap(&all) {
        return None;
    }
    #[expect(unsafe_code, reason = "tch has no view of a tensor's memory")]
    // SAFETY: a contiguous f32 tensor on the CPU holds `numel` floats one after another from `data_ptr` on, which the
    // borrowed handle keeps alive. No two of them overlap, so a written one is not aliased.
    unsafe {
        let written = written.map(|t| std::slice::from_raw_parts_mut(t.data_ptr().cast::<f32>(), t.numel()));
        Some((written, std::slice::from_raw_parts(read.data_ptr().cast::<f32>(), read.numel())))
    }
}

fn is_plain(tensor: &Tensor) -> bool {
    let is_float = tensor.device() == Device::Cpu && tensor.kind() == Kind::Float;
    is_float && tensor.is_contiguous() && tensor.numel() > 0 && simplemix_torch::has_memory(tensor).unwrap_or(false)
}

fn any_overlap(tensors: &[&Tensor]) -> bool {
    let mut places: Vec<(usize, usize)> = tensors.iter().map(|t| (t.data_ptr() as usize, 4 * t.numel())).collect();
    places.sort_unstable();
    places.windows(2).any(|pair| pair[0].0 + pair[0].1 > pair[1].0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tensors_are_borrowed_and_others_are_not() {
        let (mut a, b) = (Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]), Tensor::from_slice(&[5f32, 6.0]));
        let ([written], read) = entries([&mut a], &b).unwrap();
        written[..2].copy_from_slice(read);
        assert_eq!(Vec::<f32>::try_from(&a).unwrap(), [5.0, 6.0, 3.0, 4.0]);
        // Two views of one tensor overlap unless they are apart.
        let (mut front, back) = (a.narrow(0, 0, 2), a.narrow(0, 2, 2));
        assert!(entries([&mut front], &back).is_some());
        assert!(entries([&mut front], &a).is_none());
        let transposed = a.view([2, 2]).tr();
        assert!(entries([], &transposed).is_none() && entries([], &b.to_kind(Kind::Double)).is_none());
        assert!(entries([], &Tensor::from_slice::<f32>(&[])).is_none());
    }
}
