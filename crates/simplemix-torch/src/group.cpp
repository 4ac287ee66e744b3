// Processes that work together: c10d's store and Gloo group as libtorch has them, and NCCL through its C interface.
//
// A group's work is finished in the order in which it was given. Functions that fail return null or zero, and leave the
// error's text to smx_take_error of the same thread.
#define USE_C10D_GLOO
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sum.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "guarded.h"

using at::Tensor;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

namespace {

using Store = c10::intrusive_ptr<c10d::Store>;

std::string text(const uint8_t *bytes, size_t length) { return {reinterpret_cast<const char *>(bytes), length}; }

struct Work {
  virtual ~Work() = default;
  // Whether the work is done, after at most so long on the host; what follows on the device comes after it.
  virtual bool wait(milliseconds limit) = 0;
};

struct Group {
  virtual ~Group() = default;
  virtual Work *all_reduce(Tensor tensor) = 0;
  virtual Work *reduce_scatter(Tensor output, Tensor input) = 0;
  virtual Work *all_gather(Tensor output, Tensor input) = 0;
  virtual Work *broadcast(Tensor tensor, int root) = 0;
  // Milliseconds since the oldest work that is not done was given; 0 if there is none. Throws if the group has failed.
  virtual int64_t pending() = 0;
  // Milliseconds for which the device has waited for work, by now.
  virtual double waited() { return 0; }
  // Ends what is under way, where that can be had.
  virtual void abort() = 0;
};

int64_t since(Clock::time_point start) {
  return std::chrono::duration_cast<milliseconds>(Clock::now() - start).count() + 1;
}

struct GlooWork : Work {
  c10::intrusive_ptr<c10d::Work> work;
  explicit GlooWork(c10::intrusive_ptr<c10d::Work> work) : work(std::move(work)) {}

  bool wait(milliseconds limit) override {
    // Its own wait with a limit throws where time is up, as it does where the work has failed.
    const auto end = Clock::now() + limit;
    auto pause = std::chrono::microseconds(20);
    while (!work->isCompleted()) {
      if (Clock::now() >= end) return false;
      std::this_thread::sleep_for(pause);
      pause = std::min(pause * 2, std::chrono::microseconds(1000));
    }
    work->wait();
    return true;
  }
};

// Parts of a sum that all ranks have sent, which are added in the order of the ranks. c10d's own scatters what it has
// all-reduced, for twice the bytes.
struct ScatterWork : GlooWork {
  Tensor parts, output;
  ScatterWork(c10::intrusive_ptr<c10d::Work> work, Tensor parts, Tensor output)
      : GlooWork(std::move(work)), parts(std::move(parts)), output(std::move(output)) {}

  bool wait(milliseconds limit) override {
    if (!GlooWork::wait(limit)) return false;
    at::NoGradGuard no_gradients;
    const bool is_half = at::isReducedFloatingType(parts.scalar_type());
    const auto kind = is_half ? at::kFloat : parts.scalar_type();
    output.view({-1}).copy_(at::sum(parts, {0}, false, kind));
    return true;
  }
};

// While work is given to any group of the process: libtorch 2.11 keeps a map of all of them in its flight recorder and adds to it
// without a lock. Giving work does not wait for it.
std::mutex giving;

struct Gloo : Group {
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group;
  std::mutex mutex;
  std::deque<std::pair<c10::intrusive_ptr<c10d::Work>, Clock::time_point>> given;

  explicit Gloo(c10::intrusive_ptr<c10d::ProcessGroupGloo> group) : group(std::move(group)) {}

  void note(const c10::intrusive_ptr<c10d::Work> &work) {
    std::lock_guard<std::mutex> lock(mutex);
    while (!given.empty() && given.front().first->isCompleted()) given.pop_front();
    given.emplace_back(work, Clock::now());
  }
  template <typename Give>
  c10::intrusive_ptr<c10d::Work> given_by(Give give) {
    std::lock_guard<std::mutex> lock(giving);
    return give();
  }
  template <typename Give>
  Work *begin(Give give) {
    auto work = given_by(give);
    note(work);
    return new GlooWork(std::move(work));
  }

  Work *all_reduce(Tensor tensor) override {
    std::vector<Tensor> all{tensor};
    return begin([&] { return group->allreduce(all); });
  }
  Work *reduce_scatter(Tensor output, Tensor input) override {
    auto rows = input.view({group->getSize(), -1});
    auto parts = at::empty_like(rows);
    std::vector<int64_t> equal;
    auto work = given_by([&] { return group->alltoall_base(parts, rows, equal, equal); });
    note(work);
    return new ScatterWork(std::move(work), std::move(parts), std::move(output));
  }
  Work *all_gather(Tensor output, Tensor input) override {
    return begin([&] { return group->_allgather_base(output, input); });
  }
  Work *broadcast(Tensor tensor, int root) override {
    std::vector<Tensor> all{tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return begin([&] { return group->broadcast(all, options); });
  }
  int64_t pending() override {
    std::lock_guard<std::mutex> lock(mutex);
    while (!given.empty() && given.front().first->isCompleted()) given.pop_front();
    return given.empty() ? 0 : since(given.front().second);
  }
  void abort() override {}
};

// NCCL's C interface, version 2: names, types and numbers as in its nccl.h.
struct ncclUniqueId {
  char internal[128];
};
using ncclComm_t = struct ncclComm *;
enum : int { ncclSuccess = 0, ncclInProgress = 7 };
enum : int { ncclSum = 0 };

struct Nccl {
  int (*GetVersion)(int *);
  int (*GetUniqueId)(ncclUniqueId *);
  int (*CommInitRank)(ncclComm_t *, int, ncclUniqueId, int);
  int (*CommDestroy)(ncclComm_t);
  int (*CommAbort)(ncclComm_t);
  int (*CommGetAsyncError)(ncclComm_t, int *);
  int (*AllReduce)(const void *, void *, size_t, int, int, ncclComm_t, void *);
  int (*ReduceScatter)(const void *, void *, size_t, int, int, ncclComm_t, void *);
  int (*AllGather)(const void *, void *, size_t, int, ncclComm_t, void *);
  int (*Broadcast)(const void *, void *, size_t, int, int, ncclComm_t, void *);
  const char *(*GetErrorString)(int);
  const char *(*GetLastError)(ncclComm_t);

  // The library that torch has loaded, or one that the loader finds. It stays loaded.
  static Nccl load(const std::string &name) {
    void *library = dlopen(name.c_str(), RTLD_NOW | RTLD_NOLOAD);
    if (library == nullptr) library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    TORCH_CHECK(library != nullptr, dlerror());
    const auto symbol = [&](const char *symbol) {
      void *found = dlsym(library, symbol);
      TORCH_CHECK(found != nullptr, name, " has no ", symbol);
      return found;
    };
    Nccl nccl;
#define SYMBOL(name) nccl.name = reinterpret_cast<decltype(nccl.name)>(symbol("nccl" #name))
    SYMBOL(GetVersion);
    SYMBOL(GetUniqueId);
    SYMBOL(CommInitRank);
    SYMBOL(CommDestroy);
    SYMBOL(CommAbort);
    SYMBOL(CommGetAsyncError);
    SYMBOL(AllReduce);
    SYMBOL(ReduceScatter);
    SYMBOL(AllGather);
    SYMBOL(Broadcast);
    SYMBOL(GetErrorString);
    SYMBOL(GetLastError);
#undef SYMBOL
    return nccl;
  }

  void check(int result, ncclComm_t comm, const char *call) const {
    if (result == ncclSuccess || result == ncclInProgress) return;
    TORCH_CHECK(false, call, ": ", GetErrorString(result), "; ", GetLastError(comm));
  }

  static int kind(const Tensor &tensor) {
    switch (tensor.scalar_type()) {
      case at::kChar: return 0;
      case at::kByte: return 1;
      case at::kInt: return 2;
      case at::kLong: return 4;
      case at::kHalf: return 6;
      case at::kFloat: return 7;
      case at::kDouble: return 8;
      case at::kBFloat16: return 9;
      default: TORCH_CHECK(false, "NCCL has no kind of numbers like ", tensor.scalar_type());
    }
  }
};

// The stream that collective work has to itself, and the one that computes; none for tensors of the host, which only a stand-in
// library takes.
struct Streams {
  std::optional<c10::Stream> own;

  explicit Streams(at::Device device) {
    if (device.is_cpu()) return;
    own = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, true);
  }

  static c10::Stream computing(at::Device device) {
    return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  }

  void *handle() const { return own ? own->native_handle() : nullptr; }

  // What is given from now on comes after what has been computed.
  void follow() const {
    if (!own) return;
    c10::Event event(own->device_type());
    event.record(computing(own->device()));
    event.block(*own);
  }
};

// Times for which the stream that computes has waited for work.
struct Waits {
  std::mutex mutex;
  std::deque<std::pair<c10::Event, c10::Event>> under_way;
  double time = 0;

  // What is computed from now on comes after `done`.
  void wait_for(const c10::Event &done, const c10::Stream &computing) {
    const auto timed = [&] {
      c10::Event event(computing.device_type(), c10::EventFlag::BACKEND_DEFAULT);
      event.record(computing);
      return event;
    };
    auto start = timed();
    done.block(computing);
    auto end = timed();
    std::lock_guard<std::mutex> lock(mutex);
    under_way.emplace_back(std::move(start), std::move(end));
  }
  double total() {
    std::lock_guard<std::mutex> lock(mutex);
    while (!under_way.empty() && under_way.front().second.query()) {
      time += under_way.front().first.elapsedTime(under_way.front().second);
      under_way.pop_front();
    }
    return time;
  }
};

struct NcclWork : Work {
  // Kept until what is computed comes after the work: memory that is freed earlier could be used again at once, as the allocator
  // knows of the computing stream alone.
  std::vector<Tensor> tensors;
  std::shared_ptr<c10::Event> done;
  std::shared_ptr<Waits> waits;

  // Also where nobody has waited, as after an error.
  ~NcclWork() override {
    try {
      wait({});
    } catch (...) {
      // The device is lost, and its memory with it.
    }
  }
  // The host goes on; what is computed from now on comes after the work.
  bool wait(milliseconds) override {
    if (done) waits->wait_for(*done, Streams::computing(tensors.front().device()));
    done.reset();
    return true;
  }
};

struct NcclGroup : Group {
  Nccl nccl;
  ncclComm_t comm;
  Streams streams;
  std::shared_ptr<Waits> waits = std::make_shared<Waits>();
  // Held during a call of the library, which takes one at a time, and may wait for other ranks in it.
  std::timed_mutex calls;
  // Of what follows. Never held during such a call, as whoever looks for ranks that do not come needs it.
  std::mutex mutex;
  std::deque<std::pair<std::shared_ptr<c10::Event>, Clock::time_point>> given;
  std::optional<Clock::time_point> calling;
  bool aborted = false;

  NcclGroup(Nccl nccl, ncclComm_t comm, at::Device device) : nccl(nccl), comm(comm), streams(device) {}
  ~NcclGroup() override {
    if (!aborted) nccl.CommDestroy(comm);
  }

  void begin_call() {
    std::lock_guard<std::mutex> lock(mutex);
    TORCH_CHECK(!aborted, "the group was aborted");
    calling = Clock::now();
  }
  // Takes note of work that the library has taken. An aborted group has no communicator to be asked for a reason.
  void end_call(int result, const char *call, const std::shared_ptr<c10::Event> &done) {
    std::lock_guard<std::mutex> lock(mutex);
    calling.reset();
    TORCH_CHECK(!aborted, call, ": the group was aborted");
    nccl.check(result, comm, call);
    if (done) given.emplace_back(done, Clock::now());
  }

  template <class F> Work *give(const char *call, std::vector<Tensor> tensors, F &&work) {
    std::lock_guard<std::timed_mutex> one(calls);
    for (const auto &tensor : tensors) TORCH_CHECK(tensor.is_contiguous(), call, " takes contiguous tensors");
    auto result = std::make_unique<NcclWork>();
    std::shared_ptr<c10::Event> done;
    begin_call();
    int returned = ncclSuccess;
    {
      // Threads of backward passes and others may have another device.
      c10::OptionalDeviceGuard guard;
      if (streams.own) guard.reset_device(streams.own->device());
      streams.follow();
      returned = work();
      if (streams.own) {
        done = std::make_shared<c10::Event>(streams.own->device_type());
        done->record(*streams.own);
      }
    }
    result->tensors = std::move(tensors);
    result->done = done;
    result->waits = waits;
    end_call(returned, call, done);
    return result.release();
  }

  Work *all_reduce(Tensor tensor) override {
    return give("ncclAllReduce", {tensor}, [&] {
      return nccl.AllReduce(tensor.data_ptr(), tensor.data_ptr(), tensor.numel(), Nccl::kind(tensor), ncclSum, comm,
                            streams.handle());
    });
  }
  Work *reduce_scatter(Tensor output, Tensor input) override {
    return give("ncclReduceScatter", {output, input}, [&] {
      return nccl.ReduceScatter(input.data_ptr(), output.data_ptr(), output.numel(), Nccl::kind(input), ncclSum, comm,
                                streams.handle());
    });
  }
  Work *all_gather(Tensor output, Tensor input) override {
    return give("ncclAllGather", {output, input}, [&] {
      return nccl.AllGather(input.data_ptr(), output.data_ptr(), input.numel(), Nccl::kind(input), comm, streams.handle());
    });
  }
  Work *broadcast(Tensor tensor, int root) override {
    return give("ncclBroadcast", {tensor}, [&] {
      return nccl.Broadcast(tensor.data_ptr(), tensor.data_ptr(), tensor.numel(), Nccl::kind(tensor), root, comm,
                            streams.handle());
    });
  }

  int64_t pending() override {
    // One call at a time: a call under way finds errors itself.
    std::unique_lock<std::timed_mutex> one(calls, std::try_to_lock);
    std::lock_guard<std::mutex> lock(mutex);
    if (aborted) return 0;
    if (one) {
      int result = ncclSuccess;
      nccl.check(nccl.CommGetAsyncError(comm, &result), comm, "ncclCommGetAsyncError");
      nccl.check(result, comm, "a collective of NCCL");
    }
    while (!given.empty() && given.front().first->query()) given.pop_front();
    int64_t longest = calling ? since(*calling) : 0;
    if (!given.empty()) longest = std::max(longest, since(given.front().second));
    return longest;
  }
  double waited() override { return waits->total(); }
  void abort() override {
    {
      std::lock_guard<std::mutex> lock(mutex);
      if (aborted) return;
      aborted = true;
    }
    // A call that waits for a rank that has ended goes on until this; one that does not is let finish.
    std::unique_lock<std::timed_mutex> one(calls, std::chrono::seconds(2));
    nccl.CommAbort(comm);
  }
};

} // namespace

extern "C" {

// Keeps c10d from writing its own reports of what it throws as well, unless the user asks for them.
void smx_group_quiet() {
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = 3;
}

// A store that this process keeps (with port 0 on a port that is free), or one that another keeps.
Store *smx_store_open(const uint8_t *host, size_t length, uint16_t port, bool keeps, int64_t timeout) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = keeps;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout);
    return new Store(c10::make_intrusive<c10d::TCPStore>(text(host, length), options));
  });
}

uint16_t smx_store_port(const Store *store) {
  return guarded([&] { return dynamic_cast<c10d::TCPStore &>(**store).getPort(); });
}

// A connection of its own to the same store, under a prefix more.
Store *smx_store_clone(const Store *store, const uint8_t *prefix, size_t length, int64_t timeout) {
  return guarded([&] {
    auto clone = (*store)->clone();
    clone->setTimeout(milliseconds(timeout));
    if (length == 0) return new Store(std::move(clone));
    return new Store(c10::make_intrusive<c10d::PrefixStore>(text(prefix, length), std::move(clone)));
  });
}

void smx_store_set(const Store *store, const uint8_t *key, size_t length, const uint8_t *value, size_t bytes) {
  guarded([&] {
    (*store)->set(text(key, length), std::vector<uint8_t>(value, value + bytes));
    return true;
  });
}

// Gives the value to `take`; waits for the key up to the store's time limit.
void smx_store_get(const Store *store, const uint8_t *key, size_t length, void *to,
                   void (*take)(void *, const uint8_t *, size_t)) {
  guarded([&] {
    const auto value = (*store)->get(text(key, length));
    take(to, value.data(), value.size());
    return true;
  });
}

bool smx_store_has(const Store *store, const uint8_t *key, size_t length) {
  return guarded([&] { return (*store)->check({text(key, length)}); });
}

int64_t smx_store_add(const Store *store, const uint8_t *key, size_t length, int64_t number) {
  return guarded([&] { return (*store)->add(text(key, length), number); });
}

void smx_store_drop(Store *store) {
  guarded([&] {
    delete store;
    return true;
  });
}

// `interface` is the name of a network interface, or empty for the one that this machine's name leads to.
Group *smx_gloo_open(const Store *store, int rank, int size, const uint8_t *interface, size_t length, int64_t timeout) {
  return guarded([&]() -> Group * {
    auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(timeout));
    const auto name = text(interface, length);
    options->devices.push_back(name.empty() ? c10d::ProcessGroupGloo::createDefaultDevice()
                                            : c10d::ProcessGroupGloo::createDeviceForInterface(name));
    auto group = c10::make_intrusive<c10d::ProcessGroupGloo>(*store, rank, size, options);
    // From here on the signs of life of the others say how long to wait.
    group->setTimeout(std::chrono::hours(24 * 365));
    return new Gloo(std::move(group));
  });
}

int smx_nccl_version(const uint8_t *library, size_t length) {
  return guarded([&] {
    const auto nccl = Nccl::load(text(library, length));
    int version = 0;
    nccl.check(nccl.GetVersion(&version), nullptr, "ncclGetVersion");
    return version;
  });
}

// A number by which the ranks of a new group find each other: 128 bytes.
void smx_nccl_id(const uint8_t *library, size_t length, uint8_t *id) {
  guarded([&] {
    const auto nccl = Nccl::load(text(library, length));
    ncclUniqueId made;
    nccl.check(nccl.GetUniqueId(&made), nullptr, "ncclGetUniqueId");
    std::memcpy(id, made.internal, sizeof made.internal);
    return true;
  });
}

// Returns once all ranks have come. The device, none for the host, must be the thread's.
Group *smx_nccl_open(const uint8_t *library, size_t length, const uint8_t *id, int rank, int size, int device) {
  return guarded([&]() -> Group * {
    const auto nccl = Nccl::load(text(library, length));
    ncclUniqueId known;
    std::memcpy(known.internal, id, sizeof known.internal);
    ncclComm_t comm = nullptr;
    nccl.check(nccl.CommInitRank(&comm, size, known, rank), comm, "ncclCommInitRank");
    const auto place = device < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<at::DeviceIndex>(device));
    return new NcclGroup(nccl, comm, place);
  });
}

Work *smx_all_reduce(Group *group, const Tensor *tensor) {
  return guarded([&] { return group->all_reduce(*tensor); });
}

Work *smx_reduce_scatter(Group *group, const Tensor *output, const Tensor *input) {
  return guarded([&] { return group->reduce_scatter(*output, *input); });
}

Work *smx_all_gather(Group *group, const Tensor *output, const Tensor *input) {
  return guarded([&] { return group->all_gather(*output, *input); });
}

Work *smx_broadcast(Group *group, const Tensor *tensor, int root) {
  return guarded([&] { return group->broadcast(*tensor, root); });
}

int64_t smx_group_pending(Group *group) {
  return guarded([&] { return group->pending(); });
}

double smx_group_waited(Group *group) {
  return guarded([&] { return group->waited(); });
}

void smx_group_abort(Group *group) {
  guarded([&] {
    group->abort();
    return true;
  });
}

void smx_group_drop(Group *group) {
  guarded([&] {
    delete group;
    return true;
  });
}

bool smx_work_wait(Work *work, int64_t limit) {
  return guarded([&] { return work->wait(milliseconds(limit)); });
}

void smx_work_drop(Work *work) {
  guarded([&] {
    delete work;
    return true;
  });
}

} // extern "C"
