//! Switches of libtorch for the precision of products.

use crate::error::Result;
use crate::native;

/// Precision of products of f32 matrices, as `torch.set_float32_matmul_precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatmulPrecision {
    /// Plain f32.
    #[default]
    Highest,
    /// TF32 on GPUs that have it.
    High,
    /// bf16 inside.
    Medium,
}

/// Sets the precision of products of f32 matrices for the whole process.
///
/// # Errors
/// [`crate::Error::Torch`] where libtorch refuses it.
pub fn set_matmul_precision(precision: MatmulPrecision) -> Result<()> {
    native::set_matmul_precision(match precision {
        MatmulPrecision::Highest => "highest",
        MatmulPrecision::High => "high",
        MatmulPrecision::Medium => "medium",
    })
}

/// Whether cuBLAS may add parts of products of bf16 and f16 matrices in half precision, which it may by default; for the
/// whole process.
///
/// # Errors
/// [`crate::Error::Torch`] where libtorch refuses it.
pub fn set_half_sums(allowed: bool) -> Result<()> {
    native::set_half_sums(allowed)
}
