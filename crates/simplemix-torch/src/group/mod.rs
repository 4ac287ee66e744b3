//! Processes that work together, one a device: c10d's store and its Gloo group on CPUs, NCCL's C interface on GPUs.
//!
//! Started by torchrun, Slurm or whatever sets the same variables, each process has a [`Place`] and opens a [`Group`]. All ranks
//! give their group the same work in the same order. A rank that fails, ends or stands still becomes an error of all others,
//! which names it.

mod fellows;
mod native;
mod place;
mod store;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tch::{Device, Tensor};

use self::fellows::Fellows;
pub use self::place::Place;
use self::store::Store;
pub use self::store::StoreKeeper;
use crate::device;
use crate::error::{Error, Result};

/// Name of NCCL's library, which PyTorch with CUDA brings.
pub const NCCL_LIBRARY: &str = "libnccl.so.2";

/// Time limit of groups on CPUs.
const GLOO_LIMIT: Duration = Duration::from_secs(120);
/// Time limit of groups on GPUs.
const NCCL_LIMIT: Duration = Duration::from_secs(600);

/// Time after which a wait looks whether another rank has failed.
const GLANCE: Duration = Duration::from_millis(100);

/// Way in which the processes of a group exchange tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// c10d's Gloo, for tensors of the host.
    Gloo,
    /// NCCL, for tensors of a CUDA device.
    Nccl,
}

/// Settings of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupOptions {
    /// Time after which a rank that others wait for, and that does nothing new, is an error.
    pub limit: Duration,
    /// Network interface of Gloo; the one that this machine's name leads to if none. As GLOO_SOCKET_IFNAME for PyTorch.
    pub interface: Option<String>,
    /// Library of NCCL.
    pub nccl: String,
}

impl GroupOptions {
    /// 2 minutes on CPUs and 10 on GPUs, and the interface that GLOO_SOCKET_IFNAME names.
    pub fn for_device(device: Device) -> Self {
        Self {
            limit: if device == Device::Cpu { GLOO_LIMIT } else { NCCL_LIMIT },
            interface: std::env::var("GLOO_SOCKET_IFNAME").ok().filter(|name| !name.is_empty()),
            nccl: NCCL_LIBRARY.to_owned(),
        }
    }
}

/// Work that a group has done by now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls.
    pub calls: u64,
    /// Bytes that this rank has to send by the theory of rings: for N processes `2 (N - 1) / N` of an all-reduced tensor,
    /// `(N - 1) / N` of a whole one that is gathered or scattered, all of one that rank 0 broadcasts.
    pub bytes: u64,
    /// Time that this rank has waited for others: its host, and its GPU, whose time is known once it is done with what came before.
    pub waited: Duration,
}

/// Processes that work together.
#[derive(Debug)]
pub struct Group {
    place: Place,
    backend: Backend,
    native: Arc<native::Group>,
    fellows: Arc<Fellows>,
    store: Store,
    traffic: Arc<Mutex<Traffic>>,
}

/// Work under way, whose tensors may not be used before [`Work::wait`].
#[derive(Debug)]
#[must_use = "the tensors are whole after `wait` only"]
pub struct Work {
    fellows: Arc<Fellows>,
    traffic: Arc<Mutex<Traffic>>,
    native: native::Work,
}

impl Group {
    /// Connects the processes; returns once all have come.
    ///
    /// # Errors
    /// [`Error::Store`] if the store cannot be reached; [`Error::Rank`] if a rank does not come in time; [`Error::Differs`] if the
    /// ranks mean groups of another size or kind; [`Error::Argument`] for a number that two processes have; [`Error::Torch`] if
    /// the processes cannot be connected.
    pub fn open(place: &Place, device: Device, options: &GroupOptions) -> Result<Self> {
        let store = Store::open(place, options.limit)?;
        let fellows = Fellows::begin(place, &store, options.limit)?;
        match connect(place, device, &store, &fellows, options) {
            Ok((backend, native)) => Ok(Self::of(place, backend, native, fellows, store)),
            Err(error) => {
                fellows.fail(&store, &error.to_string());
                Err(error)
            }
        }
    }

    /// A group of NCCL over tensors of the host, for tests with a library that stands in for NCCL.
    #[cfg(test)]
    fn open_stand_in(place: &Place, options: &GroupOptions) -> Result<Self> {
        let store = Store::open(place, options.limit)?;
        let fellows = Fellows::begin(place, &store, options.limit)?;
        let native = open_nccl(&store, &fellows, (place.rank, place.size), -1, options)?;
        Ok(Self::of(place, Backend::Nccl, native, fellows, store))
    }

    fn of(place: &Place, backend: Backend, native: native::Group, fellows: Fellows, store: Store) -> Self {
        let native = Arc::new(native);
        fellows.add(&native);
        let fellows = Arc::new(fellows);
        Self { place: place.clone(), backend, native, fellows, store, traffic: Arc::default() }
    }

    /// Place of this process.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Number of this process.
    pub fn rank(&self) -> usize {
        self.place.rank
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.place.size
    }

    /// Way in which tensors are exchanged.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Time after which a rank that others wait for, and that does nothing new, is an error.
    pub fn limit(&self) -> Duration {
        self.fellows.limit()
    }

    /// Work done by now.
    ///
    /// # Errors
    /// [`Error::Torch`] if the device is lost.
    pub fn traffic(&self) -> Result<Traffic> {
        let traffic = *counted(&self.traffic);
        Ok(Traffic { waited: traffic.waited + self.native.waited()?, ..traffic })
    }

    /// Tells the others what this rank does, so that an error can say it: a rank that others wait for counts as standing still
    /// if this does not change within the time limit.
    pub fn does(&self, text: &str) {
        self.fellows.does(text, false);
    }

    /// As [`Group::does`], for work that may take any time until the next call of [`Group::does`], such as writing a checkpoint.
    pub fn does_at_length(&self, text: &str) {
        self.fellows.does(text, true);
    }

    /// Begins to add up `tensor` over all ranks, in an order that their number decides.
    ///
    /// # Errors
    /// [`Error::Argument`] for a tensor that is not contiguous; [`Error::Rank`] if another rank has failed; [`Error::Torch`].
    pub fn all_reduce(&self, tensor: &Tensor, doing: &'static str) -> Result<Work> {
        contiguous("tensor", tensor)?;
        self.begin(doing, 2 * self.share(tensor), |group| group.all_reduce(tensor))
    }

    /// Begins to add up `input` `[N * n, ...]` over all ranks; this rank's n rows of it go to `output` `[n, ...]`.
    ///
    /// # Errors
    /// As [`Group::all_reduce`], and [`Error::Argument`] for shapes that do not fit.
    pub fn reduce_scatter(&self, output: &Tensor, input: &Tensor, doing: &'static str) -> Result<Work> {
        self.parts(output, input)?;
        self.begin(doing, self.share(input), |group| group.reduce_scatter(output, input))
    }

    /// Begins to gather `input` `[n, ...]` of all ranks, in their order, in `output` `[N * n, ...]`.
    ///
    /// # Errors
    /// As [`Group::reduce_scatter`].
    pub fn all_gather(&self, output: &Tensor, input: &Tensor, doing: &'static str) -> Result<Work> {
        self.parts(input, output)?;
        self.begin(doing, self.share(output), |group| group.all_gather(output, input))
    }

    /// Begins to copy `tensor` of rank `root` to all others.
    ///
    /// # Errors
    /// As [`Group::all_reduce`], and [`Error::Argument`] for a rank that is none.
    pub fn broadcast(&self, tensor: &Tensor, root: usize, doing: &'static str) -> Result<Work> {
        contiguous("tensor", tensor)?;
        if root >= self.size() {
            return Err(Error::argument("root", root, format!("below {}, the number of processes", self.size())));
        }
        let bytes = if root == self.rank() { bytes(tensor) } else { 0 };
        self.begin(doing, bytes, |group| group.broadcast(tensor, root))
    }

    /// Waits until all ranks have come here, and until their devices have done what came before.
    ///
    /// # Errors
    /// [`Error::Rank`] if another rank has failed or does not come in time.
    pub fn barrier(&self, doing: &'static str) -> Result<()> {
        let one = Tensor::ones([1], (tch::Kind::Float, self.device_of_barrier()));
        self.all_reduce(&one, doing)?.wait()?;
        if self.backend == Backend::Nccl {
            // The host comes no earlier than the device.
            let _ = one.double_value(&[0]);
            self.check()?;
        }
        Ok(())
    }

    fn device_of_barrier(&self) -> Device {
        match self.backend {
            Backend::Gloo => Device::Cpu,
            Backend::Nccl if device::count() == 0 => Device::Cpu,
            Backend::Nccl => Device::Cuda(self.place.local_rank),
        }
    }

    /// Sees that `value` is the same for all ranks; `what` says in an error what differs.
    ///
    /// # Errors
    /// [`Error::Differs`]; [`Error::Rank`] if another rank has failed or does not come in time.
    pub fn agree(&self, what: &str, value: &str) -> Result<()> {
        agree(&self.place, &self.store, &self.fellows, (what, value))
    }

    /// An error if a rank has failed by now. On GPUs the host runs ahead, so that this is to be asked after each number that is
    /// read from the device.
    ///
    /// # Errors
    /// [`Error::Rank`].
    pub fn check(&self) -> Result<()> {
        self.fellows.check()
    }

    /// Tells all others that this rank fails, and why; the process should end then.
    pub fn fail(&self, reason: &str) {
        self.fellows.fail(&self.store, reason);
    }

    /// Ends working together: waits for all others, since the store ends with the process that keeps it.
    ///
    /// # Errors
    /// [`Error::Torch`] if the store does not answer.
    pub fn leave(self) -> Result<()> {
        self.fellows.does("done", true);
        self.fellows.leave(&self.store)
    }

    fn begin(
        &self,
        doing: &'static str,
        bytes: u64,
        work: impl FnOnce(&native::Group) -> Result<native::Work>,
    ) -> Result<Work> {
        self.check()?;
        self.fellows.gives(doing);
        let native = work(&self.native).map_err(|error| self.fellows.blame(error))?;
        let mut traffic = counted(&self.traffic);
        traffic.calls += 1;
        traffic.bytes += bytes;
        drop(traffic);
        Ok(Work { fellows: Arc::clone(&self.fellows), traffic: Arc::clone(&self.traffic), native })
    }

    /// Bytes of a whole tensor that a rank sends once around a ring.
    fn share(&self, whole: &Tensor) -> u64 {
        let ranks = self.size() as u64;
        bytes(whole) * (ranks - 1) / ranks
    }

    fn parts(&self, part: &Tensor, whole: &Tensor) -> Result<()> {
        contiguous("part", part)?;
        contiguous("whole", whole)?;
        if part.numel() * self.size() != whole.numel() || part.kind() != whole.kind() {
            let found = format!("{:?} of {:?}", whole.size(), whole.kind());
            let expected = format!("{} times {:?} of {:?}", self.size(), part.size(), part.kind());
            return Err(Error::argument("whole", found, expected));
        }
        Ok(())
    }
}

/// Connects the processes once they have met.
fn connect(
    place: &Place,
    device: Device,
    store: &Store,
    fellows: &Fellows,
    options: &GroupOptions,
) -> Result<(Backend, native::Group)> {
    let ranks = (place.rank, place.size);
    meet(place, store, fellows, if device.is_cuda() { "GPU" } else { "CPU" })?;
    Ok(match device {
        Device::Cuda(number) => (Backend::Nccl, open_nccl(store, fellows, ranks, number as i32, options)?),
        _ => (Backend::Gloo, open_gloo(store, fellows, ranks, options)?),
    })
}

/// Sees that all ranks are there, each once, and mean the same group.
fn meet(place: &Place, store: &Store, fellows: &Fellows, device: &str) -> Result<()> {
    let taken = store.add(&format!("rank/{}", place.rank), 1).map_err(|error| fellows.blame(error))?;
    if taken > 1 {
        let found = format!("{}, as it is for another process", place.rank);
        return Err(Error::argument("RANK", found, "a number of its own for each process"));
    }
    agree(place, store, fellows, ("number of processes", &place.size.to_string()))?;
    agree(place, store, fellows, ("kind of device", device))
}

/// Sees that a value, whose name comes first, is the same for all ranks.
fn agree(place: &Place, store: &Store, fellows: &Fellows, (what, value): (&str, &str)) -> Result<()> {
    let number = fellows.gives(&format!("comparing the {what}"));
    let key = |rank: usize| format!("agree/{number}/{what}/{rank}");
    store.set(&key(place.rank), value).map_err(|error| fellows.blame(error))?;
    for rank in 0..place.size {
        let other = told(store, fellows, &key(rank))?;
        if other != value {
            // All tell it in one order of ranks, whoever sees it first.
            let mut sides = [(rank, other), (place.rank, value.to_owned())];
            sides.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
            let [(rank, other), (own_rank, own)] = sides;
            return Err(Error::Differs { what: what.to_owned(), rank, other, own_rank, own });
        }
    }
    Ok(())
}

/// A value that another rank has told or will tell.
fn told(store: &Store, fellows: &Fellows, key: &str) -> Result<String> {
    fellows.waits(true);
    let mut pause = Duration::from_millis(2);
    let found = loop {
        match fellows.check().and_then(|()| store.find(key).map_err(|error| fellows.blame(error))) {
            Ok(None) => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(GLANCE);
            }
            Ok(Some(value)) => break Ok(value),
            Err(error) => break Err(error),
        }
    };
    fellows.waits(false);
    found
}

/// Connects the processes through Gloo.
fn open_gloo(store: &Store, fellows: &Fellows, ranks: (usize, usize), options: &GroupOptions) -> Result<native::Group> {
    let interface = options.interface.as_deref().unwrap_or_default();
    native::Group::gloo(store.native(), ranks, interface, options.limit).map_err(|error| fellows.blame(error))
}

/// Connects the GPUs through NCCL: rank 0 makes a number by which all find each other.
fn open_nccl(
    store: &Store,
    fellows: &Fellows,
    ranks: (usize, usize),
    device: i32,
    options: &GroupOptions,
) -> Result<native::Group> {
    const KEY: &str = "nccl";
    if ranks.0 == 0 {
        tracing::debug!(library = options.nccl, version = native::nccl_version(&options.nccl)?, "connecting the GPUs");
        store.set_bytes(KEY, &native::nccl_id(&options.nccl)?)?;
    }
    let id = store.get_bytes(KEY).map_err(|error| fellows.blame(error))?;
    let id: [u8; 128] = id.try_into().map_err(|id: Vec<u8>| Error::argument("nccl", id.len(), "128 bytes"))?;
    let (sender, receiver) = mpsc::channel();
    let library = options.nccl.clone();
    // The call has no time limit of its own, so this thread is left behind where it does not end.
    std::thread::Builder::new().name("nccl".to_owned()).spawn(move || {
        let select = if device < 0 { Ok(()) } else { device::select(Device::Cuda(device as usize)) };
        let _ = sender.send(select.and_then(|()| native::Group::nccl(&library, &id, ranks, device)));
    })?;
    let end = now() + options.limit;
    loop {
        match receiver.recv_timeout(GLANCE) {
            Ok(group) => return group.map_err(|error| fellows.blame(error)),
            Err(_) => fellows.check()?,
        }
        if now() >= end {
            let text = format!("not all ranks have come within {:?}", options.limit);
            return Err(fellows.blame(Error::Torch { doing: "connecting the GPUs", text }));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.check().is_err() {
            self.native.leave_there();
        }
    }
}

impl Work {
    /// Waits until the tensors are whole. On a GPU the host goes on, and what it gives the device from now on comes after.
    ///
    /// # Errors
    /// [`Error::Rank`] if another rank has failed or does not come in time; [`Error::Torch`].
    pub fn wait(self) -> Result<()> {
        let start = now();
        let waited = self.until_done();
        counted(&self.traffic).waited += start.elapsed();
        waited
    }

    fn until_done(&self) -> Result<()> {
        while !self.native.wait(GLANCE).map_err(|error| self.fellows.blame(error))? {
            self.fellows.check()?;
        }
        Ok(())
    }
}

fn counted(traffic: &Mutex<Traffic>) -> MutexGuard<'_, Traffic> {
    traffic.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "limits of waits, and time that was waited")]
fn now() -> Instant {
    Instant::now()
}

fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

fn contiguous(name: &'static str, tensor: &Tensor) -> Result<()> {
    if tensor.is_contiguous() {
        return Ok(());
    }
    Err(Error::argument(name, format!("not contiguous: strides {:?}", tensor.stride()), "a contiguous tensor"))
}
