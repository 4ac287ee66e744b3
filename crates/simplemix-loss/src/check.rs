//! Checks of the public functions' arguments: shapes, indices, finite numbers.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// Checks that `vector` is a float vector of length `len`.
pub(crate) fn float_vector(name: &'static str, vector: &Tensor, len: i64) -> Result<()> {
    if vector.size() == [len] && is_float(vector.kind()) {
        return Ok(());
    }
    Err(Error::Shape {
        name,
        found: format!("{:?} {:?}", vector.kind(), vector.size()),
        expected: format!("a float vector of [{len}]"),
    })
}

/// Checks that `tensor` holds neither NaN nor infinities.
pub(crate) fn finite(name: &'static str, tensor: &Tensor) -> Result<()> {
    let bad = tensor.detach().isfinite().logical_not();
    if bad.any().int64_value(&[]) == 0 {
        return Ok(());
    }
    let index = bad.flatten(0, -1).to_kind(Kind::Int).argmax(0, false).int64_value(&[]);
    Err(Error::NonFinite { name, found: tensor.detach().flatten(0, -1).double_value(&[index]), index })
}

/// Whether `kind` is a floating-point type.
pub(crate) fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16)
}
