//! Backward passes from given gradients, and the gradients of leaves.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::native;

/// Runs backward from `roots`, whose gradients are `gradients`, as `torch.autograd.backward(roots, gradients)`.
///
/// # Shapes
/// * each gradient has the shape of its root
///
/// # Errors
/// [`Error::Argument`] if the lengths or a shape differ, [`Error::Torch`] if a root is in no graph or memory does not suffice.
///
/// # Examples
/// ```
/// use tch::Tensor;
///
/// let x = Tensor::from_slice(&[1.0, 2.0]).set_requires_grad(true);
/// let y = x.square();
/// // The gradient of y is (1, 10), so x has 2 x (1, 10).
/// simplemix_torch::backward(&[&y], &[&Tensor::from_slice(&[1.0, 10.0])])?;
/// assert_eq!(Vec::<f64>::try_from(x.grad())?, [2.0, 40.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn backward(roots: &[&Tensor], gradients: &[&Tensor]) -> Result<()> {
    if roots.len() != gradients.len() {
        return Err(Error::argument("gradients", format!("{} tensors", gradients.len()), format!("{}", roots.len())));
    }
    for (root, gradient) in roots.iter().zip(gradients) {
        if root.size() != gradient.size() {
            return Err(Error::argument("gradients", format!("{:?}", gradient.size()), format!("{:?}", root.size())));
        }
    }
    native::backward(roots, gradients)
}

/// Makes `gradient` the `.grad` of `leaf`, or leaves it without one. The storage is shared, not copied.
///
/// # Errors
/// [`Error::Argument`] if the shapes differ.
pub fn set_gradient(leaf: &Tensor, gradient: Option<&Tensor>) -> Result<()> {
    if let Some(gradient) = gradient
        && gradient.size() != leaf.size()
    {
        return Err(Error::argument("gradient", format!("{:?}", gradient.size()), format!("{:?}", leaf.size())));
    }
    native::set_gradient(leaf, gradient)
}

/// Lets the gradients of `leaf` be added up in `kind`, whatever the leaf's own: f32 sums of a bf16 weight's gradients lose
/// nothing of late micro-batches. Must come before the first backward pass.
///
/// # Errors
/// [`Error::Argument`] for a kind that is no float, [`Error::Torch`] for a tensor that is no leaf of a graph.
///
/// # Examples
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// let w = Tensor::ones([1], (Kind::BFloat16, Device::Cpu)).set_requires_grad(true);
/// simplemix_torch::set_gradient_kind(&w, Kind::Float)?;
/// for factor in [256.0, 1.0] {
///     (&w * factor).sum(Kind::BFloat16).backward();
/// }
/// // In bf16, whose numbers above 256 are even, the sum would be 256.
/// assert_eq!(w.grad().double_value(&[0]), 257.0);
/// # Ok::<(), simplemix_torch::Error>(())
/// ```
pub fn set_gradient_kind(leaf: &Tensor, kind: Kind) -> Result<()> {
    match native::KINDS.iter().find(|(known, _)| *known == kind) {
        Some((_, number)) => native::set_gradient_kind(leaf, *number),
        None => Err(Error::argument("kind", format!("{kind:?}"), "a kind of float")),
    }
}

/// Kind in which the gradients of `leaf` are added up: that of [`set_gradient_kind`], else the leaf's own.
///
/// # Errors
/// [`Error::Torch`] for a tensor that is no leaf of a graph.
pub fn gradient_kind(leaf: &Tensor) -> Result<Kind> {
    native::gradient_kind(leaf)
}

/// Tells a function of leaves whose gradients a backward pass has added, until it is dropped.
#[derive(Debug)]
#[must_use = "nothing is told once it is dropped"]
pub struct Watched {
    _hooks: native::LeafHooks,
}

/// Calls `then` with the number of a leaf each time a backward pass has come to it and its gradient of that pass is in `.grad`,
/// as PyTorch's `register_post_accumulate_grad_hook`. That is so for gradients which [`crate::linear`] has added too, and where
/// the pass had none to add. `then` is called on the thread that runs the pass, which may be any.
///
/// # Errors
/// [`Error::Torch`] for a tensor that is no leaf of a graph, or requires no gradient.
///
/// # Examples
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use std::sync::Arc;
/// use tch::{Kind, Tensor};
///
/// let leaf = || Tensor::from_slice(&[1.0]).set_requires_grad(true);
/// let (a, b, told) = (leaf(), leaf(), Arc::new(AtomicUsize::new(0)));
/// let counter = Arc::clone(&told);
/// let watched = simplemix_torch::watch_gradients(&[&a, &b], move |leaf| {
///     counter.fetch_add(leaf + 1, Ordering::Relaxed);
/// })?;
/// (&b * &b + &b).sum(Kind::Double).backward();
/// // The pass comes to `b` once, with the whole of its gradient.
/// assert_eq!(told.load(Ordering::Relaxed), 2);
/// drop(watched);
/// (&b * &b).sum(Kind::Double).backward();
/// assert_eq!(told.load(Ordering::Relaxed), 2);
/// # Ok::<(), simplemix_torch::Error>(())
/// ```
pub fn watch_gradients(leaves: &[&Tensor], then: impl Fn(usize) + Send + Sync + 'static) -> Result<Watched> {
    Ok(Watched { _hooks: native::LeafHooks::new(leaves, Box::new(then))? })
}
