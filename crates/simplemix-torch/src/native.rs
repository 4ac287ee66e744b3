//! Calls into `native.cpp`: the only unsafe code of this crate, behind functions that are safe for any tensors.
#![expect(unsafe_code, reason = "foreign functions; each block says why it is sound")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use tch::{Kind, Tensor};
use torch_sys::C_tensor;

use crate::error::{Error, Result};

type Pointer = *mut C_tensor;

#[repr(C)]
struct Closure {
    data: *mut c_void,
    call: unsafe extern "C" fn(*mut c_void, *mut Pointer, i64, *mut Pointer, i64) -> bool,
    drop: unsafe extern "C" fn(*mut c_void),
}

#[repr(C)]
struct Teller {
    data: *mut c_void,
    call: unsafe extern "C" fn(*mut c_void, i64),
    drop: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    fn smx_take_error() -> *const c_char;
    fn smx_fail(text: *const u8, length: usize);
    fn smx_backward(roots: *const Pointer, gradients: *const Pointer, count: i64);
    fn smx_set_gradient(leaf: Pointer, gradient: Pointer);
    fn smx_exchange_memory(a: Pointer, b: Pointer);
    fn smx_has_memory(tensor: Pointer) -> bool;
    fn smx_set_gradient_kind(leaf: Pointer, kind: c_int);
    fn smx_gradient_kind(leaf: Pointer) -> c_int;
    fn smx_leaf_hooks(leaves: *const Pointer, count: i64, teller: Teller) -> *mut c_void;
    fn smx_leaf_hooks_drop(hooks: *mut c_void);
    fn smx_norm(tensors: *const Pointer, count: i64) -> Pointer;
    fn smx_copy_all(to: *const Pointer, from: *const Pointer, count: i64);
    fn smx_zero_all(tensors: *const Pointer, count: i64);
    fn smx_adamw(
        weights: *const Pointer,
        gradients: *const Pointer,
        means: *const Pointer,
        squares: *const Pointer,
        count: i64,
        step: Pointer,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        epsilon: f64,
        divisor: Pointer,
    );
    fn smx_flash_attention(
        q: Pointer,
        k: Pointer,
        v: Pointer,
        starts_q: Pointer,
        starts_k: Pointer,
        longest_q: i64,
        longest_k: i64,
        causal: bool,
        scale: f64,
        window: i64,
    ) -> Pointer;
    fn smx_has_run_attention(kind: c_int) -> bool;
    fn smx_run_attention(
        q: Pointer,
        k: Pointer,
        v: Pointer,
        runs: *const [i64; 4],
        count: i64,
        window: i64,
        scale: f64,
        results: *mut Pointer,
    );
    fn smx_run_attention_backward(
        kept: *const Pointer,
        runs: *const [i64; 4],
        count: i64,
        window: i64,
        scale: f64,
        gradient: Pointer,
        results: *mut Pointer,
    );
    fn smx_gate(gate: Pointer, up: Pointer, gelu: bool) -> Pointer;
    fn smx_gate_backward(gate: Pointer, up: Pointer, gelu: bool, gradient: Pointer, results: *mut Pointer);
    fn smx_rms_norm(x: Pointer, factor: Pointer, eps: f64, results: *mut Pointer);
    fn smx_rms_norm_backward(x: Pointer, factor: Pointer, inverse: Pointer, gradient: Pointer, results: *mut Pointer);
    fn smx_turn(x: Pointer, cos: Pointer, sin: Pointer, way: f64) -> Pointer;
    fn smx_records(inputs: *const Pointer, count: i64) -> bool;
    fn smx_function(
        name: *const u8,
        length: usize,
        inputs: *const Pointer,
        input_count: i64,
        outputs: *const Pointer,
        output_count: i64,
        closure: Closure,
    );
    fn smx_dropout(x: Pointer, keys: Pointer, seed: u32, least: u32, scale: f64, by_operators: bool) -> Pointer;
    fn smx_trace_begin();
    fn smx_trace_end(data: *mut c_void, take: unsafe extern "C" fn(*mut c_void, i64, c_int, *const u8, usize));
    fn smx_call_begin(name: *const u8, length: usize) -> *mut c_void;
    fn smx_call_end(call: *mut c_void);
    fn smx_set_attention_kernels(kernels: c_int);
    fn smx_attention_kernels() -> c_int;
    fn smx_set_matmul_precision(precision: *const u8, length: usize);
    fn smx_set_half_sums(allowed: bool);
    fn smx_has_accelerator() -> bool;
    fn smx_select_device(device: c_int);
    fn smx_synchronize(device: c_int);
    fn smx_memory(device: c_int, bytes: *mut i64);
    fn smx_reset_peak(device: c_int);
    fn smx_trim_heap();
    fn smx_map_blocks(small: bool);
    fn smx_empty_cache();
    fn smx_event_record(device: c_int) -> *mut c_void;
    fn smx_event_synchronize(event: *mut c_void);
    fn smx_event_milliseconds(from: *mut c_void, to: *mut c_void) -> f64;
    fn smx_event_drop(event: *mut c_void);
    fn smx_generator_state(device: c_int) -> Pointer;
    fn smx_set_generator_state(device: c_int, state: Pointer);
}

fn pointer(tensor: &Tensor) -> Pointer {
    tensor.as_ptr().cast_mut()
}

fn pointers(tensors: &[&Tensor]) -> Vec<Pointer> {
    tensors.iter().map(|tensor| pointer(tensor)).collect()
}

fn optional(tensor: Option<&Tensor>) -> Pointer {
    tensor.map_or(ptr::null_mut(), pointer)
}

/// Result of the call before, on this thread.
pub(crate) fn checked<T>(doing: &'static str, value: T) -> Result<T> {
    // SAFETY: the text is the thread's own and stays until its next call; it is copied at once.
    let text = unsafe {
        let text = smx_take_error();
        if text.is_null() {
            return Ok(value);
        }
        CStr::from_ptr(text).to_string_lossy().trim_end().to_owned()
    };
    Err(Error::Torch { doing, text })
}

/// Takes tensors that a call has made: all, or none if it fails.
fn all_taken<const N: usize>(doing: &'static str, made: [Pointer; N]) -> Result<[Tensor; N]> {
    checked(doing, ())?;
    // SAFETY: calls that do not fail make all their results, which nobody else frees.
    Ok(made.map(|made| unsafe { Tensor::from_ptr(made) }))
}

/// Takes a tensor that a call has made.
fn taken(doing: &'static str, made: Pointer) -> Result<Tensor> {
    checked(doing, ())?;
    // SAFETY: calls that do not fail return a tensor of their own, which nobody else frees.
    Ok(unsafe { Tensor::from_ptr(made) })
}

pub(crate) fn backward(roots: &[&Tensor], gradients: &[&Tensor]) -> Result<()> {
    let (roots, gradients) = (pointers(roots), pointers(gradients));
    // SAFETY: the tensors live until the call returns; `crate::gradients` has compared the lengths.
    unsafe { smx_backward(roots.as_ptr(), gradients.as_ptr(), roots.len() as i64) };
    checked("running backward", ())
}

pub(crate) fn set_gradient(leaf: &Tensor, gradient: Option<&Tensor>) -> Result<()> {
    // SAFETY: both tensors live until the call returns, which shares the gradient's storage and counts it.
    unsafe { smx_set_gradient(pointer(leaf), optional(gradient)) };
    checked("setting a gradient", ())
}

pub(crate) fn exchange_memory(a: &Tensor, b: &Tensor) -> Result<()> {
    // SAFETY: both tensors live until the call returns. libtorch looks at the memory of a tensor in each operation, and refuses
    // tensors without any.
    unsafe { smx_exchange_memory(pointer(a), pointer(b)) };
    checked("exchanging the memory of two tensors", ())
}

pub(crate) fn has_memory(tensor: &Tensor) -> Result<bool> {
    // SAFETY: the tensor lives until the call returns.
    checked("looking at the memory of a tensor", unsafe { smx_has_memory(pointer(tensor)) })
}

/// `kind` is a number of [`KINDS`].
pub(crate) fn set_gradient_kind(leaf: &Tensor, kind: c_int) -> Result<()> {
    // SAFETY: the tensor lives until the call returns.
    unsafe { smx_set_gradient_kind(pointer(leaf), kind) };
    checked("setting the kind of a gradient", ())
}

/// Kinds of floats, each with its number in libtorch's `ScalarType`.
pub(crate) const KINDS: [(Kind, c_int); 4] =
    [(Kind::Half, 5), (Kind::Float, 6), (Kind::Double, 7), (Kind::BFloat16, 15)];

pub(crate) fn gradient_kind(leaf: &Tensor) -> Result<Kind> {
    // SAFETY: the tensor lives until the call returns.
    let kind = unsafe { smx_gradient_kind(pointer(leaf)) };
    let kind = checked("reading the kind of a gradient", kind)?;
    Ok(KINDS.iter().find(|(_, number)| *number == kind).map_or(leaf.kind(), |(kind, _)| *kind))
}

/// A function that is told of leaves by their numbers, on any thread.
pub(crate) type Tell = Box<dyn Fn(usize) + Send + Sync>;

/// Hooks on leaves, until they are dropped.
#[derive(Debug)]
pub(crate) struct LeafHooks(*mut c_void);

// SAFETY: the hooks are only kept and dropped, by one thread; what they call may be called by any.
unsafe impl Send for LeafHooks {}
// SAFETY: nothing is done through a shared reference.
unsafe impl Sync for LeafHooks {}

impl LeafHooks {
    pub(crate) fn new(leaves: &[&Tensor], tell: Tell) -> Result<Self> {
        let leaves = pointers(leaves);
        let data: *mut Tell = Box::into_raw(Box::new(tell));
        let teller = Teller { data: data.cast(), call: call_tell, drop: drop_tell };
        // SAFETY: the tensors live until the call returns, which takes `data` and drops it once, after the last call of it.
        let hooks = unsafe { smx_leaf_hooks(leaves.as_ptr(), leaves.len() as i64, teller) };
        checked("watching gradients", Self(hooks))
    }
}

impl Drop for LeafHooks {
    fn drop(&mut self) {
        // SAFETY: made by `new`, or null, which C++ deletes without effect; dropped once.
        unsafe { smx_leaf_hooks_drop(self.0) }
    }
}

unsafe extern "C" fn call_tell(data: *mut c_void, leaf: i64) {
    // SAFETY: `data` is what `new` made and lives as long as the hooks.
    let tell = unsafe { &*data.cast::<Tell>() };
    // A panic may not cross into C++; the hook's owner learns of it by what is missing.
    let _ = catch_unwind(AssertUnwindSafe(|| tell(leaf as usize)));
}

unsafe extern "C" fn drop_tell(data: *mut c_void) {
    // SAFETY: `data` is what `new` made, and the hooks drop it once.
    drop(unsafe { Box::from_raw(data.cast::<Tell>()) });
}

pub(crate) fn norm(tensors: &[&Tensor]) -> Result<Tensor> {
    let all = pointers(tensors);
    // SAFETY: the tensors live until the call returns.
    let made = unsafe { smx_norm(all.as_ptr(), all.len() as i64) };
    taken("computing a norm", made)
}

pub(crate) fn copy_all(to: &[&Tensor], from: &[&Tensor]) -> Result<()> {
    let (to, from) = (pointers(to), pointers(from));
    // SAFETY: the tensors live until the call returns; `crate::many` has compared the lengths.
    unsafe { smx_copy_all(to.as_ptr(), from.as_ptr(), to.len() as i64) };
    checked("copying tensors", ())
}

pub(crate) fn zero_all(tensors: &[&Tensor]) -> Result<()> {
    let all = pointers(tensors);
    // SAFETY: the tensors live until the call returns.
    unsafe { smx_zero_all(all.as_ptr(), all.len() as i64) };
    checked("clearing tensors", ())
}

/// Arguments of one fused AdamW update.
pub(crate) struct AdamW<'a> {
    pub(crate) weights: &'a [&'a Tensor],
    pub(crate) gradients: &'a [&'a Tensor],
    pub(crate) means: &'a [&'a Tensor],
    pub(crate) squares: &'a [&'a Tensor],
    pub(crate) step: &'a Tensor,
    pub(crate) divisor: Option<&'a Tensor>,
}

pub(crate) fn adamw(tensors: &AdamW<'_>, numbers: [f64; 5]) -> Result<()> {
    let [learning_rate, beta1, beta2, weight_decay, epsilon] = numbers;
    let (weights, gradients) = (pointers(tensors.weights), pointers(tensors.gradients));
    let (means, squares) = (pointers(tensors.means), pointers(tensors.squares));
    // SAFETY: the tensors live until the call returns; `crate::adamw` has compared the lengths.
    unsafe {
        smx_adamw(
            weights.as_ptr(),
            gradients.as_ptr(),
            means.as_ptr(),
            squares.as_ptr(),
            weights.len() as i64,
            pointer(tensors.step),
            learning_rate,
            beta1,
            beta2,
            weight_decay,
            epsilon,
            optional(tensors.divisor),
        );
    }
    checked("updating with AdamW", ())
}

/// Numbers of a call of flash attention.
pub(crate) struct Flash {
    pub(crate) longest: [i64; 2],
    pub(crate) causal: bool,
    pub(crate) scale: f64,
    pub(crate) window: Option<i64>,
}

pub(crate) fn flash_attention(qkv: [&Tensor; 3], starts: [&Tensor; 2], numbers: &Flash) -> Result<Tensor> {
    let [q, k, v] = qkv.map(pointer);
    let [starts_q, starts_k] = starts.map(pointer);
    let [longest_q, longest_k] = numbers.longest;
    let window = numbers.window.unwrap_or(0);
    // SAFETY: the tensors live until the call returns.
    let made = unsafe {
        smx_flash_attention(q, k, v, starts_q, starts_k, longest_q, longest_k, numbers.causal, numbers.scale, window)
    };
    taken("attention", made)
}

pub(crate) fn has_run_attention(kind: Kind) -> bool {
    // SAFETY: a number goes in, an answer comes out.
    KINDS.iter().any(|(known, number)| *known == kind && unsafe { smx_has_run_attention(*number) })
}

/// Result `[T, N, D]` and logarithms of sums `[N, T]` of tensors whose shapes and runs fit each other.
pub(crate) fn run_attention(qkv: [&Tensor; 3], runs: &[[i64; 4]], window: i64, scale: f64) -> Result<[Tensor; 2]> {
    let [q, k, v] = qkv.map(pointer);
    let mut made = [ptr::null_mut(); 2];
    // SAFETY: the tensors and runs live until the call returns; the caller has checked that runs stay within the tensors.
    unsafe { smx_run_attention(q, k, v, runs.as_ptr(), runs.len() as i64, window, scale, made.as_mut_ptr()) };
    all_taken("attention", made)
}

/// Gradients of the three tensors; `kept` are they and the results.
pub(crate) fn run_attention_backward(
    kept: [&Tensor; 5],
    runs: &[[i64; 4]],
    (window, scale): (i64, f64),
    gradient: &Tensor,
) -> Result<[Tensor; 3]> {
    let (kept, mut made) = (kept.map(pointer), [ptr::null_mut(); 3]);
    // SAFETY: as above.
    unsafe {
        smx_run_attention_backward(
            kept.as_ptr(),
            runs.as_ptr(),
            runs.len() as i64,
            window,
            scale,
            pointer(gradient),
            made.as_mut_ptr(),
        );
    }
    all_taken("attention", made)
}

/// `act(gate) * up` of rows of one shape and kind, f32 or f64 on a CPU, as for the functions below.
pub(crate) fn gate(gate: &Tensor, up: &Tensor, gelu: bool) -> Result<Tensor> {
    // SAFETY: the tensors live until the call returns; the caller has checked kinds and shapes.
    taken("a gate", unsafe { smx_gate(pointer(gate), pointer(up), gelu) })
}

pub(crate) fn gate_backward(gate: &Tensor, up: &Tensor, gelu: bool, gradient: &Tensor) -> Result<[Tensor; 2]> {
    let mut made = [ptr::null_mut(); 2];
    // SAFETY: as above.
    unsafe { smx_gate_backward(pointer(gate), pointer(up), gelu, pointer(gradient), made.as_mut_ptr()) };
    all_taken("a gate", made)
}

pub(crate) fn rms_norm(x: &Tensor, factor: &Tensor, eps: f64) -> Result<[Tensor; 2]> {
    let mut made = [ptr::null_mut(); 2];
    // SAFETY: as above.
    unsafe { smx_rms_norm(pointer(x), pointer(factor), eps, made.as_mut_ptr()) };
    all_taken("a norm", made)
}

pub(crate) fn rms_norm_backward([x, factor, inverse, gradient]: [&Tensor; 4]) -> Result<[Tensor; 2]> {
    let mut made = [ptr::null_mut(); 2];
    // SAFETY: as above.
    unsafe {
        smx_rms_norm_backward(pointer(x), pointer(factor), pointer(inverse), pointer(gradient), made.as_mut_ptr());
    }
    all_taken("a norm", made)
}

pub(crate) fn turn(x: &Tensor, cos: &Tensor, sin: &Tensor, way: f64) -> Result<Tensor> {
    // SAFETY: as above.
    taken("a rotation", unsafe { smx_turn(pointer(x), pointer(cos), pointer(sin), way) })
}

pub(crate) fn records(inputs: &[&Tensor]) -> Result<bool> {
    let inputs = pointers(inputs);
    // SAFETY: the tensors live until the call returns.
    let records = unsafe { smx_records(inputs.as_ptr(), inputs.len() as i64) };
    checked("asking for gradients", records)
}

/// Gradients of a function's inputs from those of its outputs.
pub(crate) type Backward = Box<dyn FnOnce(Vec<Tensor>) -> Result<Vec<Option<Tensor>>, String> + Send>;

pub(crate) fn function(name: &str, inputs: &[&Tensor], outputs: &[&Tensor], backward: Backward) -> Result<()> {
    let (inputs, outputs) = (pointers(inputs), pointers(outputs));
    let data: *mut Option<Backward> = Box::into_raw(Box::new(Some(backward)));
    let closure = Closure { data: data.cast(), call: call_backward, drop: drop_backward };
    // SAFETY: the tensors live until the call returns, which takes `data` and drops it once.
    unsafe {
        smx_function(
            name.as_ptr(),
            name.len(),
            inputs.as_ptr(),
            inputs.len() as i64,
            outputs.as_ptr(),
            outputs.len() as i64,
            closure,
        );
    }
    checked("adding a function to the graph", ())
}

/// Runs the closure in `data` once; false with the error's text left behind if it fails.
unsafe extern "C" fn call_backward(
    data: *mut c_void,
    gradients: *mut Pointer,
    outputs: i64,
    results: *mut Pointer,
    inputs: i64,
) -> bool {
    // SAFETY: `data` is what `function` made, the node's lock is held, and `gradients` are tensors made for this call.
    let (closure, gradients) = unsafe {
        let closure = (*data.cast::<Option<Backward>>()).take();
        let given = std::slice::from_raw_parts(gradients, outputs as usize);
        (closure, given.iter().map(|gradient| Tensor::from_ptr(*gradient)).collect::<Vec<_>>())
    };
    let run = || match closure {
        Some(closure) => closure(gradients),
        None => Err("it was run backward before, and keeps nothing for a second time".to_owned()),
    };
    let text = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(made)) if made.len() == inputs as usize => {
            for (at, gradient) in made.into_iter().enumerate().filter_map(|(at, made)| Some((at, made?))) {
                // SAFETY: there is room for a result of every input, and C++ deletes it.
                unsafe { *results.add(at) = pointer(&gradient) };
                std::mem::forget(gradient);
            }
            return true;
        }
        Ok(Ok(made)) => format!("it made {} gradients for {inputs} inputs", made.len()),
        Ok(Err(text)) => text,
        Err(panic) => panic_text(&*panic),
    };
    // SAFETY: the text lives until the call returns.
    unsafe { smx_fail(text.as_ptr(), text.len()) };
    false
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref().cloned());
    text.unwrap_or_else(|| "it panicked".to_owned())
}

unsafe extern "C" fn drop_backward(data: *mut c_void) {
    // SAFETY: `data` is what `function` made, and the node drops it once.
    drop(unsafe { Box::from_raw(data.cast::<Option<Backward>>()) });
}

/// `keys` `[T]` Int, contiguous, for `x` `[T, I]` on one device.
pub(crate) fn dropout(x: &Tensor, keys: &Tensor, numbers: (u32, u32, f64), by_operators: bool) -> Result<Tensor> {
    let (seed, least, scale) = numbers;
    // SAFETY: the tensors live until the call returns; `crate::dropout` has checked what the loop over memory relies on.
    let made = unsafe { smx_dropout(pointer(x), pointer(keys), seed, least, scale, by_operators) };
    taken("dropping inputs", made)
}

/// A recorded call: how many recorded calls it is inside of, the number of its kind, and its name.
pub(crate) type Recorded = (i64, i32, String);

pub(crate) fn trace_begin() {
    // SAFETY: no arguments; the trace is the thread's own.
    unsafe { smx_trace_begin() }
}

pub(crate) fn trace_end() -> Vec<Recorded> {
    let mut calls: Vec<Recorded> = Vec::new();
    // SAFETY: `take` is called with this vector while the call lasts.
    unsafe { smx_trace_end((&raw mut calls).cast(), take_call) };
    calls
}

unsafe extern "C" fn take_call(data: *mut c_void, depth: i64, kind: c_int, name: *const u8, length: usize) {
    // SAFETY: `data` is the vector of `trace_end`, and the name lives until this returns.
    unsafe {
        let name = String::from_utf8_lossy(std::slice::from_raw_parts(name, length)).into_owned();
        (*data.cast::<Vec<Recorded>>()).push((depth, kind, name));
    }
}

/// A named call in traces, until it is dropped.
pub(crate) struct Call(*mut c_void);

impl Call {
    pub(crate) fn begin(name: &str) -> Self {
        // SAFETY: the name lives until the call returns.
        Self(unsafe { smx_call_begin(name.as_ptr(), name.len()) })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: made by `begin`, or null, which C++ deletes without effect; dropped once.
        unsafe { smx_call_end(self.0) }
    }
}

pub(crate) fn set_attention_kernels(kernels: i32) {
    // SAFETY: numbers only.
    unsafe { smx_set_attention_kernels(kernels) }
}

pub(crate) fn attention_kernels() -> i32 {
    // SAFETY: no arguments.
    unsafe { smx_attention_kernels() }
}

pub(crate) fn set_matmul_precision(precision: &str) -> Result<()> {
    // SAFETY: the text lives until the call returns.
    unsafe { smx_set_matmul_precision(precision.as_ptr(), precision.len()) };
    checked("setting the precision of products", ())
}

pub(crate) fn set_half_sums(allowed: bool) -> Result<()> {
    // SAFETY: numbers only.
    unsafe { smx_set_half_sums(allowed) };
    checked("setting the precision of sums", ())
}

pub(crate) fn has_accelerator() -> bool {
    // SAFETY: no arguments.
    unsafe { smx_has_accelerator() }
}

pub(crate) fn select_device(device: i32) -> Result<()> {
    // SAFETY: numbers only.
    unsafe { smx_select_device(device) };
    checked("selecting a device", ())
}

pub(crate) fn synchronize(device: i32) -> Result<()> {
    // SAFETY: numbers only.
    unsafe { smx_synchronize(device) };
    checked("waiting for a device", ())
}

pub(crate) fn memory(device: i32) -> Result<[i64; 6]> {
    let mut bytes = [0; 6];
    // SAFETY: there is room for the six numbers.
    unsafe { smx_memory(device, bytes.as_mut_ptr()) };
    checked("reading the memory of a device", bytes)
}

pub(crate) fn reset_peak(device: i32) -> Result<()> {
    // SAFETY: numbers only.
    unsafe { smx_reset_peak(device) };
    checked("resetting the peak of a device", ())
}

pub(crate) fn trim_heap() {
    // SAFETY: no arguments, and no memory in use is touched.
    unsafe { smx_trim_heap() };
}

pub(crate) fn map_blocks(small: bool) {
    // SAFETY: no pointers, and no memory in use is touched.
    unsafe { smx_map_blocks(small) };
}

pub(crate) fn empty_cache() -> Result<()> {
    // SAFETY: no arguments.
    unsafe { smx_empty_cache() };
    checked("emptying the cache of a device", ())
}

/// A place in a device's stream.
#[derive(Debug)]
pub(crate) struct Event(*mut c_void);

// SAFETY: an event is used through shared references by calls that only wait, which any thread may do.
unsafe impl Send for Event {}

impl Event {
    pub(crate) fn record(device: i32) -> Result<Self> {
        // SAFETY: numbers only.
        let event = unsafe { smx_event_record(device) };
        checked("recording an event", Self(event))
    }

    pub(crate) fn synchronize(&self) -> Result<()> {
        // SAFETY: the event lives as long as `self`.
        unsafe { smx_event_synchronize(self.0) };
        checked("waiting for an event", ())
    }

    pub(crate) fn milliseconds_to(&self, end: &Self) -> Result<f64> {
        // SAFETY: both events live until the call returns.
        let time = unsafe { smx_event_milliseconds(self.0, end.0) };
        checked("timing events", time)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `record`, or null, which C++ deletes without effect; dropped once.
        unsafe { smx_event_drop(self.0) }
    }
}

pub(crate) fn generator_state(device: i32) -> Result<Tensor> {
    // SAFETY: numbers only.
    let made = unsafe { smx_generator_state(device) };
    taken("reading a generator", made)
}

pub(crate) fn set_generator_state(device: i32, state: &Tensor) -> Result<()> {
    // SAFETY: the tensor lives until the call returns.
    unsafe { smx_set_generator_state(device, pointer(state)) };
    checked("setting a generator", ())
}

/// Bytes of a contiguous tensor in host memory.
pub(crate) fn bytes_mut(tensor: &mut Tensor) -> &mut [u8] {
    let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if length == 0 {
        return &mut [];
    }
    // SAFETY: the callers pass contiguous tensors of the host that share their storage with nobody; they are borrowed.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), length) }
}
