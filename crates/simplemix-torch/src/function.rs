//! Operations with a gradient of their own.

use tch::Tensor;

use crate::error::{Error, Result};
use crate::native;

/// Whether an operation on `inputs` would be recorded in a graph: one of them requires a gradient, and gradients are on.
///
/// # Errors
/// [`Error::Torch`] for a tensor that libtorch does not know.
pub fn records(inputs: &[&Tensor]) -> Result<bool> {
    native::records(inputs)
}

/// Adds an operation to the graph: `outputs` were computed from `inputs`, and `backward` computes the gradients of the inputs
/// from those of the outputs. As `torch.autograd.Function`, for one backward pass.
///
/// `outputs` are new tensors, computed without a graph. Nothing is added if no input requires a gradient. `backward` gets a
/// gradient for each output, undefined where the loss does not depend on it, and returns one for each input, `None` where
/// none is needed. What it holds is freed with the graph. A panic or an error in it becomes the error of the backward pass.
///
/// # Errors
/// [`Error::Argument`] for an output that is already in a graph.
///
/// # Examples
/// ```
/// use simplemix_torch::function;
/// use tch::{Kind, Tensor};
///
/// let x = Tensor::from_slice(&[1.0, 2.0]).set_requires_grad(true);
/// let y = tch::no_grad(|| x.square());
/// let kept = x.detach();
/// let y = function("Square", &[&x], vec![y], move |gradients| Ok(vec![Some(&gradients[0] * kept * 2.0)]))?.remove(0);
/// y.sum(Kind::Double).backward();
/// assert_eq!(Vec::<f64>::try_from(x.grad())?, [2.0, 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn function<F>(name: &str, inputs: &[&Tensor], outputs: Vec<Tensor>, backward: F) -> Result<Vec<Tensor>>
where
    F: FnOnce(&[Tensor]) -> Result<Vec<Option<Tensor>>, Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    if let Some(output) = outputs.iter().find(|output| output.requires_grad()) {
        return Err(Error::argument(
            "outputs",
            format!("{:?} of a graph", output.size()),
            "a new tensor without a graph",
        ));
    }
    let backward = Box::new(move |gradients: Vec<Tensor>| backward(&gradients).map_err(|error| error.to_string()));
    native::function(name, inputs, &outputs.iter().collect::<Vec<_>>(), backward)?;
    Ok(outputs)
}
