//! Calls into `group.cpp`, behind functions that are safe for any tensors and texts.
#![expect(unsafe_code, reason = "foreign functions; each block says why it is sound")]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::error::Result;
use crate::native::checked;

type Pointer = *mut C_tensor;
type Take = unsafe extern "C" fn(*mut c_void, *const u8, usize);

unsafe extern "C" {
    fn smx_group_quiet();
    fn smx_store_open(host: *const u8, length: usize, port: u16, keeps: bool, timeout: i64) -> *mut c_void;
    fn smx_store_port(store: *const c_void) -> u16;
    fn smx_store_clone(store: *const c_void, prefix: *const u8, length: usize, timeout: i64) -> *mut c_void;
    fn smx_store_set(store: *const c_void, key: *const u8, length: usize, value: *const u8, bytes: usize);
    fn smx_store_get(store: *const c_void, key: *const u8, length: usize, to: *mut c_void, take: Take);
    fn smx_store_has(store: *const c_void, key: *const u8, length: usize) -> bool;
    fn smx_store_add(store: *const c_void, key: *const u8, length: usize, number: i64) -> i64;
    fn smx_store_drop(store: *mut c_void);
    fn smx_gloo_open(
        store: *const c_void,
        rank: c_int,
        size: c_int,
        interface: *const u8,
        length: usize,
        timeout: i64,
    ) -> *mut c_void;
    fn smx_nccl_version(library: *const u8, length: usize) -> c_int;
    fn smx_nccl_id(library: *const u8, length: usize, id: *mut u8);
    fn smx_nccl_open(
        library: *const u8,
        length: usize,
        id: *const u8,
        rank: c_int,
        size: c_int,
        device: c_int,
    ) -> *mut c_void;
    fn smx_all_reduce(group: *mut c_void, tensor: Pointer) -> *mut c_void;
    fn smx_reduce_scatter(group: *mut c_void, output: Pointer, input: Pointer) -> *mut c_void;
    fn smx_all_gather(group: *mut c_void, output: Pointer, input: Pointer) -> *mut c_void;
    fn smx_broadcast(group: *mut c_void, tensor: Pointer, root: c_int) -> *mut c_void;
    fn smx_group_pending(group: *mut c_void) -> i64;
    fn smx_group_waited(group: *mut c_void) -> f64;
    fn smx_group_abort(group: *mut c_void);
    fn smx_group_drop(group: *mut c_void);
    fn smx_work_wait(work: *mut c_void, limit: i64) -> bool;
    fn smx_work_drop(work: *mut c_void);
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn pointer(tensor: &Tensor) -> Pointer {
    tensor.as_ptr().cast_mut()
}

/// A connection to a store.
#[derive(Debug)]
pub(super) struct Store(*mut c_void);

// SAFETY: c10d's stores take a lock for each request, so any thread may use one.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    pub(super) fn open(host: &str, port: u16, keeps: bool, limit: Duration) -> Result<Self> {
        // SAFETY: no arguments; a number is set, which c10d reads before it writes to the terminal.
        unsafe { smx_group_quiet() };
        // SAFETY: the text lives until the call returns.
        let store = unsafe { smx_store_open(host.as_ptr(), host.len(), port, keeps, milliseconds(limit)) };
        checked("connecting to the store", Self(store))
    }

    pub(super) fn port(&self) -> Result<u16> {
        // SAFETY: the store lives as long as `self`, as in all functions below.
        checked("asking for the store's port", unsafe { smx_store_port(self.0) })
    }

    pub(super) fn under(&self, prefix: &str, limit: Duration) -> Result<Self> {
        // SAFETY: the text lives until the call returns.
        let store = unsafe { smx_store_clone(self.0, prefix.as_ptr(), prefix.len(), milliseconds(limit)) };
        checked("connecting to the store", Self(store))
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        // SAFETY: key and value live until the call returns.
        unsafe { smx_store_set(self.0, key.as_ptr(), key.len(), value.as_ptr(), value.len()) };
        checked("writing to the store", ())
    }

    pub(super) fn get(&self, key: &str) -> Result<Vec<u8>> {
        let mut value: Vec<u8> = Vec::new();
        // SAFETY: the key lives until the call returns, and `take` is called with the vector while the call lasts.
        unsafe { smx_store_get(self.0, key.as_ptr(), key.len(), (&raw mut value).cast(), take_value) };
        checked("reading from the store", value)
    }

    pub(super) fn has(&self, key: &str) -> Result<bool> {
        // SAFETY: the key lives until the call returns.
        checked("reading from the store", unsafe { smx_store_has(self.0, key.as_ptr(), key.len()) })
    }

    pub(super) fn add(&self, key: &str, number: i64) -> Result<i64> {
        // SAFETY: the key lives until the call returns.
        checked("counting in the store", unsafe { smx_store_add(self.0, key.as_ptr(), key.len(), number) })
    }
}

unsafe extern "C" fn take_value(to: *mut c_void, bytes: *const u8, length: usize) {
    // SAFETY: `to` is the vector of `get`, and the bytes live until this returns; none may be at a null address.
    unsafe {
        if length > 0 {
            (*to.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(bytes, length));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by `open` or `under`, or null, which C++ deletes without effect; dropped once.
        unsafe { smx_store_drop(self.0) }
    }
}

/// A group's connections.
#[derive(Debug)]
pub(super) struct Group {
    group: *mut c_void,
    is_left: AtomicBool,
}

// SAFETY: groups take a lock for what they keep, and c10d's and NCCL's calls may come from any thread. That ranks call in one
// order is asked of the users.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

impl Group {
    fn new(group: *mut c_void) -> Self {
        Self { group, is_left: AtomicBool::new(false) }
    }

    pub(super) fn gloo(store: &Store, (rank, size): (usize, usize), interface: &str, limit: Duration) -> Result<Self> {
        let (name, length) = (interface.as_ptr(), interface.len());
        // SAFETY: store and text live until the call returns; the group counts its own use of the store.
        let group = unsafe { smx_gloo_open(store.0, rank as c_int, size as c_int, name, length, milliseconds(limit)) };
        checked("connecting the processes", Self::new(group))
    }

    pub(super) fn nccl(library: &str, id: &[u8; 128], (rank, size): (usize, usize), device: i32) -> Result<Self> {
        let (name, length) = (library.as_ptr(), library.len());
        // SAFETY: text and number live until the call returns. The library is trusted as libtorch is.
        let group = unsafe { smx_nccl_open(name, length, id.as_ptr(), rank as c_int, size as c_int, device) };
        checked("connecting the GPUs", Self::new(group))
    }

    pub(super) fn all_reduce(&self, tensor: &Tensor) -> Result<Work> {
        // SAFETY: group and tensors live until the call returns, and the work counts its own use of the tensors, as below.
        Work::begun(unsafe { smx_all_reduce(self.group, pointer(tensor)) })
    }

    pub(super) fn reduce_scatter(&self, output: &Tensor, input: &Tensor) -> Result<Work> {
        // SAFETY: as above.
        Work::begun(unsafe { smx_reduce_scatter(self.group, pointer(output), pointer(input)) })
    }

    pub(super) fn all_gather(&self, output: &Tensor, input: &Tensor) -> Result<Work> {
        // SAFETY: as above.
        Work::begun(unsafe { smx_all_gather(self.group, pointer(output), pointer(input)) })
    }

    pub(super) fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Work> {
        // SAFETY: as above.
        Work::begun(unsafe { smx_broadcast(self.group, pointer(tensor), root as c_int) })
    }

    /// Time since the oldest work was given that is not done.
    pub(super) fn pending(&self) -> Result<Duration> {
        // SAFETY: the group lives as long as `self`.
        let time = unsafe { smx_group_pending(self.group) };
        checked("asking for the work of a group", Duration::from_millis(time.max(0) as u64))
    }

    /// Time for which the device has waited for work.
    pub(super) fn waited(&self) -> Result<Duration> {
        // SAFETY: as above.
        let time = unsafe { smx_group_waited(self.group) };
        checked("asking for the time that a device has waited", Duration::from_secs_f64(time.max(0.0) / 1e3))
    }

    pub(super) fn abort(&self) -> Result<()> {
        // SAFETY: as above.
        unsafe { smx_group_abort(self.group) };
        checked("ending the work of a group", ())
    }

    /// Leaves the group in memory for good: ending what is under way could last for ever.
    pub(super) fn leave_there(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_left.load(Ordering::Relaxed) {
            // SAFETY: made by one of the functions above, or null, which C++ deletes without effect; dropped once.
            unsafe { smx_group_drop(self.group) }
        }
    }
}

/// Work that a group was given.
#[derive(Debug)]
pub(super) struct Work(*mut c_void);

// SAFETY: the work is used by one thread at a time, whichever it is.
unsafe impl Send for Work {}

impl Work {
    fn begun(work: *mut c_void) -> Result<Self> {
        checked("giving work to a group", Self(work))
    }

    /// Whether the work is done, after at most `limit`.
    pub(super) fn wait(&self, limit: Duration) -> Result<bool> {
        // SAFETY: the work lives as long as `self`.
        checked("working together with other processes", unsafe { smx_work_wait(self.0, milliseconds(limit)) })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: made by a group, or null, which C++ deletes without effect; dropped once.
        unsafe { smx_work_drop(self.0) }
    }
}

/// Version of NCCL, as in 22809 for 2.28.9.
pub(super) fn nccl_version(library: &str) -> Result<i32> {
    // SAFETY: the text lives until the call returns.
    checked("loading NCCL", unsafe { smx_nccl_version(library.as_ptr(), library.len()) })
}

/// A number by which the ranks of a new group find each other.
pub(super) fn nccl_id(library: &str) -> Result<[u8; 128]> {
    let mut id = [0; 128];
    // SAFETY: the text lives until the call returns, and there is room for 128 bytes.
    unsafe { smx_nccl_id(library.as_ptr(), library.len(), id.as_mut_ptr()) };
    checked("starting NCCL", id)
}
