//! Calls that libtorch makes, recorded, so that a test can count launches and waits without a GPU.

use crate::native;

/// Runs `work` and records the calls of libtorch's operators, backward nodes and [`named`] spans on this thread, in order.
///
/// Backward passes over tensors of a CPU run on the thread that asks for them.
///
/// # Examples
/// ```
/// use simplemix_torch::trace;
/// use tch::Tensor;
///
/// let x = Tensor::from_slice(&[1f32, 2.0]);
/// let (_, calls) = trace(|| (&x + &x).double_value(&[0]));
/// // Reading a number of a GPU's tensor waits for the GPU.
/// assert_eq!(calls.waits(), 1);
/// assert_eq!(calls.launches(&[]), 1);
/// ```
pub fn trace<T>(work: impl FnOnce() -> T) -> (T, Calls) {
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            native::trace_end();
        }
    }
    native::trace_begin();
    let ends = Ends;
    let result = work();
    let call = |(depth, kind, name): native::Recorded| {
        let kind = match kind {
            1 => CallKind::Kernel,
            2 => CallKind::View,
            _ => CallKind::Composite,
        };
        Call { depth: usize::try_from(depth).unwrap_or(0), kind, name }
    };
    let calls = native::trace_end().into_iter().map(call).collect();
    std::mem::forget(ends);
    (result, Calls(calls))
}

/// Runs `work` as one call named `name` in traces.
pub fn named<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let _call = native::Call::begin(name);
    work()
}

/// A recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Number of recorded calls that it is inside of.
    pub depth: usize,
    /// Effect of the call.
    pub kind: CallKind,
    /// Name, such as `aten::mm` or `MmBackward0`.
    pub name: String,
}

/// Effect of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Other calls only: operators made of operators, backward nodes, [`named`] spans.
    Composite,
    /// Work on values.
    Kernel,
    /// A view of a tensor, or a tensor that is not filled.
    View,
}

/// Recorded calls, in the order in which they began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls(pub Vec<Call>);

/// Operators that make the host wait until a device has finished.
const WAITS: [&str; 5] =
    ["aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::unique_consecutive", "aten::_unique2"];

impl Calls {
    /// Number of calls for which the host waits on a device: reads of single numbers, results whose size depends on values,
    /// and the blocking copies that [`crate::device`] makes.
    pub fn waits(&self) -> usize {
        let waits = |call: &&Call| WAITS.contains(&call.name.as_str()) || call.name == crate::device::BLOCKING;
        self.0.iter().filter(waits).count()
    }

    /// Number of copies from the host that [`crate::device`] makes, on a CPU those that a device would need.
    pub fn copies(&self) -> usize {
        self.0.iter().filter(|call| call.name == crate::device::COPY).count()
    }

    /// Number of kernels that a device would launch: operators that work on values and are not inside of such a one. A call
    /// named in `whole` counts as one, whatever it calls.
    pub fn launches(&self, whole: &[&str]) -> usize {
        self.kernels(whole).count()
    }

    /// Names of the calls that [`Calls::launches`] counts.
    pub fn kernels<'a>(&'a self, whole: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
        let mut inside: Option<usize> = None;
        self.0.iter().filter_map(move |call| {
            if inside.is_some_and(|depth| call.depth > depth) {
                return None;
            }
            let name = call.name.as_str();
            let counts = whole.contains(&name) || call.kind == CallKind::Kernel;
            inside = counts.then_some(call.depth);
            (counts && !WAITS.contains(&name)).then_some(name)
        })
    }
}
